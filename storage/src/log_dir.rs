//! The data folder: locked by one process, one folder per partition, Kafka's checkpoint files.
//!
//! ```text
//! .lock                                held by flock while the folder is in use
//! meta.properties                      node id and cluster id, written at the first start
//! .kafka_cleanshutdown                 there between a clean stop and the next start
//! recovery-point-offset-checkpoint     a start scans each log from here on, after an unclean stop
//! log-start-offset-checkpoint          where it is not the first segment's
//! replication-offset-checkpoint        high watermarks
//! cleaner-offset-checkpoint            how far each log is compacted that ever was
//! <topic>-<partition>/                 one partition
//! <topic>-<partition>/.unrecovered     nobody has opened it since an unclean stop
//! <topic>-<partition>.<id>-delete/     deleted; goes after file.delete.delay.ms, or at a start
//! <topic>-<partition>.<id>-stray/      another topic of the same name had it; kept for a human
//! ```

mod checkpoints;
mod compaction;
mod deletion;
mod folders;
mod log_starts;
mod parallel;
mod removals;

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use uuid::Uuid;

use self::checkpoints::Checkpoints;
pub use self::compaction::Compacted;
use self::compaction::Passes;
pub use self::log_starts::Retained;
use self::removals::Removals;

use crate::checkpoint::{self, MetaProperties, OffsetCheckpoint, PartitionOffsets, uuid_text};
use crate::clock::Clock;
use crate::disk::{Disk, DiskLock};
use crate::error::{Error, Result};
use crate::partition_log::{SyncQueue, Visibility, lock};
use crate::recovery::{Progress, Recovery};
use crate::{LogConfig, Offset, PartitionLog};

const LOCK: &str = ".lock";
const CLEAN_SHUTDOWN: &str = ".kafka_cleanshutdown";
/// At least so many threads make and close logs.
const WAITING_THREADS: usize = 16;
/// What Kafka's `CleanShutdownFileHandler` writes where there is no broker epoch.
const CLEAN_SHUTDOWN_CONTENT: &[u8] = br#"{"version":0,"brokerEpoch":-1}"#;

/// How to open a data folder.
#[derive(Clone, Debug)]
pub struct LogDirConfig {
    /// The folder; created where missing.
    pub path: PathBuf,
    /// This broker's `node.id`, pinned in `meta.properties` at the first start.
    pub node_id: i32,
    /// Threads that run `fdatasync` for group commits.
    pub sync_threads: usize,
    /// Threads that recover partitions at start.
    pub recovery_threads: usize,
}

/// A partition to open or create.
#[derive(Clone, Debug)]
pub struct OpenLog {
    /// The topic's name.
    pub topic: String,
    /// The topic's id, checked against `partition.metadata`.
    pub topic_id: Uuid,
    /// The partition's number.
    pub partition: i32,
    /// Its configuration.
    pub config: Arc<LogConfig>,
    /// When what is written becomes visible.
    pub visibility: Visibility,
}

/// A topic's name and a partition's number.
type Key = (String, i32);

/// The data folder. Dropping it releases the lock without a clean shutdown.
#[derive(Debug)]
pub struct LogDir {
    config: LogDirConfig,
    disk: Arc<dyn Disk>,
    clock: Clock,
    cluster_id: String,
    was_clean: bool,
    /// High watermarks that a clean stop recorded.
    clean_high_watermarks: PartitionOffsets,
    checkpoints: Mutex<Checkpoints>,
    logs: Mutex<BTreeMap<Key, Arc<PartitionLog>>>,
    /// Held while logs are opened or deleted, so that no log is open twice.
    opening: Mutex<()>,
    stopped: AtomicBool,
    /// Files that are no log's any more.
    removals: Removals,
    /// Who is compacted, or can't be.
    passes: Passes,
    queue: Arc<SyncQueue>,
    sync_threads: Vec<JoinHandle<()>>,
    _lock: DiskLock,
}

impl LogDir {
    /// Locks the folder, reads `meta.properties` (writing it, with a fresh cluster id, at the first
    /// start), the checkpoints and the clean-shutdown marker, and removes the marker.
    pub fn open(config: LogDirConfig, disk: Arc<dyn Disk>) -> Result<Self> {
        Self::open_with_clock(config, disk, Clock::system())
    }

