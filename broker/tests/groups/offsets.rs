//! Commits, fetches, and what a restart makes of them.

use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{DeleteTopicsRequest, ProduceRequest};
use storage::batch::{BatchBuilder, Compression};

use crate::client::{Client, Served, config};
use crate::requests::*;

fn restart(served: Served) -> Served {
    let folder = served.stop();
    let config = config(&folder);
    Served::start_in(folder, config)
}

fn produce(client: &mut Client, name: &str, records: usize) {
    let mut batch = BatchBuilder::new(Compression::None);
    for _ in 0..records {
        batch.push(1, None, Some(b"value"), &[]);
    }
    let data = PartitionProduceData::default()
        .with_index(0)
        .with_records(Some(batch.build()));
    let data = TopicProduceData::default()
        .with_name(topic(name))
        .with_partition_data(vec![data]);
    let request = ProduceRequest::default()
        .with_acks(-1)
        .with_timeout_ms(10_000)
        .with_topic_data(vec![data]);
    let response = client.call(12, &request);
    assert_eq!(response.responses[0].partition_responses[0].error_code, 0);
}

#[test]
fn every_version_commits_and_fetches_across_a_restart() {
    let mut served = Served::start();
    let mut client = served.connect();
    create_topic(&mut client, "t", 10);
    let mut expected = Vec::new();
    for version in 2..=9 {
        let partition = i32::from(version);
        let metadata = format!("by version {version}");
        let request = Commit {
            group: "g",
            member_id: "",
            generation: -1,
            topic: "t",
            partition,
            offset: 0,
            metadata: &metadata,
        };
        assert_eq!(commit(&mut client, version, &request), 0);
        expected.push((partition, 0, if version >= 6 { 7 } else { -1 }, metadata));
    }
    for _ in 0..2 {
        for version in 1..=9 {
            // Older responses have no leader epoch.
            let expected: Vec<Fetched> = expected
                .iter()
                .cloned()
                .map(|it| (it.0, it.1, if version >= 5 { it.2 } else { -1 }, it.3))
                .collect();
            if version >= 2 {
                assert_eq!(
                    fetch(&mut client, version, "g", None),
                    expected,
                    "version {version}"
                );
            }
            let wanted: Vec<i32> = (2..=9).collect();
            let fetched = fetch(&mut client, version, "g", Some(("t", &wanted)));
            assert_eq!(fetched, expected, "version {version}");
            let none = fetch(&mut client, version, "g", Some(("t", &[1, 99])));
            let unknown = |partition| (partition, -1, -1, String::new());
            assert_eq!(none, [unknown(1), unknown(99)]);
            let other = fetch(&mut client, version, "other", Some(("t", &[2])));
            assert_eq!(other, [unknown(2)]);
        }
        served = restart(served);
        client = served.connect();
    }
}

#[test]
fn a_bad_partition_does_not_keep_the_others_from_being_committed() {
    let served = Served::start();
    let mut client = served.connect();
    create_topic(&mut client, "t", 2);
    let base = Commit {
        group: "g",
        member_id: "",
        generation: -1,
        topic: "t",
        partition: 0,
        offset: 3,
        metadata: "",
    };
    let mut request = commit_request(9, &base);
    let long = "m".repeat(5_000);
    let unknown = commit_request(
        9,
        &Commit {
            topic: "unknown",
            ..base
        },
    )
    .topics
    .remove(0);
    let too_long = Commit {
        partition: 1,
        metadata: &long,
        ..base
    };
    let too_long = commit_request(9, &too_long)
        .topics
        .remove(0)
        .partitions
        .remove(0);
    let beyond = Commit {
        partition: 2,
        ..base
    };
    let beyond = commit_request(9, &beyond)
        .topics
        .remove(0)
        .partitions
        .remove(0);
    request.topics.push(unknown);
    request.topics[0].partitions.extend([too_long, beyond]);
    let response = client.call(9, &request);
    let errors: Vec<i16> = response
        .topics
        .iter()
        .flat_map(|topic| &topic.partitions)
        .map(|partition| partition.error_code)
        .collect();
    let unknown = ResponseError::UnknownTopicOrPartition.code();
    assert_eq!(
        errors,
        [
            0,
            ResponseError::OffsetMetadataTooLarge.code(),
            unknown,
            unknown
        ]
    );
    assert_eq!(offset(&mut client, "g", "t", 0), 3);
    assert_eq!(offset(&mut client, "g", "t", 1), -1);
}

