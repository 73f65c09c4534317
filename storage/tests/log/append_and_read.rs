//! Appending, rolling, and reading without a copy.

use std::os::fd::AsRawFd;

use storage::batch::header::{Batch, batches};
use storage::batch::{BatchBuilder, Compression};
use storage::config::TimestampType;
use storage::log_dir::LogDirConfig;
use storage::partition_log::{Read, ReadLimit};
use storage::{Error, LogConfig, LogDir};

use crate::fixture::*;

#[test]
fn every_offset_is_read_once_across_segments() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = open_dir(folder.path());
    let log = open_log(&dir, small_segments());
    let mut next = 0;
    for round in 0..300_usize {
        let count = 1 + round % 7;
        let appended = log.append(&batch(next, count)).expect("appends");
        assert_eq!(
            (appended.base_offset, appended.last_offset),
            (next, next + count as i64 - 1)
        );
        next += count as i64;
    }
    assert!(files(folder.path(), "log").len() > 20, "many segments");
    let expected: Vec<_> = (0..next).map(|offset| (offset, offset)).collect();
    for max_bytes in [1, 150, 700, 5_000, 1 << 20] {
        assert_eq!(
            read_all(&log, 0, max_bytes),
            expected,
            "in pieces of {max_bytes} bytes"
        );
    }
    for offset in 0..next {
        let fetched = fetch(&log, offset, 1).expect("reads");
        let first = Batch::parse(&fetched.records).expect("a batch");
        assert!(first.base_offset() <= offset && offset <= first.last_offset());
        first.check_crc().expect("the CRC of the stored batch");
    }
}

#[test]
fn reads_keep_to_their_limits() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = open_dir(folder.path());
    let log = open_log(
        &dir,
        LogConfig {
            index_interval_bytes: 300,
            ..LogConfig::default()
        },
    );
    for first in 0..100 {
        log.append(&batch(first, 1)).expect("appends");
    }
    let all = layout(&log, 0);
    assert_eq!(all.len(), 100);
    let size = all[0].1;
    for max_bytes in (0..3_000).step_by(37) {
        let whole = max_bytes / size;
        let Read::Warm(strict) = log
            .read(3, max_bytes, false, ReadLimit::HighWatermark)
            .expect("reads")
        else {
            panic!("just written, and not in the page cache");
        };
        assert_eq!(strict.records.len(), whole * size);
        assert_eq!(
            fetch(&log, 3, max_bytes).expect("reads").records.len(),
            whole.max(1) * size
        );
    }
    assert!(fetch(&log, 100, 1).expect("reads").records.is_empty());
    for outside in [-1, 101] {
        assert!(matches!(
            fetch(&log, outside, 1),
            Err(Error::OffsetOutOfRange {
                start: 0,
                end: 100,
                ..
            })
        ));
    }
}

#[test]
fn a_cold_read_finds_what_a_warm_one_does() {
    let folder = tempfile::tempdir().expect("a folder");
    let expected = {
        let dir = open_dir(folder.path());
        let log = open_log(&dir, LogConfig::default());
        for first in 0..20_000 {
            log.append(&batch(first, 1)).expect("appends");
        }
        let warm = log
            .read(5_000, 500_000, true, ReadLimit::HighWatermark)
            .expect("reads");
        let Read::Warm(fetched) = warm else {
            panic!("just written, and not in the page cache")
        };
        let expected = fetched.records.to_vec();
        dir.shutdown().expect("stops");
        expected
    };
    // Nothing maps the pages any more, and they are on the device: the kernel drops them when asked.
    for file in [files(folder.path(), "log"), files(folder.path(), "index")].concat() {
        let file = std::fs::File::open(file).expect("opens");
        // SAFETY: the descriptor is open.
        let advised =
            unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
        assert_eq!(advised, 0);
    }
    let dir = open_dir(folder.path());
    let log = open_log(&dir, LogConfig::default());
    match log
        .read(5_000, 500_000, true, ReadLimit::HighWatermark)
        .expect("reads")
    {
        Read::Cold(cold) => {
            assert!(
                cold.load().expect("loads").records == expected,
                "other bytes"
            );
        }
        // A file system in memory has no other place for them.
        Read::Warm(fetched) => assert!(fetched.records == expected, "other bytes"),
    }
    let again = log
        .read(5_000, 500_000, true, ReadLimit::HighWatermark)
        .expect("reads");
    assert!(matches!(again, Read::Warm(fetched) if fetched.records == expected));
}

