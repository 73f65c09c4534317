//! AlterConfigs, IncrementalAlterConfigs, DescribeConfigs and ListConfigResources: configs change at
//! once, for good, and are shown with where they come from.

use std::collections::BTreeMap;

use broker::catalog::{NewTopic, TopicKind};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult,
};
use kafka_protocol::messages::{
    AlterConfigsRequest, DescribeConfigsRequest, IncrementalAlterConfigsRequest,
    ListConfigResourcesRequest, alter_configs_request, incremental_alter_configs_request,
};

use storage::batch::{BatchBuilder, Compression};

use super::client::{Client, Served, config};
use super::partitions::{append, batch, create, produce, text};

const TOPIC: i8 = 2;
const BROKER: i8 = 4;
const BROKER_LOGGER: i8 = 8;
const CLIENT_METRICS: i8 = 16;
const GROUP: i8 = 32;

const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

/// Every topic config that Kafka 4.3's `kafka-configs --describe --all` lists.
const KAFKAS_TOPIC_CONFIGS: &[&str] = &[
    "cleanup.policy",
    "compression.gzip.level",
    "compression.lz4.level",
    "compression.type",
    "compression.zstd.level",
    "delete.retention.ms",
    "file.delete.delay.ms",
    "flush.messages",
    "flush.ms",
    "follower.replication.throttled.replicas",
    "index.interval.bytes",
    "leader.replication.throttled.replicas",
    "local.retention.bytes",
    "local.retention.ms",
    "max.compaction.lag.ms",
    "max.message.bytes",
    "message.timestamp.after.max.ms",
    "message.timestamp.before.max.ms",
    "message.timestamp.type",
    "min.cleanable.dirty.ratio",
    "min.compaction.lag.ms",
    "min.insync.replicas",
    "preallocate",
    "remote.log.copy.disable",
    "remote.log.delete.on.disable",
    "remote.storage.enable",
    "retention.bytes",
    "retention.ms",
    "segment.bytes",
    "segment.index.bytes",
    "segment.jitter.ms",
    "segment.ms",
    "unclean.leader.election.enable",
];

type Resource = incremental_alter_configs_request::AlterConfigsResource;

/// One change of each config: its name, the operation, the value.
fn change(of: i8, name: &str, changes: &[(&str, i8, Option<&str>)]) -> Resource {
    let config = |(name, operation, value): &(&str, i8, Option<&str>)| {
        incremental_alter_configs_request::AlterableConfig::default()
            .with_name(text(name))
            .with_config_operation(*operation)
            .with_value(value.map(text))
    };
    Resource::default()
        .with_resource_type(of)
        .with_resource_name(text(name))
        .with_configs(changes.iter().map(config).collect())
}

fn alter_all(client: &mut Client, resources: Vec<Resource>, check: bool) -> Vec<(i16, String)> {
    let request = IncrementalAlterConfigsRequest::default()
        .with_resources(resources)
        .with_validate_only(check);
    let responses = client.call(1, &request).responses.into_iter();
    responses
        .map(|r| {
            let message = r.error_message.map_or(String::new(), |m| m.to_string());
            (r.error_code, message)
        })
        .collect()
}

fn alter(client: &mut Client, of: i8, name: &str, changes: &[(&str, i8, &str)]) -> (i16, String) {
    let changes: Vec<_> = changes
        .iter()
        .map(|(name, operation, value)| (*name, *operation, Some(*value)))
        .collect();
    alter_all(client, vec![change(of, name, &changes)], false).remove(0)
}

fn altered(client: &mut Client, of: i8, name: &str, changes: &[(&str, i8, &str)]) {
    let answer = alter(client, of, name, changes);
    assert_eq!(answer, (0, String::new()), "{changes:?}");
}

/// AlterConfigs: replaces all.
fn replace(client: &mut Client, of: i8, name: &str, configs: &[(&str, &str)]) -> (i16, String) {
    let config = |(name, value): &(&str, &str)| {
        alter_configs_request::AlterableConfig::default()
            .with_name(text(name))
            .with_value(Some(text(value)))
    };
    let resource = alter_configs_request::AlterConfigsResource::default()
        .with_resource_type(of)
        .with_resource_name(text(name))
        .with_configs(configs.iter().map(config).collect());
    let request = AlterConfigsRequest::default().with_resources(vec![resource]);
    let answer = client.call(2, &request).responses.remove(0);
    let message = answer
        .error_message
        .map_or(String::new(), |m| m.to_string());
    (answer.error_code, message)
}

