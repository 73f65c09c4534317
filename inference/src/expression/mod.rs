//! Expressions over a record, its features and the model's output; and templates made of them.
//!
//! An expression is read once, and evaluated for each record. It can look up values and compute with them, and
//! nothing else: it has no statements, loops or side effects.
//!
//! ```text
//! score >= 0.9
//! label == "fraud" && $f.n_5m > 3
//! $in.country in ["CZ", "DE"] || is_null($in.card)
//! round(($in.amount ?? 0) / 100, 2)
//! ```
//!
//! # References
//!
//! | written | what it is |
//! |---|---|
//! | `$in.card.items[0].price` | a field of the input record |
//! | `$out.scores.fraud` | a member of the model's output |
//! | `$f.n_5m` | a feature |
//! | `$in`, `$out`, `$f` | all of it |
//! | `label`, `score`, `scores`, `value`, `embedding`, `anomaly` | short for `$out.label` and so on; `scores.fraud` too |
//!
//! Names in a path are letters, digits and `_`. Any other that a JSON path can have is written
//! `$in["user-agent"]`: one without blanks, quotes and `. [ ] * ?`.
//!
//! # Values
//!
//! Values are JSON's: numbers, texts, booleans, null, lists and objects. Literals are `1`, `0.5`, `1e-3`, `true`,
//! `false`, and texts in `"` or `'` with the escapes `\\ \" \' \n \r \t`.
//!
//! Integers of 64 bits are exact. An integer and a float together are computed and compared as 64-bit floats, and so
//! is what has no exact integer result: `7 / 2` is 3.5, `6 / 2` is 3.0, a sum that 64 bits do not hold is a float.
//! No number is ever NaN or infinite: what would be, a division by zero too, is an error. An expression that is one
//! reference gives the value as it is.
//!
//! What is missing is null. A comparison with null is false, but `!=` is true: null does not even equal null, ask
//! `is_null(x)`. `x ?? y` is y where x is null. Everything else that is given null is an error.
//!
//! # Operators
//!
//! From those that bind closest; equals go from left to right.
//!
//! | | |
//! |---|---|
//! | `-x` `+x` `!x` | of a number; of a boolean |
//! | `*` `/` `%` | numbers; the remainder has the sign of what is divided |
//! | `+` `-` | numbers; `+` also puts two texts together, 1 MiB at most |
//! | `??` | the first that is not null |
//! | `<` `<=` `>` `>=` | two numbers, or two texts by their characters |
//! | `in` | `label in ["a", "b"]`, `$in.x in $in.list`: the list has it; `"a" in label`: the text has it |
//! | `==` `!=` | values of different kinds are not equal; lists and objects are not compared |
//! | `&&` | booleans; what follows false is not evaluated |
//! | `\|\|` | booleans; what follows true is not evaluated |
//!
//! # Functions
//!
//! | | |
//! |---|---|
//! | `abs(x)` `sign(x)` `sqrt(x)` `exp(x)` `log(x)` `log10(x)` `log1p(x)` `pow(x, y)` | of numbers; `sign` is -1, 0 or 1 |
//! | `floor(x)` `ceil(x)` `round(x)` | an integer; halves are rounded away from zero |
//! | `round(x, n)` | to n digits after the point, 15 at most |
//! | `min(x, y)` `max(x, y)` | of two numbers |
//! | `len(x)` | a text's characters, a list's elements, an object's members |
//! | `lower(s)` `upper(s)` `trim(s)` | of a text; `trim` takes off blanks at both ends |
//! | `starts_with(s, t)` `ends_with(s, t)` | whether the text s does with t |
//! | `text(x)` | of a number, boolean or text |
//! | `number(x)` | of a text, boolean or number; null where the text is none |
//! | `is_null(x)` | whether x is null |
//!
//! # Limits
//!
//! An expression has at most 1 KiB, 63 brackets within one another, and 126 operators in a row.

mod functions;
mod lexer;
mod reference;
mod template;
mod value;

#[cfg(test)]
mod tests;

use std::fmt::Write;
use std::sync::Arc;

use rhai::{AST, EvalAltResult, ParseErrorType};
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub(crate) use reference::write_json;
pub use reference::{Reference, Root, Scope};
pub use template::{Template, TemplateError};

use functions::ENGINE;
use lexer::{Lexed, lex, variable};

/// Longest expression in bytes.
pub const MAX_BYTES: usize = 1024;
/// How much of a text an error shows, in characters.
const MAX_SHOWN_CHARS: usize = 64;
/// How many references an error shows.
const MAX_SHOWN_REFERENCES: usize = 8;

/// An expression, read and ready. Equal to another of the same text.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Expression {
    text: String,
    references: Vec<Reference>,
    /// The references as they were written.
    names: Vec<String>,
    is_reference: bool,
    code: Arc<AST>,
}

