//! The coordinator's offsets: commits, fetches, deleted topics.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use kafka_protocol::ResponseError;
use tokio::sync::oneshot;

use super::GroupError;
use super::coordinator::{Answer, GroupCoordinator, lock};
use super::machine::Committer;
use super::offsets_topic::{self, OFFSETS_TOPIC, OffsetChange};
use super::records::{Key, OffsetCommitValue};
use crate::catalog::Topic;
use crate::coordinator_log::fields::MAX_STRING_BYTES;
use crate::coordinator_log::{InTransaction, LogError, Record, Written};

/// An offset to commit. The topic exists.
#[derive(Clone, Debug)]
pub struct NewOffset {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// What to commit.
    pub value: OffsetCommitValue,
}

/// What is committed for a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fetched {
    /// Nothing.
    Nothing,
    /// This.
    Committed(OffsetCommitValue),
    /// A transaction that is open may commit another offset, and only what is stable was asked for.
    Unstable,
}

/// A partition and what is committed for it.
pub type FetchedOffset = (i32, Fetched);

impl GroupCoordinator {
    /// Appends offsets; they are committed, and fetched by others, when they are on the device.
    pub async fn commit_offsets(
        self: &Arc<Self>,
        group: &str,
        committer: Committer<'_>,
        offsets: Vec<NewOffset>,
    ) -> Answer<Result<(), ResponseError>> {
        if group.len() > MAX_STRING_BYTES {
            return Answer::Now(Err(ResponseError::InvalidGroupId));
        }
        if let Err(error) = self.check_writable(group) {
            return Answer::Now(Err(error));
        }
        // Consumers try again.
        if let Err(error) = self.check_room() {
            return Answer::Now(Err(error));
        }
        if let Err(error) = self.ensure_offsets_topic().await {
            tracing::error!(group, %error, "an offset commit is refused");
            return Answer::Now(Err(error.code()));
        }
        // Whoever has a generation is a member of a group that is there.
        let create = committer.generation < 0;
        let written = self.step(group, create, |slot, now, effects| {
            slot.machine.check_commit(now, committer, effects)?;
            if offsets.is_empty() {
                return Ok(None);
            }
            let changes: Vec<_> = offsets.iter().map(|offset| offset.record(group)).collect();
            match self.write_offsets(group, None, &changes) {
                Ok(written) => {
                    slot.commits_under_way += 1;
                    Ok(Some(written))
                }
                Err(error) => {
                    error.log(group, "offsets can't be committed");
                    Err(commit_code(&error))
                }
            }
        });
        match written {
            Some(Ok(Some(written))) => {
                let (sender, receiver) = oneshot::channel();
                // Not left to the connection: it may go away, and what is in the log counts.
                tokio::spawn(Arc::clone(self).committed(
                    group.to_owned(),
                    offsets,
                    written,
                    sender,
                ));
                Answer::Later(receiver)
            }
            Some(Ok(None)) => Answer::Now(Ok(())),
            Some(Err(error)) => Answer::Now(Err(error)),
            None => Answer::Now(Err(ResponseError::GroupIdNotFound)),
        }
    }

    async fn committed(
        self: Arc<Self>,
        group: String,
        offsets: Vec<NewOffset>,
        written: Written,
        sender: oneshot::Sender<Result<(), ResponseError>>,
    ) {
        let log_offsets = written.offsets.clone();
        let result = match written.wait().await {
            Ok(()) => {
                metrics::counter!("milena_group_offset_commits_total").increment(1);
                self.step(&group, true, |slot, _, _| {
                    for (
                        NewOffset {
                            topic,
                            partition,
                            value,
                        },
                        at,
                    ) in offsets.into_iter().zip(log_offsets)
                    {
                        slot.offsets.commit(&topic, partition, value, at);
                    }
                    slot.commit_ended();
                });
                Ok(())
            }
            Err(error) => {
                self.step(&group, false, |slot, _, _| slot.commit_ended());
                let error = GroupError::from(error);
                error.log(&group, "an offset commit is not durable");
                Err(commit_code(&error))
            }
        };
        // Nobody waits where the connection is gone.
        let _ = sender.send(result);
    }

    /// What a group has committed for these partitions; with `stable`, only where no open transaction
    /// may change it.
    pub fn fetch_offsets(
        &self,
        group: &str,
        topic: &str,
        partitions: &[i32],
        stable: bool,
    ) -> Vec<FetchedOffset> {
        if let Some(positions) = self.positions(group) {
            let position = |wanted: i32| {
                let found = positions
                    .iter()
                    .find(|(name, partition, _)| name == topic && *partition == wanted);
                found.map_or(Fetched::Nothing, |(_, _, offset)| {
                    Fetched::Committed(position_value(*offset))
                })
            };
            return partitions
                .iter()
                .map(|partition| (*partition, position(*partition)))
                .collect();
        }
        let present = self.catalog.topic(topic);
        let slot = self.slot(group);
        let slot = slot.as_deref().map(lock);
        let committed = |partition: i32| {
            let Some(offsets) = slot.as_deref().map(|slot| &slot.offsets) else {
                return Fetched::Nothing;
            };
            if stable && offsets.is_pending(topic, partition) {
                return Fetched::Unstable;
            }
            match offsets.get(topic, partition) {
                Some(value) if is_of(value, present.as_deref()) => {
                    Fetched::Committed(value.clone())
                }
                _ => Fetched::Nothing,
            }
        };
        partitions
            .iter()
            .map(|partition| (*partition, committed(*partition)))
            .collect()
    }

