//! What a record's fields become before the model sees them.
//!
//! [`Features`] is the inputs of a [`crate::model::card::ModelCard`] made ready: it turns picked fields into
//! a row. Arithmetic is in f64, the row in f32; a number that is not finite after it is an error.

pub mod aggregate;
pub mod cells;
pub mod hash;
pub mod pane;
mod path;
pub mod plan;
pub mod window;

pub use path::{JsonPath, MAX_STEPS, PathError, Step};

use std::borrow::Cow;

use crate::model::card::{InputDefault, InputSpec, Transform};

/// A field of a record.
#[derive(Clone, Debug, PartialEq, Default)]
pub enum Field<'a> {
    /// The record has none at that path.
    #[default]
    Absent,
    /// `null`.
    Null,
    /// A whole number, as it is written.
    Integer(i64),
    /// A number.
    Number(f64),
    /// `true` or `false`.
    Bool(bool),
    /// A text.
    Text(Cow<'a, str>),
    /// Something with parts.
    Compound(&'static str),
}

impl std::fmt::Display for Field<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Absent => f.write_str("absent"),
            Self::Null => f.write_str("null"),
            Self::Integer(number) => write!(f, "{number}"),
            Self::Number(number) => write!(f, "{number}"),
            Self::Bool(bool) => write!(f, "{bool}"),
            Self::Text(text) => {
                let shown: String = text.chars().take(MAX_SHOWN_CHARS).collect();
                let more = if shown.len() < text.len() { " …" } else { "" };
                write!(f, "the text {shown:?}{more}")
            }
            Self::Compound(kind) => write!(f, "{kind}"),
        }
    }
}

/// How much of a text an error shows.
const MAX_SHOWN_CHARS: usize = 64;

/// Why a record's field is not what the model needs.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("field {field:?}: {reason}")]
pub struct FieldError {
    /// The input's name in the card, or its path.
    pub field: String,
    /// What is wrong, with the value.
    pub reason: String,
}

/// The inputs of a model, made ready.
#[derive(Clone, Debug)]
pub struct Features {
    inputs: Vec<Input>,
    paths: Vec<JsonPath>,
    width: usize,
}

#[derive(Clone, Debug)]
struct Input {
    label: String,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    Number {
        default: Option<f64>,
        transform: Transform,
        mean: f64,
        std: f64,
    },
    OneOf {
        default: Option<String>,
        texts: Vec<String>,
    },
}

impl Features {
    /// Of a checked card's inputs.
    pub fn new(inputs: &[InputSpec]) -> Self {
        Self {
            width: inputs.iter().map(InputSpec::width).sum(),
            paths: inputs.iter().map(|input| input.path.clone()).collect(),
            inputs: inputs.iter().map(Input::new).collect(),
        }
    }

    /// How many numbers a row has.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Where each input is, in order.
    pub fn paths(&self) -> &[JsonPath] {
        &self.paths
    }

    /// What errors call an input.
    pub fn label(&self, index: usize) -> &str {
        self.inputs
            .get(index)
            .map_or("?", |input| input.label.as_str())
    }

    /// Appends what one of the inputs gives of a record's row.
    pub fn encode_input(
        &self,
        index: usize,
        field: &Field<'_>,
        row: &mut Vec<f32>,
    ) -> Result<(), FieldError> {
        let Some(input) = self.inputs.get(index) else {
            return Ok(());
        };
        input.encode(field, row).map_err(|reason| FieldError {
            field: input.label.clone(),
            reason,
        })
    }

    /// Appends a record's row; on error `row` is as it was. `fields` are in the inputs' order.
    pub fn encode(&self, fields: &[Field<'_>], row: &mut Vec<f32>) -> Result<(), FieldError> {
        let before = row.len();
        for (index, input) in self.inputs.iter().enumerate() {
            let field = fields.get(index).unwrap_or(&Field::Absent);
            if let Err(reason) = input.encode(field, row) {
                row.truncate(before);
                return Err(FieldError {
                    field: input.label.clone(),
                    reason,
                });
            }
        }
        Ok(())
    }
}

impl Input {
    fn new(spec: &InputSpec) -> Self {
        let kind = match &spec.one_of {
            Some(texts) => Kind::OneOf {
                texts: texts.clone(),
                default: match &spec.default {
                    Some(InputDefault::Text(text)) => Some(text.clone()),
                    _ => None,
                },
            },
            None => Kind::Number {
                default: match spec.default {
                    Some(InputDefault::Number(number)) => Some(number),
                    _ => None,
                },
                transform: spec.transform.unwrap_or_default(),
                mean: spec.mean.unwrap_or(0.0),
                std: spec.std.unwrap_or(1.0),
            },
        };
        Self {
            label: spec.label().to_owned(),
            kind,
        }
    }

    fn encode(&self, field: &Field<'_>, row: &mut Vec<f32>) -> Result<(), String> {
        match &self.kind {
            Kind::Number {
                default,
                transform,
                mean,
                std,
            } => {
                let number = match (field, default) {
                    (Field::Integer(number), _) => *number as f64,
                    (Field::Number(number), _) => *number,
                    (Field::Bool(bool), _) => f64::from(u8::from(*bool)),
                    (Field::Absent | Field::Null, Some(default)) => *default,
                    (Field::Absent | Field::Null, None) => {
                        return Err(format!("is required, but is {field}"));
                    }
                    _ => return Err(format!("a number is needed, not {field}")),
                };
                let transformed = match transform {
                    Transform::None => number,
                    Transform::Log1p => number.ln_1p(),
                };
                let scaled = ((transformed - mean) / std) as f32;
                if !scaled.is_finite() {
                    return Err(format!(
                        "{number} is not finite after its transform and scaling"
                    ));
                }
                row.push(scaled);
            }
            Kind::OneOf { default, texts } => {
                let text = match (field, default) {
                    (Field::Text(text), _) => text.as_ref(),
                    (Field::Absent | Field::Null, Some(default)) => default.as_str(),
                    (Field::Absent | Field::Null, None) => {
                        return Err(format!("is required, but is {field}"));
                    }
                    _ => return Err(format!("a text is needed, not {field}")),
                };
                row.extend(
                    texts
                        .iter()
                        .map(|known| if known == text { 1.0 } else { 0.0 }),
                );
            }
        }
        Ok(())
    }
}
