//! The four checkpoints of a data folder, in memory and on disk.

use std::path::Path;

use super::Key;
use crate::Offset;
use crate::checkpoint::{self, OffsetCheckpoint, PartitionOffsets};
use crate::disk::Disk;
use crate::error::{Error, Result};

/// What the checkpoint files say, also of partitions that are not open.
#[derive(Debug, Default)]
pub(super) struct Checkpoints {
    pub recovery_points: PartitionOffsets,
    pub log_start_offsets: PartitionOffsets,
    pub high_watermarks: PartitionOffsets,
    /// Of logs that were compacted once; so their offsets have gaps.
    pub first_dirty_offsets: PartitionOffsets,
    /// The file of first offsets was missing or damaged.
    pub log_starts_lost: bool,
    /// The files do not say so yet.
    changed: bool,
}

impl Checkpoints {
    /// Reads the files; one that is damaged is passed over.
    pub fn read(disk: &dyn Disk, path: &Path) -> Result<Self> {
        let read = |checkpoint| match checkpoint::read_offsets(disk, path, checkpoint) {
            // Each only saves work, or says again what the log has.
            Err(error @ Error::CorruptFile { .. }) => {
                tracing::warn!(%error, "passed over a damaged checkpoint");
                Ok(PartitionOffsets::new())
            }
            read => read,
        };
        let log_starts = path.join(OffsetCheckpoint::LogStartOffset.file_name());
        let log_starts = checkpoint::read_file(disk, &log_starts)?;
        let log_start_offsets = read(OffsetCheckpoint::LogStartOffset)?;
        Ok(Self {
            recovery_points: read(OffsetCheckpoint::RecoveryPoint)?,
            log_starts_lost: log_start_offsets.is_empty() && !log_starts.is_some_and(is_whole),
            log_start_offsets,
            high_watermarks: read(OffsetCheckpoint::HighWatermark)?,
            first_dirty_offsets: read(OffsetCheckpoint::FirstDirtyOffset)?,
            changed: false,
        })
    }

    /// Sets or forgets one offset of a partition.
    pub fn set(&mut self, checkpoint: OffsetCheckpoint, key: &Key, offset: Option<Offset>) {
        let offsets = match checkpoint {
            OffsetCheckpoint::RecoveryPoint => &mut self.recovery_points,
            OffsetCheckpoint::LogStartOffset => &mut self.log_start_offsets,
            OffsetCheckpoint::HighWatermark => &mut self.high_watermarks,
            OffsetCheckpoint::FirstDirtyOffset => &mut self.first_dirty_offsets,
        };
        if offsets.get(key).copied() == offset {
            return;
        }
        match offset {
            Some(offset) => offsets.insert(key.clone(), offset),
            None => offsets.remove(key),
        };
        self.changed = true;
    }

    /// Raises first offsets, on the device when this returns. Where that fails, none is raised.
    pub fn raise_log_starts(
        &mut self,
        disk: &dyn Disk,
        path: &Path,
        starts: impl IntoIterator<Item = (Key, Offset)>,
    ) -> Result<()> {
        let before = self.log_start_offsets.clone();
        for (key, start) in starts {
            let known = self.log_start_offsets.entry(key).or_insert(start);
            *known = start.max(*known);
        }
        let checkpoint = OffsetCheckpoint::LogStartOffset;
        let written = checkpoint::write_offsets(disk, path, checkpoint, &self.log_start_offsets);
        if written.is_err() {
            self.log_start_offsets = before;
            self.changed = true;
        }
        written
    }

    /// Says how far compaction has come, on the device when this returns.
    pub fn set_first_dirty(
        &mut self,
        disk: &dyn Disk,
        path: &Path,
        key: &Key,
        offset: Offset,
    ) -> Result<()> {
        let checkpoint = OffsetCheckpoint::FirstDirtyOffset;
        let before = self.first_dirty_offsets.insert(key.clone(), offset);
        if before == Some(offset) {
            return Ok(());
        }
        let written = checkpoint::write_offsets(disk, path, checkpoint, &self.first_dirty_offsets);
        if written.is_err() {
            self.set(checkpoint, key, before);
            self.changed = true;
        }
        written
    }

    /// Forgets a partition.
    pub fn remove(&mut self, key: &Key) {
        for checkpoint in [
            OffsetCheckpoint::RecoveryPoint,
            OffsetCheckpoint::LogStartOffset,
            OffsetCheckpoint::HighWatermark,
            OffsetCheckpoint::FirstDirtyOffset,
        ] {
            self.set(checkpoint, key, None);
        }
    }

    /// Writes the files where they say something else.
    pub fn write(&mut self, disk: &dyn Disk, path: &Path) -> Result<()> {
        if !self.changed {
            return Ok(());
        }
        for (checkpoint, offsets) in [
            (OffsetCheckpoint::RecoveryPoint, &self.recovery_points),
            (OffsetCheckpoint::LogStartOffset, &self.log_start_offsets),
            (OffsetCheckpoint::HighWatermark, &self.high_watermarks),
            (
                OffsetCheckpoint::FirstDirtyOffset,
                &self.first_dirty_offsets,
            ),
        ] {
            checkpoint::write_offsets(disk, path, checkpoint, offsets)?;
        }
        self.changed = false;
        Ok(())
    }
}

/// An empty checkpoint, as it is written.
fn is_whole(bytes: Vec<u8>) -> bool {
    bytes == b"0\n0\n"
}
