//! CreatePartitions and DescribeTopicPartitions: more partitions, and topics in pages.

use broker::catalog::{NewTopic, TopicKind};
use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::create_partitions_request::{
    CreatePartitionsAssignment, CreatePartitionsTopic,
};
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::describe_topic_partitions_request::{Cursor, TopicRequest};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::produce_response::PartitionProduceResponse;
use kafka_protocol::messages::{
    BrokerId, CreatePartitionsRequest, CreateTopicsRequest, DescribeTopicPartitionsRequest,
    DescribeTopicPartitionsResponse, MetadataRequest, ProduceRequest, TopicName,
};
use kafka_protocol::protocol::StrBytes;
use storage::batch::{BatchBuilder, Compression};

use super::client::{Client, Served, config};

pub fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

pub fn topic_name(name: &str) -> TopicName {
    TopicName(text(name))
}

pub fn create(client: &mut Client, name: &str, partitions: i32) {
    let topic = CreatableTopic::default()
        .with_name(topic_name(name))
        .with_num_partitions(partitions)
        .with_replication_factor(1);
    let request = CreateTopicsRequest::default().with_topics(vec![topic]);
    let created = client.call(7, &request).topics.remove(0);
    assert_eq!(created.error_code, 0, "{:?}", created.error_message);
}

/// How many partitions a client sees.
fn partitions(client: &mut Client, name: &str) -> usize {
    let topic = MetadataRequestTopic::default().with_name(Some(topic_name(name)));
    let request = MetadataRequest::default()
        .with_topics(Some(vec![topic]))
        .with_allow_auto_topic_creation(false);
    client.call(9, &request).topics.remove(0).partitions.len()
}

fn to_grow(name: &str, count: i32) -> CreatePartitionsTopic {
    CreatePartitionsTopic::default()
        .with_name(topic_name(name))
        .with_count(count)
        .with_assignments(None)
}

fn growth(topics: Vec<CreatePartitionsTopic>) -> CreatePartitionsRequest {
    CreatePartitionsRequest::default()
        .with_topics(topics)
        .with_timeout_ms(30_000)
}

fn refusals(client: &mut Client, request: &CreatePartitionsRequest) -> Vec<(i16, String)> {
    let results = client.call(3, request).results.into_iter();
    results
        .map(|result| {
            let message = result
                .error_message
                .map_or(String::new(), |m| m.to_string());
            (result.error_code, message)
        })
        .collect()
}

pub fn batch(key: Option<&[u8]>, timestamp_ms: i64, value: &[u8]) -> Bytes {
    let mut batch = BatchBuilder::new(Compression::None);
    batch.push(timestamp_ms, key, Some(value), &[]);
    batch.build()
}

/// The answer to appending a batch.
pub fn append(
    client: &mut Client,
    topic: &str,
    partition: i32,
    batch: Bytes,
) -> PartitionProduceResponse {
    let data = PartitionProduceData::default()
        .with_index(partition)
        .with_records(Some(batch));
    let data = TopicProduceData::default()
        .with_name(topic_name(topic))
        .with_partition_data(vec![data]);
    let request = ProduceRequest::default()
        .with_acks(-1)
        .with_timeout_ms(30_000)
        .with_topic_data(vec![data]);
    let mut response = client.call(9, &request);
    response.responses[0].partition_responses.remove(0)
}

/// The error of appending a batch, and its message.
pub fn produce(client: &mut Client, topic: &str, partition: i32, batch: Bytes) -> (i16, String) {
    let answer = append(client, topic, partition, batch);
    let message = answer
        .error_message
        .map_or(String::new(), |m| m.to_string());
    (answer.error_code, message)
}

#[test]
fn more_partitions_are_seen_at_once_and_after_a_restart() {
    let served = Served::start();
    let mut client = served.connect();
    create(&mut client, "t", 2);
    let ids = |client: &mut Client| {
        let topic = MetadataRequestTopic::default().with_name(Some(topic_name("t")));
        let request = MetadataRequest::default().with_topics(Some(vec![topic]));
        client.call(12, &request).topics.remove(0).topic_id
    };
    let id = ids(&mut client);
    assert_eq!(produce(&mut client, "t", 1, batch(None, 0, b"before")).0, 0);
    let unknown = ResponseError::UnknownTopicOrPartition.code();
    assert_eq!(
        produce(&mut client, "t", 4, batch(None, 0, b"early")).0,
        unknown
    );

    let request = growth(vec![to_grow("t", 5)]);
    let only_checked = request.clone().with_validate_only(true);
    assert_eq!(refusals(&mut client, &only_checked), [(0, String::new())]);
    assert_eq!(partitions(&mut client, "t"), 2);
    assert_eq!(refusals(&mut client, &request), [(0, String::new())]);
    assert_eq!(partitions(&mut client, "t"), 5);
    assert_eq!(ids(&mut client), id);
    assert_eq!(produce(&mut client, "t", 4, batch(None, 0, b"after")).0, 0);

    let folder = served.stop();
    let config = config(&folder);
    let served = Served::start_in(folder, config);
    let mut client = served.connect();
    assert_eq!(partitions(&mut client, "t"), 5);
    assert_eq!(ids(&mut client), id);
    assert_eq!(produce(&mut client, "t", 4, batch(None, 0, b"again")).0, 0);
}

