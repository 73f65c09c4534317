//! What leaves groups: expired offsets, deleted offsets, deleted groups.
//!
//! The tombstones are appended under the group's lock, and what they name is forgotten when they
//! are on the device, so nothing that was seen to be gone comes back after a power cut. What is
//! committed, or joins, after the append stays.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

use kafka_protocol::ResponseError;
use tokio::sync::oneshot;

use super::GroupError;
use super::coordinator::{Answer, GroupCoordinator, Slot};
use super::expiry::Retention;
use super::machine::State;
use super::offsets_topic;
use super::records::Key;
use crate::coordinator_log::{Record, Written};

/// Tombstones that are appended, and what is forgotten when they are durable.
struct Removal {
    /// In the order of the tombstones.
    partitions: Vec<(String, i32)>,
    /// The group's record is removed too, by the last tombstone.
    whole: bool,
    written: Written,
}

impl GroupCoordinator {
    /// Deletes a group that has no members, with its offsets.
    pub fn delete_group(self: &Arc<Self>, group: &str) -> Answer<Result<(), ResponseError>> {
        if let Err(error) = self.check_writable(group) {
            return Answer::Now(Err(error));
        }
        let removal = self.step(group, false, |slot, _, _| {
            if slot.machine.state() != State::Empty {
                return Err(ResponseError::NonEmptyGroup);
            }
            let all = all_partitions(slot);
            self.remove(group, slot, all, true)
        });
        match removal.unwrap_or(Err(ResponseError::GroupIdNotFound)) {
            Ok(None) => Answer::Now(Ok(())),
            Ok(Some(removal)) => self.answer_removed(group, removal, ()),
            Err(error) => Answer::Now(Err(error)),
        }
    }

    /// Deletes offsets, except those of topics that members have subscribed to: these topics are
    /// the answer.
    pub fn delete_offsets(
        self: &Arc<Self>,
        group: &str,
        topics: Vec<(String, Vec<i32>)>,
    ) -> Answer<Result<BTreeSet<String>, ResponseError>> {
        let checked = self
            .check_group(group)
            .and_then(|()| self.check_writable(group));
        if let Err(error) = checked {
            return Answer::Now(Err(error));
        }
        let removal = self.step(group, false, |slot, _, _| {
            let consumers = slot.machine.is_of_consumers();
            if slot.machine.state() != State::Empty && !consumers {
                return Err(ResponseError::NonEmptyGroup);
            }
            let subscribed = slot.machine.subscribed_topics();
            let is_subscribed = |topic: &String| {
                let known = subscribed.as_ref().map(|topics| topics.contains(topic));
                known.unwrap_or(consumers)
            };
            let (kept, named): (Vec<_>, Vec<_>) = topics
                .into_iter()
                .partition(|(topic, _)| is_subscribed(topic));
            let mut partitions = BTreeSet::new();
            for (topic, wanted) in named {
                let present = wanted.into_iter().filter(|partition| {
                    let offset = slot.offsets.get(&topic, *partition);
                    offset.is_some()
                });
                partitions.extend(present.map(|partition| (topic.clone(), partition)));
            }
            let partitions = partitions.into_iter().collect();
            let removal = self.remove(group, slot, partitions, false)?;
            let kept: BTreeSet<String> = kept.into_iter().map(|(topic, _)| topic).collect();
            Ok((removal, kept))
        });
        match removal.unwrap_or(Err(ResponseError::GroupIdNotFound)) {
            Ok((None, kept)) => Answer::Now(Ok(kept)),
            Ok((Some(removal), kept)) => self.answer_removed(group, removal, kept),
            Err(error) => Answer::Now(Err(error)),
        }
    }

