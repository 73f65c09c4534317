//! `__consumer_offsets`: an internal compacted topic, created at first use.
//!
//! A group's records are all in one partition, `abs(hash(group)) % partitions` with Java's
//! `String.hashCode`, as Kafka's own.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use storage::batch::{BatchBuilder, Compression, batches, records};
use storage::partition_log::{Durability, Read, ReadLimit};
use storage::{Offset, PartitionLog};

use super::GroupError;
use super::offsets::Offsets;
use super::records::{GroupMetadataValue, Key, OffsetCommitValue, RecordError};
use crate::catalog::{Catalog, CatalogError, NewTopic, Topic, TopicKind};

/// Kafka's name for it.
pub const OFFSETS_TOPIC: &str = "__consumer_offsets";

/// Kafka's `offsets.topic.segment.bytes`: small, so that compaction reaches most of the log.
const SEGMENT_BYTES: &str = "104857600";

/// One batch holds about this many bytes of records at most, well below `max.message.bytes`.
const BATCH_BYTES: usize = 512 * 1024;

/// Bytes per read of a replay.
const READ_BYTES: usize = 1024 * 1024;

/// No batch of this topic is compressed, so none becomes larger than it is.
const MAX_DECOMPRESSED_BYTES: usize = 64 * 1024 * 1024;

/// A record to write: a null value removes what the key names.
pub type Record = (Bytes, Option<Bytes>);

/// A committed offset's key and value; without a value it is removed.
pub type OffsetChange = (Key, Option<OffsetCommitValue>);

/// The topic, which is created where it does not exist.
pub async fn ensure(catalog: &Catalog, partitions: i32) -> Result<Arc<Topic>, GroupError> {
    if let Some(topic) = catalog.topic(OFFSETS_TOPIC) {
        return Ok(topic);
    }
    let config = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let new = NewTopic {
        name: OFFSETS_TOPIC.to_owned(),
        partitions,
        configs: BTreeMap::from([
            config("cleanup.policy", "compact"),
            config("compression.type", "producer"),
            config("segment.bytes", SEGMENT_BYTES),
        ]),
        kind: TopicKind::Internal,
    };
    match catalog.create_topic(new).await {
        Ok(topic) => Ok(topic),
        // Somebody else was faster.
        Err(CatalogError::TopicExists(_)) => {
            catalog.topic(OFFSETS_TOPIC).ok_or(GroupError::NoTopic)
        }
        Err(error) => Err(error.into()),
    }
}

/// The partition that a group's records are in.
pub fn partition_of(group: &str, partitions: usize) -> usize {
    // i32::MIN has no absolute value; Kafka takes 0 for it.
    let hash = java_hash_code(group).checked_abs().unwrap_or(0);
    usize::try_from(hash)
        .unwrap_or(0)
        .checked_rem(partitions)
        .unwrap_or(0)
}

/// Java's `String.hashCode`: over UTF-16 code units.
fn java_hash_code(string: &str) -> i32 {
    string.encode_utf16().fold(0, |hash: i32, unit| {
        hash.wrapping_mul(31).wrapping_add(i32::from(unit))
    })
}

/// What an append came to: wait for it to be durable with [`PartitionLog::wait`].
#[derive(Clone, Debug)]
pub struct Written {
    /// The group's partition.
    pub log: Arc<PartitionLog>,
    /// The records' offsets, in order and without gaps.
    pub offsets: Range<Offset>,
}

impl Written {
    /// Resolves when the records are on the device.
    pub async fn wait(self) -> Result<(), GroupError> {
        let end = self.offsets.end;
        self.log
            .wait(end, Durability::Disk)
            .await
            .map_err(GroupError::Write)
    }
}

