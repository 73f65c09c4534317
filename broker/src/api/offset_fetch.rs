//! OffsetFetch (9), versions 1 to 9: what groups have committed.
//!
//! - Without topics (version 2 and up) everything that the group has committed is answered; from
//!   version 8 on a request names any number of groups.
//! - A partition without a committed offset has offset -1 and no error, as has one that does not
//!   exist: consumers then begin where their reset policy says.
//! - There are no transactions that could be pending, so every offset is stable.
//! - The positions of model topics are shown as groups.
//! - What is named twice is answered once, so that a response is not larger than what there is to say.

use std::collections::HashSet;
use std::ops::RangeInclusive;

use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};
use kafka_protocol::messages::{OffsetFetchRequest, OffsetFetchResponse, TopicName};
use kafka_protocol::protocol::StrBytes;

use crate::group::{FetchedOffset, GroupCoordinator};
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
    if ctx.api_version < BATCHES_SINCE {
        let wanted = request.topics.as_ref().map(|topics| {
            topics
                .iter()
                .map(|topic| (&topic.name, topic.partition_indexes.as_slice()))
        });
        let topics = fetch(groups, request.group_id.as_str(), wanted)
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
        let topics = fetch(groups, group.group_id.as_str(), wanted)
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
                    groups.fetch_offsets(group, name.as_str(), &distinct),
                )
            });
            distinct.collect()
        }
        None => groups
            .fetch_all_offsets(group)
            .into_iter()
            .map(|(name, fetched)| (TopicName(StrBytes::from_string(name)), fetched))
            .collect(),
    }
}

/// Offset, leader epoch and metadata as a client sees them.
fn committed(fetched: FetchedOffset) -> (i32, i64, i32, StrBytes) {
    let (partition, value) = fetched;
    match value {
        Some(value) => {
            let metadata = StrBytes::from_string(value.metadata);
            (partition, value.offset, value.leader_epoch, metadata)
        }
        None => (partition, NO_OFFSET, NO_LEADER_EPOCH, StrBytes::new()),
    }
}

fn topic((name, fetched): FetchedTopic) -> OffsetFetchResponseTopic {
    let partitions = fetched.into_iter().map(|fetched| {
        let (partition, offset, leader_epoch, metadata) = committed(fetched);
        OffsetFetchResponsePartition::default()
            .with_partition_index(partition)
            .with_committed_offset(offset)
            .with_committed_leader_epoch(leader_epoch)
            .with_metadata(Some(metadata))
    });
    OffsetFetchResponseTopic::default()
        .with_name(name)
        .with_partitions(partitions.collect())
}

fn batched_topic((name, fetched): FetchedTopic) -> OffsetFetchResponseTopics {
    let partitions = fetched.into_iter().map(|fetched| {
        let (partition, offset, leader_epoch, metadata) = committed(fetched);
        OffsetFetchResponsePartitions::default()
            .with_partition_index(partition)
            .with_committed_offset(offset)
            .with_committed_leader_epoch(leader_epoch)
            .with_metadata(Some(metadata))
    });
    OffsetFetchResponseTopics::default()
        .with_name(name)
        .with_partitions(partitions.collect())
}