/// Why a text is no expression.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not an expression: {reason}")]
pub struct ExpressionError {
    /// As it was written, or how it begins.
    pub text: String,
    /// What is wrong.
    pub reason: String,
}

/// Why an expression has no value for a record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expression {expression:?} has no value: {reason}{values}")]
pub struct EvaluationError {
    /// As it was written.
    pub expression: String,
    /// What went wrong.
    pub reason: String,
    /// What it refers to, as in `, where $in.a is null and score is 0.5`.
    pub values: String,
}

impl Expression {
    /// Reads an expression.
    pub fn parse(text: &str) -> Result<Self, ExpressionError> {
        let fail = |reason| ExpressionError {
            text: shown(text),
            reason,
        };
        if text.len() > MAX_BYTES {
            let length = text.len();
            return Err(fail(format!(
                "it has {length} bytes, more than {MAX_BYTES}"
            )));
        }
        let lexed = lex(text).map_err(fail)?;
        let is_reference = lexed.references.len() == 1 && lexed.names[0] == text.trim();
        let code = compile(&lexed, text).map_err(fail)?;
        Ok(Self {
            text: text.to_owned(),
            references: lexed.references,
            names: lexed.names,
            is_reference,
            code: Arc::new(code),
        })
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// What it refers to, each once.
    pub fn references(&self) -> &[Reference] {
        &self.references
    }

    /// Its value for a record.
    pub fn evaluate(&self, scope: &dyn Scope) -> Result<Value, EvaluationError> {
        if let Some(reference) = self.only_reference() {
            return Ok(scope.get(reference).into_owned());
        }
        let mut variables = rhai::Scope::new();
        for (index, reference) in self.references.iter().enumerate() {
            variables.push_dynamic(variable(index), value::from_json(scope.get(reference)));
        }
        match ENGINE.eval_ast_with_scope(&mut variables, &self.code) {
            Ok(value) => Ok(value::to_json(&value)),
            Err(error) => Err(self.failure(reason(*error), scope)),
        }
    }

    /// Whether it is true for a record, where it is to be true or false.
    pub fn is_true(&self, scope: &dyn Scope) -> Result<bool, EvaluationError> {
        match self.evaluate(scope)? {
            Value::Bool(bool) => Ok(bool),
            other => {
                let reason = format!("it gives {}, neither true nor false", brief(&other));
                Err(self.failure(reason, scope))
            }
        }
    }

    /// The reference that is all of it.
    fn only_reference(&self) -> Option<&Reference> {
        self.references.first().filter(|_| self.is_reference)
    }

    fn failure(&self, reason: String, scope: &dyn Scope) -> EvaluationError {
        let mut values = String::new();
        let named = self.references.iter().zip(&self.names);
        for (index, (reference, name)) in named.take(MAX_SHOWN_REFERENCES).enumerate() {
            let before = if index == 0 { ", where" } else { " and" };
            let _ = write!(
                values,
                "{before} {name} is {}",
                brief(&scope.get(reference))
            );
        }
        EvaluationError {
            expression: self.text.clone(),
            reason,
            values,
        }
    }
}

fn compile(lexed: &Lexed, text: &str) -> Result<AST, String> {
    let mut variables = rhai::Scope::new();
    for index in 0..lexed.references.len() {
        variables.push(variable(index), ());
    }
    let compiled = ENGINE.compile_expression_with_scope(&variables, &lexed.code);
    compiled.map_err(|error| {
        let source = |column| lexed.source(text, column);
        match (*error.0, error.1.position().and_then(source)) {
            (ParseErrorType::ExprTooDeep, _) => "it is nested too deep".to_owned(),
            (_, None) => "it ends where a value or an operator is missing".to_owned(),
            (ParseErrorType::MismatchedType(..), Some(source)) => {
                format!("&& and || take true or false, not {source:?}")
            }
            (_, Some(source)) => format!("unexpected {source:?}"),
        }
    })
}

fn reason(error: EvalAltResult) -> String {
    match error {
        EvalAltResult::ErrorRuntime(reason, _) => reason.to_string(),
        EvalAltResult::ErrorMismatchDataType(..) => "&& and || take true or false".to_owned(),
        other => other.to_string(),
    }
}

/// A value in an error.
fn brief(value: &Value) -> String {
    match value {
        Value::String(text) => format!("{:?}", shown(text)),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
        scalar => scalar.to_string(),
    }
}

fn shown(text: &str) -> String {
    text.chars().take(MAX_SHOWN_CHARS).collect()
}

impl std::fmt::Debug for Expression {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Expression({:?})", self.text)
    }
}

impl PartialEq for Expression {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Expression {}

impl TryFrom<String> for Expression {
    type Error = ExpressionError;

    fn try_from(text: String) -> Result<Self, ExpressionError> {
        Self::parse(&text)
    }
}

impl From<Expression> for String {
    fn from(expression: Expression) -> Self {
        expression.text
    }
}
