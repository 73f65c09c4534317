//! OffsetCommit (8), versions 2 to 9: offsets are on the device before the answer.
//!
//! - Members commit with their generation; a client that does not use group management commits with
//!   generation -1, while the group has no members.
//! - A partition that does not exist, or metadata that is too long, is that partition's error; the
//!   others are committed.
//! - Versions 2 to 4 may set an expiry of their own.

use std::ops::RangeInclusive;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::offset_commit_request::OffsetCommitRequestTopic;
use kafka_protocol::messages::offset_commit_response::{
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use kafka_protocol::messages::{OffsetCommitRequest, OffsetCommitResponse};
use kafka_protocol::protocol::StrBytes;

use crate::api::group_answer::{code, owned, reply};
use crate::catalog::Topic;
use crate::coordinator_log::fields::MAX_STRING_BYTES;
use crate::group::NewOffset;
use crate::group::machine::Committer;
use crate::group::records::OffsetCommitValue;
use crate::router::{Reply, RequestContext};

/// Versions served.
pub const VERSIONS: RangeInclusive<i16> = 2..=9;

/// From this version on, a member of a group that is not there is told so.
const GROUP_ID_NOT_FOUND_SINCE: i16 = 9;

/// When a request's offsets are committed, and how long they are kept.
pub(super) struct Times {
    commit_timestamp_ms: i64,
    expire_timestamp_ms: Option<i64>,
}

impl Times {
    /// Kept for as long as the broker keeps offsets.
    pub(super) fn until_expired(commit_timestamp_ms: i64) -> Self {
        Self {
            commit_timestamp_ms,
            expire_timestamp_ms: None,
        }
    }
}

/// An offset to commit, as a request has it.
pub(super) struct Asked<'a> {
    pub(super) partition: i32,
    pub(super) offset: i64,
    pub(super) leader_epoch: i32,
    pub(super) metadata: Option<&'a StrBytes>,
}

/// Appends the offsets; answers when they are on the device.
pub async fn handle(
    ctx: &RequestContext,
    request: OffsetCommitRequest,
) -> Reply<OffsetCommitResponse> {
    let commit_timestamp_ms = ctx.broker.clock.now_ms();
    let retention_time_ms = Some(request.retention_time_ms).filter(|ms| *ms >= 0);
    let times = Times {
        commit_timestamp_ms,
        expire_timestamp_ms: retention_time_ms.map(|ms| commit_timestamp_ms.saturating_add(ms)),
    };
    let mut offsets = Vec::new();
    let mut response = OffsetCommitResponse::default();
    for topic in request.topics {
        response
            .topics
            .push(take_topic(ctx, topic, &times, &mut offsets));
    }
    let committer = Committer {
        member_id: &request.member_id,
        instance_id: request.group_instance_id.as_deref(),
        generation: request.generation_id_or_member_epoch,
    };
    let groups = &ctx.broker.groups;
    let names_unknown_groups = ctx.api_version >= GROUP_ID_NOT_FOUND_SINCE;
    let answer = groups
        .commit_offsets(request.group_id.as_str(), committer, offsets)
        .await;
    let stopping = Err(ResponseError::CoordinatorNotAvailable);
    reply(answer, stopping, move |result| {
        let error = code(result.err().map(|error| match error {
            ResponseError::GroupIdNotFound if !names_unknown_groups => {
                ResponseError::IllegalGeneration
            }
            error => error,
        }));
        let topics = response.topics.iter_mut();
        for partition in topics.flat_map(|topic| &mut topic.partitions) {
            // What is wrong with a partition itself would be so at the next try too.
            if partition.error_code == 0 {
                partition.error_code = error;
            }
        }
        response
    })
}

fn take_topic(
    ctx: &RequestContext,
    request: OffsetCommitRequestTopic,
    times: &Times,
    offsets: &mut Vec<NewOffset>,
) -> OffsetCommitResponseTopic {
    let name = owned(&request.name);
    let topic = ctx.broker.catalog.topic(&name);
    let mut partitions = Vec::with_capacity(request.partitions.len());
    for partition in &request.partitions {
        let asked = Asked {
            partition: partition.partition_index,
            offset: partition.committed_offset,
            leader_epoch: partition.committed_leader_epoch,
            metadata: partition.committed_metadata.as_ref(),
        };
        let value = new_value(ctx, topic.as_deref(), &asked, times);
        let error = value.as_ref().err().copied();
        if let Ok(value) = value {
            let partition = partition.partition_index;
            offsets.push(NewOffset {
                topic: name.clone(),
                partition,
                value,
            });
        }
        partitions.push(
            OffsetCommitResponsePartition::default()
                .with_partition_index(partition.partition_index)
                .with_error_code(code(error)),
        );
    }
    OffsetCommitResponseTopic::default()
        .with_name(request.name)
        .with_partitions(partitions)
}

/// What is committed, or what is wrong with it.
pub(super) fn new_value(
    ctx: &RequestContext,
    topic: Option<&Topic>,
    asked: &Asked<'_>,
    times: &Times,
) -> Result<OffsetCommitValue, ResponseError> {
    let topic = topic
        .filter(|topic| (0..topic.partition_count()).contains(&asked.partition))
        .ok_or(ResponseError::UnknownTopicOrPartition)?;
    let metadata = asked.metadata.map(owned).unwrap_or_default();
    let settings = &ctx.broker.settings;
    let max_metadata_bytes = settings.offset_metadata_max_bytes.min(MAX_STRING_BYTES);
    if metadata.len() > max_metadata_bytes {
        return Err(ResponseError::OffsetMetadataTooLarge);
    }
    Ok(OffsetCommitValue {
        offset: asked.offset,
        leader_epoch: asked.leader_epoch,
        metadata,
        commit_timestamp_ms: times.commit_timestamp_ms,
        expire_timestamp_ms: times.expire_timestamp_ms,
        topic_id: Some(topic.id),
    })
}
