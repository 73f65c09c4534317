//! The log of one partition: one writer, any number of readers, group commit.
//!
//! ```text
//! log_start_offset <= last_stable_offset <= high_watermark <= log_end_offset
//! synced_offset    <= log_end_offset
//! ```
//!
//! | offset | meaning |
//! |---|---|
//! | `log_start_offset` | the first offset that can be read |
//! | `synced_offset` | everything below is on the device |
//! | `last_stable_offset` | everything below is decided; read_committed reads up to here |
//! | `high_watermark` | everything below is visible to consumers |
//! | `log_end_offset` | the offset that the next record gets |
//!
//! On an ordinary partition an append raises `high_watermark` with `log_end_offset`, before the
//! sync. On a derived partition only [`PartitionLog::publish`] raises it: what lies above is one
//! unfinished commit, the *hidden tail*.

mod append;
mod compact;
mod cut;
mod derived;
mod epochs;
mod files;
mod flush;
mod log_start;
mod read;
mod replace;
mod snapshots;
mod stop;
mod sync;
mod timestamps;

use std::future::Future;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use bytes::Bytes;
use tokio::sync::watch;

use crate::error::{Error, Result};
use crate::producer_state::{AbortedTransaction, ActiveProducer, ProducerState};
use crate::segment::SegmentWriter;
use crate::{LogConfig, Offset};

pub use append::as_stored;
pub(crate) use epochs::LeaderEpochs;
pub use log_start::DeleteTo;
pub(crate) use log_start::Prepared;
pub use read::ColdRead;
pub(crate) use snapshots::{Restore, Snapshots};
pub(crate) use stop::Checkpointed;
pub(crate) use sync::{Opened, Shared, SyncQueue, lock};

/// A partition's offsets at one moment. See the module's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offsets {
    /// The first readable offset.
    pub log_start_offset: Offset,
    /// Everything below is on the device.
    pub synced_offset: Offset,
    /// Read-committed readers stop here.
    pub last_stable_offset: Offset,
    /// Readers stop here.
    pub high_watermark: Offset,
    /// The next record's offset.
    pub log_end_offset: Offset,
}

/// When an append counts as done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// In the page cache: survives the process, not the power.
    PageCache,
    /// On the device: `fdatasync` returned.
    Disk,
}

/// Where a read stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadLimit {
    /// `read_uncommitted`.
    HighWatermark,
    /// `read_committed`.
    LastStableOffset,
    /// Everything appended, the hidden tail too. For replaying internal topics.
    LogEnd,
}

/// Who may write to a partition, and when what is written becomes visible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Visibility {
    /// Visible as soon as it is appended.
    Ordinary,
    /// Visible when published. Opened with nothing readable, until the first `publish`.
    Derived,
}

/// What an append came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// The first record's offset; for a duplicate, that of the first append.
    pub base_offset: Offset,
    /// The last record's offset.
    pub last_offset: Offset,
    /// The broker's time, milliseconds since the epoch, where the topic uses `LogAppendTime`.
    pub log_append_time_ms: Option<i64>,
    /// `log_start_offset` at the time.
    pub log_start_offset: Offset,
    /// The batch was known already; nothing was written.
    pub duplicate: bool,
    /// `flush.messages` are reached, and are being synced: the append is done when it is durable.
    pub flushes: bool,
}

/// Whole record batches, and the offsets they were read under.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// Whole batches, the first of which holds the offset asked for. Empty at the end of the log.
    pub records: Bytes,
    /// Of a read up to the last stable offset: the transactions with batches in `records`, or up to
    /// them, that were aborted.
    pub aborted: Vec<AbortedTransaction>,
    /// The offsets at the time of the read.
    pub offsets: Offsets,
}

/// What a read found.
#[derive(Debug)]
pub enum Read {
    /// In the page cache, free to use on any thread.
    Warm(Fetched),
    /// Not in the page cache: [`ColdRead::load`] blocks on the device.
    Cold(ColdRead),
}

/// A timestamp lookup's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimestampAndOffset {
    /// Milliseconds since the epoch.
    pub timestamp_ms: i64,
    /// The record's offset.
    pub offset: Offset,
    /// The leader epoch it was appended under.
    pub leader_epoch: i32,
}

/// The log of one partition. Shared as `Arc<PartitionLog>`; every method takes `&self`.
#[derive(Debug)]
pub struct PartitionLog {
    // Locks, in the order they are taken: the checkpoint, the writer, the leader epochs, then those
    // of the shared part.
    shared: Arc<Shared>,
    config: RwLock<Arc<LogConfig>>,
    writer: Mutex<Writer>,
    epochs: RwLock<LeaderEpochs>,
    snapshots: Snapshots,
    checkpointed: Mutex<Checkpointed>,
    /// It was said that there is a timestamp from the future.
    future_timestamp_told: AtomicBool,
}