    /// As [`LogDir::open`], with a clock of the caller's.
    pub fn open_with_clock(
        config: LogDirConfig,
        disk: Arc<dyn Disk>,
        clock: Clock,
    ) -> Result<Self> {
        let path = &config.path;
        disk.create_dir_all(path)
            .map_err(|error| Error::io("create", path, &error))?;
        let lock_path = path.join(LOCK);
        let dir_lock = disk.lock(&lock_path).map_err(|error| match error.kind() {
            std::io::ErrorKind::WouldBlock => Error::Locked(path.clone()),
            _ => Error::io("lock", &lock_path, &error),
        })?;
        let (cluster_id, first_start) = identity(disk.as_ref(), path, config.node_id)?;
        let marked = folders::take_marker(disk.as_ref(), path, CLEAN_SHUTDOWN)?;
        let was_clean =
            marked || (first_start && folders::partitions(disk.as_ref(), path)?.is_empty());
        folders::remove_deleted(disk.as_ref(), path)?;
        let mut checkpoints = Checkpoints::read(disk.as_ref(), path)?;
        checkpoints.log_starts_lost |=
            folders::any_missing(disk.as_ref(), path, checkpoints.log_start_offsets.keys())?;
        let clean_high_watermarks = if was_clean {
            checkpoints.high_watermarks.clone()
        } else {
            BTreeMap::new()
        };
        let queue = Arc::new(SyncQueue::default());
        let sync_threads = spawn_sync_threads(&queue, config.sync_threads)?;
        Ok(Self {
            config,
            disk,
            clock,
            cluster_id,
            was_clean,
            clean_high_watermarks,
            checkpoints: Mutex::new(checkpoints),
            logs: Mutex::default(),
            opening: Mutex::default(),
            stopped: AtomicBool::new(false),
            removals: Removals::default(),
            passes: Passes::default(),
            queue,
            sync_threads,
            _lock: dir_lock,
        })
    }

    /// The cluster's id, 22 characters of URL-safe base64 as Kafka writes it.
    pub fn cluster_id(&self) -> &str {
        &self.cluster_id
    }

    /// The last stop was clean.
    pub fn was_clean(&self) -> bool {
        self.was_clean
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.config.path
    }

    /// Opens logs in parallel, recovering those that need it; missing folders are created. Logs
    /// that are open already are returned as they are.
    pub fn open_logs(&self, logs: Vec<OpenLog>) -> Result<Vec<Arc<PartitionLog>>> {
        let _opening = lock(&self.opening);
        if self.stopped.load(Ordering::Acquire) {
            return Err(Error::Closed);
        }
        let progress = Progress::default();
        let created = AtomicBool::new(false);
        // They are all new, or none is.
        let threads = match logs.first() {
            Some(log) if self.is_new(log)? => self.waiting_threads(),
            _ => self.config.recovery_threads,
        };
        let opened = parallel::run(
            threads,
            &logs,
            |log| self.open_log(log, &progress, &created),
            |done, elapsed| {
                tracing::info!(
                    partitions = done,
                    of = logs.len(),
                    scanned_bytes = progress.scanned_bytes.load(Ordering::Relaxed),
                    elapsed_s = elapsed.as_secs(),
                    "opening partitions"
                );
            },
        )?;
        if created.into_inner() || !self.was_clean {
            // Before readers see anything in a new folder: were it lost with what they have read, its
            // offsets would be given again under the same leader epoch. After a crash nobody knows which
            // are new.
            self.disk
                .sync_dir(self.path())
                .map_err(|error| Error::io("sync", self.path(), &error))?;
            self.write_checkpoints()?;
        }
        let mut open = lock(&self.logs);
        for log in &opened {
            open.insert((log.topic().to_owned(), log.partition()), Arc::clone(log));
        }
        Ok(opened)
    }

    fn is_new(&self, log: &OpenLog) -> Result<bool> {
        let dir = self.path().join(folders::name(&log.topic, log.partition)?);
        Ok(!folders::exists(self.disk.as_ref(), &dir)?)
    }

    /// Threads for work that waits for the device more than it computes: it puts on the device together
    /// what waits together.
    fn waiting_threads(&self) -> usize {
        match self.config.recovery_threads {
            // One after another, as somebody may want it.
            one @ ..=1 => one,
            some => some.max(WAITING_THREADS),
        }
    }

