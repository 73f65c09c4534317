//! Deleting records: the log begins later, for readers, on disk, and after whatever happens then.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use storage::batch::Compression;
use storage::partition_log::{DeleteTo, Durability, ReadLimit, Visibility};
use storage::{Error, LogDir, Offset, PartitionLog, Result};

use crate::fixture::*;

fn delete(dir: &LogDir, log: &Arc<PartitionLog>, to: DeleteTo) -> Result<Offset> {
    dir.delete_records(&[(Arc::clone(log), to)]).remove(0)
}

fn delete_below(dir: &LogDir, log: &Arc<PartitionLog>, offset: Offset) -> Result<Offset> {
    delete(dir, log, DeleteTo::Offset(offset))
}

/// Batches of three records, several to a segment.
fn fill(log: &PartitionLog, batches: i64) {
    for number in 0..batches {
        let end = log.offsets().log_end_offset;
        let timestamps = [end, end + 1, end + 2];
        let batch = batch_at(end, &timestamps, Compression::None);
        log.append(&batch).expect("appends");
        assert!(number < 1_000);
    }
}

/// The base offsets of the `.log` files.
fn bases(path: &Path) -> Vec<Offset> {
    files(path, "log")
        .iter()
        .map(|file| file.file_stem().unwrap().to_str().unwrap().parse().unwrap())
        .collect()
}

fn assert_begins_at(log: &PartitionLog, start: Offset) {
    let offsets = log.offsets();
    let end = offsets.log_end_offset;
    assert_eq!(offsets.log_start_offset, start);
    let below = fetch(log, start - 1, 1_000);
    assert!(
        matches!(below, Err(Error::OffsetOutOfRange { start: found, .. }) if found == start),
        "{below:?}"
    );
    // The batch that holds the first offset comes whole.
    let found: Vec<_> = read_all(log, start, 700)
        .into_iter()
        .filter(|(offset, _)| *offset >= start)
        .collect();
    let expected: Vec<_> = (start..end).map(|number| (number, number)).collect();
    assert_eq!(found, expected);
    let lookup = |timestamp| {
        log.offset_for_timestamp(timestamp, ReadLimit::HighWatermark)
            .expect("looks up")
            .map(|found| found.offset)
    };
    assert_eq!(lookup(0), (start < end).then_some(start));
    assert_eq!(lookup(end - 1), (start < end).then_some(end - 1));
    let largest = log.max_timestamp().expect("looks up");
    let largest = largest.map(|found| (found.timestamp_ms, found.offset));
    assert_eq!(largest, (start < end).then_some((end - 1, end - 1)));
}

#[test]
fn a_log_begins_where_its_records_were_deleted() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = open_dir(folder.path());
    let log = open_log(&dir, small_segments());
    fill(&log, 40);
    let before = bases(folder.path());
    assert!(before.len() > 4, "{before:?}");

    assert_eq!(delete_below(&dir, &log, 1).expect("deletes"), 1);
    assert_begins_at(&log, 1);
    assert_eq!(bases(folder.path()), before, "it is in the first segment");

    let inside = before[2] + 4;
    assert_eq!(delete_below(&dir, &log, inside).expect("deletes"), inside);
    assert_begins_at(&log, inside);
    assert_eq!(bases(folder.path()), before[2..]);
    assert_eq!(files(folder.path(), "index").len(), before.len() - 2);
    assert_eq!(files(folder.path(), "timeindex").len(), before.len() - 2);

    let at = before[3];
    assert_eq!(delete_below(&dir, &log, at).expect("deletes"), at);
    assert_eq!(bases(folder.path()), before[3..]);
    assert_begins_at(&log, at);

    // Never back, and never beyond what is there.
    assert_eq!(delete_below(&dir, &log, 0).expect("nothing to do"), at);
    for offset in [-2, 121, Offset::MAX] {
        let refused = delete_below(&dir, &log, offset);
        assert!(
            matches!(refused, Err(Error::OffsetOutOfRange { end: 120, .. })),
            "{refused:?}"
        );
    }
    assert_begins_at(&log, at);
    fill(&log, 10);
    assert_begins_at(&log, at);
}

