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
mod sketches;
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
    /// What a feature of several numbers gives.
    Numbers(&'a [f64]),
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
            Self::Numbers(numbers) => write!(f, "a list of {}", numbers.len()),
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
    paths: Vec<Option<JsonPath>>,
    width: usize,
}

#[derive(Clone, Debug)]
struct Input {
    label: String,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    Number(Numbers),
    OneOf {
        default: Option<String>,
        texts: Vec<String>,
    },
}

/// A number, or several of a feature.
#[derive(Clone, Debug)]
struct Numbers {
    width: usize,
    default: Option<f64>,
    transform: Transform,
    mean: f64,
    std: f64,
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

    /// Where each input is in a record, in order; `None` where a feature gives it.
    pub fn paths(&self) -> &[Option<JsonPath>] {
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
            None => Kind::Number(Numbers {
                width: spec.width(),
                default: match spec.default {
                    Some(InputDefault::Number(number)) => Some(number),
                    _ => None,
                },
                transform: spec.transform.unwrap_or_default(),
                mean: spec.mean.unwrap_or(0.0),
                std: spec.std.unwrap_or(1.0),
            }),
        };
        Self {
            label: spec.label().to_owned(),
            kind,
        }
    }

    fn encode(&self, field: &Field<'_>, row: &mut Vec<f32>) -> Result<(), String> {
        match &self.kind {
            Kind::Number(numbers) => numbers.encode(field, row)?,
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

impl Numbers {
    fn encode(&self, field: &Field<'_>, row: &mut Vec<f32>) -> Result<(), String> {
        match (field, self.default) {
            (Field::Numbers(numbers), _) if numbers.len() == self.width => numbers
                .iter()
                .try_for_each(|number| self.push(*number, row)),
            (Field::Integer(number), _) if self.width == 1 => self.push(*number as f64, row),
            (Field::Number(number), _) if self.width == 1 => self.push(*number, row),
            (Field::Bool(bool), _) if self.width == 1 => self.push(f64::from(u8::from(*bool)), row),
            (Field::Absent | Field::Null, Some(default)) => {
                (0..self.width).try_for_each(|_| self.push(default, row))
            }
            (Field::Absent | Field::Null, None) => Err(format!("is required, but is {field}")),
            _ if self.width == 1 => Err(format!("a number is needed, not {field}")),
            _ => Err(format!("{} numbers are needed, not {field}", self.width)),
        }
    }

    fn push(&self, number: f64, row: &mut Vec<f32>) -> Result<(), String> {
        let transformed = match self.transform {
            Transform::None => number,
            Transform::Log1p => number.ln_1p(),
        };
        let scaled = ((transformed - self.mean) / self.std) as f32;
        if !scaled.is_finite() {
            return Err(format!(
                "{number} is not finite after its transform and scaling"
            ));
        }
        row.push(scaled);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inputs(json: &str) -> Features {
        Features::new(&serde_json::from_str::<Vec<InputSpec>>(json).unwrap())
    }

    #[test]
    fn each_number_of_a_feature_is_scaled() {
        let features = inputs(
            r#"[{"path":"$.a"},{"name":"f","width":3,"transform":"log1p","mean":1,"std":2,"default":0}]"#,
        );
        assert_eq!(features.width(), 4);
        assert_eq!(features.paths(), [Some("$.a".parse().unwrap()), None]);
        let mut row = Vec::new();
        let encode = |field, row: &mut Vec<f32>| {
            let encoded = features.encode(&[Field::Number(7.0), field], row);
            encoded.map_err(|error| error.to_string())
        };
        // (ln(1 + x) - 1) / 2 of 0, e - 1 and 99.
        let numbers = [0.0, std::f64::consts::E - 1.0, 99.0];
        encode(Field::Numbers(&numbers), &mut row).unwrap();
        assert_eq!(row, [7.0, -0.5, 0.0, 1.802_585_1]);
        row.clear();
        encode(Field::Absent, &mut row).unwrap();
        assert_eq!(row, [7.0, -0.5, -0.5, -0.5]);
        for (field, reason) in [
            (
                Field::Numbers(&[1.0]),
                "3 numbers are needed, not a list of 1",
            ),
            (Field::Number(1.0), "3 numbers are needed, not 1"),
            (
                Field::Numbers(&[1.0, -1.0, 1.0]),
                "-1 is not finite after its transform and scaling",
            ),
        ] {
            let error = encode(field, &mut row).unwrap_err();
            assert_eq!(error, format!("field \"f\": {reason}"));
            assert_eq!(row.len(), 4, "a failed record left something");
        }
    }
}
