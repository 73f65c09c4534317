//! The operators, `pow`, and `is_null`.

use std::borrow::Cow;
use std::cmp::Ordering;

use rhai::{Dynamic, Engine};
use serde_json::Value;

use super::{Outcome, Refusal, binary, finite, integer, number, unary};
use crate::expression::value::{Compound, Number, compound, equal, from_json, order, text};

/// Longest text that an operator makes, in bytes.
const MAX_TEXT_BYTES: usize = 1 << 20;

/// What compares, and `!`.
pub(super) fn comparisons(engine: &mut Engine) {
    binary(engine, "==", |left, right| Ok(same(left, right)?.into()));
    binary(engine, "!=", |left, right| Ok((!same(left, right)?).into()));
    ordering(engine, "<", Ordering::is_lt);
    ordering(engine, "<=", Ordering::is_le);
    ordering(engine, ">", Ordering::is_gt);
    ordering(engine, ">=", Ordering::is_ge);
    // What `in` calls, with what is at its right first.
    binary(engine, "contains", |within, value| {
        if within.is_unit() || value.is_unit() {
            return Ok(false.into());
        }
        if let (Some(within), Some(value)) = (text(within), text(value)) {
            return Ok(within.contains(value.as_str()).into());
        }
        if let Ok(list) = within.as_array_ref() {
            return Ok(list.iter().any(|element| equal(element, value)).into());
        }
        match &*compound(within) {
            Value::Array(list) => {
                let is_value = |element| equal(&from_json(Cow::Borrowed(element)), value);
                Ok(list.iter().any(is_value).into())
            }
            _ => Err(Refusal::Takes("a list at its right, or two texts")),
        }
    });
    unary(engine, "is_null", |value| Ok(value.is_unit().into()));
    unary(engine, "!", |value| {
        let bool = value
            .as_bool()
            .map_err(|_| Refusal::Takes("true or false"))?;
        Ok((!bool).into())
    });
}

/// For `==` and `!=`.
fn same(left: &Dynamic, right: &Dynamic) -> Result<bool, Refusal> {
    let is_null = left.is_unit() || right.is_unit();
    if !is_null && (left.is::<Compound>() || right.is::<Compound>()) {
        return Err(Refusal::Takes("numbers, texts and booleans"));
    }
    Ok(equal(left, right))
}

fn ordering(engine: &mut Engine, name: &'static str, holds: fn(Ordering) -> bool) {
    binary(engine, name, move |left, right| {
        if left.is_unit() || right.is_unit() {
            return Ok(false.into());
        }
        let order = order(left, right).ok_or(Refusal::Takes("two numbers or two texts"))?;
        Ok(holds(order).into())
    });
}

/// What computes.
pub(super) fn arithmetic(engine: &mut Engine) {
    binary(engine, "+", |left, right| match (text(left), text(right)) {
        (Some(left), Some(right)) if left.len() + right.len() > MAX_TEXT_BYTES => {
            Err(Refusal::Takes("texts of 1 MiB at most together"))
        }
        (Some(left), Some(right)) => Ok((left + right).into()),
        (None, None) => calculate(left, right, i64::checked_add, |left, right| left + right),
        _ => Err(Refusal::Takes("two numbers or two texts")),
    });
    binary(engine, "-", |left, right| {
        calculate(left, right, i64::checked_sub, |left, right| left - right)
    });
    binary(engine, "*", |left, right| {
        calculate(left, right, i64::checked_mul, |left, right| left * right)
    });
    binary(engine, "/", |left, right| {
        calculate(left, right, |_, _| None, |left, right| left / right)
    });
    binary(engine, "%", |left, right| {
        calculate(left, right, i64::checked_rem, |left, right| left % right)
    });
    binary(engine, "pow", |left, right| {
        let exact = |left: i64, right: i64| left.checked_pow(right.try_into().ok()?);
        calculate(left, right, exact, f64::powf)
    });
    unary(engine, "-", |value| match number(value)? {
        Number::Int(int) => int
            .checked_neg()
            .map_or_else(|| finite(-(int as f64)), integer),
        Number::Float(float) => finite(-float),
    });
    unary(engine, "+", |value| number(value).map(|_| value.clone()));
}

/// Of two integers, where there is an exact result; otherwise of floats.
fn calculate(
    left: &Dynamic,
    right: &Dynamic,
    exact: fn(i64, i64) -> Option<i64>,
    float: fn(f64, f64) -> f64,
) -> Outcome {
    let numbers = (Number::of(left), Number::of(right));
    let (Some(left), Some(right)) = numbers else {
        return Err(Refusal::Takes("two numbers"));
    };
    if let (Number::Int(left), Number::Int(right)) = (left, right)
        && let Some(result) = exact(left, right)
    {
        return integer(result);
    }
    finite(float(left.float(), right.float()))
}
