//! From what was picked out of a record, and what is remembered of its key, to its features and the model's row.

use super::{
    Default, Feature, FeatureValue, Form, Kind, Lookup, Picked, Plan, Source, aggregated, key_text,
};
use crate::feature::aggregate::Value;
use crate::feature::cells::Cells;
use crate::feature::pane::{Held, Moment};
use crate::feature::{Field, FieldError, hash};
use crate::model::Input;
use crate::spec::{Cast, Late};

/// What tables say.
pub trait Tables {
    /// The field of a table's newest record of a key; absent where there is none.
    fn get(&self, lookup: usize, wanted: &Lookup, key: &str) -> Field<'static>;
}

/// The highest event time of a task, with a record and before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamTime {
    /// With it.
    pub now_ms: i64,
    /// Before it.
    pub before_ms: i64,
}

impl StreamTime {
    /// That no record has changed.
    pub fn at(now_ms: i64) -> Self {
        Self {
            now_ms,
            before_ms: now_ms,
        }
    }
}

/// What was made of a record.
#[derive(Clone, Debug, PartialEq)]
pub struct Made {
    /// In the features' order.
    pub features: Vec<FeatureValue>,
    /// Some of its windows had closed.
    pub is_late: bool,
}

/// Why features can't be made of a record.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum MakeError {
    /// A field is not what is needed.
    #[error(transparent)]
    Field(#[from] FieldError),
    /// Its windows have closed, and late records are dead letters.
    #[error("late: its event time is {time_ms}, the stream's {stream_ms}")]
    Late {
        /// The record's.
        time_ms: i64,
        /// The highest so far.
        stream_ms: i64,
    },
}

impl Plan {
    /// How long closed windows are kept and take records.
    pub fn update_ms(&self) -> i64 {
        match self.late {
            Late::Update => self.ttl_ms,
            Late::Drop | Late::Dlq => 0,
        }
    }

    /// What holds for a record at a time, where the stream is at another, and was before it.
    pub fn moment(&self, time_ms: i64, stream: StreamTime) -> Moment {
        Moment {
            time_ms,
            stream_ms: stream.now_ms,
            before_ms: stream.before_ms,
            update_ms: self.update_ms(),
            ttl_ms: self.ttl_ms,
        }
    }

    /// Makes the features of a record, adds it to what is remembered of its key (`cells`) and appends the model's row,
    /// where [`Plan::pick`] has not. `touched` gets the panes and slices that have changed, also where the record fails
    /// afterwards; `row` is as it was then.
    pub fn make(
        &self,
        picked: &Picked,
        cells: &mut Cells,
        stream: StreamTime,
        tables: &dyn Tables,
        rows: &mut Input,
        touched: &mut Vec<(u32, i64)>,
    ) -> Result<Made, MakeError> {
        let moment = self.moment(picked.time_ms, stream);
        // What fails without its state changes nothing.
        let values = self.values(picked)?;
        let is_late = self.panes().any(|pane| pane.is_late(cells, moment));
        if is_late && self.late == Late::Dlq {
            return Err(MakeError::Late {
                time_ms: picked.time_ms,
                stream_ms: stream.now_ms,
            });
        }
        let mut slices = Vec::new();
        let mut held = Vec::with_capacity(self.panes.len());
        for (used, value) in self.panes.iter().zip(&values) {
            held.push(used.pane.observe(cells, moment, *value, &mut slices));
            touched.extend(slices.drain(..).map(|slice| (used.pane.id, slice)));
        }
        let mut features = Vec::with_capacity(self.features.len());
        for feature in &self.features {
            let found = self.find(feature, picked, &values, &held, tables);
            let value = feature.value(found).map_err(|reason| FieldError {
                field: feature.name.clone(),
                reason,
            })?;
            features.push(value);
        }
        self.row(&features, &picked.fields, rows)?;
        Ok(Made { features, is_late })
    }

    /// What the windows that end now hold, by the names of their features.
    pub fn look(&self, cells: &Cells, stream_ms: i64) -> Vec<(&str, FeatureValue)> {
        let moment = self.moment(stream_ms, StreamTime::at(stream_ms));
        let held: Vec<Held> = self.panes().map(|pane| pane.look(cells, moment)).collect();
        let mut found = Vec::new();
        for feature in &self.features {
            if let Kind::Aggregate(pane, aggregate) = feature.kind {
                let value = held.get(pane).and_then(|held| held.value(aggregate, None));
                let value = feature.value(value.map_or(Field::Absent, Field::Number));
                found.push((feature.name.as_str(), value.unwrap_or(FeatureValue::Null)));
            }
        }
        found
    }

