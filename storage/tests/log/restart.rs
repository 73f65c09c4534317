//! Restarts: clean ones, torn batches, lost indexes, and producers that repeat themselves.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use storage::batch::Compression;
use storage::batch::header::batches;
use storage::partition_log::{Durability, ReadLimit};
use storage::{Error, LogConfig, LogDir, PartitionLog};

use crate::fixture::*;

fn open(path: &Path) -> (LogDir, Arc<PartitionLog>) {
    let dir = open_dir(path);
    let log = open_log(&dir, small_segments());
    (dir, log)
}

fn numbers(records: std::ops::Range<i64>) -> Vec<(i64, i64)> {
    records.map(|number| (number, number)).collect()
}

/// All files of the partition but for those that every start writes, by name.
fn contents(path: &Path) -> Vec<(String, Vec<u8>)> {
    let mut contents = Vec::new();
    for suffix in ["log", "index", "timeindex"] {
        for file in files(path, suffix) {
            let name = file
                .file_name()
                .expect("a name")
                .to_string_lossy()
                .into_owned();
            contents.push((name, fs::read(&file).expect("reads")));
        }
    }
    contents
}

#[test]
fn a_clean_restart_reads_no_records() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = LogConfig {
        segment_bytes: 1 << 20,
        ..LogConfig::default()
    };
    let written = {
        let dir = open_dir(folder.path());
        let log = open_log(&dir, config.clone());
        for first in 0..30_000 {
            log.append(&batch(first, 1)).expect("appends");
        }
        dir.shutdown().expect("stops");
        log.size_bytes()
    };
    let before = contents(folder.path());
    let disk = FaultyDisk::over(folder.path());
    let dir = open_dir_on(Arc::new(disk.clone()), folder.path()).expect("opens");
    assert!(dir.was_clean());
    let log = open_log(&dir, config);
    let read = disk.bytes_read(".log");
    assert!(
        read < 6 * 8192 && read < written / 40,
        "{read} bytes of {written} read"
    );
    assert_eq!(log.offsets().log_end_offset, 30_000);
    assert_eq!(log.offsets().synced_offset, 30_000);
    assert_eq!(log.leader_epoch(), 0);
    dir.shutdown().expect("stops");
    assert!(contents(folder.path()) == before, "a file has changed");
    drop((log, dir));
    let (_dir, log) = open(folder.path());
    log.append(&batch(30_000, 1)).expect("appends");
    assert_eq!(read_all(&log, 29_990, 100), numbers(29_990..30_001));
}

#[test]
fn a_batch_torn_at_any_byte_is_cut_off() {
    let folder = tempfile::tempdir().expect("a folder");
    {
        let (_dir, log) = open(folder.path());
        for first in 0..25 {
            log.append(&batch(first, 1)).expect("appends");
        }
    }
    let last = files(folder.path(), "log").pop().expect("a segment");
    let whole = fs::read(&last).expect("reads");
    let sizes: Vec<_> = batches(&whole)
        .map(|batch| batch.expect("whole").size_in_bytes())
        .collect();
    let torn_from = whole.len() - sizes.last().expect("a batch");
    let mut epoch = 0;
    for length in torn_from..whole.len() {
        fs::write(&last, &whole[..length]).expect("tears");
        let (_dir, log) = open(folder.path());
        assert_eq!(log.offsets().log_end_offset, 24, "torn at {length}");
        assert_eq!(last.metadata().expect("there").len() as usize, torn_from);
        epoch += 1;
        assert_eq!(log.leader_epoch(), epoch);
        log.append(&batch(24, 1)).expect("appends");
        assert_eq!(read_all(&log, 0, 300), numbers(0..25));
    }
    // A bit that is wrong in what was not synced.
    for position in [torn_from + 8, torn_from + 21, whole.len() - 1] {
        let mut wrong = fs::read(&last).expect("reads");
        wrong[position] ^= 0x40;
        fs::write(&last, &wrong).expect("damages");
        let (_dir, log) = open(folder.path());
        assert_eq!(log.offsets().log_end_offset, 24, "damaged at {position}");
        log.append(&batch(24, 1)).expect("appends");
    }
}

