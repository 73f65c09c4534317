//! What a log does not keep, and how long files stay that it has given up.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use faulty_disk::{Call, FaultyDisk};
use storage::batch::Compression;
use storage::clock::Clock;
use storage::disk::{Disk, RealDisk};
use storage::log_dir::{LogDirConfig, OpenLog, Retained};
use storage::partition_log::{DeleteTo, Read, ReadLimit, Visibility};
use storage::retention::Reason;
use storage::{Error, LogConfig, LogDir, Offset, PartitionLog};

use crate::fixture::*;

const START_MS: i64 = 1_000_000_000_000;

/// A data folder whose time is the test's.
struct World {
    dir: LogDir,
    now_ms: Arc<AtomicI64>,
}

impl World {
    fn open(path: &Path) -> Self {
        Self::open_on(Arc::new(RealDisk), path)
    }

    fn open_on(disk: Arc<dyn Disk>, path: &Path) -> Self {
        let now_ms = Arc::new(AtomicI64::new(START_MS));
        let told = Arc::clone(&now_ms);
        let config = LogDirConfig {
            path: path.to_owned(),
            node_id: 0,
            sync_threads: 1,
            recovery_threads: 1,
        };
        let clock = Clock::new(move || told.load(Ordering::Relaxed));
        let dir = LogDir::open_with_clock(config, disk, clock).expect("opens the folder");
        Self { dir, now_ms }
    }

    fn now(&self) -> i64 {
        self.now_ms.load(Ordering::Relaxed)
    }

    fn pass(&self, ms: i64) {
        self.now_ms.fetch_add(ms, Ordering::Relaxed);
    }

    /// Appends `batches` of three records, of this moment.
    fn fill(&self, log: &PartitionLog, batches: usize) {
        for _ in 0..batches {
            let end = log.offsets().log_end_offset;
            let batch = batch_at(end, &[self.now(); 3], Compression::None);
            log.append(&batch).expect("appends");
        }
    }

    /// What went of the only log, by reason, and where it begins.
    fn retain(&self) -> Option<(Vec<(Reason, usize)>, Offset)> {
        let mut retained = self.dir.apply_retention();
        assert!(retained.len() <= 1, "{retained:?}");
        let Retained {
            removals,
            log_start_offset,
            ..
        } = retained.pop()?;
        let removals = removals.iter().map(|gone| (gone.reason, gone.segments));
        Some((removals.collect(), log_start_offset.expect("retains")))
    }
}

/// Keeps for a minute; nothing is deleted by size.
fn for_a_minute() -> LogConfig {
    LogConfig {
        retention_ms: 60_000,
        ..small_segments()
    }
}

fn bases(path: &Path) -> Vec<Offset> {
    let base = |file: &std::path::PathBuf| file.file_stem()?.to_str()?.parse().ok();
    files(path, "log").iter().filter_map(base).collect()
}

fn set(log: &PartitionLog, config: LogConfig) {
    log.set_config(Arc::new(config));
}

#[test]
fn segments_go_when_their_newest_record_is_too_old() {
    let folder = tempfile::tempdir().expect("a folder");
    let world = World::open(folder.path());
    let log = open_log(&world.dir, for_a_minute());
    world.fill(&log, 20);
    world.pass(60_000);
    world.fill(&log, 20);
    let before = bases(folder.path());
    assert_eq!(world.retain(), None, "a minute is not more than a minute");
    world.pass(1);
    let (gone, start) = world.retain().expect("some go");
    // The segment that has both stays.
    assert!(start <= 60 && start >= before[1], "{start} of {before:?}");
    let count = before.iter().filter(|base| **base < start).count();
    assert_eq!(gone, [(Reason::Time, count)]);
    assert_eq!(bases(folder.path()), before[count..]);
    assert_eq!(log.offsets().log_start_offset, start);
    let expected: Vec<_> = (start..120).map(|number| (number, number)).collect();
    assert_eq!(read_all(&log, start, 700), expected);
    assert_eq!(world.retain(), None, "nothing more");

    // All of it, and the log goes on.
    world.pass(60_001);
    let (gone, start) = world.retain().expect("the rest goes");
    assert_eq!((gone[0].0, start), (Reason::Time, 120));
    assert_eq!((log.size_bytes(), bases(folder.path())), (0, vec![120]));
    assert_eq!(world.retain(), None, "an empty log keeps its segment");
    world.fill(&log, 1);
    assert_eq!(read_all(&log, 120, 700).len(), 3);
    drop((log, world));
    let world = World::open(folder.path());
    let log = open_log(&world.dir, for_a_minute());
    let offsets = log.offsets();
    assert_eq!(
        (offsets.log_start_offset, offsets.log_end_offset),
        (120, 123)
    );
}