#[test]
fn partitions_that_cannot_be_added_say_why() {
    let served = Served::start();
    let mut client = served.connect();
    create(&mut client, "t", 3);
    let assigned = |count, brokers: &[&[i32]]| {
        let assignment = |ids: &&[i32]| {
            let ids = ids.iter().copied().map(BrokerId).collect();
            CreatePartitionsAssignment::default().with_broker_ids(ids)
        };
        to_grow("t", count).with_assignments(Some(brokers.iter().map(assignment).collect()))
    };
    use ResponseError::*;
    for (topic, code, reason) in [
        (
            to_grow("t", 3),
            InvalidPartitions,
            "3 would not be an increase",
        ),
        (
            to_grow("t", 2),
            InvalidPartitions,
            "2 would not be an increase",
        ),
        (to_grow("t", -1), InvalidPartitions, "-1 would not be"),
        (to_grow("t", i32::MAX), InvalidPartitions, "2147483647"),
        (to_grow("nobody", 5), UnknownTopicOrPartition, "nobody"),
        (
            assigned(5, &[&[0]]),
            InvalidReplicaAssignment,
            "1 assignment(s)",
        ),
        (
            assigned(4, &[&[0, 1]]),
            InvalidReplicaAssignment,
            "broker 1",
        ),
        (assigned(4, &[&[]]), InvalidReplicaAssignment, "0 replicas"),
        (
            assigned(4, &[&[0, 0]]),
            InvalidReplicaAssignment,
            "2 replicas",
        ),
    ] {
        let refused = refusals(&mut client, &growth(vec![topic.clone()]));
        assert_eq!(refused[0].0, code.code(), "{topic:?}: {}", refused[0].1);
        assert!(refused[0].1.contains(reason), "{}", refused[0].1);
    }
    assert_eq!(partitions(&mut client, "t"), 3);

    create(&mut client, "u", 1);
    let twice = growth(vec![to_grow("t", 4), to_grow("u", 2), to_grow("t", 5)]);
    let refused = refusals(&mut client, &twice);
    assert_eq!(refused.len(), 2);
    assert_eq!(refused[0].0, InvalidRequest.code());
    assert_eq!(refused[1].0, 0, "the other topic is not to blame");
    assert_eq!(partitions(&mut client, "t"), 3);
    assert_eq!(partitions(&mut client, "u"), 2);

    let assigned = growth(vec![assigned(5, &[&[0], &[0]])]);
    assert_eq!(refusals(&mut client, &assigned), [(0, String::new())]);
    assert_eq!(partitions(&mut client, "t"), 5);
}

#[test]
fn one_request_creates_many_topics_but_not_too_many_partitions() {
    let served = Served::start();
    let mut client = served.connect();
    create(&mut client, "taken", 1);
    let topic = |name: &str, partitions| {
        CreatableTopic::default()
            .with_name(topic_name(name))
            .with_num_partitions(partitions)
            .with_replication_factor(1)
    };
    let mut topics: Vec<_> = (0..150).map(|n| topic(&format!("t{n}"), 1)).collect();
    topics.insert(70, topic("taken", 1));
    topics.insert(20, topic("bad", 0));
    let request = CreateTopicsRequest::default().with_topics(topics);
    let created = client.call(7, &request).topics;
    assert_eq!(created.len(), 152);
    for topic in &created {
        let expected = match &*topic.name.0 {
            "taken" => ResponseError::TopicAlreadyExists.code(),
            "bad" => ResponseError::InvalidPartitions.code(),
            _ => 0,
        };
        assert_eq!(topic.error_code, expected, "{:?}", topic.name);
        assert_eq!(topic.topic_id.is_nil(), expected != 0);
    }
    assert_eq!(partitions(&mut client, "t149"), 1);

    let request = CreateTopicsRequest::default().with_topics(vec![
        topic("u", 6000),
        topic("v", 6000),
        topic("bad", 0),
    ]);
    let refused: Vec<_> = client.call(7, &request).topics;
    let codes: Vec<_> = refused.iter().map(|topic| topic.error_code).collect();
    let policy = ResponseError::PolicyViolation.code();
    let invalid = ResponseError::InvalidPartitions.code();
    assert_eq!(codes, [policy, policy, invalid]);
    assert_eq!(partitions(&mut client, "u"), 0);
}

