//! What tools ask about logs and replicas, at every version.

use broker::api::{
    alter_partition_reassignments, delete_records, describe_log_dirs, describe_producers,
    elect_leaders, list_partition_reassignments, offset_for_leader_epoch,
};
use kafka_protocol::messages::alter_partition_reassignments_request::{
    ReassignablePartition, ReassignableTopic,
};
use kafka_protocol::messages::delete_records_request::{
    DeleteRecordsPartition, DeleteRecordsTopic,
};
use kafka_protocol::messages::describe_log_dirs_request::DescribableLogDirTopic;
use kafka_protocol::messages::describe_producers_request::TopicRequest;
use kafka_protocol::messages::elect_leaders_request::TopicPartitions;
use kafka_protocol::messages::list_partition_reassignments_request::ListPartitionReassignmentsTopics;
use kafka_protocol::messages::offset_for_leader_epoch_request::{
    OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use kafka_protocol::messages::{
    AlterPartitionReassignmentsRequest, BrokerId, DeleteRecordsRequest, DescribeLogDirsRequest,
    DescribeProducersRequest, ElectLeadersRequest, ListPartitionReassignmentsRequest,
    OffsetForLeaderEpochRequest, ProducerId,
};
use storage::batch::{BatchBuilder, Compression};

use super::{Client, TestServer, every, produce_request, topic_name};

/// A topic "t" that has `count` records of producer 7.
async fn client_and_topic(server: &TestServer, count: i32) -> Client {
    let mut client = Client::connect(server).await;
    let id = client.topic_id("t").await;
    for sequence in 0..count {
        let mut batch = BatchBuilder::new(Compression::None).producer(7, 0, sequence);
        batch.push(super::TIMESTAMP, None, Some(b"value"), &[]);
        let request = produce_request("t", id, 9, batch.build());
        let response = client.call(9, &request).await;
        assert_eq!(response.responses[0].partition_responses[0].error_code, 0);
    }
    client
}

#[tokio::test]
async fn delete_records_at_every_version() {
    let server = TestServer::start().await;
    let mut client = client_and_topic(&server, 10).await;
    for (round, version) in every(delete_records::VERSIONS) {
        let mut ask = async |index, offset| {
            let partition = DeleteRecordsPartition::default()
                .with_partition_index(index)
                .with_offset(offset);
            let topic = DeleteRecordsTopic::default()
                .with_name(topic_name("t"))
                .with_partitions(vec![partition]);
            let request = DeleteRecordsRequest::default()
                .with_timeout_ms(30_000)
                .with_topics(vec![topic]);
            let response = client.call(version, &request).await;
            assert_eq!(response.topics[0].name, topic_name("t"));
            let partition = &response.topics[0].partitions[0];
            assert_eq!(partition.partition_index, index);
            (partition.error_code, partition.low_watermark)
        };
        assert_eq!(ask(0, round + 1).await, (0, round + 1), "v{version}");
        assert_eq!(ask(0, 11).await, (1, -1), "v{version}");
        assert_eq!(ask(7, 0).await, (3, -1), "v{version}");
    }
}

#[tokio::test]
async fn offset_for_leader_epoch_at_every_version() {
    let server = TestServer::start().await;
    let mut client = client_and_topic(&server, 3).await;
    for (_, version) in every(offset_for_leader_epoch::VERSIONS) {
        for (current, asked, expected) in [
            (-1, 0, (0, 0, 3)),
            (0, 0, (0, 0, 3)),
            (0, 1, (0, -1, -1)),
            (0, -1, (0, -1, -1)),
            (1, 0, (75, -1, -1)),
            (-2, 0, (74, -1, -1)),
        ] {
            let partition = OffsetForLeaderPartition::default()
                .with_current_leader_epoch(current)
                .with_leader_epoch(asked);
            let topic = OffsetForLeaderTopic::default()
                .with_topic(topic_name("t"))
                .with_partitions(vec![partition]);
            let mut request = OffsetForLeaderEpochRequest::default().with_topics(vec![topic]);
            if version >= 3 {
                request = request.with_replica_id(BrokerId(-1));
            }
            let response = client.call(version, &request).await;
            assert_eq!(response.topics[0].topic, topic_name("t"));
            let found = &response.topics[0].partitions[0];
            let found = (found.error_code, found.leader_epoch, found.end_offset);
            assert_eq!(found, expected, "v{version}: {asked} under {current}");
        }
    }
}

#[tokio::test]
async fn describe_log_dirs_at_every_version() {
    let server = TestServer::start().await;
    let mut client = client_and_topic(&server, 3).await;
    for (_, version) in every(describe_log_dirs::VERSIONS) {
        let named = |name| {
            DescribableLogDirTopic::default()
                .with_topic(topic_name(name))
                .with_partitions(vec![0, 0, 9])
        };
        let some = Some(vec![named("t"), named("unknown"), named("t")]);
        for (topics, at_least) in [(some, 1), (None, 1), (Some(Vec::new()), 0)] {
            let request = DescribeLogDirsRequest::default().with_topics(topics);
            let mut response = client.call(version, &request).await;
            assert_eq!((response.error_code, response.results.len()), (0, 1));
            let folder = response.results.remove(0);
            assert_eq!(folder.error_code, 0);
            assert!(folder.log_dir.starts_with('/'), "{}", folder.log_dir);
            assert_eq!(folder.total_bytes > 0, version >= 4, "v{version}");
            assert_eq!(folder.usable_bytes > 0, version >= 4, "v{version}");
            assert!(folder.topics.len() >= at_least, "v{version}");
            if let Some(topic) = folder.topics.iter().find(|t| t.name == topic_name("t")) {
                assert_eq!(topic.partitions.len(), 1, "v{version}");
                let partition = &topic.partitions[0];
                assert!(partition.partition_size > 3 * 61, "v{version}");
                assert_eq!((partition.offset_lag, partition.is_future_key), (0, false));
            }
        }
    }
}

#[tokio::test]
async fn describe_producers_at_its_version() {
    let server = TestServer::start().await;
    let mut client = client_and_topic(&server, 3).await;
    let named = |name: &str, partitions: &[i32]| {
        TopicRequest::default()
            .with_name(topic_name(name))
            .with_partition_indexes(partitions.to_vec())
    };
    let topics = vec![named("t", &[0, 9, 0]), named("unknown", &[0])];
    let request = DescribeProducersRequest::default().with_topics(topics);
    let response = client
        .call(*describe_producers::VERSIONS.start(), &request)
        .await;
    let codes = |topic: usize| -> Vec<i16> {
        let partitions = &response.topics[topic].partitions;
        partitions.iter().map(|found| found.error_code).collect()
    };
    assert_eq!((codes(0), codes(1)), (vec![0, 3, 42], vec![3]));
    let partition = &response.topics[0].partitions[0];
    assert_eq!(partition.active_producers.len(), 1);
    let producer = &partition.active_producers[0];
    assert_eq!(producer.producer_id, ProducerId(7));
    assert_eq!((producer.producer_epoch, producer.last_sequence), (0, 2));
    assert!(producer.last_timestamp > super::TIMESTAMP);
    let transaction = (
        producer.coordinator_epoch,
        producer.current_txn_start_offset,
    );
    assert_eq!(transaction, (-1, -1));
}

#[tokio::test]
async fn elect_leaders_at_every_version() {
    let server = TestServer::start().await;
    let mut client = client_and_topic(&server, 0).await;
    for (_, version) in every(elect_leaders::VERSIONS) {
        for election_type in [0, 1, 2] {
            if version == 0 && election_type > 0 {
                continue;
            }
            let topic = TopicPartitions::default()
                .with_topic(topic_name("t"))
                .with_partitions(vec![0, 9]);
            let request = ElectLeadersRequest::default()
                .with_election_type(election_type)
                .with_topic_partitions(Some(vec![topic]))
                .with_timeout_ms(30_000);
            let response = client.call(version, &request).await;
            if election_type == 2 {
                assert_eq!(response.error_code, 42, "v{version}");
                continue;
            }
            assert_eq!(response.error_code, 0, "v{version}");
            let found = &response.replica_election_results[0].partition_result;
            let found: Vec<_> = found
                .iter()
                .map(|p| (p.partition_id, p.error_code))
                .collect();
            assert_eq!(found, [(0, 84), (9, 3)], "v{version}");

            let all = request.with_topic_partitions(None);
            let response = client.call(version, &all).await;
            assert_eq!(response.error_code, 0, "v{version}");
            assert!(response.replica_election_results.is_empty(), "v{version}");
        }
    }
}

#[tokio::test]
async fn reassignments_at_every_version() {
    let server = TestServer::start().await;
    let mut client = client_and_topic(&server, 0).await;
    for (_, version) in every(alter_partition_reassignments::VERSIONS) {
        for (index, replicas, expected) in [
            (0, Some(vec![0]), 0),
            (0, Some(vec![]), 39),
            (0, Some(vec![1]), 39),
            (0, Some(vec![0, 0]), 39),
            (0, Some(vec![0, 1]), 39),
            (0, None, 85),
            (9, Some(vec![0]), 3),
        ] {
            let replicas = replicas.map(|ids: Vec<i32>| ids.into_iter().map(BrokerId).collect());
            let partition = ReassignablePartition::default()
                .with_partition_index(index)
                .with_replicas(replicas);
            let topic = ReassignableTopic::default()
                .with_name(topic_name("t"))
                .with_partitions(vec![partition.clone()]);
            let request = AlterPartitionReassignmentsRequest::default()
                .with_timeout_ms(30_000)
                .with_topics(vec![topic]);
            let response = client.call(version, &request).await;
            assert_eq!(response.error_code, 0, "v{version}");
            assert!(response.allow_replication_factor_change, "v{version}");
            let found = &response.responses[0].partitions[0];
            assert_eq!(found.error_code, expected, "v{version}: {partition:?}");
            assert_eq!(found.error_message.is_some(), expected != 0, "v{version}");
        }
    }
    for (_, version) in every(list_partition_reassignments::VERSIONS) {
        let topic = ListPartitionReassignmentsTopics::default()
            .with_name(topic_name("t"))
            .with_partition_indexes(vec![0]);
        for topics in [None, Some(vec![topic])] {
            let request = ListPartitionReassignmentsRequest::default().with_topics(topics);
            let response = client.call(version, &request).await;
            assert_eq!((response.error_code, response.topics.len()), (0, 0));
        }
    }
}
