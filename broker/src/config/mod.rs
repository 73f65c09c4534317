//! What the user writes: one TOML file, every key with a default.
//!
//! Names are Kafka's with `_` for `.`; units come last. Unknown keys and values out of range are
//! refused with the file, the line, the key's path and the value ([`ConfigError`]).
//! `config/milena.toml` explains every key and has the same values as [`Config::default`].

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use inference::spec::{EventTimeSpec, ModelSpec, ModelTopicSpec, Spanned};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::broker::Settings;
use crate::catalog::topic_config::TopicDefaults;
use crate::server::admission::{self, Admission};

mod check;
mod load;
mod log;
mod reference;
mod schema;
mod shape;

pub use check::{Cards, Problem};
pub use load::{ConfigError, ConfigErrors};
pub use log::LogSection;
pub use reference::reference;
pub use schema::schema;

/// The whole configuration.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// `[broker]`
    pub broker: BrokerSection,
    /// `[log]`
    pub log: LogSection,
    /// `[group]`
    pub group: GroupSection,
    /// `[transaction]`
    pub transaction: TransactionSection,
    /// `[http]`
    pub http: HttpSection,
    /// `[[topic]]`: topics that are created at start where they are missing.
    pub topic: Vec<TopicSection>,
    /// `[[model]]`: the models that model topics run.
    #[schemars(with = "Vec<ModelSpec>")]
    pub model: Vec<Spanned<ModelSpec>>,
    /// `[[model_topic]]`: what is inferred from which topics, and where it goes.
    #[schemars(with = "Vec<ModelTopicSpec>")]
    pub model_topic: Vec<Spanned<ModelTopicSpec>>,
    /// The folder that relative model paths begin in: the config file's.
    #[serde(skip)]
    pub base_dir: PathBuf,
    /// Model topics whose state this start builds anew from their inputs; from the command line.
    #[serde(skip)]
    pub rebuild_state: Vec<String>,
}

/// `[broker]`: the server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct BrokerSection {
    /// This broker's id.
    pub node_id: i32,
    /// Where clients connect, `host:port`.
    pub listen: String,
    /// What clients are told to connect to, `host` or `host:port`; empty: as `listen`.
    pub advertise: String,
    /// The folder of the logs.
    pub data_dir: PathBuf,
    /// A topic that is asked for and does not exist is created.
    pub auto_create_topics_enable: bool,
    /// Partitions of a topic that does not say.
    pub num_partitions: i32,
    /// The largest request, bytes.
    pub socket_request_max_bytes: i32,
    /// What requests in flight may hold, over all connections, bytes.
    pub queued_max_request_bytes: usize,
    /// What responses that clients do not take may hold, over all connections, bytes.
    pub queued_max_response_bytes: usize,
    /// Connections on which nothing moves close after this long.
    pub connections_max_idle_ms: u64,
    /// Connections open at the same time.
    pub max_connections: usize,
    /// Connections from one address.
    pub max_connections_per_ip: u32,
    /// The same for some addresses: `address:connections`, separated by commas.
    pub max_connections_per_ip_overrides: String,
    /// The largest response to one fetch, bytes.
    pub fetch_max_bytes: i32,
    /// Fetch sessions at the same time.
    pub max_incremental_fetch_session_cache_slots: usize,
    /// A fetch session that was not used for so long may go for another.
    pub min_incremental_fetch_session_eviction_ms: u64,
    /// How often recovery points are written.
    pub checkpoint_interval_ms: u64,
    /// An idle producer's sequence state is forgotten after this long.
    pub producer_id_expiration_ms: u64,
    /// Threads that serve connections.
    pub network_threads: usize,
    /// Threads that sync logs to the disk.
    pub sync_threads: usize,
    /// Threads that recover logs at start.
    pub recovery_threads: usize,
    /// How the process's own log lines are written.
    pub log_format: LogFormat,
}

impl Default for BrokerSection {
    fn default() -> Self {
        Self {
            node_id: 0,
            listen: "127.0.0.1:9092".to_owned(),
            advertise: String::new(),
            data_dir: PathBuf::from("data"),
            auto_create_topics_enable: true,
            num_partitions: 1,
            socket_request_max_bytes: 100 * 1024 * 1024,
            queued_max_request_bytes: 256 * 1024 * 1024,
            queued_max_response_bytes: 128 * 1024 * 1024,
            connections_max_idle_ms: 10 * 60 * 1000,
            max_connections: 10_000,
            max_connections_per_ip: i32::MAX as u32,
            max_connections_per_ip_overrides: String::new(),
            fetch_max_bytes: 55 * 1024 * 1024,
            max_incremental_fetch_session_cache_slots: 1000,
            min_incremental_fetch_session_eviction_ms: 2 * 60 * 1000,
            checkpoint_interval_ms: 60 * 1000,
            producer_id_expiration_ms: 24 * 60 * 60 * 1000,
            network_threads: 2,
            sync_threads: 2,
            recovery_threads: 2,
            log_format: LogFormat::Text,
        }
    }
}

