//! JSON values as the engine has them, and what they are to the operators.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::sync::Arc;

use rhai::{Dynamic, ImmutableString};
use serde_json::Value;

/// An object or a list, which expressions only hand on, look into with `in`, and measure.
#[derive(Clone, Debug)]
pub(super) struct Compound(pub Arc<Value>);

/// A number, finite.
#[derive(Clone, Copy, Debug)]
pub(super) enum Number {
    /// Exact.
    Int(i64),
    /// Finite.
    Float(f64),
}

impl Number {
    /// Where the value is one.
    pub fn of(value: &Dynamic) -> Option<Self> {
        let float = || value.as_float().map(Self::Float);
        value.as_int().map(Self::Int).or_else(|_| float()).ok()
    }

    /// The nearest float.
    pub fn float(self) -> f64 {
        match self {
            Self::Int(int) => int as f64,
            Self::Float(float) => float,
        }
    }
}

/// Where the value is one.
pub(super) fn text(value: &Dynamic) -> Option<ImmutableString> {
    let text = value.as_immutable_string_ref().ok()?;
    Some(text.clone())
}

/// Equal where they are numbers of one size, or the same texts or booleans; null equals nothing.
pub(super) fn equal(left: &Dynamic, right: &Dynamic) -> bool {
    match (left.as_bool(), right.as_bool()) {
        (Ok(left), Ok(right)) => left == right,
        _ => order(left, right) == Some(Ordering::Equal),
    }
}

/// Of two numbers, or two texts.
pub(super) fn order(left: &Dynamic, right: &Dynamic) -> Option<Ordering> {
    match (Number::of(left), Number::of(right)) {
        (Some(Number::Int(left)), Some(Number::Int(right))) => Some(left.cmp(&right)),
        (Some(left), Some(right)) => left.float().partial_cmp(&right.float()),
        _ => {
            let left = left.as_immutable_string_ref().ok()?;
            Some(left.cmp(&*right.as_immutable_string_ref().ok()?))
        }
    }
}

/// What a value is, for messages.
pub(super) fn kind(value: &Dynamic) -> &'static str {
    if value.is_unit() {
        "null"
    } else if value.is_bool() {
        "a boolean"
    } else if value.is_string() {
        "a text"
    } else if Number::of(value).is_some() {
        "a number"
    } else if value.is_array() || matches!(&*compound(value), Value::Array(_)) {
        "a list"
    } else {
        "an object"
    }
}

/// The object or list that a value is, otherwise null.
pub(super) fn compound(value: &Dynamic) -> Arc<Value> {
    let compound = value.read_lock::<Compound>();
    compound.map_or_else(Arc::default, |compound| compound.0.clone())
}

/// A JSON value for the engine. Integers that 64 bits with a sign do not hold become floats.
pub(super) fn from_json(value: Cow<'_, Value>) -> Dynamic {
    match &*value {
        Value::Null => Dynamic::UNIT,
        Value::Bool(bool) => (*bool).into(),
        Value::String(text) => ImmutableString::from(text.as_str()).into(),
        Value::Number(number) => match number.as_i64() {
            Some(int) => int.into(),
            None => number.as_f64().map_or(Dynamic::UNIT, Dynamic::from),
        },
        Value::Array(_) | Value::Object(_) => Dynamic::from(Compound(Arc::new(value.into_owned()))),
    }
}

/// A value of the engine as JSON; what JSON has not is null.
pub(super) fn to_json(value: &Dynamic) -> Value {
    if let Ok(bool) = value.as_bool() {
        return bool.into();
    }
    if let Ok(text) = value.as_immutable_string_ref() {
        return text.as_str().into();
    }
    match Number::of(value) {
        Some(Number::Int(int)) => int.into(),
        Some(Number::Float(float)) => float.into(),
        None => Arc::unwrap_or_clone(compound(value)),
    }
}
