//! JSON records: only the wanted fields are picked, nothing else is kept.
//!
//! A record is parsed once, as a stream: members on no wanted path are skipped without being stored, texts
//! are borrowed where they have no escapes. Where a member occurs twice the last one counts. What is
//! skipped is checked to be JSON too.
//!
//! Two parsers drive the same visitor. sonic-rs takes a third less time, but lets wrong `\u` escapes pass,
//! refuses texts that are not UTF-8 also where they are skipped, and recurses without a bound: it gets
//! what has no escapes and few brackets. Everything else, and whatever it refuses, is serde_json's to judge.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::CodecError;
use crate::feature::{Features, Field, FieldError, JsonPath, Step};

/// Why a record is not a row of the model's inputs.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum JsonError {
    /// It is not JSON.
    #[error("not JSON: {0}")]
    Syntax(String),
    /// It is not JSON, where a wanted field is.
    #[error("field {field:?}: {found} is not JSON: {reason}")]
    FieldSyntax {
        /// The input's name in the card, or its path.
        field: String,
        /// What stands there.
        found: String,
        /// What the parser says.
        reason: String,
    },
    /// A field is not what the model needs.
    #[error(transparent)]
    Field(#[from] FieldError),
}

/// Turns JSON records into rows.
#[derive(Clone, Debug)]
pub struct JsonDecoder {
    features: Features,
    picker: Picker,
    /// By input: which picked field it is; inputs may share one.
    slots: Vec<usize>,
}

impl JsonDecoder {
    /// For the inputs of a model, each of which has a path.
    pub fn new(features: Features) -> Result<Self, CodecError> {
        let mut picker = Picker::default();
        let mut distinct: Vec<&JsonPath> = Vec::new();
        let mut slots = Vec::with_capacity(features.paths().len());
        for (input, path) in features.paths().iter().enumerate() {
            let Some(path) = path else {
                let label = features.label(input);
                return Err(CodecError {
                    key: "feature",
                    reason: format!("input {label:?} has no path: it needs a feature of that name"),
                });
            };
            let slot = match distinct.iter().position(|known| *known == path) {
                Some(slot) => slot,
                None => {
                    distinct.push(path);
                    picker.add(path, features.label(input))
                }
            };
            slots.push(slot);
        }
        Ok(Self {
            picker,
            slots,
            features,
        })
    }

    /// How many numbers a row has.
    pub fn width(&self) -> usize {
        self.features.width()
    }

    /// Appends a record's row; on error `row` is as it was.
    pub fn decode(&self, record: &[u8], row: &mut Vec<f32>) -> Result<(), JsonError> {
        let fields = self.picker.pick(record)?;
        // Mostly each input is a field of its own, in order.
        if fields.len() == self.slots.len() {
            self.features.encode(&fields, row)?;
        } else {
            let fields: Vec<Field<'_>> = self
                .slots
                .iter()
                .map(|&slot| fields.get(slot).cloned().unwrap_or_default())
                .collect();
            self.features.encode(&fields, row)?;
        }
        Ok(())
    }
}

/// Picks a text out of JSON records.
#[derive(Clone, Debug)]
pub struct JsonText {
    picker: Picker,
    path: JsonPath,
}

impl JsonText {
    /// The one at a path.
    pub fn new(path: JsonPath) -> Self {
        let mut picker = Picker::default();
        picker.add(&path, path.as_str());
        Self { picker, path }
    }

    /// A record's text.
    pub fn pick<'r>(&self, record: &'r [u8]) -> Result<Cow<'r, str>, JsonError> {
        let reason = match self.picker.pick(record)?.pop().unwrap_or_default() {
            Field::Text(text) => return Ok(text),
            Field::Absent => "is required, but is absent".to_owned(),
            other => format!("is {other}, not a text"),
        };
        Err(JsonError::Field(FieldError {
            field: self.path.as_str().to_owned(),
            reason,
        }))
    }
}

/// Picks fields out of JSON records.
#[derive(Clone, Debug, Default)]
pub struct Picker {
    tree: Node,
    /// What errors call each field.
    labels: Vec<String>,
}