#[test]
fn bytes_outlive_the_log() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = open_dir(folder.path());
    let log = open_log(&dir, small_segments());
    for first in 0..50 {
        log.append(&batch(first, 1)).expect("appends");
    }
    let fetched = fetch(&log, 0, 1 << 20).expect("reads");
    let before = fetched.records.to_vec();
    dir.delete_log("events", 0).expect("deletes");
    assert!(matches!(log.append(&batch(0, 1)), Err(Error::Closed)));
    assert!(matches!(fetch(&log, 0, 1), Err(Error::Closed)));
    drop((log, dir));
    assert_eq!(fetched.records, before);
    assert!(!partition_dir(folder.path()).exists());
}

#[test]
fn bad_batches_are_refused_and_leave_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = open_dir(folder.path());
    let log = open_log(
        &dir,
        LogConfig {
            max_message_bytes: 500,
            ..LogConfig::default()
        },
    );
    let mut wrong_crc = batch(0, 2).to_vec();
    *wrong_crc.last_mut().expect("not empty") ^= 1;
    assert!(matches!(
        log.append(&wrong_crc.into()),
        Err(Error::CorruptBatch(_))
    ));
    assert!(matches!(
        log.append(&batch(0, 2).slice(..70)),
        Err(Error::CorruptBatch(_))
    ));
    assert!(matches!(
        log.append(&batch(0, 100)),
        Err(Error::BatchTooLarge { .. })
    ));
    let two = [batch(0, 1), batch(1, 1)].concat();
    assert!(matches!(
        log.append(&two.into()),
        Err(Error::InvalidRecord(_))
    ));
    assert_eq!(log.offsets().log_end_offset, 0);
    assert_eq!(log.size_bytes(), 0);
}

#[test]
fn segments_roll_by_age_and_by_a_full_index() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = open_dir(folder.path());
    let log = open_log(
        &dir,
        LogConfig {
            segment_ms: 1_000,
            ..LogConfig::default()
        },
    );
    for timestamp in [5_000, 6_000, 6_001, 5_500, 7_001, 7_002] {
        log.append(&batch_at(0, &[timestamp], Compression::None))
            .expect("appends");
    }
    let bases = |files: Vec<std::path::PathBuf>| {
        files
            .iter()
            .map(|path| {
                path.file_stem()
                    .and_then(|stem| stem.to_str()?.parse().ok())
            })
            .collect::<Option<Vec<i64>>>()
            .expect("numbers")
    };
    assert_eq!(bases(files(folder.path(), "log")), [0, 2, 5]);

    log.set_config(std::sync::Arc::new(LogConfig {
        segment_index_bytes: 24,
        index_interval_bytes: 0,
        ..LogConfig::default()
    }));
    for _ in 0..8 {
        log.append(&batch_at(0, &[7_003], Compression::None))
            .expect("appends");
    }
    let sizes: Vec<_> = files(folder.path(), "index")
        .iter()
        .map(|path| path.metadata().expect("is there").len())
        .collect();
    // Of the two times that fit, the last is kept for the segment's end.
    assert_eq!(sizes, [0, 0, 8, 8, 8, 8, 0]);
    assert_eq!(read_all(&log, 0, 100).len(), 14);
}

#[test]
fn timestamps_yet_to_come_do_not_roll_segments() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = open_dir(folder.path());
    let log = open_log(
        &dir,
        LogConfig {
            message_timestamp_after_max_ms: i64::MAX,
            ..LogConfig::default()
        },
    );
    let year_2025_ns = 1_735_689_600_000_000_000;
    for second in 0..20 {
        let timestamp = year_2025_ns + second * 1_000_000_000;
        log.append(&batch_at(second, &[timestamp], Compression::None))
            .expect("appends");
    }
    assert_eq!(files(folder.path(), "log").len(), 1);
}

