//! Metadata, CreateTopics, DeleteTopics and DescribeConfigs over a real catalog.

mod fixture;

use std::collections::BTreeMap;

use broker::api::{create_topics, delete_topics, describe_configs, metadata};
use broker::catalog::{NewTopic, TopicKind};
use broker::config::Config;
use broker::router::Reply;
use fixture::Fixture;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig,
};
use kafka_protocol::messages::create_topics_response::CreatableTopicResult;
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult,
};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response::MetadataResponseTopic;
use kafka_protocol::messages::{
    BrokerId, CreateTopicsRequest, DeleteTopicsRequest, DescribeConfigsRequest, MetadataRequest,
    MetadataResponse, TopicName,
};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use uuid::Uuid;

const TOPIC: i8 = 2;
const BROKER: i8 = 4;

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn name(name: &str) -> TopicName {
    TopicName(text(name))
}

/// The response as a client of that version reads it: what a version has no field for must not
/// keep a response from being encoded.
fn over_the_wire<R: Encodable + Decodable>(reply: Reply<R>, version: i16) -> R {
    let Reply::Now(response) = reply else {
        panic!("not answered at once")
    };
    let mut bytes = bytes::BytesMut::new();
    response.encode(&mut bytes, version).unwrap();
    R::decode(&mut bytes.freeze(), version).unwrap()
}

async fn ask_metadata(
    fixture: &Fixture,
    version: i16,
    request: MetadataRequest,
) -> MetadataResponse {
    let reply = metadata::handle(&fixture.context(version), request).await;
    over_the_wire(reply, version)
}

fn by_name(names: &[&str]) -> MetadataRequest {
    let topic = |n: &&str| MetadataRequestTopic::default().with_name(Some(name(n)));
    MetadataRequest::default().with_topics(Some(names.iter().map(topic).collect()))
}

fn by_id(id: Uuid) -> MetadataRequest {
    let topic = MetadataRequestTopic::default()
        .with_name(None)
        .with_topic_id(id);
    MetadataRequest::default().with_topics(Some(vec![topic]))
}

fn found(topics: &[MetadataResponseTopic]) -> Vec<(String, i16, usize)> {
    let name = |t: &MetadataResponseTopic| t.name.as_ref().map_or(String::new(), |n| n.to_string());
    topics
        .iter()
        .map(|t| (name(t), t.error_code, t.partitions.len()))
        .collect()
}

async fn create(
    fixture: &Fixture,
    version: i16,
    request: CreateTopicsRequest,
) -> Vec<CreatableTopicResult> {
    let reply = create_topics::handle(&fixture.context(version), request).await;
    over_the_wire(reply, version).topics
}

fn creatable(topic: &str, partitions: i32, replication_factor: i16) -> CreatableTopic {
    CreatableTopic::default()
        .with_name(name(topic))
        .with_num_partitions(partitions)
        .with_replication_factor(replication_factor)
}

fn to_create(topics: Vec<CreatableTopic>) -> CreateTopicsRequest {
    CreateTopicsRequest::default()
        .with_topics(topics)
        .with_timeout_ms(1000)
}

