//! The log as it ought to be: a list of batches, and of each producer what it has sent.

use std::collections::BTreeMap;

use bytes::Bytes;
use storage::batch::header::{Batch, patch_header, patch_header_with_log_append_time};

use crate::compaction::Pass;

/// One batch of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    pub base: i64,
    pub epoch: i32,
    /// As it lies in the log.
    pub bytes: Bytes,
    /// The offset after it.
    pub next: i64,
    /// The records' timestamps and offsets; some are missing where the log was compacted.
    pub times: Vec<(i64, i64)>,
    /// Whose it is, and its first sequence.
    pub producer: Option<(i64, i16, i32)>,
}

impl Stored {
    /// `batch`, as a client sends it, when it is appended at `base` under `epoch`.
    pub fn new(batch: &Sent, base: i64, epoch: i32, log_append_time: Option<i64>) -> Self {
        let view = Batch::parse(&batch.bytes).expect("a batch");
        let header = match log_append_time {
            None => patch_header(&view, base, epoch),
            Some(time) => patch_header_with_log_append_time(&view, base, epoch, time),
        };
        let mut times = batch.times.clone();
        if let Some(time) = log_append_time {
            times.fill(time);
        }
        Self {
            base,
            epoch,
            bytes: [&header, &batch.bytes[header.len()..]].concat().into(),
            next: base + times.len() as i64,
            times: times.into_iter().zip(base..).collect(),
            producer: batch.producer,
        }
    }

    pub fn next(&self) -> i64 {
        self.next
    }
}

/// A batch as a client sends it.
#[derive(Clone, Debug)]
pub struct Sent {
    pub bytes: Bytes,
    pub times: Vec<i64>,
    pub producer: Option<(i64, i16, i32)>,
}

/// An idempotent producer as the log has to know it.
#[derive(Clone, Debug, Default)]
pub struct Producer {
    pub epoch: i16,
    /// First sequence, and the batch's offsets; the oldest first.
    pub batches: Vec<(i32, i64, i64)>,
    /// Of the older batches a start need not know.
    pub certain: usize,
}

/// One partition.
#[derive(Clone, Debug, Default)]
pub struct Model {
    pub batches: Vec<Stored>,
    /// Where they begin, and the batches of transactions and markers that were ever appended: deleted and
    /// compacted ones too.
    pub history: Vec<(i64, Bytes)>,
    pub log_start: i64,
    /// A deletion that failed may have come this far all the same.
    pub maybe_start: i64,
    pub end: i64,
    pub high_watermark: i64,
    /// Everything below was said to be on the device.
    pub durable: i64,
    /// As `durable`, said since the start.
    pub synced: i64,
    /// What a changelog has recorded as a derived partition's end.
    pub recorded: i64,
    pub epoch: i32,
    /// Of each epoch the first batch that was ever appended under it.
    pub epoch_starts: Vec<(i32, i64)>,
    pub producers: BTreeMap<i64, Producer>,
    /// Batches whose append has failed; if nothing came after, a crash may leave them.
    pub failed: Vec<Stored>,
    /// Which batch an offset has had under an epoch, of all that a reader may have seen.
    pub seen: BTreeMap<(i32, i64), Bytes>,
    /// A sync has failed, or may have.
    pub read_only: Tri,
    /// Compactions that a start may find done, in part or not at all.
    pub passes: Vec<Pass>,
    /// Records are missing.
    pub compacted: bool,
}

/// What is known of something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tri {
    #[default]
    No,
    Maybe,
    Yes,
}

impl Model {
    /// Takes a batch at the end of the log. `visible` says that readers may see it.
    pub fn push(&mut self, stored: Stored, visible: bool) -> Result<(), String> {
        assert_eq!(stored.base, self.end);
        self.failed.clear();
        let view = Batch::parse(&stored.bytes).expect("a batch");
        if view.is_transactional() {
            self.history.push((stored.base, stored.bytes.clone()));
        }
        if let Some((id, epoch, -1)) = stored.producer {
            // Of another epoch it has no sequence.
            self.producers
                .retain(|other, producer| *other != id || producer.epoch == epoch);
        } else if let Some((id, epoch, sequence)) = stored.producer {
            let producer = self.producers.entry(id).or_default();
            if producer.epoch != epoch {
                *producer = Producer {
                    epoch,
                    ..Producer::default()
                };
            }
            producer
                .batches
                .push((sequence, stored.base, stored.next() - 1));
            producer.certain = (producer.certain + 1).min(5);
        }
        self.end = stored.next();
        let newest = self.epoch_starts.last().map(|(epoch, _)| *epoch);
        if newest != Some(stored.epoch) {
            self.epoch_starts.push((stored.epoch, stored.base));
        }
        self.batches.push(stored);
        if visible {
            self.publish(self.end)?;
        }
        Ok(())
    }