#[test]
fn log_append_time_overwrites_the_largest_timestamp() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = LogDirConfig {
        path: folder.path().to_owned(),
        node_id: 0,
        sync_threads: 1,
        recovery_threads: 1,
    };
    let disk = std::sync::Arc::new(storage::disk::RealDisk);
    let dir = LogDir::open_with_clock(config, disk, storage::clock::Clock::new(|| 77_000))
        .expect("opens");
    let log = open_log(
        &dir,
        LogConfig {
            message_timestamp_type: TimestampType::LogAppendTime,
            ..LogConfig::default()
        },
    );
    let appended = log.append(&batch(0, 3)).expect("appends");
    assert_eq!(appended.log_append_time_ms, Some(77_000));
    let fetched = fetch(&log, 0, 1_000).expect("reads");
    let stored = Batch::parse(&fetched.records).expect("a batch");
    assert_eq!(stored.max_timestamp(), 77_000);
    stored.check_crc().expect("a new CRC");
}

#[test]
fn producers_are_checked() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = open_dir(folder.path());
    let log = open_log(&dir, LogConfig::default());
    let first = log.append(&produced(7, 0, 0, 3)).expect("appends");
    log.append(&produced(7, 0, 3, 2)).expect("appends");
    let again = log.append(&produced(7, 0, 0, 3)).expect("a duplicate");
    assert!(again.duplicate && !first.duplicate);
    assert_eq!((again.base_offset, again.last_offset), (0, 2));
    assert_eq!(log.offsets().log_end_offset, 5);
    assert!(matches!(
        log.append(&produced(7, 0, 9, 1)),
        Err(Error::OutOfOrderSequence {
            last: 4,
            found: 9,
            ..
        })
    ));
    log.append(&produced(7, 1, 0, 1)).expect("a new epoch");
    assert!(matches!(
        log.append(&produced(7, 0, 5, 1)),
        Err(Error::StaleProducerEpoch { .. })
    ));
}

#[test]
fn internal_batches_are_appended_together_or_not_at_all() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = open_dir(folder.path());
    let log = open_log(&dir, small_segments());
    let many: Vec<u8> = (0..40).flat_map(|first| batch(first, 1)).collect();
    assert_eq!(
        log.append_internal(&many.clone().into()).expect("appends"),
        0..40
    );
    assert!(files(folder.path(), "log").len() > 2);
    let mut torn = many;
    torn.truncate(torn.len() - 5);
    assert!(log.append_internal(&torn.into()).is_err());
    assert_eq!(log.offsets().log_end_offset, 40);
    let size: u64 = files(folder.path(), "log")
        .iter()
        .map(|path| path.metadata().expect("there").len())
        .sum();
    assert_eq!(size, log.size_bytes());
    log.append(&batch(40, 1)).expect("appends");
    assert_eq!(
        read_all(&log, 0, 300),
        (0..41).map(|n| (n, n)).collect::<Vec<_>>()
    );
}

#[test]
fn readers_see_whole_batches_while_the_writer_writes() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = open_dir(folder.path());
    let log = open_log(
        &dir,
        LogConfig {
            segment_bytes: 20_000,
            index_interval_bytes: 500,
            ..LogConfig::default()
        },
    );
    const RECORDS: i64 = 6_000;
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mut next = 0;
                while next < RECORDS {
                    let fetched = fetch(&log, next, 3_000).expect("reads");
                    for batch in batches(&fetched.records) {
                        let batch = batch.expect("a whole batch");
                        batch.check_crc().expect("an intact batch");
                        assert_eq!(batch.base_offset(), next);
                        next = batch.next_offset();
                    }
                }
            });
        }
        for first in (0..RECORDS).step_by(3) {
            log.append(&batch(first, 3)).expect("appends");
        }
    });
}

#[test]
fn compacted_topics_need_keys() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = open_dir(folder.path());
    let log = open_log(
        &dir,
        LogConfig {
            compact: true,
            ..LogConfig::default()
        },
    );
    let mut keyless = BatchBuilder::new(Compression::None);
    keyless.push(0, None, Some(b"value"), &[]);
    assert!(matches!(
        log.append(&keyless.build()),
        Err(Error::InvalidRecordAt { index: 0, .. })
    ));
    log.append(&batch(0, 1)).expect("has a key");
}
