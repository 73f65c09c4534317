//! This broker's settings under Kafka's names.

use super::{Config, Place, Type, topic_defaults};
use crate::Broker;
use crate::broker::Settings;
use crate::catalog::broker_config::{BrokerConfigs, dynamic_kind};
use crate::catalog::topic_config::ConfigSource;
use crate::cleaner_config::{self as cleaner, java_double};

/// Every config of the broker, sorted by name.
pub(super) fn broker_configs(broker: &Broker) -> Vec<Config> {
    let mut configs = settings(broker);
    configs.extend(identity(broker));
    configs.extend(fixed());
    configs.extend(topic_defaults(&broker.catalog.defaults()));
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
        "listeners",
        Type::List,
        |s| format!("PLAINTEXT://{}", s.listen),
        "Where clients connect.",
    ),
    (
        cleaner::BACKOFF_MS,
        Type::Long,
        |s| s.cleaner.backoff_ms.to_string(),
        "How long a thread that has found nothing to compact waits until it looks again, milliseconds.",
    ),
    (
        cleaner::DEDUPE_BUFFER_SIZE,
        Type::Long,
        |s| s.cleaner.dedupe_buffer_size.to_string(),
        "What compaction remembers keys in, over all its threads, bytes. What does not fit is left for \
         the next pass.",
    ),
    (
        "log.cleaner.enable",
        Type::Boolean,
        |s| s.cleaner.enable.to_string(),
        "Whether topics whose cleanup.policy contains \"compact\" are compacted.",
    ),
    (
        cleaner::IO_BUFFER_LOAD_FACTOR,
        Type::Double,
        |s| java_double(s.cleaner.io_buffer_load_factor),
        "How full what compaction remembers keys in gets.",
    ),
    (
        cleaner::IO_BUFFER_SIZE,
        Type::Int,
        |s| s.cleaner.io_buffer_size.to_string(),
        "What compaction reads and writes with, over all its threads, bytes.",
    ),
    (
        cleaner::IO_MAX_BYTES_PER_SECOND,
        Type::Double,
        |s| java_double(s.cleaner.io_max_bytes_per_second),
        "What compaction reads and writes at most, over all its threads, bytes per second.",
    ),
    (
        cleaner::THREADS,
        Type::Int,
        |s| s.cleaner.threads.to_string(),
        "Threads that compact logs.",
    ),
    (
        "log.flush.offset.checkpoint.interval.ms",
        Type::Int,
        |s| s.checkpoint_interval_ms.to_string(),
        "How often recovery points are written, milliseconds.",
    ),
    (
        "log.retention.check.interval.ms",
        Type::Long,
        |s| s.retention_check_interval_ms.to_string(),
        "How often segments that are too old, or too many, are looked for, milliseconds.",
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
        "max.incremental.fetch.session.cache.slots",
        Type::Int,
        |s| s.max_incremental_fetch_session_cache_slots.to_string(),
        "The largest number of fetch sessions.",
    ),
    (
        "min.incremental.fetch.session.eviction.ms",
        Type::Int,
        |s| s.min_incremental_fetch_session_eviction_ms.to_string(),
        "A fetch session that was not used for so long may go for another, milliseconds.",
    ),
    (
        "num.network.threads",
        Type::Int,
        |s| s.network_threads.to_string(),
        "Threads that serve connections.",
    ),
    (
        "num.partitions",
        Type::Int,
        |s| s.num_partitions.to_string(),
        "Partitions of a topic that does not say.",
    ),
    (
        "num.recovery.threads.per.data.dir",
        Type::Int,
        |s| s.recovery_threads.to_string(),
        "Threads that recover logs at a start after a crash.",
    ),
    (
        "offset.metadata.max.bytes",
        Type::Int,
        |s| s.offset_metadata_max_bytes.to_string(),
        "The longest metadata of an offset commit, bytes.",
    ),
    (
        "offsets.retention.check.interval.ms",
        Type::Long,
        |s| s.offsets_retention_check_interval_ms.to_string(),
        "How often expired offsets are looked for, milliseconds.",
    ),
    (
        "offsets.retention.minutes",
        Type::Int,
        |s| s.offsets_retention_minutes.to_string(),
        "Offsets of a group without members, and of topics that a group no longer reads, are kept for this long, minutes.",
    ),
    (
        "offsets.topic.num.partitions",
        Type::Int,
        |s| s.offsets_topic_num_partitions.to_string(),
        "Partitions of __consumer_offsets, which is created at its first use.",
    ),
    (
        "milena.queued.max.response.bytes",
        Type::Long,
        |s| s.queued_max_response_bytes.to_string(),
        "What responses that clients do not take may hold, over all connections, bytes.",
    ),
    (
        "queued.max.request.bytes",
        Type::Long,
        |s| s.queued_max_request_bytes.to_string(),
        "What requests in flight may hold, over all connections, bytes. Nothing more is read beyond it.",
    ),
    (
        "socket.request.max.bytes",
        Type::Int,
        |s| s.socket_request_max_bytes.to_string(),
        "The largest request, bytes. A larger one closes the connection.",
    ),
    (
        "transaction.abort.timed.out.transaction.cleanup.interval.ms",
        Type::Int,
        |s| {
            s.transaction_abort_timed_out_transaction_cleanup_interval_ms
                .to_string()
        },
        "How often transactions are looked for that have been open for longer than their timeout, milliseconds.",
    ),
    (
        "transaction.max.timeout.ms",
        Type::Int,
        |s| s.transaction_max_timeout_ms.to_string(),
        "The longest transaction.timeout.ms that a producer may ask for, milliseconds.",
    ),
    (
        "transaction.remove.expired.transaction.cleanup.interval.ms",
        Type::Int,
        |s| {
            s.transaction_remove_expired_transaction_cleanup_interval_ms
                .to_string()
        },
        "How often transactional ids that have expired are looked for, milliseconds.",
    ),
    (
        "transaction.state.log.num.partitions",
        Type::Int,
        |s| s.transaction_state_log_num_partitions.to_string(),
        "Partitions of __transaction_state, which is created at its first use.",
    ),
    (
        "transactional.id.expiration.ms",
        Type::Int,
        |s| s.transactional_id_expiration_ms.to_string(),
        "A transactional id that nobody has used for this long is forgotten, milliseconds.",
    ),
];

