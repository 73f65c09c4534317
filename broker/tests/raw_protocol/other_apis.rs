//! Topics, groups and the cluster: a round for each version, in which every API is asked at that
//! version, or at the nearest one that it has.

use std::collections::BTreeSet;

use broker::api::{
    alter_configs, api_versions, create_partitions, create_topics, delete_topics, describe_cluster,
    describe_configs, describe_topic_partitions, find_coordinator, get_telemetry_subscriptions,
    heartbeat, incremental_alter_configs, join_group, leave_group, list_config_resources, metadata,
    offset_commit, offset_fetch, sync_group,
};
use broker::router;
use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_topic_partitions_request::TopicRequest;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{
    AlterConfigsRequest, ApiKey, ApiVersionsRequest, CreatePartitionsRequest, CreateTopicsRequest,
    DeleteTopicsRequest, DescribeClusterRequest, DescribeConfigsRequest,
    DescribeTopicPartitionsRequest, FindCoordinatorRequest, GetTelemetrySubscriptionsRequest,
    GroupId, HeartbeatRequest, IncrementalAlterConfigsRequest, JoinGroupRequest, LeaveGroupRequest,
    ListConfigResourcesRequest, MetadataRequest, OffsetCommitRequest, OffsetFetchRequest,
    SyncGroupRequest, alter_configs_request, incremental_alter_configs_request,
};
use kafka_protocol::protocol::StrBytes;

use super::{Bytes, Client, RangeInclusive, TestServer, group_apis, topic_name};

/// MEMBER_ID_REQUIRED.
const MEMBER_ID_REQUIRED: i16 = 79;

fn text(value: &str) -> StrBytes {
    StrBytes::from_string(value.to_owned())
}

/// The version of round `round`, in that range.
pub fn version(round: i16, versions: &RangeInclusive<i16>) -> i16 {
    (versions.start() + round).min(*versions.end())
}

#[tokio::test]
async fn every_other_api_at_every_version() {
    let server = TestServer::start().await;
    let mut client = Client::connect(&server).await;
    let rounds = router::table()
        .iter()
        .map(|api| api.versions.end() - api.versions.start())
        .max()
        .unwrap();
    for round in 0..=rounds {
        let name = format!("topic-{round}");
        cluster(&mut client, round).await;
        topic(&mut client, round, &name).await;
        configs(&mut client, round, &name).await;
        partitions(&mut client, round, &name).await;
        group(&mut client, round, &name).await;
        delete(&mut client, round, &name).await;
    }
}

/// So that an API that is added is added here, too.
#[test]
fn no_api_is_left_out() {
    let served: BTreeSet<i16> = router::table().iter().map(|api| api.key as i16).collect();
    let tested: BTreeSet<i16> = [
        ApiKey::Produce,
        ApiKey::Fetch,
        ApiKey::ListOffsets,
        ApiKey::InitProducerId,
        ApiKey::AddPartitionsToTxn,
        ApiKey::AddOffsetsToTxn,
        ApiKey::EndTxn,
        ApiKey::TxnOffsetCommit,
        ApiKey::WriteTxnMarkers,
        ApiKey::DescribeTransactions,
        ApiKey::ListTransactions,
        ApiKey::DeleteRecords,
        ApiKey::OffsetForLeaderEpoch,
        ApiKey::DescribeLogDirs,
        ApiKey::DescribeProducers,
        ApiKey::ElectLeaders,
        ApiKey::AlterPartitionReassignments,
        ApiKey::ListPartitionReassignments,
        ApiKey::ApiVersions,
        ApiKey::DescribeCluster,
        ApiKey::GetTelemetrySubscriptions,
        ApiKey::FindCoordinator,
        ApiKey::CreateTopics,
        ApiKey::Metadata,
        ApiKey::DescribeConfigs,
        ApiKey::DeleteTopics,
        ApiKey::JoinGroup,
        ApiKey::SyncGroup,
        ApiKey::Heartbeat,
        ApiKey::OffsetCommit,
        ApiKey::OffsetFetch,
        ApiKey::LeaveGroup,
        ApiKey::CreatePartitions,
        ApiKey::AlterConfigs,
        ApiKey::IncrementalAlterConfigs,
        ApiKey::ListConfigResources,
        ApiKey::DescribeTopicPartitions,
        ApiKey::ListGroups,
        ApiKey::DescribeGroups,
        ApiKey::OffsetDelete,
        ApiKey::DeleteGroups,
    ]
    .map(|key| key as i16)
    .into();
    assert_eq!(served, tested);
}

