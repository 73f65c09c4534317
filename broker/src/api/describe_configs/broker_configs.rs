//! This broker's settings under Kafka's names.

use super::{Config, Type, set_by_broker, topic_defaults};
use crate::Broker;
use crate::broker::Settings;
use crate::catalog::topic_config::ConfigSource;

/// Every config of the broker, sorted by name.
pub(super) fn broker_configs(broker: &Broker) -> Vec<Config> {
    let mut configs = settings(broker);
    configs.extend(identity(broker));
    configs.extend(fixed());
    configs.extend(topic_defaults(broker.catalog.defaults()));
    configs.sort_by_key(|config| config.name);
    configs
}

/// Name, type, value and documentation.
type Entry = (&'static str, Type, fn(&Settings) -> String, &'static str);

const SETTINGS: &[Entry] = &[
    (
        "auto.create.topics.enable",
        Type::Boolean,
        |s| s.auto_create_topics_enable.to_string(),
        "Create a topic when Metadata or Produce names one that does not exist.",
    ),
    (
        "connections.max.idle.ms",
        Type::Long,
        |s| s.connections_max_idle_ms.to_string(),
        "Idle connections are closed after this long, milliseconds.",
    ),
    (
        "fetch.max.bytes",
        Type::Int,
        |s| s.fetch_max_bytes.to_string(),
        "The largest response to one fetch, bytes.",
    ),
    (
        "group.initial.rebalance.delay.ms",
        Type::Int,
        |s| s.group_initial_rebalance_delay_ms.to_string(),
        "The first rebalance of an empty group waits this long for more members, milliseconds.",
    ),
    (
        "group.max.session.timeout.ms",
        Type::Int,
        |s| s.group_max_session_timeout_ms.to_string(),
        "The longest session timeout that a group's member may ask for, milliseconds.",
    ),
    (
        "group.max.size",
        Type::Int,
        |s| s.group_max_size.to_string(),
        "The largest number of members of a group.",
    ),
    (
        "group.min.session.timeout.ms",
        Type::Int,
        |s| s.group_min_session_timeout_ms.to_string(),
        "The shortest session timeout that a group's member may ask for, milliseconds.",
    ),
    (
        "max.connections",
        Type::Int,
        |s| s.max_connections.to_string(),
        "Connections open at the same time. One more is closed at once.",
    ),
    (
        "max.connections.per.ip",
        Type::Int,
        |s| s.max_connections_per_ip.to_string(),
        "Connections open at the same time from one address.",
    ),
    (
        "max.connections.per.ip.overrides",
        Type::String,
        |s| s.max_connections_per_ip_overrides.clone(),
        "Connections from some addresses: address:connections, separated by commas.",
    ),
    (
        "num.partitions",
        Type::Int,
        |s| s.num_partitions.to_string(),
        "Partitions of a topic that does not say.",
    ),
    (
        "offset.metadata.max.bytes",
        Type::Int,
        |s| s.offset_metadata_max_bytes.to_string(),
        "The longest metadata of an offset commit, bytes.",
    ),
    (
        "offsets.topic.num.partitions",
        Type::Int,
        |s| s.offsets_topic_num_partitions.to_string(),
        "Partitions of __consumer_offsets, which is created at its first use.",
    ),
    (
        "socket.request.max.bytes",
        Type::Int,
        |s| s.socket_request_max_bytes.to_string(),
        "The largest request, bytes. A larger one closes the connection.",
    ),
];

/// What may be set.
fn settings(broker: &Broker) -> Vec<Config> {
    let defaults = crate::config::Config::default();
    let default_expiration_ms = defaults.broker.producer_id_expiration_ms;
    let defaults = defaults.settings();
    let expiration_ms = broker.catalog.defaults().producer_id_expiration_ms();
    let mut configs: Vec<_> = SETTINGS
        .iter()
        .map(|(name, kind, value, documentation)| {
            setting(
                name,
                *kind,
                &value(&broker.settings),
                &value(&defaults),
                documentation,
            )
        })
        .collect();
    configs.push(setting(
        "producer.id.expiration.ms",
        Type::Long,
        &expiration_ms.to_string(),
        &default_expiration_ms.to_string(),
        "A partition forgets a producer that has been idle this long, milliseconds.",
    ));
    configs
}

/// What has no default.
fn identity(broker: &Broker) -> Vec<Config> {
    let (host, port) = &broker.advertised;
    let folder = broker.catalog.data_folder().display().to_string();
    let given = |name, kind, value: String, documentation: &str| Config {
        name,
        kind,
        read_only: true,
        documentation: documentation.to_owned(),
        set: vec![(name, value, ConfigSource::BrokerFile)],
    };
    vec![
        given(
            "advertised.listeners",
            Type::List,
            format!("PLAINTEXT://{host}:{port}"),
            "The address that clients are told.",
        ),
        given("log.dirs", Type::List, folder, "The data folder."),
        given(
            "node.id",
            Type::Int,
            broker.node_id.to_string(),
            "This broker's id.",
        ),
    ]
}

/// What follows from there being one broker, which has no replicas.
fn fixed() -> Vec<Config> {
    const REPLICATION: &str = "There is one broker, and every partition has one replica.";
    [
        ("default.replication.factor", Type::Int, "1", REPLICATION),
        (
            "delete.topic.enable",
            Type::Boolean,
            "true",
            "Topics can be deleted.",
        ),
        (
            "offsets.topic.replication.factor",
            Type::Int,
            "1",
            REPLICATION,
        ),
    ]
    .into_iter()
    .map(|(name, kind, value, documentation)| setting(name, kind, value, value, documentation))
    .collect()
}

/// A value that differs from the default was set in the broker's file.
fn setting(
    name: &'static str,
    kind: Type,
    value: &str,
    default: &str,
    documentation: &str,
) -> Config {
    let in_file = Some(value).filter(|value| *value != default);
    Config {
        name,
        kind,
        read_only: true,
        documentation: documentation.to_owned(),
        set: set_by_broker(name, in_file, default).collect(),
    }
}
