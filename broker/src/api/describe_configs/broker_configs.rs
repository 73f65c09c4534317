//! This broker's settings under Kafka's names.

use super::{Config, Type, set_by_broker, topic_defaults};
use crate::Broker;
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

/// What may be set, each with its default.
fn settings(broker: &Broker) -> Vec<Config> {
    let settings = &broker.settings;
    let expiration_ms = broker.catalog.defaults().producer_id_expiration_ms();
    vec![
        setting(
            "auto.create.topics.enable",
            Type::Boolean,
            settings.auto_create_topics_enable.to_string(),
            "true",
            "Create a topic when Metadata or Produce names one that does not exist.",
        ),
        setting(
            "connections.max.idle.ms",
            Type::Long,
            settings.connections_max_idle_ms.to_string(),
            "600000",
            "Idle connections are closed after this long, milliseconds.",
        ),
        setting(
            "fetch.max.bytes",
            Type::Int,
            settings.fetch_max_bytes.to_string(),
            "57671680",
            "The largest response to one fetch, bytes.",
        ),
        setting(
            "group.initial.rebalance.delay.ms",
            Type::Int,
            settings.group_initial_rebalance_delay_ms.to_string(),
            "3000",
            "The first rebalance of an empty group waits this long for more members, milliseconds.",
        ),
        setting(
            "group.max.session.timeout.ms",
            Type::Int,
            settings.group_max_session_timeout_ms.to_string(),
            "1800000",
            "The longest session timeout that a group's member may ask for, milliseconds.",
        ),
        setting(
            "group.max.size",
            Type::Int,
            settings.group_max_size.to_string(),
            "2147483647",
            "The largest number of members of a group.",
        ),
        setting(
            "group.min.session.timeout.ms",
            Type::Int,
            settings.group_min_session_timeout_ms.to_string(),
            "6000",
            "The shortest session timeout that a group's member may ask for, milliseconds.",
        ),
        setting(
            "num.partitions",
            Type::Int,
            settings.num_partitions.to_string(),
            "1",
            "Partitions of a topic that does not say.",
        ),
        setting(
            "offset.metadata.max.bytes",
            Type::Int,
            settings.offset_metadata_max_bytes.to_string(),
            "4096",
            "The longest metadata of an offset commit, bytes.",
        ),
        setting(
            "offsets.topic.num.partitions",
            Type::Int,
            settings.offsets_topic_num_partitions.to_string(),
            "8",
            "Partitions of __consumer_offsets, which is created at its first use.",
        ),
        setting(
            "producer.id.expiration.ms",
            Type::Long,
            expiration_ms.to_string(),
            "86400000",
            "A partition forgets a producer that has been idle this long, milliseconds.",
        ),
        setting(
            "socket.request.max.bytes",
            Type::Int,
            settings.socket_request_max_bytes.to_string(),
            "104857600",
            "The largest request, bytes. A larger one closes the connection.",
        ),
    ]
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
    .map(|(name, kind, value, documentation)| {
        setting(name, kind, value.to_owned(), value, documentation)
    })
    .collect()
}

/// A value that differs from the default was set in the broker's file.
fn setting(
    name: &'static str,
    kind: Type,
    value: String,
    default: &'static str,
    documentation: &'static str,
) -> Config {
    let in_file = Some(value.as_str()).filter(|value| *value != default);
    Config {
        name,
        kind,
        read_only: true,
        documentation: documentation.to_owned(),
        set: set_by_broker(name, in_file, default).collect(),
    }
}