    /// Forgets what has expired, and groups of which nothing is left. One group after the other,
    /// each durable before the next.
    pub async fn expire_offsets(self: &Arc<Self>) {
        let names: Vec<String> = {
            let groups = self.groups.read().unwrap_or_else(PoisonError::into_inner);
            groups.keys().cloned().collect()
        };
        let retention = Retention {
            now_ms: self.clock.now_ms(),
            retention_ms: self.offsets_retention_ms,
        };
        for group in names {
            let removal = self.step(&group, false, |slot, _, _| {
                let since = slot.state_since_ms;
                let expired = retention.expired(&slot.machine, since, &slot.offsets);
                let is_last = expired.len() == slot.offsets.len();
                let whole = is_last && slot.is_deserted() && !slot.offsets.has_pending();
                self.remove(&group, slot, expired, whole)
            });
            let Some(Ok(Some(removal))) = removal else {
                continue;
            };
            let (offsets, whole) = (removal.partitions.len(), removal.whole);
            // A failure is logged; what is not gone is tried again next time.
            if self.removed(&group, removal).await.is_ok() {
                metrics::counter!("milena_group_offsets_expired_total").increment(offsets as u64);
                tracing::info!(group, offsets, group_removed = whole, "offsets expired");
            }
        }
    }

    /// Appends tombstones for these offsets, and for the group where it is removed as a whole.
    /// `None` where there is nothing to remove.
    fn remove(
        &self,
        group: &str,
        slot: &Slot,
        partitions: Vec<(String, i32)>,
        whole: bool,
    ) -> Result<Option<Removal>, ResponseError> {
        let whole = whole && slot.machine.has_record();
        if partitions.is_empty() && !whole {
            return Ok(None);
        }
        let append = || -> Result<Written, GroupError> {
            let mut records: Vec<Record> = Vec::with_capacity(partitions.len() + 1);
            for (topic, partition) in &partitions {
                let key = Key::Offset {
                    group: group.to_owned(),
                    topic: topic.clone(),
                    partition: *partition,
                };
                records.push((key.encode()?, None));
            }
            if whole {
                let group = group.to_owned();
                records.push((Key::Group { group }.encode()?, None));
            }
            offsets_topic::append(&self.catalog, group, self.clock.now_ms(), None, &records)
        };
        match append() {
            Ok(written) => Ok(Some(Removal {
                partitions,
                whole,
                written,
            })),
            Err(error) => {
                error.log(group, "a group's records can't be removed");
                Err(error.code())
            }
        }
    }

    fn answer_removed<T: Send + 'static>(
        self: &Arc<Self>,
        group: &str,
        removal: Removal,
        answer: T,
    ) -> Answer<Result<T, ResponseError>> {
        let (sender, receiver) = oneshot::channel();
        let (groups, group) = (Arc::clone(self), group.to_owned());
        // Not left to the connection: it may go away, and what is in the log counts.
        tokio::spawn(async move {
            let result = groups.removed(&group, removal).await;
            // Nobody waits where the connection is gone.
            let _ = sender.send(result.map(|()| answer));
        });
        Answer::Later(receiver)
    }

    async fn removed(self: &Arc<Self>, group: &str, removal: Removal) -> Result<(), ResponseError> {
        let offsets = removal.written.offsets.clone();
        let end = offsets.end;
        removal.written.wait().await.map_err(|error| {
            let error = GroupError::from(error);
            error.log(group, "the removal of a group's records is not durable");
            error.code()
        })?;
        self.step(group, false, |slot, _, _| {
            for ((topic, partition), at) in removal.partitions.iter().zip(offsets) {
                slot.offsets.remove_before(topic, *partition, at);
            }
            let is_last = slot.record_at.is_none_or(|record_at| record_at < end);
            if removal.whole && is_last {
                slot.machine.record_removed();
            }
            slot.settle_offsets();
        });
        Ok(())
    }
}

fn all_partitions(slot: &Slot) -> Vec<(String, i32)> {
    let topics = slot.offsets.topics();
    let committed = topics.flat_map(|(topic, partitions)| {
        partitions.map(move |(partition, _)| (topic.to_owned(), partition))
    });
    let all: BTreeSet<_> = committed.chain(slot.offsets.pending()).collect();
    all.into_iter().collect()
}

/// Looks for expired offsets every `interval`, until the coordinator is gone.
pub(super) async fn run(coordinator: Weak<GroupCoordinator>, interval: Duration) {
    loop {
        tokio::time::sleep(interval).await;
        match coordinator.upgrade() {
            Some(coordinator) => coordinator.expire_offsets().await,
            None => return,
        }
    }
}
