//! What the tests share: a data folder, batches, and a disk that fails when it is told to.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use storage::batch::header::{Batch, batches};
use storage::batch::{BatchBuilder, Compression, records};
use storage::disk::{Disk, DiskLock, File, RealDisk};
use storage::log_dir::{LogDirConfig, OpenLog};
use storage::partition_log::{Fetched, Read, ReadLimit, Visibility};
use storage::{LogConfig, LogDir, Offset, PartitionLog, Result};
use uuid::Uuid;

pub const TOPIC_ID: Uuid = Uuid::from_u128(0x0123_4567_89ab_cdef);

/// Segments of a few batches, and an index entry for nearly every one.
pub fn small_segments() -> LogConfig {
    LogConfig {
        segment_bytes: 1000,
        index_interval_bytes: 100,
        ..LogConfig::default()
    }
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

/// What a [`FaultyDisk`] does wrong.
#[derive(Debug, Default)]
pub struct Faults {
    pub fail_sync: AtomicBool,
    /// Bytes that can still be written to `.log` files; the rest is a full disk.
    pub room: Mutex<Option<u64>>,
    pub fail_truncate: AtomicBool,
    /// No time index can be created.
    pub fail_create: AtomicBool,
    /// Nothing is really synced: the test is its own power cut.
    pub skip_syncs: AtomicBool,
    /// Syncs of `.log` files so far.
    pub syncs: AtomicU64,
    /// Folders that were synced.
    pub synced_dirs: Mutex<Vec<PathBuf>>,
    /// How long such a sync takes.
    pub sync_takes: Mutex<Duration>,
    /// Bytes read from `.log` files.
    pub bytes_read: AtomicU64,
}

/// The real disk, but for its faults.
#[derive(Debug, Default)]
pub struct FaultyDisk {
    real: RealDisk,
    pub faults: Arc<Faults>,
}

impl Disk for FaultyDisk {
    fn open(&self, path: &Path, create: bool) -> io::Result<Arc<dyn File>> {
        let time_index = path.extension().is_some_and(|suffix| suffix == "timeindex");
        if create && time_index && self.faults.fail_create.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let real = self.real.open(path, create)?;
        let log = path.extension().is_some_and(|suffix| suffix == "log");
        if log || self.faults.skip_syncs.load(Ordering::Relaxed) {
            let faults = if log {
                Arc::clone(&self.faults)
            } else {
                Arc::default()
            };
            faults.skip_syncs.fetch_or(
                self.faults.skip_syncs.load(Ordering::Relaxed),
                Ordering::Relaxed,
            );
            return Ok(Arc::new(FaultyFile { real, faults }));
        }
        Ok(real)
    }
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.real.create_dir_all(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.real.rename(from, to)
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.real.remove_file(path)
    }
    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.real.remove_dir_all(path)
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        if self.faults.skip_syncs.load(Ordering::Relaxed) {
            return Ok(());
        }
        let mut synced = self.faults.synced_dirs.lock().expect("not poisoned");
        synced.push(path.to_owned());
        self.real.sync_dir(path)
    }
    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        self.real.list(path)
    }
    fn lock(&self, path: &Path) -> io::Result<DiskLock> {
        self.real.lock(path)
    }
}

#[derive(Debug)]
struct FaultyFile {
    real: Arc<dyn File>,
    faults: Arc<Faults>,
}

impl File for FaultyFile {
    fn write_all_at(&self, bytes: &[&[u8]], position: u64) -> io::Result<()> {
        let mut room = self.faults.room.lock().expect("not poisoned");
        let Some(left) = room.as_mut() else {
            return self.real.write_all_at(bytes, position);
        };
        let whole = bytes.concat();
        let fits = (*left).min(whole.len() as u64) as usize;
        *left -= fits as u64;
        self.real.write_all_at(&[&whole[..fits]], position)?;
        if fits < whole.len() {
            Err(io::ErrorKind::StorageFull.into())
        } else {
            Ok(())
        }
    }
    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
        let read = self.real.read_at(buf, position)?;
        self.faults
            .bytes_read
            .fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
    fn sync(&self) -> io::Result<()> {
        std::thread::sleep(*self.faults.sync_takes.lock().expect("not poisoned"));
        self.faults.syncs.fetch_add(1, Ordering::Relaxed);
        if self.faults.fail_sync.load(Ordering::Relaxed) {
            return Err(io::Error::other("the device is gone"));
        }
        if self.faults.skip_syncs.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.real.sync()
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        if self.faults.fail_truncate.load(Ordering::Relaxed) {
            return Err(io::Error::other("the device is gone"));
        }
        self.real.set_len(len)
    }
    fn len(&self) -> io::Result<u64> {
        self.real.len()
    }
    fn map(&self, len: usize) -> io::Result<memmap2::MmapRaw> {
        self.real.map(len)
    }
}
