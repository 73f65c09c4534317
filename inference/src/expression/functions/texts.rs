//! The functions of texts, and what makes texts numbers and numbers texts.

use rhai::{Dynamic, Engine};
use serde_json::Value;

use super::{Refusal, binary, integer, number, unary};
use crate::expression::value::{compound, text, to_json};

/// All of them.
pub(super) fn texts(engine: &mut Engine) {
    change(engine, "lower", str::to_lowercase);
    change(engine, "trim", |text| text.trim().to_owned());
    change(engine, "upper", str::to_uppercase);
    test(engine, "ends_with", |text, part| text.ends_with(part));
    test(engine, "starts_with", |text, part| text.starts_with(part));
    unary(engine, "len", |value| {
        let length = match (text(value), &*compound(value)) {
            (Some(text), _) => text.chars().count(),
            (None, Value::Array(list)) => list.len(),
            (None, Value::Object(object)) => object.len(),
            _ => return Err(Refusal::Takes("a text, a list or an object")),
        };
        Ok(Dynamic::from(length as i64))
    });
    unary(engine, "text", |value| {
        match (text(value), value.as_bool()) {
            (Some(text), _) => Ok(text.into()),
            (None, Ok(bool)) => Ok(bool.to_string().into()),
            // As JSON has it.
            (None, Err(_)) => number(value).map(|_| to_json(value).to_string().into()),
        }
    });
    unary(engine, "number", |value| {
        let Some(text) = text(value) else {
            return match value.as_bool() {
                Ok(bool) => integer(i64::from(bool)),
                Err(_) => number(value).map(|_| value.clone()),
            };
        };
        let text = text.trim();
        Ok(match (text.parse::<i64>(), text.parse::<f64>()) {
            (Ok(int), _) => int.into(),
            (_, Ok(float)) if float.is_finite() => float.into(),
            _ => Dynamic::UNIT,
        })
    });
}

fn change(engine: &mut Engine, name: &'static str, function: fn(&str) -> String) {
    unary(engine, name, move |value| {
        let text = text(value).ok_or(Refusal::Takes("a text"))?;
        Ok(function(&text).into())
    });
}

fn test(engine: &mut Engine, name: &'static str, function: fn(&str, &str) -> bool) {
    binary(engine, name, move |value, part| {
        match (text(value), text(part)) {
            (Some(value), Some(part)) => Ok(function(&value, &part).into()),
            _ => Err(Refusal::Takes("two texts")),
        }
    });
}
