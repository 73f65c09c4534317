//! The data folder: locked by one process, one folder per partition, Kafka's checkpoint files.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use uuid::Uuid;

use crate::disk::Disk;
use crate::error::Result;
use crate::partition_log::Visibility;
use crate::{LogConfig, Offset, PartitionLog};

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

/// The data folder. Dropping it releases the lock without a clean shutdown.
#[derive(Debug)]
pub struct LogDir {}

impl LogDir {
    /// Locks the folder, reads `meta.properties` (writing it, with a fresh cluster id, at the first
    /// start), the checkpoints and the clean-shutdown marker, and removes the marker.
    pub fn open(config: LogDirConfig, disk: Arc<dyn Disk>) -> Result<Self> {
        todo!()
    }

    /// The cluster's id, 22 characters of URL-safe base64 as Kafka writes it.
    pub fn cluster_id(&self) -> &str {
        todo!()
    }

    /// The last stop was clean.
    pub fn was_clean(&self) -> bool {
        todo!()
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        todo!()
    }

    /// Opens logs in parallel, recovering those that need it; missing folders are created.
    pub fn open_logs(&self, logs: Vec<OpenLog>) -> Result<Vec<Arc<PartitionLog>>> {
        todo!()
    }

    /// Closes a log and removes its files.
    pub fn delete_log(&self, topic: &str, partition: i32) -> Result<()> {
        todo!()
    }

    /// The partition folders on disk (topic, partition, topic id where known), open or not.
    pub fn on_disk(&self) -> Result<Vec<(String, i32, Option<Uuid>)>> {
        todo!()
    }

    /// Blocking. Syncs closed segments, writes recovery points, log start offsets and high
    /// watermarks, so that the next unclean start has less to scan.
    pub fn checkpoint(&self) -> Result<()> {
        todo!()
    }

    /// Blocking. Syncs every log, writes snapshots and checkpoints, then the clean-shutdown marker.
    /// Appends fail with [`crate::Error::Closed`] from now on.
    pub fn shutdown(&self) -> Result<()> {
        todo!()
    }

    /// The published end that a clean stop recorded for a derived partition.
    pub fn clean_high_watermark(&self, topic: &str, partition: i32) -> Option<Offset> {
        todo!()
    }
}
