//! What the coordinators of groups and of transactions have in common: each keeps its state in an
//! internal compacted topic, created at first use, in Kafka's record schemas.
//!
//! All that there is about one key (a group, a transactional id) is in one partition,
//! `abs(hash(key)) % partitions` with Java's `String.hashCode`, as Kafka's own. [`fields`] reads and
//! writes what keys and values are made of.

pub mod fields;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use kafka_protocol::ResponseError;
use storage::batch::{Batch, BatchBuilder, Compression, batches};
use storage::partition_log::{Durability, Read, ReadLimit};
use storage::{Offset, PartitionLog};

use crate::catalog::{Catalog, CatalogError, NewTopic, Topic, TopicKind};

/// Kafka's `offsets.topic.segment.bytes` and `transaction.state.log.segment.bytes`: small, so that
/// compaction reaches most of the log.
const SEGMENT_BYTES: &str = "104857600";

/// One batch holds about this many bytes of records at most, well below `max.message.bytes`.
const BATCH_BYTES: usize = 512 * 1024;

/// Bytes per read of a replay.
const READ_BYTES: usize = 1024 * 1024;

/// No batch of these topics is compressed, so none becomes larger than it is.
pub const MAX_DECOMPRESSED_BYTES: usize = 64 * 1024 * 1024;

/// A record to write: a null value removes what the key names.
pub type Record = (Bytes, Option<Bytes>);

/// Why a coordinator's topic could not be read or written.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LogError {
    /// It can't be created.
    #[error("create {topic}: {error}")]
    Create {
        /// The topic.
        topic: &'static str,
        /// Why.
        error: CatalogError,
    },
    /// It can't be written.
    #[error("write {topic}: {error}")]
    Write {
        /// The topic.
        topic: &'static str,
        /// Why.
        error: storage::Error,
    },
    /// One of its partitions can't be read.
    #[error("read {topic}-{partition} at offset {offset}: {error}")]
    Read {
        /// The topic.
        topic: String,
        /// The partition.
        partition: usize,
        /// Where.
        offset: Offset,
        /// Why.
        error: storage::Error,
    },
    /// It does not exist, or has no partitions.
    #[error("{0} does not exist")]
    Missing(&'static str),
    /// The broker stops.
    #[error("the broker is stopping")]
    Stopping,
}

impl LogError {
    /// It was said already, where the disk was found to be full or the partition became read-only.
    pub fn is_said(&self) -> bool {
        match self {
            Self::Write { error, .. } => {
                error.is_disk_full() || matches!(error, storage::Error::ReadOnly(_))
            }
            _ => false,
        }
    }

    /// What clients are told. As in Kafka's coordinators, whatever may pass is
    /// COORDINATOR_NOT_AVAILABLE: clients look for their coordinator and try again.
    pub fn code(&self) -> ResponseError {
        match self {
            Self::Write {
                error: storage::Error::BatchTooLarge { .. },
                ..
            } => ResponseError::UnknownServerError,
            Self::Create { .. }
            | Self::Write { .. }
            | Self::Read { .. }
            | Self::Missing(_)
            | Self::Stopping => ResponseError::CoordinatorNotAvailable,
        }
    }
}

/// The topic, which is created where it does not exist.
pub async fn ensure(
    catalog: &Catalog,
    name: &'static str,
    partitions: i32,
) -> Result<Arc<Topic>, LogError> {
    if let Some(topic) = catalog.topic(name) {
        return Ok(topic);
    }
    let config = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let new = NewTopic {
        name: name.to_owned(),
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
        Err(CatalogError::TopicExists(_)) => catalog.topic(name).ok_or(LogError::Missing(name)),
        Err(error) => Err(LogError::Create { topic: name, error }),
    }
}

/// The partition that a key's records are in.
pub fn partition_of(key: &str, partitions: usize) -> usize {
    // i32::MIN has no absolute value; Kafka takes 0 for it.
    let hash = java_hash_code(key).checked_abs().unwrap_or(0);
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
    topic: &'static str,
    /// The key's partition.
    pub log: Arc<PartitionLog>,
    /// The records' offsets, in order and without gaps.
    pub offsets: Range<Offset>,
}