    /// Everything that a group has committed, by topic; `stable` as above.
    pub fn fetch_all_offsets(
        &self,
        group: &str,
        stable: bool,
    ) -> Vec<(String, Vec<FetchedOffset>)> {
        if let Some(positions) = self.positions(group) {
            let mut topics = BTreeMap::<String, Vec<FetchedOffset>>::new();
            for (topic, partition, offset) in positions {
                let fetched = (partition, Fetched::Committed(position_value(offset)));
                topics.entry(topic).or_default().push(fetched);
            }
            return topics.into_iter().collect();
        }
        let Some(slot) = self.slot(group) else {
            return Vec::new();
        };
        let slot = lock(&slot);
        let mut topics = Vec::new();
        for (name, partitions) in slot.offsets.topics() {
            let present = self.catalog.topic(name);
            let fetched: Vec<FetchedOffset> = partitions
                .filter(|(_, value)| is_of(value, present.as_deref()))
                .map(|(partition, value)| {
                    let is_unstable = stable && slot.offsets.is_pending(name, partition);
                    let fetched = match is_unstable {
                        true => Fetched::Unstable,
                        false => Fetched::Committed(value.clone()),
                    };
                    (partition, fetched)
                })
                .collect();
            if !fetched.is_empty() {
                topics.push((name.to_owned(), fetched));
            }
        }
        topics
    }

    /// Drops every group's offsets of a topic that was deleted. Without it they are not shown
    /// either, and are dropped at the next start.
    pub fn forget_topic(&self, topic: &Topic) {
        let groups: Vec<_> = {
            let groups = self.groups.read().unwrap_or_else(PoisonError::into_inner);
            groups
                .iter()
                .map(|(name, slot)| (name.clone(), Arc::clone(slot)))
                .collect()
        };
        for (group, slot) in groups {
            let mut slot = lock(&slot);
            slot.offsets
                .forget_pending(|name, value| name == topic.name && is_of(value, Some(topic)));
            let gone: Vec<i32> = slot
                .offsets
                .of_topic(&topic.name)
                .filter(|(_, value)| is_of(value, Some(topic)))
                .map(|(partition, _)| partition)
                .collect();
            let mut changes = Vec::new();
            for partition in gone {
                slot.offsets.remove(&topic.name, partition);
                let key = Key::Offset {
                    group: group.clone(),
                    topic: topic.name.clone(),
                    partition,
                };
                changes.push((key, None));
            }
            if changes.is_empty() {
                continue;
            }
            if let Err(error) = self.write_offsets(&group, None, &changes) {
                tracing::warn!(group, topic = topic.name, %error, "offsets of a deleted topic stay in the log");
            }
        }
    }

    pub(super) fn write_offsets(
        &self,
        group: &str,
        transaction: Option<InTransaction>,
        changes: &[OffsetChange],
    ) -> Result<Written, GroupError> {
        let encode = |(key, value): &OffsetChange| {
            let value = value.as_ref().map(OffsetCommitValue::encode).transpose()?;
            Ok::<Record, GroupError>((key.encode()?, value))
        };
        let records = changes.iter().map(encode).collect::<Result<Vec<_>, _>>()?;
        let now_ms = self.clock.now_ms();
        offsets_topic::append(&self.catalog, group, now_ms, transaction, &records)
    }

    /// What is left of a full disk is for what makes room.
    pub(super) fn check_room(&self) -> Result<(), ResponseError> {
        self.catalog.check_room().map_err(|error| {
            let topic = OFFSETS_TOPIC;
            LogError::Write { topic, error }.code()
        })
    }
}

impl NewOffset {
    pub(super) fn record(&self, group: &str) -> OffsetChange {
        let (group, topic) = (group.to_owned(), self.topic.clone());
        (
            Key::Offset {
                group,
                topic,
                partition: self.partition,
            },
            Some(self.value.clone()),
        )
    }
}

/// The offset was committed for this very topic, and not for an earlier one of the same name.
fn is_of(value: &OffsetCommitValue, topic: Option<&Topic>) -> bool {
    topic.is_some_and(|topic| value.topic_id.is_none_or(|id| id == topic.id))
}

fn position_value(offset: i64) -> OffsetCommitValue {
    OffsetCommitValue {
        offset,
        leader_epoch: -1,
        metadata: String::new(),
        commit_timestamp_ms: -1,
        expire_timestamp_ms: None,
        topic_id: None,
    }
}

pub(super) fn commit_code(error: &GroupError) -> ResponseError {
    match error {
        GroupError::Log(LogError::Write {
            error: storage::Error::BatchTooLarge { .. },
            ..
        }) => ResponseError::InvalidCommitOffsetSize,
        error => error.code(),
    }
}