    /// What each pane aggregates of a record.
    fn values<'p>(&self, picked: &'p Picked) -> Result<Vec<Option<Value<'p>>>, FieldError> {
        let of = |used: &super::PaneUse| match used.slot {
            None => Ok(Some(Value::Record)),
            Some(slot) => {
                let field = picked.fields.get(slot).unwrap_or(&Field::Absent);
                aggregated(used, field).map_err(|reason| FieldError {
                    field: used.label.clone(),
                    reason,
                })
            }
        };
        self.panes.iter().map(of).collect()
    }

    fn find<'p>(
        &self,
        feature: &Feature,
        picked: &'p Picked,
        values: &[Option<Value<'p>>],
        held: &[Held],
        tables: &dyn Tables,
    ) -> Field<'p> {
        let field = |slot: usize| picked.fields.get(slot).unwrap_or(&Field::Absent);
        match feature.kind {
            Kind::Field(slot) => field(slot).clone(),
            Kind::Aggregate(pane, aggregate) => {
                let own = values.get(pane).and_then(|value| value.as_ref()?.number());
                let held = held.get(pane);
                let value = held.and_then(|held| held.value(aggregate, own));
                value.map_or(Field::Absent, Field::Number)
            }
            Kind::Lookup(index) => {
                let Some(lookup) = self.lookups.get(index) else {
                    return Field::Absent;
                };
                match key_text(field(lookup.slot)) {
                    Ok(Some(key)) => tables.get(index, lookup, &key),
                    _ => Field::Absent,
                }
            }
        }
    }

    fn row(
        &self,
        features: &[FeatureValue],
        fields: &[Field<'_>],
        rows: &mut Input,
    ) -> Result<(), FieldError> {
        let (Some(plan), Input::Rows(rows)) = (&self.row, rows) else {
            return Ok(());
        };
        let row = rows.values_mut();
        let before = row.len();
        for (input, source) in plan.sources.iter().enumerate() {
            let appended = match *source {
                Source::Slot(slot) => {
                    let field = fields.get(slot).unwrap_or(&Field::Absent);
                    plan.inputs.encode_input(input, field, row)
                }
                Source::Feature(index) => match features.get(index) {
                    Some(FeatureValue::Numbers(numbers)) => {
                        plan.inputs
                            .encode_input(input, &Field::Numbers(numbers), row)
                    }
                    Some(FeatureValue::Number(number)) => {
                        plan.inputs
                            .encode_input(input, &Field::Number(*number), row)
                    }
                    Some(FeatureValue::Text(text)) => {
                        let field = Field::Text(text.as_str().into());
                        plan.inputs.encode_input(input, &field, row)
                    }
                    Some(FeatureValue::Null) | None => {
                        plan.inputs.encode_input(input, &Field::Absent, row)
                    }
                },
            };
            if let Err(error) = appended {
                row.truncate(before);
                return Err(error);
            }
        }
        Ok(())
    }
}

impl Feature {
    /// How many numbers it is; none where it is a text.
    pub(super) fn width(&self) -> Option<usize> {
        match &self.form {
            Form::Plain if self.cast == Some(Cast::Text) => None,
            Form::Plain => Some(1),
            Form::OneHot(texts) => Some(texts.len()),
            Form::Hash(buckets) => Some(*buckets),
        }
    }

    fn value(&self, found: Field<'_>) -> Result<FeatureValue, String> {
        let found = match (&found, &self.default) {
            (Field::Absent | Field::Null, Default::Number(number)) => Field::Number(*number),
            (Field::Absent | Field::Null, Default::Text(text)) => Field::Text(text.as_str().into()),
            (Field::Absent | Field::Null, Default::Required) => {
                return Err(format!("is required, but is {found}"));
            }
            _ => found,
        };
        let is_text = self.form != Form::Plain || self.cast == Some(Cast::Text);
        if is_text {
            let text = match &found {
                Field::Text(text) => text.as_ref().to_owned(),
                Field::Integer(number) if self.cast == Some(Cast::Text) => number.to_string(),
                Field::Number(number) if self.cast == Some(Cast::Text) => number.to_string(),
                Field::Bool(bool) if self.cast == Some(Cast::Text) => bool.to_string(),
                _ => return Err(format!("a text is needed, not {found}")),
            };
            return Ok(match &self.form {
                Form::Plain => FeatureValue::Text(text),
                Form::OneHot(texts) => FeatureValue::Numbers(
                    texts
                        .iter()
                        .map(|known| f64::from(u8::from(*known == text)))
                        .collect(),
                ),
                Form::Hash(buckets) => {
                    let chosen = (hash::of_text(&text) % *buckets as u64) as usize;
                    FeatureValue::Numbers(
                        (0..*buckets)
                            .map(|bucket| f64::from(u8::from(bucket == chosen)))
                            .collect(),
                    )
                }
            });
        }
        let number = self.number(&found)?;
        let changed = self.op.map_or(number, |op| op.apply(number));
        let scaled = (changed - self.shift) / self.divisor;
        match scaled.is_finite() {
            true => Ok(FeatureValue::Number(scaled)),
            false => Err(format!("{number} is not finite after its op and scale")),
        }
    }

    fn number(&self, found: &Field<'_>) -> Result<f64, String> {
        let bool = |bool: bool| f64::from(u8::from(bool));
        match (found, self.cast) {
            (Field::Integer(number), Some(Cast::Bool)) => Ok(bool(*number != 0)),
            (Field::Number(number), Some(Cast::Bool)) => Ok(bool(*number != 0.0)),
            (Field::Integer(number), _) => Ok(*number as f64),
            (Field::Number(number), _) => Ok(*number),
            (Field::Bool(value), _) => Ok(bool(*value)),
            (Field::Text(text), Some(Cast::Number)) => match text.trim().parse::<f64>() {
                Ok(number) if number.is_finite() => Ok(number),
                _ => Err(format!("a number is needed, not {found}")),
            },
            (Field::Text(text), Some(Cast::Bool)) => match text.as_ref() {
                "true" => Ok(1.0),
                "false" => Ok(0.0),
                _ => Err(format!("true or false is needed, not {found}")),
            },
            _ => Err(format!("a number is needed, not {found}")),
        }
    }
}