    fn open_log(
        &self,
        log: &OpenLog,
        progress: &Progress,
        any_created: &AtomicBool,
    ) -> Result<Arc<PartitionLog>> {
        let key = (log.topic.clone(), log.partition);
        if let Some(open) = lock(&self.logs).get(&key) {
            return Ok(Arc::clone(open));
        }
        let disk = self.disk.as_ref();
        let dir = self.path().join(folders::name(&log.topic, log.partition)?);
        let created = folders::prepare(disk, &dir, log.topic_id)?;
        if created {
            any_created.store(true, Ordering::Relaxed);
            self.forget(&key)?;
            if log.config.compact {
                // Without one it would be a log from elsewhere, in which offsets may be missing.
                lock(&self.checkpoints).set(OffsetCheckpoint::RecoveryPoint, &key, Some(0));
            }
        }
        let unrecovered = folders::is_unrecovered(disk, &dir)?;
        let recovery = {
            let checkpoints = lock(&self.checkpoints);
            Recovery {
                disk: &self.disk,
                clock: &self.clock,
                queue: &self.queue,
                progress,
                clean: self.was_clean && !unrecovered,
                recovery_point: checkpoints.recovery_points.get(&key).copied(),
                log_start_offset: checkpoints.log_start_offsets.get(&key).copied(),
                log_starts_lost: checkpoints.log_starts_lost,
                was_compacted: checkpoints.first_dirty_offsets.contains_key(&key),
            }
        };
        let opened = recovery.open(dir.clone(), log.clone(), created)?;
        if unrecovered {
            folders::clear_unrecovered(disk, &dir)?;
        }
        Ok(Arc::new(opened))
    }

    /// Leaves a folder alone that nobody is going to open. After an unclean stop, whoever opens it
    /// at some later start recovers it then; so it does not keep this one from a clean stop.
    pub fn leave_alone(&self, topic: &str, partition: i32) -> Result<()> {
        if self.was_clean {
            return Ok(());
        }
        let dir = self.path().join(folders::name(topic, partition)?);
        match folders::mark_unrecovered(self.disk.as_ref(), &dir) {
            // Then the next stop is not a clean one.
            Err(error) if error.is_disk_full() => {
                tracing::warn!(%error, "a partition that nobody opens is not marked");
            }
            marked => marked?,
        }
        let key = (topic.to_owned(), partition);
        lock(&self.checkpoints).set(OffsetCheckpoint::HighWatermark, &key, None);
        Ok(())
    }

    /// The partition folders on disk (topic, partition, topic id where known), open or not.
    pub fn on_disk(&self) -> Result<Vec<(String, i32, Option<Uuid>)>> {
        folders::partitions(self.disk.as_ref(), self.path())
    }

    /// Blocking. Syncs what is dirty and writes recovery points, log start offsets and high
    /// watermarks, so that the next unclean start has less to scan.
    pub fn checkpoint(&self) -> Result<()> {
        let mut result = Ok(());
        for (key, log) in self.open_now() {
            match log.checkpoint() {
                Ok(recovery_point) => self.note(key, &log, recovery_point),
                // Deleted meanwhile.
                Err(Error::Closed) => {}
                Err(error) => result = result.and(Err(error)),
            }
        }
        self.write_checkpoints()?;
        result
    }

    /// Blocking. Syncs every log, writes snapshots and checkpoints, then the clean-shutdown marker.
    /// The marker vouches for every partition of the folder; so after an unclean stop it is not
    /// written while there are some that were not opened, and so not recovered.
    /// Appends fail with [`crate::Error::Closed`] from now on, and so does opening logs. Whoever
    /// commits to derived partitions has to be done before: what is published later is not recorded.
    pub fn shutdown(&self) -> Result<()> {
        self.stopped.store(true, Ordering::Release);
        let _opening = lock(&self.opening);
        let logs = self.open_now();
        let closed = parallel::run(
            self.waiting_threads(),
            &logs,
            |(_, log)| Ok(log.close()),
            |done, elapsed| {
                let elapsed_s = elapsed.as_secs();
                tracing::info!(
                    partitions = done,
                    of = logs.len(),
                    elapsed_s,
                    "closing partitions"
                );
            },
        )?;
        let unrecovered = self.unrecovered(&logs)?;
        let mut result = Ok(());
        for ((key, log), closed) in logs.into_iter().zip(closed) {
            match closed {
                Ok(recovery_point) => self.note(key, &log, recovery_point),
                Err(Error::Closed) => {}
                Err(error) => result = result.and(Err(error)),
            }
        }
        self.write_checkpoints()?;
        // Without the marker the next start finds out itself what has failed here.
        result?;
        if let Some((topic, partition)) = unrecovered {
            tracing::warn!(
                topic,
                partition,
                "not a clean stop: the partition was not recovered since the last one"
            );
            return Ok(());
        }
        let marker = self.path().join(CLEAN_SHUTDOWN);
        checkpoint::write_file(self.disk.as_ref(), &marker, CLEAN_SHUTDOWN_CONTENT)
    }

    /// The published end that a clean stop recorded for a derived partition.
    pub fn clean_high_watermark(&self, topic: &str, partition: i32) -> Option<Offset> {
        self.clean_high_watermarks
            .get(&(topic.to_owned(), partition))
            .copied()
    }