async fn create_ordinary(fixture: &Fixture, topic: &str, partitions: i32) -> Uuid {
    let new = NewTopic {
        name: topic.to_owned(),
        partitions,
        configs: BTreeMap::new(),
        kind: TopicKind::Ordinary,
    };
    fixture.broker.catalog.create_topic(new).await.unwrap().id
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metadata_answers_all_topics_some_topics_and_none() {
    let fixture = Fixture::start().await;
    create_ordinary(&fixture, "a", 2).await;
    create_ordinary(&fixture, "b", 1).await;
    let all = MetadataRequest::default().with_topics(None);
    for version in 1..=13 {
        let response = ask_metadata(&fixture, version, all.clone()).await;
        assert_eq!(
            found(&response.topics),
            [("a".into(), 0, 2), ("b".into(), 0, 1)]
        );
        let node = &response.brokers[0];
        assert_eq!(
            (node.node_id, &*node.host, node.port),
            (BrokerId(7), "broker.test", 9092)
        );
        assert_eq!(response.controller_id, BrokerId(7));
        let partition = &response.topics[0].partitions[1];
        assert_eq!(
            (partition.partition_index, partition.leader_id),
            (1, BrokerId(7))
        );
        assert_eq!(partition.replica_nodes, [BrokerId(7)]);
        assert_eq!(partition.isr_nodes, [BrokerId(7)]);
        if version >= 2 {
            assert_eq!(
                response.cluster_id.as_deref(),
                Some(fixture.broker.cluster_id.as_str())
            );
        }
        if version >= 7 {
            assert!(partition.leader_epoch >= 0);
        }
    }
    let none = MetadataRequest::default().with_topics(Some(Vec::new()));
    assert_eq!(
        ask_metadata(&fixture, 0, none.clone()).await.topics.len(),
        2
    );
    assert_eq!(ask_metadata(&fixture, 1, none).await.topics.len(), 0);
    let twice = ask_metadata(&fixture, 12, by_name(&["b", "b"])).await;
    assert_eq!(found(&twice.topics), [("b".into(), 0, 1)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metadata_creates_topics_where_it_may() {
    let fixture = Fixture::start().await;
    let unknown = ResponseError::UnknownTopicOrPartition.code();
    let invalid = ResponseError::InvalidTopicException.code();

    let forbidden = by_name(&["new"]).with_allow_auto_topic_creation(false);
    let response = ask_metadata(&fixture, 12, forbidden).await;
    assert_eq!(found(&response.topics), [("new".into(), unknown, 0)]);

    let asked = by_name(&["new", "not/a/name", "__consumer_offsets"]);
    let response = ask_metadata(&fixture, 12, asked.clone()).await;
    assert_eq!(
        found(&response.topics),
        [
            ("new".into(), 0, 3),
            ("not/a/name".into(), invalid, 0),
            ("__consumer_offsets".into(), unknown, 0)
        ]
    );
    let id = response.topics[0].topic_id;
    assert_eq!(fixture.broker.catalog.topic("new").unwrap().id, id);
    assert_eq!(
        ask_metadata(&fixture, 12, asked).await.topics[0].topic_id,
        id
    );

    let off = |config: &mut Config| config.broker.auto_create_topics_enable = false;
    let fixture = Fixture::start_with(off).await;
    let response = ask_metadata(&fixture, 12, by_name(&["other"])).await;
    assert_eq!(found(&response.topics), [("other".into(), unknown, 0)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metadata_finds_topics_by_id() {
    let fixture = Fixture::start().await;
    let id = create_ordinary(&fixture, "a", 1).await;
    let response = ask_metadata(&fixture, 12, by_id(id)).await;
    assert_eq!(found(&response.topics), [("a".into(), 0, 1)]);
    assert_eq!(response.topics[0].topic_id, id);

    fixture.broker.catalog.delete_topic("a").await.unwrap();
    create_ordinary(&fixture, "a", 1).await;
    let response = ask_metadata(&fixture, 12, by_id(id)).await;
    let code = ResponseError::UnknownTopicId.code();
    assert_eq!(found(&response.topics), [(String::new(), code, 0)]);
    assert_eq!(response.topics[0].topic_id, id);

    let response = ask_metadata(&fixture, 10, by_id(id)).await;
    assert_eq!(
        response.topics[0].error_code,
        ResponseError::InvalidRequest.code()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metadata_marks_internal_topics_and_operations() {
    let fixture = Fixture::start().await;
    create_ordinary(&fixture, "a", 1).await;
    for (name, kind) in [
        ("__consumer_offsets", TopicKind::Internal),
        (
            "d",
            TopicKind::Derived {
                model_topic: "m".into(),
            },
        ),
    ] {
        let new = NewTopic {
            name: name.into(),
            partitions: 1,
            configs: BTreeMap::new(),
            kind,
        };
        fixture.broker.catalog.create_topic(new).await.unwrap();
    }
    let request = MetadataRequest::default()
        .with_topics(None)
        .with_include_cluster_authorized_operations(true)
        .with_include_topic_authorized_operations(true);
    let response = ask_metadata(&fixture, 8, request).await;
    let internal: Vec<_> = response
        .topics
        .iter()
        .map(|topic| topic.is_internal)
        .collect();
    assert_eq!(internal, [true, false, false]);
    let write = 1 << 4;
    let writable: Vec<_> = response
        .topics
        .iter()
        .map(|t| t.topic_authorized_operations & write != 0)
        .collect();
    assert_eq!(writable, [false, true, false]);
    assert!(response.cluster_authorized_operations > 0);
    let response = ask_metadata(&fixture, 8, by_name(&["a"])).await;
    assert_eq!(response.cluster_authorized_operations, i32::MIN);
    assert_eq!(response.topics[0].topic_authorized_operations, i32::MIN);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_are_created_with_their_configs_shown() {
    let fixture = Fixture::start().await;
    let config = CreatableTopicConfig::default()
        .with_name(text("segment.ms"))
        .with_value(Some(text("1000")));
    for version in 2..=7 {
        let topic = creatable(&format!("v{version}"), 2, 1).with_configs(vec![config.clone()]);
        let results = create(&fixture, version, to_create(vec![topic])).await;
        let created = fixture
            .broker
            .catalog
            .topic(&format!("v{version}"))
            .unwrap();
        assert_eq!((results[0].error_code, created.partitions.len()), (0, 2));
        assert_eq!(created.config.log.segment_ms, 1000);
        if version >= 5 {
            assert_eq!(
                (results[0].num_partitions, results[0].replication_factor),
                (2, 1)
            );
            assert_eq!(results[0].error_message, None);
            let configs = results[0].configs.as_ref().unwrap();
            let shown = configs
                .iter()
                .find(|config| &*config.name == "segment.ms")
                .unwrap();
            assert_eq!(shown.value.as_deref(), Some("1000"));
            assert_eq!(shown.config_source, 1);
            assert!(configs.len() > 20);
        }
        if version >= 7 {
            assert_eq!(results[0].topic_id, created.id);
        }
    }
    let by_default = create(&fixture, 7, to_create(vec![creatable("default", -1, -1)])).await;
    assert_eq!(
        (by_default[0].error_code, by_default[0].num_partitions),
        (0, 3)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_that_cannot_be_created_say_why() {
    let fixture = Fixture::start().await;
    create_ordinary(&fixture, "taken", 1).await;
    let assign = |partitions: &[(i32, &[i32])]| {
        let assignment = |(partition, brokers): &(i32, &[i32])| {
            CreatableReplicaAssignment::default()
                .with_partition_index(*partition)
                .with_broker_ids(brokers.iter().copied().map(BrokerId).collect())
        };
        creatable("x", -1, -1).with_assignments(partitions.iter().map(assignment).collect())
    };
    let with_config = |key: &str, value: Option<&str>| {
        creatable("x", 1, 1).with_configs(vec![
            CreatableTopicConfig::default()
                .with_name(text(key))
                .with_value(value.map(text)),
        ])
    };
    use ResponseError::*;
    for (topic, code, reason) in [
        (creatable("taken", 1, 1), TopicAlreadyExists, "taken"),
        (
            creatable("bad name", 1, 1),
            InvalidTopicException,
            "bad name",
        ),
        (
            creatable("__consumer_offsets", 1, 1),
            InvalidTopicException,
            "reserved",
        ),
        (creatable("x", 0, 1), InvalidPartitions, "0"),
        (creatable("x", 10_001, 1), InvalidPartitions, "10001"),
        (creatable("x", 1, 3), InvalidReplicationFactor, "3"),
        (creatable("x", 1, 0), InvalidReplicationFactor, "0"),
        (
            with_config("segment.ms", Some("x")),
            InvalidConfig,
            "segment.ms",
        ),
        (
            with_config("no.such", Some("1")),
            InvalidConfig,
            "unknown topic config",
        ),
        (with_config("segment.ms", None), InvalidConfig, "no value"),
        (assign(&[(0, &[8])]), InvalidReplicaAssignment, "broker 8"),
        (
            assign(&[(0, &[7, 7])]),
            InvalidReplicaAssignment,
            "2 replicas",
        ),
        (assign(&[(0, &[])]), InvalidReplicaAssignment, "0 replicas"),
        (
            assign(&[(1, &[7])]),
            InvalidReplicaAssignment,
            "0 is missing",
        ),
        (
            assign(&[(0, &[7]), (0, &[7])]),
            InvalidReplicaAssignment,
            "more than once",
        ),
        (
            assign(&[(0, &[7])]).with_num_partitions(1),
            InvalidRequest,
            "partition count",
        ),
        (
            assign(&[(0, &[7])]).with_replication_factor(1),
            InvalidRequest,
            "replication factor",
        ),
    ] {
        for validate_only in [true, false] {
            let request = to_create(vec![topic.clone()]).with_validate_only(validate_only);
            let result = create(&fixture, 7, request).await.remove(0);
            let message = result.error_message.unwrap_or_default();
            assert_eq!(result.error_code, code.code(), "{topic:?} {message}");
            assert!(message.contains(reason), "{topic:?}: {message}");
        }
    }
    let twice = to_create(vec![
        creatable("x", 1, 1),
        creatable("y", 1, 1),
        creatable("x", 1, 1),
    ]);
    let results = create(&fixture, 7, twice).await;
    let codes: Vec<_> = results
        .iter()
        .map(|r| (r.name.to_string(), r.error_code))
        .collect();
    assert_eq!(
        codes,
        [("x".into(), InvalidRequest.code()), ("y".into(), 0)]
    );
    assert!(fixture.broker.catalog.topic("x").is_none());

    let good = to_create(vec![assign(&[(1, &[7]), (0, &[7])])]);
    let result = create(&fixture, 7, good.clone().with_validate_only(true))
        .await
        .remove(0);
    assert_eq!((result.error_code, result.num_partitions), (0, 2));
    assert!(result.topic_id.is_nil() && fixture.broker.catalog.topic("x").is_none());
    assert_eq!(create(&fixture, 7, good).await[0].error_code, 0);
    assert_eq!(
        fixture.broker.catalog.topic("x").unwrap().partitions.len(),
        2
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_are_deleted_by_name_and_by_id() {
    let fixture = Fixture::start().await;
    let delete = async |version, request| {
        let reply = delete_topics::handle(&fixture.context(version), request).await;
        let responses = over_the_wire(reply, version).responses;
        responses
            .into_iter()
            .map(|r| (r.error_code, r.error_message))
            .collect::<Vec<_>>()
    };
    let unknown = ResponseError::UnknownTopicOrPartition.code();
    for version in 1..=5 {
        create_ordinary(&fixture, "a", 1).await;
        let names = vec![name("a"), name("nope")];
        let request = DeleteTopicsRequest::default().with_topic_names(names);
        let responses = delete(version, request).await;
        assert_eq!((responses[0].0, responses[1].0), (0, unknown));
        assert!(fixture.broker.catalog.topic("a").is_none());
    }
    let id = create_ordinary(&fixture, "a", 1).await;
    create_ordinary(&fixture, "b", 1).await;
    let model_topic = "fraud".to_owned();
    for (name, kind) in [
        (
            "scored",
            TopicKind::Derived {
                model_topic: model_topic.clone(),
            },
        ),
        ("scored.changelog", TopicKind::Changelog { model_topic }),
    ] {
        let new = NewTopic {
            name: name.into(),
            partitions: 1,
            configs: BTreeMap::new(),
            kind,
        };
        fixture.broker.catalog.create_topic(new).await.unwrap();
    }
    let by_name = |n: &str| DeleteTopicState::default().with_name(Some(name(n)));
    let by_id = |id| {
        DeleteTopicState::default()
            .with_name(None)
            .with_topic_id(id)
    };
    let request = DeleteTopicsRequest::default().with_topics(vec![
        by_id(id),
        by_id(Uuid::from_u128(77)),
        by_name("b"),
        by_name("scored.changelog"),
        by_name("b").with_topic_id(id),
        DeleteTopicState::default().with_name(None),
    ]);
    let responses = delete(6, request).await;
    let codes: Vec<_> = responses.iter().map(|(code, _)| *code).collect();
    let invalid = ResponseError::InvalidRequest.code();
    let unknown_id = ResponseError::UnknownTopicId.code();
    let policy = ResponseError::PolicyViolation.code();
    assert_eq!(codes, [0, unknown_id, 0, policy, invalid, invalid]);
    assert!(
        responses[3]
            .1
            .as_ref()
            .unwrap()
            .contains("model topic 'fraud'")
    );
    let left: Vec<_> = fixture
        .broker
        .catalog
        .topics()
        .iter()
        .map(|t| t.name.clone())
        .collect();
    assert_eq!(left, ["scored", "scored.changelog"]);
}

async fn describe(
    fixture: &Fixture,
    version: i16,
    resource_type: i8,
    resource_name: &str,
    keys: Option<&[&str]>,
) -> DescribeConfigsResult {
    let resource = DescribeConfigsResource::default()
        .with_resource_type(resource_type)
        .with_resource_name(text(resource_name))
        .with_configuration_keys(keys.map(|keys| keys.iter().map(|key| text(key)).collect()));
    let request = DescribeConfigsRequest::default()
        .with_resources(vec![resource])
        .with_include_synonyms(true)
        .with_include_documentation(version >= 3);
    let reply = describe_configs::handle(&fixture.context(version), request).await;
    over_the_wire(reply, version).results.remove(0)
}

fn entry<'a>(result: &'a DescribeConfigsResult, name: &str) -> &'a DescribeConfigsResourceResult {
    result
        .configs
        .iter()
        .find(|config| &*config.name == name)
        .unwrap()
}

fn synonyms(config: &DescribeConfigsResourceResult) -> Vec<(String, String, i8)> {
    let value = |value: &Option<StrBytes>| value.as_deref().unwrap_or("null").to_owned();
    config
        .synonyms
        .iter()
        .map(|s| (s.name.to_string(), value(&s.value), s.source))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topics_configs_come_with_source_type_and_synonyms() {
    let fixture = Fixture::start_with(|config| config.log.segment_ms = 5000).await;
    let topic = NewTopic {
        name: "t".into(),
        partitions: 1,
        configs: BTreeMap::from([("segment.ms".to_owned(), "1000".to_owned())]),
        kind: TopicKind::Ordinary,
    };
    fixture.broker.catalog.create_topic(topic).await.unwrap();
    for version in 1..=4 {
        let result = describe(&fixture, version, TOPIC, "t", None).await;
        assert_eq!(
            (result.error_code, result.error_message.as_deref()),
            (0, None)
        );
        let set = entry(&result, "segment.ms");
        assert_eq!((set.value.as_deref(), set.config_source), (Some("1000"), 1));
        assert_eq!(
            synonyms(set),
            [
                ("segment.ms".into(), "1000".into(), 1),
                ("log.roll.ms".into(), "5000".into(), 4)
            ]
        );
        let unset = entry(&result, "retention.ms");
        assert_eq!(
            (unset.value.as_deref(), unset.config_source),
            (Some("604800000"), 5)
        );
        if version >= 3 {
            let types: Vec<_> = [
                "preallocate",
                "compression.type",
                "segment.bytes",
                "cleanup.policy",
            ]
            .map(|name| entry(&result, name).config_type)
            .to_vec();
            assert_eq!(types, [1, 2, 3, 7]);
            assert!(
                set.documentation
                    .as_ref()
                    .is_some_and(|text| !text.is_empty())
            );
            for (name, acted_on) in [
                ("min.insync.replicas", false),
                ("delete.retention.ms", true),
            ] {
                let text = entry(&result, name).documentation.as_ref().unwrap();
                assert_eq!(!text.contains("does not act on it"), acted_on, "{text}");
            }
        }
    }
    let filtered = describe(&fixture, 4, TOPIC, "t", Some(&["segment.ms", "no.such"])).await;
    assert_eq!(filtered.configs.len(), 1);
    let all = describe(&fixture, 4, TOPIC, "t", Some(&[])).await;
    assert!(all.configs.len() > 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_brokers_configs_are_under_kafkas_names_and_topic_defaults_can_be_changed() {
    let fixture = Fixture::start_with(|config| config.log.segment_ms = 5000).await;
    let result = describe(&fixture, 4, BROKER, "7", None).await;
    assert_eq!(result.error_code, 0);
    assert!(result.configs.is_sorted_by(|a, b| a.name < b.name));
    assert!(!entry(&result, "log.roll.ms").read_only);
    assert!(entry(&result, "node.id").read_only);
    let values = [
        "node.id",
        "num.partitions",
        "log.roll.ms",
        "advertised.listeners",
    ]
    .map(|name| {
        (
            entry(&result, name).value.as_deref().unwrap(),
            entry(&result, name),
        )
    })
    .map(|(value, config)| (value.to_owned(), config.config_source));
    assert_eq!(
        values,
        [
            ("7".to_owned(), 4),
            ("3".to_owned(), 4),
            ("5000".to_owned(), 4),
            ("PLAINTEXT://broker.test:9092".to_owned(), 4)
        ]
    );
    assert_eq!(entry(&result, "log.retention.ms").config_source, 5);
    assert_eq!(
        describe(&fixture, 4, BROKER, "", None).await.configs.len(),
        0
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_no_configs_is_an_error_of_its_own() {
    let fixture = Fixture::start().await;
    use ResponseError::*;
    for (resource_type, name, code) in [
        (TOPIC, "nope", UnknownTopicOrPartition),
        (TOPIC, "not/a/name", InvalidTopicException),
        (BROKER, "8", InvalidRequest),
        (BROKER, "seven", InvalidRequest),
        (8, "7", InvalidRequest),
    ] {
        let result = describe(&fixture, 4, resource_type, name, None).await;
        assert_eq!(result.error_code, code.code(), "{resource_type} {name}");
        assert!(
            result
                .error_message
                .is_some_and(|message| !message.is_empty())
        );
    }
}
