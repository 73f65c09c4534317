//! What is kept for the features of one window over one field, and how a record changes it.
//!
//! | window | slice of a cell | its value |
//! |---|---|---|
//! | tumbling, sliding | the time divided by the slice's length | an [`Accumulator`] |
//! | session | the session's start, ms | its end, ms `i64`, and an [`Accumulator`] |
//! | by count | -1 | how many there were `u64`, the last time, ms `i64` |
//! | by count | its number among the last | time, ms `i64`; what it is: `u8`; its bits, or its hash's, `u64` |
//! | all | 0 | an [`Accumulator`] |

use bytes::{Buf, BufMut};

use super::aggregate::{Accumulator, Parts, Value};
use super::cells::{Cell, Cells};
use super::window::Window;
use crate::spec::Aggregate;

/// The cell that says how many records there were.
const COUNT_CELL: i64 = -1;

/// The features of one window over one field.
#[derive(Clone, Debug, PartialEq)]
pub struct Pane {
    /// In keys of state: a hash of what it is.
    pub id: u32,
    /// The window.
    pub window: Window,
    /// What its features need.
    pub parts: Parts,
    /// Whether a record's features need what was before it.
    pub needs_before: bool,
}

/// When a record is, and what holds for records that are late.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// The record's event time.
    pub time_ms: i64,
    /// The highest event time so far: stream time.
    pub stream_ms: i64,
    /// Stream time before this record.
    pub before_ms: i64,
    /// How long closed windows are kept and take records; 0 where late ones are dropped.
    pub update_ms: i64,
    /// How long a key is remembered where no window says so.
    pub ttl_ms: i64,
}

/// What a record's window holds.
#[derive(Clone, Debug)]
pub struct Held {
    before: Option<Accumulator>,
    after: Accumulator,
    seconds: f64,
    time_ms: i64,
}

impl Held {
    /// An aggregate's value for the record, whose own number `value` is.
    pub fn value(&self, aggregate: Aggregate, value: Option<f64>) -> Option<f64> {
        let before = self.before.as_ref().filter(|before| before.count > 0);
        match aggregate {
            Aggregate::Last => before?.value(Aggregate::Last, 0.0),
            Aggregate::Delta => Some(value? - before?.value(Aggregate::Last, 0.0)?),
            Aggregate::TimeSinceLast => Some(seconds(before?.last_ms, self.time_ms).max(0.0)),
            aggregate => self.after.value(aggregate, self.seconds),
        }
    }
}

/// A session that a record may belong to.
struct Session {
    start: i64,
    end: i64,
    held: Accumulator,
}

impl Pane {
    /// Whether the record's own window has closed.
    pub fn is_late(&self, cells: &Cells, moment: Moment) -> bool {
        let Moment {
            time_ms, stream_ms, ..
        } = moment;
        match self.window {
            Window::Sliced {
                slice_ms, grace_ms, ..
            } => {
                let end = Window::start_of(slice_ms, Window::slice_of(slice_ms, time_ms), 1);
                end + i128::from(grace_ms) <= i128::from(stream_ms)
            }
            Window::Session { gap_ms, grace_ms } => {
                let end = self
                    .overlapping(cells, moment, gap_ms, grace_ms)
                    .fold(time_ms, |end, (_, cell_end, _)| end.max(cell_end));
                sum([end, gap_ms, grace_ms]) < i128::from(stream_ms)
            }
            Window::Count { .. } | Window::All => false,
        }
    }