#[test]
fn damage_in_an_older_segment_ends_the_log_there() {
    let folder = tempfile::tempdir().expect("a folder");
    {
        let (_dir, log) = open(folder.path());
        for first in 0..60 {
            log.append(&batch(first, 1)).expect("appends");
        }
    }
    let segments = files(folder.path(), "log");
    assert!(segments.len() > 4);
    let mut damaged = fs::read(&segments[2]).expect("reads");
    let second = batches(&damaged)
        .nth(1)
        .expect("a batch")
        .expect("whole")
        .base_offset();
    let position = damaged.len() / 2;
    damaged[position] ^= 1;
    fs::write(&segments[2], &damaged).expect("damages");
    let (_dir, log) = open(folder.path());
    let end = log.offsets().log_end_offset;
    assert!(end >= second && end < 60);
    assert_eq!(files(folder.path(), "log").len(), 3);
    assert_eq!(files(folder.path(), "index").len(), 3);
    assert_eq!(read_all(&log, 0, 300), numbers(0..end));
    for first in end..60 {
        log.append(&batch(first, 1)).expect("appends");
    }
    assert_eq!(read_all(&log, 0, 300), numbers(0..60));
}

#[test]
fn a_missing_segment_ends_the_log_before_it() {
    let folder = tempfile::tempdir().expect("a folder");
    {
        let (_dir, log) = open(folder.path());
        for first in 0..60 {
            log.append(&batch(first, 1)).expect("appends");
        }
    }
    fs::remove_file(&files(folder.path(), "log")[2]).expect("removes");
    let (_dir, log) = open(folder.path());
    let end = log.offsets().log_end_offset;
    assert!(end > 0 && end < 60);
    assert_eq!(read_all(&log, 0, 300), numbers(0..end));
}

#[test]
fn a_compacted_log_that_comes_from_elsewhere_may_have_gaps() {
    let folder = tempfile::tempdir().expect("a folder");
    let compacted = || LogConfig {
        compact: true,
        ..small_segments()
    };
    {
        let dir = open_dir(folder.path());
        let log = open_log(&dir, compacted());
        for first in 0..60 {
            log.append(&batch(first, 1)).expect("appends");
        }
    }
    // Of one that was created here the checkpoint says where it began.
    fs::remove_file(folder.path().join("recovery-point-offset-checkpoint")).expect("removes");
    let gone = files(folder.path(), "log").remove(2);
    for suffix in ["log", "index", "timeindex"] {
        fs::remove_file(gone.with_extension(suffix)).expect("removes");
    }
    let dir = open_dir(folder.path());
    let log = open_log(&dir, compacted());
    assert_eq!(log.offsets().log_end_offset, 60);
    let left = read_all(&log, 0, 300);
    assert!(left.len() > 40 && left.len() < 60);
    assert_eq!(left.last(), Some(&(59, 59)));
}

#[test]
fn lost_and_damaged_indexes_are_rebuilt() {
    for clean in [true, false] {
        let folder = tempfile::tempdir().expect("a folder");
        {
            let (dir, log) = open(folder.path());
            for first in 0..60 {
                log.append(&batch_at(first, &[first * 10], Compression::None))
                    .expect("appends");
            }
            // What an unclean start finds closed was closed the same way.
            dir.shutdown().expect("stops");
        }
        let before = contents(folder.path());
        let (indexes, times) = (
            files(folder.path(), "index"),
            files(folder.path(), "timeindex"),
        );
        let newest = indexes.len() - 1;
        fs::remove_file(&indexes[0]).expect("removes");
        fs::write(&indexes[1], [7; 13]).expect("damages");
        fs::write(&indexes[newest], [0xff; 16]).expect("damages");
        fs::remove_file(&times[2]).expect("removes");
        if !clean {
            fs::remove_file(folder.path().join(".kafka_cleanshutdown")).expect("removes");
            fs::remove_file(folder.path().join("recovery-point-offset-checkpoint"))
                .expect("removes");
        }
        let (dir, log) = open(folder.path());
        assert_eq!(read_all(&log, 0, 300), numbers(0..60));
        for wanted in [0, 5, 333, 590] {
            let found = log
                .offset_for_timestamp(wanted, ReadLimit::HighWatermark)
                .expect("looks up")
                .expect("is there");
            assert_eq!(found.offset, (wanted + 9) / 10);
        }
        dir.shutdown().expect("stops");
        assert!(contents(folder.path()) == before, "a file is not as it was");
    }
}