fn describe_result(
    client: &mut Client,
    of: i8,
    name: &str,
    keys: Option<&[&str]>,
) -> DescribeConfigsResult {
    let resource = DescribeConfigsResource::default()
        .with_resource_type(of)
        .with_resource_name(text(name))
        .with_configuration_keys(keys.map(|keys| keys.iter().map(|key| text(key)).collect()));
    let request = DescribeConfigsRequest::default()
        .with_resources(vec![resource])
        .with_include_synonyms(true)
        .with_include_documentation(true);
    client.call(4, &request).results.remove(0)
}

type Described = BTreeMap<String, DescribeConfigsResourceResult>;

fn describe(client: &mut Client, of: i8, name: &str) -> Described {
    let result = describe_result(client, of, name, None);
    assert_eq!(result.error_code, 0, "{:?}", result.error_message);
    let configs = result.configs.into_iter();
    configs
        .map(|config| (config.name.to_string(), config))
        .collect()
}

fn value<'a>(described: &'a Described, key: &str) -> (&'a str, i8) {
    let config = &described[key];
    (
        config.value.as_deref().unwrap_or("null"),
        config.config_source,
    )
}

fn synonyms(described: &Described, key: &str) -> Vec<(String, String, i8)> {
    let synonyms = described[key].synonyms.iter();
    synonyms
        .map(|s| {
            let value = s.value.as_deref().unwrap_or("null");
            (s.name.to_string(), value.to_owned(), s.source)
        })
        .collect()
}

fn synonym(name: &str, value: &str, source: i8) -> (String, String, i8) {
    (name.to_owned(), value.to_owned(), source)
}

#[test]
fn describe_configs_lists_every_topic_config_that_kafka_has_with_all_that_tools_read() {
    let served = Served::start();
    let mut client = served.connect();
    create(&mut client, "t", 1);
    let described = describe(&mut client, TOPIC, "t");
    for key in KAFKAS_TOPIC_CONFIGS {
        let config = described
            .get(*key)
            .unwrap_or_else(|| panic!("{key} is missing"));
        assert!(config.value.is_some(), "{key}");
        assert_eq!(config.config_source, 5, "{key}");
        assert!((1..=7).contains(&config.config_type), "{key}");
        assert!(!config.read_only && !config.is_sensitive, "{key}");
        let documentation = config.documentation.as_deref().unwrap_or_default();
        assert!(documentation.len() > 10, "{key}: {documentation:?}");
    }
    let own: Vec<_> = described
        .keys()
        .filter(|key| !KAFKAS_TOPIC_CONFIGS.contains(&key.as_str()))
        .collect();
    assert_eq!(
        own,
        ["milena.acks.all.durability", "milena.acks.one.durability"]
    );
    assert_eq!(
        synonyms(&described, "max.message.bytes"),
        [synonym("message.max.bytes", "1048588", 5)]
    );
    // As in Kafka: the default follows from log.retention.hours.
    assert_eq!(value(&described, "retention.ms"), ("604800000", 5));
    assert_eq!(synonyms(&described, "retention.ms"), []);
}

