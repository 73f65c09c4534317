//! OffsetForLeaderEpoch (23), versions 2 to 4: where the records of a leader epoch end (KIP-320).
//! A consumer asks after an epoch has changed, and learns whether the log was cut off below its
//! position.
//!
//! | asked for | answer |
//! |---|---|
//! | the current epoch | that epoch, `log_end_offset` (of a derived partition the high watermark) |
//! | an older epoch | the largest known epoch that is not above it, and where the next one begins |
//! | an epoch older than all | that epoch, and where the first known one begins |
//! | -1, or an epoch that is yet to come | -1, -1, no error |
//!
//! `current_leader_epoch` is compared with the partition's: FENCED_LEADER_EPOCH or
//! UNKNOWN_LEADER_EPOCH where they differ. `replica_id` (from version 3) changes nothing: every
//! reader of a log with one replica is a consumer.

use std::ops::RangeInclusive;
use std::sync::Arc;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::offset_for_leader_epoch_request::OffsetForLeaderPartition;
use kafka_protocol::messages::offset_for_leader_epoch_response::{
    EpochEndOffset, OffsetForLeaderTopicResult,
};
use kafka_protocol::messages::{OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse};
use storage::partition_log::ReadLimit;

use crate::api::partition_request::{
    NO_LEADER_EPOCH, check_leader_epoch, partition, storage_failure,
};
use crate::catalog::Topic;
use crate::router::{Reply, RequestContext};

/// Versions served.
pub const VERSIONS: RangeInclusive<i16> = 2..=4;

/// "No such epoch is known" in an end offset.
const UNDEFINED_OFFSET: i64 = -1;

/// Answers from memory.
pub async fn handle(
    ctx: &RequestContext,
    request: OffsetForLeaderEpochRequest,
) -> Reply<OffsetForLeaderEpochResponse> {
    let mut topics = Vec::with_capacity(request.topics.len());
    for asked in request.topics {
        let topic = ctx.broker.catalog.topic(&asked.topic);
        let partitions = asked
            .partitions
            .iter()
            .map(|question| answer(topic.as_ref(), question))
            .collect();
        topics.push(
            OffsetForLeaderTopicResult::default()
                .with_topic(asked.topic)
                .with_partitions(partitions),
        );
    }
    Reply::Now(OffsetForLeaderEpochResponse::default().with_topics(topics))
}

fn answer(topic: Option<&Arc<Topic>>, question: &OffsetForLeaderPartition) -> EpochEndOffset {
    let answer = EpochEndOffset::default().with_partition(question.partition);
    match find(topic, question) {
        Ok((leader_epoch, end_offset)) => answer
            .with_leader_epoch(leader_epoch)
            .with_end_offset(end_offset),
        Err(error) => answer
            .with_error_code(error.code())
            .with_leader_epoch(NO_LEADER_EPOCH)
            .with_end_offset(UNDEFINED_OFFSET),
    }
}

fn find(
    topic: Option<&Arc<Topic>>,
    question: &OffsetForLeaderPartition,
) -> Result<(i32, i64), ResponseError> {
    let topic = topic.ok_or(ResponseError::UnknownTopicOrPartition)?;
    let log = partition(topic, question.partition)?;
    check_leader_epoch(log, question.current_leader_epoch)?;
    if topic.kind.is_published() {
        // Says so while the partition's end is not known yet.
        let end = log.offsets().high_watermark;
        log.read(end, 0, false, ReadLimit::HighWatermark)
            .map_err(|error| {
                storage_failure(
                    "offset_for_leader_epoch",
                    &topic.name,
                    question.partition,
                    &error,
                )
            })?;
    }
    Ok(log
        .end_offset_for_epoch(question.leader_epoch)
        .unwrap_or((NO_LEADER_EPOCH, UNDEFINED_OFFSET)))
}