#[test]
fn deleting_everything_frees_everything_and_the_log_goes_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = open_dir(folder.path());
    let log = open_log(&dir, small_segments());
    fill(&log, 40);
    assert_eq!(
        delete(&dir, &log, DeleteTo::HighWatermark).expect("deletes"),
        120
    );
    assert_eq!((log.size_bytes(), bases(folder.path())), (0, vec![120]));
    assert_begins_at(&log, 120);
    assert_eq!(
        delete(&dir, &log, DeleteTo::HighWatermark).expect("nothing to do"),
        120
    );
    fill(&log, 10);
    assert_begins_at(&log, 120);
    drop((log, dir));

    let dir = open_dir(folder.path());
    let log = open_log(&dir, small_segments());
    assert_begins_at(&log, 120);
    fill(&log, 10);
    dir.shutdown().expect("stops");
    drop((log, dir));
    let dir = open_dir(folder.path());
    assert_begins_at(&open_log(&dir, small_segments()), 120);
}

#[test]
fn the_largest_timestamp_is_of_a_record_that_is_still_there() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = open_dir(folder.path());
    let log = open_log(&dir, small_segments());
    log.append(&batch_at(0, &[90, 10, 50], Compression::Zstd))
        .expect("appends");
    log.append(&batch_at(3, &[20, 40, 30], Compression::Lz4))
        .expect("appends");
    for (start, expected) in [
        (1, Some((50, 2))),
        (3, Some((40, 4))),
        (5, Some((30, 5))),
        (6, None),
    ] {
        delete_below(&dir, &log, start).expect("deletes");
        let largest = log.max_timestamp().expect("looks up");
        let largest = largest.map(|found| (found.timestamp_ms, found.offset));
        assert_eq!(largest, expected, "from {start}");
    }
}

#[test]
fn a_reader_keeps_what_it_has_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = open_dir(folder.path());
    let log = open_log(&dir, small_segments());
    fill(&log, 40);
    let held = fetch(&log, 0, 10_000).expect("reads").records;
    let copy = held.to_vec();
    delete(&dir, &log, DeleteTo::HighWatermark).expect("deletes");
    fill(&log, 40);
    assert!(held == copy);
}

#[test]
fn watchers_hear_of_a_later_start() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = open_dir(folder.path());
    let log = open_log(&dir, small_segments());
    fill(&log, 4);
    let watch = log.watch();
    delete_below(&dir, &log, 5).expect("deletes");
    assert!(watch.has_changed().expect("the log is there"));
}

#[test]
fn a_producer_goes_on_where_it_was_after_its_records_were_deleted() {
    a_producer_goes_on(40, None);
    // The snapshot that is made then stays, and is older than all that is left.
    a_producer_goes_on(4, Some(2));
}

fn a_producer_goes_on(sequences: i32, checkpoint_at: Option<i32>) {
    let folder = tempfile::tempdir().expect("a folder");
    let mut dir = open_dir(folder.path());
    let mut log = open_log(&dir, small_segments());
    for sequence in 0..sequences {
        if checkpoint_at == Some(sequence) {
            dir.checkpoint().expect("checkpoints");
        }
        log.append(&produced(7, 0, sequence, 1)).expect("appends");
    }
    delete(&dir, &log, DeleteTo::HighWatermark).expect("deletes");
    for restart in ["none", "unclean", "clean"] {
        if restart == "clean" {
            dir.shutdown().expect("stops");
        }
        if restart != "none" {
            drop((log, dir));
            dir = open_dir(folder.path());
            log = open_log(&dir, small_segments());
        }
        let again = log
            .append(&produced(7, 0, sequences - 1, 1))
            .expect("is known");
        assert!(
            again.duplicate && again.base_offset == i64::from(sequences) - 1,
            "{restart}: {again:?}"
        );
        let producers = log.active_producers();
        assert_eq!(producers.len(), 1, "{restart}");
        let producer = producers[0];
        assert_eq!(
            (producer.producer_id, producer.epoch, producer.last_sequence),
            (7, 0, sequences - 1)
        );
    }
    assert!(matches!(
        log.append(&produced(7, 0, sequences + 1, 1)),
        Err(Error::OutOfOrderSequence { .. })
    ));
    assert_eq!(
        log.append(&produced(7, 0, sequences, 1))
            .expect("appends")
            .base_offset,
        i64::from(sequences)
    );
}

