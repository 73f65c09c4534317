//! Derived partitions: hidden tails, publishing and discarding, over restarts.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use storage::batch::Compression;
use storage::partition_log::{Durability, Read, ReadLimit, TimestampAndOffset, Visibility};
use storage::{Error, LogDir, PartitionLog};

use crate::fixture::*;

fn open(path: &Path) -> (LogDir, Arc<PartitionLog>) {
    let dir = open_dir(path);
    let log = open_as(&dir, small_segments(), Visibility::Derived);
    (dir, log)
}

fn several(records: std::ops::Range<i64>) -> Bytes {
    records
        .flat_map(|first| batch(first, 1))
        .collect::<Vec<u8>>()
        .into()
}

fn numbers(records: std::ops::Range<i64>) -> Vec<(i64, i64)> {
    records.map(|number| (number, number)).collect()
}

fn hidden(log: &PartitionLog, offset: i64) -> usize {
    match log
        .read(offset, 1 << 20, true, ReadLimit::LogEnd)
        .expect("reads")
    {
        Read::Warm(fetched) => fetched.records.len(),
        Read::Cold(_) => panic!("a copy is never cold"),
    }
}

#[test]
fn only_what_is_published_can_be_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let (_dir, log) = open(folder.path());
    assert!(matches!(fetch(&log, 0, 1), Err(Error::NotReadable)));
    assert!(matches!(
        log.append(&batch(0, 1)),
        Err(Error::InvalidRecord(_))
    ));
    assert!(matches!(
        log.append_internal(&batch(0, 1)),
        Err(Error::InvalidRecord(_))
    ));
    assert_eq!(log.stage(&several(0..30)).expect("stages"), 0..30);
    assert!(matches!(fetch(&log, 0, 1), Err(Error::NotReadable)));
    assert!(hidden(&log, 0) > 0);
    assert_eq!(log.offsets().high_watermark, 0);
    log.publish(13).expect("publishes");
    assert_eq!(read_all(&log, 0, 300), numbers(0..13));
    assert!(matches!(
        fetch(&log, 14, 1),
        Err(Error::OffsetOutOfRange { end: 13, .. })
    ));
    assert!(matches!(
        log.publish(12),
        Err(Error::OffsetOutOfRange { .. })
    ));
    assert!(matches!(
        log.publish(31),
        Err(Error::OffsetOutOfRange { .. })
    ));
    log.publish(30).expect("publishes");
    assert_eq!(read_all(&log, 0, 300), numbers(0..30));
}

#[test]
fn discarding_never_reaches_below_the_high_watermark() {
    let folder = tempfile::tempdir().expect("a folder");
    let (_dir, log) = open(folder.path());
    log.stage(&several(0..20)).expect("stages");
    log.publish(10).expect("publishes");
    assert!(matches!(
        log.discard_to(9),
        Err(Error::OffsetOutOfRange { start: 10, .. })
    ));
    assert_eq!(log.discard_to(20).expect("nothing there"), 0);
    assert_eq!(log.discard_to(10).expect("discards"), 10);
    assert_eq!(log.offsets().log_end_offset, 10);
    assert_eq!(log.stage(&several(10..15)).expect("stages"), 10..15);
    log.publish(15).expect("publishes");
    assert_eq!(read_all(&log, 0, 300), numbers(0..15));
    let ordinary = tempfile::tempdir().expect("a folder");
    let dir = open_dir(ordinary.path());
    let log = open_log(&dir, small_segments());
    assert!(log.stage(&several(0..1)).is_err() && log.publish(0).is_err());
    assert!(log.discard_to(0).is_err());
}

#[test]
fn an_end_inside_of_a_batch_changes_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let (_dir, log) = open(folder.path());
    log.stage(&batch(0, 5)).expect("stages");
    assert!(matches!(log.discard_to(3), Err(Error::InvalidRecord(_))));
    assert!(matches!(log.publish(3), Err(Error::InvalidRecord(_))));
    assert_eq!(log.offsets().log_end_offset, 5);
    log.publish(5).expect("publishes");
}

