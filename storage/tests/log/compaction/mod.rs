//! Compaction, on real files: what is left, who is not disturbed, and what a crash in its midst leaves.

mod faults;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use faulty_disk::{Call, FaultyDisk, Keep, Random, write_tree};
use storage::batch::header::batches;
use storage::batch::{BatchBuilder, Compression, records};
use storage::clock::Clock;
use storage::compaction::{CompactionStats, Compactor, CompactorConfig, Throttle};
use storage::disk::{Disk, RealDisk};
use storage::log_dir::LogDirConfig;
use storage::partition_log::{DeleteTo, Read, ReadLimit, Visibility};
use storage::{Error, LogConfig, LogDir, Offset, PartitionLog};

use crate::fixture::*;

const START_MS: i64 = 1_000_000_000_000;
pub const DELETE_RETENTION_MS: i64 = 60_000;

pub fn compacted() -> LogConfig {
    LogConfig {
        compact: true,
        delete: false,
        min_cleanable_dirty_ratio: 0.0,
        delete_retention_ms: DELETE_RETENTION_MS as u64,
        ..small_segments()
    }
}

/// A data folder with a log, whose time is the test's.
pub struct World {
    pub dir: LogDir,
    pub log: Arc<PartitionLog>,
    now_ms: Arc<AtomicI64>,
}

impl World {
    fn open(path: &Path) -> Self {
        Self::open_on(Arc::new(RealDisk), path, compacted())
    }

    pub fn open_on(disk: Arc<dyn Disk>, path: &Path, config: LogConfig) -> Self {
        let now_ms = Arc::new(AtomicI64::new(START_MS));
        let told = Arc::clone(&now_ms);
        let dir_config = LogDirConfig {
            path: path.to_owned(),
            node_id: 0,
            sync_threads: 1,
            recovery_threads: 1,
        };
        let clock = Clock::new(move || told.load(Ordering::Relaxed));
        let dir = LogDir::open_with_clock(dir_config, disk, clock).expect("opens the folder");
        let log = open_log(&dir, config);
        Self { dir, log, now_ms }
    }

    pub fn pass(&self, ms: i64) {
        self.now_ms.fetch_add(ms, Ordering::Relaxed);
    }

    /// Appends a batch of keys and values; a value that is missing is a tombstone.
    fn put(&self, records: &[(&str, Option<i64>)]) -> Offset {
        self.put_in(records, Compression::None)
    }

    fn put_in(&self, records: &[(&str, Option<i64>)], compression: Compression) -> Offset {
        let mut batch = BatchBuilder::new(compression);
        for (key, value) in records {
            let value = value.map(i64::to_be_bytes);
            let now_ms = self.now_ms.load(Ordering::Relaxed);
            batch.push(
                now_ms,
                Some(key.as_bytes()),
                value.as_ref().map(<[u8; 8]>::as_slice),
                &[],
            );
        }
        let appended = self.log.append(&batch.build()).expect("appends");
        appended.base_offset
    }

    /// Counts `keys` up, one batch each, so that there are many segments.
    fn count_up(&self, keys: usize, rounds: i64) {
        for round in 0..rounds {
            for key in 0..keys {
                self.put(&[(&format!("key-{key}"), Some(round))]);
            }
        }
    }

    pub fn compact(&self) -> Option<CompactionStats> {
        self.compact_with(&mut compactor(1 << 20))
    }

    pub fn compact_with(&self, compactor: &mut Compactor) -> Option<CompactionStats> {
        let compacted = self.dir.compact_next(compactor)?;
        Some(compacted.outcome.expect("compacts"))
    }
}

pub fn compactor(dedupe_buffer_bytes: u64) -> Compactor {
    let config = CompactorConfig {
        dedupe_buffer_bytes,
        io_buffer_bytes: 1000,
        ..CompactorConfig::default()
    };
    let stop = Arc::new(AtomicBool::new(false));
    Compactor::new(config, Arc::new(Throttle::new(None)), stop)
}

