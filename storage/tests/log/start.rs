//! What a start reads of many partitions with many segments, and how it goes about it.

use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use faulty_disk::{Call, FaultyDisk};
use storage::log_dir::OpenLog;
use storage::partition_log::Visibility;
use storage::{LogConfig, LogDir, PartitionLog};

use crate::fixture::*;

const PARTITIONS: i32 = 4;
const BATCHES: i64 = 4_000;

fn open(dir: &LogDir) -> Vec<Arc<PartitionLog>> {
    let config = LogConfig {
        segment_bytes: 20_000,
        ..LogConfig::default()
    };
    let log = |partition| OpenLog {
        topic: "events".to_owned(),
        topic_id: TOPIC_ID,
        partition,
        config: Arc::new(config.clone()),
        visibility: Visibility::Ordinary,
    };
    dir.open_logs((0..PARTITIONS).map(log).collect())
        .expect("opens the logs")
}

/// Fills every partition; returns the bytes of one behind what was checkpointed, and all of them.
fn fill(path: &Path, clean: bool) -> (u64, u64) {
    let dir = open_dir(path);
    let logs = open(&dir);
    let mut checkpointed = 0;
    for number in 0..BATCHES {
        if number == BATCHES * 9 / 10 {
            dir.checkpoint().expect("checkpoints");
            checkpointed = logs[0].size_bytes();
        }
        for log in &logs {
            log.append(&batch(number, 1)).expect("appends");
        }
    }
    if clean {
        dir.shutdown().expect("stops");
    }
    let size = logs[0].size_bytes();
    (size - checkpointed, size)
}

fn counting(path: &Path) -> (FaultyDisk, LogDir) {
    let disk = FaultyDisk::over(path);
    let dir = open_dir_on(Arc::new(disk.clone()), path).expect("opens");
    disk.forget_calls();
    (disk, dir)
}

#[test]
fn a_clean_start_reads_a_few_headers_of_each_partition_whatever_it_holds() {
    let folder = folder_in_memory();
    let (_, size) = fill(folder.path(), true);
    let (disk, dir) = counting(folder.path());
    let logs = open(&dir);
    assert!(dir.was_clean());
    assert!(
        logs.iter()
            .all(|log| log.offsets().log_end_offset == BATCHES)
    );
    let read = disk.bytes_read(".log");
    // The end of the newest segment, its first batch, and the batches around each epoch's start.
    let few = PARTITIONS as u64 * 8 * 8192;
    assert!(
        read < few,
        "{read} bytes read, of {PARTITIONS} times {size}"
    );
    assert!(few < PARTITIONS as u64 * size / 4);
    for suffix in ["index", "timeindex"] {
        let read = disk.bytes_read(suffix);
        assert!(read < PARTITIONS as u64 * 4096, "{read} bytes of {suffix}");
    }
    let opened = disk.count(Call::Open, ".log");
    assert!(
        opened > PARTITIONS as u64 * 10,
        "the sizes of {opened} files"
    );
}

#[test]
fn a_start_after_a_crash_reads_what_is_behind_the_recovery_points() {
    let folder = folder_in_memory();
    let (behind, size) = fill(folder.path(), false);
    let (disk, dir) = counting(folder.path());
    let logs = open(&dir);
    assert!(!dir.was_clean());
    assert!(
        logs.iter()
            .all(|log| log.offsets().log_end_offset == BATCHES)
    );
    let read = disk.bytes_read(".log");
    let (least, few) = (PARTITIONS as u64 * behind, PARTITIONS as u64 * 14 * 8192);
    assert!(read >= least, "{read} bytes read, {least} are not trusted");
    assert!(
        read < least + few,
        "{read} bytes read, {least} are not trusted of {PARTITIONS} times {size}"
    );
    assert!(behind + 14 * 8192 < size * 2 / 3, "{behind} of {size}");
}

#[test]
fn partitions_are_recovered_at_the_same_time_and_said_to_take_long() {
    let folder = folder_in_memory();
    fill(folder.path(), false);
    let (disk, dir) = counting(folder.path());
    for partition in 0..PARTITIONS {
        disk.hold(Call::Read, &format!("events-{partition}"));
    }
    let said = Said::default();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer({
            let said = said.clone();
            move || said.clone()
        })
        .finish();
    thread::scope(|scope| {
        let opened = scope.spawn(|| tracing::subscriber::with_default(subscriber, || open(&dir)));
        // The folder has two threads for this. Neither goes on before both are at it.
        let both = disk.wait_for_held(2, Duration::from_secs(20));
        for _ in 0..200 {
            if said.text().contains("opening partitions") {
                break;
            }
            thread::sleep(Duration::from_millis(100));
        }
        let text = said.text();
        disk.release();
        let logs = opened.join().expect("opens");
        assert!(both, "one after the other");
        assert_eq!(logs.len(), PARTITIONS as usize);
        let line = text
            .lines()
            .find(|line| line.contains("opening partitions"));
        let line = line.unwrap_or_else(|| panic!("no progress in {text:?}"));
        assert!(line.contains("partitions=0 of=4"), "{line}");
        assert!(line.contains("elapsed_s="), "{line}");
    });
}

#[derive(Clone, Debug, Default)]
struct Said(Arc<Mutex<Vec<u8>>>);

impl Said {
    fn text(&self) -> String {
        let bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Write for Said {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        said.extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
