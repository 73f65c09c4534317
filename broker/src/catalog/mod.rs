//! Topics, partitions, configs and ids, kept in an internal compacted log and replayed at start.

use std::collections::BTreeMap;
use std::sync::Arc;

use storage::PartitionLog;
use storage::partition_log::Durability;
use uuid::Uuid;

/// The catalog's own log. Never listed.
pub const CATALOG_TOPIC: &str = "__milena_catalog";

/// What a topic is for, and so who may write to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TopicKind {
    /// A client's.
    Ordinary,
    /// The broker's own, such as `__consumer_offsets`.
    Internal,
    /// A model topic's output.
    Derived {
        /// The model topic.
        model_topic: String,
    },
    /// A model topic's dead letters.
    DeadLetter {
        /// The model topic.
        model_topic: String,
    },
    /// A model topic's positions, ends and state.
    Changelog {
        /// The model topic.
        model_topic: String,
    },
}

impl TopicKind {
    /// As Metadata reports it.
    pub fn is_internal(&self) -> bool {
        matches!(self, Self::Internal | Self::Changelog { .. })
    }

    /// Clients may produce to it and delete it.
    pub fn is_writable_by_clients(&self) -> bool {
        matches!(self, Self::Ordinary)
    }

    /// Its high watermarks are raised by commits only.
    pub fn is_published(&self) -> bool {
        matches!(self, Self::Derived { .. } | Self::DeadLetter { .. })
    }
}

/// A topic's configuration, typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicConfig {
    /// What its logs obey.
    pub log: Arc<storage::LogConfig>,
    /// What `acks=all` waits for.
    pub durability_all: Durability,
    /// What `acks=1` waits for.
    pub durability_one: Durability,
}

/// A topic and its partitions' logs.
#[derive(Clone, Debug)]
pub struct Topic {
    /// Its name.
    pub name: String,
    /// Its id; a topic created again has another.
    pub id: Uuid,
    /// What it is for.
    pub kind: TopicKind,
    /// The configs set on it, as written.
    pub configs: BTreeMap<String, String>,
    /// The same with defaults, typed.
    pub config: TopicConfig,
    /// By partition number.
    pub partitions: Vec<Arc<PartitionLog>>,
}

/// A topic to create.
#[derive(Clone, Debug)]
pub struct NewTopic {
    /// Its name.
    pub name: String,
    /// How many partitions.
    pub partitions: i32,
    /// Configs to set on it.
    pub configs: BTreeMap<String, String>,
    /// What it is for.
    pub kind: TopicKind,
}

/// Why the catalog refused or failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CatalogError {
    /// There is one of that name.
    #[error("topic '{0}' already exists")]
    TopicExists(String),
    /// There is none.
    #[error("topic '{0}' does not exist")]
    UnknownTopic(String),
    /// Not a legal name.
    #[error("topic name {0:?} is invalid: {1}")]
    InvalidName(String, String),
    /// Not a legal partition count.
    #[error("topic '{0}': partition count {1} is invalid")]
    InvalidPartitions(String, i32),
    /// An unknown config or a bad value.
    #[error("config {key} = {value:?}: {reason}")]
    InvalidConfig {
        /// The config's name.
        key: String,
        /// The value.
        value: String,
        /// What is wrong.
        reason: String,
    },
    /// The log failed.
    #[error(transparent)]
    Storage(#[from] storage::Error),
}

/// The catalog.
#[derive(Debug)]
pub struct Catalog {}

impl Catalog {
    /// The topic of that name.
    pub fn topic(&self, name: &str) -> Option<Arc<Topic>> {
        todo!()
    }
    /// The topic of that id.
    pub fn topic_by_id(&self, id: Uuid) -> Option<Arc<Topic>> {
        todo!()
    }
    /// All topics, by name.
    pub fn topics(&self) -> Vec<Arc<Topic>> {
        todo!()
    }
    /// Creates a topic; it is durable when this returns.
    pub async fn create_topic(&self, topic: NewTopic) -> Result<Arc<Topic>, CatalogError> {
        todo!()
    }
    /// What [`Catalog::create_topic`] would refuse.
    pub fn check_new_topic(&self, topic: &NewTopic) -> Result<(), CatalogError> {
        todo!()
    }
    /// Deletes a topic and its files.
    pub async fn delete_topic(&self, name: &str) -> Result<(), CatalogError> {
        todo!()
    }
    /// Reserves `size` producer ids, durably.
    pub async fn next_producer_id_block(&self, size: i64) -> Result<std::ops::Range<i64>, CatalogError> {
        todo!()
    }
}