#[test]
fn describe_configs_of_the_broker_is_not_empty_and_every_config_has_its_kind() {
    let served = Served::start();
    let mut client = served.connect();
    let described = describe(&mut client, BROKER, "0");
    assert!(described.len() >= 60, "{}", described.len());
    for (key, config) in &described {
        assert!((1..=7).contains(&config.config_type), "{key}");
        let documentation = config.documentation.as_deref().unwrap_or_default();
        assert!(documentation.len() > 10, "{key}: {documentation:?}");
    }
    for (key, expected, read_only) in [
        ("node.id", ("0", 4), true),
        ("num.partitions", ("1", 5), true),
        ("message.max.bytes", ("1048588", 5), false),
        ("log.retention.hours", ("168", 5), true),
        ("log.retention.ms", ("null", 5), false),
        ("auto.create.topics.enable", ("true", 5), true),
    ] {
        assert_eq!(value(&described, key), expected, "{key}");
        assert_eq!(described[key].read_only, read_only, "{key}");
    }
    assert_eq!(describe(&mut client, BROKER, "").len(), 0);
    // Names filter; those that nobody knows are skipped.
    let keys: &[&str] = &["node.id", "no.such.config"];
    let filtered = describe_result(&mut client, BROKER, "0", Some(keys));
    let names: Vec<_> = filtered
        .configs
        .iter()
        .map(|c| c.name.to_string())
        .collect();
    assert_eq!(names, ["node.id"]);

    let invalid = ResponseError::InvalidRequest.code();
    for (of, name) in [
        (BROKER, "7"),
        (BROKER, "me"),
        (BROKER_LOGGER, "0"),
        (99, "x"),
    ] {
        let refused = describe_result(&mut client, of, name, None);
        assert_eq!(refused.error_code, invalid, "{of} {name}");
    }
    for of in [CLIENT_METRICS, GROUP] {
        assert_eq!(describe(&mut client, of, "x").len(), 0);
    }
    let unknown = describe_result(&mut client, TOPIC, "nobody", None);
    let code = ResponseError::UnknownTopicOrPartition.code();
    assert_eq!(unknown.error_code, code);
}

#[test]
fn a_topics_configs_are_in_force_for_the_next_batch_and_after_a_restart() {
    let served = Served::start();
    let mut client = served.connect();
    create(&mut client, "t", 1);
    let large = || batch(Some(b"k"), 0, &[b'x'; 2000]);
    assert_eq!(produce(&mut client, "t", 0, large()).0, 0);

    altered(
        &mut client,
        TOPIC,
        "t",
        &[("max.message.bytes", SET, "1000")],
    );
    let too_large = ResponseError::MessageTooLarge.code();
    assert_eq!(produce(&mut client, "t", 0, large()).0, too_large);
    altered(
        &mut client,
        TOPIC,
        "t",
        &[("cleanup.policy", APPEND, "compact")],
    );
    let (code, message) = produce(&mut client, "t", 0, batch(None, 0, b"no key"));
    assert_eq!(code, ResponseError::InvalidRecord.code(), "{message}");

    let check = |client: &mut Client| {
        let described = describe(client, TOPIC, "t");
        assert_eq!(value(&described, "max.message.bytes"), ("1000", 1));
        assert_eq!(value(&described, "cleanup.policy"), ("delete,compact", 1));
        assert_eq!(
            synonyms(&described, "max.message.bytes"),
            [
                synonym("max.message.bytes", "1000", 1),
                synonym("message.max.bytes", "1048588", 5)
            ]
        );
        assert_eq!(produce(client, "t", 0, large()).0, too_large);
    };
    check(&mut client);
    let folder = served.stop();
    let config = config(&folder);
    let served = Served::start_in(folder, config);
    let mut client = served.connect();
    check(&mut client);

    let back: &[_] = &[
        ("max.message.bytes", DELETE, ""),
        ("cleanup.policy", SUBTRACT, "compact"),
    ];
    altered(&mut client, TOPIC, "t", back);
    assert_eq!(produce(&mut client, "t", 0, large()).0, 0);
    assert_eq!(produce(&mut client, "t", 0, batch(None, 0, b"no key")).0, 0);
    let described = describe(&mut client, TOPIC, "t");
    assert_eq!(value(&described, "max.message.bytes"), ("1048588", 5));
    assert_eq!(value(&described, "cleanup.policy"), ("delete", 1));
}

