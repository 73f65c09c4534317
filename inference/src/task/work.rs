//! What a model topic does with its records before its model: reads them, and makes their features.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bytes::Bytes;

use super::measure::Features;
use super::prepare::{Item, Part, Prepared, Seen, Stage, Step};
use super::rekey;
use super::table::TableSet;
use crate::codec::Decoder;
use crate::feature::pane::Pane;
use crate::feature::plan::{KeyPicker, Made, MakeError, Picked, Plan, StreamTime};
use crate::model::Input;
use crate::state::{MAX_KEY_BYTES, StateError, Store, TaskState, spill::Spill};
use crate::stream_log::{InputRecord, Task};

/// How many keys are looked at, for each record, to see whether they can be forgotten.
const SWEEP_LOOKS: usize = 2;

/// What a model topic does with its records before its model.
#[derive(Debug)]
pub(super) enum Work {
    /// Their fields are the model's rows.
    Plain(Decoder),
    /// Features are made of them.
    Planned(Box<Planned>),
    /// They go on under another key, to no model.
    Rekey {
        /// The key's place.
        picker: KeyPicker,
        /// By task and source: below this offset they go on once more, but dead letters are there.
        replayed: Mutex<BTreeMap<(Task, i64), i64>>,
    },
}

/// How features are made.
#[derive(Debug)]
pub(super) struct Planned {
    pub(super) plan: Arc<Plan>,
    pub(super) panes: Vec<Pane>,
    /// Of keys; a stateless one has none.
    pub(super) store: Option<Arc<Mutex<Store>>>,
    pub(super) tables: Arc<TableSet>,
    /// Its records come from a repartition topic.
    pub(super) is_repartitioned: bool,
    /// Templates or rules ask for fields and features.
    pub(super) keeps_seen: bool,
}

impl Work {
    /// Reads a record.
    pub(super) fn decode(
        &self,
        task: Task,
        input: usize,
        mut record: InputRecord,
        rows: &mut Input,
    ) -> Item {
        match self {
            Self::Plain(decoder) => {
                let step = match &record.value {
                    None => Step::Tombstone,
                    Some(value) => match decoder.decode(value, rows) {
                        Ok(()) => Step::Row,
                        Err(error) => Step::failed(Stage::Decode, error.to_string()),
                    },
                };
                Item::new(record, step)
            }
            Self::Planned(planned) => {
                let origin = match planned.is_repartitioned {
                    true => rekey::restore(&mut record),
                    false => None,
                };
                let input = origin.as_ref().map_or(input, |origin| origin.input);
                let before = rows.len();
                let step = match &record.value {
                    None => Step::Tombstone,
                    Some(value) => match planned.plan.pick(input, value, record.timestamp_ms, rows)
                    {
                        Ok(picked) => Step::Picked(Box::new(picked)),
                        Err(error) => Step::failed(Stage::Decode, error.to_string()),
                    },
                };
                let mut item = Item::new(record, step);
                item.has_row = rows.len() > before;
                item.origin = origin.map(Box::new);
                item
            }
            Self::Rekey { picker, replayed } => {
                let picked = record.value.as_ref().map(|value| picker.pick(value));
                let step = match picked {
                    // It goes on by its own key: there is no field to look into.
                    None => match &record.key {
                        Some(key) => Step::Rekey(key.clone()),
                        None => Step::failed(Stage::Decode, "neither key nor value".to_owned()),
                    },
                    Some(Ok(Some(key))) if key.len() > MAX_KEY_BYTES => {
                        Step::failed(Stage::Features, key_too_long(key.len()))
                    }
                    Some(Ok(Some(key))) => Step::Rekey(Bytes::from(key)),
                    Some(Ok(None)) => {
                        Step::failed(Stage::Features, "the key of its state is null".to_owned())
                    }
                    Some(Err(error)) => Step::failed(Stage::Decode, error.to_string()),
                };
                let source = (task, rekey::source(input, task.partition));
                let replayed = replayed.lock().unwrap_or_else(PoisonError::into_inner);
                let is_replayed = replayed
                    .get(&source)
                    .is_some_and(|end| record.offset < *end);
                match step {
                    Step::Failed(_) if is_replayed => Item::new(record, Step::Replayed),
                    step => Item::new(record, step),
                }
            }
        }
    }

    pub(super) fn planned(&self) -> Option<&Planned> {
        match self {
            Self::Planned(planned) => Some(planned),
            _ => None,
        }
    }

    /// What is remembered of keys.
    pub(super) fn store(&self) -> Option<&Arc<Mutex<Store>>> {
        self.planned()?.store.as_ref()
    }
}

