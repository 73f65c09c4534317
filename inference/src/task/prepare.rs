//! From what a poll tells to rows for the engine, with the bad records set aside.

use bytes::Bytes;

use super::rekey::Origin;
use super::work::Work;
use crate::engine::{BatchLimits, Engine, EngineError, Inferred, Pending};
use crate::feature::plan::{FeatureValue, Picked};
use crate::model::{Input, Takes};
use crate::state::Change;
use crate::stream_log::{InputRecord, Task};

/// What a record weighs in memory beside its bytes, and its output with its headers, about.
const RECORD_OVERHEAD_BYTES: usize = 1024;

/// What becomes of a record.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Step {
    /// Its value is null: passed on.
    Tombstone,
    /// Its features are to be made of this.
    Picked(Box<Picked>),
    /// It is the next of the rows.
    Row,
    /// It goes on under another key.
    Rekey(Bytes),
    /// It has only changed the state: its output is there.
    Replayed,
    /// It failed before the model.
    Failed(Box<Failure>),
}

/// Why a record failed before the model.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Failure {
    pub(super) stage: Stage,
    pub(super) reason: String,
}

/// Where records fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Decode,
    Features,
    /// Its windows have closed, and it is a dead letter by its model topic's `late`.
    Late,
    Infer,
    Output,
}

impl Stage {
    /// In headers and metrics.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Decode => "decode",
            Self::Features | Self::Late => "features",
            Self::Infer => "infer",
            Self::Output => "output",
        }
    }
}

impl Step {
    pub(super) fn failed(stage: Stage, reason: String) -> Self {
        Self::Failed(Box::new(Failure { stage, reason }))
    }
}

/// A record on its way.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Item {
    pub(super) record: InputRecord,
    /// Where it came from, where that is not where it was read.
    pub(super) origin: Option<Box<Origin>>,
    pub(super) step: Step,
    /// It has a row, whatever has become of it since.
    pub(super) has_row: bool,
    /// For templates and rules.
    pub(super) seen: Option<Box<Seen>>,
    /// What it changes of the state.
    pub(super) changes: Vec<Change>,
    /// The number of the last of these; 0 where there is none.
    pub(super) changed: u64,
}

/// What templates and rules may ask of a record.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Seen {
    pub(super) picked: Picked,
    pub(super) features: Vec<FeatureValue>,
}

impl Item {
    pub(super) fn new(record: InputRecord, step: Step) -> Self {
        Self {
            has_row: step == Step::Row,
            record,
            origin: None,
            step,
            seen: None,
            changes: Vec::new(),
            changed: 0,
        }
    }
}

/// Records of one input of one task.
pub(super) struct Part {
    pub(super) task: Task,
    /// Of the task when they were read: work of another generation is dropped.
    pub(super) generation: u64,
    pub(super) input: usize,
    pub(super) records: Vec<Item>,
    /// The position after them.
    pub(super) next: i64,
}

/// What one poll gave.
pub(super) struct Polled {
    pub(super) parts: Vec<(Part, Vec<InputRecord>)>,
    /// In memory, with the rows that are to come, about.
    pub(super) bytes: usize,
    takes: Takes,
}

impl Polled {
    /// Nothing yet, for a model that takes records in such a form.
    pub(super) fn new(takes: Takes) -> Self {
        Self {
            parts: Vec::new(),
            bytes: 0,
            takes,
        }
    }

    pub(super) fn push(&mut self, part: Part, records: Vec<InputRecord>) {
        let bytes: usize = records.iter().map(weight).sum();
        self.bytes += bytes
            + match self.takes {
                Takes::Rows(width) => records.len() * width * size_of::<f32>(),
                // A token is mostly more than one byte of the text, and four in memory.
                Takes::Tokens => bytes,
            };
        self.parts.push((part, records));
    }

    /// Decodes the records.
    pub(super) fn decode(self, work: &Work) -> Prepared {
        let mut rows = self.takes.none();
        let parts = self.parts.into_iter().map(|(mut part, records)| {
            let items = records
                .into_iter()
                .map(|record| work.decode(part.task, part.input, record, &mut rows));
            part.records = items.collect();
            part
        });
        Prepared {
            parts: parts.collect(),
            rows,
        }
    }
}

/// What one poll gave, decoded.
pub(super) struct Prepared {
    pub(super) parts: Vec<Part>,
    /// Of all parts, in their order.
    pub(super) rows: Input,
}

fn weight(record: &InputRecord) -> usize {
    let length = |bytes: &Option<bytes::Bytes>| bytes.as_ref().map_or(0, bytes::Bytes::len);
    RECORD_OVERHEAD_BYTES + length(&record.key) + length(&record.value)
}

impl Prepared {
    /// In the same order, in pieces whose rows are no more than a batch.
    fn pieces(self, limits: BatchLimits) -> Vec<Self> {
        let ranges = self.rows.parts(limits.max_records, limits.max_tokens);
        if ranges.len() < 2 {
            return vec![self];
        }
        let mut parts = self.parts.into_iter().peekable();
        let mut pieces = Vec::with_capacity(ranges.len());
        let last = ranges.len() - 1;
        for (n, range) in ranges.into_iter().enumerate() {
            let mut left = range.len();
            let mut of_piece = Vec::new();
            while n < last
                && left > 0
                && let Some(part) = parts.peek_mut()
            {
                match part.first_rows(left) {
                    Some((first, rows)) => {
                        of_piece.push(first);
                        left -= rows;
                    }
                    None => {
                        left -= part.rows();
                        of_piece.extend(parts.next());
                    }
                }
            }
            if n == last {
                of_piece.extend(parts.by_ref());
            }
            pieces.push(Self {
                parts: of_piece,
                rows: self.rows.slice(range),
            });
        }
        pieces
    }
}

