//! What compaction leaves of one batch. Pure: bytes in, a verdict out.
//!
//! The rules are in the table of [`super`], as Kafka's `Cleaner` has them. A batch of which nothing
//! changes stays as the bytes that it is; it is not compressed anew. Nothing is decided about a batch
//! that is damaged: its records are read to the last byte first.
//!
//! One [`Round`] goes over the whole log in order, from its start: whether a marker is needed still
//! depends on the batches before it.

use std::collections::HashMap;

use crate::Offset;
use crate::batch::Batch;
use crate::batch::retain::{InPlace, Records, emptied};
use crate::compaction::offset_map::OffsetMap;
use crate::compaction::transactions::Transactions;
use crate::error::{Error, Result};
use crate::producer_state::LastRecord;

/// How many records' keys are looked up together.
const TOGETHER: usize = 256;

/// One pass over a log, and what it goes by.
pub(crate) struct Round<'a> {
    /// The newest offset of each key of the dirty part, and how far that was read.
    pub map: &'a OffsetMap,
    /// The first offset that is not compacted: the batch before it keeps its header.
    pub end_offset: Offset,
    /// The time, milliseconds since the epoch; one for the whole pass.
    pub now_ms: i64,
    /// `delete.retention.ms`.
    pub delete_retention_ms: u64,
    /// `max.message.bytes`: a batch that decompresses to far more is taken to be damaged.
    pub max_message_bytes: usize,
    /// The producers that are known at the pass's start.
    pub last_of_producers: &'a HashMap<i64, LastRecord>,
    /// At the beginning of a pass.
    pub transactions: &'a mut Transactions,
}

/// What becomes of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It stays, byte for byte.
    AsItIs,
    /// These bytes take its place: a batch with the same offsets, of fewer records or none, or with
    /// a delete horizon.
    Rewritten(Vec<u8>),
    /// Nothing of it stays.
    Gone,
}

/// How many records of a batch went, and why.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// In the batch, markers included.
    pub records_read: u64,
    /// That stay.
    pub records_kept: u64,
    /// Tombstones whose delete horizon has passed.
    pub tombstones_dropped: u64,
    /// Records without a key.
    pub keyless_dropped: u64,
    /// Records of aborted transactions.
    pub aborted_dropped: u64,
    /// Markers of transactions that nothing is left of.
    pub markers_dropped: u64,
}

/// A batch after the filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Filtered {
    pub verdict: Verdict,
    pub counts: Counts,
}

/// Why nothing was decided about a batch.
#[derive(Clone, Debug)]
pub(crate) enum Refused {
    /// It cannot be read. It has to stay as it is.
    Damaged(Error),
    /// It is part of a transaction, and the walk that finds out about those was not made:
    /// [`Transactions::learn`].
    TransactionsUnknown,
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self::Damaged(error)
    }
}

impl Round<'_> {
    /// What becomes of the next batch of the log.
    pub fn filter(&mut self, batch: &Batch<'_>) -> Result<Filtered, Refused> {
        batch.check_crc()?;
        let is_control = batch.is_control();
        if (is_control || batch.is_transactional()) && !self.transactions.are_known() {
            return Err(Refused::TransactionsUnknown);
        }
        let discardable = if is_control {
            self.transactions.pass_control(batch)?
        } else {
            self.transactions.pass_data(batch)
        };
        let horizon_ms = batch.has_delete_horizon().then(|| batch.base_timestamp());
        let horizon_passed = horizon_ms.is_some_and(|horizon_ms| horizon_ms <= self.now_ms);
        if discardable && (!is_control || horizon_passed) {
            return self.without_records(batch);
        }

        let records = Records::of_stored(*batch, self.max_message_bytes)?;
        let mut counts = Counts::default();
        let mut kept = Vec::new();
        let mut has_tombstone = false;
        let mut decide = |together: &mut Vec<InPlace<'_>>| {
            self.map
                .warm(together.iter().filter_map(|record| record.key));
            for record in together.drain(..) {
                counts.records_read += 1;
                if is_control || self.stays(&record, horizon_passed, &mut counts) {
                    has_tombstone |= record.value.is_none();
                    kept.push(record.kept());
                }
            }
        };
        let mut together = Vec::with_capacity(records.count().min(TOGETHER));
        records.each(|record| {
            together.push(record);
            if together.len() == TOGETHER {
                decide(&mut together);
            }
            Ok(())
        })?;
        decide(&mut together);
        counts.records_kept = kept.len() as u64;
        // Where the map was full, what its tombstones delete may be there until the next pass.
        let is_seen = batch.last_offset() <= self.map.latest_offset();
        let needs_horizon = (has_tombstone && is_seen) || (is_control && discardable);
        let verdict = if kept.is_empty() {
            self.without_any(batch)?
        } else if horizon_ms.is_none() && needs_horizon {
            let retention_ms = i64::try_from(self.delete_retention_ms).unwrap_or(i64::MAX);
            let horizon_ms = self.now_ms.saturating_add(retention_ms);
            Verdict::Rewritten(records.retaining(&kept, Some(horizon_ms))?)
        } else if kept.len() == records.count() {
            Verdict::AsItIs
        } else {
            Verdict::Rewritten(records.retaining(&kept, None)?)
        };
        Ok(Filtered { verdict, counts })
    }

    /// An aborted transaction's records, or a marker that nobody needs.
    fn without_records(&self, batch: &Batch<'_>) -> Result<Filtered, Refused> {
        let records_read = u64::try_from(batch.records_count()).unwrap_or(0);
        let mut counts = Counts {
            records_read,
            ..Counts::default()
        };
        if batch.is_control() {
            counts.markers_dropped = records_read;
        } else {
            counts.aborted_dropped = records_read;
        }
        let verdict = self.without_any(batch)?;
        Ok(Filtered { verdict, counts })
    }

    /// A record of a data batch that is no aborted transaction's.
    fn stays(&self, record: &InPlace<'_>, horizon_passed: bool, counts: &mut Counts) -> bool {
        if record.offset > self.map.latest_offset() {
            return true;
        }
        let Some(key) = record.key else {
            counts.keyless_dropped += 1;
            return false;
        };
        let newer = self
            .map
            .get(key)
            .is_some_and(|newest| newest > record.offset);
        if newer {
            return false;
        }
        let dropped = record.value.is_none() && horizon_passed;
        counts.tombstones_dropped += u64::from(dropped);
        !dropped
    }

    /// A batch that no record is left of.
    fn without_any(&self, batch: &Batch<'_>) -> Result<Verdict> {
        let is_last = batch.next_offset() == self.end_offset || self.is_last_of_producer(batch);
        if !is_last {
            return Ok(Verdict::Gone);
        }
        let header = emptied(batch)?;
        Ok(if header == batch.bytes() {
            Verdict::AsItIs
        } else {
            Verdict::Rewritten(header)
        })
    }

    /// The log would not say without it what its producer's last sequence and epoch are.
    fn is_last_of_producer(&self, batch: &Batch<'_>) -> bool {
        let producer_id = batch.producer_id();
        if producer_id < 0 {
            return false;
        }
        match self.last_of_producers.get(&producer_id) {
            None => false,
            Some(LastRecord {
                last_data_offset: Some(last),
                ..
            }) => batch.last_offset() == *last,
            Some(LastRecord { producer_epoch, .. }) => {
                batch.is_control() && batch.producer_epoch() == *producer_epoch
            }
        }
    }
}

#[cfg(test)]
#[path = "filter/tests.rs"]
mod tests;
