//! A full disk: what goes on with the reserve, what waits, and that nothing breaks.

use std::path::Path;
use std::sync::Arc;

use storage::partition_log::{DeleteTo, Visibility};
use storage::reserved_disk::{RESERVE_BYTES, ReservedDisk};
use storage::{Error, LogDir, PartitionLog};

use crate::fixture::*;

fn reserved(disk: &FaultyDisk, path: &Path) -> Arc<ReservedDisk> {
    Arc::new(ReservedDisk::new(
        Arc::new(disk.clone()),
        path,
        &["essential"],
    ))
}

fn open(disk: &Arc<ReservedDisk>, path: &Path) -> (LogDir, Arc<PartitionLog>) {
    let dir = open_dir_on(disk.clone(), path).expect("opens the folder");
    disk.make_reserve().expect("a reserve");
    let log = open_log(&dir, small_segments());
    (dir, log)
}

fn is_refused(appended: storage::Result<storage::partition_log::Appended>) -> bool {
    matches!(appended, Err(error) if error.is_disk_full())
}

#[test]
fn records_are_deleted_and_checkpoints_written_on_a_full_disk() {
    let folder = tempfile::tempdir().expect("a folder");
    let faulty = FaultyDisk::over(folder.path());
    let disk = reserved(&faulty, folder.path());
    let (dir, log) = open(&disk, folder.path());
    for first in 0..60 {
        log.append(&batch(first, 1)).expect("appends");
    }
    faulty.set_capacity(Some(faulty.used()));
    assert!(!disk.is_full());
    assert!(is_refused(log.append(&batch(60, 1))));
    assert!(disk.is_full());
    // The first one was tried; these are not.
    let calls = disk.refused();
    for _ in 0..10 {
        assert!(is_refused(log.append(&batch(60, 1))));
        assert!(dir.check_room().is_err());
    }
    assert_eq!(disk.refused(), calls);
    disk.look_for_room().expect("looks");
    assert!(disk.is_full(), "there is none");

    dir.checkpoint().expect("a checkpoint");
    let before = files(folder.path(), "log").len();
    let starts = dir.delete_records(&[(log.clone(), DeleteTo::Offset(50))]);
    assert!(matches!(starts[..], [Ok(50)]), "{starts:?}");
    assert!(files(folder.path(), "log").len() < before);
    assert!(log.read_only().is_none());
    assert_eq!(read_all(&log, 50, 100).len(), 10, "readers go on");

    // Room for the reserve alone is none for records.
    faulty.set_capacity(Some(faulty.used() + RESERVE_BYTES));
    disk.look_for_room().expect("looks");
    assert!(disk.is_full());
    faulty.set_capacity(None);
    disk.look_for_room().expect("looks");
    assert!(!disk.is_full());
    log.append(&batch(60, 1)).expect("there is room again");
    assert_eq!(read_all(&log, 50, 100).last(), Some(&(60, 60)));
    dir.shutdown().expect("stops");
}

#[test]
fn a_start_on_a_full_disk_rebuilds_what_it_has_to() {
    let folder = tempfile::tempdir().expect("a folder");
    let faulty = FaultyDisk::over(folder.path());
    {
        let disk = reserved(&faulty, folder.path());
        let (_dir, log) = open(&disk, folder.path());
        for first in 0..60 {
            log.append(&batch(first, 1)).expect("appends");
        }
    }
    let lost = files(folder.path(), "index");
    for index in &lost {
        storage::disk::Disk::remove_file(&faulty, index).expect("removes");
    }
    faulty.set_capacity(Some(faulty.used()));
    let disk = reserved(&faulty, folder.path());
    let dir = open_dir_on(disk.clone(), folder.path()).expect("opens the folder");
    let log = open_log(&dir, small_segments());
    assert_eq!(read_all(&log, 0, 100).len(), 60);
    assert!(disk.is_full(), "what was rebuilt took the reserve");
    assert_eq!(files(folder.path(), "index").len(), lost.len());
    dir.shutdown().expect("stops cleanly, too");
    drop((log, dir));
    faulty.set_capacity(None);
    let (_dir, log) = open(&reserved(&faulty, folder.path()), folder.path());
    log.append(&batch(60, 1)).expect("appends");
    assert_eq!(read_all(&log, 0, 100).len(), 61);
}

#[test]
fn a_hidden_tail_is_cut_off_on_a_full_disk() {
    let folder = tempfile::tempdir().expect("a folder");
    let faulty = FaultyDisk::over(folder.path());
    let derived = |dir: &LogDir| open_as(dir, small_segments(), Visibility::Derived);
    {
        let dir = open_dir_on(Arc::new(faulty.clone()), folder.path()).expect("opens");
        let log = derived(&dir);
        log.stage(&batch(0, 1)).expect("stages");
        log.publish(1).expect("publishes");
        log.stage(&batch(1, 1)).expect("stages");
    }
    // As where a disk has no room for one more file.
    faulty.set_capacity(Some(faulty.used()));
    faulty.fail(Fault::new(Call::Create, Failure::Errno(libc::ENOSPC)));
    let dir = open_dir_on(Arc::new(faulty.clone()), folder.path()).expect("opens");
    let log = derived(&dir);
    assert_eq!(log.discard_to(1).expect("cuts"), 1);
    log.publish(1).expect("publishes");
    assert_eq!(read_all(&log, 0, 100), [(0, 0)]);
    assert!(log.read_only().is_none());
    assert!(matches!(log.stage(&batch(1, 20)), Err(Error::Io { .. })));
    faulty.set_capacity(None);
    faulty.heal();
    log.stage(&batch(1, 1)).expect("there is room again");
    log.publish(2).expect("publishes");
    assert_eq!(read_all(&log, 0, 100), [(0, 0), (1, 1)]);
}