#[test]
fn what_the_broker_writes_itself_is_not_grown_by_clients() {
    let served = Served::start();
    let kinds = [
        ("__consumer_offsets", TopicKind::Internal),
        (
            "d",
            TopicKind::Derived {
                model_topic: "m".into(),
            },
        ),
        (
            "d.dlq",
            TopicKind::DeadLetter {
                model_topic: "m".into(),
            },
        ),
    ];
    for (name, kind) in kinds.clone() {
        let new = NewTopic {
            name: name.into(),
            partitions: 1,
            configs: Default::default(),
            kind,
        };
        served.create_topic(new);
    }
    let mut client = served.connect();
    for (name, _) in kinds {
        let refused = refusals(&mut client, &growth(vec![to_grow(name, 2)]));
        assert_eq!(
            refused[0].0,
            ResponseError::PolicyViolation.code(),
            "{name}"
        );
        assert!(refused[0].1.contains(name), "{}", refused[0].1);
        assert_eq!(partitions(&mut client, name), 1);
    }
}

type Page = (Vec<(String, i16, Vec<i32>)>, Option<(String, i32)>);

fn page(response: DescribeTopicPartitionsResponse) -> Page {
    let topics = response.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|p| p.partition_index);
        let name = topic.name.map_or(String::new(), |name| name.to_string());
        (name, topic.error_code, partitions.collect())
    });
    let cursor = response
        .next_cursor
        .map(|cursor| (cursor.topic_name.to_string(), cursor.partition_index));
    (topics.collect(), cursor)
}

fn asked(
    names: &[&str],
    limit: i32,
    cursor: Option<(&str, i32)>,
) -> DescribeTopicPartitionsRequest {
    let topic = |name: &&str| TopicRequest::default().with_name(topic_name(name));
    let cursor = cursor.map(|(name, partition)| {
        Cursor::default()
            .with_topic_name(topic_name(name))
            .with_partition_index(partition)
    });
    DescribeTopicPartitionsRequest::default()
        .with_topics(names.iter().map(topic).collect())
        .with_response_partition_limit(limit)
        .with_cursor(cursor)
}

#[test]
fn topics_are_described_in_pages_sorted_by_name() {
    let served = Served::start();
    let mut client = served.connect();
    for (name, partitions) in [("c", 1), ("a", 3), ("b", 2)] {
        create(&mut client, name, partitions);
    }
    let whole = |name: &str, partitions: &[i32]| (name.to_owned(), 0, partitions.to_vec());
    let all = page(client.call(0, &asked(&[], 2000, None)));
    let expected = vec![
        whole("a", &[0, 1, 2]),
        whole("b", &[0, 1]),
        whole("c", &[0]),
    ];
    assert_eq!(all, (expected, None));

    // Each page begins where the cursor of the one before says.
    let first = page(client.call(0, &asked(&[], 2, None)));
    assert_eq!(first, (vec![whole("a", &[0, 1])], Some(("a".into(), 2))));
    let second = page(client.call(0, &asked(&[], 2, Some(("a", 2)))));
    let expected = vec![whole("a", &[2]), whole("b", &[0])];
    assert_eq!(second, (expected, Some(("b".into(), 1))));
    let last = page(client.call(0, &asked(&[], 2, Some(("b", 1)))));
    assert_eq!(last, (vec![whole("b", &[1]), whole("c", &[0])], None));
    // A page that ends with a topic names the next one.
    let even = page(client.call(0, &asked(&[], 3, None)));
    assert_eq!(even, (vec![whole("a", &[0, 1, 2])], Some(("b".into(), 0))));
    // No page is empty, whatever the limit, and a cursor may name what was deleted meanwhile.
    let least = page(client.call(0, &asked(&[], -7, Some(("aa", 3)))));
    assert_eq!(least, (vec![whole("b", &[0])], Some(("b".into(), 1))));

    let unknown = ResponseError::UnknownTopicOrPartition.code();
    let invalid = ResponseError::InvalidTopicException.code();
    let some = page(client.call(0, &asked(&["no", "c", "b", "c", "not/a/name"], 2000, None)));
    let expected = vec![
        whole("b", &[0, 1]),
        whole("c", &[0]),
        ("no".into(), unknown, vec![]),
        ("not/a/name".into(), invalid, vec![]),
    ];
    assert_eq!(some, (expected, None));

    let refused = ResponseError::InvalidRequest.code();
    for cursor in [("a", 0), ("c", -1)] {
        let (topics, next) = page(client.call(0, &asked(&["b", "c"], 2000, Some(cursor))));
        assert!(topics.iter().all(|topic| topic.1 == refused), "{topics:?}");
        assert_eq!((topics.len(), next), (2, None));
    }
    let operations = client.call(0, &asked(&["c"], 1, None)).topics[0].topic_authorized_operations;
    assert!(operations > 0);
}