/// Every record, as (offset, key, value).
fn all(log: &PartitionLog) -> Vec<(Offset, String, Option<i64>)> {
    let mut found = Vec::new();
    let mut offset = log.offsets().log_start_offset;
    loop {
        let fetched = fetch(log, offset, 300).expect("reads");
        if fetched.records.is_empty() {
            assert_eq!(offset, log.offsets().log_end_offset);
            return found;
        }
        for batch in batches(&fetched.records) {
            let batch = batch.expect("a whole batch");
            batch.check_crc().expect("a sound batch");
            let bytes = fetched.records.slice_ref(batch.bytes());
            for record in records::decode(&bytes, 1 << 20).expect("decodes") {
                let key = String::from_utf8(record.key.expect("a key").to_vec()).expect("text");
                let value = record.value.map(|value| {
                    i64::from_be_bytes(value.as_ref().try_into().expect("eight bytes"))
                });
                found.push((record.offset, key, value));
            }
            offset = batch.next_offset();
        }
    }
}

/// The newest value of each key.
fn newest(log: &PartitionLog) -> BTreeMap<String, Option<i64>> {
    let records = all(log).into_iter();
    records.map(|(_, key, value)| (key, value)).collect()
}

#[test]
fn the_newest_record_of_each_key_is_left_at_its_offset() {
    let folder = folder_in_memory();
    let world = World::open(folder.path());
    world.count_up(5, 40);
    let before = all(&world.log);
    let newest_file = files(folder.path(), "log").pop().expect("one");
    let active = base(&newest_file).expect("a number");
    let stats = world.compact().expect("is due");
    let expected: Vec<_> = before
        .iter()
        .enumerate()
        .filter(|(at, (offset, key, _))| {
            // The map knows nothing of the active segment.
            *offset >= active
                || !before[at + 1..]
                    .iter()
                    .any(|(later, other, _)| *later < active && other == key)
        })
        .map(|(_, record)| record.clone())
        .collect();
    assert_eq!(all(&world.log), expected);
    assert_eq!(stats.end_offset, active);
    assert_eq!(stats.records_read, active as u64);
    assert_eq!(stats.records_kept, 5);
    assert!(stats.segments_before > 10 && stats.segments_after == 1);
    assert_eq!(files(folder.path(), "log").len(), 2);
    assert_eq!(world.log.offsets().log_end_offset, 200);
    assert!(world.compact().is_none(), "nothing is dirty");
    let checkpoint = fs::read_to_string(folder.path().join("cleaner-offset-checkpoint"));
    assert_eq!(
        checkpoint.expect("reads"),
        format!("0\n1\nevents 0 {active}\n")
    );
}

fn base(path: &Path) -> Option<Offset> {
    path.file_stem()?.to_str()?.parse().ok()
}

#[test]
fn every_offset_can_be_asked_for_and_times_are_found() {
    let folder = folder_in_memory();
    let world = World::open(folder.path());
    for round in 0..100 {
        world.pass(10);
        world.put(&[(&format!("key-{}", round % 7), Some(round))]);
        world.put(&[("always", Some(round))]);
    }
    world.compact().expect("is due");
    let left = all(&world.log);
    assert!(left.len() < 30);
    for offset in 0..200 {
        let fetched = fetch(&world.log, offset, 1).expect("reads");
        let first = batches(&fetched.records)
            .next()
            .expect("one")
            .expect("whole");
        let next = left.iter().find(|(left, ..)| *left >= offset).expect("one");
        assert!(first.base_offset() >= offset || first.last_offset() >= offset);
        assert!(first.base_offset() <= next.0, "{offset}");
        let found = world
            .log
            .offset_for_timestamp(START_MS + (offset / 2 + 1) * 10, ReadLimit::HighWatermark)
            .expect("looks up")
            .expect("is there");
        let expected = left.iter().find(|(left, ..)| left / 2 >= offset / 2);
        assert_eq!(found.offset, expected.expect("one").0);
    }
}

#[test]
fn a_restart_finds_what_compaction_has_left() {
    for clean in [true, false] {
        let folder = folder_in_memory();
        let before = {
            let world = World::open(folder.path());
            world.count_up(9, 30);
            world.compact().expect("is due");
            world.count_up(3, 2);
            if clean {
                world.dir.shutdown().expect("stops");
            }
            all(&world.log)
        };
        let world = World::open(folder.path());
        assert_eq!(world.dir.was_clean(), clean);
        assert_eq!(all(&world.log), before, "clean: {clean}");
        assert_eq!(world.log.damaged_ranges(), 0);
        world.count_up(9, 10);
        let newest_before = newest(&world.log);
        world.compact().expect("is due");
        assert_eq!(newest(&world.log), newest_before);
    }
}

