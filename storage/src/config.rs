//! What a log obeys. One value per topic config; the names are Kafka's.

/// Which time a record carries: the producer's, or the broker's at append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimestampType {
    /// `CreateTime`: as the producer set it.
    CreateTime,
    /// `LogAppendTime`: overwritten at append.
    LogAppendTime,
}

/// The configuration of one partition log. Times in milliseconds, sizes in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// `segment.bytes`: a segment rolls before it would grow beyond this size.
    pub segment_bytes: u64,
    /// `segment.ms`: a segment rolls when its first record is older than this.
    pub segment_ms: u64,
    /// `segment.index.bytes`: a segment rolls when its offset index is full.
    pub segment_index_bytes: u32,
    /// `index.interval.bytes`: log bytes between two index entries.
    pub index_interval_bytes: u32,
    /// `max.message.bytes`: the largest record batch, headers included.
    pub max_message_bytes: u32,
    /// `message.timestamp.type`.
    pub message_timestamp_type: TimestampType,
    /// `message.timestamp.before.max.ms`: how far a `CreateTime` may be in the past.
    pub message_timestamp_before_max_ms: i64,
    /// `message.timestamp.after.max.ms`: how far a `CreateTime` may be in the future.
    pub message_timestamp_after_max_ms: i64,
    /// `cleanup.policy` contains `compact`: every record must have a key.
    pub compact: bool,
    /// `producer.id.expiration.ms`: idle producers are forgotten after this long.
    pub producer_id_expiration_ms: u64,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            segment_bytes: 1 << 30,
            segment_ms: 7 * 24 * 60 * 60 * 1000,
            segment_index_bytes: 10 << 20,
            index_interval_bytes: 4096,
            max_message_bytes: 1024 * 1024 + 12,
            message_timestamp_type: TimestampType::CreateTime,
            message_timestamp_before_max_ms: i64::MAX,
            message_timestamp_after_max_ms: 60 * 60 * 1000,
            compact: false,
            producer_id_expiration_ms: 24 * 60 * 60 * 1000,
        }
    }
}
