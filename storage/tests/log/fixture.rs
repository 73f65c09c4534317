//! What the tests share: a data folder, batches, and what its disk does wrong.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
pub use faulty_disk::{Call, Failure, Fault, FaultyDisk};
use storage::batch::header::{Batch, batches};
use storage::batch::{BatchBuilder, Compression, records};
use storage::disk::{Disk, RealDisk};
use storage::log_dir::{LogDirConfig, OpenLog};
use storage::partition_log::{Fetched, Read, ReadLimit, Visibility};
use storage::{LogConfig, LogDir, Offset, PartitionLog, Result};
use uuid::Uuid;

pub const TOPIC_ID: Uuid = Uuid::from_u128(0x0123_4567_89ab_cdef);

/// Segments of a few batches, and an index entry for nearly every one. Files go with the records.
pub fn small_segments() -> LogConfig {
    LogConfig {
        segment_bytes: 1000,
        index_interval_bytes: 100,
        file_delete_delay_ms: 0,
        ..LogConfig::default()
    }
}

/// In memory where there is such a place, for tests that depend on no device: syncs take time.
pub fn folder_in_memory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .expect("a folder")
}

pub fn open_dir_on(disk: Arc<dyn Disk>, path: &Path) -> Result<LogDir> {
    let config = LogDirConfig {
        path: path.to_owned(),
        node_id: 0,
        sync_threads: 2,
        recovery_threads: 2,
    };
    LogDir::open(config, disk)
}

pub fn open_dir(path: &Path) -> LogDir {
    open_dir_on(Arc::new(RealDisk), path).expect("opens the folder")
}

pub fn open_log(dir: &LogDir, config: LogConfig) -> Arc<PartitionLog> {
    open_as(dir, config, Visibility::Ordinary)
}

pub fn open_as(dir: &LogDir, config: LogConfig, visibility: Visibility) -> Arc<PartitionLog> {
    let log = OpenLog {
        topic: "events".to_owned(),
        topic_id: TOPIC_ID,
        partition: 0,
        config: Arc::new(config),
        visibility,
    };
    dir.open_logs(vec![log]).expect("opens the log").remove(0)
}

/// Where the partition's files are.
pub fn partition_dir(path: &Path) -> PathBuf {
    path.join("events-0")
}

/// The files of a suffix, by name.
pub fn files(path: &Path, suffix: &str) -> Vec<PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir(partition_dir(path))
        .expect("lists the folder")
        .map(|entry| entry.expect("lists the folder").path())
        .filter(|path| path.extension().is_some_and(|found| found == suffix))
        .collect();
    files.sort();
    files
}

/// A batch of records with these timestamps; the values are the numbers from `first` on.
pub fn batch_at(first: i64, timestamps: &[i64], compression: Compression) -> Bytes {
    let mut batch = BatchBuilder::new(compression);
    for (index, timestamp) in timestamps.iter().enumerate() {
        let value = (first + index as i64).to_be_bytes();
        batch.push(*timestamp, Some(b"key"), Some(&value), &[]);
    }
    batch.build()
}

/// A batch of `count` records.
pub fn batch(first: i64, count: usize) -> Bytes {
    batch_at(first, &vec![1_000; count], Compression::None)
}

/// A batch of one producer.
pub fn produced(producer_id: i64, epoch: i16, sequence: i32, count: usize) -> Bytes {
    let mut batch = BatchBuilder::new(Compression::None).producer(producer_id, epoch, sequence);
    for _ in 0..count {
        batch.push(1_000, None, Some(b"value"), &[]);
    }
    batch.build()
}

/// What a read finds, loaded where it has to be.
pub fn fetch(log: &PartitionLog, offset: Offset, max_bytes: usize) -> Result<Fetched> {
    match log.read(offset, max_bytes, true, ReadLimit::HighWatermark)? {
        Read::Warm(fetched) => Ok(fetched),
        Read::Cold(cold) => cold.load(),
    }
}

/// Every record from `offset` on, as (offset, value), read in pieces of about `max_bytes`.
pub fn read_all(log: &PartitionLog, mut offset: Offset, max_bytes: usize) -> Vec<(Offset, i64)> {
    let mut found = Vec::new();
    loop {
        let fetched = fetch(log, offset, max_bytes).expect("reads");
        if fetched.records.is_empty() {
            return found;
        }
        for batch in batches(&fetched.records) {
            let batch = batch.expect("a whole batch");
            let bytes = fetched.records.slice_ref(batch.bytes());
            for record in records::decode(&bytes, 1 << 20).expect("decodes") {
                let value = record.value.expect("a value");
                let value = <[u8; 8]>::try_from(value.as_ref()).map_or(-1, i64::from_be_bytes);
                found.push((record.offset, value));
            }
            offset = batch.next_offset();
        }
    }
}

/// The base offset and the size of every batch from `offset` on.
pub fn layout(log: &PartitionLog, offset: Offset) -> Vec<(Offset, usize)> {
    let fetched = fetch(log, offset, 1 << 20).expect("reads");
    batches(&fetched.records)
        .map(|batch| batch.expect("a whole batch"))
        .map(|batch: Batch<'_>| (batch.base_offset(), batch.size_in_bytes()))
        .collect()
}

/// Nothing is synced any more.
pub fn failing_syncs() -> Fault {
    Fault::new(Call::Sync, Failure::Errno(libc::EIO)).on(".log")
}

/// No segment can be made.
pub fn failing_creations() -> Fault {
    Fault::new(Call::Create, Failure::Errno(libc::ENOSPC)).on(".timeindex")
}

/// No file can be cut.
pub fn failing_cuts() -> Fault {
    Fault::new(Call::SetLen, Failure::Errno(libc::EIO)).on(".log")
}

/// The disk has room for so many bytes more, or any number.
pub fn set_room(disk: &FaultyDisk, room: Option<u64>) {
    disk.set_capacity(room.map(|room| disk.used() + room));
}
