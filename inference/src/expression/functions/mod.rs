//! The operators and functions of the language, and the engine that knows these and nothing else.
//!
//! The engine's own operators are not used: they take floats for equal that are nearly so, divide integers
//! to integers, and null equals null.

mod mathematics;
mod operators;
mod texts;

use std::any::TypeId;
use std::sync::LazyLock;

use rhai::{Array, Dynamic, Engine, EvalAltResult, ImmutableString};

use super::value::{Compound, Number, kind};

/// Deepest nesting: a bracket takes two levels, an operator after another one.
const MAX_DEPTH: usize = 128;
/// Most steps of an evaluation. Without loops no expression comes near.
const MAX_OPERATIONS: u64 = 10_000;

/// The functions, with the fewest and the most values that they take.
pub(super) const FUNCTIONS: [(&str, (usize, usize)); 22] = [
    ("abs", (1, 1)),
    ("ceil", (1, 1)),
    ("ends_with", (2, 2)),
    ("exp", (1, 1)),
    ("floor", (1, 1)),
    ("is_null", (1, 1)),
    ("len", (1, 1)),
    ("log", (1, 1)),
    ("log10", (1, 1)),
    ("log1p", (1, 1)),
    ("lower", (1, 1)),
    ("max", (2, 2)),
    ("min", (2, 2)),
    ("number", (1, 1)),
    ("pow", (2, 2)),
    ("round", (1, 2)),
    ("sign", (1, 1)),
    ("sqrt", (1, 1)),
    ("starts_with", (2, 2)),
    ("text", (1, 1)),
    ("trim", (1, 1)),
    ("upper", (1, 1)),
];

/// Why an operator or function has no value.
enum Refusal {
    /// For values of other kinds; this is what it takes.
    Takes(&'static str),
    /// NaN, or beyond what a float holds.
    NotFinite,
}

type Outcome = Result<Dynamic, Refusal>;

/// For all expressions.
pub(super) static ENGINE: LazyLock<Engine> = LazyLock::new(|| {
    let mut engine = Engine::new_raw();
    engine
        .set_fast_operators(false)
        .set_strict_variables(true)
        .set_max_expr_depths(MAX_DEPTH)
        .set_max_operations(MAX_OPERATIONS);
    operators::comparisons(&mut engine);
    operators::arithmetic(&mut engine);
    mathematics::mathematics(&mut engine);
    texts::texts(&mut engine);
    engine
});

fn number(value: &Dynamic) -> Result<Number, Refusal> {
    Number::of(value).ok_or(Refusal::Takes("a number"))
}

fn integer(value: i64) -> Outcome {
    Ok(value.into())
}

fn finite(value: f64) -> Outcome {
    if value.is_finite() {
        Ok(value.into())
    } else {
        Err(Refusal::NotFinite)
    }
}

/// The types of values, for each of which a function is known, so that no other is ever looked for.
fn types() -> [TypeId; 7] {
    [
        TypeId::of::<()>(),
        TypeId::of::<bool>(),
        TypeId::of::<i64>(),
        TypeId::of::<f64>(),
        TypeId::of::<ImmutableString>(),
        TypeId::of::<Array>(),
        TypeId::of::<Compound>(),
    ]
}

fn unary(
    engine: &mut Engine,
    name: &'static str,
    function: impl Fn(&Dynamic) -> Outcome + Copy + Send + Sync + 'static,
) {
    for value in types() {
        engine.register_raw_fn(name, [value], move |_, values| {
            function(&*values[0]).map_err(|refusal| refused(name, &refusal, values))
        });
    }
}

fn binary(
    engine: &mut Engine,
    name: &'static str,
    function: impl Fn(&Dynamic, &Dynamic) -> Outcome + Copy + Send + Sync + 'static,
) {
    for left in types() {
        for right in types() {
            engine.register_raw_fn(name, [left, right], move |_, values| {
                let outcome = function(&*values[0], &*values[1]);
                outcome.map_err(|refusal| refused(name, &refusal, values))
            });
        }
    }
}

fn refused(name: &str, refusal: &Refusal, values: &[&mut Dynamic]) -> Box<EvalAltResult> {
    let mut kinds: Vec<&str> = values.iter().map(|value| kind(value)).collect();
    let name = match name {
        "contains" => {
            kinds.reverse();
            "in"
        }
        other => other,
    };
    match refusal {
        Refusal::NotFinite => format!("{name} gives no finite number").into(),
        Refusal::Takes(wanted) => {
            format!("{name} takes {wanted}, not {}", kinds.join(" and ")).into()
        }
    }
}
