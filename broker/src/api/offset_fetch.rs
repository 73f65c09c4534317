//! OffsetFetch (9), versions 1 to 9: what groups have committed.
//!
//! - Without topics (version 2 and up) everything that the group has committed is answered; from
//!   version 8 on a request names any number of groups.
//! - A partition without a committed offset has offset -1 and no error, as has one that does not
//!   exist: consumers then begin where their reset policy says.
//! - Where a request wants what is stable (`require_stable`, from version 7 on), a partition for which
//!   an open transaction has an offset is UNSTABLE_OFFSET_COMMIT: consumers ask again.
//! - The positions of model topics are shown as groups.
//! - What is named twice is answered once, so that a response is not larger than what there is to say.

use std::collections::HashSet;
use std::ops::RangeInclusive;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};
use kafka_protocol::messages::{OffsetFetchRequest, OffsetFetchResponse, TopicName};
use kafka_protocol::protocol::StrBytes;

use crate::group::{Fetched, FetchedOffset, GroupCoordinator};
use crate::router::{Reply, RequestContext};

/// Versions served.
pub const VERSIONS: RangeInclusive<i16> = 1..=9;

/// From this version on, a request names any number of groups.
const BATCHES_SINCE: i16 = 8;

const NO_OFFSET: i64 = -1;
const NO_LEADER_EPOCH: i32 = -1;

type FetchedTopic = (TopicName, Vec<FetchedOffset>);

/// Answers with the committed offsets.
pub async fn handle(
    ctx: &RequestContext,
    request: OffsetFetchRequest,
) -> Reply<OffsetFetchResponse> {
    let groups = &ctx.broker.groups;
    let stable = request.require_stable;
    if ctx.api_version < BATCHES_SINCE {
        let wanted = request.topics.as_ref().map(|topics| {
            topics
                .iter()
                .map(|topic| (&topic.name, topic.partition_indexes.as_slice()))
        });
        let topics = fetch(groups, request.group_id.as_str(), wanted, stable)
            .into_iter()
            .map(topic);
        return Reply::Now(OffsetFetchResponse::default().with_topics(topics.collect()));
    }
    let mut seen = HashSet::new();
    let distinct = request
        .groups
        .into_iter()
        .filter(|group| seen.insert(group.group_id.clone()));
    let answers = distinct.map(|group| {
        let wanted = group.topics.as_ref().map(|topics| {
            topics
                .iter()
                .map(|topic| (&topic.name, topic.partition_indexes.as_slice()))
        });
        let topics = fetch(groups, group.group_id.as_str(), wanted, stable)
            .into_iter()
            .map(batched_topic);
        OffsetFetchResponseGroup::default()
            .with_topics(topics.collect())
            .with_group_id(group.group_id)
    });
    Reply::Now(OffsetFetchResponse::default().with_groups(answers.collect()))
}

/// All topics of the group where none are named.
fn fetch<'a>(
    groups: &GroupCoordinator,
    group: &str,
    wanted: Option<impl Iterator<Item = (&'a TopicName, &'a [i32])>>,
    stable: bool,
) -> Vec<FetchedTopic> {
    match wanted {
        Some(wanted) => {
            let mut seen = HashSet::new();
            let distinct = wanted.map(|(name, partitions)| {
                let distinct = partitions.iter().copied();
                let distinct: Vec<i32> = distinct
                    .filter(|partition| seen.insert((name, *partition)))
                    .collect();
                (
                    name.clone(),
                    groups.fetch_offsets(group, name.as_str(), &distinct, stable),
                )
            });
            distinct.collect()
        }
        None => groups
            .fetch_all_offsets(group, stable)
            .into_iter()
            .map(|(name, fetched)| (TopicName(StrBytes::from_string(name)), fetched))
            .collect(),
    }
}

/// A partition's answer, as a client sees it.
struct Answer {
    partition: i32,
    offset: i64,
    leader_epoch: i32,
    metadata: StrBytes,
    error_code: i16,
}

impl Answer {
    fn of((partition, fetched): FetchedOffset) -> Self {
        let nothing = Self {
            partition,
            offset: NO_OFFSET,
            leader_epoch: NO_LEADER_EPOCH,
            metadata: StrBytes::new(),
            error_code: 0,
        };
        match fetched {
            Fetched::Nothing => nothing,
            Fetched::Committed(value) => Self {
                offset: value.offset,
                leader_epoch: value.leader_epoch,
                metadata: StrBytes::from_string(value.metadata),
                ..nothing
            },
            Fetched::Unstable => Self {
                error_code: ResponseError::UnstableOffsetCommit.code(),
                ..nothing
            },
        }
    }
}

fn topic((name, fetched): FetchedTopic) -> OffsetFetchResponseTopic {
    let partitions = fetched.into_iter().map(|fetched| {
        let answer = Answer::of(fetched);
        OffsetFetchResponsePartition::default()
            .with_partition_index(answer.partition)
            .with_committed_offset(answer.offset)
            .with_committed_leader_epoch(answer.leader_epoch)
            .with_metadata(Some(answer.metadata))
            .with_error_code(answer.error_code)
    });
    OffsetFetchResponseTopic::default()
        .with_name(name)
        .with_partitions(partitions.collect())
}

fn batched_topic((name, fetched): FetchedTopic) -> OffsetFetchResponseTopics {
    let partitions = fetched.into_iter().map(|fetched| {
        let answer = Answer::of(fetched);
        OffsetFetchResponsePartitions::default()
            .with_partition_index(answer.partition)
            .with_committed_offset(answer.offset)
            .with_committed_leader_epoch(answer.leader_epoch)
            .with_metadata(Some(answer.metadata))
            .with_error_code(answer.error_code)
    });
    OffsetFetchResponseTopics::default()
        .with_name(name)
        .with_partitions(partitions.collect())
}
