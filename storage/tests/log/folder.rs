//! The data folder: its lock, its identity, its partitions.

use std::sync::Arc;

use faulty_disk::{Call, FaultyDisk};
use storage::disk::RealDisk;
use storage::log_dir::{LogDirConfig, OpenLog};
use storage::partition_log::Visibility;
use storage::{Error, LogConfig, LogDir};
use uuid::Uuid;

use crate::fixture::*;

#[test]
fn a_folder_in_use_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = open_dir(folder.path());
    let second = open_dir_on(Arc::new(RealDisk), folder.path());
    assert!(matches!(second, Err(Error::Locked(path)) if path == folder.path()));
    drop(dir);
    open_dir(folder.path());
}

#[test]
fn identity_is_kept() {
    let folder = tempfile::tempdir().expect("a folder");
    let first = open_dir(folder.path());
    let cluster_id = first.cluster_id().to_owned();
    assert_eq!(cluster_id.len(), 22);
    assert!(
        first.was_clean(),
        "nothing can be unclean at the first start"
    );
    drop(first);
    let second = open_dir(folder.path());
    assert_eq!(second.cluster_id(), cluster_id);
    assert!(!second.was_clean());
    second.shutdown().expect("stops");
    let marker = std::fs::read_to_string(folder.path().join(".kafka_cleanshutdown"));
    assert_eq!(
        marker.expect("is there"),
        r#"{"version":0,"brokerEpoch":-1}"#
    );
    drop(second);
    let third = open_dir(folder.path());
    assert!(third.was_clean());
    assert!(!folder.path().join(".kafka_cleanshutdown").exists());
    drop(third);
    let config = LogDirConfig {
        path: folder.path().to_owned(),
        node_id: 1,
        sync_threads: 1,
        recovery_threads: 1,
    };
    let other = LogDir::open(config, Arc::new(RealDisk)).expect_err("another node's folder");
    assert!(other.to_string().contains("node.id 0"), "{other}");
}

#[test]
fn a_folder_of_another_topic_is_put_aside() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = open_dir(folder.path());
    let log = open_log(&dir, LogConfig::default());
    log.append(&batch(0, 1)).expect("appends");
    assert_eq!(
        dir.on_disk().expect("lists"),
        [("events".to_owned(), 0, Some(TOPIC_ID))]
    );
    dir.shutdown().expect("stops");
    drop((log, dir));
    let dir = open_dir(folder.path());
    let reborn = OpenLog {
        topic: "events".to_owned(),
        topic_id: Uuid::from_u128(99),
        partition: 0,
        config: Arc::new(LogConfig::default()),
        visibility: Visibility::Ordinary,
    };
    let log = dir.open_logs(vec![reborn]).expect("opens").remove(0);
    assert_eq!(log.offsets().log_end_offset, 0);
    log.append(&batch(0, 1)).expect("appends");
    let stray = std::fs::read_dir(folder.path())
        .expect("lists")
        .map(|entry| entry.expect("lists").path())
        .find(|path| path.to_string_lossy().ends_with("-stray"))
        .expect("put aside");
    assert!(
        stray
            .join("00000000000000000000.log")
            .metadata()
            .expect("kept")
            .len()
            > 0
    );
}

#[test]
fn a_deleted_log_is_gone_and_may_come_back_empty() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = open_dir(folder.path());
    let log = open_log(&dir, small_segments());
    for first in 0..30 {
        log.append(&batch(first, 1)).expect("appends");
    }
    dir.checkpoint().expect("checkpoints");
    dir.delete_log("events", 0).expect("deletes");
    dir.delete_log("events", 0).expect("nothing to delete");
    assert_eq!(dir.on_disk().expect("lists"), []);
    let again = open_log(&dir, small_segments());
    assert_eq!(again.offsets().log_end_offset, 0);
    again.append(&batch(0, 1)).expect("appends");
    dir.shutdown().expect("stops");
    drop((log, again, dir));
    // What a crash between renaming and removing leaves.
    let leftover = folder.path().join("events-1.0123-delete");
    std::fs::create_dir(&leftover).expect("creates");
    let dir = open_dir(folder.path());
    assert!(!leftover.exists());
    assert_eq!(open_log(&dir, small_segments()).offsets().log_end_offset, 1);
}

