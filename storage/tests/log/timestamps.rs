//! Lookups by timestamp.

use storage::LogConfig;
use storage::batch::Compression;
use storage::partition_log::ReadLimit;

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
