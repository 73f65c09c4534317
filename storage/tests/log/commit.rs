//! Durability: group commit, and what happens when the disk fails.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use storage::batch::Compression;
use storage::partition_log::Durability;
use storage::{Error, LogConfig, LogDir, PartitionLog};

use crate::fixture::*;

fn open(path: &Path) -> (FaultyDisk, LogDir, Arc<PartitionLog>) {
    let disk = FaultyDisk::over(path);
    let dir = open_dir_on(Arc::new(disk.clone()), path).expect("opens the folder");
    let log = open_log(&dir, small_segments());
    (disk, dir, log)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_waiters_share_syncs() {
    let folder = tempfile::tempdir().expect("a folder");
    let (disk, _dir, log) = open(folder.path());
    log.set_config(Arc::new(LogConfig::default()));
    disk.delay_syncs(Duration::from_millis(20));
    let waiters: Vec<_> = (0..200)
        .map(|first| {
            let appended = log.append(&batch(first, 1)).expect("appends");
            let wait = log.wait(appended.last_offset + 1, Durability::Disk);
            let log = Arc::clone(&log);
            tokio::spawn(async move {
                wait.await.expect("durable");
                assert!(log.offsets().synced_offset > appended.last_offset);
            })
        })
        .collect();
    for waiter in waiters {
        waiter.await.expect("no panic");
    }
    assert_eq!(log.offsets().synced_offset, 200);
    let syncs = disk.count(Call::Sync, ".log");
    assert!((1..20).contains(&syncs), "{syncs} syncs for 200 waiters");
    // What is durable already costs nothing.
    log.wait(200, Durability::Disk).await.expect("durable");
    assert_eq!(disk.count(Call::Sync, ".log"), syncs);
}

#[tokio::test]
async fn a_sync_covers_the_segments_that_were_rolled() {
    let folder = tempfile::tempdir().expect("a folder");
    let (disk, _dir, log) = open(folder.path());
    for first in 0..60 {
        log.append(&batch(first, 1)).expect("appends");
    }
    log.wait(60, Durability::PageCache).await.expect("at once");
    assert_eq!(disk.count(Call::Sync, ".log"), 0);
    assert_eq!(log.offsets().synced_offset, 0);
    log.wait(60, Durability::Disk).await.expect("durable");
    let segments = files(folder.path(), "log").len() as u64;
    assert_eq!(disk.count(Call::Sync, ".log"), segments);
    assert!(matches!(
        log.wait(61, Durability::Disk).await,
        Err(Error::OffsetOutOfRange { offset: 61, .. })
    ));
}

#[tokio::test]
async fn a_failed_sync_is_final() {
    let folder = tempfile::tempdir().expect("a folder");
    let (disk, dir, log) = open(folder.path());
    log.append(&batch(0, 1)).expect("appends");
    log.wait(1, Durability::Disk).await.expect("durable");
    disk.fail(failing_syncs());
    log.append(&batch(1, 1)).expect("in the page cache");
    assert!(matches!(
        log.wait(2, Durability::Disk).await,
        Err(Error::ReadOnly(_))
    ));
    disk.heal();
    assert!(matches!(log.append(&batch(2, 1)), Err(Error::ReadOnly(_))));
    assert!(matches!(
        log.wait(2, Durability::Disk).await,
        Err(Error::ReadOnly(_))
    ));
    log.wait(1, Durability::Disk)
        .await
        .expect("durable before the failure");
    assert_eq!(log.offsets().synced_offset, 1);
    assert_eq!(read_all(&log, 0, 100).len(), 2, "still readable");
    assert!(dir.checkpoint().is_err());
    assert!(dir.shutdown().is_err(), "no clean stop");
    drop((log, dir));
    assert!(!open_dir(folder.path()).was_clean());
}

#[tokio::test]
async fn a_full_disk_is_cut_back_and_waited_out() {
    let folder = tempfile::tempdir().expect("a folder");
    let (disk, _dir, log) = open(folder.path());
    log.append(&batch(0, 1)).expect("appends");
    let size = log.size_bytes();
    for room in [0, 1, 30, 61, 70] {
        set_room(&disk, Some(room));
        assert!(matches!(
            log.append(&batch(1, 1)),
            Err(Error::Io {
                kind: std::io::ErrorKind::StorageFull,
                ..
            })
        ));
        assert_eq!((log.offsets().log_end_offset, log.size_bytes()), (1, size));
        let on_disk = files(folder.path(), "log")[0]
            .metadata()
            .expect("is there")
            .len();
        assert_eq!(on_disk, size, "after {room} bytes");
    }
    // Several batches of which only the first ones fit, across a roll.
    set_room(&disk, Some(2_500));
    let many: Vec<u8> = (1..60).flat_map(|first| batch(first, 1)).collect();
    assert!(log.append_internal(&many.into()).is_err());
    assert_eq!((log.offsets().log_end_offset, log.size_bytes()), (1, size));
    set_room(&disk, None);
    for first in 1..30 {
        log.append(&batch(first, 1)).expect("there is room again");
    }
    log.wait(30, Durability::Disk).await.expect("durable");
    assert_eq!(
        read_all(&log, 0, 200),
        (0..30).map(|n| (n, n)).collect::<Vec<_>>()
    );
}

#[test]
fn a_roll_that_fails_leaves_no_segment_behind() {
    let folder = tempfile::tempdir().expect("a folder");
    let (disk, dir, log) = open(folder.path());
    for first in 0..10 {
        log.append(&batch(first, 1)).expect("appends");
    }
    disk.fail(failing_creations());
    assert!(matches!(log.append(&batch(10, 30)), Err(Error::Io { .. })));
    assert_eq!(files(folder.path(), "log").len(), 1);
    // A smaller one still fits into the old segment.
    log.append(&batch(10, 1)).expect("appends");
    dir.shutdown().expect("stops");
    drop((log, dir));
    let dir = open_dir(folder.path());
    let log = open_log(&dir, small_segments());
    assert_eq!(
        read_all(&log, 0, 100),
        (0..11).map(|n| (n, n)).collect::<Vec<_>>()
    );
}

#[tokio::test]
async fn a_write_that_cannot_be_cut_back_ends_the_writing() {
    let folder = tempfile::tempdir().expect("a folder");
    let (disk, _dir, log) = open(folder.path());
    log.append(&batch(0, 1)).expect("appends");
    set_room(&disk, Some(30));
    disk.fail(failing_cuts());
    assert!(matches!(log.append(&batch(1, 1)), Err(Error::ReadOnly(_))));
    set_room(&disk, None);
    disk.heal();
    assert!(matches!(log.append(&batch(1, 1)), Err(Error::ReadOnly(_))));
    assert_eq!(read_all(&log, 0, 100), [(0, 0)]);
}

#[test]
fn a_log_that_failed_is_not_vouched_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let (disk, dir, log) = open(folder.path());
    // Without a timestamp, so that a stop has nothing to add to the indexes.
    log.append(&batch_at(0, &[-1], Compression::None))
        .expect("appends");
    dir.checkpoint().expect("checkpoints");
    set_room(&disk, Some(30));
    disk.fail(failing_cuts());
    assert!(matches!(log.append(&batch(1, 1)), Err(Error::ReadOnly(_))));
    assert!(matches!(dir.shutdown(), Err(Error::ReadOnly(_))));
    drop((log, dir));
    let dir = open_dir(folder.path());
    assert!(!dir.was_clean());
    let log = open_log(&dir, small_segments());
    assert_eq!(read_all(&log, 0, 100), [(0, 0)]);
}