impl Part {
    fn rows(&self) -> usize {
        self.records.iter().filter(|item| item.has_row).count()
    }

    /// Takes the records up to the `most`th that is a row off, where others are behind it; with how many rows they
    /// are.
    fn first_rows(&mut self, most: usize) -> Option<(Self, usize)> {
        let rows = self.records.iter().enumerate();
        let rows = rows.filter(|(_, item)| item.has_row);
        let (at, _) = rows.take(most).nth(most.checked_sub(1)?)?;
        if at + 1 == self.records.len() {
            return None;
        }
        let behind = self.records.split_off(at + 1);
        let records = std::mem::replace(&mut self.records, behind);
        let next = records
            .last()
            .map_or(self.next, |item| item.record.offset + 1);
        Some((
            Self {
                records,
                next,
                ..*self
            },
            most,
        ))
    }
}

/// Some of a poll's records, and what the model made of their rows.
pub(super) struct Answered {
    pub(super) parts: Vec<Part>,
    /// None where they have no rows.
    pub(super) inferred: Option<Inferred>,
    /// Whether the poll has no more records.
    pub(super) is_last: bool,
}

/// Some of a poll's records, and the answer that is to come where they have rows.
type Submitted = Vec<(Vec<Part>, Option<Pending>)>;

/// Gives rows to the engine, in submissions that are no larger than a batch.
pub(super) async fn submit(
    engine: Option<&Engine>,
    prepared: Prepared,
    limits: BatchLimits,
) -> Result<Submitted, EngineError> {
    let mut submitted = Vec::new();
    for Prepared { parts, rows } in prepared.pieces(limits) {
        let pending = match engine {
            Some(engine) if !rows.is_empty() => Some(engine.submit(rows, limits).await?),
            _ => None,
        };
        submitted.push((parts, pending));
    }
    Ok(submitted)
}

/// Tells of each submission when it and those before are answered: what a slow model has done does not wait for the
/// rest of the poll.
pub(super) async fn answers(
    submitted: Submitted,
    tell: impl Fn(Answered),
) -> Result<(), EngineError> {
    let mut submitted = submitted.into_iter();
    while let Some((parts, pending)) = submitted.next() {
        let inferred = match pending {
            Some(pending) => Some(pending.wait().await?),
            None => None,
        };
        tell(Answered {
            parts,
            inferred,
            is_last: submitted.len() == 0,
        });
    }
    Ok(())
}

/// The answers of a submission, row by row.
pub(super) struct Answers {
    inferred: Option<Inferred>,
    row: usize,
    failure: usize,
}

/// What the model made of a row.
pub(super) enum Answer<'a> {
    Logits(&'a [f32]),
    Failed(&'a str),
}

impl Answers {
    pub(super) fn new(inferred: Option<Inferred>) -> Self {
        Self {
            inferred,
            row: 0,
            failure: 0,
        }
    }

    /// Of the next row.
    pub(super) fn next(&mut self) -> Answer<'_> {
        let row = self.row;
        self.row += 1;
        let Some(inferred) = self.inferred.as_ref().filter(|all| row < all.logits.len()) else {
            return Answer::Failed("the model gave no answer");
        };
        match inferred.failed.get(self.failure) {
            Some(failed) if failed.row == row => {
                self.failure += 1;
                Answer::Failed(&failed.reason)
            }
            _ => Answer::Logits(inferred.logits.row(row)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Rows;

    fn part(steps: &str, first: i64) -> Part {
        let record = |(n, step): (usize, char)| {
            let record = InputRecord {
                offset: first + n as i64,
                timestamp_ms: 0,
                key: None,
                value: None,
                headers: Vec::new(),
            };
            let step = match step {
                'r' => Step::Row,
                't' => Step::Tombstone,
                _ => Step::failed(Stage::Decode, String::new()),
            };
            Item::new(record, step)
        };
        let records: Vec<_> = steps.chars().enumerate().map(record).collect();
        Part {
            task: Task { partition: 0 },
            generation: 1,
            input: 0,
            next: first + records.len() as i64 + 5,
            records,
        }
    }

    #[test]
    fn pieces_have_each_record_once_and_its_position() {
        let parts = || {
            vec![
                part("rrtr", 0),
                part("", 0),
                part("tt", 20),
                part("rxrrrt", 40),
            ]
        };
        for max_records in 1..9 {
            let prepared = Prepared {
                parts: parts(),
                rows: Rows::from_values(1, (0..7).map(|n| n as f32).collect())
                    .unwrap()
                    .into(),
            };
            let limits = BatchLimits {
                max_records,
                max_tokens: usize::MAX,
                max_delay: std::time::Duration::ZERO,
            };
            let pieces = prepared.pieces(limits);
            assert_eq!(pieces.len(), 7usize.div_ceil(max_records));
            let mut offsets = Vec::new();
            let mut next = Vec::new();
            for piece in &pieces {
                let rows: usize = piece.parts.iter().map(Part::rows).sum();
                assert_eq!(rows, piece.rows.len());
                for part in &piece.parts {
                    let of_part = part.records.iter().map(|item| item.record.offset);
                    offsets.extend(of_part.clone());
                    assert!(of_part.max().is_none_or(|last| last < part.next));
                    next.push(part.next);
                }
            }
            assert_eq!(offsets, [0, 1, 2, 3, 20, 21, 40, 41, 42, 43, 44, 45]);
            for part in parts() {
                assert!(next.contains(&part.next));
            }
        }
    }
}