#[test]
fn an_unclean_restart_scans_from_the_recovery_point_only() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = LogConfig {
        index_interval_bytes: 4096,
        ..LogConfig::default()
    };
    let append = |log: &PartitionLog, numbers: std::ops::Range<i64>| {
        for first in numbers {
            log.append(&batch(first, 1)).expect("appends");
        }
    };
    let whole = {
        let twin = tempfile::tempdir().expect("a folder");
        let dir = open_dir(twin.path());
        append(&open_log(&dir, config.clone()), 0..20_100);
        dir.shutdown().expect("stops");
        fs::read(files(twin.path(), "index").remove(0)).expect("reads")
    };
    let (checkpointed, total) = {
        let dir = open_dir(folder.path());
        let log = open_log(&dir, config.clone());
        append(&log, 0..20_000);
        dir.checkpoint().expect("checkpoints");
        let checkpointed = log.size_bytes();
        append(&log, 20_000..20_100);
        (checkpointed, log.size_bytes())
    };
    let index = files(folder.path(), "index").remove(0);
    let synced = fs::read(&index).expect("reads");
    // All entries of what was checkpointed; the newest wait until there are more to write.
    let of_checkpointed = whole
        .chunks(8)
        .filter(|entry| entry[..4] < 20_000_u32.to_be_bytes()[..])
        .count();
    assert!(whole.starts_with(&synced) && synced.len() < whole.len());
    assert_eq!(synced.len(), of_checkpointed * 8);
    // A power cut leaves zeros where the index had not been synced.
    fs::write(&index, [synced.as_slice(), &[0; 64]].concat()).expect("damages");
    let disk = FaultyDisk::over(folder.path());
    let dir = open_dir_on(Arc::new(disk.clone()), folder.path()).expect("opens");
    let log = open_log(&dir, config.clone());
    assert!(!dir.was_clean());
    let read = disk.bytes_read(".log");
    assert!(
        read < 4 * (total - checkpointed) + 50_000,
        "{read} bytes of {total} read"
    );
    assert_eq!(log.offsets().log_end_offset, 20_100);
    assert_eq!(log.offsets().synced_offset, 20_000);
    assert!(
        fs::read(&index).expect("reads") == whole,
        "as after a clean stop"
    );
    assert_eq!(read_all(&log, 19_000, 10_000), numbers(19_000..20_100));
}

#[test]
fn a_recovery_point_does_not_outlive_its_log() {
    let folder = tempfile::tempdir().expect("a folder");
    let recovery_points = || {
        fs::read_to_string(folder.path().join("recovery-point-offset-checkpoint")).expect("reads")
    };
    {
        let (dir, log) = open(folder.path());
        log.append(&batch(0, 1)).expect("appends");
        dir.checkpoint().expect("checkpoints");
        assert_eq!(recovery_points(), "0\n1\nevents 0 1\n");
        dir.delete_log("events", 0).expect("deletes");
        assert_eq!(recovery_points(), "0\n0\n");
        let log = open_log(&dir, small_segments());
        log.append(&batch(0, 1)).expect("appends");
        dir.checkpoint().expect("checkpoints");
    }
    // As if a crash had come between the folder's removal and the checkpoint's.
    fs::remove_dir_all(partition_dir(folder.path())).expect("removes");
    let (_dir, _log) = open(folder.path());
    assert_eq!(recovery_points(), "0\n0\n");
}

#[test]
fn duplicates_are_known_after_a_clean_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    {
        let (dir, log) = open(folder.path());
        for sequence in (0..90).step_by(3) {
            log.append(&produced(7, 2, sequence, 3)).expect("appends");
        }
        dir.shutdown().expect("stops");
        assert_eq!(files(folder.path(), "snapshot").len(), 2);
    }
    let (_dir, log) = open(folder.path());
    let again = log.append(&produced(7, 2, 87, 3)).expect("a duplicate");
    assert!(again.duplicate);
    assert_eq!((again.base_offset, again.last_offset), (87, 89));
    assert!(matches!(
        log.append(&produced(7, 1, 0, 1)),
        Err(Error::StaleProducerEpoch { .. })
    ));
    assert!(
        !log.append(&produced(7, 2, 90, 3))
            .expect("the next one")
            .duplicate
    );
}