#[test]
fn logs_that_are_deleted_together_share_the_waits_for_the_device() {
    let syncs_of = |partitions: i32| {
        let folder = tempfile::tempdir().expect("a folder");
        let disk = FaultyDisk::over(folder.path());
        let dir = open_dir_on(Arc::new(disk.clone()), folder.path()).expect("opens");
        let wanted = (0..partitions).map(|partition| OpenLog {
            topic: "events".to_owned(),
            topic_id: TOPIC_ID,
            partition,
            config: Arc::new(small_segments()),
            visibility: Visibility::Ordinary,
        });
        let logs = dir.open_logs(wanted.collect()).expect("opens the logs");
        for log in &logs {
            log.append(&batch(0, 1)).expect("appends");
        }
        dir.checkpoint().expect("checkpoints");
        disk.forget_calls();
        assert!(dir.delete_logs("events", 0..partitions).is_empty());
        assert_eq!(dir.on_disk().expect("lists"), []);
        for log in logs {
            assert!(matches!(log.append(&batch(1, 1)), Err(Error::Closed)));
        }
        disk.calls(Call::Sync).len() + disk.calls(Call::SyncDir).len()
    };
    assert_eq!(syncs_of(1), syncs_of(20));
}

#[test]
fn names_that_lead_elsewhere_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = open_dir(folder.path());
    for topic in ["", "../elsewhere", "a/b", &"x".repeat(254)] {
        assert!(dir.delete_log(topic, 0).is_err(), "{topic}");
    }
}

#[test]
fn many_logs_open_in_parallel_and_in_order() {
    let folder = tempfile::tempdir().expect("a folder");
    let wanted = |partition| OpenLog {
        topic: "events".to_owned(),
        topic_id: TOPIC_ID,
        partition,
        config: Arc::new(small_segments()),
        visibility: Visibility::Ordinary,
    };
    {
        let dir = open_dir(folder.path());
        let logs = dir.open_logs((0..20).map(wanted).collect()).expect("opens");
        for (partition, log) in logs.iter().enumerate() {
            assert_eq!(log.partition() as usize, partition);
            for first in 0..partition as i64 {
                log.append(&batch(first, 1)).expect("appends");
            }
        }
        dir.shutdown().expect("stops");
        assert!(matches!(logs[0].append(&batch(0, 1)), Err(Error::Closed)));
    }
    let dir = open_dir(folder.path());
    let logs = dir.open_logs((0..20).map(wanted).collect()).expect("opens");
    for (partition, log) in logs.iter().enumerate() {
        assert_eq!(log.offsets().log_end_offset, partition as i64);
    }
    assert_eq!(
        dir.open_logs(vec![wanted(3)]).expect("is open")[0]
            .offsets()
            .log_end_offset,
        3
    );
}

#[test]
fn a_folder_that_is_left_alone_does_not_make_every_stop_an_unclean_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let open_other = |dir: &LogDir| {
        let other = OpenLog {
            topic: "other".to_owned(),
            topic_id: Uuid::from_u128(7),
            partition: 0,
            config: Arc::new(small_segments()),
            visibility: Visibility::Ordinary,
        };
        dir.open_logs(vec![other]).expect("opens").remove(0)
    };
    {
        let dir = open_dir(folder.path());
        let (log, other) = (open_log(&dir, small_segments()), open_other(&dir));
        for first in 0..3 {
            log.append(&batch(first, 1)).expect("appends");
            other.append(&batch(first, 1)).expect("appends");
        }
    }
    let torn = folder.path().join("other-0/00000000000000000000.log");
    let whole = std::fs::read(&torn).expect("reads");
    std::fs::write(&torn, &whole[..whole.len() - 1]).expect("writes");
    for (round, was_clean) in [false, true, true].into_iter().enumerate() {
        let dir = open_dir(folder.path());
        assert_eq!(dir.was_clean(), was_clean, "round {round}");
        open_log(&dir, small_segments());
        dir.leave_alone("other", 0).expect("leaves it alone");
        dir.shutdown().expect("stops");
    }
    // It is recovered when somebody opens it, at a start after a clean stop even, and then is known.
    for round in ["recovered", "clean"] {
        let dir = open_dir(folder.path());
        assert!(dir.was_clean(), "{round}");
        open_log(&dir, small_segments());
        assert_eq!(read_all(&open_other(&dir), 0, 100).len(), 2, "{round}");
        assert!(
            !folder.path().join("other-0/.unrecovered").exists(),
            "{round}"
        );
        dir.shutdown().expect("stops");
    }
}
