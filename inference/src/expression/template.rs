//! Templates: a derived record's value, with expressions in it.
//!
//! A TOML table becomes a JSON object with its members in the order of the file. A string that begins with `$` is
//! an expression: `"$out.score"`, `"$in.amount / 100"`. One that begins otherwise is put in brackets:
//! `"$(round(score, 2))"`. `$$` is a `$`: `"$$5"` is the text `$5`. All else stands for itself.

use bytes::BytesMut;
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use super::reference::write_json;
use super::{EvaluationError, Expression, Reference, Scope};

/// A template, read and ready.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Table", into = "Table")]
pub struct Template {
    table: Table,
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq)]
enum Part {
    Json(String),
    Expression(Expression),
}

/// Why a table is no template.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{member}: {reason}")]
pub struct TemplateError {
    /// Where, as in `template.a.b[0]`.
    pub member: String,
    /// What is wrong.
    pub reason: String,
}

impl Template {
    /// What it refers to; what it refers to twice comes twice.
    pub fn references(&self) -> impl Iterator<Item = &Reference> {
        self.parts.iter().flat_map(|part| match part {
            Part::Json(_) => &[],
            Part::Expression(expression) => expression.references(),
        })
    }

    /// Appends its JSON for a record, or nothing where an expression has no value.
    pub fn render(&self, scope: &dyn Scope, out: &mut BytesMut) -> Result<(), EvaluationError> {
        let start = out.len();
        let mut write = |part: &Part| {
            match part {
                Part::Json(json) => out.extend_from_slice(json.as_bytes()),
                Part::Expression(expression) => match expression.only_reference() {
                    Some(reference) => scope.write(reference, out),
                    None => write_json(&expression.evaluate(scope)?, out),
                },
            }
            Ok(())
        };
        let written = self.parts.iter().try_for_each(&mut write);
        if written.is_err() {
            out.truncate(start);
        }
        written
    }
}

impl TryFrom<Table> for Template {
    type Error = TemplateError;

    fn try_from(table: Table) -> Result<Self, TemplateError> {
        let mut parts = Parts::default();
        parts.table(&table, "template")?;
        parts.end_json();
        Ok(Self {
            table,
            parts: parts.done,
        })
    }
}

impl From<Template> for Table {
    fn from(template: Template) -> Self {
        template.table
    }
}

/// What a template becomes, with the JSON between two expressions in one piece.
#[derive(Default)]
struct Parts {
    done: Vec<Part>,
    json: String,
}

impl Parts {
    fn end_json(&mut self) {
        if !self.json.is_empty() {
            self.done.push(Part::Json(std::mem::take(&mut self.json)));
        }
    }

    fn table(&mut self, table: &Table, member: &str) -> Result<(), TemplateError> {
        self.json.push('{');
        for (index, (name, value)) in table.iter().enumerate() {
            if index > 0 {
                self.json.push(',');
            }
            self.text(name);
            self.json.push(':');
            self.value(value, &format!("{member}.{name}"))?;
        }
        self.json.push('}');
        Ok(())
    }

    fn value(&mut self, value: &Value, member: &str) -> Result<(), TemplateError> {
        let fail = |reason: String| TemplateError {
            member: member.to_owned(),
            reason,
        };
        match value {
            Value::Table(table) => self.table(table, member)?,
            Value::Array(list) => {
                self.json.push('[');
                for (index, element) in list.iter().enumerate() {
                    if index > 0 {
                        self.json.push(',');
                    }
                    self.value(element, &format!("{member}[{index}]"))?;
                }
                self.json.push(']');
            }
            Value::Boolean(bool) => self.json.push_str(&bool.to_string()),
            Value::Integer(integer) => self.json.push_str(&integer.to_string()),
            Value::Float(float) if float.is_finite() => {
                self.json
                    .push_str(&serde_json::Value::from(*float).to_string());
            }
            Value::Float(float) => return Err(fail(format!("JSON has no {float}"))),
            Value::Datetime(date) => {
                return Err(fail(format!("JSON has no dates: write \"{date}\"")));
            }
            Value::String(text) => match text.strip_prefix('$') {
                None => self.text(text),
                Some(literal) if literal.starts_with('$') => self.text(literal),
                Some(rest) => {
                    let text = if rest.starts_with('(') { rest } else { text };
                    let expression =
                        Expression::parse(text).map_err(|error| fail(error.to_string()))?;
                    self.end_json();
                    self.done.push(Part::Expression(expression));
                }
            },
        }
        Ok(())
    }

    fn text(&mut self, text: &str) {
        self.json
            .push_str(&serde_json::Value::from(text).to_string());
    }
}
