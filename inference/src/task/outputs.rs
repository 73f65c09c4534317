//! From records and what the model made of them to outputs, in the order of the records.

use bytes::{Bytes, BytesMut};

use super::lineage::{Lineage, Shared};
use super::measure::Measures;
use super::prepare::{Answer, Answers, Item, Part, Seen, Stage, Step};
use super::rekey;
use super::rules::Writer;
use crate::codec::OutputEncoder;
use crate::feature::hash;
use crate::spec::{OnError, OnErrorSpec};
use crate::state::Change;
use crate::stream_log::{InputRecord, Output, OutputTopic, Task};

/// A part's outputs.
pub(super) struct Finished {
    pub(super) outputs: Vec<Output>,
    /// What its records change of the state, in their order.
    pub(super) changes: Vec<Change>,
    /// The number of the last change.
    pub(super) changed: u64,
    /// The position that they bring the input to.
    pub(super) next: i64,
    /// Why the model topic has to halt there.
    pub(super) halt: Option<String>,
}

/// Makes outputs.
pub(super) struct OutputMaker {
    lineage: Lineage,
    /// None where there is no model.
    encoder: Option<OutputEncoder>,
    /// Of templates and rules.
    writer: Option<Writer>,
    on_error: OnErrorSpec,
    /// Values and header texts are cut off it, so that many share an allocation.
    buffer: BytesMut,
}

/// What the buffer grows by, in bytes.
const BUFFER_BYTES: usize = 64 << 10;
/// Room that an output's value and texts mostly need.
const OUTPUT_BYTES: usize = 512;

/// How many partitions outputs have.
#[derive(Clone, Copy, Debug)]
pub(super) struct Partitions {
    pub(super) derived: i32,
    pub(super) dead_letter: i32,
}

/// A record that failed.
struct Failed {
    stage: Stage,
    reason: String,
}

impl OutputMaker {
    pub(super) fn new(
        lineage: Lineage,
        encoder: Option<OutputEncoder>,
        writer: Option<Writer>,
        on_error: OnErrorSpec,
    ) -> Self {
        Self {
            lineage,
            encoder,
            writer,
            on_error,
            buffer: BytesMut::new(),
        }
    }

    /// Makes a part's outputs, and takes its rows' answers.
    pub(super) fn make(
        &mut self,
        part: Part,
        answers: &mut Answers,
        partitions: Partitions,
        measures: &Measures,
    ) -> Finished {
        let mut finished = Finished {
            outputs: Vec::with_capacity(part.records.len()),
            changes: Vec::new(),
            changed: 0,
            next: part.next,
            halt: None,
        };
        let (task, input) = (part.task, part.input);
        let mut shared = Shared::default();
        for mut item in part.records {
            let answer = item.has_row.then(|| answers.next());
            let (changes, changed) = (std::mem::take(&mut item.changes), item.changed);
            let before = finished.outputs.len();
            let made = self.output(
                task,
                input,
                &mut item,
                answer,
                partitions,
                &mut shared,
                &mut finished.outputs,
            );
            if let Err(Failed { stage, reason }) = made {
                finished.outputs.truncate(before);
                measures.error(stage);
                let on_error = match stage {
                    Stage::Decode => self.on_error.decode,
                    Stage::Features | Stage::Output => self.on_error.features,
                    Stage::Late => OnError::Dlq,
                    Stage::Infer => self.on_error.infer,
                };
                match on_error {
                    OnError::Skip => {}
                    OnError::Dlq => {
                        let partition = task.partition.checked_rem(partitions.dead_letter);
                        let partition = partition.unwrap_or(task.partition);
                        let output = self.dead_letter(task, input, item, stage, &reason, partition);
                        finished.outputs.push(output);
                    }
                    OnError::Fail => {
                        let offset = item.record.offset;
                        finished.next = offset;
                        finished.halt = Some(format!(
                            "{} failed at offset {offset} of input {input}, partition {}: {reason}",
                            stage.name(),
                            task.partition
                        ));
                        break;
                    }
                }
            }
            finished.changes.extend(changes);
            finished.changed = finished.changed.max(changed);
        }
        finished
    }

