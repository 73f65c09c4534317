//! Open files: how many a log keeps, and what happens where the system gives no more.
//!
//! A program of its own: the limit, and the count, are the process's.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use storage::batch::{BatchBuilder, Compression};
use storage::disk::RealDisk;
use storage::log_dir::{LogDirConfig, OpenLog};
use storage::partition_log::{Durability, Visibility};
use storage::{LogConfig, LogDir, PartitionLog};
use uuid::Uuid;

/// One test at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// Runs a test by itself; its runtime opens files, too.
fn alone(test: impl Future<Output = ()>) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.expect("a runtime").block_on(test);
}

fn open(path: &Path) -> (LogDir, Arc<PartitionLog>) {
    let config = LogDirConfig {
        path: path.to_owned(),
        node_id: 0,
        sync_threads: 2,
        recovery_threads: 2,
    };
    let dir = LogDir::open(config, Arc::new(RealDisk)).expect("opens the folder");
    let log = OpenLog {
        topic: "events".to_owned(),
        topic_id: Uuid::from_u128(7),
        partition: 0,
        config: Arc::new(LogConfig {
            segment_bytes: 1000,
            index_interval_bytes: 100,
            ..LogConfig::default()
        }),
        visibility: Visibility::Ordinary,
    };
    let log = dir.open_logs(vec![log]).expect("opens the log").remove(0);
    (dir, log)
}

fn batch() -> Bytes {
    let mut batch = BatchBuilder::new(Compression::None);
    batch.push(1_000, Some(b"key"), Some(&[7; 100]), &[]);
    batch.build()
}

/// The files of the folder that this process has open.
fn open_files(path: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc/self/fd").expect("lists the open files") {
        let entry = entry.expect("an open file").path();
        // The listing's own is gone by now.
        let Ok(target) = std::fs::read_link(entry) else {
            continue;
        };
        if target.starts_with(path.join("events-0")) {
            found.push(target.display().to_string());
        }
    }
    found.sort();
    found
}

/// Sets the soft limit of open files, and returns what it was.
fn set_limit(files: u64) -> u64 {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` is a whole `rlimit`, and is only written during the call.
    let got = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    assert_eq!(got, 0, "getrlimit");
    let before = limit.rlim_cur;
    limit.rlim_cur = files;
    // SAFETY: `limit` is a whole `rlimit`, and is only read during the call.
    let set = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) };
    assert_eq!(set, 0, "setrlimit");
    before
}

#[test]
fn a_rolled_segment_keeps_no_file_open_once_it_is_synced() {
    alone(async {
        let folder = tempfile::tempdir().expect("a folder");
        let (dir, log) = open(folder.path());
        for _ in 0..200 {
            log.append(&batch()).expect("appends");
        }
        let segments = log.size_bytes() / 1000;
        assert!(segments > 20, "{segments} segments");
        log.wait(200, Durability::Disk).await.expect("durable");
        let open = open_files(folder.path());
        let logs = open.iter().filter(|name| name.ends_with(".log")).count();
        assert_eq!(logs, 1, "after a sync: {open:?}");
        dir.checkpoint().expect("a checkpoint");
        let open = open_files(folder.path());
        assert_eq!(open.len(), 3, "after a checkpoint: {open:?}");
        // What is closed is read all the same, and not kept open for it.
        assert!(
            log.offset_for_timestamp(0, storage::partition_log::ReadLimit::HighWatermark)
                .is_ok()
        );
        assert_eq!(open_files(folder.path()).len(), 3);
    });
}

#[test]
fn a_sync_waits_where_no_file_can_be_opened() {
    alone(async {
        let folder = tempfile::tempdir().expect("a folder");
        let (dir, log) = open(folder.path());
        // The new folder's name is not on the device yet, so that the first sync has to open it.
        log.append(&batch()).expect("appends");
        // No file that is open is closed by this, and none is opened.
        let before = set_limit(3);
        let wait = tokio::time::timeout(Duration::from_millis(500), log.wait(1, Durability::Disk));
        let outcome = wait.await;
        // Without a handle no segment begins, and nothing is broken by that.
        let mut refused = 0;
        for _ in 0..20 {
            refused += usize::from(log.append(&batch()).is_err());
        }
        let checkpoint = dir.checkpoint();
        set_limit(before);
        assert!(outcome.is_err(), "{outcome:?}: it should still wait");
        assert!(refused > 0 && checkpoint.is_err());
        let end = log.append(&batch()).expect("appends").last_offset + 1;
        log.wait(end, Durability::Disk).await.expect("durable");
        dir.checkpoint().expect("a checkpoint");
        dir.shutdown().expect("stops");
    });
}