/// All files of the partition.
fn contents(path: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    fs::read_dir(partition_dir(path))
        .expect("lists the folder")
        .map(|entry| entry.expect("lists the folder").path())
        .map(|file| (file.clone(), fs::read(file).expect("reads")))
        .collect()
}

#[test]
fn segments_that_a_power_cut_brings_back_do_not_bring_their_records_back() {
    for (survivor, stop) in [(0, false), (1, false), (2, false), (1, true)] {
        let folder = tempfile::tempdir().expect("a folder");
        let dir = open_dir(folder.path());
        let log = open_log(&dir, small_segments());
        fill(&log, 40);
        let before = contents(folder.path());
        let all = bases(folder.path());
        let start = all[3] + 3;
        delete_below(&dir, &log, start).expect("deletes");
        // A checkpoint must not forget what makes these files garbage.
        dir.checkpoint().expect("checkpoints");
        fill(&log, 10);
        if stop {
            dir.shutdown().expect("stops");
        }
        drop((log, dir));
        // One removal alone is not on the device, or two with a gap between.
        for base in [all[survivor], all[0]] {
            for suffix in ["log", "index", "timeindex"] {
                let file = partition_dir(folder.path()).join(format!("{base:020}.{suffix}"));
                fs::write(&file, &before[&file]).expect("writes");
            }
        }
        let dir = open_dir(folder.path());
        let log = open_log(&dir, small_segments());
        assert_begins_at(&log, start);
        assert_eq!(bases(folder.path())[0], all[3]);
    }
}

#[test]
fn a_log_that_lost_its_newest_segment_still_begins_where_it_was_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = open_dir(folder.path());
    let log = open_log(&dir, small_segments());
    fill(&log, 40);
    let before = contents(folder.path());
    delete(&dir, &log, DeleteTo::HighWatermark).expect("deletes");
    drop((log, dir));
    for (file, bytes) in &before {
        fs::write(file, bytes).expect("writes");
    }
    fs::remove_file(partition_dir(folder.path()).join(format!("{:020}.log", 120)))
        .expect("removes");
    // Of the segment before it only a part is left.
    let last = files(folder.path(), "log").pop().expect("there are some");
    let half = before[&last].len() / 2;
    fs::write(&last, &before[&last][..half]).expect("writes");
    let dir = open_dir(folder.path());
    let log = open_log(&dir, small_segments());
    assert_begins_at(&log, 120);
    fill(&log, 3);
    assert_begins_at(&log, 120);
}

#[test]
fn epochs_begin_with_the_log() {
    let folder = tempfile::tempdir().expect("a folder");
    let epochs = || {
        let text = fs::read_to_string(partition_dir(folder.path()).join("leader-epoch-checkpoint"));
        text.expect("reads")
            .lines()
            .skip(2)
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    for _ in 0..3 {
        let dir = open_dir(folder.path());
        fill(&open_log(&dir, small_segments()), 10);
    }
    assert_eq!(epochs(), ["0 0", "1 30", "2 60"]);
    let dir = open_dir(folder.path());
    let log = open_log(&dir, small_segments());
    delete_below(&dir, &log, 40).expect("deletes");
    assert_eq!(log.end_offset_for_epoch(0), Some((0, 40)));
    assert_eq!(log.end_offset_for_epoch(1), Some((1, 60)));
    assert_eq!(epochs(), ["1 40", "2 60", "3 90"]);
    delete(&dir, &log, DeleteTo::HighWatermark).expect("deletes");
    assert_eq!(epochs(), ["3 90"]);
    assert_eq!(log.end_offset_for_epoch(3), Some((3, 90)));
}

#[tokio::test]
async fn nothing_is_deleted_that_a_failing_disk_could_bring_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let disk = FaultyDisk::over(folder.path());
    let dir = open_dir_on(Arc::new(disk.clone()), folder.path()).expect("opens the folder");
    let log = open_log(&dir, small_segments());
    fill(&log, 10);
    log.wait(30, Durability::Disk).await.expect("durable");
    fill(&log, 10);
    let before = bases(folder.path());
    disk.fail(failing_syncs());
    let refused = delete_below(&dir, &log, 40);
    assert!(matches!(refused, Err(Error::ReadOnly(_))), "{refused:?}");
    assert_eq!(log.offsets().log_start_offset, 0);
    assert_eq!(bases(folder.path()), before);
}