impl Written {
    /// The records are on the device.
    pub fn is_durable(&self) -> bool {
        self.log.offsets().synced_offset >= self.offsets.end
    }

    /// Resolves when the records are on the device.
    pub async fn wait(self) -> Result<(), LogError> {
        let (topic, end) = (self.topic, self.offsets.end);
        let durable = self.log.wait(end, Durability::Disk).await;
        durable.map_err(|error| LogError::Write { topic, error })
    }
}

/// A producer whose transaction records are part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InTransaction {
    /// The producer.
    pub producer_id: i64,
    /// Its epoch.
    pub producer_epoch: i16,
}

/// Where records are appended.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The topic.
    pub topic: &'static str,
    /// What the records are about.
    pub key: &'a str,
    /// Their time.
    pub timestamp_ms: i64,
}

/// Appends records of one key, in order. As every batch, none may be larger than the topic's
/// `max.message.bytes`: what says more about itself can't be stored.
pub fn append(
    catalog: &Catalog,
    place: Place<'_>,
    records: &[Record],
) -> Result<Written, LogError> {
    append_as(catalog, place, None, records)
}

/// As [`append`], in a producer's transaction, where they are one.
pub fn append_as(
    catalog: &Catalog,
    place: Place<'_>,
    transaction: Option<InTransaction>,
    records: &[Record],
) -> Result<Written, LogError> {
    let name = place.topic;
    let topic = catalog.topic(name).ok_or(LogError::Missing(name))?;
    let partition = partition_of(place.key, topic.partitions.len());
    let log = topic.partitions.get(partition);
    let log = log.ok_or(LogError::Missing(name))?;
    let failed = |error| LogError::Write { topic: name, error };
    let limit = topic.config.log.max_message_bytes as usize;
    let new_batch = || {
        let batch = BatchBuilder::new(Compression::None);
        match transaction {
            None => batch,
            Some(of) => batch
                .producer(of.producer_id, of.producer_epoch, -1)
                .transactional(),
        }
    };
    let batch_bytes = BATCH_BYTES.min(limit / 2);
    let mut bytes = Vec::new();
    let mut add = |batch: BatchBuilder| {
        let batch = batch.build();
        if batch.len() > limit {
            let size = batch.len();
            return Err(failed(storage::Error::BatchTooLarge { size, limit }));
        }
        bytes.extend_from_slice(&batch);
        Ok(())
    };
    let mut batch = new_batch();
    for (key, value) in records {
        batch.push(place.timestamp_ms, Some(key), value.as_deref(), &[]);
        if batch.size_in_bytes() >= batch_bytes {
            add(std::mem::replace(&mut batch, new_batch()))?;
        }
    }
    if !batch.is_empty() {
        add(batch)?;
    }
    let bytes = Bytes::from(bytes);
    let appended = match transaction {
        None => log.append_internal(&bytes),
        Some(_) => log.append_unsequenced(&bytes),
    };
    Ok(Written {
        topic: name,
        log: Arc::clone(log),
        offsets: appended.map_err(failed)?,
    })
}

/// Blocking. Reads the whole topic: every batch, and its bytes.
pub fn replay(
    topic: &Topic,
    mut take: impl FnMut(usize, Batch<'_>, Bytes) -> storage::Result<()>,
) -> Result<(), LogError> {
    for (partition, log) in topic.partitions.iter().enumerate() {
        let offsets = log.offsets();
        let mut next = offsets.log_start_offset;
        while next < offsets.log_end_offset {
            let failed = |error| LogError::Read {
                topic: topic.name.clone(),
                partition,
                offset: next,
                error,
            };
            let fetched = match log.read(next, READ_BYTES, true, ReadLimit::LogEnd) {
                Ok(Read::Warm(fetched)) => fetched,
                Ok(Read::Cold(cold)) => cold.load().map_err(failed)?,
                Err(error) => return Err(failed(error)),
            };
            let mut position = 0;
            let mut end = next;
            for batch in batches(&fetched.records) {
                let batch = batch.map_err(failed)?;
                let whole = position..position + batch.size_in_bytes();
                position = whole.end;
                end = batch.next_offset();
                take(partition, batch, fetched.records.slice(whole)).map_err(failed)?;
            }
            if end <= next {
                break;
            }
            next = end;
        }
    }
    Ok(())
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