/// What may be set.
fn settings(broker: &Broker) -> Vec<Config> {
    let defaults = crate::config::Config::default();
    let default_expiration_ms = defaults.broker.producer_id_expiration_ms;
    let defaults = defaults.settings();
    let expiration_ms = broker.catalog.defaults().producer_id_expiration_ms();
    let dynamic = broker.catalog.broker_configs();
    let mut configs: Vec<_> = SETTINGS
        .iter()
        .map(|(name, kind, value, documentation)| {
            let values = [value(&broker.settings), value(&defaults)];
            setting(name, *kind, values, documentation, &dynamic)
        })
        .collect();
    configs.push(setting(
        "producer.id.expiration.ms",
        Type::Long,
        [expiration_ms, default_expiration_ms].map(|ms| ms.to_string()),
        "A partition forgets a producer that has been idle this long, milliseconds.",
        &dynamic,
    ));
    configs
}

/// Of the settings that may be changed while the broker runs, those that are set as the cluster's
/// default.
pub(super) fn cluster_settings(broker: &Broker) -> Vec<Config> {
    let mut configs = settings(broker);
    for config in &mut configs {
        config
            .set
            .retain(|(_, _, source)| *source == ConfigSource::DynamicDefaultBroker);
    }
    let set = configs.into_iter().filter(|config| !config.set.is_empty());
    set.map(|config| {
        Config::new(
            config.name,
            config.kind,
            false,
            config.documentation,
            config.set,
        )
    })
    .collect()
}

/// What has no default.
fn identity(broker: &Broker) -> Vec<Config> {
    let (host, port) = &broker.advertised;
    let folder = broker.catalog.data_folder().display().to_string();
    let given = |name, kind, value: String, documentation: &str| {
        let set = vec![(name, value, ConfigSource::BrokerFile)];
        Config::new(name, kind, true, documentation.to_owned(), set)
    };
    vec![
        given(
            "advertised.listeners",
            Type::List,
            format!("PLAINTEXT://{host}:{port}"),
            "The address that clients are told.",
        ),
        given("log.dir", Type::String, folder.clone(), "The data folder."),
        given("log.dirs", Type::List, folder, "The data folder."),
        given(
            "broker.id",
            Type::Int,
            broker.node_id.to_string(),
            "This broker's id.",
        ),
        given(
            "node.id",
            Type::Int,
            broker.node_id.to_string(),
            "This broker's id.",
        ),
    ]
}

