//! `[log]`: what holds for topics that do not say otherwise, and what retention and compaction obey.
//!
//! Each `cleaner_` key is Kafka's `log.cleaner.` config of the broker; each other one but
//! `retention_check_interval_ms` is the default of the topic config of that name.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Problem;
use super::check::{between, clamp};
use crate::catalog::broker_config::dynamic_kind;
use crate::cleaner_config::{CleanerConfig, LEAST_DEDUPE_BYTES};

/// `[log]`: what holds for topics that do not say otherwise. The names are those of Kafka's topic
/// configs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LogSection {
    /// The size at which a segment rolls, bytes.
    pub segment_bytes: i64,
    /// The age at which a segment rolls.
    pub segment_ms: i64,
    /// The most that is subtracted from that.
    pub segment_jitter_ms: i64,
    /// The size of an offset index at which its segment rolls, bytes.
    pub segment_index_bytes: i64,
    /// Bytes of log between two index entries.
    pub index_interval_bytes: i64,
    /// The largest record batch, bytes.
    pub max_message_bytes: i64,
    /// The codec in which batches are stored; `producer`: as they come.
    pub compression_type: String,
    /// The level of gzip.
    pub compression_gzip_level: i64,
    /// The level of zstd.
    pub compression_zstd_level: i64,
    /// Room for a new segment is reserved when it is begun.
    pub preallocate: bool,
    /// After how many records a partition is synced.
    pub flush_messages: i64,
    /// How long a record may be unsynced.
    pub flush_ms: i64,
    /// How old a segment's newest record may get; -1: any age.
    pub retention_ms: i64,
    /// How large a partition may get without its oldest segment, bytes; -1: any size.
    pub retention_bytes: i64,
    /// How often segments to delete are looked for.
    pub retention_check_interval_ms: u64,
    /// What happens to old records: `delete`, `compact`, or both, separated by a comma.
    pub cleanup_policy: String,
    /// A log is compacted once this part of it has not been.
    pub min_cleanable_dirty_ratio: f64,
    /// How long a record stays as it is at least.
    pub min_compaction_lag_ms: i64,
    /// How long a record stays as it is at most.
    pub max_compaction_lag_ms: i64,
    /// How long a tombstone stays in what is compacted.
    pub delete_retention_ms: i64,
    /// Logs are compacted.
    pub cleaner_enable: bool,
    /// Threads that compact logs.
    pub cleaner_threads: usize,
    /// What they read and write together at most, bytes per second.
    pub cleaner_io_max_bytes_per_second: f64,
    /// What they remember keys in, over all threads, bytes.
    pub cleaner_dedupe_buffer_size: u64,
    /// What they read and write with, over all threads, bytes.
    pub cleaner_io_buffer_size: u64,
    /// How full the memory for keys gets.
    pub cleaner_io_buffer_load_factor: f64,
    /// How long a thread that has found nothing to compact waits until it looks again.
    pub cleaner_backoff_ms: u64,
    /// How long files stay that belong to no log any more.
    pub file_delete_delay_ms: i64,
    /// Which time a record carries, `CreateTime` or `LogAppendTime`.
    pub message_timestamp_type: String,
    /// How far a producer's time may be in the past.
    pub message_timestamp_before_max_ms: i64,
    /// How far a producer's time may be in the future.
    pub message_timestamp_after_max_ms: i64,
    /// What `acks=all` waits for, `disk` or `page_cache`.
    pub acks_all_durability: String,
    /// What `acks=1` waits for, `disk` or `page_cache`.
    pub acks_one_durability: String,
}

impl Default for LogSection {
    fn default() -> Self {
        Self {
            segment_bytes: 1 << 30,
            segment_ms: 7 * 24 * 60 * 60 * 1000,
            segment_jitter_ms: 0,
            segment_index_bytes: 10 * 1024 * 1024,
            index_interval_bytes: 4096,
            max_message_bytes: 1024 * 1024 + 12,
            compression_type: "producer".to_owned(),
            compression_gzip_level: -1,
            compression_zstd_level: 3,
            preallocate: false,
            flush_messages: i64::MAX,
            flush_ms: i64::MAX,
            retention_ms: 7 * 24 * 60 * 60 * 1000,
            retention_bytes: -1,
            retention_check_interval_ms: 5 * 60 * 1000,
            cleanup_policy: "delete".to_owned(),
            min_cleanable_dirty_ratio: 0.5,
            min_compaction_lag_ms: 0,
            max_compaction_lag_ms: i64::MAX,
            delete_retention_ms: 24 * 60 * 60 * 1000,
            cleaner_enable: true,
            cleaner_threads: 1,
            cleaner_io_max_bytes_per_second: f64::MAX,
            cleaner_dedupe_buffer_size: 128 * 1024 * 1024,
            cleaner_io_buffer_size: 512 * 1024,
            cleaner_io_buffer_load_factor: 0.9,
            cleaner_backoff_ms: 15 * 1000,
            file_delete_delay_ms: 60 * 1000,
            message_timestamp_type: "CreateTime".to_owned(),
            message_timestamp_before_max_ms: i64::MAX,
            message_timestamp_after_max_ms: 60 * 60 * 1000,
            acks_all_durability: "disk".to_owned(),
            acks_one_durability: "page_cache".to_owned(),
        }
    }
}