/// How the process's own log lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// `[group]`: consumer groups.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct GroupSection {
    /// Partitions of `__consumer_offsets`, when it is created.
    pub offsets_topic_num_partitions: i32,
    /// The first rebalance of an empty group waits this long for more members.
    pub group_initial_rebalance_delay_ms: u64,
    /// The shortest session timeout.
    pub group_min_session_timeout_ms: i32,
    /// The longest session timeout.
    pub group_max_session_timeout_ms: i32,
    /// The most members of a group.
    pub group_max_size: usize,
    /// The longest metadata of a committed offset, bytes.
    pub offset_metadata_max_bytes: usize,
    /// Offsets of a group without members are kept for this long.
    pub offsets_retention_minutes: i32,
    /// How often expired offsets are looked for.
    pub offsets_retention_check_interval_ms: u64,
}

impl Default for GroupSection {
    fn default() -> Self {
        Self {
            offsets_topic_num_partitions: 8,
            group_initial_rebalance_delay_ms: 3000,
            group_min_session_timeout_ms: 6000,
            group_max_session_timeout_ms: 30 * 60 * 1000,
            group_max_size: 10_000,
            offset_metadata_max_bytes: 4096,
            offsets_retention_minutes: 7 * 24 * 60,
            offsets_retention_check_interval_ms: 10 * 60 * 1000,
        }
    }
}

/// `[transaction]`: transactions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TransactionSection {
    /// Partitions of `__transaction_state`, when it is created.
    pub transaction_state_log_num_partitions: i32,
    /// The longest timeout that a transactional producer may ask for.
    pub transaction_max_timeout_ms: i32,
    /// Transactional ids that nobody uses are kept for this long.
    pub transactional_id_expiration_ms: u64,
    /// How often transactions that are open for too long are looked for.
    pub transaction_abort_timed_out_transaction_cleanup_interval_ms: u64,
    /// How often transactional ids that have expired are looked for.
    pub transaction_remove_expired_transaction_cleanup_interval_ms: u64,
}

impl Default for TransactionSection {
    fn default() -> Self {
        Self {
            transaction_state_log_num_partitions: 8,
            transaction_max_timeout_ms: 15 * 60 * 1000,
            transactional_id_expiration_ms: 7 * 24 * 60 * 60 * 1000,
            transaction_abort_timed_out_transaction_cleanup_interval_ms: 1000,
            transaction_remove_expired_transaction_cleanup_interval_ms: 60 * 60 * 1000,
        }
    }
}

/// `[http]`: metrics and health.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct HttpSection {
    /// Where `/metrics` and `/healthz` are served, `host:port`; empty: nowhere.
    pub listen: String,
}

impl Default for HttpSection {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:9644".to_owned(),
        }
    }
}

/// `[[topic]]`: a topic that is created at start where it is missing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TopicSection {
    /// Its name.
    pub name: String,
    /// Its partitions; `broker.num_partitions` where it does not say.
    pub partitions: Option<i32>,
    /// Topic configs under Kafka's names.
    #[serde(default)]
    pub configs: BTreeMap<String, ConfigValue>,
    /// Where model topics find the event time of its records; in their timestamps without it.
    #[serde(default)]
    pub event_time: Option<EventTimeSpec>,
}

/// A topic config's value, written as TOML likes it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum ConfigValue {
    /// `true`
    Boolean(bool),
    /// `1024`
    Integer(i64),
    /// `0.5`
    Float(f64),
    /// `"compact"`
    Text(String),
}

impl std::fmt::Display for ConfigValue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Boolean(value) => value.fmt(f),
            Self::Integer(value) => value.fmt(f),
            Self::Float(value) => value.fmt(f),
            Self::Text(value) => value.fmt(f),
        }
    }
}

impl TopicSection {
    /// The configs as Kafka writes them.
    pub fn configs(&self) -> BTreeMap<String, String> {
        self.configs
            .iter()
            .map(|(key, value)| (key.clone(), value.to_string()))
            .collect()
    }
}