/// What only the holder of the writer's lock changes.
#[derive(Debug)]
pub(crate) struct Writer {
    /// The newest segment.
    pub active: SegmentWriter,
    /// `log_end_offset`, and while several batches are appended together, the offset of the next.
    pub end: Offset,
    pub producers: ProducerState,
}

impl PartitionLog {
    /// A log whose files were opened and recovered.
    pub(crate) fn new(
        opened: Opened,
        config: Arc<LogConfig>,
        writer: Writer,
        epochs: LeaderEpochs,
        checkpointed: Checkpointed,
    ) -> Self {
        let (disk, dir) = (Arc::clone(&opened.disk), opened.dir.clone());
        let snapshots = Snapshots::new(disk, dir, checkpointed.recovery_point);
        let shared = Arc::new(Shared::new(opened));
        // What the start has repaired.
        shared.close_synced_files();
        Self {
            shared,
            config: RwLock::new(config),
            writer: Mutex::new(writer),
            epochs: RwLock::new(epochs),
            snapshots,
            checkpointed: Mutex::new(checkpointed),
            future_timestamp_told: AtomicBool::new(false),
        }
    }

    /// Resolves when everything below `end` is as durable as asked. Concurrent waiters share one
    /// sync (group commit). Fails when the sync fails, and the partition is read-only from then on.
    pub fn wait(
        &self,
        end: Offset,
        durability: Durability,
    ) -> impl Future<Output = Result<()>> + Send + 'static + use<> {
        let registered = match durability {
            Durability::PageCache => Ok(None),
            Durability::Disk => self.shared.register(end),
        };
        async move {
            match registered? {
                None => Ok(()),
                // A waiter is only dropped without a word when the log itself is.
                Some(woken) => woken.await.unwrap_or(Err(Error::Closed)),
            }
        }
    }

    /// The offsets now.
    pub fn offsets(&self) -> Offsets {
        self.shared.offsets()
    }

    /// Tells when readers may find something else: `high_watermark`, `last_stable_offset` or
    /// `log_start_offset` has changed, or the log was deleted. A sync or a stage alone wakes nobody,
    /// though what is borrowed here has their offsets too.
    pub fn watch(&self) -> watch::Receiver<Offsets> {
        self.shared.offsets.subscribe()
    }

    /// The epoch that appends are made under now.
    pub fn leader_epoch(&self) -> i32 {
        self.epochs
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .current()
    }

    /// The largest epoch `<= leader_epoch` that has records, and its end offset; `None` where no
    /// such epoch is known.
    pub fn end_offset_for_epoch(&self, leader_epoch: i32) -> Option<(i32, Offset)> {
        let offsets = self.offsets();
        let end = match self.shared.visibility {
            Visibility::Ordinary => offsets.log_end_offset,
            // What lies above may be cut off without a new epoch.
            Visibility::Derived => offsets.high_watermark,
        };
        let epochs = self.epochs.read().unwrap_or_else(PoisonError::into_inner);
        epochs.end_offset_for(leader_epoch, end)
    }

    /// Applies a changed configuration to what is appended from now on.
    pub fn set_config(&self, config: Arc<LogConfig>) {
        self.shared.set_flush_config(&config);
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = config;
    }

    /// Bytes of all segments.
    pub fn size_bytes(&self) -> u64 {
        self.shared
            .segments()
            .iter()
            .map(|segment| segment.size())
            .sum()
    }

    /// Why nothing is written here until the process is restarted: a sync, or cutting back what a
    /// write left, has failed. What is visible stays readable.
    pub fn read_only(&self) -> Option<&str> {
        self.shared.failure()
    }

    /// The topic's name.
    pub fn topic(&self) -> &str {
        &self.shared.topic
    }

    /// The partition's number.
    pub fn partition(&self) -> i32 {
        self.shared.partition
    }

    /// When what is written becomes visible.
    pub fn visibility(&self) -> Visibility {
        self.shared.visibility
    }

    /// The producers that are remembered, by id.
    pub fn active_producers(&self) -> Vec<ActiveProducer> {
        let mut writer = lock(&self.writer);
        self.forget_idle_producers(&mut writer);
        writer.producers.active()
    }

    /// The producers that have a transaction open here.
    pub fn open_transactions(&self) -> Vec<ActiveProducer> {
        lock(&self.writer).producers.with_open_transaction()
    }

    pub(crate) fn config(&self) -> Arc<LogConfig> {
        Arc::clone(&self.config.read().unwrap_or_else(PoisonError::into_inner))
    }
}