#[test]
fn the_last_five_batches_are_known_after_an_unclean_restart() {
    for checkpoint_at in [None, Some(10), Some(28)] {
        let folder = tempfile::tempdir().expect("a folder");
        {
            let (dir, log) = open(folder.path());
            for batch in 0..30 {
                log.append(&produced(7, 0, batch * 2, 2)).expect("appends");
                if checkpoint_at == Some(batch) {
                    dir.checkpoint().expect("checkpoints");
                }
            }
        }
        let (_dir, log) = open(folder.path());
        for batch in 25..30 {
            let again = log
                .append(&produced(7, 0, batch * 2, 2))
                .expect("a duplicate");
            assert!(again.duplicate, "batch {batch}");
            assert_eq!(again.base_offset, i64::from(batch) * 2);
        }
        assert!(log.append(&produced(7, 0, 0, 2)).is_err());
        assert!(
            !log.append(&produced(7, 0, 60, 2))
                .expect("the next one")
                .duplicate
        );
    }
}

#[test]
fn damaged_snapshots_are_passed_over() {
    let folder = tempfile::tempdir().expect("a folder");
    {
        let (dir, log) = open(folder.path());
        for sequence in 0..60 {
            log.append(&produced(7, 0, sequence, 1)).expect("appends");
        }
        dir.shutdown().expect("stops");
    }
    for snapshot in files(folder.path(), "snapshot") {
        fs::write(snapshot, b"nonsense").expect("damages");
    }
    let (_dir, log) = open(folder.path());
    assert!(
        log.append(&produced(7, 0, 59, 1))
            .expect("a duplicate")
            .duplicate
    );
    assert!(
        !log.append(&produced(7, 0, 60, 1))
            .expect("the next one")
            .duplicate
    );
}

#[test]
fn an_unclean_start_begins_an_epoch_with_its_first_append() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = partition_dir(folder.path()).join("leader-epoch-checkpoint");
    {
        let (_dir, log) = open(folder.path());
        assert_eq!(log.leader_epoch(), 0);
        log.append(&batch(0, 1)).expect("appends");
        log.append(&batch(1, 1)).expect("appends");
        assert_eq!(fs::read_to_string(&file).expect("reads"), "0\n1\n0 0\n");
    }
    {
        // Nothing is appended, so nothing begins.
        let (_dir, log) = open(folder.path());
        assert_eq!(log.leader_epoch(), 1);
    }
    let (dir, log) = open(folder.path());
    assert_eq!(log.leader_epoch(), 1);
    assert_eq!(fs::read_to_string(&file).expect("reads"), "0\n1\n0 0\n");
    log.append(&batch(2, 1)).expect("appends");
    assert_eq!(
        fs::read_to_string(&file).expect("reads"),
        "0\n2\n0 0\n1 2\n"
    );
    let epochs: Vec<_> = batches(&fetch(&log, 0, 1 << 20).expect("reads").records)
        .map(|batch| batch.expect("whole").partition_leader_epoch())
        .collect();
    assert_eq!(epochs, [0, 0, 1]);
    assert_eq!(log.end_offset_for_epoch(0), Some((0, 2)));
    assert_eq!(log.end_offset_for_epoch(1), Some((1, 3)));
    assert_eq!(log.end_offset_for_epoch(2), None);
    assert_eq!(log.end_offset_for_epoch(-1), None);
    dir.shutdown().expect("stops");
    drop((log, dir));
    let (_dir, log) = open(folder.path());
    assert_eq!(log.leader_epoch(), 1, "a clean start goes on");
}

#[test]
fn an_epoch_that_clients_heard_of_does_not_go_back() {
    let folder = tempfile::tempdir().expect("a folder");
    {
        let (_dir, log) = open(folder.path());
        log.append(&batch(0, 1)).expect("appends");
    }
    {
        let (dir, log) = open(folder.path());
        assert_eq!(log.leader_epoch(), 1);
        dir.shutdown().expect("stops");
    }
    let (dir, log) = open(folder.path());
    assert!(dir.was_clean());
    assert_eq!(log.leader_epoch(), 1);
    log.append(&batch(1, 1)).expect("appends");
    assert_eq!(log.end_offset_for_epoch(0), Some((0, 1)));
    assert_eq!(log.end_offset_for_epoch(1), Some((1, 2)));
}

