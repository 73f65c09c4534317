//! The log's start moves up: records were deleted. Never back, and never above the high watermark.
//!
//! Two steps, with the data folder's checkpoint in between ([`crate::LogDir::delete_records`]):
//!
//! 1. [`PartitionLog::prepare_log_start`] puts on the device what a start with that checkpoint will
//!    rely on: everything below the new first offset (which names it), and where segments will go,
//!    the producers' state and the names of the segments that stay;
//! 2. [`PartitionLog::raise_log_start`] tells readers, and removes the segments that lie below.
//!
//! A crash in between, or in the middle of the removal, leaves files that the next start removes.
//! Readers that have a segment's map keep it; those that come too late are told that their offset
//! is out of range. A segment's files are held open by nobody else.

use std::sync::{Arc, PoisonError};

use super::sync::lock;
use super::{PartitionLog, ReadLimit, Writer};
use crate::Offset;
use crate::error::{Error, Result};
use crate::segment::Segment;

/// Up to where records are deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeleteTo {
    /// Below this offset.
    Offset(Offset),
    /// Everything that is visible.
    HighWatermark,
}

impl PartitionLog {
    /// Blocking. Makes ready for the log to begin where `to` says, and returns that offset; where
    /// the log begins there or later already, its `log_start_offset`.
    ///
    /// `OffsetOutOfRange` where it is negative or above the high watermark.
    pub(crate) fn prepare_log_start(&self, to: DeleteTo) -> Result<Offset> {
        let mut last = lock(&self.checkpointed);
        let (start, rolled) = {
            let mut writer = lock(&self.writer);
            self.shared.check_writable()?;
            let (offsets, high_watermark) = self.shared.readable_to(ReadLimit::HighWatermark)?;
            let start = match to {
                DeleteTo::Offset(offset) => offset,
                DeleteTo::HighWatermark => high_watermark,
            };
            if !(0..=high_watermark).contains(&start) {
                return Err(Error::OffsetOutOfRange {
                    offset: start,
                    start: offsets.log_start_offset,
                    end: high_watermark,
                });
            }
            if start <= offsets.log_start_offset {
                return Ok(offsets.log_start_offset);
            }
            let all = start == writer.end && writer.active.segment().size() > 0;
            (start, all && self.roll_to_delete(&mut writer)?)
        };
        let segments = self.shared.segments();
        if segments
            .get(1)
            .is_some_and(|next| next.base_offset() <= start)
        {
            self.checkpoint_after(&mut last)?;
        }
        while rolled && self.shared.is_dir_dirty() || self.offsets().synced_offset < start {
            self.shared.sync()?;
        }
        Ok(start)
    }

    /// The newest segment goes too, so there has to be another. Without one, on a full disk, its
    /// records are deleted all the same, but not its files.
    fn roll_to_delete(&self, writer: &mut Writer) -> Result<bool> {
        let now_ms = self.shared.clock.now_ms();
        match self.roll(writer, now_ms, &self.config()) {
            Ok(()) => Ok(true),
            Err(error @ Error::ReadOnly(_)) => Err(self.shared.fail(&error)),
            Err(error) => {
                let (topic, partition) = (self.topic(), self.partition());
                tracing::warn!(topic, partition, %error, "a segment without records is kept");
                Ok(false)
            }
        }
    }

    /// Blocking. The log begins at `start`, which was prepared and is in the checkpoint: readers see
    /// it, and what lies below is removed.
    pub(crate) fn raise_log_start(&self, start: Offset) -> Result<()> {
        let _checkpoint = lock(&self.checkpointed);
        let removed = {
            let _writer = lock(&self.writer);
            self.shared.check_exists()?;
            self.shared
                .offsets
                .send_modify(|now| now.log_start_offset = start.max(now.log_start_offset));
            self.epochs
                .write()
                .unwrap_or_else(PoisonError::into_inner)
                .truncate_start(start);
            self.take_segments_below(start)
        };
        // Both are done again by whoever comes next: the epochs by an append, the files by a start.
        let tidied = self.write_epochs().and_then(|()| self.remove(&removed));
        let (topic, partition) = (self.topic(), self.partition());
        if let Err(error) = tidied {
            tracing::warn!(topic, partition, %error, "files below the log's start are left");
        }
        let segments = removed.len();
        tracing::debug!(
            topic,
            partition,
            log_start_offset = start,
            segments,
            "records deleted"
        );
        Ok(())
    }

    /// With the writer's lock: takes the segments that have nothing at or above `offset` out of the
    /// log. One stays.
    fn take_segments_below(&self, offset: Offset) -> Vec<Arc<Segment>> {
        let segments = self.shared.segments();
        let below = segments
            .partition_point(|segment| segment.base_offset() <= offset)
            .saturating_sub(1);
        let (removed, kept) = segments.split_at(below);
        if !removed.is_empty() {
            self.shared.set_segments(kept.to_vec());
        }
        removed.to_vec()
    }

    /// Removes the files of segments that are no longer the log's, the oldest first.
    fn remove(&self, segments: &[Arc<Segment>]) -> Result<()> {
        // A sync that began with these among its segments may still open them.
        self.shared.between_syncs(|| {
            for path in segments.iter().flat_map(|segment| segment.paths()) {
                self.shared
                    .disk
                    .remove_file(&path)
                    .map_err(|error| Error::io("remove", &path, &error))?;
            }
            Ok(())
        })
    }
}