impl Config {
    /// What handlers read.
    pub fn settings(&self) -> Settings {
        let (broker, group, transaction) = (&self.broker, &self.group, &self.transaction);
        Settings {
            listen: broker.listen.clone(),
            network_threads: broker.network_threads,
            recovery_threads: broker.recovery_threads,
            checkpoint_interval_ms: broker.checkpoint_interval_ms,
            retention_check_interval_ms: self.log.retention_check_interval_ms,
            cleaner: self.log.cleaner(),
            auto_create_topics_enable: broker.auto_create_topics_enable,
            num_partitions: broker.num_partitions,
            fetch_max_bytes: broker.fetch_max_bytes,
            max_incremental_fetch_session_cache_slots: broker
                .max_incremental_fetch_session_cache_slots,
            min_incremental_fetch_session_eviction_ms: broker
                .min_incremental_fetch_session_eviction_ms,
            offsets_topic_num_partitions: group.offsets_topic_num_partitions,
            group_initial_rebalance_delay_ms: group.group_initial_rebalance_delay_ms,
            group_min_session_timeout_ms: group.group_min_session_timeout_ms,
            group_max_session_timeout_ms: group.group_max_session_timeout_ms,
            group_max_size: group.group_max_size,
            offset_metadata_max_bytes: group.offset_metadata_max_bytes,
            transaction_state_log_num_partitions: transaction.transaction_state_log_num_partitions,
            transaction_max_timeout_ms: transaction.transaction_max_timeout_ms,
            transactional_id_expiration_ms: transaction.transactional_id_expiration_ms,
            transaction_abort_timed_out_transaction_cleanup_interval_ms: transaction
                .transaction_abort_timed_out_transaction_cleanup_interval_ms,
            transaction_remove_expired_transaction_cleanup_interval_ms: transaction
                .transaction_remove_expired_transaction_cleanup_interval_ms,
            offsets_retention_minutes: group.offsets_retention_minutes,
            offsets_retention_check_interval_ms: group.offsets_retention_check_interval_ms,
            socket_request_max_bytes: usize::try_from(broker.socket_request_max_bytes).unwrap_or(0),
            connections_max_idle_ms: broker.connections_max_idle_ms,
            max_connections: broker.max_connections,
            max_connections_per_ip: broker.max_connections_per_ip,
            max_connections_per_ip_overrides: broker.max_connections_per_ip_overrides.clone(),
            queued_max_request_bytes: broker.queued_max_request_bytes,
            queued_max_response_bytes: broker.queued_max_response_bytes,
        }
    }

    /// Where topics' event times are.
    pub fn event_times(&self) -> HashMap<String, EventTimeSpec> {
        let topics = self.topic.iter();
        topics
            .filter_map(|topic| Some((topic.name.clone(), topic.event_time.clone()?)))
            .collect()
    }

    /// Who may connect.
    pub fn admission(&self) -> Result<Arc<Admission>, Problem> {
        let broker = &self.broker;
        let overrides = admission::parse_overrides(&broker.max_connections_per_ip_overrides)
            .map_err(|error| Problem::new("broker.max_connections_per_ip_overrides", error))?;
        Ok(Admission::new(
            broker.max_connections,
            broker.max_connections_per_ip as usize,
            overrides,
        ))
    }

    /// What a connection obeys; `drain` is how long its last responses may take at a stop.
    pub fn connection_limits(&self, drain: Duration) -> crate::connection::Limits {
        crate::connection::Limits {
            max_request_bytes: usize::try_from(self.broker.socket_request_max_bytes).unwrap_or(0),
            max_idle: Duration::from_millis(self.broker.connections_max_idle_ms),
            drain,
        }
    }

    /// What holds for topics that do not say. Only what differs from Milena's own defaults counts
    /// as set in the file.
    pub fn topic_defaults(&self) -> Result<TopicDefaults, Problem> {
        let mut configs = BTreeMap::new();
        for (key, name, value) in self.changed_defaults() {
            let one = BTreeMap::from([(name.to_owned(), value)]);
            TopicDefaults::new(one.clone())
                .map_err(|error| Problem::new(format!("log.{key}"), error))?;
            configs.extend(one);
        }
        let defaults =
            TopicDefaults::new(configs).map_err(|error| Problem::new("log".to_owned(), error))?;
        Ok(defaults.with_producer_id_expiration_ms(self.broker.producer_id_expiration_ms))
    }

    /// Which keys of `[log]` have values that no topic could have.
    fn check_defaults(&self, faults: &mut Vec<Problem>) {
        let found = faults.len();
        for (key, name, value) in self.changed_defaults() {
            let one = TopicDefaults::new(BTreeMap::from([(name.to_owned(), value)]));
            let fault = one
                .err()
                .map(|error| Problem::new(format!("log.{key}"), error));
            faults.extend(fault);
        }
        if faults.len() == found {
            faults.extend(self.topic_defaults().err());
        }
    }

    /// The key, the topic config and the value.
    fn changed_defaults(&self) -> impl Iterator<Item = (&'static str, &'static str, String)> {
        let own = LogSection::default().topic_configs();
        let all = self.log.topic_configs().into_iter().zip(own);
        all.filter(|((_, _, value), (_, _, default))| value != default)
            .map(|(set, _)| set)
    }
}
