//! What a log obeys. One value per topic config; the names are Kafka's.

use crate::batch::Compression;

/// A number of records or milliseconds that is never reached: Kafka's default where something is off.
pub const NEVER: u64 = i64::MAX as u64;

/// Which time a record carries: the producer's, or the broker's at append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimestampType {
    /// `CreateTime`: as the producer set it.
    CreateTime,
    /// `LogAppendTime`: overwritten at append.
    LogAppendTime,
}

/// In which codec the batches of clients are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompressionType {
    /// `producer`: as they come.
    Producer,
    /// In this one. A batch that comes in another is opened and compressed anew; one that comes in
    /// this one is stored as it is, whatever its level.
    Codec {
        /// The codec.
        codec: Compression,
        /// How hard it tries, where it has levels; its own default where none is given.
        level: Option<i32>,
    },
}

/// The configuration of one partition log. Times in milliseconds, sizes in bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct LogConfig {
    /// `segment.bytes`: a segment rolls before it would grow beyond this size.
    pub segment_bytes: u64,
    /// `segment.ms`: a segment rolls when its first record is older than this.
    pub segment_ms: u64,
    /// `segment.jitter.ms`: of each segment's `segment_ms`, up to this much is taken away, so that
    /// segments which began together do not roll together.
    pub segment_jitter_ms: u64,
    /// `segment.index.bytes`: a segment rolls when one of its indexes is full.
    pub segment_index_bytes: u32,
    /// `index.interval.bytes`: log bytes between two index entries.
    pub index_interval_bytes: u32,
    /// `max.message.bytes`: the largest record batch, headers included.
    pub max_message_bytes: u32,
    /// `compression.type`, with the level that goes with it.
    pub compression: CompressionType,
    /// `message.timestamp.type`.
    pub message_timestamp_type: TimestampType,
    /// `message.timestamp.before.max.ms`: how far a `CreateTime` may be in the past.
    pub message_timestamp_before_max_ms: i64,
    /// `message.timestamp.after.max.ms`: how far a `CreateTime` may be in the future.
    pub message_timestamp_after_max_ms: i64,
    /// `preallocate`: a new segment's room is reserved when it is created.
    pub preallocate: bool,
    /// `flush.messages`: so many records are synced though nobody waits for it; [`NEVER`] is off.
    pub flush_messages: u64,
    /// `flush.ms`: what is this old is synced though nobody waits for it; [`NEVER`] is off.
    pub flush_ms: u64,
    /// `cleanup.policy` contains `compact`: every record must have a key.
    pub compact: bool,
    /// `min.cleanable.dirty.ratio`: a log is compacted when this part of its bytes has not been yet.
    pub min_cleanable_dirty_ratio: f64,
    /// `min.compaction.lag.ms`: how long a record stays as it is at least.
    pub min_compaction_lag_ms: u64,
    /// `max.compaction.lag.ms`: how long a record stays as it is at most; [`NEVER`] is off.
    pub max_compaction_lag_ms: u64,
    /// `delete.retention.ms`: how long tombstones and transaction markers stay once the log is
    /// compacted up to them.
    pub delete_retention_ms: u64,
    /// `cleanup.policy` contains `delete`: what the two limits below are for.
    pub delete: bool,
    /// `retention.ms`: how old a segment's newest record may get; below 0: any age.
    pub retention_ms: i64,
    /// `retention.bytes`: how large the log may get without its oldest segment; below 0: any size.
    pub retention_bytes: i64,
    /// `file.delete.delay.ms`: how long files stay that are not the log's any more.
    pub file_delete_delay_ms: u64,
    /// `producer.id.expiration.ms`: idle producers are forgotten after this long.
    pub producer_id_expiration_ms: u64,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            segment_bytes: 1 << 30,
            segment_ms: 7 * 24 * 60 * 60 * 1000,
            segment_jitter_ms: 0,
            segment_index_bytes: 10 << 20,
            index_interval_bytes: 4096,
            max_message_bytes: 1024 * 1024 + 12,
            compression: CompressionType::Producer,
            message_timestamp_type: TimestampType::CreateTime,
            message_timestamp_before_max_ms: i64::MAX,
            message_timestamp_after_max_ms: 60 * 60 * 1000,
            preallocate: false,
            flush_messages: NEVER,
            flush_ms: NEVER,
            compact: false,
            min_cleanable_dirty_ratio: 0.5,
            min_compaction_lag_ms: 0,
            max_compaction_lag_ms: NEVER,
            delete_retention_ms: 24 * 60 * 60 * 1000,
            delete: true,
            retention_ms: 7 * 24 * 60 * 60 * 1000,
            retention_bytes: -1,
            file_delete_delay_ms: 60 * 1000,
            producer_id_expiration_ms: 24 * 60 * 60 * 1000,
        }
    }
}