impl Picker {
    /// Has another field picked; returns its place.
    pub fn add(&mut self, path: &JsonPath, label: &str) -> usize {
        let slot = self.labels.len();
        self.tree.insert(path.steps(), slot);
        self.labels.push(label.to_owned());
        slot
    }

    /// A record's fields.
    pub fn pick<'r>(&self, record: &'r [u8]) -> Result<Vec<Field<'r>>, JsonError> {
        match self.pick_quickly(record) {
            Some(fields) => Ok(fields),
            None => self.pick_or_explain(record),
        }
    }

    /// The picked fields of a record that is plain and sound.
    fn pick_quickly<'r>(&self, record: &'r [u8]) -> Option<Vec<Field<'r>>> {
        if !is_plain(record) {
            return None;
        }
        let mut picked = Picked::new(self.labels.len());
        let mut json = sonic_rs::Deserializer::from_slice(record);
        let pick = Pick {
            node: &self.tree,
            picked: &mut picked,
        };
        let read = pick.deserialize(&mut json).and_then(|()| json.end());
        read.is_ok().then_some(picked.fields)
    }

    /// The picked fields, or what is wrong with the record.
    fn pick_or_explain<'r>(&self, record: &'r [u8]) -> Result<Vec<Field<'r>>, JsonError> {
        let mut picked = Picked::new(self.labels.len());
        let mut json = serde_json::Deserializer::from_slice(record);
        let pick = Pick {
            node: &self.tree,
            picked: &mut picked,
        };
        match pick.deserialize(&mut json).and_then(|()| json.end()) {
            Ok(()) => Ok(picked.fields),
            Err(error) => Err(self.syntax_error(record, picked.failed_at, &error)),
        }
    }

    fn syntax_error(
        &self,
        record: &[u8],
        failed_at: Option<usize>,
        error: &serde_json::Error,
    ) -> JsonError {
        match failed_at.and_then(|slot| self.labels.get(slot)) {
            Some(label) => JsonError::FieldSyntax {
                field: label.clone(),
                found: token_at(record, error.line(), error.column()),
                reason: error.to_string(),
            },
            None => JsonError::Syntax(error.to_string()),
        }
    }
}

/// Without escapes, and nested no deeper than a thread's stack is sure to hold.
fn is_plain(record: &[u8]) -> bool {
    let mut brackets = 0;
    memchr::memchr3_iter(b'\\', b'[', b'{', record).all(|at| {
        brackets += 1;
        brackets <= MAX_BRACKETS && record.get(at) != Some(&b'\\')
    })
}

/// Most opening brackets of a plain record.
const MAX_BRACKETS: usize = 128;
/// Most of a token that an error shows, in bytes.
const MAX_SHOWN_BYTES: usize = 32;

/// The word at a parser's line and column, both from 1.
fn token_at(record: &[u8], line: usize, column: usize) -> String {
    let line = record
        .split(|&byte| byte == b'\n')
        .nth(line.saturating_sub(1))
        .unwrap_or_default();
    let of_word =
        |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.' | b'_');
    let at = column.saturating_sub(1).min(line.len());
    let (before, after) = line.split_at(at);
    let start = at
        - before
            .iter()
            .rev()
            .take(MAX_SHOWN_BYTES)
            .take_while(|byte| of_word(byte))
            .count();
    let end = at
        + after
            .iter()
            .take(MAX_SHOWN_BYTES)
            .take_while(|byte| of_word(byte))
            .count();
    match line.get(start..end) {
        Some(word) if !word.is_empty() => String::from_utf8_lossy(word).into_owned(),
        _ => "what stands there".to_owned(),
    }
}

/// Wanted paths, by their first step.
#[derive(Clone, Debug, Default)]
struct Node {
    names: Vec<(Box<str>, Node)>,
    /// In order of the position.
    indexes: Vec<(usize, Node)>,
    /// Where the value goes, if it is itself wanted.
    slot: Option<usize>,
}