#[test]
fn every_cut_leaves_a_log_that_goes_on() {
    // Around the ends of segments, which have 13 of these batches or so.
    for end in [0, 1, 10, 11, 12, 13, 14, 24, 25, 26, 39, 40] {
        let folder = tempfile::tempdir().expect("a folder");
        {
            let (dir, log) = open(folder.path());
            log.stage(&several(0..40)).expect("stages");
            assert_eq!(log.discard_to(end).expect("discards"), 40 - end);
            log.stage(&several(end..end + 7)).expect("stages");
            log.publish(end + 3).expect("publishes");
            assert_eq!(read_all(&log, 0, 250), numbers(0..end + 3), "cut at {end}");
            drop(dir);
        }
        // An unclean stop: the hidden tail is still there, and goes now.
        let (dir, log) = open(folder.path());
        assert!(!dir.was_clean());
        assert_eq!(log.offsets().log_end_offset, end + 7);
        assert!(matches!(fetch(&log, 0, 1), Err(Error::NotReadable)));
        assert_eq!(log.discard_to(end + 3).expect("discards"), 4);
        log.publish(end + 3).expect("publishes");
        assert_eq!(read_all(&log, 0, 250), numbers(0..end + 3), "cut at {end}");
        dir.shutdown().expect("stops");
        drop((log, dir));

        let (dir, log) = open(folder.path());
        assert!(dir.was_clean());
        assert_eq!(dir.clean_high_watermark("events", 0), Some(end + 3));
        log.publish(end + 3).expect("publishes");
        assert_eq!(read_all(&log, 0, 250), numbers(0..end + 3), "cut at {end}");
    }
}

#[test]
fn a_stop_before_the_first_publish_keeps_what_a_clean_stop_said() {
    let folder = tempfile::tempdir().expect("a folder");
    {
        let (dir, log) = open(folder.path());
        log.stage(&several(0..4)).expect("stages");
        log.publish(4).expect("publishes");
        dir.shutdown().expect("stops");
    }
    {
        let (dir, _log) = open(folder.path());
        dir.shutdown().expect("stops");
    }
    let (dir, _log) = open(folder.path());
    assert_eq!(dir.clean_high_watermark("events", 0), Some(4));
    drop((_log, dir));
    let (dir, _log) = open(folder.path());
    assert_eq!(
        dir.clean_high_watermark("events", 0),
        None,
        "the last stop was unclean"
    );
}

#[tokio::test]
async fn what_is_staged_after_a_cut_is_synced_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let (_dir, log) = open(folder.path());
    log.stage(&several(0..10)).expect("stages");
    log.wait(10, Durability::Disk).await.expect("durable");
    let waiting = log.wait(10, Durability::Disk);
    log.discard_to(4).expect("discards");
    waiting.await.expect("was durable");
    assert_eq!(log.offsets().synced_offset, 4);
    assert!(
        log.wait(10, Durability::Disk).await.is_err(),
        "there is no such offset now"
    );
    log.stage(&several(4..10)).expect("stages");
    assert_eq!(log.offsets().synced_offset, 4);
    log.wait(10, Durability::Disk).await.expect("durable");
    assert_eq!(log.offsets().synced_offset, 10);
}

#[test]
fn readers_are_safe_while_hidden_tails_come_and_go() {
    let folder = tempfile::tempdir().expect("a folder");
    let (_dir, log) = open(folder.path());
    log.publish(0).expect("publishes");
    const ROUNDS: i64 = 300;
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut next = 0;
                while next < ROUNDS {
                    let found = read_all(&log, next, 500);
                    for (offset, value) in &found {
                        assert_eq!((*offset, *value), (next, next));
                        next += 1;
                    }
                    log.offset_for_timestamp(0, ReadLimit::HighWatermark)
                        .expect("looks up");
                    log.max_timestamp().expect("looks up");
                }
            });
        }
        for round in 0..ROUNDS {
            // What is never published has values that no reader may see.
            log.stage(&several(-40..-1)).expect("stages");
            log.discard_to(round).expect("discards");
            log.stage(&several(round..round + 1)).expect("stages");
            log.publish(round + 1).expect("publishes");
        }
    });
}