impl Planned {
    /// Makes the features of what was read, in its order.
    pub(super) fn make(
        &self,
        mut prepared: Prepared,
        measures: &Features,
    ) -> Result<Prepared, StateError> {
        let started = Instant::now();
        let mut store = self.store.as_ref().map(|store| lock(store));
        for part in &mut prepared.parts {
            match &mut store {
                None => {
                    for item in &mut part.records {
                        self.make_stateless(item, &mut prepared.rows);
                    }
                }
                Some(store) => {
                    // Work of another generation is dropped later.
                    if let Some((state, spill)) = store.task_and_spill(part.task, part.generation) {
                        self.make_part(part, state, spill, &mut prepared.rows, measures)?;
                    }
                }
            }
        }
        if let Some(store) = &mut store {
            store.fit()?;
        }
        measures.seconds.record(started.elapsed().as_secs_f64());
        Ok(prepared)
    }

    fn make_part(
        &self,
        part: &mut Part,
        state: &mut TaskState,
        spill: Option<&Spill>,
        rows: &mut Input,
        measures: &Features,
    ) -> Result<(), StateError> {
        let now = Instant::now();
        let looks = part.records.len() * SWEEP_LOOKS;
        for item in &mut part.records {
            let (source, offset) = match &item.origin {
                Some(origin) => (origin.source(), origin.offset),
                None => (
                    rekey::source(part.input, part.task.partition),
                    item.record.offset,
                ),
            };
            let is_replayed = state.is_replayed(source, offset);
            let Step::Picked(picked) = &item.step else {
                if is_replayed {
                    item.step = Step::Replayed;
                }
                continue;
            };
            let picked = picked.clone();
            let key = match &item.origin {
                Some(origin) => origin.state_key.clone(),
                None => item.record.key.clone(),
            };
            let key = match key {
                Some(key) if key.len() <= MAX_KEY_BYTES => key,
                Some(key) => {
                    item.step = Step::failed(Stage::Features, key_too_long(key.len()));
                    continue;
                }
                None => {
                    let reason = "its key is null, and state is kept by key".to_owned();
                    item.step = Step::failed(Stage::Features, reason);
                    continue;
                }
            };
            let stream = state.see((source, offset), picked.time_ms, now, &mut item.changes);
            let before = rows.len();
            let made = state.change(spill, &key, &mut item.changes, |cells, touched| {
                self.plan
                    .make(&picked, cells, stream, &*self.tables, rows, touched)
            })?;
            item.changed = state.changes();
            if made.as_ref().is_ok_and(|made| made.is_late)
                || matches!(made, Err(MakeError::Late { .. }))
            {
                measures.late.increment(1);
            }
            self.end(item, *picked, made);
            if is_replayed {
                item.step = Step::Replayed;
                if let (Input::Rows(rows), true) = (&mut *rows, self.plan.makes_rows()) {
                    rows.truncate(before);
                    item.has_row = false;
                }
            }
        }
        if let Some(last) = part.records.last_mut() {
            let plan = &self.plan;
            let update_ms = plan.update_ms();
            state.sweep(
                spill,
                looks,
                &self.panes,
                plan.ttl_ms,
                update_ms,
                &mut last.changes,
            )?;
            last.changed = state.changes();
        }
        Ok(())
    }

    fn make_stateless(&self, item: &mut Item, rows: &mut Input) {
        let Step::Picked(picked) = &item.step else {
            return;
        };
        let picked = picked.clone();
        let (cells, touched) = (&mut Default::default(), &mut Vec::new());
        let stream = StreamTime::at(i64::MIN);
        let made = self
            .plan
            .make(&picked, cells, stream, &*self.tables, rows, touched);
        self.end(item, *picked, made);
    }

    fn end(&self, item: &mut Item, picked: Picked, made: Result<Made, MakeError>) {
        item.step = match made {
            Ok(made) => {
                item.has_row = true;
                item.seen = self.keeps_seen.then(|| {
                    Box::new(Seen {
                        picked,
                        features: made.features,
                    })
                });
                Step::Row
            }
            Err(error @ MakeError::Late { .. }) => Step::failed(Stage::Late, error.to_string()),
            Err(error @ MakeError::Field(_)) => Step::failed(Stage::Features, error.to_string()),
        };
    }
}

fn key_too_long(length: usize) -> String {
    format!("its key has {length} bytes, and state is kept for keys of up to {MAX_KEY_BYTES}")
}

pub(super) fn lock(store: &Mutex<Store>) -> MutexGuard<'_, Store> {
    store.lock().unwrap_or_else(PoisonError::into_inner)
}
