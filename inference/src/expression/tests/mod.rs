mod bounds;
mod errors;
mod language;
mod templates;

use std::borrow::Cow;

use serde_json::{Value, json};

use super::*;
use crate::feature::{JsonPath, Step};

/// `$in`, `$out` and `$f` as members of one value.
struct Record(Value);

impl Scope for Record {
    fn get(&self, reference: &Reference) -> Cow<'_, Value> {
        let root = match reference.root {
            Root::In => "in",
            Root::Out => "out",
            Root::Features => "f",
        };
        let steps = reference.path.as_ref().map_or(&[][..], JsonPath::steps);
        let found = steps
            .iter()
            .try_fold(&self.0[root], |value, step| match step {
                Step::Name(name) => value.get(name),
                Step::Index(index) => value.get(index),
            });
        found.map_or(Cow::Owned(Value::Null), Cow::Borrowed)
    }
}

fn record() -> Record {
    Record(json!({
        "in": {
            "i": 7, "x": 2.5, "s": "Žluťoučký", "t": true, "nothing": null, "zero": 0,
            "list": ["a", 1, 2.0, null, {"k": 1}], "object": {"k": 1, "user-agent": "curl"},
            "big": 9_007_199_254_740_993_i64, "huge": u64::MAX, "most": i64::MAX, "least": i64::MIN,
            "in": 3, "items": [{"price": 10}],
        },
        "out": {"label": "fraud", "score": 0.9, "scores": {"ok": 0.1, "fraud": 0.9}, "value": 4, "embedding": [0.5, -1]},
        "f": {"n_5m": 4, "ratio": 0.25},
    }))
}

fn value(text: &str) -> Value {
    let expression = Expression::parse(text).unwrap_or_else(|error| panic!("{error}"));
    expression
        .evaluate(&record())
        .unwrap_or_else(|error| panic!("{error}"))
}

fn failure(text: &str) -> String {
    let expression = Expression::parse(text).unwrap_or_else(|error| panic!("{error}"));
    match expression.evaluate(&record()) {
        Ok(value) => panic!("{text} gave {value}"),
        Err(error) => error.to_string(),
    }
}

fn refusal(text: &str) -> String {
    match Expression::parse(text) {
        Ok(_) => panic!("{text:?} was taken"),
        Err(error) => {
            // Nothing that only the engine knows.
            assert!(
                !error.reason.contains("r_") || text.contains("r_"),
                "{error}"
            );
            error.reason
        }
    }
}

#[track_caller]
fn all(cases: &[(&str, Value)]) {
    for (text, expected) in cases {
        let value = value(text);
        assert_eq!(value, *expected, "{text}");
        // 3 and 3.0 are different to it, but say so here.
        assert_eq!(value.to_string(), expected.to_string(), "{text}");
    }
}
