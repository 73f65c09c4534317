//! `flush.messages` and `flush.ms`: what is appended gets to the device though nobody waits for it.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use storage::log_dir::OpenLog;
use storage::partition_log::{Durability, Visibility};
use storage::{Error, LogConfig, LogDir, PartitionLog};

use crate::fixture::*;

/// More than any sync takes.
const PATIENCE: Duration = Duration::from_secs(20);

fn open(path: &Path, config: LogConfig) -> (FaultyDisk, LogDir, Arc<PartitionLog>) {
    let disk = FaultyDisk::over(path);
    let dir = open_dir_on(Arc::new(disk.clone()), path).expect("opens the folder");
    let log = open_log(&dir, config);
    (disk, dir, log)
}

fn after(flush_messages: u64) -> LogConfig {
    LogConfig {
        flush_messages,
        ..LogConfig::default()
    }
}

fn within(flush_ms: u64) -> LogConfig {
    LogConfig {
        flush_ms,
        ..LogConfig::default()
    }
}

fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn so_many_records_are_synced_and_fewer_are_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let (disk, _dir, log) = open(folder.path(), after(10));
    for first in 0..3 {
        assert!(!log.append(&batch(first * 3, 3)).expect("appends").flushes);
    }
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(log.offsets().synced_offset, 0, "nine records are no ten");
    assert_eq!(disk.count(Call::Sync, ".log"), 0);
    assert!(log.append(&batch(9, 3)).expect("appends").flushes);
    wait_until("twelve records", || log.offsets().synced_offset == 12);
    // And it is counted from there.
    assert!(!log.append(&batch(12, 9)).expect("appends").flushes);
    assert!(log.append(&batch(21, 1)).expect("appends").flushes);
    wait_until("ten more", || log.offsets().synced_offset == 22);
}

#[test]
fn what_comes_while_a_sync_runs_is_synced_after_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let (disk, _dir, log) = open(folder.path(), after(1));
    disk.delay_syncs(Duration::from_millis(50));
    for first in 0..40 {
        assert!(log.append(&batch(first, 1)).expect("appends").flushes);
    }
    wait_until("the last one", || log.offsets().synced_offset == 40);
    let syncs = disk.count(Call::Sync, ".log");
    assert!((1..20).contains(&syncs), "{syncs} syncs for 40 records");
}

#[test]
fn an_old_record_is_synced_and_then_nothing_happens() {
    let folder = tempfile::tempdir().expect("a folder");
    let (disk, _dir, log) = open(folder.path(), within(30));
    for round in 1..=3 {
        let begun = Instant::now();
        log.append(&batch(round, 1)).expect("appends");
        wait_until("the record", || log.offsets().synced_offset == round);
        assert!(
            begun.elapsed() >= Duration::from_millis(30),
            "not before it is old"
        );
    }
    let syncs = disk.count(Call::Sync, ".log");
    std::thread::sleep(Duration::from_millis(150));
    assert_eq!(disk.count(Call::Sync, ".log"), syncs, "nothing to do");
}

#[test]
fn records_that_keep_coming_do_not_put_a_sync_off() {
    let folder = tempfile::tempdir().expect("a folder");
    let (disk, _dir, log) = open(folder.path(), within(20));
    disk.delay_syncs(Duration::from_millis(15));
    let begun = Instant::now();
    let mut appended = 0;
    while log.offsets().synced_offset < 20 || appended < 60 {
        assert!(begun.elapsed() < PATIENCE, "{:?}", log.offsets());
        log.append(&batch(appended, 1)).expect("appends");
        appended += 1;
        std::thread::sleep(Duration::from_millis(3));
    }
    // What came while the last sync ran is synced though nothing comes after it.
    wait_until("the last one", || log.offsets().synced_offset == appended);
}

#[test]
fn under_load_a_log_is_synced_no_more_often_than_it_says() {
    let folder = tempfile::tempdir().expect("a folder");
    let (disk, _dir, log) = open(folder.path(), within(100));
    disk.delay_syncs(Duration::from_millis(20));
    let begun = Instant::now();
    let mut appended = 0;
    while begun.elapsed() < Duration::from_millis(700) {
        log.append(&batch(appended, 1)).expect("appends");
        appended += 1;
        std::thread::sleep(Duration::from_millis(2));
    }
    let syncs = disk.count(Call::Sync, ".log");
    let most = begun.elapsed().as_millis() as u64 / 100 + 1;
    assert!((1..=most).contains(&syncs), "{syncs} syncs");
}