    #[allow(clippy::too_many_arguments)]
    fn output(
        &mut self,
        task: Task,
        input: usize,
        item: &mut Item,
        answer: Option<Answer<'_>>,
        partitions: Partitions,
        shared: &mut Shared,
        outputs: &mut Vec<Output>,
    ) -> Result<(), Failed> {
        let value = match std::mem::replace(&mut item.step, Step::Tombstone) {
            Step::Tombstone => None,
            // Its task has another generation: nobody wants it.
            Step::Picked(_) => return Ok(()),
            Step::Replayed => return Ok(()),
            Step::Rekey(key) => {
                let partition = hash::partition_of(&key, partitions.derived);
                let headers = rekey::headers(&item.record, input, task.partition);
                outputs.push(Output {
                    topic: OutputTopic::Derived,
                    partition,
                    timestamp_ms: item.record.timestamp_ms,
                    key: Some(key),
                    value: item.record.value.clone(),
                    headers: headers.into(),
                });
                return Ok(());
            }
            Step::Failed(failure) => {
                return Err(Failed {
                    stage: failure.stage,
                    reason: failure.reason,
                });
            }
            Step::Row => match answer {
                Some(Answer::Logits(logits)) => Some(logits),
                Some(Answer::Failed(reason)) => {
                    return Err(Failed {
                        stage: Stage::Infer,
                        reason: reason.to_owned(),
                    });
                }
                None => return Ok(()),
            },
        };
        let (value, alerts) = match value {
            None => (None, Vec::new()),
            Some(logits) => {
                let (value, alerts) = self.value(logits, &item.record, item.seen.as_deref())?;
                (Some(value), alerts)
            }
        };
        self.derived(task, input, item, value, alerts, shared, outputs);
        Ok(())
    }

    /// The derived record's value, and what rules produce besides: to which alert topic, and what.
    fn value(
        &mut self,
        logits: &[f32],
        record: &InputRecord,
        seen: Option<&Seen>,
    ) -> Result<(Bytes, Vec<(usize, Bytes)>), Failed> {
        if self.buffer.capacity() < OUTPUT_BYTES {
            self.buffer.reserve(BUFFER_BYTES);
        }
        let Some(encoder) = &mut self.encoder else {
            return Ok((Bytes::new(), Vec::new()));
        };
        let Some(writer) = &mut self.writer else {
            encoder.encode(logits, &mut self.buffer);
            return Ok((self.buffer.split().freeze(), Vec::new()));
        };
        writer
            .write(encoder, logits, record, seen, &mut self.buffer)
            .map_err(|reason| Failed {
                stage: Stage::Output,
                reason,
            })
    }

    #[allow(clippy::too_many_arguments)]
    fn derived(
        &mut self,
        task: Task,
        input: usize,
        item: &Item,
        value: Option<Bytes>,
        alerts: Vec<(usize, Bytes)>,
        shared: &mut Shared,
        outputs: &mut Vec<Output>,
    ) {
        let record = &item.record;
        let (input, partition, offset) = match &item.origin {
            Some(origin) => (origin.input, origin.partition, origin.offset),
            None => (input, task.partition, record.offset),
        };
        let shared = self.lineage.shared(input, partition, shared);
        let alerts = alerts.into_iter();
        let alerts = alerts.map(|(topic, value)| (OutputTopic::Alert(topic), Some(value)));
        for (topic, value) in std::iter::once((OutputTopic::Derived, value)).chain(alerts) {
            outputs.push(Output {
                topic,
                partition: task.partition,
                timestamp_ms: record.timestamp_ms,
                key: record.key.clone(),
                value,
                headers: self.lineage.derived(&shared, offset, &mut self.buffer),
            });
        }
    }

    fn dead_letter(
        &self,
        task: Task,
        input: usize,
        item: Item,
        stage: Stage,
        reason: &str,
        partition: i32,
    ) -> Output {
        let record = item.record;
        let source = match &item.origin {
            Some(origin) => (origin.input, origin.partition, origin.offset),
            None => (input, task.partition, record.offset),
        };
        Output {
            topic: OutputTopic::DeadLetter,
            partition,
            timestamp_ms: record.timestamp_ms,
            headers: self
                .lineage
                .dead_letter(source, &record.headers, stage.name(), reason)
                .into(),
            key: record.key,
            value: record.value,
        }
    }
}
