//! Lookups by timestamp.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use faulty_disk::{Call, Failure, Fault, FaultyDisk, Random};
use storage::batch::Compression;
use storage::partition_log::{DeleteTo, ReadLimit, TimestampAndOffset, Visibility};
use storage::{LogConfig, PartitionLog};

use crate::fixture::*;

/// Timestamps that go up and down, and repeat.
fn zigzag(count: i64) -> Vec<i64> {
    (0..count)
        .map(|n| 10_000 + n * 3 + (n * 7919) % 101 - 50)
        .collect()
}

#[test]
fn the_first_offset_at_or_after_a_timestamp_is_found() {
    for compression in [Compression::None, Compression::Zstd, Compression::Lz4] {
        let folder = tempfile::tempdir().expect("a folder");
        let dir = open_dir(folder.path());
        let log = open_log(&dir, small_segments());
        let timestamps = zigzag(400);
        for (index, chunk) in timestamps.chunks(5).enumerate() {
            log.append(&batch_at(index as i64 * 5, chunk, compression))
                .expect("appends");
        }
        for wanted in (9_900..11_400).step_by(7) {
            let expected = timestamps.iter().position(|timestamp| *timestamp >= wanted);
            let found = log
                .offset_for_timestamp(wanted, ReadLimit::HighWatermark)
                .expect("looks up");
            assert_eq!(
                found.map(|found| (found.offset, found.timestamp_ms)),
                expected.map(|index| (index as i64, timestamps[index])),
                "at {wanted}"
            );
        }
        let largest = *timestamps.iter().max().expect("not empty");
        let expected = timestamps
            .iter()
            .position(|timestamp| *timestamp == largest);
        let found = log.max_timestamp().expect("looks up").expect("not empty");
        assert_eq!(
            (Some(found.offset as usize), found.timestamp_ms),
            (expected, largest)
        );
        assert_eq!(found.leader_epoch, 0);
    }
}

#[test]
fn lookups_survive_restarts() {
    let folder = tempfile::tempdir().expect("a folder");
    let timestamps = zigzag(200);
    for (round, chunk) in timestamps.chunks(50).enumerate() {
        let dir = open_dir(folder.path());
        let log = open_log(&dir, small_segments());
        for (index, chunk) in chunk.chunks(2).enumerate() {
            let first = (round * 50 + index * 2) as i64;
            log.append(&batch_at(first, chunk, Compression::None))
                .expect("appends");
        }
        // Clean and unclean in turn.
        if round % 2 == 0 {
            dir.shutdown().expect("stops");
        }
    }
    let dir = open_dir(folder.path());
    let log = open_log(&dir, small_segments());
    for (index, timestamp) in timestamps.iter().enumerate() {
        let expected = timestamps.iter().position(|other| other >= timestamp);
        let found = log
            .offset_for_timestamp(*timestamp, ReadLimit::HighWatermark)
            .expect("looks up");
        assert_eq!(
            found.map(|found| found.offset as usize),
            expected,
            "record {index}"
        );
    }
}

#[test]
fn an_empty_log_has_no_timestamps() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = open_dir(folder.path());
    let log = open_log(&dir, LogConfig::default());
    assert_eq!(log.max_timestamp().expect("looks up"), None);
    assert_eq!(
        log.offset_for_timestamp(0, ReadLimit::HighWatermark)
            .expect("looks up"),
        None
    );
    log.append(&batch_at(0, &[-1], Compression::None))
        .expect("appends");
    assert_eq!(log.max_timestamp().expect("looks up"), None);
}

/// A timestamp near `now`: later, earlier, the same again, or none.
fn some_timestamp(random: &mut Random, now: &mut i64) -> i64 {
    *now += random.below(20) as i64;
    match random.below(20) {
        0..3 => -1,
        3..6 => random.below(5) as i64 * 100,
        6..8 => *now + random.below(2_000) as i64,
        8..14 => (*now - random.below(500) as i64).max(0),
        _ => *now,
    }
}

fn one_of<T: Copy>(random: &mut Random, choices: &[T]) -> T {
    choices[random.below(choices.len() as u64) as usize]
}