#[tokio::test]
async fn a_records_age_is_its_own_and_not_that_of_one_that_was_synced() {
    let folder = tempfile::tempdir().expect("a folder");
    let (disk, _dir, log) = open(folder.path(), within(1_000));
    let age_when_synced = |end: i64, appended: Instant| {
        wait_until("the last one", || log.offsets().synced_offset == end);
        appended.elapsed()
    };
    log.append(&batch(0, 1)).expect("appends");
    log.wait(1, Durability::Disk).await.expect("durable");
    std::thread::sleep(Duration::from_millis(700));
    log.append(&batch(1, 1)).expect("appends");
    let age = age_when_synced(2, Instant::now());
    assert!(age >= Duration::from_millis(800), "{age:?}");

    // One that comes while an older one is being synced.
    disk.delay_syncs(Duration::from_millis(150));
    log.append(&batch(2, 1)).expect("appends");
    std::thread::sleep(Duration::from_millis(700));
    let before = disk.count(Call::Sync, ".log");
    let durable = log.wait(3, Durability::Disk);
    wait_until("the sync has begun", || {
        disk.count(Call::Sync, ".log") > before
    });
    log.append(&batch(3, 1)).expect("appends");
    let appended = Instant::now();
    durable.await.expect("durable");
    let age = age_when_synced(4, appended);
    assert!(age >= Duration::from_millis(600), "{age:?}");
}

#[tokio::test]
async fn what_is_synced_anyway_is_not_synced_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let (disk, _dir, log) = open(folder.path(), within(40));
    log.append(&batch(0, 1)).expect("appends");
    log.wait(1, Durability::Disk).await.expect("durable");
    tokio::time::sleep(Duration::from_millis(150)).await;
    assert_eq!(disk.count(Call::Sync, ".log"), 1);
}

#[test]
fn a_changed_configuration_holds_for_what_comes_after() {
    let folder = tempfile::tempdir().expect("a folder");
    let (disk, _dir, log) = open(folder.path(), within(3_600_000));
    log.append(&batch(0, 1)).expect("appends");
    log.set_config(Arc::new(within(10)));
    log.append(&batch(1, 1)).expect("appends");
    wait_until("both", || log.offsets().synced_offset == 2);
    log.append(&batch(2, 1)).expect("appends");
    log.set_config(Arc::new(LogConfig::default()));
    log.append(&batch(3, 1)).expect("appends");
    let syncs = disk.count(Call::Sync, ".log");
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(disk.count(Call::Sync, ".log"), syncs, "it is off");
    assert_eq!(log.offsets().synced_offset, 2);
}

#[test]
fn many_logs_share_the_threads_and_each_is_synced() {
    let folder = tempfile::tempdir().expect("a folder");
    let (_disk, dir, _log) = open(folder.path(), LogConfig::default());
    let logs = (1..=20).map(|partition| OpenLog {
        topic: "events".to_owned(),
        topic_id: TOPIC_ID,
        partition,
        config: Arc::new(within(20 + partition as u64 % 7)),
        visibility: Visibility::Ordinary,
    });
    let logs = dir.open_logs(logs.collect()).expect("opens the logs");
    for log in logs.iter().chain(&logs[..10]) {
        log.append(&batch(0, 1)).expect("appends");
    }
    for log in &logs {
        wait_until("every log", || {
            let offsets = log.offsets();
            offsets.synced_offset == offsets.log_end_offset
        });
    }
    // One that is gone is not looked at, and keeps nothing.
    logs[0].append(&batch(1, 1)).expect("appends");
    dir.delete_log("events", 1).expect("deletes");
    std::thread::sleep(Duration::from_millis(60));
}

#[test]
fn a_failed_flush_makes_the_partition_read_only() {
    let folder = tempfile::tempdir().expect("a folder");
    let (disk, _dir, log) = open(folder.path(), within(1));
    disk.fail(failing_syncs());
    log.append(&batch(0, 1)).expect("in the page cache");
    wait_until("read-only", || {
        matches!(log.append(&batch(1, 1)), Err(Error::ReadOnly(_)))
    });
}