    /// Adds a record's value, where there is one and a window takes it, and tells what the record's window holds. `touched`
    /// gets the slices that have changed.
    pub fn observe(
        &self,
        cells: &mut Cells,
        moment: Moment,
        value: Option<Value<'_>>,
        touched: &mut Vec<i64>,
    ) -> Held {
        self.let_go(cells, moment, touched);
        match self.window {
            Window::Sliced {
                slice_ms,
                slices,
                grace_ms,
            } => {
                let slice = Window::slice_of(slice_ms, moment.time_ms);
                let open_until =
                    Window::start_of(slice_ms, slice, slices) + sum([grace_ms, moment.update_ms]);
                let takes = open_until > i128::from(moment.stream_ms);
                let seconds = (slices * slice_ms) as f64 / 1000.0;
                let earlier = self.merged(cells, slice.saturating_sub(slices - 1)..slice);
                let own = self.accumulator(cells.get(self.id, slice));
                self.add(
                    cells,
                    moment,
                    value.filter(|_| takes),
                    slice,
                    earlier,
                    own,
                    seconds,
                    touched,
                )
            }
            Window::All => {
                let own = self.accumulator(cells.get(self.id, 0));
                let earlier = Accumulator::new(self.parts);
                self.add(cells, moment, value, 0, earlier, own, 0.0, touched)
            }
            Window::Session { gap_ms, grace_ms } => {
                self.observe_session(cells, moment, value, gap_ms, grace_ms, touched)
            }
            Window::Count { records } => self.observe_count(cells, moment, value, records, touched),
        }
    }

    /// What the window that ends now holds, for those who ask.
    pub fn look(&self, cells: &Cells, moment: Moment) -> Held {
        let mut cells = cells.clone();
        let now = Moment {
            time_ms: moment.stream_ms,
            ..moment
        };
        self.observe(&mut cells, now, None, &mut Vec::new())
    }

    /// When the last of a cell's windows closes, or its key is forgotten: a time that may be beyond all that records can have.
    pub fn ends_ms(&self, cell: Cell<'_>, ttl_ms: i64, update_ms: i64) -> i128 {
        match self.window {
            Window::Sliced {
                slice_ms,
                slices,
                grace_ms,
            } => Window::start_of(slice_ms, cell.slice, slices) + sum([grace_ms, update_ms]),
            Window::Session { gap_ms, grace_ms } => {
                sum([session_end(cell), gap_ms, grace_ms, update_ms])
            }
            // Both have the last time in the same place.
            Window::All => sum([last_ms(cell.value), ttl_ms]),
            // The others go with the one that counts.
            Window::Count { .. } if cell.slice == COUNT_CELL => sum([last_ms(cell.value), ttl_ms]),
            Window::Count { .. } => i128::MIN,
        }
    }

