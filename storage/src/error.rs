//! The errors of the log. They are storage's own: the broker maps them to Kafka's codes in one
//! exhaustive match.

use std::path::PathBuf;

use crate::Offset;
use crate::reserved_disk::is_full_kind;

/// `std::result::Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an operation on the log was refused or failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The batch's bytes are damaged: wrong CRC, truncated, or a length that lies.
    #[error("corrupt record batch: {0}")]
    CorruptBatch(String),
    /// The batch is intact but must not be stored: wrong count, control bit, missing key …
    #[error("invalid record: {0}")]
    InvalidRecord(String),
    /// As `InvalidRecord`, of one record.
    #[error("invalid record: record {index}: {reason}")]
    InvalidRecordAt {
        /// Its place in the batch.
        index: i32,
        /// What is wrong with it.
        reason: String,
    },
    /// A producer's timestamp is too far from the broker's clock.
    #[error("timestamp {timestamp} is not within {earliest}..={latest}")]
    InvalidTimestamp {
        /// The record's place in the batch, where it is known.
        index: Option<i32>,
        /// The timestamp.
        timestamp: i64,
        /// The earliest that is taken.
        earliest: i64,
        /// The latest that is taken.
        latest: i64,
    },
    /// The batch says that its times are the broker's, which only the broker can say.
    #[error("producers do not set the timestamp type LogAppendTime")]
    TimestampTypeOfBroker,
    /// The batch's magic is not 2.
    #[error("record batch has magic {0}, only magic 2 is supported")]
    UnsupportedMagic(i8),
    /// The batch is larger than `max.message.bytes`.
    #[error("record batch of {size} bytes is larger than max.message.bytes {limit}")]
    BatchTooLarge {
        /// The batch's size in bytes.
        size: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// The producer's sequence is neither the next one nor a known duplicate.
    #[error("producer {producer_id}: sequence {found} does not follow {last}")]
    OutOfOrderSequence {
        /// The producer.
        producer_id: i64,
        /// The last sequence appended.
        last: i32,
        /// The first sequence of the refused batch.
        found: i32,
    },
    /// The producer's epoch is older than the newest known one.
    #[error("producer {producer_id}: epoch {found} is older than {newest}")]
    StaleProducerEpoch {
        /// The producer.
        producer_id: i64,
        /// The newest epoch seen.
        newest: i16,
        /// The epoch of the refused batch.
        found: i16,
    },
    /// A producer's batch that is no part of its open transaction.
    #[error(
        "producer {producer_id} has a transaction open since offset {first_offset}, and the batch is no part of it"
    )]
    TransactionIsOpen {
        /// The producer.
        producer_id: i64,
        /// Where its transaction begins.
        first_offset: Offset,
    },
    /// A newer transaction coordinator has ended a transaction of the producer.
    #[error("producer {producer_id}: coordinator epoch {found} is older than {newest}")]
    StaleCoordinatorEpoch {
        /// The producer.
        producer_id: i64,
        /// The newest epoch seen.
        newest: i32,
        /// The epoch of the refused marker.
        found: i32,
    },
    /// The offset is below `log_start_offset` or above the readable end.
    #[error("offset {offset} is outside of {start}..={end}")]
    OffsetOutOfRange {
        /// What was asked for.
        offset: Offset,
        /// `log_start_offset`.
        start: Offset,
        /// The highest offset that may be asked for.
        end: Offset,
    },
    /// The partition is derived and the changelog that names its end is not replayed yet.
    #[error("the partition is not readable until its changelog is replayed")]
    NotReadable,
    /// The partition was deleted or closed.
    #[error("the partition is closed")]
    Closed,
    /// A sync failed earlier: the partition is read-only until the process is restarted.
    #[error("the partition is read-only since a sync failed: {0}")]
    ReadOnly(String),
    /// The data folder is in use by another process.
    #[error("data folder {0} is in use by another process")]
    Locked(PathBuf),
    /// A file on disk is not what it should be.
    #[error("{path}: {reason}")]
    CorruptFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, with the position where known.
        reason: String,
    },
    /// The offset was lost with a damaged part of the log; it goes on at `to`.
    #[error(
        "offset {offset} is lost: {path} is damaged at position {position}, the log goes on at offset {to}"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where the damage begins.
        position: u64,
        /// What was asked for.
        offset: Offset,
        /// The first offset that is lost.
        from: Offset,
        /// The next offset that is not lost.
        to: Offset,
    },
    /// A system call failed; nothing was changed.
    #[error("{call} {path}: {message}")]
    Io {
        /// The call, such as `write` or `open`.
        call: &'static str,
        /// The file it was for.
        path: PathBuf,
        /// The system's words.
        message: String,
        /// The kind, for callers that decide by it.
        kind: std::io::ErrorKind,
    },
}

impl Error {
    /// There was no room on the disk; nothing was changed, and it may go another time.
    pub fn is_disk_full(&self) -> bool {
        matches!(self, Self::Io { kind, .. } if is_full_kind(*kind))
    }

    /// Wraps an I/O error with the call and the file it was for.
    pub fn io(call: &'static str, path: impl Into<PathBuf>, error: &std::io::Error) -> Self {
        Self::Io {
            call,
            path: path.into(),
            message: error.to_string(),
            kind: error.kind(),
        }
    }
}
