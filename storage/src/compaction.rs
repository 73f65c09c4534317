//! Which records a compacted log no longer keeps (`cleanup.policy=compact`), as in Kafka's
//! `LogCleaner`: of each key at least the newest record stays, at its offset and in its order.
//!
//! A pass reads a log's dirty part, from the first offset that was never compacted on, into an
//! `offset_map` of the newest offset of each key. Then it goes over the whole log up to where the
//! dirty part ends, batch by batch, and what is left goes into new segments:
//!
//! | what | goes |
//! |---|---|
//! | a record above the last offset that the map has seen | never |
//! | a record whose key has a newer one in the map | yes |
//! | a record without a key | yes |
//! | a tombstone (no value), the newest of its key | once its batch's delete horizon has passed |
//! | a record of an aborted transaction | yes |
//! | a transaction's marker | once none of its records is left and its delete horizon has passed |
//! | a batch that no record is left of | yes, but for the two below, of which the header stays |
//! | the batch with the last sequence of a producer that is known still | never |
//! | the last batch of the part that is compacted | never |
//!
//! A delete horizon is `delete.retention.ms` after the pass that first kept the tombstone though it
//! was the newest of its key, or the marker though nothing of its transaction was left: who reads the
//! log from its start within that time sees them. It is in the batch's header (KIP-534).

mod choose;
mod filter;
mod keys;
mod offset_map;
mod pass;
mod rewrite;
#[cfg(test)]
mod test_batches;
mod throttle;
mod transactions;

pub(crate) use choose::{Choice, LogFacts, choose};
pub use pass::{CompactionStats, Compactor, CompactorConfig};
pub use throttle::Throttle;
