//! The features of a model topic, made ready: from a record's fields and what is remembered of its key to the model's row.
//!
//! A [`Plan`] is made once. For each record, [`Plan::pick`] takes what is wanted out of it, on any thread; [`Plan::make`]
//! then makes the features, in the order of the records, as it changes what is remembered.

mod compile;
mod event_time;
mod make;

use std::borrow::Cow;

use super::Field;
use super::aggregate::Value;
use super::pane::Pane;
use crate::codec::{DecodeError, Decoder, JsonError, Picker};
use crate::feature::{Features, JsonPath};
use crate::model::Input;
use crate::spec::{Aggregate, Cast, Late, Op};

use event_time::EventTime;

pub use compile::PlanError;
pub use make::{Made, MakeError, StreamTime, Tables};

/// How a feature's name stands in for what it is.
pub type FeatureIndex = usize;

/// A model topic's features.
#[derive(Clone, Debug)]
pub struct Plan {
    picker: Option<Picker>,
    /// The fields that templates and rules want: where they are picked to.
    wanted: Vec<(JsonPath, usize)>,
    /// Reads what the plan does not: texts, and rows as they are.
    decoder: Option<Decoder>,
    event_times: Vec<Option<EventTime>>,
    features: Vec<Feature>,
    panes: Vec<PaneUse>,
    lookups: Vec<Lookup>,
    row: Option<RowPlan>,
    /// What becomes of late records.
    pub late: Late,
    /// How long a key is remembered where no window says so.
    pub ttl_ms: i64,
}

/// A pane, and the field that it aggregates.
#[derive(Clone, Debug)]
struct PaneUse {
    pane: Pane,
    /// Records without one.
    slot: Option<usize>,
    /// For errors.
    label: String,
}

#[derive(Clone, Debug)]
struct Feature {
    name: String,
    kind: Kind,
    form: Form,
    default: Default,
    cast: Option<Cast>,
    op: Option<Op>,
    shift: f64,
    divisor: f64,
}

#[derive(Clone, Debug)]
enum Kind {
    /// Of the record.
    Field(usize),
    /// Of a pane.
    Aggregate(usize, Aggregate),
    /// Of a table.
    Lookup(usize),
}

#[derive(Clone, Debug, PartialEq)]
enum Form {
    /// As it is read.
    Plain,
    OneHot(Vec<String>),
    Hash(usize),
}

#[derive(Clone, Debug, PartialEq)]
enum Default {
    Required,
    Number(f64),
    Text(String),
}

/// A table that is looked up, by a field, for a field.
#[derive(Clone, Debug, PartialEq)]
pub struct Lookup {
    /// The topic.
    pub table: String,
    /// The table's field.
    pub path: JsonPath,
    slot: usize,
}

/// The model's row.
#[derive(Clone, Debug)]
struct RowPlan {
    inputs: Features,
    sources: Vec<Source>,
}

#[derive(Clone, Copy, Debug)]
enum Source {
    /// A field of the record.
    Slot(usize),
    /// A feature.
    Feature(FeatureIndex),
}

/// A feature's value.
#[derive(Clone, Debug, PartialEq)]
pub enum FeatureValue {
    /// Nothing.
    Null,
    /// A number.
    Number(f64),
    /// A text.
    Text(String),
    /// A number for each text, or each hash.
    Numbers(Vec<f64>),
}

impl FeatureValue {
    /// As JSON.
    pub fn to_json(&self) -> serde_json::Value {
        match self {
            Self::Null => serde_json::Value::Null,
            Self::Number(number) => (*number).into(),
            Self::Text(text) => text.as_str().into(),
            Self::Numbers(numbers) => numbers.clone().into(),
        }
    }
}

/// What was picked out of a record.
#[derive(Clone, Debug, PartialEq)]
pub struct Picked {
    /// The wanted fields.
    pub fields: Vec<Field<'static>>,
    /// The record's event time.
    pub time_ms: i64,
}

/// Why nothing could be picked out of a record.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum PickError {
    /// It can't be read.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// It has no event time.
    #[error("event time: {0}")]
    EventTime(String),
}

impl Plan {
    /// Whether anything is remembered of keys.
    pub fn is_stateful(&self) -> bool {
        !self.panes.is_empty()
    }

    /// What is kept of keys.
    pub fn panes(&self) -> impl Iterator<Item = &Pane> {
        self.panes.iter().map(|used| &used.pane)
    }

    /// Each, with the field that it aggregates; empty where it is of records.
    pub fn panes_and_fields(&self) -> impl Iterator<Item = (&Pane, &str)> {
        self.panes
            .iter()
            .map(|used| (&used.pane, used.label.as_str()))
    }