/// A disk that syncs nothing: no power is cut here.
fn unsynced(folder: &Path) -> FaultyDisk {
    let disk = FaultyDisk::over(folder);
    disk.fail(Fault::new(Call::Sync, Failure::Lie));
    disk.fail(Fault::new(Call::SyncDir, Failure::Lie));
    disk
}

const CODECS: [Compression; 5] = [
    Compression::None,
    Compression::Gzip,
    Compression::Snappy,
    Compression::Lz4,
    Compression::Zstd,
];

/// Both lookups against a list of (offset, timestamp) from `start` to `end`.
fn check(log: &PartitionLog, records: &[i64], random: &mut Random, seed: u64) {
    let offsets = log.offsets();
    let (start, end) = (offsets.log_start_offset, offsets.high_watermark);
    let there: Vec<(i64, i64)> = (start..end)
        .map(|offset| (offset, records[offset as usize]))
        .collect();
    let pair = |found: TimestampAndOffset| (found.offset, found.timestamp_ms);
    let mut wanted = vec![0, 1, i64::MAX];
    for _ in 0..12 {
        let of_record = one_of(random, records);
        wanted.push((of_record + random.below(3) as i64 - 1).max(0));
    }
    for wanted in wanted {
        let found = log
            .offset_for_timestamp(wanted, ReadLimit::LogEnd)
            .unwrap_or_else(|error| panic!("seed {seed}, timestamp {wanted}: {error}"));
        let expected = there.iter().find(|(_, timestamp)| *timestamp >= wanted);
        assert_eq!(
            found.map(pair),
            expected.copied(),
            "seed {seed}: timestamp {wanted} in {start}..{end}"
        );
    }
    let largest = there.iter().map(|(_, timestamp)| *timestamp).max();
    let expected = there
        .iter()
        .find(|(_, timestamp)| Some(*timestamp) == largest && *timestamp >= 0);
    let found = log
        .max_timestamp()
        .unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    assert_eq!(
        found.map(pair),
        expected.copied(),
        "seed {seed}: the largest in {start}..{end}"
    );
}

#[test]
fn lookups_find_what_a_look_at_every_record_finds() {
    for seed in 1..=30_u64 {
        let folder = tempfile::tempdir().expect("a folder");
        let mut random = Random::new(seed);
        let visibility = one_of(&mut random, &[Visibility::Ordinary, Visibility::Derived]);
        let config = LogConfig {
            segment_bytes: 400 + random.below(4_000),
            index_interval_bytes: one_of(&mut random, &[0, 1, 150, 600, 4_096]),
            message_timestamp_after_max_ms: i64::MAX,
            ..small_segments()
        };
        let open = |published: i64| {
            let dir = open_dir_on(Arc::new(unsynced(folder.path())), folder.path());
            let dir = dir.expect("opens the folder");
            let log = open_as(&dir, config.clone(), visibility);
            if visibility == Visibility::Derived {
                log.publish(published).expect("publishes");
            }
            (dir, log)
        };
        let (mut dir, mut log) = open(0);
        let (mut records, mut ends, mut now) = (Vec::new(), vec![0], 1_000);
        for step in 0..6 {
            for _ in 0..5 + random.below(25) {
                let count = 1 + random.below(8);
                let times: Vec<i64> = (0..count)
                    .map(|_| some_timestamp(&mut random, &mut now))
                    .collect();
                let batch = batch_at(records.len() as i64, &times, one_of(&mut random, &CODECS));
                match visibility {
                    Visibility::Ordinary => drop(log.append(&batch).expect("appends")),
                    Visibility::Derived => drop(log.stage(&batch).expect("stages")),
                }
                records.extend(times);
                ends.push(records.len() as i64);
            }
            if visibility == Visibility::Derived {
                // A hidden tail stays.
                let visible = log.offsets().high_watermark;
                let choices: Vec<i64> =
                    ends.iter().copied().filter(|end| *end >= visible).collect();
                log.publish(one_of(&mut random, &choices))
                    .expect("publishes");
            }
            check(&log, &records, &mut random, seed);
            let visible = log.offsets().high_watermark;
            match random.below(4) {
                // Into a batch, mostly.
                0 | 1 => {
                    let start = log.offsets().log_start_offset;
                    let to = start + random.below((visible - start) as u64 / 2 + 1) as i64;
                    let wanted = [(Arc::clone(&log), DeleteTo::Offset(to))];
                    dir.delete_records(&wanted).remove(0).expect("deletes");
                }
                restart => {
                    if restart == 2 {
                        dir.shutdown().expect("stops");
                    }
                    drop((log, dir));
                    (dir, log) = open(visible);
                }
            }
            check(&log, &records, &mut random, seed);
            assert!(step < 6);
        }
    }
}