#[test]
fn segments_go_while_what_stays_is_large_enough() {
    let folder = tempfile::tempdir().expect("a folder");
    let world = World::open(folder.path());
    let log = open_log(&world.dir, small_segments());
    world.fill(&log, 60);
    let size = log.size_bytes();
    assert_eq!(world.retain(), None);
    for retention_bytes in [size as i64, 2_500, 2_500, 0] {
        set(
            &log,
            LogConfig {
                retention_bytes,
                ..small_segments()
            },
        );
        let before = log.size_bytes();
        let gone = world.retain();
        let after = log.size_bytes();
        if retention_bytes == 0 {
            assert_eq!((after, log.offsets().log_start_offset), (0, 180));
            continue;
        }
        assert!(after >= retention_bytes as u64);
        assert!(after < retention_bytes as u64 + 1_000);
        assert_eq!(gone.is_some(), after < before);
    }
}

#[test]
fn a_changed_configuration_holds_from_the_next_check_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let world = World::open(folder.path());
    let compacted = LogConfig {
        compact: true,
        delete: false,
        retention_bytes: 0,
        ..for_a_minute()
    };
    let log = open_log(&world.dir, compacted);
    world.fill(&log, 20);
    world.pass(60_001);
    assert_eq!(world.retain(), None, "it is compacted");
    set(
        &log,
        LogConfig {
            retention_ms: -1,
            ..small_segments()
        },
    );
    assert_eq!(world.retain(), None, "it is kept for ever");
    set(&log, for_a_minute());
    assert_eq!(world.retain().expect("goes").1, 60);
}

#[test]
fn records_without_a_timestamp_are_as_old_as_their_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let world = World::open(folder.path());
    let log = open_log(&world.dir, for_a_minute());
    let append = |count: usize| {
        for _ in 0..count {
            let end = log.offsets().log_end_offset;
            let batch = batch_at(end, &[-1; 3], Compression::None);
            log.append(&batch).expect("appends");
        }
    };
    append(40);
    // The files are of the machine's own time.
    let now = Clock::system().now_ms();
    world.now_ms.store(now + 50_000, Ordering::Relaxed);
    assert_eq!(world.retain(), None);
    world.pass(60_000);
    assert_eq!(world.retain().expect("goes").1, 120);
}

#[test]
fn a_timestamp_from_the_future_keeps_its_segment() {
    let folder = tempfile::tempdir().expect("a folder");
    let world = World::open(folder.path());
    let config = LogConfig {
        message_timestamp_after_max_ms: i64::MAX,
        ..for_a_minute()
    };
    let log = open_log(&world.dir, config);
    world.fill(&log, 20);
    let future = batch_at(60, &[i64::MAX - 1, 5, i64::MAX], Compression::Lz4);
    log.append(&future).expect("appends");
    world.fill(&log, 20);
    world.pass(60_001);
    let (_, start) = world.retain().expect("those before go");
    assert!(start <= 60);
    assert_eq!(world.retain(), None);
    assert_eq!(log.offsets().log_end_offset, 123);
}