#[test]
fn a_full_disk_can_be_emptied() {
    let folder = tempfile::tempdir().expect("a folder");
    let disk = FaultyDisk::over(folder.path());
    let dir = open_dir_on(Arc::new(disk.clone()), folder.path()).expect("opens the folder");
    let log = open_log(&dir, small_segments());
    fill(&log, 40);
    disk.fail(failing_creations());
    assert_eq!(
        delete(&dir, &log, DeleteTo::HighWatermark).expect("deletes"),
        120
    );
    assert_eq!(
        bases(folder.path()).len(),
        1,
        "no other segment could be made"
    );
    assert_begins_at(&log, 120);
    disk.heal();
    fill(&log, 10);
    assert_begins_at(&log, 120);
}

#[test]
fn a_derived_log_is_deleted_up_to_what_is_published() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = open_dir(folder.path());
    let log = open_as(&dir, small_segments(), Visibility::Derived);
    let refused = delete(&dir, &log, DeleteTo::HighWatermark);
    assert!(matches!(refused, Err(Error::NotReadable)), "{refused:?}");
    for number in 0..40 {
        log.stage(&batch_at(number, &[number], Compression::None))
            .expect("stages");
    }
    log.publish(30).expect("publishes");
    assert!(delete_below(&dir, &log, 31).is_err());
    assert_eq!(
        delete(&dir, &log, DeleteTo::HighWatermark).expect("deletes"),
        30
    );
    assert_eq!(log.offsets().log_end_offset, 40);
    log.publish(40).expect("publishes");
    assert_begins_at(&log, 30);
    assert_eq!(
        delete(&dir, &log, DeleteTo::HighWatermark).expect("deletes"),
        40
    );
    assert_eq!(bases(folder.path()), [40]);
    for number in 40..50 {
        log.stage(&batch_at(number, &[number], Compression::None))
            .expect("stages");
    }
    assert_eq!(log.discard_to(40).expect("discards"), 10);
    for number in 40..50 {
        log.stage(&batch_at(number, &[number], Compression::None))
            .expect("stages");
    }
    log.publish(45).expect("publishes");
    assert_eq!(read_all(&log, 40, 700).len(), 5);
    drop((log, dir));

    let dir = open_dir(folder.path());
    let log = open_as(&dir, small_segments(), Visibility::Derived);
    assert_eq!(log.offsets().log_start_offset, 40);
    assert_eq!(log.discard_to(45).expect("discards"), 5);
    log.publish(45).expect("publishes");
    assert_begins_at(&log, 40);
}

#[test]
fn a_deleted_topic_takes_its_log_start_with_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = open_dir(folder.path());
    let log = open_log(&dir, small_segments());
    fill(&log, 10);
    delete_below(&dir, &log, 20).expect("deletes");
    dir.delete_log("events", 0).expect("deletes");
    assert!(matches!(delete_below(&dir, &log, 25), Err(Error::Closed)));
    let log = open_log(&dir, small_segments());
    fill(&log, 1);
    assert_eq!(read_all(&log, 0, 700).len(), 3);
    drop((log, dir));
    let dir = open_dir(folder.path());
    assert_eq!(
        open_log(&dir, small_segments()).offsets().log_start_offset,
        0
    );
}

#[test]
fn a_start_removes_what_was_deleted_from_the_oldest_on() {
    let folder = tempfile::tempdir().expect("a folder");
    {
        // The process ends before the files' time has come.
        let dir = open_dir(folder.path());
        let config = storage::LogConfig {
            file_delete_delay_ms: 60_000,
            ..small_segments()
        };
        let log = open_log(&dir, config);
        fill(&log, 40);
        delete(&dir, &log, DeleteTo::Offset(60)).expect("deletes");
    }
    let disk = FaultyDisk::over(folder.path());
    let dir = open_dir_on(Arc::new(disk.clone()), folder.path()).expect("opens");
    let log = open_log(&dir, small_segments());
    let removed = disk.calls(Call::RemoveFile).into_iter();
    let removed: Vec<_> = removed
        .filter(|path| path.extension().is_some_and(|suffix| suffix == "log"))
        .collect();
    assert!(removed.len() > 1, "{removed:?}");
    assert!(
        removed.is_sorted(),
        "a crash would leave a gap: {removed:?}"
    );
    assert_begins_at(&log, 60);
}