#[test]
fn a_commit_counts_even_where_nobody_waits_for_its_answer() {
    let served = Served::start();
    let mut client = served.connect();
    create_topic(&mut client, "t", 1);
    let mut hasty = served.connect();
    let request = Commit {
        group: "g",
        member_id: "",
        generation: -1,
        topic: "t",
        partition: 0,
        offset: 42,
        metadata: "",
    };
    hasty.send(9, &commit_request(9, &request));
    drop(hasty);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while offset(&mut client, "g", "t", 0) != 42 {
        assert!(std::time::Instant::now() < deadline, "it is never seen");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

#[test]
fn commits_of_one_connection_count_in_their_order() {
    let served = Served::start();
    let mut client = served.connect();
    create_topic(&mut client, "t", 1);
    for offset in 0..200 {
        let request = Commit {
            group: "g",
            member_id: "",
            generation: -1,
            topic: "t",
            partition: 0,
            offset,
            metadata: "",
        };
        client.send(9, &commit_request(9, &request));
    }
    for _ in 0..200 {
        client.receive().expect("an answer");
    }
    assert_eq!(offset(&mut client, "g", "t", 0), 199);
}

#[test]
fn an_offset_beyond_the_log_is_clamped_at_start_for_good() {
    let served = Served::start();
    let mut client = served.connect();
    create_topic(&mut client, "t", 1);
    produce(&mut client, "t", 5);
    commit_alone(&mut client, "g", "t", 0, 50);
    commit_alone(&mut client, "within", "t", 0, 4);
    let served = restart(served);
    let mut client = served.connect();
    assert_eq!(offset(&mut client, "g", "t", 0), 5);
    assert_eq!(offset(&mut client, "within", "t", 0), 4);
    produce(&mut client, "t", 100);
    let served = restart(served);
    let mut client = served.connect();
    assert_eq!(
        offset(&mut client, "g", "t", 0),
        5,
        "the log has grown past 50 meanwhile"
    );
    commit_alone(&mut client, "g", "t", 0, 60);
    assert_eq!(offset(&mut client, "g", "t", 0), 60);
}

#[test]
fn a_topic_that_is_created_again_has_no_offsets() {
    let mut served = Served::start();
    let mut client = served.connect();
    create_topic(&mut client, "t", 1);
    commit_alone(&mut client, "g", "t", 0, 0);
    let request = DeleteTopicsRequest::default()
        .with_topic_names(vec![topic("t")])
        .with_timeout_ms(10_000);
    assert_eq!(client.call(5, &request).responses[0].error_code, 0);
    create_topic(&mut client, "t", 1);
    for _ in 0..2 {
        assert_eq!(offset(&mut client, "g", "t", 0), -1);
        assert_eq!(fetch(&mut client, 9, "g", None), []);
        served = restart(served);
        client = served.connect();
    }
}

#[test]
fn the_offsets_topic_is_internal() {
    let served = Served::start();
    let mut client = served.connect();
    create_topic(&mut client, "t", 1);
    commit_alone(&mut client, "g", "t", 0, 0);
    let data = PartitionProduceData::default()
        .with_index(0)
        .with_records(Some(Bytes::new()));
    let data = TopicProduceData::default()
        .with_name(topic("__consumer_offsets"))
        .with_partition_data(vec![data]);
    let request = ProduceRequest::default()
        .with_acks(1)
        .with_timeout_ms(1_000)
        .with_topic_data(vec![data]);
    let response = client.call(12, &request);
    let error = response.responses[0].partition_responses[0].error_code;
    assert_eq!(error, ResponseError::InvalidTopicException.code());
}
