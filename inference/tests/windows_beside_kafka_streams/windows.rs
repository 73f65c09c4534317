//! One window of Milena's, beside those of Kafka Streams that it stands for.

use std::time::{Duration, Instant};

use bytes::Bytes;
use inference::feature::aggregate::Accumulator;
use inference::feature::cells::Cells;
use inference::feature::pane::{Moment, Pane};
use inference::feature::plan::{Lookup, Plan, Tables};
use inference::feature::{Field, window::Window};
use inference::model::card::Card;
use inference::model::{Input, Rows};
use inference::spec::{Aggregate, ModelTopicSpec};
use inference::state::{Definition, Store};
use inference::stream_log::Task;

use crate::fixture::{Expected, Kind, Record, Update, Values};

const TASK: Task = Task { partition: 0 };

/// The features of a window, under names that begin so; none of a window that Milena does not have.
pub(crate) fn features(kind: Kind, name: &str) -> Option<String> {
    let window = match kind {
        Kind::Hopping {
            size,
            advance,
            grace,
        } if size == advance => {
            format!("tumbling = '{size}ms', grace = '{grace}ms'")
        }
        Kind::Hopping {
            size,
            advance,
            grace,
        } => {
            format!("sliding = '{size}ms', slice = '{advance}ms', grace = '{grace}ms'")
        }
        Kind::Session { gap, grace } => format!("session = '{gap}ms', grace = '{grace}ms'"),
        Kind::Retained => return None,
    };
    let of = |aggregate: &str, more: &str| {
        format!("{{ name = '{name}_{aggregate}', window = {{ {window} }}, {more} }},\n")
    };
    Some(
        [
            of("records", "agg = 'count'"),
            of("count", "agg = 'count', path = '$.v'"),
            of("sum", "agg = 'sum', path = '$.v'"),
            of(
                "min",
                &format!("agg = 'min', path = '$.v', default = {NONE}"),
            ),
            of(
                "max",
                &format!("agg = 'max', path = '$.v', default = {NONE}"),
            ),
        ]
        .concat(),
    )
}

/// What stands for a least or greatest value that there is not.
pub(crate) const NONE: f64 = -1e9;

/// A record's value. One without is one without the field: it counts, and moves the time.
pub(crate) fn json(record: &Record) -> String {
    match record.value {
        Some(value) => format!("{{\"v\": {value}}}"),
        None => "{}".to_owned(),
    }
}

/// A task with one window, without the reading of its log.
pub(crate) struct Run {
    kind: Kind,
    plan: Plan,
    records: Pane,
    values: Pane,
    store: Store,
    offset: i64,
}

struct NoTables;

impl Tables for NoTables {
    fn get(&self, _: usize, _: &Lookup, _: &str) -> Field<'static> {
        Field::Absent
    }
}

impl Run {
    /// Of a window; none where Milena does not have it.
    pub(crate) fn new(kind: Kind) -> Option<Self> {
        let toml = format!(
            "name = 'scored'\ninput = 'records'\nmodel = 'm'\nfeature = [{}]",
            features(kind, "f")?
        );
        let spec: ModelTopicSpec = toml::from_str(&toml).unwrap();
        let card = r#"{"model_type": "linear", "task": "regress", "output": 1, "inputs": [{"path": "$.none", "default": 0}]}"#;
        let card = Card::Tabular(serde_json::from_str(card).unwrap());
        let plan = Plan::new(&spec, &card, &[None]).unwrap().unwrap();
        let of = |wanted: &str| {
            let mut panes = plan.panes_and_fields();
            panes.find(|(_, field)| *field == wanted).unwrap().0.clone()
        };
        let definition = Definition::new(None, 1, plan.panes_and_fields());
        let mut store = Store::new(definition, Duration::from_secs(3600), u64::MAX, None);
        store.begin(TASK, 1, false).unwrap();
        Some(Self {
            kind,
            records: of(""),
            values: of("$.v"),
            plan,
            store,
            offset: 0,
        })
    }