#[test]
fn alter_configs_replaces_all_that_was_set() {
    let served = Served::start();
    let mut client = served.connect();
    create(&mut client, "t", 1);
    let both: &[_] = &[("retention.ms", SET, "5"), ("segment.ms", SET, "7")];
    altered(&mut client, TOPIC, "t", both);
    let answer = replace(&mut client, TOPIC, "t", &[("segment.ms", "8")]);
    assert_eq!(answer, (0, String::new()));
    let described = describe(&mut client, TOPIC, "t");
    assert_eq!(value(&described, "segment.ms"), ("8", 1));
    assert_eq!(value(&described, "retention.ms"), ("604800000", 5));
    let (code, message) = replace(&mut client, TOPIC, "t", &[("segment.ms", "0")]);
    assert_eq!(code, ResponseError::InvalidConfig.code(), "{message}");
    assert_eq!(
        value(&describe(&mut client, TOPIC, "t"), "segment.ms"),
        ("8", 1)
    );
}

#[test]
fn changes_that_are_refused_name_the_config_and_change_nothing() {
    let served = Served::start();
    let mut client = served.connect();
    create(&mut client, "t", 1);
    let before = describe(&mut client, TOPIC, "t");
    use ResponseError::*;
    for (resource, code, reason) in [
        (
            change(TOPIC, "t", &[("retention.ms", SET, Some("soon"))]),
            InvalidConfig,
            "retention.ms = \"soon\"",
        ),
        (
            change(
                TOPIC,
                "t",
                &[("segment.ms", SET, Some("1")), ("x", SET, Some("1"))],
            ),
            InvalidConfig,
            "unknown topic config",
        ),
        (
            change(TOPIC, "t", &[("retention.ms", APPEND, Some("1"))]),
            InvalidConfig,
            "retention.ms",
        ),
        (
            change(TOPIC, "t", &[("cleanup.policy", APPEND, Some("shred"))]),
            InvalidConfig,
            "shred",
        ),
        (
            change(TOPIC, "t", &[("remote.storage.enable", SET, Some("true"))]),
            InvalidConfig,
            "remote.storage.enable",
        ),
        (
            change(
                TOPIC,
                "t",
                &[("leader.replication.throttled.replicas", SET, Some("all"))],
            ),
            InvalidConfig,
            "partition:broker",
        ),
        (
            change(TOPIC, "t", &[("retention.ms", SET, None)]),
            InvalidRequest,
            "retention.ms has no value",
        ),
        (
            change(TOPIC, "t", &[("retention.ms", 9, Some("1"))]),
            InvalidRequest,
            "unknown operation 9",
        ),
        (
            change(
                TOPIC,
                "t",
                &[("segment.ms", SET, Some("1")), ("segment.ms", DELETE, None)],
            ),
            InvalidRequest,
            "segment.ms is in the request twice",
        ),
        (
            change(TOPIC, "nobody", &[("retention.ms", SET, Some("1"))]),
            UnknownTopicOrPartition,
            "nobody",
        ),
        (
            change(TOPIC, "no/name", &[]),
            InvalidTopicException,
            "no/name",
        ),
        (
            change(BROKER, "0", &[("num.partitions", SET, Some("5"))]),
            InvalidRequest,
            "Cannot update these configs dynamically: num.partitions",
        ),
        (
            change(BROKER, "0", &[("message.max.bytes", SET, Some("many"))]),
            InvalidRequest,
            "message.max.bytes",
        ),
        (change(BROKER, "1", &[]), InvalidRequest, "broker 0"),
        (
            change(BROKER_LOGGER, "0", &[]),
            InvalidRequest,
            "MILENA_LOG",
        ),
        (
            change(CLIENT_METRICS, "x", &[]),
            InvalidRequest,
            "client metrics",
        ),
        (change(GROUP, "g", &[]), InvalidRequest, "groups"),
        (change(77, "x", &[]), InvalidRequest, "77"),
    ] {
        for check in [true, false] {
            let (found, message) = alter_all(&mut client, vec![resource.clone()], check).remove(0);
            assert_eq!(found, code.code(), "{resource:?}: {message}");
            assert!(message.contains(reason), "{message}");
        }
    }
    let good = change(TOPIC, "t", &[("segment.ms", SET, Some("1"))]);
    let other = change(BROKER, "0", &[("message.max.bytes", SET, Some("9"))]);
    let twice = alter_all(&mut client, vec![good.clone(), good.clone()], false);
    assert_eq!(twice.len(), 1);
    assert_eq!(twice[0].0, InvalidRequest.code());
    // Checked is not changed.
    let checked = alter_all(&mut client, vec![good, other], true);
    assert_eq!(checked, [(0, String::new()), (0, String::new())]);
    assert_eq!(describe(&mut client, TOPIC, "t"), before);
}