#[test]
fn lookups_do_not_see_the_hidden_tail() {
    let folder = tempfile::tempdir().expect("a folder");
    let (_dir, log) = open(folder.path());
    log.stage(&batch_at(0, &[10], Compression::None))
        .expect("stages");
    log.publish(1).expect("publishes");
    log.stage(&batch_at(1, &[20], Compression::None))
        .expect("stages");
    assert_eq!(
        log.offset_for_timestamp(15, ReadLimit::HighWatermark)
            .expect("looks up"),
        None
    );
    assert_eq!(
        log.offset_for_timestamp(15, ReadLimit::LogEnd)
            .expect("looks up"),
        None
    );
    assert_eq!(
        log.max_timestamp()
            .expect("looks up")
            .map(|found| found.timestamp_ms),
        Some(10)
    );
    assert_eq!(log.end_offset_for_epoch(0), Some((0, 1)));
}

#[test]
fn lookups_find_what_is_visible_of_a_segment_that_was_closed_above() {
    let folder = tempfile::tempdir().expect("a folder");
    let (_dir, log) = open(folder.path());
    for number in 0..40 {
        log.stage(&batch_at(number, &[1_000 + number], Compression::None))
            .expect("stages");
    }
    assert!(files(folder.path(), "log").len() > 2);
    for end in 1..=40 {
        log.publish(end).expect("publishes");
        let newest = Some((1_000 + end - 1, end - 1));
        let answer = |found: Option<TimestampAndOffset>| {
            found.map(|found| (found.timestamp_ms, found.offset))
        };
        let found = log.max_timestamp().expect("looks up");
        assert_eq!(answer(found), newest);
        let found = log.offset_for_timestamp(1_000 + end - 1, ReadLimit::HighWatermark);
        assert_eq!(answer(found.expect("looks up")), newest);
    }
}

#[tokio::test]
async fn only_what_readers_may_see_wakes_watchers() {
    let folder = tempfile::tempdir().expect("a folder");
    let (_dir, log) = open(folder.path());
    let mut watch = log.watch();
    watch.mark_unchanged();
    log.stage(&several(0..3)).expect("stages");
    log.wait(3, Durability::Disk).await.expect("syncs");
    log.discard_to(2).expect("discards");
    assert!(!watch.has_changed().expect("is open"));
    assert_eq!(watch.borrow().synced_offset, 2);
    log.publish(2).expect("publishes");
    assert!(watch.has_changed().expect("is open"));
    watch.mark_unchanged();
    // The first publish may well change no offset, but makes the log readable.
    log.publish(2).expect("publishes");
    assert!(watch.has_changed().expect("is open"));
}

#[test]
fn a_hidden_tail_is_never_below_the_recovery_point() {
    let folder = tempfile::tempdir().expect("a folder");
    {
        let (dir, log) = open(folder.path());
        log.stage(&several(0..2)).expect("stages");
        log.publish(2).expect("publishes");
        log.stage(&several(2..6)).expect("stages");
        dir.shutdown().expect("stops");
    }
    {
        // The tail makes way for another one, and the process is killed while that is written.
        let (dir, log) = open(folder.path());
        assert!(dir.was_clean());
        log.publish(2).expect("publishes");
        assert_eq!(log.discard_to(2).expect("discards"), 4);
        dir.checkpoint().expect("checkpoints");
        log.stage(&several(10..12)).expect("stages");
    }
    let newest = files(folder.path(), "log").pop().expect("a segment");
    let bytes = std::fs::read(&newest).expect("reads");
    std::fs::write(&newest, &bytes[..bytes.len() - 1]).expect("writes");
    let (_dir, log) = open(folder.path());
    assert_eq!(log.offsets().log_end_offset, 3);
    log.publish(2).expect("publishes");
    assert_eq!(read_all(&log, 0, 300), numbers(0..2));
}