#[test]
fn what_is_lost_before_there_was_a_checkpoint_is_no_gap() {
    let folder = folder_in_memory();
    {
        let world = World::open(folder.path());
        world.count_up(5, 40);
    }
    // A power cut: the names of the files are on the device, and not all that was in them.
    fs::write(&files(folder.path(), "log")[1], []).expect("cuts");
    let second = base(&files(folder.path(), "log")[1]).expect("a number");
    let world = World::open(folder.path());
    assert_eq!(world.log.offsets().log_end_offset, second);
    assert_eq!(all(&world.log).len(), second as usize);
}

#[test]
fn tombstones_go_when_their_time_has_come() {
    let folder = folder_in_memory();
    let world = World::open(folder.path());
    world.put(&[("gone", Some(1)), ("stays", Some(1))]);
    world.put(&[("gone", None)]);
    world.count_up(2, 20);
    world.compact().expect("is due");
    assert_eq!(newest(&world.log).get("gone"), Some(&None));
    let first = |world: &World| all(&world.log)[0].clone();
    assert_eq!(first(&world), (1, "stays".to_owned(), Some(1)));
    world.pass(DELETE_RETENTION_MS - 1);
    world.count_up(2, 20);
    world.compact().expect("is due");
    assert_eq!(newest(&world.log).get("gone"), Some(&None));
    world.pass(1);
    world.count_up(2, 20);
    let stats = world.compact().expect("is due");
    assert_eq!(stats.tombstones_dropped, 1);
    assert_eq!(newest(&world.log).get("gone"), None);
    assert_eq!(newest(&world.log).get("stays"), Some(&Some(1)));
}

#[test]
fn compressed_batches_stay_in_their_codec() {
    for codec in [
        Compression::Gzip,
        Compression::Snappy,
        Compression::Lz4,
        Compression::Zstd,
    ] {
        let folder = folder_in_memory();
        let world = World::open(folder.path());
        for round in 0..60 {
            let key = format!("key-{round}");
            world.put_in(&[("same", Some(round)), (&key, Some(round))], codec);
        }
        let before = newest(&world.log);
        let stats = world.compact().expect("is due");
        assert!(stats.records_kept > 40 && stats.records_kept < 60);
        assert_eq!(newest(&world.log), before);
        let fetched = fetch(&world.log, 0, 1 << 20).expect("reads");
        for batch in batches(&fetched.records) {
            let batch = batch.expect("whole");
            assert_eq!(batch.compression().expect("known"), codec);
        }
    }
}

#[test]
fn keys_that_do_not_fit_the_map_take_several_passes() {
    let folder = folder_in_memory();
    let world = World::open(folder.path());
    world.count_up(100, 4);
    let before = newest(&world.log);
    // 24 bytes for a key, and one of ten slots stays empty.
    let mut compactor = compactor(24 * 34);
    let mut passes = Vec::new();
    while let Some(stats) = world.compact_with(&mut compactor) {
        assert!(stats.map_entries <= 30 && stats.end_offset > stats.first_dirty_offset);
        assert_eq!(newest(&world.log), before);
        passes.push(stats);
    }
    assert!(passes.len() > 10, "{} passes", passes.len());
    assert!(passes[0].map_was_full && !passes.last().expect("one").map_was_full);
    let left = all(&world.log).len();
    assert!((100..120).contains(&left), "{left} records left");
}

#[test]
fn a_reader_keeps_the_segments_that_it_has() {
    let folder = folder_in_memory();
    let config = LogConfig {
        file_delete_delay_ms: 10_000,
        ..compacted()
    };
    let world = World::open_on(Arc::new(RealDisk), folder.path(), config.clone());
    world.count_up(5, 40);
    world.dir.shutdown().expect("stops");
    drop(world);
    // Nobody has opened a file of a closed segment in this process.
    let world = World::open_on(Arc::new(RealDisk), folder.path(), config);
    let before = fetch(&world.log, 0, 1 << 20).expect("reads");
    let copy = Bytes::copy_from_slice(&before.records);
    let cold: Vec<Read> = (10..30)
        .map(|offset| world.log.read(offset, 500, true, ReadLimit::HighWatermark))
        .map(|read| read.expect("reads"))
        .collect();
    let old = files(folder.path(), "log").len();
    for _ in 0..3 {
        world.count_up(5, 10);
        world.compact().expect("is due");
    }
    assert!(
        files(folder.path(), "deleted").len() >= 3 * (old - 1),
        "they wait"
    );
    for read in cold {
        let fetched = match read {
            Read::Warm(fetched) => fetched,
            Read::Cold(cold) => cold.load().expect("reads"),
        };
        assert!(!fetched.records.is_empty());
        for batch in batches(&fetched.records) {
            batch.expect("whole").check_crc().expect("sound");
        }
    }
    assert_eq!(before.records, copy);
    world.pass(10_000);
    drop(before);
    world.dir.remove_due_files();
    assert_eq!(files(folder.path(), "deleted").len(), 0);
    assert_eq!(newest(&world.log).len(), 5);
}