    /// Readers may see what lies below `end`.
    pub fn publish(&mut self, end: i64) -> Result<(), String> {
        let from = self.high_watermark;
        self.high_watermark = end;
        for stored in self
            .batches
            .iter()
            .filter(|b| b.base >= from && b.base < end)
        {
            let key = (stored.epoch, stored.base);
            if let Some(other) = self.seen.insert(key, stored.bytes.clone())
                && other != stored.bytes
            {
                return Err(format!(
                    "offset {} has had two batches under epoch {}",
                    stored.base, stored.epoch
                ));
            }
        }
        Ok(())
    }

    /// The log ends at `end`, where a batch begins.
    pub fn truncate(&mut self, end: i64) {
        self.batches.retain(|batch| batch.base < end);
        self.history.retain(|(base, _)| *base < end);
        self.epoch_starts.retain(|(_, start)| *start < end);
        self.end = end;
        self.durable = self.durable.min(end);
        self.synced = self.synced.min(end);
        self.high_watermark = self.high_watermark.min(end);
        for producer in self.producers.values_mut() {
            let before = producer.batches.len();
            producer.batches.retain(|(_, base, _)| *base < end);
            let lost = before - producer.batches.len();
            producer.certain = producer.certain.saturating_sub(lost).max(1);
        }
        // What an epoch before had is forgotten too, so nobody can say what follows.
        self.producers
            .retain(|_, producer| !producer.batches.is_empty());
    }

    /// The log begins at `start`; what producers had below may be forgotten at the next start.
    pub fn delete(&mut self, start: i64) {
        self.log_start = self.log_start.max(start);
        self.maybe_start = self.maybe_start.max(start);
        self.batches.retain(|batch| batch.next() > start);
    }

    /// A start may know the last batch of each producer alone, and none whose batches are gone.
    pub fn restarted(&mut self) {
        let start = self.log_start;
        self.producers.retain(|_, producer| {
            producer
                .batches
                .last()
                .is_some_and(|(_, base, _)| *base >= start)
        });
        for producer in self.producers.values_mut() {
            producer.certain = 1;
        }
        self.failed.clear();
        self.read_only = Tri::No;
        self.synced = 0;
    }

    /// Everything was said to be on the device.
    pub fn sync(&mut self) {
        (self.durable, self.synced) = (self.end, self.end);
    }

    /// The ends that batches have between `from` and `to`, both included where they are such.
    pub fn boundaries(&self, from: i64, to: i64) -> Vec<i64> {
        let mut ends: Vec<i64> = self.batches.iter().map(|batch| batch.base).collect();
        ends.push(self.end);
        ends.retain(|end| (from..=to).contains(end));
        ends.dedup();
        ends
    }

    /// The visible records from the log's start on: timestamp, offset, epoch.
    fn records(&self) -> impl Iterator<Item = (i64, i64, i32)> {
        let visible = self
            .batches
            .iter()
            .filter(|batch| batch.base < self.high_watermark);
        let all = visible.flat_map(|batch| {
            let times = batch.times.iter();
            times.map(|(time, offset)| (*time, *offset, batch.epoch))
        });
        all.filter(|(_, offset, _)| *offset >= self.log_start)
    }

    /// The first record at or after `timestamp`.
    pub fn at_time(&self, timestamp: i64) -> Option<(i64, i64, i32)> {
        self.records().find(|(time, _, _)| *time >= timestamp)
    }

    /// The first record with the largest timestamp.
    pub fn max_time(&self) -> Option<(i64, i64, i32)> {
        let largest = self.records().map(|(time, _, _)| time).max()?;
        self.at_time(largest).filter(|_| largest >= 0)
    }

    /// The leader epochs, and where each begins: the one that the log's start lies in with the log.
    fn epochs(&self) -> Vec<(i32, i64)> {
        let mut epochs = self.epoch_starts.clone();
        if epochs.last().is_none_or(|(epoch, _)| *epoch != self.epoch) {
            epochs.push((self.epoch, self.end));
        }
        let begun = epochs.partition_point(|(_, start)| *start <= self.log_start);
        epochs.drain(..begun.saturating_sub(1));
        if let Some((_, start)) = epochs.first_mut() {
            *start = self.log_start.max(*start);
        }
        epochs
    }

    /// As Kafka answers OffsetForLeaderEpoch.
    pub fn end_of_epoch(&self, asked: i32) -> Option<(i32, i64)> {
        let epochs = self.epochs();
        if asked == self.epoch {
            return Some((asked, self.end));
        }
        let (_, end) = epochs.iter().find(|(epoch, _)| *epoch > asked)?;
        let floor = epochs.iter().rev().find(|(epoch, _)| *epoch <= asked);
        Some((floor.map_or(asked, |(epoch, _)| *epoch), *end))
    }
}