#[tokio::test]
async fn watchers_and_waiters_hear_of_a_deletion() {
    let folder = tempfile::tempdir().expect("a folder");
    let (disk, dir, log) = open(folder.path());
    let mut watch = log.watch();
    watch.mark_unchanged();
    log.append(&batch(0, 1)).expect("appends");
    watch.changed().await.expect("hears of the append");
    assert_eq!(watch.borrow_and_update().high_watermark, 1);
    disk.delay_syncs(Duration::from_millis(50));
    log.append(&batch(1, 1)).expect("appends");
    let wait = log.wait(2, Durability::Disk);
    dir.delete_log("events", 0).expect("deletes");
    // Either the sync came first or the deletion; what matters is that there is an answer.
    assert!(matches!(wait.await, Ok(()) | Err(Error::Closed)));
    watch.changed().await.expect("hears of the deletion");
    assert!(matches!(
        log.wait(3, Durability::Disk).await,
        Err(Error::Closed)
    ));
}

#[tokio::test]
async fn a_log_that_outlives_its_folder_keeps_nobody_waiting() {
    let folder = tempfile::tempdir().expect("a folder");
    let (_, dir, log) = open(folder.path());
    log.append(&batch(0, 1)).expect("appends");
    drop(dir);
    assert!(matches!(
        log.wait(1, Durability::Disk).await,
        Err(Error::Closed)
    ));
}
