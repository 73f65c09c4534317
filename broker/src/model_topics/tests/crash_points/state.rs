//! A compacted topic: an offset says which record it has, so that what is left can be checked without a
//! list of what was appended.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use bytes::Bytes;
use storage::batch::{BatchBuilder, Compression};
use storage::compaction::{Compactor, CompactorConfig, Throttle};
use storage::partition_log::ReadLimit;
use storage::{LogDir, Offset, PartitionLog};

use super::super::world::{World, records};
use crate::catalog::{NewTopic, TopicKind};

const NAME: &str = "state";
const PRODUCER: i64 = 9;

pub(super) async fn create(world: &World) {
    let topic = NewTopic {
        name: NAME.to_owned(),
        partitions: 1,
        configs: BTreeMap::from([("cleanup.policy".to_owned(), "compact".to_owned())]),
        kind: TopicKind::Ordinary,
    };
    world.catalog().create_topic(topic).await.unwrap();
}

pub(super) fn log(world: &World) -> Option<Arc<PartitionLog>> {
    let topic = world.catalog().topic(NAME)?;
    Some(Arc::clone(&topic.partitions[0]))
}

/// Few keys, of which the last is written rarely.
fn key(offset: Offset) -> String {
    match offset % 9 {
        8 => format!("rare {}", offset % 4),
        n => format!("key {}", n % 4),
    }
}

/// Every fifth is a tombstone.
fn value(offset: Offset) -> Option<String> {
    (offset % 5 != 4).then(|| format!("value {offset}"))
}

/// One batch of the producer whose sequences are its offsets; a record's timestamp is its offset.
pub(super) fn produced(base: Offset, count: usize) -> Bytes {
    let mut batch =
        BatchBuilder::new(Compression::None).producer(PRODUCER, 0, i32::try_from(base).unwrap());
    for offset in base..base + count as Offset {
        let (key, value) = (key(offset), value(offset));
        let value = value.as_deref().map(str::as_bytes);
        batch.push(offset, Some(key.as_bytes()), value, &[]);
    }
    batch.build()
}

/// What is left is what was appended; of each key the newest record is, or nothing where that is a
/// tombstone.
pub(super) fn check(log: &PartitionLog) {
    let end = log.offsets().log_end_offset;
    let mut found: BTreeMap<String, Offset> = BTreeMap::new();
    for record in records(log, ReadLimit::HighWatermark).unwrap() {
        let offset = record.offset;
        let text =
            |bytes: Option<Bytes>| bytes.map(|bytes| String::from_utf8(bytes.to_vec()).unwrap());
        let left = (text(record.key), text(record.value), record.timestamp);
        assert_eq!(left, (Some(key(offset)), value(offset), offset));
        found.insert(key(offset), offset);
    }
    let expected: BTreeMap<String, Offset> = (0..end).map(|offset| (key(offset), offset)).collect();
    for (key, offset) in expected {
        match found.get(&key) {
            Some(newest) => assert_eq!(*newest, offset, "an older record of {key}"),
            None => assert_eq!(value(offset), None, "{key} at {offset} is lost"),
        }
    }
}

/// Compacts whatever is due; returns the topics.
pub(super) fn compact(world: &World) -> BTreeSet<String> {
    compact_all(world.log_dir())
}

/// The same of a data folder.
pub(in super::super) fn compact_all(log_dir: &LogDir) -> BTreeSet<String> {
    let config = CompactorConfig {
        dedupe_buffer_bytes: 10_000,
        io_buffer_bytes: 1_000,
        ..CompactorConfig::default()
    };
    let (throttle, stop) = (Throttle::new(None), AtomicBool::new(false));
    let mut compactor = Compactor::new(config, throttle.into(), stop.into());
    let mut compacted = BTreeSet::new();
    while let Some(pass) = log_dir.compact_next(&mut compactor) {
        pass.outcome.unwrap();
        compacted.insert(pass.log.topic().to_owned());
    }
    compacted
}