impl LogSection {
    /// What the threads that compact logs obey.
    pub fn cleaner(&self) -> CleanerConfig {
        CleanerConfig {
            enable: self.cleaner_enable,
            threads: self.cleaner_threads,
            io_max_bytes_per_second: self.cleaner_io_max_bytes_per_second,
            dedupe_buffer_size: self.cleaner_dedupe_buffer_size,
            io_buffer_size: self.cleaner_io_buffer_size,
            io_buffer_load_factor: self.cleaner_io_buffer_load_factor,
            backoff_ms: self.cleaner_backoff_ms,
        }
    }

    /// Which of the `cleaner_` keys make no sense.
    pub(super) fn check_cleaner(&self, faults: &mut Vec<Problem>) {
        let threads = clamp(self.cleaner_threads as u64);
        for (key, value, least, most) in [
            ("threads", threads, 1, 1024),
            // What does not fit is no table worth having: Kafka's bound, too.
            (
                "dedupe_buffer_size",
                clamp(self.cleaner_dedupe_buffer_size),
                threads.saturating_mul(clamp(LEAST_DEDUPE_BYTES)),
                i64::MAX,
            ),
            (
                "io_buffer_size",
                clamp(self.cleaner_io_buffer_size),
                0,
                i64::from(i32::MAX),
            ),
        ] {
            faults.extend(between(format!("log.cleaner_{key}"), value, least, most));
        }
        for (key, value) in [
            (
                "io_max_bytes_per_second",
                self.cleaner_io_max_bytes_per_second,
            ),
            ("io_buffer_load_factor", self.cleaner_io_buffer_load_factor),
        ] {
            let name = format!("log.cleaner.{}", key.replace('_', "."));
            if let Some(Err(reason)) =
                dynamic_kind(&name).map(|kind| kind.check(&value.to_string()))
            {
                faults.push(Problem::new(format!("log.cleaner_{key}"), reason));
            }
        }
    }

    /// Each key with the topic config that it is the default of, and its value.
    pub(super) fn topic_configs(&self) -> Vec<(&'static str, &'static str, String)> {
        macro_rules! configs {
            ($($key:ident: $config:literal,)*) => {
                vec![$((stringify!($key), $config, self.$key.to_string()),)*]
            };
        }
        configs! {
            segment_bytes: "segment.bytes",
            segment_ms: "segment.ms",
            segment_jitter_ms: "segment.jitter.ms",
            segment_index_bytes: "segment.index.bytes",
            index_interval_bytes: "index.interval.bytes",
            max_message_bytes: "max.message.bytes",
            compression_type: "compression.type",
            compression_gzip_level: "compression.gzip.level",
            compression_zstd_level: "compression.zstd.level",
            retention_ms: "retention.ms",
            retention_bytes: "retention.bytes",
            cleanup_policy: "cleanup.policy",
            min_cleanable_dirty_ratio: "min.cleanable.dirty.ratio",
            min_compaction_lag_ms: "min.compaction.lag.ms",
            max_compaction_lag_ms: "max.compaction.lag.ms",
            delete_retention_ms: "delete.retention.ms",
            file_delete_delay_ms: "file.delete.delay.ms",
            preallocate: "preallocate",
            flush_messages: "flush.messages",
            flush_ms: "flush.ms",
            message_timestamp_type: "message.timestamp.type",
            message_timestamp_before_max_ms: "message.timestamp.before.max.ms",
            message_timestamp_after_max_ms: "message.timestamp.after.max.ms",
            acks_all_durability: "milena.acks.all.durability",
            acks_one_durability: "milena.acks.one.durability",
        }
    }
}
