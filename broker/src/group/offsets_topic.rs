//! `__consumer_offsets`, as [`crate::coordinator_log`] keeps it, and its replay.
//!
//! What a transaction commits counts from its marker on: until then it is pending.

use std::collections::HashMap;

use bytes::Bytes;
use storage::Offset;
use storage::batch::{Batch, ControlRecord, TransactionResult, records};

use super::GroupError;
use super::offsets::Offsets;
use super::records::{GroupMetadataValue, Key, OffsetCommitValue};
use super::transactional::WithPending;
use crate::catalog::{Catalog, Topic};
use crate::coordinator_log::fields::RecordError;
use crate::coordinator_log::{
    self, InTransaction, MAX_DECOMPRESSED_BYTES, Place, Record, Written, partition_of,
};

/// Kafka's name for it.
pub const OFFSETS_TOPIC: &str = "__consumer_offsets";

/// A committed offset's key and value; without a value it is removed.
pub type OffsetChange = (Key, Option<OffsetCommitValue>);

/// Appends records of one group, in order, in a producer's transaction where they are part of one.
pub fn append(
    catalog: &Catalog,
    group: &str,
    timestamp_ms: i64,
    transaction: Option<InTransaction>,
    records: &[Record],
) -> Result<Written, GroupError> {
    let place = Place {
        topic: OFFSETS_TOPIC,
        key: group,
        timestamp_ms,
    };
    let written = coordinator_log::append_as(catalog, place, transaction, records)?;
    Ok(written)
}

/// What the topic holds.
#[derive(Debug, Default)]
pub struct Replayed {
    /// Generations and members.
    pub groups: HashMap<String, GroupMetadataValue>,
    /// Committed and pending offsets.
    pub offsets: HashMap<String, Offsets>,
    /// Who has some.
    pub(super) with_pending: WithPending,
}

/// Blocking. Reads the whole topic.
pub fn replay(topic: &Topic) -> Result<Replayed, GroupError> {
    let mut replayed = Replayed::default();
    let partitions = topic.partitions.len();
    coordinator_log::replay(topic, |partition, batch, bytes| {
        if batch.is_control() {
            replayed.end_transaction(&batch, |group| partition_of(group, partitions) == partition)
        } else {
            replayed.take_batch(&batch, &bytes)
        }
    })?;
    Ok(replayed)
}

impl Replayed {
    /// A producer's transaction ends in the partition of the groups for which `is_there` holds.
    fn end_transaction(
        &mut self,
        batch: &Batch<'_>,
        is_there: impl Fn(&str) -> bool,
    ) -> storage::Result<()> {
        let ControlRecord::End { result, .. } = ControlRecord::of(batch)? else {
            return Ok(());
        };
        let committed = result == TransactionResult::Commit;
        let producer_id = batch.producer_id();
        for group in self.with_pending.take(producer_id, is_there) {
            if let Some(offsets) = self.offsets.get_mut(&group) {
                offsets.end_transaction(producer_id, committed);
            }
        }
        Ok(())
    }

    fn take_batch(&mut self, batch: &Batch<'_>, bytes: &Bytes) -> storage::Result<()> {
        let pending = batch.is_transactional().then(|| batch.producer_id());
        for record in records::decode(bytes, MAX_DECOMPRESSED_BYTES)? {
            let Some(key) = &record.key else { continue };
            let value = record.value.as_deref();
            if let Err(error) = self.take(key, value, record.offset, pending) {
                let offset = record.offset;
                tracing::warn!(offset, %error, "a record of {OFFSETS_TOPIC} is skipped");
            }
        }
        Ok(())
    }

    fn take(
        &mut self,
        key: &[u8],
        value: Option<&[u8]>,
        log_offset: Offset,
        pending: Option<i64>,
    ) -> Result<(), RecordError> {
        match (Key::decode(key)?, value) {
            (
                Some(Key::Offset {
                    group,
                    topic,
                    partition,
                }),
                Some(value),
            ) => {
                let value = OffsetCommitValue::decode(value)?;
                if let Some(producer_id) = pending {
                    self.with_pending.add(producer_id, group.clone());
                }
                let offsets = self.offsets.entry(group).or_default();
                match pending {
                    None => offsets.commit(&topic, partition, value, log_offset),
                    Some(producer_id) => {
                        offsets.pend(producer_id, &topic, partition, value, log_offset);
                    }
                }
            }
            (
                Some(Key::Offset {
                    group,
                    topic,
                    partition,
                }),
                None,
            ) => {
                if let Some(offsets) = self.offsets.get_mut(&group) {
                    offsets.remove_at(&topic, partition, log_offset);
                }
            }
            (Some(Key::Group { group }), Some(value)) => {
                self.groups
                    .insert(group, GroupMetadataValue::decode(value)?);
            }
            (Some(Key::Group { group }), None) => {
                self.groups.remove(&group);
            }
            (None, _) => {}
        }
        Ok(())
    }

    /// Drops offsets of partitions that are gone and clamps those beyond their log's end. Returns
    /// the records that make it last, by group.
    pub fn repair(&mut self, catalog: &Catalog) -> Vec<(String, Vec<OffsetChange>)> {
        let mut repairs = Vec::new();
        for (group, offsets) in &mut self.offsets {
            let mut changes = Vec::new();
            for (name, partitions) in offsets.topics() {
                let topic = catalog.topic(name);
                for (partition, value) in partitions {
                    let Some(repaired) = repaired(topic.as_deref(), partition, value) else {
                        continue;
                    };
                    tracing::warn!(
                        group,
                        topic = name,
                        partition,
                        committed_offset = value.offset,
                        clamped_to = repaired.as_ref().map(|value| value.offset),
                        "a committed offset is clamped to its log's end, or dropped with its topic"
                    );
                    changes.push((name.to_owned(), partition, repaired));
                }
            }
            let mut records = Vec::new();
            for (topic, partition, repaired) in changes {
                match &repaired {
                    Some(value) => offsets.replace(&topic, partition, value.clone()),
                    None => offsets.remove(&topic, partition),
                }
                let key = Key::Offset {
                    group: group.clone(),
                    topic,
                    partition,
                };
                records.push((key, repaired));
            }
            if !records.is_empty() {
                repairs.push((group.clone(), records));
            }
        }
        repairs
    }
}

/// `None` where a committed offset is as it should be, else what takes its place, if anything.
fn repaired(
    topic: Option<&Topic>,
    partition: i32,
    value: &OffsetCommitValue,
) -> Option<Option<OffsetCommitValue>> {
    let is_same = |topic: &&Topic| value.topic_id.is_none_or(|id| id == topic.id);
    let log = topic
        .filter(is_same)
        .and_then(|topic| topic.partitions.get(usize::try_from(partition).ok()?));
    let Some(log) = log else { return Some(None) };
    let end = log.offsets().log_end_offset;
    (value.offset > end).then(|| {
        Some(OffsetCommitValue {
            offset: end,
            ..value.clone()
        })
    })
}