    /// Takes away the cells that no record will need any more.
    fn let_go(&self, cells: &mut Cells, moment: Moment, touched: &mut Vec<i64>) {
        let Moment {
            ttl_ms, update_ms, ..
        } = moment;
        // A session may go on with the record that would end it.
        let stream_ms = match self.window {
            Window::Session { .. } => moment.before_ms,
            _ => moment.stream_ms,
        };
        let is_over =
            |cell: Cell<'_>| self.ends_ms(cell, ttl_ms, update_ms) <= i128::from(stream_ms);
        let mut over: Vec<i64> = Vec::new();
        match self.window {
            Window::Count { .. } => {
                let count = cells.of(self.id).find(|cell| cell.slice == COUNT_CELL);
                if count.is_some_and(is_over) {
                    over.extend(cells.of(self.id).map(|cell| cell.slice));
                }
            }
            _ => over.extend(
                cells
                    .of(self.id)
                    .filter(|cell| is_over(*cell))
                    .map(|cell| cell.slice),
            ),
        }
        for slice in over {
            cells.remove(self.id, slice);
            touched.push(slice);
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn add(
        &self,
        cells: &mut Cells,
        moment: Moment,
        value: Option<Value<'_>>,
        slice: i64,
        earlier: Accumulator,
        mut own: Accumulator,
        seconds: f64,
        touched: &mut Vec<i64>,
    ) -> Held {
        let before = self.needs_before.then(|| {
            let mut before = earlier.clone();
            before.merge(&own);
            before
        });
        if let Some(value) = value {
            own.add(moment.time_ms, value);
            self.put(cells, slice, None, &own, touched);
        }
        let mut after = earlier;
        after.merge(&own);
        Held {
            before,
            after,
            seconds,
            time_ms: moment.time_ms,
        }
    }

    fn observe_session(
        &self,
        cells: &mut Cells,
        moment: Moment,
        value: Option<Value<'_>>,
        gap_ms: i64,
        grace_ms: i64,
        touched: &mut Vec<i64>,
    ) -> Held {
        let time_ms = moment.time_ms;
        let mut found: Vec<Session> = self
            .overlapping(cells, moment, gap_ms, grace_ms)
            .map(|(start, end, held)| Session {
                start,
                end,
                held: self.accumulator(Some(held)),
            })
            .collect();
        found.sort_unstable_by_key(|session| session.start);
        let mut own = Accumulator::new(self.parts);
        for session in &found {
            own.merge(&session.held);
        }
        let start = found.iter().map(|session| session.start).min();
        let end = found.iter().map(|session| session.end).max();
        // Those that it only looks at stay as long as they are.
        let mut span = start.zip(end);
        let with = span.map_or((time_ms, time_ms), |(start, end)| {
            (start.min(time_ms), end.max(time_ms))
        });
        let before = self.needs_before.then(|| own.clone());
        let open_until = sum([with.1, gap_ms, grace_ms, moment.update_ms]);
        if let Some(value) = value.filter(|_| open_until >= i128::from(moment.stream_ms)) {
            own.add(time_ms, value);
            for session in found.iter().filter(|session| session.start != with.0) {
                cells.remove(self.id, session.start);
                touched.push(session.start);
            }
            self.put(cells, with.0, Some(with.1), &own, touched);
            span = Some(with);
        }
        Held {
            before,
            after: own,
            seconds: span.map_or(0.0, |(start, end)| seconds(start, end)),
            time_ms,
        }
    }

    fn observe_count(
        &self,
        cells: &mut Cells,
        moment: Moment,
        value: Option<Value<'_>>,
        records: i64,
        touched: &mut Vec<i64>,
    ) -> Held {
        let count = cells.get(self.id, COUNT_CELL);
        let mut there = count.map_or(0, |mut count| count.try_get_i64().unwrap_or(0).max(0));
        let mut last = count.map_or(i64::MIN, last_ms);
        let gone = (there - records).max(0);
        let mut before = None;
        if let Some(value) = value {
            // With this one, one fewer of those before are among the last.
            if self.needs_before {
                let first = gone.max(there + 1 - records);
                before = Some(self.of_count(cells, first..there, records).0);
            }
            last = last.max(moment.time_ms);
            let slot = there % records;
            let mut bytes = Vec::with_capacity(17);
            put_value(moment.time_ms, value, &mut bytes);
            cells.set(self.id, slot, &bytes);
            there += 1;
            let mut count = Vec::with_capacity(16);
            count.put_i64(there);
            count.put_i64(last);
            cells.set(self.id, COUNT_CELL, &count);
            touched.extend([slot, COUNT_CELL]);
        } else if self.needs_before {
            before = Some(self.of_count(cells, gone..there, records).0);
        }
        let (after, seconds) = self.of_count(cells, (there - records).max(0)..there, records);
        Held {
            before,
            after,
            seconds,
            time_ms: moment.time_ms,
        }
    }

    /// Of the records with these numbers, and how long from the earliest to the latest.
    fn of_count(
        &self,
        cells: &Cells,
        numbers: std::ops::Range<i64>,
        records: i64,
    ) -> (Accumulator, f64) {
        let mut all = Accumulator::new(self.parts);
        let mut first = i64::MAX;
        for number in numbers {
            let value = cells.get(self.id, number % records);
            if let Some((time_ms, value)) = value.and_then(get_value) {
                first = first.min(time_ms);
                all.add(time_ms, value);
            }
        }
        let seconds = match all.count {
            0 => 0.0,
            _ => seconds(first, all.last_ms),
        };
        (all, seconds)
    }

    /// Start, end and accumulator of each session that is open and within a gap of a record's time.
    fn overlapping<'c>(
        &self,
        cells: &'c Cells,
        moment: Moment,
        gap_ms: i64,
        grace_ms: i64,
    ) -> impl Iterator<Item = (i64, i64, &'c [u8])> {
        let (time_ms, update_ms) = (moment.time_ms, moment.update_ms);
        let (from, to) = (
            time_ms.saturating_sub(gap_ms),
            time_ms.saturating_add(gap_ms),
        );
        cells.of(self.id).filter_map(move |cell| {
            let end = session_end(cell);
            let is_open = sum([end, gap_ms, grace_ms, update_ms]) > i128::from(moment.before_ms);
            let overlaps = is_open && end >= from && cell.slice <= to;
            overlaps.then(|| (cell.slice, end, cell.value.get(8..).unwrap_or_default()))
        })
    }

    /// Of some slices, from the earliest on.
    fn merged(&self, cells: &Cells, slices: std::ops::Range<i64>) -> Accumulator {
        let mut all = Accumulator::new(self.parts);
        let mut found: Vec<Cell<'_>> = cells
            .of(self.id)
            .filter(|cell| slices.contains(&cell.slice))
            .collect();
        found.sort_unstable_by_key(|cell| cell.slice);
        for cell in found {
            all.merge(&self.accumulator(Some(cell.value)));
        }
        all
    }

    /// The state's definition is checked before it is read, and each batch of a changelog has a checksum: what can't be
    /// read is nothing that was written.
    fn accumulator(&self, bytes: Option<&[u8]>) -> Accumulator {
        let read = bytes.map(|bytes| Accumulator::decode(self.parts, bytes));
        match read {
            Some(Ok(accumulator)) => accumulator,
            Some(Err(error)) => {
                tracing::error!(pane = self.id, %error, "state can't be read and counts as none");
                Accumulator::new(self.parts)
            }
            None => Accumulator::new(self.parts),
        }
    }

    fn put(
        &self,
        cells: &mut Cells,
        slice: i64,
        end: Option<i64>,
        held: &Accumulator,
        touched: &mut Vec<i64>,
    ) {
        let mut bytes = Vec::with_capacity(64);
        bytes.extend(end.iter().flat_map(|end| end.to_be_bytes()));
        held.encode(&mut bytes);
        cells.set(self.id, slice, &bytes);
        touched.push(slice);
    }
}

/// Times are any `i64`, and so what is computed of them is not.
fn sum<const N: usize>(ms: [i64; N]) -> i128 {
    ms.into_iter().map(i128::from).sum()
}

/// From one time to another.
fn seconds(from_ms: i64, to_ms: i64) -> f64 {
    (i128::from(to_ms) - i128::from(from_ms)) as f64 / 1000.0
}

fn session_end(cell: Cell<'_>) -> i64 {
    let mut value = cell.value;
    value.try_get_i64().unwrap_or(cell.slice)
}

/// Of a count's or an accumulator's bytes.
fn last_ms(bytes: &[u8]) -> i64 {
    let mut bytes = bytes.get(8..).unwrap_or_default();
    bytes.try_get_i64().unwrap_or(i64::MIN)
}

const RECORD: u8 = 0;
const NUMBER: u8 = 1;
const HASH: u8 = 2;
const INTEGER: u8 = 3;

fn put_value(time_ms: i64, value: Value<'_>, out: &mut Vec<u8>) {
    let (kind, bits) = match value {
        Value::Record => (RECORD, 0),
        Value::Number(number) => (NUMBER, number.to_bits()),
        Value::Integer(number) => (INTEGER, number as u64),
        Value::Text(text) => (HASH, super::hash::of_text(text)),
        Value::Hash(hash) => (HASH, hash),
    };
    out.put_i64(time_ms);
    out.put_u8(kind);
    out.put_u64(bits);
}

fn get_value(mut bytes: &[u8]) -> Option<(i64, Value<'static>)> {
    let time_ms = bytes.try_get_i64().ok()?;
    let kind = bytes.try_get_u8().ok()?;
    let bits = bytes.try_get_u64().ok()?;
    let value = match kind {
        RECORD => Value::Record,
        NUMBER => Value::Number(f64::from_bits(bits)),
        HASH => Value::Hash(bits),
        INTEGER => Value::Integer(bits as i64),
        _ => return None,
    };
    Some((time_ms, value))
}

#[cfg(test)]
mod tests;
