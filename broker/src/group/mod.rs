//! Consumer groups and their committed offsets.
//!
//! - [`machine`]: the classic group protocol, pure: no clock, no I/O;
//! - [`coordinator`]: one lock per group around a machine and its offsets; timers, waiting clients;
//!   `commits` is the part of it that is about offsets, `removal` what is deleted or expires,
//!   `listing` what administrators see;
//! - [`expiry`]: which offsets have expired, pure;
//! - [`offsets`]: what a group has committed, and what transactions will commit when they do;
//! - `transactional`: offsets that are committed in transactions;
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
mod transactional;

use kafka_protocol::ResponseError;

pub use commits::{Fetched, FetchedOffset, NewOffset};
pub use coordinator::{Answer, GroupCoordinator};

use crate::coordinator_log::LogError;
use crate::coordinator_log::fields::RecordError;

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
    /// `__consumer_offsets` could not.
    #[error(transparent)]
    Log(#[from] LogError),
    /// A name that is too long for its record, or the like.
    #[error(transparent)]
    Record(#[from] RecordError),
}

impl GroupError {
    /// Says what came of it: not what was said already.
    pub(crate) fn log(&self, group: &str, what: &'static str) {
        match self {
            Self::Log(error) if error.is_said() => {
                tracing::debug!(group, error = %self, "{what}");
            }
            _ => tracing::error!(group, error = %self, "{what}"),
        }
    }

    /// What clients are told.
    pub fn code(&self) -> ResponseError {
        match self {
            Self::Record(_) => ResponseError::InvalidRequest,
            Self::Log(error) => error.code(),
        }
    }
}