#[test]
fn a_lost_epoch_file_is_made_up_for_by_the_log() {
    let folder = tempfile::tempdir().expect("a folder");
    for round in 0..3 {
        let (_dir, log) = open(folder.path());
        log.append(&batch(round, 1)).expect("appends");
    }
    fs::write(
        partition_dir(folder.path()).join("leader-epoch-checkpoint"),
        "gone",
    )
    .expect("loses");
    let (_dir, log) = open(folder.path());
    assert_eq!(log.leader_epoch(), 3);
    assert_eq!(log.end_offset_for_epoch(1), Some((1, 2)));
}

#[test]
fn a_stop_without_recovery_is_not_a_clean_one() {
    let folder = tempfile::tempdir().expect("a folder");
    {
        let (_dir, log) = open(folder.path());
        for first in 0..3 {
            log.append(&batch(first, 1)).expect("appends");
        }
    }
    let segment = files(folder.path(), "log").remove(0);
    let whole = fs::read(&segment).expect("reads");
    fs::write(&segment, &whole[..whole.len() - 1]).expect("writes");
    // A start that fails before it has come to the partition.
    let dir = open_dir(folder.path());
    assert!(!dir.was_clean());
    dir.shutdown().expect("stops");
    drop(dir);
    let (dir, log) = open(folder.path());
    assert!(!dir.was_clean());
    assert_eq!(read_all(&log, 0, 100), numbers(0..2));
    dir.shutdown().expect("stops");
    drop(dir);
    assert!(open_dir(folder.path()).was_clean());
}

#[tokio::test]
async fn after_a_crash_names_are_synced_with_the_first_bytes() {
    let folder = tempfile::tempdir().expect("a folder");
    {
        // The process ends before anybody asks for the disk.
        let (_dir, log) = open(folder.path());
        log.append(&batch(0, 1)).expect("appends");
    }
    let disk = FaultyDisk::over(folder.path());
    let dir = open_dir_on(Arc::new(disk.clone()), folder.path()).expect("opens");
    disk.forget_calls();
    let log = open_log(&dir, small_segments());
    let synced = disk.calls(Call::SyncDir);
    assert_eq!(synced, [folder.path()], "the partition's own name");
    log.append(&batch(1, 1)).expect("appends");
    disk.forget_calls();
    log.wait(2, Durability::Disk).await.expect("syncs");
    let synced = disk.calls(Call::SyncDir);
    assert_eq!(synced, [partition_dir(folder.path())], "its files' names");
}

#[test]
fn the_last_time_of_a_segment_that_was_full_at_a_checkpoint_survives_a_power_cut() {
    let folder = tempfile::tempdir().expect("a folder");
    let (dir, log) = open(folder.path());
    let newest = || {
        files(folder.path(), "timeindex")
            .pop()
            .expect("there is one")
    };
    let mut tested = 0;
    let mut lost = Vec::new();
    for number in 0..100 {
        dir.checkpoint().expect("checkpoints");
        let active = newest();
        let synced = fs::metadata(&active).expect("is there").len();
        let appended = log
            .append(&batch_at(number, &[number], Compression::None))
            .expect("appends");
        // It was closed with an entry that nobody has synced.
        if newest() != active && fs::metadata(&active).expect("is there").len() > synced {
            lost.push((active, synced));
            tested = appended.base_offset - 1;
            break;
        }
    }
    assert!(tested > 0);
    drop((log, dir));
    for (file, synced) in lost {
        let file = fs::OpenOptions::new().write(true).open(file);
        file.and_then(|file| file.set_len(synced)).expect("cuts");
    }
    let (_dir, log) = open(folder.path());
    let found = log
        .offset_for_timestamp(tested, ReadLimit::HighWatermark)
        .expect("looks up");
    assert_eq!(found.map(|found| found.offset), Some(tested));
}