/// Name, type, value (none: null) and documentation.
type Fixed = (&'static str, Type, Option<&'static str>, &'static str);

const REPLICATION: &str = "There is one broker, and every partition has one replica.";

/// What is as it is: because there is one broker, which has no replicas, or because it follows
/// from another config.
const FIXED: &[Fixed] = &[
    (
        "authorizer.class.name",
        Type::String,
        Some(""),
        "There is no authorizer: every client may do everything.",
    ),
    (
        "broker.rack",
        Type::String,
        None,
        "There is one broker, in no rack.",
    ),
    (
        "auto.leader.rebalance.enable",
        Type::Boolean,
        Some("false"),
        "There is one broker, which leads every partition.",
    ),
    (
        "controlled.shutdown.enable",
        Type::Boolean,
        Some("false"),
        "There is no other broker to hand partitions to.",
    ),
    (
        "default.replication.factor",
        Type::Int,
        Some("1"),
        REPLICATION,
    ),
    (
        "delete.topic.enable",
        Type::Boolean,
        Some("true"),
        "Topics can be deleted.",
    ),
    (
        "group.coordinator.rebalance.protocols",
        Type::List,
        Some("classic"),
        "Groups follow the classic protocol.",
    ),
    (
        "inter.broker.listener.name",
        Type::String,
        None,
        "There is no other broker to speak to.",
    ),
    (
        "listener.security.protocol.map",
        Type::String,
        Some("PLAINTEXT:PLAINTEXT"),
        "The one listener is not encrypted.",
    ),
    (
        "log.retention.hours",
        Type::Int,
        Some("168"),
        "The default of the topic config retention.ms where log.retention.ms is not set, hours.",
    ),
    (
        "log.retention.minutes",
        Type::Int,
        None,
        "Not used: log.retention.ms says the same, more exactly.",
    ),
    (
        "log.roll.hours",
        Type::Int,
        Some("168"),
        "The default of the topic config segment.ms where log.roll.ms is not set, hours.",
    ),
    (
        "log.roll.jitter.hours",
        Type::Int,
        Some("0"),
        "The default of the topic config segment.jitter.ms where log.roll.jitter.ms is not set, \
         hours.",
    ),
    (
        "max.request.partition.size.limit",
        Type::Int,
        Some("2000"),
        "The most partitions in one page of DescribeTopicPartitions.",
    ),
    (
        "offsets.topic.compression.codec",
        Type::Int,
        Some("0"),
        "Batches of __consumer_offsets are not compressed.",
    ),
    (
        "offsets.topic.replication.factor",
        Type::Short,
        Some("1"),
        REPLICATION,
    ),
    (
        "metadata.log.dir",
        Type::String,
        None,
        "The catalog is in the data folder.",
    ),
    (
        "offsets.topic.segment.bytes",
        Type::Int,
        Some("104857600"),
        "The segment size with which __consumer_offsets is created, bytes.",
    ),
    (
        "process.roles",
        Type::List,
        Some("broker,controller"),
        "The one broker is its own controller.",
    ),
    (
        "remote.log.storage.system.enable",
        Type::Boolean,
        Some("false"),
        "There is no remote storage.",
    ),
    (
        "security.inter.broker.protocol",
        Type::String,
        Some("PLAINTEXT"),
        "There is no other broker to speak to.",
    ),
];

fn fixed() -> impl Iterator<Item = Config> {
    FIXED.iter().map(|(name, kind, value, documentation)| {
        let set = value.map(|value| (*name, value.to_owned(), ConfigSource::Default));
        let set: Vec<Place> = set.into_iter().collect();
        Config::new(name, *kind, true, (*documentation).to_owned(), set)
    })
}

/// `value` and `default`: a value that differs from the default was set in the broker's file.
fn setting(
    name: &'static str,
    kind: Type,
    [value, default]: [String; 2],
    documentation: &str,
    dynamic: &BrokerConfigs,
) -> Config {
    let dynamic = dynamic.places(name);
    let dynamic = dynamic.map(|(value, source)| (name, value.to_owned(), source));
    let in_file = (value != default).then_some((name, value, ConfigSource::BrokerFile));
    let own = (name, default, ConfigSource::Default);
    let set = dynamic.chain(in_file).chain([own]).collect();
    let read_only = dynamic_kind(name).is_none();
    Config::new(name, kind, read_only, documentation.to_owned(), set)
}
