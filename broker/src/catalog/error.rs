//! What the catalog refuses, and how it fails.

use std::path::PathBuf;

use storage::Offset;

use super::{CATALOG_TOPIC, MAX_PARTITIONS};

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
    #[error("topic '{0}': partition count {1} is not within 1..={MAX_PARTITIONS}")]
    InvalidPartitions(String, i32),
    /// Partitions can only become more.
    #[error("topic '{topic}' has {current} partition(s): {asked} would not be an increase")]
    NotAnIncrease {
        /// The topic.
        topic: String,
        /// How many it has.
        current: i32,
        /// How many were asked for.
        asked: i32,
    },
    /// It is not a client's to do.
    #[error("topic '{topic}' belongs to {owner}: {what}")]
    Owned {
        /// The topic.
        topic: String,
        /// Whose it is.
        owner: String,
        /// What can't be done.
        what: String,
    },
    /// These broker configs can't be set while the broker runs.
    #[error("Cannot update these configs dynamically: {0}")]
    NotDynamic(String),
    /// So much is not changed at once.
    #[error("a change of {0} bytes is larger than the catalog takes at once")]
    TooLarge(usize),
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
    /// The producer ids are used up.
    #[error("all producer ids are used up")]
    ProducerIdsExhausted,
    /// The data folder has a folder where a new partition's would be.
    #[error("folder {0} is in the way: it is not part of the topic to create")]
    FolderInTheWay(PathBuf),
    /// The data folder has partitions, but no catalog that could say what they are.
    #[error(
        "data folder {path} has {folders} partition folders, such as {example:?}, but its catalog \
         {CATALOG_TOPIC} is missing or empty: restore the catalog or start with an empty folder"
    )]
    Missing {
        /// The data folder.
        path: PathBuf,
        /// How many partition folders there are.
        folders: usize,
        /// One of them.
        example: String,
    },
    /// A record of the catalog's log is not understood.
    #[error("{CATALOG_TOPIC}, record at offset {offset}: {reason}")]
    Corrupt {
        /// The record's offset.
        offset: Offset,
        /// What is wrong with it.
        reason: String,
    },
    /// A logged topic can't be opened.
    #[error("topic '{name}': {reason}")]
    Unusable {
        /// The topic.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A change can't be written down.
    #[error("{CATALOG_TOPIC}: encode a record: {0}")]
    Encode(String),
    /// The broker stops; whether the change was made is unknown.
    #[error("the broker is stopping")]
    Stopping,
    /// The log failed.
    #[error(transparent)]
    Storage(#[from] storage::Error),
}
