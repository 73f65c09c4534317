//! `preallocate`: a segment's room is reserved when it is begun, and what is left of it given back.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use storage::batch::{BatchBuilder, Compression};
use storage::{Error, LogConfig, LogDir, PartitionLog};

use crate::fixture::*;

const SEGMENT_BYTES: u64 = 1 << 20;

fn ahead() -> LogConfig {
    LogConfig {
        segment_bytes: SEGMENT_BYTES,
        preallocate: true,
        ..LogConfig::default()
    }
}

/// A batch of about so many bytes.
fn large(bytes: usize) -> bytes::Bytes {
    let mut batch = BatchBuilder::new(Compression::None);
    batch.push(1_000, None, Some(&vec![7; bytes]), &[]);
    batch.build()
}

/// The length of each log file, and what it takes on the disk.
fn sizes(path: &Path) -> Vec<(u64, u64)> {
    let size = |file: &std::path::PathBuf| {
        let metadata = file.metadata().expect("is there");
        (metadata.len(), metadata.blocks() * 512)
    };
    files(path, "log").iter().map(size).collect()
}

/// No more than the blocks that the bytes are in.
fn is_exact((len, room): (u64, u64)) -> bool {
    room < len + 64 * 1024
}

#[test]
fn room_is_taken_with_a_segment_and_given_back_with_its_end() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = open_dir(folder.path());
    let log = open_log(&dir, ahead());
    assert!(matches!(sizes(folder.path())[..], [(0, room)] if room >= SEGMENT_BYTES));
    log.append(&large(300_000)).expect("appends");
    let [(len, room)] = sizes(folder.path())[..] else {
        panic!("one segment");
    };
    assert_eq!(len, log.size_bytes(), "a file is as long as what is in it");
    assert!(room >= SEGMENT_BYTES);
    log.append(&large(900_000)).expect("appends");
    let [first, (len, room)] = sizes(folder.path())[..] else {
        panic!("two segments");
    };
    assert!(is_exact(first), "{first:?}");
    assert!(len < SEGMENT_BYTES && room >= SEGMENT_BYTES);

    // The next segment obeys what was changed; this one gives back what it has.
    log.set_config(Arc::new(LogConfig {
        preallocate: false,
        ..ahead()
    }));
    log.append(&large(900_000)).expect("appends");
    assert!(sizes(folder.path()).into_iter().all(is_exact));
    log.set_config(Arc::new(ahead()));
    log.append(&large(900_000)).expect("appends");
    assert!(!sizes(folder.path()).into_iter().all(is_exact));
    dir.shutdown().expect("a clean stop");
    assert!(sizes(folder.path()).into_iter().all(is_exact));
    drop((log, dir));
    let log = open_log(&open_dir(folder.path()), ahead());
    assert_eq!(log.offsets().log_end_offset, 4);
}

fn open(path: &Path, disk: &FaultyDisk) -> (LogDir, Arc<PartitionLog>) {
    let dir = open_dir_on(Arc::new(disk.clone()), path).expect("opens the folder");
    let log = open_log(&dir, ahead());
    (dir, log)
}

#[test]
fn a_disk_without_room_for_a_segment_fails_the_roll_and_is_waited_out() {
    let folder = tempfile::tempdir().expect("a folder");
    let disk = FaultyDisk::over(folder.path());
    let (dir, log) = open(folder.path(), &disk);
    let batch = large(600_000);
    log.append(&batch).expect("appends");
    disk.set_capacity(Some(disk.used() + 10_000));
    for _ in 0..3 {
        match log.append(&batch) {
            Err(Error::Io {
                call: "allocate",
                kind: std::io::ErrorKind::StorageFull,
                ..
            }) => {}
            other => panic!("{other:?}"),
        }
        assert_eq!(
            files(folder.path(), "log").len(),
            1,
            "nothing is left behind"
        );
        assert_eq!(files(folder.path(), "index").len(), 1);
        assert_eq!(log.offsets().log_end_offset, 1);
    }
    // What fits into the segment goes on.
    log.append(&large(1_000)).expect("appends");
    disk.set_capacity(None);
    log.append(&batch).expect("there is room again");
    assert_eq!(log.offsets().log_end_offset, 3);
    assert_eq!(layout(&log, 2).len(), 1);
    dir.shutdown().expect("a clean stop");
}

#[test]
fn a_file_system_that_cannot_reserve_is_done_without() {
    let folder = tempfile::tempdir().expect("a folder");
    let disk = FaultyDisk::over(folder.path());
    disk.fail(Fault::new(Call::Allocate, Failure::Errno(libc::EOPNOTSUPP)));
    let (_dir, log) = open(folder.path(), &disk);
    for _ in 0..3 {
        log.append(&large(600_000)).expect("appends");
    }
    assert_eq!(disk.count(Call::Allocate, ".log"), 3);
    disk.heal();
    // One that is interrupted is asked again.
    disk.fail(Fault::new(Call::Allocate, Failure::Errno(libc::EINTR)).once());
    log.append(&large(600_000)).expect("appends");
    assert_eq!(disk.count(Call::Allocate, ".log"), 5);
}

#[test]
fn a_failed_append_gives_its_room_back_and_loses_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let disk = FaultyDisk::over(folder.path());
    let (_dir, log) = open(folder.path(), &disk);
    log.append(&large(1_000)).expect("appends");
    disk.fail(
        Fault::new(Call::Write, Failure::Torn(libc::EIO))
            .on(".log")
            .once(),
    );
    assert!(disk.used() >= SEGMENT_BYTES);
    log.append(&large(2_000)).expect_err("a torn write");
    assert!(
        disk.used() < SEGMENT_BYTES,
        "what is cut off goes with what was reserved"
    );
    log.append(&large(3_000)).expect("appends");
    assert_eq!(layout(&log, 0).len(), 2);
    assert_eq!(log.offsets().log_end_offset, 2);
}