impl Node {
    fn insert(&mut self, steps: &[Step], slot: usize) {
        let Some((step, rest)) = steps.split_first() else {
            self.slot = Some(slot);
            return;
        };
        let child = match step {
            Step::Name(name) => {
                let at = self.names.iter().position(|(known, _)| **known == **name);
                let at = at.unwrap_or_else(|| {
                    self.names.push((name.as_str().into(), Node::default()));
                    self.names.len() - 1
                });
                self.names.get_mut(at).map(|(_, node)| node)
            }
            Step::Index(index) => {
                let at = match self
                    .indexes
                    .binary_search_by_key(index, |(known, _)| *known)
                {
                    Ok(at) => at,
                    Err(at) => {
                        self.indexes.insert(at, (*index, Node::default()));
                        at
                    }
                };
                self.indexes.get_mut(at).map(|(_, node)| node)
            }
        };
        if let Some(child) = child {
            child.insert(rest, slot);
        }
    }
}

struct Picked<'de> {
    fields: Vec<Field<'de>>,
    /// The wanted field in which the parser stopped.
    failed_at: Option<usize>,
}

impl Picked<'_> {
    fn new(slots: usize) -> Self {
        Self {
            fields: vec![Field::Absent; slots],
            failed_at: None,
        }
    }
}

/// Reads a value at a node.
struct Pick<'p, 'de> {
    node: &'p Node,
    picked: &'p mut Picked<'de>,
}

impl<'de> Pick<'_, 'de> {
    fn set<E>(self, field: Field<'de>) -> Result<(), E> {
        if let Some(slot) = self.node.slot
            && let Some(place) = self.picked.fields.get_mut(slot)
        {
            *place = field;
        }
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Pick<'_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        let Pick { node, picked } = self;
        let result = deserializer.deserialize_any(Pick {
            node,
            picked: &mut *picked,
        });
        if result.is_err() && picked.failed_at.is_none() {
            picked.failed_at = node.slot;
        }
        result
    }
}

impl<'de> Visitor<'de> for Pick<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.set(Field::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        self.set(Field::Bool(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        self.set(match i64::try_from(value) {
            Ok(value) => Field::Integer(value),
            Err(_) => Field::Number(value as f64),
        })
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.set(Field::Integer(value))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        self.set(Field::Number(value))
    }

    fn visit_borrowed_str<E: Error>(self, value: &'de str) -> Result<(), E> {
        self.set(Field::Text(Cow::Borrowed(value)))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<(), E> {
        self.set(Field::Text(Cow::Owned(value.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<(), A::Error> {
        let mut at = 0;
        for (index, node) in &self.node.indexes {
            while at < *index {
                if array.next_element::<IgnoredAny>()?.is_none() {
                    return self.set(Field::Compound("an array"));
                }
                at += 1;
            }
            let picked = &mut *self.picked;
            if array.next_element_seed(Pick { node, picked })?.is_none() {
                return self.set(Field::Compound("an array"));
            }
            at += 1;
        }
        while array.next_element::<IgnoredAny>()?.is_some() {}
        self.set(Field::Compound("an array"))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<(), A::Error> {
        // Producers mostly write members in the same order, so the next one is guessed.
        let mut guess = 0;
        while let Some(found) = object.next_key_seed(Key {
            names: &self.node.names,
            guess,
        })? {
            match found.and_then(|at| Some((at, self.node.names.get(at)?))) {
                Some((at, (_, node))) => {
                    guess = at + 1;
                    let picked = &mut *self.picked;
                    object.next_value_seed(Pick { node, picked })?;
                }
                None => {
                    object.next_value::<IgnoredAny>()?;
                }
            }
        }
        self.set(Field::Compound("an object"))
    }
}

/// Finds a member's name among the wanted ones.
struct Key<'p> {
    names: &'p [(Box<str>, Node)],
    guess: usize,
}

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a member's name")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Self::Value, E> {
        if self
            .names
            .get(self.guess)
            .is_some_and(|(known, _)| **known == *name)
        {
            return Ok(Some(self.guess));
        }
        Ok(self.names.iter().position(|(known, _)| **known == *name))
    }
}

#[cfg(test)]
mod tests;