async fn cluster(client: &mut Client, round: i16) {
    let v = version(round, &api_versions::VERSIONS);
    let mut request = ApiVersionsRequest::default();
    if v >= 3 {
        request = request
            .with_client_software_name(text("raw"))
            .with_client_software_version(text("1"));
    }
    let response = client.call(v, &request).await;
    assert_eq!(response.error_code, 0, "ApiVersions v{v}");
    assert_eq!(response.api_keys.len(), router::table().len());

    let v = version(round, &describe_cluster::VERSIONS);
    let response = client.call(v, &DescribeClusterRequest::default()).await;
    assert_eq!(response.brokers.len(), 1, "DescribeCluster v{v}");

    let v = version(round, &get_telemetry_subscriptions::VERSIONS);
    let request = GetTelemetrySubscriptionsRequest::default();
    assert_eq!(client.call(v, &request).await.error_code, 0);

    let v = version(round, &find_coordinator::VERSIONS);
    let request = FindCoordinatorRequest::default();
    let (port, error) = if v >= 4 {
        let request = request.with_coordinator_keys(vec![text("group")]);
        let found = client.call(v, &request).await.coordinators.remove(0);
        (found.port, found.error_code)
    } else {
        let found = client.call(v, &request.with_key(text("group"))).await;
        (found.port, found.error_code)
    };
    assert_eq!(error, 0, "FindCoordinator v{v}");
    assert_ne!(port, 0, "FindCoordinator v{v}");
}

async fn topic(client: &mut Client, round: i16, name: &str) {
    let v = version(round, &create_topics::VERSIONS);
    let new = CreatableTopic::default()
        .with_name(topic_name(name))
        .with_num_partitions(1)
        .with_replication_factor(1);
    let request = CreateTopicsRequest::default()
        .with_topics(vec![new])
        .with_timeout_ms(30_000);
    let created = client.call(v, &request).await.topics.remove(0);
    assert_eq!(created.error_code, 0, "CreateTopics v{v}");

    let v = version(round, &metadata::VERSIONS);
    let wanted = MetadataRequestTopic::default().with_name(Some(topic_name(name)));
    let request = MetadataRequest::default().with_topics(Some(vec![wanted]));
    let found = client.call(v, &request).await;
    assert_eq!(found.brokers.len(), 1, "Metadata v{v}");
    assert_eq!(found.topics[0].error_code, 0, "Metadata v{v}");
    assert_eq!(found.topics[0].partitions.len(), 1, "Metadata v{v}");

    let v = version(round, &describe_configs::VERSIONS);
    let resource = DescribeConfigsResource::default()
        .with_resource_type(2)
        .with_resource_name(text(name))
        .with_configuration_keys(None);
    let request = DescribeConfigsRequest::default()
        .with_resources(vec![resource])
        .with_include_synonyms(true);
    let described = client.call(v, &request).await.results.remove(0);
    assert_eq!(described.error_code, 0, "DescribeConfigs v{v}");
    assert!(!described.configs.is_empty(), "DescribeConfigs v{v}");
}