    /// The features' names, in order.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.features.iter().map(|feature| feature.name.as_str())
    }

    /// The tables that are looked up, a table once for each of its fields.
    pub fn lookups(&self) -> &[Lookup] {
        &self.lookups
    }

    /// Which of the picked fields is at a path that templates or rules name.
    pub fn slot(&self, path: &JsonPath) -> Option<usize> {
        let mut wanted = self.wanted.iter();
        wanted
            .find(|(known, _)| known == path)
            .map(|(_, slot)| *slot)
    }

    /// Whether [`Plan::make`] gives the model's rows; otherwise [`Plan::pick`] does.
    pub fn makes_rows(&self) -> bool {
        self.decoder.is_none()
    }

    /// Takes what is wanted out of a record of an input, and appends the model's row where that needs nothing else; on
    /// error `rows` is as it was.
    pub fn pick(
        &self,
        input: usize,
        record: &[u8],
        timestamp_ms: i64,
        rows: &mut Input,
    ) -> Result<Picked, PickError> {
        let fields = match &self.picker {
            Some(picker) => {
                let picked = picker.pick(record).map_err(DecodeError::from)?;
                picked.into_iter().map(owned).collect()
            }
            None => Vec::new(),
        };
        let time_ms = match self.event_times.get(input).and_then(Option::as_ref) {
            Some(event_time) => event_time.of(&fields).map_err(PickError::EventTime)?,
            None => timestamp_ms,
        };
        if let Some(decoder) = &self.decoder {
            decoder.decode(record, rows)?;
        }
        Ok(Picked { fields, time_ms })
    }
}

/// Takes the key of a keyed model topic's state out of records.
#[derive(Clone, Debug)]
pub struct KeyPicker {
    picker: Picker,
    path: JsonPath,
}

impl KeyPicker {
    /// The field at a path.
    pub fn new(path: JsonPath) -> Self {
        let mut picker = Picker::default();
        picker.add(&path, path.as_str());
        Self { picker, path }
    }

    /// A record's key, as a producer of Java's would serialize that text; `None` where it is absent or null.
    pub fn pick(&self, record: &[u8]) -> Result<Option<Vec<u8>>, JsonError> {
        let field = self.picker.pick(record)?.pop().unwrap_or_default();
        key_text(&field)
            .map(|key| key.map(|key| key.into_owned().into_bytes()))
            .map_err(|reason| {
                JsonError::Field(super::FieldError {
                    field: self.path.as_str().to_owned(),
                    reason,
                })
            })
    }
}

/// A field that is a key, as a text.
fn key_text<'f>(field: &'f Field<'_>) -> Result<Option<Cow<'f, str>>, String> {
    Ok(Some(match field {
        Field::Absent | Field::Null => return Ok(None),
        Field::Text(text) => Cow::Borrowed(text.as_ref()),
        Field::Integer(number) => Cow::Owned(number.to_string()),
        Field::Bool(bool) => Cow::Owned(bool.to_string()),
        Field::Number(_) | Field::Compound(_) | Field::Numbers(_) => {
            return Err(format!(
                "a key is a text or a whole number below 2^63, not {field}"
            ));
        }
    }))
}

pub(crate) fn owned(field: Field<'_>) -> Field<'static> {
    match field {
        Field::Absent => Field::Absent,
        Field::Null => Field::Null,
        Field::Integer(number) => Field::Integer(number),
        Field::Number(number) => Field::Number(number),
        Field::Bool(bool) => Field::Bool(bool),
        Field::Text(text) => Field::Text(Cow::Owned(text.into_owned())),
        Field::Compound(kind) => Field::Compound(kind),
        // A feature's; no record has it.
        Field::Numbers(_) => Field::Absent,
    }
}

/// A field that is aggregated.
fn aggregated<'f>(pane: &PaneUse, field: &'f Field<'_>) -> Result<Option<Value<'f>>, String> {
    let numbers = pane.pane.parts.need_numbers();
    Ok(Some(match field {
        Field::Absent | Field::Null => return Ok(None),
        Field::Integer(number) => Value::of_integer(*number),
        Field::Number(number) => Value::Number(*number),
        Field::Bool(bool) => Value::Number(f64::from(u8::from(*bool))),
        Field::Text(text) if !numbers => Value::Text(text),
        field if numbers => return Err(format!("a number is needed, not {field}")),
        // Whatever it is, it is there.
        _ => Value::Record,
    }))
}