#[test]
fn the_brokers_defaults_change_at_once_for_topics_that_do_not_say() {
    let served = Served::start_with(|config| config.log.max_message_bytes = 900_000);
    let mut client = served.connect();
    create(&mut client, "t", 1);
    create(&mut client, "says", 1);
    altered(
        &mut client,
        TOPIC,
        "says",
        &[("max.message.bytes", SET, "5000")],
    );
    let large = || batch(None, 0, &[b'x'; 2000]);
    let too_large = ResponseError::MessageTooLarge.code();

    altered(
        &mut client,
        BROKER,
        "",
        &[("message.max.bytes", SET, "1000")],
    );
    assert_eq!(produce(&mut client, "t", 0, large()).0, too_large);
    assert_eq!(produce(&mut client, "says", 0, large()).0, 0);
    // A topic that is created later has it, too.
    create(&mut client, "later", 1);
    assert_eq!(produce(&mut client, "later", 0, large()).0, too_large);
    assert_eq!(
        value(&describe(&mut client, BROKER, ""), "message.max.bytes"),
        ("1000", 3)
    );
    assert_eq!(
        value(&describe(&mut client, TOPIC, "t"), "max.message.bytes"),
        ("1000", 3)
    );

    altered(
        &mut client,
        BROKER,
        "0",
        &[("message.max.bytes", SET, "3000")],
    );
    let check = |client: &mut Client| {
        assert_eq!(produce(client, "t", 0, large()).0, 0);
        let places = [
            synonym("message.max.bytes", "3000", 2),
            synonym("message.max.bytes", "1000", 3),
            synonym("message.max.bytes", "900000", 4),
            synonym("message.max.bytes", "1048588", 5),
        ];
        let of_topic = describe(client, TOPIC, "t");
        assert_eq!(value(&of_topic, "max.message.bytes"), ("3000", 2));
        assert_eq!(synonyms(&of_topic, "max.message.bytes"), places);
        let of_broker = describe(client, BROKER, "0");
        assert_eq!(value(&of_broker, "message.max.bytes"), ("3000", 2));
        assert_eq!(synonyms(&of_broker, "message.max.bytes"), places);
        let of_cluster = describe(client, BROKER, "");
        assert_eq!(synonyms(&of_cluster, "message.max.bytes"), places[1..2]);
    };
    check(&mut client);
    let folder = served.stop();
    let mut config = config(&folder);
    config.log.max_message_bytes = 900_000;
    let served = Served::start_in(folder, config);
    let mut client = served.connect();
    check(&mut client);

    altered(
        &mut client,
        BROKER,
        "0",
        &[("message.max.bytes", DELETE, "")],
    );
    assert_eq!(produce(&mut client, "t", 0, large()).0, too_large);
    assert_eq!(replace(&mut client, BROKER, "", &[]), (0, String::new()));
    assert_eq!(produce(&mut client, "t", 0, large()).0, 0);
    let described = describe(&mut client, TOPIC, "t");
    assert_eq!(value(&described, "max.message.bytes"), ("900000", 4));
}

#[test]
fn what_the_broker_writes_itself_keeps_what_its_writer_depends_on() {
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
            "m.changelog",
            TopicKind::Changelog {
                model_topic: "m".into(),
            },
        ),
    ];
    for (name, kind) in kinds.clone() {
        served.create_topic(NewTopic {
            name: name.into(),
            partitions: 1,
            configs: Default::default(),
            kind,
        });
    }
    let mut client = served.connect();
    // The broker's default is for clients' topics.
    altered(
        &mut client,
        BROKER,
        "",
        &[("log.cleanup.policy", SET, "compact")],
    );
    let forbidden = ResponseError::PolicyViolation.code();
    for (name, _) in kinds {
        altered(&mut client, TOPIC, name, &[("retention.ms", SET, "1000")]);
        for (key, new) in [
            ("cleanup.policy", "compact"),
            ("message.timestamp.type", "LogAppendTime"),
            ("milena.acks.all.durability", "page_cache"),
        ] {
            let (code, message) = alter(&mut client, TOPIC, name, &[(key, SET, new)]);
            assert_eq!(code, forbidden, "{name} {key}: {message}");
            assert!(message.contains(key) && message.contains(name), "{message}");
        }
        let described = describe(&mut client, TOPIC, name);
        assert_eq!(value(&described, "retention.ms"), ("1000", 1));
        assert_eq!(value(&described, "cleanup.policy"), ("delete", 5), "{name}");
    }
}