/// The files that were opened since the last time, without their folders, by name.
fn opened(disk: &FaultyDisk) -> Vec<String> {
    let name = |path: &PathBuf| path.file_name()?.to_str().map(str::to_owned);
    let mut opened: Vec<String> = disk.calls(Call::Open).iter().filter_map(name).collect();
    disk.forget_calls();
    opened.sort();
    opened
}

fn files_of(base: i64) -> Vec<String> {
    ["index", "log", "timeindex"]
        .map(|suffix| format!("{base:020}.{suffix}"))
        .to_vec()
}

#[test]
fn only_the_segment_that_has_the_answer_is_opened() {
    const SEGMENTS: i64 = 600;
    let folder = tempfile::tempdir().expect("a folder");
    let open = || {
        let disk = unsynced(folder.path());
        let dir = open_dir_on(Arc::new(disk.clone()), folder.path()).expect("opens the folder");
        let config = LogConfig {
            segment_bytes: 3 * batch_at(0, &[0], Compression::None).len() as u64,
            index_interval_bytes: 0,
            message_timestamp_after_max_ms: i64::MAX,
            ..small_segments()
        };
        let log = open_log(&dir, config);
        (disk, dir, log)
    };
    let (_, dir, log) = open();
    // Three batches to a segment; the latest in the middle of them, and one in all that is later
    // than those around it.
    for segment in 0..SEGMENTS {
        let late = if segment == 300 { 1_000_000 } else { 0 };
        let ms = segment * 10 + late;
        for timestamp in [ms, ms + 5, ms - 20] {
            let batch = batch_at(0, &[timestamp.max(0)], Compression::None);
            log.append(&batch).expect("appends");
        }
    }
    let bases: Vec<i64> = files(folder.path(), "log")
        .iter()
        .filter_map(|file| file.file_stem()?.to_str()?.parse().ok())
        .collect();
    assert_eq!(bases.len() as i64, SEGMENTS);
    dir.shutdown().expect("stops");
    drop((log, dir));

    let lookup = |log: &PartitionLog, timestamp| {
        log.offset_for_timestamp(timestamp, ReadLimit::HighWatermark)
            .expect("looks up")
            .map(|found| found.offset)
    };
    let (disk, _dir, log) = open();
    opened(&disk);
    // The first look that has to go through all segments asks each for its largest timestamp.
    assert_eq!(lookup(&log, i64::MAX), None);
    // That is the last entry of each index, and the headers from the batch that it leads to.
    assert_eq!(opened(&disk).len() as i64, 3 * (SEGMENTS - 1));

    assert_eq!(lookup(&log, i64::MAX), None);
    assert_eq!(opened(&disk), Vec::<String>::new(), "it is known already");
    for (timestamp, offset) in [
        (2_005, 601),
        (0, 0),
        (2_991, 898),
        (3_006, 900),
        (999_999, 900),
    ] {
        assert_eq!(lookup(&log, timestamp), Some(offset), "{timestamp}");
        let base = bases[bases.partition_point(|base| *base <= offset) - 1];
        assert_eq!(opened(&disk), files_of(base), "{timestamp}");
        // Its maps are there now.
        assert_eq!(lookup(&log, timestamp), Some(offset), "{timestamp}");
        assert_eq!(opened(&disk), Vec::<String>::new(), "{timestamp}");
        if offset == 900 {
            break;
        }
    }
    let largest = log.max_timestamp().expect("looks up").expect("not empty");
    assert_eq!((largest.timestamp_ms, largest.offset), (1_003_005, 901));
    assert_eq!(opened(&disk), Vec::<String>::new());
}

