//! The functions of numbers.

use std::cmp::Ordering;

use rhai::Engine;

use super::{Outcome, Refusal, binary, finite, integer, number, unary};
use crate::expression::value::{Number, order};

/// Most digits that `round` leaves.
const MAX_DIGITS: i64 = 15;

/// All of them.
pub(super) fn mathematics(engine: &mut Engine) {
    real(engine, "exp", f64::exp);
    real(engine, "log", f64::ln);
    real(engine, "log10", f64::log10);
    real(engine, "log1p", f64::ln_1p);
    real(engine, "sqrt", f64::sqrt);
    rounding(engine, "ceil", f64::ceil);
    rounding(engine, "floor", f64::floor);
    rounding(engine, "round", f64::round);
    binary(engine, "round", |value, digits| {
        match (number(value)?, digits.as_int()) {
            (value, Ok(digits @ 0..=MAX_DIGITS)) => {
                let scale = 10f64.powi(digits as i32);
                match value {
                    Number::Int(int) => integer(int),
                    // What is too large for it has no such digits.
                    Number::Float(float) if !(float * scale).is_finite() => finite(float),
                    Number::Float(float) => finite((float * scale).round() / scale),
                }
            }
            _ => Err(Refusal::Takes("a number, and how many digits, at most 15")),
        }
    });
    unary(engine, "abs", |value| match number(value)? {
        Number::Int(int) => int
            .checked_abs()
            .map_or_else(|| finite((int as f64).abs()), integer),
        Number::Float(float) => finite(float.abs()),
    });
    unary(engine, "sign", |value| {
        let float = number(value)?.float();
        integer(i64::from(float > 0.0) - i64::from(float < 0.0))
    });
    for (name, other) in [("max", Ordering::Greater), ("min", Ordering::Less)] {
        binary(engine, name, move |left, right| {
            if Number::of(left).is_none() || Number::of(right).is_none() {
                return Err(Refusal::Takes("two numbers"));
            }
            let taken = if order(right, left) == Some(other) {
                right
            } else {
                left
            };
            Ok(taken.clone())
        });
    }
}

fn real(engine: &mut Engine, name: &'static str, function: fn(f64) -> f64) {
    unary(engine, name, move |value| {
        finite(function(number(value)?.float()))
    });
}

fn rounding(engine: &mut Engine, name: &'static str, function: fn(f64) -> f64) {
    unary(engine, name, move |value| match number(value)? {
        Number::Int(int) => integer(int),
        Number::Float(float) => whole(function(float)),
    });
}

/// An integer where 64 bits hold it.
fn whole(value: f64) -> Outcome {
    // 2^63 itself is the first that they do not.
    match (i64::MIN as f64..-(i64::MIN as f64)).contains(&value) {
        true => integer(value as i64),
        false => finite(value),
    }
}