async fn configs(client: &mut Client, round: i16, name: &str) {
    let v = version(round, &alter_configs::VERSIONS);
    let config = alter_configs_request::AlterableConfig::default()
        .with_name(text("retention.ms"))
        .with_value(Some(text("1000")));
    let resource = alter_configs_request::AlterConfigsResource::default()
        .with_resource_type(2)
        .with_resource_name(text(name))
        .with_configs(vec![config]);
    let request = AlterConfigsRequest::default().with_resources(vec![resource]);
    let altered = client.call(v, &request).await.responses.remove(0);
    assert_eq!(altered.error_code, 0, "AlterConfigs v{v}");

    let v = version(round, &incremental_alter_configs::VERSIONS);
    let config = incremental_alter_configs_request::AlterableConfig::default()
        .with_name(text("cleanup.policy"))
        .with_config_operation(2)
        .with_value(Some(text("compact")));
    let resource = incremental_alter_configs_request::AlterConfigsResource::default()
        .with_resource_type(2)
        .with_resource_name(text(name))
        .with_configs(vec![config]);
    let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
    let altered = client.call(v, &request).await.responses.remove(0);
    assert_eq!(altered.error_code, 0, "IncrementalAlterConfigs v{v}");

    let v = version(round, &list_config_resources::VERSIONS);
    let request = ListConfigResourcesRequest::default();
    let listed = client.call(v, &request).await;
    assert_eq!(listed.error_code, 0, "ListConfigResources v{v}");
    // Version 0 is about client metrics alone.
    assert_eq!(listed.config_resources.is_empty(), v == 0);
}

async fn partitions(client: &mut Client, round: i16, name: &str) {
    let v = version(round, &create_partitions::VERSIONS);
    let topic = CreatePartitionsTopic::default()
        .with_name(topic_name(name))
        .with_count(3)
        .with_assignments(None);
    let request = CreatePartitionsRequest::default()
        .with_topics(vec![topic])
        .with_timeout_ms(30_000);
    let grown = client.call(v, &request).await.results.remove(0);
    assert_eq!(grown.error_code, 0, "CreatePartitions v{v}");

    let v = version(round, &describe_topic_partitions::VERSIONS);
    let topic = TopicRequest::default().with_name(topic_name(name));
    let request = DescribeTopicPartitionsRequest::default().with_topics(vec![topic]);
    let described = client.call(v, &request).await.topics.remove(0);
    assert_eq!(
        described.partitions.len(),
        3,
        "DescribeTopicPartitions v{v}"
    );
}

async fn delete(client: &mut Client, round: i16, name: &str) {
    let v = version(round, &delete_topics::VERSIONS);
    let request = DeleteTopicsRequest::default().with_timeout_ms(30_000);
    let request = if v >= 6 {
        let topic = DeleteTopicState::default().with_name(Some(topic_name(name)));
        request.with_topics(vec![topic])
    } else {
        request.with_topic_names(vec![topic_name(name)])
    };
    let deleted = client.call(v, &request).await.responses.remove(0);
    assert_eq!(deleted.error_code, 0, "DeleteTopics v{v}");
}

async fn group(client: &mut Client, round: i16, topic: &str) {
    let id = GroupId(text(&format!("group-{round}")));
    let (member, generation) = join(client, round, &id).await;

    let v = version(round, &sync_group::VERSIONS);
    let assignment = SyncGroupRequestAssignment::default()
        .with_member_id(member.clone())
        .with_assignment(Bytes::from_static(b"all of it"));
    let mut request = SyncGroupRequest::default()
        .with_group_id(id.clone())
        .with_generation_id(generation)
        .with_member_id(member.clone())
        .with_assignments(vec![assignment]);
    if v >= 5 {
        request = request
            .with_protocol_type(Some(text("consumer")))
            .with_protocol_name(Some(text("range")));
    }
    let synced = client.call(v, &request).await;
    assert_eq!(synced.error_code, 0, "SyncGroup v{v}");
    assert_eq!(&synced.assignment[..], b"all of it", "SyncGroup v{v}");

    let v = version(round, &heartbeat::VERSIONS);
    let request = HeartbeatRequest::default()
        .with_group_id(id.clone())
        .with_generation_id(generation)
        .with_member_id(member.clone());
    assert_eq!(
        client.call(v, &request).await.error_code,
        0,
        "Heartbeat v{v}"
    );

    commit_and_fetch(client, round, &id, topic, &member, generation).await;

    let v = version(round, &leave_group::VERSIONS);
    let request = LeaveGroupRequest::default().with_group_id(id.clone());
    let request = if v >= 3 {
        request.with_members(vec![MemberIdentity::default().with_member_id(member)])
    } else {
        request.with_member_id(member)
    };
    assert_eq!(
        client.call(v, &request).await.error_code,
        0,
        "LeaveGroup v{v}"
    );
    group_apis::list_and_delete(client, round, &id, topic).await;
}

