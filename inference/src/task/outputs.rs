//! From records and what the model made of them to outputs, in the order of the records.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::lineage::Lineage;
use super::measure::Measures;
use super::prepare::{Answer, Answers, Part, Step};
use crate::codec::OutputEncoder;
use crate::spec::{OnError, OnErrorSpec};
use crate::stream_log::{Header, InputRecord, Output, OutputTopic, Task};

/// A part's outputs.
pub(super) struct Finished {
    pub(super) outputs: Vec<Output>,
    /// The position that they bring the input to.
    pub(super) next: i64,
    /// Why the model topic has to halt there.
    pub(super) halt: Option<String>,
}

/// Makes outputs.
pub(super) struct OutputMaker {
    lineage: Lineage,
    encoder: OutputEncoder,
    on_error: OnErrorSpec,
    /// Values and header texts are cut off it, so that many share an allocation.
    buffer: BytesMut,
}

/// What the buffer grows by, in bytes.
const BUFFER_BYTES: usize = 64 << 10;
/// Room that an output's value and texts mostly need.
const OUTPUT_BYTES: usize = 512;

impl OutputMaker {
    pub(super) fn new(lineage: Lineage, encoder: OutputEncoder, on_error: OnErrorSpec) -> Self {
        Self {
            lineage,
            encoder,
            on_error,
            buffer: BytesMut::new(),
        }
    }

    /// Makes a part's outputs, and takes its rows' answers.
    pub(super) fn make(
        &mut self,
        part: Part,
        answers: &mut Answers,
        measures: &Measures,
    ) -> Finished {
        let mut finished = Finished {
            outputs: Vec::with_capacity(part.records.len()),
            next: part.next,
            halt: None,
        };
        let (task, input) = (part.task, part.input);
        let shared = self.lineage.shared(task, input);
        for (record, step) in part.records {
            let failed = match step {
                Step::Tombstone => {
                    let output = self.derived(task, &shared, &record, None);
                    finished.outputs.push(output);
                    continue;
                }
                Step::Row => match answers.next() {
                    Answer::Logits(logits) => {
                        if self.buffer.capacity() < OUTPUT_BYTES {
                            self.buffer.reserve(BUFFER_BYTES);
                        }
                        self.encoder.encode(logits, &mut self.buffer);
                        let value = self.buffer.split().freeze();
                        let output = self.derived(task, &shared, &record, Some(value));
                        finished.outputs.push(output);
                        continue;
                    }
                    Answer::Failed(reason) => {
                        measures.infer_errors.increment(1);
                        ("infer", reason.to_owned(), self.on_error.infer)
                    }
                },
                Step::Undecodable(reason) => {
                    measures.decode_errors.increment(1);
                    ("decode", reason, self.on_error.decode)
                }
            };
            let (stage, reason, on_error) = failed;
            match on_error {
                OnError::Skip => {}
                OnError::Dlq => {
                    let output = self.dead_letter(task, input, record, stage, &reason);
                    finished.outputs.push(output);
                }
                OnError::Fail => {
                    finished.next = record.offset;
                    finished.halt = Some(format!(
                        "{stage} failed at offset {} of input {input}, partition {}: {reason}",
                        record.offset, task.partition
                    ));
                    break;
                }
            }
        }
        finished
    }

    fn derived(
        &mut self,
        task: Task,
        shared: &Arc<[Header]>,
        record: &InputRecord,
        value: Option<Bytes>,
    ) -> Output {
        Output {
            topic: OutputTopic::Derived,
            partition: task.partition,
            timestamp_ms: record.timestamp_ms,
            key: record.key.clone(),
            value,
            headers: self.lineage.derived(shared, record, &mut self.buffer),
        }
    }

    fn dead_letter(
        &self,
        task: Task,
        input: usize,
        record: InputRecord,
        stage: &'static str,
        reason: &str,
    ) -> Output {
        Output {
            topic: OutputTopic::DeadLetter,
            partition: task.partition,
            timestamp_ms: record.timestamp_ms,
            headers: self
                .lineage
                .dead_letter(task, input, &record, stage, reason)
                .into(),
            key: record.key,
            value: record.value,
        }
    }
}
