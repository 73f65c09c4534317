//! From what a poll tells to rows for the engine, with the bad records set aside.

use crate::codec::Decoder;
use crate::engine::{BatchLimits, Engine, EngineError, Inferred};
use crate::model::{Input, Takes};
use crate::stream_log::{InputRecord, Task};

/// What a record weighs in memory beside its bytes, and its output with its headers, about.
const RECORD_OVERHEAD_BYTES: usize = 1024;

/// What becomes of a record.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Step {
    /// Its value is null: passed on.
    Tombstone,
    /// It is the next of the rows.
    Row,
    /// It can't be read.
    Undecodable(String),
}

/// Records of one input of one task.
pub(super) struct Part {
    pub(super) task: Task,
    /// Of the task when they were read: work of another generation is dropped.
    pub(super) generation: u64,
    pub(super) input: usize,
    pub(super) records: Vec<(InputRecord, Step)>,
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
    pub(super) fn decode(self, decoder: &Decoder) -> Prepared {
        let mut rows = self.takes.none();
        let parts = self.parts.into_iter().map(|(mut part, records)| {
            let steps = records.into_iter().map(|record| {
                let step = step(&record, decoder, &mut rows);
                (record, step)
            });
            part.records = steps.collect();
            part
        });
        Prepared {
            parts: parts.collect(),
            rows,
        }
    }
}

fn step(record: &InputRecord, decoder: &Decoder, rows: &mut Input) -> Step {
    match &record.value {
        None => Step::Tombstone,
        Some(value) => match decoder.decode(value, rows) {
            Ok(()) => Step::Row,
            Err(error) => Step::Undecodable(error.to_string()),
        },
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

/// Gives rows to the engine, in submissions that are no larger than a batch, and waits for all answers.
pub(super) async fn infer(
    engine: Engine,
    rows: Input,
    limits: BatchLimits,
) -> Result<Vec<Inferred>, EngineError> {
    if rows.len() <= limits.max_records && rows.tokens() <= limits.max_tokens {
        return match rows.len() {
            0 => Ok(Vec::new()),
            _ => Ok(vec![engine.submit(rows, limits).await?.wait().await?]),
        };
    }
    let parts = rows.parts(limits.max_records, limits.max_tokens);
    let mut pending = Vec::with_capacity(parts.len());
    for part in parts {
        pending.push(engine.submit(rows.slice(part), limits).await?);
    }
    let mut answers = Vec::with_capacity(pending.len());
    for answer in pending {
        answers.push(answer.wait().await?);
    }
    Ok(answers)
}

/// The answers of one [`infer`], row by row.
pub(super) struct Answers {
    answers: std::vec::IntoIter<Inferred>,
    current: Option<Inferred>,
    row: usize,
    failure: usize,
}

/// What the model made of a row.
pub(super) enum Answer<'a> {
    Logits(&'a [f32]),
    Failed(&'a str),
}

impl Answers {
    pub(super) fn new(answers: Vec<Inferred>) -> Self {
        Self {
            answers: answers.into_iter(),
            current: None,
            row: 0,
            failure: 0,
        }
    }

    /// Of the next row.
    pub(super) fn next(&mut self) -> Answer<'_> {
        while self
            .current
            .as_ref()
            .is_none_or(|current| self.row >= current.logits.len())
        {
            self.current = self.answers.next();
            (self.row, self.failure) = (0, 0);
            if self.current.is_none() {
                break;
            }
        }
        let row = self.row;
        self.row += 1;
        match &self.current {
            None => Answer::Failed("the model gave no answer"),
            Some(current) => match current.failed.get(self.failure) {
                Some(failed) if failed.row == row => {
                    self.failure += 1;
                    Answer::Failed(&failed.reason)
                }
                _ => Answer::Logits(current.logits.row(row)),
            },
        }
    }
}
