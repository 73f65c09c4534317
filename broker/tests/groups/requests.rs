//! Requests as short as the tests want them.

use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{
    CreateTopicsRequest, GroupId, HeartbeatRequest, JoinGroupRequest, OffsetCommitRequest,
    OffsetFetchRequest, SyncGroupRequest, TopicName,
};
use kafka_protocol::protocol::StrBytes;

use crate::client::Client;

pub fn text(string: &str) -> StrBytes {
    StrBytes::from_string(string.to_owned())
}

pub fn group(name: &str) -> GroupId {
    GroupId(text(name))
}

pub fn topic(name: &str) -> TopicName {
    TopicName(text(name))
}

pub fn create_topic(client: &mut Client, name: &str, partitions: i32) {
    let new = CreatableTopic::default()
        .with_name(topic(name))
        .with_num_partitions(partitions)
        .with_replication_factor(1);
    let request = CreateTopicsRequest::default()
        .with_topics(vec![new])
        .with_timeout_ms(10_000);
    let response = client.call(7, &request);
    assert_eq!(response.topics[0].error_code, 0);
}

pub struct Commit<'a> {
    pub group: &'a str,
    pub member_id: &'a str,
    pub generation: i32,
    pub topic: &'a str,
    pub partition: i32,
    pub offset: i64,
    pub metadata: &'a str,
}

pub fn commit_request(version: i16, commit: &Commit<'_>) -> OffsetCommitRequest {
    let partition = OffsetCommitRequestPartition::default()
        .with_partition_index(commit.partition)
        .with_committed_offset(commit.offset)
        .with_committed_leader_epoch(if version >= 6 { 7 } else { -1 })
        .with_committed_metadata(Some(text(commit.metadata)));
    OffsetCommitRequest::default()
        .with_group_id(group(commit.group))
        .with_generation_id_or_member_epoch(commit.generation)
        .with_member_id(text(commit.member_id))
        .with_topics(vec![
            OffsetCommitRequestTopic::default()
                .with_name(topic(commit.topic))
                .with_partitions(vec![partition]),
        ])
}

/// The error of the one partition.
pub fn commit(client: &mut Client, version: i16, commit: &Commit<'_>) -> i16 {
    let response = client.call(version, &commit_request(version, commit));
    response.topics[0].partitions[0].error_code
}

/// A commit by a client that does not use group management.
pub fn commit_alone(client: &mut Client, group: &str, topic: &str, partition: i32, offset: i64) {
    let request = Commit {
        group,
        member_id: "",
        generation: -1,
        topic,
        partition,
        offset,
        metadata: "",
    };
    assert_eq!(commit(client, 8, &request), 0);
}

/// Partition, offset, leader epoch and metadata.
pub type Fetched = (i32, i64, i32, String);

/// What is committed for partitions of one topic, or for everything where none are named.
pub fn fetch(
    client: &mut Client,
    version: i16,
    name: &str,
    wanted: Option<(&str, &[i32])>,
) -> Vec<Fetched> {
    if version >= 8 {
        let topics = wanted.map(|(name, partitions)| {
            vec![
                OffsetFetchRequestTopics::default()
                    .with_name(topic(name))
                    .with_partition_indexes(partitions.to_vec()),
            ]
        });
        let asked = OffsetFetchRequestGroup::default()
            .with_group_id(group(name))
            .with_topics(topics);
        let request = OffsetFetchRequest::default()
            .with_groups(vec![asked])
            .with_require_stable(true);
        let response = client.call(version, &request);
        assert_eq!(response.groups[0].error_code, 0);
        return response.groups[0]
            .topics
            .iter()
            .flat_map(|topic| &topic.partitions)
            .inspect(|it| assert_eq!(it.error_code, 0))
            .map(|it| {
                let metadata = it.metadata.as_deref().unwrap_or_default().to_owned();
                (
                    it.partition_index,
                    it.committed_offset,
                    it.committed_leader_epoch,
                    metadata,
                )
            })
            .collect();
    }
    let topics = wanted.map(|(name, partitions)| {
        vec![
            OffsetFetchRequestTopic::default()
                .with_name(topic(name))
                .with_partition_indexes(partitions.to_vec()),
        ]
    });
    let request = OffsetFetchRequest::default()
        .with_group_id(group(name))
        .with_topics(topics);
    let response = client.call(version, &request);
    assert_eq!(response.error_code, 0);
    response
        .topics
        .iter()
        .flat_map(|topic| &topic.partitions)
        .inspect(|it| assert_eq!(it.error_code, 0))
        .map(|it| {
            let metadata = it.metadata.as_deref().unwrap_or_default().to_owned();
            (
                it.partition_index,
                it.committed_offset,
                it.committed_leader_epoch,
                metadata,
            )
        })
        .collect()
}

/// The offset committed for one partition.
pub fn offset(client: &mut Client, group: &str, topic: &str, partition: i32) -> i64 {
    fetch(client, 9, group, Some((topic, &[partition])))[0].1
}

pub fn join_request(name: &str, member_id: &str) -> JoinGroupRequest {
    let protocol = JoinGroupRequestProtocol::default()
        .with_name(text("range"))
        .with_metadata(bytes::Bytes::from_static(b"subscription"));
    JoinGroupRequest::default()
        .with_group_id(group(name))
        .with_member_id(text(member_id))
        .with_session_timeout_ms(10_000)
        .with_rebalance_timeout_ms(10_000)
        .with_protocol_type(text("consumer"))
        .with_protocols(vec![protocol])
}

pub fn sync_request(
    name: &str,
    member_id: &str,
    generation: i32,
    given: &[(&str, &'static [u8])],
) -> SyncGroupRequest {
    let assignments = given.iter().map(|(member_id, assignment)| {
        SyncGroupRequestAssignment::default()
            .with_member_id(text(member_id))
            .with_assignment(bytes::Bytes::from_static(assignment))
    });
    SyncGroupRequest::default()
        .with_group_id(group(name))
        .with_member_id(text(member_id))
        .with_generation_id(generation)
        .with_protocol_type(Some(text("consumer")))
        .with_protocol_name(Some(text("range")))
        .with_assignments(assignments.collect())
}

pub fn heartbeat(client: &mut Client, name: &str, member_id: &str, generation: i32) -> i16 {
    let request = HeartbeatRequest::default()
        .with_group_id(group(name))
        .with_member_id(text(member_id))
        .with_generation_id(generation);
    client.call(4, &request).error_code
}