    /// Refuses what takes room where the disk is known to be full.
    pub fn check_room(&self) -> Result<()> {
        let room = self.disk.room_for(self.path());
        room.map_err(|error| Error::io("write", self.path(), &error))
    }

    /// The open partitions that are read-only until the process is restarted.
    pub fn read_only_partitions(&self) -> Vec<(String, i32)> {
        lock(&self.logs)
            .iter()
            .filter(|(_, log)| log.read_only().is_some())
            .map(|(key, _)| key.clone())
            .collect()
    }

    fn open_now(&self) -> Vec<(Key, Arc<PartitionLog>)> {
        lock(&self.logs)
            .iter()
            .map(|(key, log)| (key.clone(), Arc::clone(log)))
            .collect()
    }

    /// A partition that nobody has looked at since an unclean stop, or decided to leave alone.
    fn unrecovered(&self, open: &[(Key, Arc<PartitionLog>)]) -> Result<Option<Key>> {
        if self.was_clean {
            return Ok(None);
        }
        let open: HashSet<&Key> = open.iter().map(|(key, _)| key).collect();
        for (topic, partition, _) in self.on_disk()? {
            let dir = self.path().join(folders::name(&topic, partition)?);
            let key = (topic, partition);
            if !open.contains(&key) && !folders::is_unrecovered(self.disk.as_ref(), &dir)? {
                return Ok(Some(key));
            }
        }
        Ok(None)
    }

    fn note(&self, key: Key, log: &PartitionLog, recovery_point: Offset) {
        // A log that was deleted since has nothing to be noted.
        let logs = lock(&self.logs);
        if !logs.contains_key(&key) {
            return;
        }
        let mut checkpoints = lock(&self.checkpoints);
        // It may have been written down already and not be the log's yet. And it stays when the
        // segments below are gone: a power cut may bring them back.
        let written = checkpoints.log_start_offsets.get(&key).copied();
        let start = written.max(Some(log.offsets().log_start_offset));
        let start = start.filter(|start| *start > 0);
        checkpoints.set(OffsetCheckpoint::LogStartOffset, &key, start);
        let high_watermark = match log.known_high_watermark() {
            // Nobody has replayed its changelog since the start. What a clean stop said holds on.
            None if self.was_clean => checkpoints.high_watermarks.get(&key).copied(),
            known => known,
        };
        checkpoints.set(OffsetCheckpoint::HighWatermark, &key, high_watermark);
        checkpoints.set(OffsetCheckpoint::RecoveryPoint, &key, Some(recovery_point));
    }

    /// A recovery point must not outlive its log: it would have the next one of that name trusted.
    fn forget(&self, key: &Key) -> Result<()> {
        lock(&self.checkpoints).remove(key);
        self.write_checkpoints()
    }

    fn write_checkpoints(&self) -> Result<()> {
        lock(&self.checkpoints).write(self.disk.as_ref(), self.path())
    }
}

impl Drop for LogDir {
    fn drop(&mut self) {
        self.queue.stop();
        for thread in self.sync_threads.drain(..) {
            // One that panicked has nothing left to be waited for.
            let _ = thread.join();
        }
    }
}

/// The cluster's id, and whether the folder has just got one.
fn identity(disk: &dyn Disk, path: &Path, node_id: i32) -> Result<(String, bool)> {
    if let Some(properties) = checkpoint::read_meta_properties(disk, path)? {
        if properties.node_id == node_id {
            return Ok((properties.cluster_id, false));
        }
        return Err(Error::CorruptFile {
            path: path.join("meta.properties"),
            reason: format!(
                "the folder belongs to node.id {}, this broker is {node_id}",
                properties.node_id
            ),
        });
    }
    if let Some((topic, partition, _)) = folders::partitions(disk, path)?.first() {
        return Err(Error::CorruptFile {
            path: path.join("meta.properties"),
            reason: format!(
                "it is missing, and the folder is in use: it has partition {partition} of \
                 '{topic}'; whose it is can't be told any more"
            ),
        });
    }
    let cluster_id = uuid_text::encode(Uuid::new_v4());
    let properties = MetaProperties {
        node_id,
        cluster_id: cluster_id.clone(),
        directory_id: Some(Uuid::new_v4()),
    };
    checkpoint::write_meta_properties(disk, path, &properties)?;
    Ok((cluster_id, true))
}

fn spawn_sync_threads(queue: &Arc<SyncQueue>, count: usize) -> Result<Vec<JoinHandle<()>>> {
    (0..count.max(1))
        .map(|index| {
            let queue = Arc::clone(queue);
            thread::Builder::new()
                .name(format!("sync-{index}"))
                .spawn(move || queue.run())
                .map_err(|error| Error::io("spawn", format!("sync-{index}"), &error))
        })
        .collect()
}