/// Appends records of one group, in order. As every batch, none may be larger than the topic's
/// `max.message.bytes`: a group that says more about itself can't be stored.
pub fn append(
    catalog: &Catalog,
    group: &str,
    timestamp_ms: i64,
    records: &[Record],
) -> Result<Written, GroupError> {
    let topic = catalog.topic(OFFSETS_TOPIC).ok_or(GroupError::NoTopic)?;
    let partition = partition_of(group, topic.partitions.len());
    let log = topic.partitions.get(partition).ok_or(GroupError::NoTopic)?;
    let limit = topic.config.log.max_message_bytes as usize;
    let batch_bytes = BATCH_BYTES.min(limit / 2);
    let mut bytes = Vec::new();
    let mut add = |batch: BatchBuilder| {
        let batch = batch.build();
        if batch.len() > limit {
            let size = batch.len();
            return Err(GroupError::Write(storage::Error::BatchTooLarge {
                size,
                limit,
            }));
        }
        bytes.extend_from_slice(&batch);
        Ok(())
    };
    let mut batch = BatchBuilder::new(Compression::None);
    for (key, value) in records {
        batch.push(timestamp_ms, Some(key), value.as_deref(), &[]);
        if batch.size_in_bytes() >= batch_bytes {
            add(std::mem::replace(
                &mut batch,
                BatchBuilder::new(Compression::None),
            ))?;
        }
    }
    if !batch.is_empty() {
        add(batch)?;
    }
    let offsets = log
        .append_internal(&Bytes::from(bytes))
        .map_err(GroupError::Write)?;
    Ok(Written {
        log: Arc::clone(log),
        offsets,
    })
}

/// What the topic holds.
#[derive(Debug, Default)]
pub struct Replayed {
    /// Generations and members.
    pub groups: HashMap<String, GroupMetadataValue>,
    /// Committed offsets.
    pub offsets: HashMap<String, Offsets>,
}

/// Blocking. Reads the whole topic.
pub fn replay(topic: &Topic) -> Result<Replayed, GroupError> {
    let mut replayed = Replayed::default();
    for (partition, log) in topic.partitions.iter().enumerate() {
        let offsets = log.offsets();
        let mut next = offsets.log_start_offset;
        while next < offsets.log_end_offset {
            let failed = |error| GroupError::Read {
                partition,
                offset: next,
                error,
            };
            let fetched = match log.read(next, READ_BYTES, true, ReadLimit::LogEnd) {
                Ok(Read::Warm(fetched)) => fetched,
                Ok(Read::Cold(cold)) => cold.load().map_err(failed)?,
                Err(error) => return Err(failed(error)),
            };
            let end = replayed.take_batches(&fetched.records).map_err(failed)?;
            match end {
                Some(end) if end > next => next = end,
                _ => break,
            }
        }
    }
    Ok(replayed)
}

impl Replayed {
    /// Takes whole batches in; returns the offset after them.
    fn take_batches(&mut self, bytes: &Bytes) -> storage::Result<Option<Offset>> {
        let mut end = None;
        let mut position = 0;
        for batch in batches(bytes) {
            let batch = batch?;
            let whole = position..position + batch.size_in_bytes();
            position = whole.end;
            end = Some(batch.last_offset() + 1);
            if batch.is_control() {
                continue;
            }
            for record in records::decode(&bytes.slice(whole), MAX_DECOMPRESSED_BYTES)? {
                let Some(key) = &record.key else { continue };
                if let Err(error) = self.take(key, record.value.as_deref(), record.offset) {
                    let offset = record.offset;
                    tracing::warn!(offset, %error, "a record of {OFFSETS_TOPIC} is skipped");
                }
            }
        }
        Ok(end)
    }

    fn take(
        &mut self,
        key: &[u8],
        value: Option<&[u8]>,
        log_offset: Offset,
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
                let offsets = self.offsets.entry(group).or_default();
                offsets.commit(&topic, partition, value, log_offset);
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
                    offsets.remove(&topic, partition);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_where_kafka_puts_them() {
        assert_eq!(java_hash_code(""), 0);
        assert_eq!(java_hash_code("abc"), 96_354);
        assert_eq!(java_hash_code("polygenelubricants"), i32::MIN);
        assert_eq!(java_hash_code("Grüße 🦀"), 412023115);
        assert_eq!(partition_of("abc", 50), 4);
        assert_eq!(partition_of("polygenelubricants", 50), 0);
        assert_eq!(partition_of("abc", 0), 0);
    }
}
