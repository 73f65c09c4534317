//! What Produce, Fetch and ListOffsets have in common: each names partitions, by topic name or
//! topic id, and each partition is answered for itself.

use std::sync::Arc;

use kafka_protocol::ResponseError;
use storage::partition_log::ReadLimit;
use storage::{Error, PartitionLog};

use crate::api::error_code;
use crate::catalog::Topic;

/// "The client does not say" in a leader epoch.
pub const NO_LEADER_EPOCH: i32 = -1;

/// The log of a topic's partition.
pub fn partition(topic: &Topic, index: i32) -> Result<&Arc<PartitionLog>, ResponseError> {
    usize::try_from(index)
        .ok()
        .and_then(|index| topic.partitions.get(index))
        .ok_or(ResponseError::UnknownTopicOrPartition)
}

/// Compares the leader epoch that a client believes in with the partition's (KIP-320).
pub fn check_leader_epoch(log: &PartitionLog, requested: i32) -> Result<(), ResponseError> {
    if requested == NO_LEADER_EPOCH {
        return Ok(());
    }
    match requested.cmp(&log.leader_epoch()) {
        std::cmp::Ordering::Less => Err(ResponseError::FencedLeaderEpoch),
        std::cmp::Ordering::Equal => Ok(()),
        std::cmp::Ordering::Greater => Err(ResponseError::UnknownLeaderEpoch),
    }
}

/// Where a reader of this isolation level stops.
pub fn read_limit(isolation_level: i8) -> Result<ReadLimit, ResponseError> {
    match isolation_level {
        0 => Ok(ReadLimit::HighWatermark),
        1 => Ok(ReadLimit::LastStableOffset),
        _ => Err(ResponseError::InvalidRequest),
    }
}

/// The code that a storage error is answered with. The broker's own failures are logged here,
/// once; a client's are the client's to report.
pub fn storage_failure(
    api: &'static str,
    topic: &str,
    partition: i32,
    error: &Error,
) -> ResponseError {
    let code = error_code::of_storage(error);
    match error {
        // Said once, where the disk was found to be full.
        error if error.is_disk_full() => {
            tracing::debug!(api, topic, partition, %error, "refused");
        }
        Error::Io { .. } | Error::CorruptFile { .. } => {
            tracing::error!(api, topic, partition, %error, "the log failed");
        }
        // Said once, at error, where the sync failed; every later request would repeat it.
        _ => tracing::debug!(api, topic, partition, %error, code = code.code(), "refused"),
    }
    code
}
