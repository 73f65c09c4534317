//! Transactions (KIP-98, KIP-890): all or nothing over any number of partitions and offsets.
//!
//! - [`machine`]: one transactional id, pure;
//! - [`coordinator`]: one lock per id around a machine; who introduces itself, adds partitions, writes;
//! - `ending`: the end of a transaction, from its data's sync to the last marker;
//! - `start`: what a start finds, and resumes;
//! - `expiry`: transactions that are open for too long, ids that nobody uses;
//! - [`listing`]: what administrators see;
//! - [`records`]: what is written to `__transaction_state`, in Kafka's schema.
//!
//! # What holds
//!
//! A batch of a transaction is appended under the lock of its transactional id, after a look at the
//! machine. The end of a transaction is decided under the same lock. So no batch comes behind the
//! marker of its transaction, and no transaction hangs: what KIP-890 needs a guard for is here one
//! lock.
//!
//! Records reach the device in this order, whenever the power goes:
//!
//! 1. the record that adds a partition to a transaction, before a batch of it is acknowledged;
//! 2. before a commit is decided, all that is in its partitions;
//! 3. the decision (PrepareCommit or PrepareAbort), before its first marker is appended;
//! 4. all markers, before the transaction is complete;
//! 5. that record, before the next transaction of the id begins.
//!
//! A start (`start.rs`) that finds a decision writes its markers, again where they are there: by 5
//! nothing of the id's next transaction can be in their way. An open transaction that a partition knows and
//! no record names was never acknowledged (1): it is aborted.

pub mod coordinator;
mod ending;
mod expiry;
pub mod listing;
pub mod machine;
pub mod records;
mod start;

pub use coordinator::{Limits, TransactionCoordinator};
pub use start::Parts;

/// Kafka's name for the topic that the coordinator keeps its state in.
pub const STATE_TOPIC: &str = "__transaction_state";
