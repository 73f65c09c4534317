//! Consumer groups and their committed offsets.
//!
//! - [`machine`]: the classic group protocol, pure: no clock, no I/O;
//! - [`coordinator`]: one lock per group around a machine and its offsets; timers, waiting clients;
//!   `commits` is the part of it that is about offsets, `removal` what is deleted or expires,
//!   `listing` what administrators see;
//! - [`expiry`]: which offsets have expired, pure;
//! - [`offsets`]: what a group has committed;
//! - [`offsets_topic`]: `__consumer_offsets`, where groups and offsets are kept, and its replay;
//! - [`records`]: that topic's records, in Kafka's schemas.
//!
//! An offset commit, and an assignment, is on the device before it is answered. Committed offsets
//! beyond the end of their log (a power cut took records that were in the page cache only) are
//! clamped to it at start, for good: the log will grow past them again.

mod commits;
pub mod coordinator;
pub mod expiry;
pub mod listing;
pub mod machine;
pub mod offsets;
pub mod offsets_topic;
pub mod records;
mod removal;
pub mod subscription;
mod timers;

use kafka_protocol::ResponseError;

pub use commits::{FetchedOffset, NewOffset};
pub use coordinator::{Answer, GroupCoordinator};

use crate::catalog::CatalogError;
use offsets_topic::OFFSETS_TOPIC;
use records::RecordError;

/// Groups that are shown but not kept here: model topics' positions.
pub trait ReadOnlyGroups: Send + Sync + std::fmt::Debug {
    /// Topic, partition and next offset of each position; `None` where the group is not of this kind.
    fn positions(&self, group: &str) -> Option<Vec<(String, i32, i64)>>;
    /// Their names.
    fn names(&self) -> Vec<String>;
}

/// Why groups could not be read or written.
#[derive(Clone, Debug, thiserror::Error)]
pub enum GroupError {
    /// `__consumer_offsets` can't be created.
    #[error("create {OFFSETS_TOPIC}: {0}")]
    Create(#[from] CatalogError),
    /// `__consumer_offsets` can't be written.
    #[error("write {OFFSETS_TOPIC}: {0}")]
    Write(storage::Error),
    /// A partition of `__consumer_offsets` can't be read.
    #[error("read {OFFSETS_TOPIC}-{partition} at offset {offset}: {error}")]
    Read {
        /// The partition.
        partition: usize,
        /// Where.
        offset: storage::Offset,
        /// Why.
        error: storage::Error,
    },
    /// `__consumer_offsets` does not exist, or has no partitions.
    #[error("{OFFSETS_TOPIC} does not exist")]
    NoTopic,
    /// A name that is too long for its record, or the like.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The broker stops.
    #[error("the broker is stopping")]
    Stopping,
}

impl GroupError {
    /// Says what came of it: not what was said already, where the disk was found to be full or the
    /// partition became read-only.
    pub(crate) fn log(&self, group: &str, what: &'static str) {
        let is_said = match self {
            Self::Write(error) => {
                error.is_disk_full() || matches!(error, storage::Error::ReadOnly(_))
            }
            _ => false,
        };
        match is_said {
            true => tracing::debug!(group, error = %self, "{what}"),
            false => tracing::error!(group, error = %self, "{what}"),
        }
    }

    /// What clients are told. As in Kafka's coordinator, whatever may pass is
    /// COORDINATOR_NOT_AVAILABLE: clients look for their coordinator and try again.
    pub fn code(&self) -> ResponseError {
        match self {
            Self::Record(_) => ResponseError::InvalidRequest,
            Self::Write(storage::Error::BatchTooLarge { .. }) => ResponseError::UnknownServerError,
            Self::Create(_)
            | Self::Write(_)
            | Self::Read { .. }
            | Self::NoTopic
            | Self::Stopping => ResponseError::CoordinatorNotAvailable,
        }
    }
}