    /// What Kafka Streams would emit for the next record, where what Milena holds is the same.
    pub(crate) fn see(&mut self, record: &Record) -> Expected {
        let offset = self.offset;
        self.offset += 1;
        let Some(key) = &record.key else {
            // A dead letter, before anything is known of it.
            return Expected {
                updates: Vec::new(),
                dropped: 1,
            };
        };
        let mut rows = Input::Rows(Rows::new(1));
        let bytes = Bytes::from(json(record));
        let picked = self
            .plan
            .pick(0, &bytes, record.time_ms, &mut rows)
            .unwrap();
        let (kind, records, values) = (self.kind, &self.records, &self.values);
        let (state, spill) = self.store.task_and_spill(TASK, 1).unwrap();
        let mut changes = Vec::new();
        let stream = state.see((0, offset), picked.time_ms, Instant::now(), &mut changes);
        let moment = self.plan.moment(picked.time_ms, stream);
        let plan = &self.plan;
        let found = state.change(spill, key.as_bytes(), &mut changes, |cells, touched| {
            let is_late = records.is_late(cells, moment);
            let made = plan.make(&picked, cells, stream, &NoTables, &mut rows, touched);
            let found = match kind {
                Kind::Hopping { .. } => hopping(records, values, cells, moment),
                _ => session(records, values, cells, moment, is_late),
            };
            // Of sessions, that of the records with a value may be over sooner.
            let may_differ = matches!(kind, Kind::Session { .. });
            let made = made.unwrap();
            assert!(made.is_late == is_late || (may_differ && made.is_late));
            assert_eq!(found.dropped > 0, is_late);
            found
        });
        let found = found.unwrap();
        let panes = [self.records.clone(), self.values.clone()];
        let plan = &self.plan;
        state
            .sweep(
                spill,
                2,
                &panes,
                plan.ttl_ms,
                plan.update_ms(),
                &mut changes,
            )
            .unwrap();
        let made = state.changes();
        state.committed(made);
        found
    }
}

/// Each hopping window that a record is in: what a record would see whose own it is, or that it would be late.
fn hopping(records: &Pane, values: &Pane, cells: &Cells, moment: Moment) -> Expected {
    let Window::Sliced {
        slice_ms, slices, ..
    } = records.window
    else {
        panic!("{:?} is no hopping window", records.window);
    };
    let mut found = Expected::default();
    let slice = Window::slice_of(slice_ms, moment.time_ms);
    for last in slice..slice + slices {
        let end = (last + 1) * slice_ms;
        let at_end = Moment {
            time_ms: end - 1,
            ..moment
        };
        if records.is_late(cells, at_end) {
            found.dropped += 1;
            continue;
        }
        let held = |pane: &Pane, aggregate| {
            let held = pane.observe(&mut cells.clone(), at_end, None, &mut Vec::new());
            held.value(aggregate, None)
        };
        found.updates.push(Update {
            start: end - slices * slice_ms - moment.time_ms,
            end: end - moment.time_ms,
            records: held(records, Aggregate::Count).unwrap(),
            values: Values {
                count: held(values, Aggregate::Count).unwrap(),
                sum: held(values, Aggregate::Sum).unwrap(),
                min: held(values, Aggregate::Min),
                max: held(values, Aggregate::Max),
            },
        });
    }
    found
}

/// The session that a record is in.
fn session(
    records: &Pane,
    values: &Pane,
    cells: &Cells,
    moment: Moment,
    is_late: bool,
) -> Expected {
    if is_late {
        return Expected {
            updates: Vec::new(),
            dropped: 1,
        };
    }
    let of = |pane: &Pane| session_of(pane, cells, moment.time_ms);
    let (start, end, held) = of(records).expect("the session that the record is in");
    // Of records with a value, where they are all.
    let other = of(values).filter(|other| (other.0, other.1) == (start, end));
    let other = other.map_or(Accumulator::new(values.parts), |other| other.2);
    let value = |aggregate| other.value(aggregate, 0.0);
    Expected {
        updates: vec![Update {
            start: start - moment.time_ms,
            end: end - moment.time_ms,
            records: held.value(Aggregate::Count, 0.0).unwrap(),
            values: Values {
                count: value(Aggregate::Count).unwrap(),
                sum: value(Aggregate::Sum).unwrap(),
                min: value(Aggregate::Min),
                max: value(Aggregate::Max),
            },
        }],
        dropped: 0,
    }
}

/// Start, end and what is held of the session in which a time is: the cell's slice is the start, and its value begins with the
/// end.
fn session_of(pane: &Pane, cells: &Cells, time_ms: i64) -> Option<(i64, i64, Accumulator)> {
    cells.of(pane.id).find_map(|cell| {
        let (end, held) = cell.value.split_first_chunk()?;
        let end = i64::from_be_bytes(*end);
        let held = Accumulator::decode(pane.parts, held).unwrap();
        (cell.slice <= time_ms && time_ms <= end).then_some((cell.slice, end, held))
    })
}

/// A number that features stand for.
pub(crate) fn number(value: f64) -> Option<f64> {
    (value != NONE).then_some(value)
}