#[test]
fn a_timestamp_too_far_from_the_brokers_clock_is_refused_with_its_record() {
    let served = Served::start();
    let mut client = served.connect();
    create(&mut client, "t", 1);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now_ms = i64::try_from(now.expect("a clock").as_millis()).expect("a time");
    let two = |second_ms: i64| {
        let mut batch = BatchBuilder::new(Compression::None);
        batch.push(now_ms, None, Some(b"now"), &[]);
        batch.push(second_ms, None, Some(b"then"), &[]);
        batch.build()
    };
    let hour_ms = 60 * 60 * 1000;
    let invalid = ResponseError::InvalidTimestamp.code();
    // Tomorrow is too far by default, however long ago is not.
    let refused = append(&mut client, "t", 0, two(now_ms + 24 * hour_ms));
    assert_eq!((refused.error_code, refused.base_offset), (invalid, -1));
    assert_eq!(refused.record_errors.len(), 1);
    assert_eq!(refused.record_errors[0].batch_index, 1);
    assert_eq!(append(&mut client, "t", 0, two(0)).error_code, 0);

    let bound = [("message.timestamp.before.max.ms", SET, "7200000")];
    altered(&mut client, TOPIC, "t", &bound);
    assert_eq!(
        append(&mut client, "t", 0, two(now_ms - 3 * hour_ms)).error_code,
        invalid
    );
    assert_eq!(
        append(&mut client, "t", 0, two(now_ms - hour_ms)).error_code,
        0
    );
    // Where the broker sets the time, the producer's does not matter.
    let own = [("message.timestamp.type", SET, "LogAppendTime")];
    altered(&mut client, TOPIC, "t", &own);
    let appended = append(&mut client, "t", 0, two(0));
    assert_eq!(appended.error_code, 0);
    assert!(appended.log_append_time_ms >= now_ms);
    // A record without a key on a compacted topic is named as well.
    altered(
        &mut client,
        TOPIC,
        "t",
        &[("cleanup.policy", SET, "compact")],
    );
    let refused = append(&mut client, "t", 0, two(now_ms));
    assert_eq!(refused.error_code, ResponseError::InvalidRecord.code());
    assert_eq!(refused.record_errors[0].batch_index, 0);
}

#[test]
fn the_limits_of_connections_change_while_the_broker_runs_and_stay_changed() {
    let served = Served::start();
    let mut client = served.connect();
    altered(
        &mut client,
        BROKER,
        "",
        &[("max.connections.per.ip", SET, "1")],
    );
    assert_eq!(
        synonyms(
            &describe(&mut client, BROKER, "0"),
            "max.connections.per.ip"
        ),
        [
            synonym("max.connections.per.ip", "1", 3),
            synonym("max.connections.per.ip", "2147483647", 5)
        ]
    );
    served.connect().assert_closed();
    // This node's own goes before the cluster's default.
    altered(
        &mut client,
        BROKER,
        "0",
        &[("max.connections.per.ip", SET, "5")],
    );
    create(&mut served.connect(), "t", 1);
    altered(
        &mut client,
        BROKER,
        "0",
        &[("max.connections.per.ip", DELETE, "")],
    );
    drop(client);

    let folder = served.stop();
    let config = config(&folder);
    let served = Served::start_in(folder, config);
    let mut client = served.connect();
    let described = describe(&mut client, BROKER, "");
    assert_eq!(value(&described, "max.connections.per.ip"), ("1", 3));
    served.connect().assert_closed();
    let none = [("max.connections", SET, "0")];
    let (code, message) = alter(&mut client, BROKER, "0", &none);
    assert_eq!(code, ResponseError::InvalidRequest.code(), "{message}");
}

