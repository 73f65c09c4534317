//! Offsets that are committed in transactions: pending from their append to the marker that ends the
//! transaction, then committed or forgotten.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, MutexGuard, PoisonError};

use kafka_protocol::ResponseError;

use super::GroupError;
use super::commits::{NewOffset, commit_code};
use super::coordinator::GroupCoordinator;
use super::machine::Committer;
use super::offsets_topic::OFFSETS_TOPIC;
use crate::coordinator_log::fields::MAX_STRING_BYTES;
use crate::coordinator_log::{InTransaction, LogError, Written, partition_of};

/// The groups that have pending offsets, by producer.
#[derive(Debug, Default)]
pub(super) struct WithPending(HashMap<i64, BTreeSet<String>>);

impl WithPending {
    /// One more.
    pub fn add(&mut self, producer_id: i64, group: String) {
        self.0.entry(producer_id).or_default().insert(group);
    }

    /// Takes those of a producer out for which `is_there` holds.
    pub fn take(&mut self, producer_id: i64, is_there: impl Fn(&str) -> bool) -> BTreeSet<String> {
        let Some(groups) = self.0.get_mut(&producer_id) else {
            return BTreeSet::new();
        };
        let (taken, left) = std::mem::take(groups)
            .into_iter()
            .partition(|it| is_there(it));
        *groups = left;
        if groups.is_empty() {
            self.0.remove(&producer_id);
        }
        taken
    }
}

impl GroupCoordinator {
    fn with_pending(&self) -> MutexGuard<'_, WithPending> {
        self.with_pending
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a producer may commit offsets of this group, before anything is written.
    pub async fn prepare_transactional_commit(&self, group: &str) -> Result<(), ResponseError> {
        if group.len() > MAX_STRING_BYTES {
            return Err(ResponseError::InvalidGroupId);
        }
        self.check_writable(group)?;
        self.check_room()?;
        self.ensure_offsets_topic().await.map_err(|error| {
            tracing::error!(group, %error, "an offset commit is refused");
            error.code()
        })
    }

    /// The partition of `__consumer_offsets` that a group's offsets are in.
    pub fn offsets_partition(&self, group: &str) -> Option<i32> {
        let topic = self.catalog.topic(OFFSETS_TOPIC)?;
        i32::try_from(partition_of(group, topic.partitions.len())).ok()
    }

    /// Appends offsets of a transaction; wait for them to be durable. `None` where there are none.
    /// The producer was checked by the caller, who has it change nothing meanwhile.
    pub fn append_transactional(
        self: &Arc<Self>,
        group: &str,
        committer: Committer<'_>,
        transaction: InTransaction,
        offsets: &[NewOffset],
    ) -> Result<Option<Written>, ResponseError> {
        // Whoever has a generation is a member of a group that is there.
        let create = committer.generation < 0;
        let written = self.step(group, create, |slot, _, _| {
            slot.machine.check_transactional_commit(committer)?;
            if offsets.is_empty() {
                return Ok(None);
            }
            let changes: Vec<_> = offsets.iter().map(|offset| offset.record(group)).collect();
            let written = self.write_offsets(group, Some(transaction), &changes);
            let written = written.map_err(|error| match error {
                GroupError::Log(LogError::Write {
                    error: storage::Error::StaleProducerEpoch { .. },
                    ..
                }) => ResponseError::InvalidProducerEpoch,
                error => {
                    error.log(group, "offsets can't be committed in a transaction");
                    commit_code(&error)
                }
            })?;
            self.with_pending()
                .add(transaction.producer_id, group.to_owned());
            for (offset, at) in offsets.iter().zip(written.offsets.clone()) {
                let value = offset.value.clone();
                let producer_id = transaction.producer_id;
                slot.offsets
                    .pend(producer_id, &offset.topic, offset.partition, value, at);
            }
            Ok(Some(written))
        });
        written.unwrap_or(Err(ResponseError::IllegalGeneration))
    }

    /// A producer's transaction has ended in a partition of `__consumer_offsets`, where its marker is
    /// appended.
    pub fn transaction_ended(self: &Arc<Self>, partition: i32, producer_id: i64, committed: bool) {
        let Some(topic) = self.catalog.topic(OFFSETS_TOPIC) else {
            return;
        };
        let partitions = topic.partitions.len();
        let is_there = |group: &str| {
            i32::try_from(partition_of(group, partitions)).is_ok_and(|it| it == partition)
        };
        let groups = self.with_pending().take(producer_id, is_there);
        for group in groups {
            self.step(&group, false, |slot, _, _| {
                slot.offsets.end_transaction(producer_id, committed);
            });
        }
    }
}