#[test]
fn within_a_segment_about_one_index_interval_is_looked_at() {
    const BATCHES: i64 = 2_000;
    const INTERVAL: u32 = 2_000;
    // One late record early on; the rest is older, but for some in the middle and at the end.
    let timestamp = |batch: i64| match batch {
        10 => 10_000,
        1_200 => 20_000,
        1_990 => 30_000,
        batch => batch,
    };
    for (wanted, expected) in [
        (5, Some(5)),
        (10_000, Some(10)),
        (10_001, Some(1_200)),
        (20_000, Some(1_200)),
        (20_001, Some(1_990)),
        (30_001, None),
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        let config = LogConfig {
            index_interval_bytes: INTERVAL,
            message_timestamp_after_max_ms: i64::MAX,
            ..LogConfig::default()
        };
        let dir = open_dir(folder.path());
        let log = open_log(&dir, config.clone());
        for batch in 0..BATCHES {
            let batch = batch_at(batch, &[timestamp(batch)], Compression::None);
            log.append(&batch).expect("appends");
        }
        let size = log.size_bytes() as usize / BATCHES as usize;
        dir.shutdown().expect("stops");
        drop((log, dir));

        let dir = open_dir(folder.path());
        let log = open_log(&dir, config);
        // Whoever looks at the header of any other batch finds that it is none.
        let file = files(folder.path(), "log").remove(0);
        let file = fs::OpenOptions::new()
            .write(true)
            .open(file)
            .expect("opens");
        let near = INTERVAL as i64 / size as i64 + 2;
        let magic = 16;
        for batch in 0..BATCHES {
            // An index is compared with the log before it is believed: at the batches that the time
            // index names, and at the end.
            let looked_at = [10, 1_200, 1_990, BATCHES - 1].into_iter().chain(expected);
            let mut looked_at = looked_at.map(|found| found - near..=found);
            if !looked_at.any(|near| near.contains(&batch)) {
                let at = batch as u64 * size as u64 + magic;
                file.write_at(b"?", at).expect("writes");
            }
        }
        let found = log
            .offset_for_timestamp(wanted, ReadLimit::HighWatermark)
            .unwrap_or_else(|error| panic!("{wanted}: {error}"));
        assert_eq!(found.map(|found| found.offset), expected, "{wanted}");
        assert_eq!(
            log.damaged_ranges(),
            0,
            "{wanted}: nothing else was looked at"
        );
    }
}

#[test]
fn of_equal_timestamps_the_first_is_the_largest_also_before_a_hidden_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = open_dir(folder.path());
    let config = LogConfig {
        segment_bytes: 3 * batch_at(0, &[0], Compression::None).len() as u64,
        ..small_segments()
    };
    let log = open_as(&dir, config, Visibility::Derived);
    for timestamp in [50, 1, 1, 50, 90, 1] {
        log.stage(&batch_at(0, &[timestamp], Compression::None))
            .expect("stages");
    }
    assert_eq!(files(folder.path(), "log").len(), 2);
    for (published, expected) in [(4, (50, 0)), (5, (90, 4))] {
        log.publish(published).expect("publishes");
        let found = log.max_timestamp().expect("looks up").expect("not empty");
        assert_eq!((found.timestamp_ms, found.offset), expected);
    }
}

#[test]
fn a_young_segment_without_index_entries_is_not_taken_for_damaged() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = open_dir(folder.path());
    let log = open_log(&dir, LogConfig::default());
    for first in 0..5 {
        log.append(&batch_at(first, &[100 + first], Compression::None))
            .expect("appends");
        let found = log
            .offset_for_timestamp(102, ReadLimit::HighWatermark)
            .expect("looks up");
        assert_eq!(found.map(|found| found.offset), (first >= 2).then_some(2));
    }
    dir.shutdown().expect("stops");
    // What is damaged is removed, so that the next start builds it again.
    assert_eq!(files(folder.path(), "index").len(), 1);
    assert_eq!(files(folder.path(), "timeindex").len(), 1);
}