#[test]
fn a_derived_log_is_retained_up_to_what_is_published() {
    let folder = tempfile::tempdir().expect("a folder");
    let world = World::open(folder.path());
    let log = open_as(&world.dir, for_a_minute(), Visibility::Derived);
    for number in 0..60 {
        let batch = batch_at(number, &[world.now()], Compression::None);
        log.stage(&batch).expect("stages");
    }
    world.pass(60_001);
    assert_eq!(world.retain(), None, "nobody knows what of it is published");
    log.publish(0).expect("publishes");
    assert_eq!(world.retain(), None, "nothing is published");
    let before = bases(folder.path());
    log.publish(before[2] + 1).expect("publishes");
    assert_eq!(world.retain().expect("goes").1, before[2]);
    assert_eq!(bases(folder.path()), before[2..]);
    log.publish(60).expect("publishes");
    assert_eq!(world.retain().expect("goes").1, 60);
}

/// Counts what is opened.
fn counting(folder: &Path) -> (World, FaultyDisk) {
    let disk = FaultyDisk::over(folder);
    (World::open_on(Arc::new(disk.clone()), folder), disk)
}

/// Files opened since the last time.
fn opened(disk: &FaultyDisk) -> usize {
    let opened = disk.calls(Call::Open).len();
    disk.forget_calls();
    opened
}

#[test]
fn a_check_that_finds_nothing_opens_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let many = |world: &World| {
        let wanted = |partition| OpenLog {
            topic: "events".to_owned(),
            topic_id: TOPIC_ID,
            partition,
            config: Arc::new(for_a_minute()),
            visibility: Visibility::Ordinary,
        };
        let logs = (0..20).map(wanted).collect();
        world.dir.open_logs(logs).expect("opens the logs")
    };
    let (world, disk) = counting(folder.path());
    for log in many(&world) {
        world.fill(&log, 20);
    }
    opened(&disk);
    assert!(world.dir.apply_retention().is_empty());
    assert_eq!(opened(&disk), 0, "what was appended is known");
    world.dir.shutdown().expect("stops");
    drop(world);

    let (world, disk) = counting(folder.path());
    let logs = many(&world);
    opened(&disk);
    assert!(world.dir.apply_retention().is_empty());
    assert_eq!(opened(&disk), 60, "the files of the oldest segment of each");
    assert!(world.dir.apply_retention().is_empty());
    assert_eq!(opened(&disk), 0);
    for log in &logs {
        assert_eq!(log.offsets().log_start_offset, 0);
    }
}

/// As [`for_a_minute`]; files stay for ten seconds.
fn with_delay() -> LogConfig {
    LogConfig {
        file_delete_delay_ms: 10_000,
        ..for_a_minute()
    }
}

#[test]
fn files_stay_until_their_delay_has_passed() {
    let folder = tempfile::tempdir().expect("a folder");
    let world = World::open(folder.path());
    let log = open_log(&world.dir, with_delay());
    world.fill(&log, 40);
    let before = bases(folder.path());
    world.pass(60_001);
    let retained = world.dir.apply_retention();
    assert_eq!(retained.len(), 1);
    assert_eq!(log.size_bytes(), 0, "what left the log is not in its size");
    let mut all = before.clone();
    all.push(120);
    assert_eq!(bases(folder.path()), all, "the files are there");
    assert!(matches!(
        fetch(&log, 0, 100),
        Err(Error::OffsetOutOfRange { start: 120, .. })
    ));
    world.pass(9_999);
    assert!(!world.dir.has_due_files());
    world.dir.remove_due_files();
    assert_eq!(bases(folder.path()), all);
    world.pass(1);
    assert!(world.dir.has_due_files());
    world.dir.remove_due_files();
    assert_eq!(bases(folder.path()), [120]);
    assert_eq!(files(folder.path(), "index").len(), 1);
    assert_eq!(files(folder.path(), "timeindex").len(), 1);
    assert!(!world.dir.has_due_files());
}

#[test]
fn files_that_waited_when_the_process_ended_go_at_the_next_start() {
    for clean in [true, false] {
        let folder = tempfile::tempdir().expect("a folder");
        let world = World::open(folder.path());
        let log = open_log(&world.dir, with_delay());
        world.fill(&log, 40);
        let before = bases(folder.path());
        let start = before[3] + 2;
        let deleted = world
            .dir
            .delete_records(&[(Arc::clone(&log), DeleteTo::Offset(start))]);
        assert_eq!(deleted[0].as_ref().ok(), Some(&start));
        assert_eq!(bases(folder.path()), before);
        if clean {
            world.dir.shutdown().expect("stops");
        }
        drop((log, world));
        assert_eq!(bases(folder.path()), before, "a stop waits for no delay");
        let world = World::open(folder.path());
        let log = open_log(&world.dir, with_delay());
        assert_eq!(bases(folder.path()), before[3..]);
        assert_eq!(log.offsets().log_start_offset, start);
        let found = read_all(&log, start, 700);
        assert_eq!(found.last(), Some(&(119, 119)));
    }
}