async fn join(client: &mut Client, round: i16, id: &GroupId) -> (StrBytes, i32) {
    let v = version(round, &join_group::VERSIONS);
    let protocol = JoinGroupRequestProtocol::default()
        .with_name(text("range"))
        .with_metadata(Bytes::from_static(b"topics"));
    let mut request = JoinGroupRequest::default()
        .with_group_id(id.clone())
        .with_session_timeout_ms(10_000)
        .with_protocol_type(text("consumer"))
        .with_protocols(vec![protocol]);
    if v >= 1 {
        request = request.with_rebalance_timeout_ms(10_000);
    }
    let mut joined = client.call(v, &request).await;
    if v >= 4 {
        assert_eq!(joined.error_code, MEMBER_ID_REQUIRED, "JoinGroup v{v}");
        request = request.with_member_id(joined.member_id);
        joined = client.call(v, &request).await;
    }
    assert_eq!(joined.error_code, 0, "JoinGroup v{v}");
    assert_eq!(joined.leader, joined.member_id, "JoinGroup v{v}");
    (joined.member_id, joined.generation_id)
}

async fn commit_and_fetch(
    client: &mut Client,
    round: i16,
    id: &GroupId,
    topic: &str,
    member: &StrBytes,
    generation: i32,
) {
    let v = version(round, &offset_commit::VERSIONS);
    let partition = OffsetCommitRequestPartition::default()
        .with_committed_offset(5)
        .with_committed_metadata(Some(text("noted")));
    let offsets = OffsetCommitRequestTopic::default()
        .with_name(topic_name(topic))
        .with_partitions(vec![partition]);
    let request = OffsetCommitRequest::default()
        .with_group_id(id.clone())
        .with_generation_id_or_member_epoch(generation)
        .with_member_id(member.clone())
        .with_topics(vec![offsets]);
    let committed = client.call(v, &request).await;
    assert_eq!(
        committed.topics[0].partitions[0].error_code, 0,
        "OffsetCommit v{v}"
    );

    let v = version(round, &offset_fetch::VERSIONS);
    let (offset, metadata) = if v >= 8 {
        let wanted = OffsetFetchRequestTopics::default()
            .with_name(topic_name(topic))
            .with_partition_indexes(vec![0]);
        let group = OffsetFetchRequestGroup::default()
            .with_group_id(id.clone())
            .with_topics(Some(vec![wanted]));
        let request = OffsetFetchRequest::default().with_groups(vec![group]);
        let mut response = client.call(v, &request).await;
        let found = response.groups[0].topics[0].partitions.remove(0);
        (found.committed_offset, found.metadata)
    } else {
        let wanted = OffsetFetchRequestTopic::default()
            .with_name(topic_name(topic))
            .with_partition_indexes(vec![0]);
        let request = OffsetFetchRequest::default()
            .with_group_id(id.clone())
            .with_topics(Some(vec![wanted]));
        let mut response = client.call(v, &request).await;
        let found = response.topics[0].partitions.remove(0);
        (found.committed_offset, found.metadata)
    };
    assert_eq!(
        (offset, metadata),
        (5, Some(text("noted"))),
        "OffsetFetch v{v}"
    );
}
