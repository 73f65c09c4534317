//! The control batch that ends a transaction: its marker.
//!
//! It has the producer's id and epoch, no sequence, and one record: as key version int16 (0) · type
//! int16 (0 abort, 1 commit), as value version int16 (0) · the coordinator's epoch int32. Source:
//! Kafka's `ControlRecordType` and `EndTxnMarker.json`.

use bytes::Bytes;

use crate::batch::header::{Batch, Compression};
use crate::batch::records::BatchBuilder;
use crate::batch::retain;
use crate::error::{Error, Result};

const VERSION: i16 = 0;
const TYPE_ABORT: i16 = 0;
const TYPE_COMMIT: i16 = 1;

/// How a transaction ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TransactionResult {
    /// Nothing of it is to be seen by read_committed readers.
    Abort,
    /// All of it is.
    Commit,
}

/// The end of one producer's transaction in one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndMarker {
    /// The producer.
    pub producer_id: i64,
    /// Under transactions of version 2 (KIP-890) one more than that of the transaction's batches.
    pub producer_epoch: i16,
    /// Of the transaction coordinator that ends it: an older one's marker is refused.
    pub coordinator_epoch: i32,
    /// How it ends.
    pub result: TransactionResult,
}

impl EndMarker {
    /// The batch, as of `timestamp_ms`.
    pub fn batch(&self, timestamp_ms: i64) -> Bytes {
        let kind = match self.result {
            TransactionResult::Abort => TYPE_ABORT,
            TransactionResult::Commit => TYPE_COMMIT,
        };
        let [a, b] = VERSION.to_be_bytes();
        let [c, d] = kind.to_be_bytes();
        let [e, f, g, h] = self.coordinator_epoch.to_be_bytes();
        let mut batch = BatchBuilder::new(Compression::None)
            .producer(self.producer_id, self.producer_epoch, -1)
            .transactional()
            .control();
        batch.push(
            timestamp_ms,
            Some(&[a, b, c, d]),
            Some(&[a, b, e, f, g, h]),
            &[],
        );
        batch.build()
    }
}

/// What a control batch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlRecord {
    /// A transaction's end.
    End {
        /// How it ends.
        result: TransactionResult,
        /// Of the coordinator that has ended it, where it says.
        coordinator_epoch: Option<i32>,
    },
    /// Of a kind that ends no transaction.
    Other,
    /// Compaction has taken the marker away: nothing is left of its transaction.
    Emptied,
}

impl ControlRecord {
    /// Reads a control batch, which is never compressed.
    pub fn of(batch: &Batch<'_>) -> Result<Self> {
        if batch.compression()? != Compression::None {
            return Err(Error::CorruptBatch(format!(
                "the control batch at {} is compressed",
                batch.base_offset()
            )));
        }
        let records = retain::Records::open(*batch, batch.size_in_bytes())?;
        let mut found = Self::Emptied;
        records.each(|record| {
            if found != Self::Emptied {
                return Ok(());
            }
            let Some(&[_, _, high, low, ..]) = record.key else {
                return Err("a control record's key has less than 4 bytes");
            };
            let coordinator_epoch = match record.value {
                Some(&[_, _, a, b, c, d, ..]) => Some(i32::from_be_bytes([a, b, c, d])),
                _ => None,
            };
            let end = |result| Self::End {
                result,
                coordinator_epoch,
            };
            found = match i16::from_be_bytes([high, low]) {
                TYPE_ABORT => end(TransactionResult::Abort),
                TYPE_COMMIT => end(TransactionResult::Commit),
                _ => Self::Other,
            };
            Ok(())
        })?;
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marker_says_what_it_was_made_of() {
        for result in [TransactionResult::Abort, TransactionResult::Commit] {
            let marker = EndMarker {
                producer_id: 7,
                producer_epoch: 3,
                coordinator_epoch: 9,
                result,
            };
            let bytes = marker.batch(1_000);
            let batch = Batch::parse(&bytes).unwrap();
            assert!(batch.is_control() && batch.is_transactional());
            assert_eq!((batch.producer_id(), batch.producer_epoch()), (7, 3));
            assert_eq!((batch.base_sequence(), batch.records_count()), (-1, 1));
            let read = ControlRecord::End {
                result,
                coordinator_epoch: Some(9),
            };
            assert_eq!(ControlRecord::of(&batch).unwrap(), read);
        }
    }
}