#[test]
fn a_producer_goes_on_though_its_records_are_gone() {
    for clean in [true, false] {
        let folder = folder_in_memory();
        let numbered = |sequence: i32, producer_id: i64| {
            let mut batch = BatchBuilder::new(Compression::None).producer(producer_id, 0, sequence);
            batch.push(START_MS, Some(b"one key"), Some(b"value"), &[]);
            batch.build()
        };
        {
            let world = World::open(folder.path());
            world.log.append(&numbered(0, 1)).expect("appends");
            world.log.append(&numbered(1, 1)).expect("appends");
            for sequence in 0..100 {
                world.log.append(&numbered(sequence, 2)).expect("appends");
            }
            world.compact().expect("is due");
            // The last batch of the first producer is there, and has no record.
            let fetched = fetch(&world.log, 0, 1).expect("reads");
            let first = batches(&fetched.records)
                .next()
                .expect("one")
                .expect("whole");
            assert_eq!((first.base_offset(), first.records_count()), (1, 0));
            assert_eq!((first.producer_id(), first.base_sequence()), (1, 1));
            if clean {
                world.dir.shutdown().expect("stops");
            } else {
                // Then the headers alone tell.
                for snapshot in files(folder.path(), "snapshot") {
                    fs::remove_file(snapshot).expect("removes");
                }
            }
        }
        let world = World::open(folder.path());
        assert!(
            world
                .log
                .append(&numbered(1, 1))
                .expect("answers")
                .duplicate
        );
        assert!(matches!(
            world.log.append(&numbered(3, 1)),
            Err(Error::OutOfOrderSequence { .. })
        ));
        assert!(
            !world
                .log
                .append(&numbered(2, 1))
                .expect("appends")
                .duplicate
        );
        assert!(
            !world
                .log
                .append(&numbered(100, 2))
                .expect("appends")
                .duplicate
        );
    }
}

#[test]
fn a_log_that_was_compacted_once_has_gaps_whatever_its_policy_is() {
    let folder = folder_in_memory();
    {
        let world = World::open(folder.path());
        world.count_up(5, 40);
        world.compact().expect("is due");
        world.count_up(5, 40);
        world.compact().expect("is due");
        world.dir.shutdown().expect("stops");
    }
    for _ in 0..2 {
        // The second time after an unclean stop.
        let config = LogConfig {
            compact: false,
            ..compacted()
        };
        let world = World::open_on(Arc::new(RealDisk), folder.path(), config);
        for offset in 0..world.log.offsets().log_end_offset {
            let fetched = fetch(&world.log, offset, 1).expect("reads");
            assert!(!fetched.records.is_empty());
        }
        assert_eq!(world.log.damaged_ranges(), 0);
        assert!(world.compact().is_none());
    }
}

#[test]
fn what_is_hidden_or_not_known_yet_is_not_compacted() {
    let folder = folder_in_memory();
    let dir = open_dir(folder.path());
    let log = open_as(&dir, compacted(), Visibility::Derived);
    let stage = || {
        let mut batch = BatchBuilder::new(Compression::None);
        batch.push(START_MS, Some(b"position"), Some(&[7; 100]), &[]);
        log.stage(&batch.build()).expect("stages").end
    };
    for _ in 0..30 {
        stage();
    }
    let published = stage();
    let mut compactor = compactor(1 << 20);
    assert!(dir.compact_next(&mut compactor).is_none());
    log.publish(published).expect("publishes");
    for _ in 0..30 {
        stage();
    }
    let stats = dir.compact_next(&mut compactor).expect("is due").outcome;
    let end = stats.expect("compacts").end_offset;
    assert!(end > 20 && end <= published, "{end} of {published}");
    log.discard_to(published).expect("discards");
    assert_eq!(log.offsets().log_end_offset, published);
}