#[test]
fn a_read_that_has_begun_finds_its_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let world = World::open(folder.path());
    let log = open_log(&world.dir, small_segments());
    // Random bytes in large records: mincore has to say that they are not in memory.
    world.fill(&log, 40);
    world.dir.shutdown().expect("stops");
    drop((log, world));
    for file in files(folder.path(), "log") {
        evict(&file);
    }
    let world = World::open(folder.path());
    let log = open_log(&world.dir, small_segments());
    let before = bases(folder.path());
    for file in files(folder.path(), "log") {
        evict(&file);
    }
    let read = log
        .read(before[1], 10_000, true, ReadLimit::HighWatermark)
        .expect("reads");
    let Read::Cold(cold) = read else {
        // The file system keeps everything in memory: there is nothing to see here.
        return;
    };
    world
        .dir
        .delete_records(&[(Arc::clone(&log), DeleteTo::HighWatermark)]);
    world.dir.remove_due_files();
    assert_eq!(
        bases(folder.path()),
        [&before[..], &[120]].concat(),
        "they are held, although there is no delay"
    );
    let fetched = cold.load().expect("the file is there");
    assert!(!fetched.records.is_empty());
    world.dir.remove_due_files();
    assert_eq!(bases(folder.path()), [120]);
}

/// Throws a file's pages out of memory.
fn evict(path: &Path) {
    use std::os::fd::AsRawFd;
    let file = fs::File::open(path).expect("opens");
    file.sync_all().expect("syncs");
    // SAFETY: the call only reads its arguments.
    unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
}

#[test]
fn a_deleted_partition_keeps_its_files_for_the_delay() {
    let folder = tempfile::tempdir().expect("a folder");
    let world = World::open(folder.path());
    let log = open_log(&world.dir, with_delay());
    world.fill(&log, 40);
    world
        .dir
        .delete_records(&[(Arc::clone(&log), DeleteTo::Offset(50))]);
    world.dir.delete_log("events", 0).expect("deletes");
    drop(log);
    let aside = || {
        let entries = fs::read_dir(folder.path()).expect("lists");
        let names = entries.map(|entry| entry.expect("lists").file_name());
        names
            .filter(|name| name.to_string_lossy().ends_with("-delete"))
            .count()
    };
    assert_eq!(aside(), 1);
    // Another one of that name: what waits is not its files.
    let log = open_log(&world.dir, with_delay());
    world.fill(&log, 40);
    let before = bases(folder.path());
    assert_eq!(before[0], 0);
    world.pass(10_000);
    world.dir.remove_due_files();
    assert_eq!(aside(), 0);
    assert_eq!(bases(folder.path()), before);
    assert_eq!(read_all(&log, 0, 700).len(), 120);
}

#[test]
fn only_whole_segments_go_where_the_log_has_grown_since() {
    let folder = tempfile::tempdir().expect("a folder");
    let world = World::open(folder.path());
    let log = open_log(&world.dir, small_segments());
    world.fill(&log, 20);
    let before = bases(folder.path());
    let to = |offset| {
        let wanted = [(Arc::clone(&log), DeleteTo::WholeSegments(offset))];
        world.dir.delete_records(&wanted).remove(0)
    };
    // It was the end when that was decided.
    world.fill(&log, 1);
    assert_eq!(to(60).ok(), Some(0));
    assert_eq!(to(before[2] + 1).ok(), Some(0));
    assert_eq!(bases(folder.path())[..before.len()], before);
    assert_eq!(to(before[2]).ok(), Some(before[2]));
    assert_eq!(to(63).ok(), Some(63));
    assert_eq!(bases(folder.path()), [63]);
}
