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

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::watch;

use crate::error::Result;
use crate::Offset;

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
}

/// Whole record batches, and the offsets they were read under.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// Whole batches, the first of which holds the offset asked for. Empty at the end of the log.
    pub records: Bytes,
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

/// A read that has to wait for the device. Run [`ColdRead::load`] on a thread that may block.
#[derive(Debug)]
pub struct ColdRead {}

impl ColdRead {
    /// Brings the pages in and returns what the read found.
    pub fn load(self) -> Result<Fetched> {
        todo!()
    }
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
pub struct PartitionLog {}

impl PartitionLog {
    /// Validates one client batch, checks its producer's sequence, assigns its offset and writes
    /// it to the page cache. The payload is neither copied nor decompressed. Wait for durability
    /// with [`PartitionLog::wait`]; a duplicate has to wait for the same.
    pub fn append(&self, batch: &Bytes) -> Result<Appended> {
        todo!()
    }

    /// As [`PartitionLog::append`] for batches of the broker's own (several, back to back, control
    /// batches allowed). Returns the first's base offset and the end.
    pub fn append_internal(&self, batches: &Bytes) -> Result<std::ops::Range<Offset>> {
        todo!()
    }

    /// Resolves when everything below `end` is as durable as asked. Concurrent waiters share one
    /// sync (group commit). Fails when the sync fails, and the partition is read-only from then on.
    pub fn wait(
        &self,
        end: Offset,
        durability: Durability,
    ) -> impl Future<Output = Result<()>> + Send + use<> {
        async { todo!() }
    }

    /// The offsets now.
    pub fn offsets(&self) -> Offsets {
        todo!()
    }

    /// Tells when any offset changes.
    pub fn watch(&self) -> watch::Receiver<Offsets> {
        todo!()
    }

    /// Reads whole batches from the one that holds `offset`, up to `max_bytes` or, where
    /// `at_least_one` is set, one batch even if it is larger.
    pub fn read(
        &self,
        offset: Offset,
        max_bytes: usize,
        at_least_one: bool,
        limit: ReadLimit,
    ) -> Result<Read> {
        todo!()
    }

    /// Blocking. The first record at or after `timestamp_ms`, below `limit`.
    pub fn offset_for_timestamp(
        &self,
        timestamp_ms: i64,
        limit: ReadLimit,
    ) -> Result<Option<TimestampAndOffset>> {
        todo!()
    }

    /// Blocking. The record with the largest timestamp.
    pub fn max_timestamp(&self) -> Result<Option<TimestampAndOffset>> {
        todo!()
    }

    /// The epoch that appends are made under now.
    pub fn leader_epoch(&self) -> i32 {
        todo!()
    }

    /// The largest epoch `<= leader_epoch` that has records, and its end offset; `None` where no
    /// such epoch is known.
    pub fn end_offset_for_epoch(&self, leader_epoch: i32) -> Option<(i32, Offset)> {
        todo!()
    }

    /// Applies a changed configuration to what is appended from now on.
    pub fn set_config(&self, config: Arc<crate::LogConfig>) {
        todo!()
    }

    /// Bytes of all segments.
    pub fn size_bytes(&self) -> u64 {
        todo!()
    }

    /// Derived partitions: appends batches above the high watermark and returns their offsets.
    /// The caller holds this partition's turn.
    pub fn stage(&self, batches: &Bytes) -> Result<std::ops::Range<Offset>> {
        todo!()
    }

    /// Derived partitions: raises the high watermark to `end`; the partition is readable after.
    pub fn publish(&self, end: Offset) -> Result<()> {
        todo!()
    }

    /// Derived partitions: cuts everything at and above `end` off. Returns how many records went.
    /// Never below the high watermark.
    pub fn discard_to(&self, end: Offset) -> Result<i64> {
        todo!()
    }
}