#[test]
fn what_compaction_obeys_is_described_as_kafka_does_and_changes_while_the_broker_runs() {
    let served = Served::start_with(|config| config.log.cleaner_threads = 2);
    let mut client = served.connect();
    let described = describe(&mut client, BROKER, "0");
    for (name, expected, source) in [
        ("log.cleaner.backoff.ms", "15000", 5),
        ("log.cleaner.dedupe.buffer.size", "134217728", 5),
        ("log.cleaner.delete.retention.ms", "86400000", 5),
        ("log.cleaner.enable", "true", 5),
        ("log.cleaner.io.buffer.load.factor", "0.9", 5),
        ("log.cleaner.io.buffer.size", "524288", 5),
        (
            "log.cleaner.io.max.bytes.per.second",
            "1.7976931348623157E308",
            5,
        ),
        (
            "log.cleaner.max.compaction.lag.ms",
            "9223372036854775807",
            5,
        ),
        ("log.cleaner.min.cleanable.ratio", "0.5", 5),
        ("log.cleaner.min.compaction.lag.ms", "0", 5),
        ("log.cleaner.threads", "2", 4),
        ("log.cleanup.policy", "delete", 5),
    ] {
        assert_eq!(value(&described, name), (expected, source), "{name}");
    }
    let set = [
        ("log.cleaner.threads", SET, "3"),
        ("log.cleaner.io.max.bytes.per.second", SET, "1.5e6"),
    ];
    altered(&mut client, BROKER, "", &set);
    assert_eq!(
        synonyms(&describe(&mut client, BROKER, "0"), "log.cleaner.threads"),
        [
            synonym("log.cleaner.threads", "3", 3),
            synonym("log.cleaner.threads", "2", 4),
            synonym("log.cleaner.threads", "1", 5)
        ]
    );
    for (name, refused, reason) in [
        ("log.cleaner.threads", "0", "at least 1"),
        (
            "log.cleaner.dedupe.buffer.size",
            "1048575",
            "at least 1048576",
        ),
        (
            "log.cleaner.io.buffer.load.factor",
            "0",
            "between 0.01 and 1",
        ),
        ("log.cleaner.io.max.bytes.per.second", "fast", "a number"),
        ("log.cleaner.backoff.ms", "-1", "at least 0"),
    ] {
        let (code, message) = alter(&mut client, BROKER, "0", &[(name, SET, refused)]);
        assert_eq!(code, ResponseError::InvalidRequest.code(), "{message}");
        for part in [name, refused, reason] {
            assert!(message.contains(part), "{message}");
        }
    }
    // Kafka does not change this one either.
    let enable = [("log.cleaner.enable", SET, "false")];
    let (code, message) = alter(&mut client, BROKER, "0", &enable);
    assert_eq!(code, ResponseError::InvalidRequest.code(), "{message}");
}

#[test]
fn resources_with_configs_are_listed_by_type() {
    let served = Served::start();
    let mut client = served.connect();
    create(&mut client, "t", 1);
    let mut list = |version, types: &[i8]| {
        let request = ListConfigResourcesRequest::default().with_resource_types(types.to_vec());
        let response = client.call(version, &request);
        let listed = response.config_resources.into_iter();
        let listed = listed.map(|r| (r.resource_type, r.resource_name.to_string()));
        (response.error_code, listed.collect::<Vec<_>>())
    };
    let (topic, broker) = ((TOPIC, "t".to_owned()), (BROKER, "0".to_owned()));
    assert_eq!(list(0, &[]), (0, vec![]));
    assert_eq!(list(1, &[]), (0, vec![topic.clone(), broker.clone()]));
    assert_eq!(list(1, &[BROKER, TOPIC, TOPIC]), (0, vec![topic, broker]));
    assert_eq!(
        list(1, &[GROUP, CLIENT_METRICS, BROKER_LOGGER]),
        (0, vec![])
    );
    let unsupported = ResponseError::UnsupportedVersion.code();
    assert_eq!(list(1, &[TOPIC, 77]), (unsupported, vec![]));
}
