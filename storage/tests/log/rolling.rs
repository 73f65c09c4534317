//! When a segment is full: `segment.ms`, `segment.jitter.ms`, `segment.index.bytes`.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use storage::batch::Compression;
use storage::clock::Clock;
use storage::disk::RealDisk;
use storage::log_dir::{LogDirConfig, OpenLog};
use storage::partition_log::Visibility;
use storage::{LogConfig, LogDir, PartitionLog};

use crate::fixture::*;

const BEGIN_MS: i64 = 1_700_000_000_000;

/// A folder whose clock is the number.
fn open_with_clock(path: &Path) -> (LogDir, Arc<AtomicI64>) {
    let now = Arc::new(AtomicI64::new(BEGIN_MS));
    let clock = Arc::clone(&now);
    let config = LogDirConfig {
        path: path.to_owned(),
        node_id: 0,
        sync_threads: 1,
        recovery_threads: 1,
    };
    let clock = Clock::new(move || clock.load(Ordering::Relaxed));
    let dir = LogDir::open_with_clock(config, Arc::new(RealDisk), clock);
    (dir.expect("opens the folder"), now)
}

fn aged(segment_ms: u64, segment_jitter_ms: u64) -> LogConfig {
    LogConfig {
        segment_ms,
        segment_jitter_ms,
        ..LogConfig::default()
    }
}

/// Appends at `at_ms`, by both clocks.
fn append_at(log: &PartitionLog, now: &AtomicI64, at_ms: i64) {
    now.store(BEGIN_MS + at_ms, Ordering::Relaxed);
    let batch = batch_at(0, &[BEGIN_MS + at_ms], Compression::None);
    log.append(&batch).expect("appends");
}

#[test]
fn a_segment_rolls_by_age_with_the_append_after_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let (dir, now) = open_with_clock(folder.path());
    let log = open_log(&dir, aged(1_000, 0));
    append_at(&log, &now, 0);
    append_at(&log, &now, 1_000);
    assert_eq!(files(folder.path(), "log").len(), 1, "as old as it may be");
    now.store(BEGIN_MS + 60_000, Ordering::Relaxed);
    dir.checkpoint().expect("a checkpoint");
    assert_eq!(
        files(folder.path(), "log").len(),
        1,
        "nothing rolls by itself"
    );
    append_at(&log, &now, 60_000);
    assert_eq!(files(folder.path(), "log").len(), 2);

    // A changed configuration holds from the next append on.
    append_at(&log, &now, 60_500);
    assert_eq!(files(folder.path(), "log").len(), 2);
    log.set_config(Arc::new(aged(400, 0)));
    append_at(&log, &now, 60_500);
    assert_eq!(files(folder.path(), "log").len(), 3);
}

#[test]
fn a_compacted_log_rolls_by_the_longest_lag_of_compaction_too() {
    for (compact, segment_ms, lag_ms, rolls_after_ms) in [
        (true, 1_000, 300, 300),
        (true, 300, 1_000, 300),
        (false, 1_000, 300, 1_000),
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        let (dir, now) = open_with_clock(folder.path());
        let config = LogConfig {
            compact,
            max_compaction_lag_ms: lag_ms,
            ..aged(segment_ms, 0)
        };
        let log = open_log(&dir, config);
        append_at(&log, &now, 0);
        append_at(&log, &now, rolls_after_ms);
        assert_eq!(files(folder.path(), "log").len(), 1, "{compact} {lag_ms}");
        append_at(&log, &now, rolls_after_ms + 1);
        assert_eq!(files(folder.path(), "log").len(), 2, "{compact} {lag_ms}");
    }
}

/// At which age the first segments of many partitions roll.
fn ages(dir: &LogDir, now: &AtomicI64, config: LogConfig, from: i32) -> Vec<i64> {
    let config = Arc::new(config);
    let logs = (from..from + 20).map(|partition| OpenLog {
        topic: "jitter".to_owned(),
        topic_id: TOPIC_ID,
        partition,
        config: Arc::clone(&config),
        visibility: Visibility::Ordinary,
    });
    let logs = dir.open_logs(logs.collect()).expect("opens the logs");
    let segments = |log: &PartitionLog| {
        let folder = dir.path().join(format!("jitter-{}", log.partition()));
        let files = std::fs::read_dir(folder).expect("lists the folder");
        let names = files.map(|file| file.expect("a file").file_name());
        let is_log = |name: &std::ffi::OsString| name.to_string_lossy().ends_with(".log");
        names.filter(is_log).count()
    };
    for log in &logs {
        append_at(log, now, 0);
    }
    let mut ages = vec![0; logs.len()];
    for age in (0..=1_100).step_by(50) {
        for (log, found) in logs.iter().zip(&mut ages) {
            if *found == 0 {
                append_at(log, now, age);
                if segments(log) == 2 {
                    *found = age;
                }
            }
        }
    }
    ages
}

#[test]
fn jitter_spreads_the_rolls_and_never_puts_one_off() {
    let folder = tempfile::tempdir().expect("a folder");
    let (dir, now) = open_with_clock(folder.path());
    let together = ages(&dir, &now, aged(1_000, 0), 0);
    assert!(together.iter().all(|age| *age == 1_050), "{together:?}");
    let spread = ages(&dir, &now, aged(1_000, 500), 100);
    assert!(
        spread.iter().all(|age| (500..=1_050).contains(age)),
        "{spread:?}"
    );
    let mut different = spread.clone();
    different.sort_unstable();
    different.dedup();
    assert!(different.len() >= 5, "{spread:?}");
    // A jitter beyond segment.ms leaves no segment less than a record.
    let wide = ages(&dir, &now, aged(1_000, 1 << 40), 200);
    assert!(wide.iter().all(|age| (0..=1_050).contains(age)), "{wide:?}");
    assert!(wide.iter().any(|age| *age < 500), "{wide:?}");
}

#[test]
fn a_full_index_rolls_the_segment() {
    let folder = tempfile::tempdir().expect("a folder");
    let (dir, _) = open_with_clock(folder.path());
    let config = LogConfig {
        segment_index_bytes: 96,
        index_interval_bytes: 0,
        ..LogConfig::default()
    };
    let log = open_log(&dir, config);
    // With an entry of each index for every batch but the first, the time index is full first: of the
    // eight that it has room for, one is left for the time that a closed segment ends with.
    for first in 0..40 {
        log.append(&batch_at(first, &[first], Compression::None))
            .expect("appends");
    }
    let sizes = |suffix: &str| {
        let mut sizes: Vec<u64> = files(folder.path(), suffix)
            .iter()
            .map(|file| file.metadata().expect("is there").len())
            .collect();
        sizes.pop();
        sizes
    };
    assert!(sizes("log").len() >= 3, "{:?}", sizes("log"));
    assert!(
        sizes("timeindex").iter().all(|bytes| *bytes == 7 * 12),
        "{:?}",
        sizes("timeindex")
    );
    assert!(
        sizes("index").iter().all(|bytes| *bytes == 7 * 8),
        "{:?}",
        sizes("index")
    );
}
