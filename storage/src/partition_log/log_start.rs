//! The log's start moves up: records were deleted. Never back, and never above the high watermark.
//!
//! Two steps, with the data folder's checkpoint in between ([`crate::LogDir::delete_records`] and
//! [`crate::LogDir::apply_retention`]):
//!
//! 1. [`PartitionLog::prepare_log_start`] puts on the device what a start with that checkpoint will
//!    rely on: everything below the new first offset (which names it), and where segments will go,
//!    the producers' state and the names of the segments that stay;
//! 2. [`PartitionLog::raise_log_start`] tells readers, and takes the segments that lie below out of
//!    the log. Their files stay until `file.delete.delay.ms` has passed and nobody holds them.
//!
//! A crash in between, or before all files are removed, leaves files that the next start removes.
//! Readers that have a segment keep it; those that come too late are told that their offset is out
//! of range.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use super::sync::lock;
use super::{PartitionLog, ReadLimit, Writer};
use crate::Offset;
use crate::error::{Error, Result};
use crate::retention::{self, Choice, LogFacts};
use crate::segment::{Segment, deleted_suffix};

/// Up to where records are deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeleteTo {
    /// Below this offset.
    Offset(Offset),
    /// Everything that is visible.
    HighWatermark,
    /// Below this offset if a segment begins there, or the log ends there; nothing otherwise.
    WholeSegments(Offset),
}

/// A log's start that may be raised now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Prepared {
    /// Where the log will begin, or begins already.
    pub log_start_offset: Offset,
    /// There is something to be done.
    pub changes: bool,
}

impl PartitionLog {
    /// What of the log its configuration does not keep. Reads no file, but for the first look at a
    /// segment that the process has found closed, and for segments without timestamps. Nothing goes
    /// of a log whose high watermark is not known yet, or that takes no writes.
    pub(crate) fn choose_retention(&self) -> Result<Choice> {
        if self.shared.check_writable().is_err() {
            return Ok(Choice::default());
        }
        let Some(high_watermark) = self.known_high_watermark() else {
            return Ok(Choice::default());
        };
        let config = self.config();
        // What was taken first is not beyond what is taken later.
        let offsets = self.offsets();
        let segments = self.shared.segments();
        let facts: Vec<_> = segments.iter().map(|segment| segment.facts()).collect();
        let log = LogFacts {
            now_ms: self.shared.clock.now_ms(),
            log_start_offset: offsets.log_start_offset,
            high_watermark,
            log_end_offset: offsets.log_end_offset,
        };
        let choice = retention::choose(&config, log, &facts, |at| match segments.get(at) {
            None => Err(Error::Closed),
            Some(segment) => segment.newest_ms(),
        })?;
        if let Some((base_offset, timestamp)) = choice.future_timestamp
            && !self.future_timestamp_told.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(
                topic = self.topic(),
                partition = self.partition(),
                base_offset,
                timestamp,
                now_ms = log.now_ms,
                "a segment with a timestamp from the future is not deleted by its age"
            );
        }
        Ok(choice)
    }

    /// `file.delete.delay.ms`.
    pub(crate) fn file_delete_delay_ms(&self) -> u64 {
        self.config().file_delete_delay_ms
    }

    /// Blocking. Makes ready for the log to begin where `to` says; where it begins there or later
    /// already, there may still be segments to be taken out.
    ///
    /// `OffsetOutOfRange` where it is negative or above the high watermark.
    pub(crate) fn prepare_log_start(&self, to: DeleteTo) -> Result<Prepared> {
        let mut last = lock(&self.checkpointed);
        let (start, changes, rolled) = {
            let mut writer = lock(&self.writer);
            self.shared.check_writable()?;
            let (offsets, high_watermark) = self.shared.readable_to(ReadLimit::HighWatermark)?;
            let start = match to {
                DeleteTo::Offset(offset) => offset,
                DeleteTo::HighWatermark => high_watermark,
                DeleteTo::WholeSegments(offset) if self.is_boundary(&writer, offset) => offset,
                // It was the log's end, and records have come since.
                DeleteTo::WholeSegments(_) => offsets.log_start_offset,
            };
            if !(0..=high_watermark).contains(&start) {
                return Err(Error::OffsetOutOfRange {
                    offset: start,
                    start: offsets.log_start_offset,
                    end: high_watermark,
                });
            }
            if start <= offsets.log_start_offset {
                (offsets.log_start_offset, false, false)
            } else {
                let all = start == writer.end && writer.active.segment().size() > 0;
                (start, true, all && self.roll_to_delete(&mut writer)?)
            }
        };
        let segments = self.shared.segments();
        let segments_go = segments
            .get(1)
            .is_some_and(|next| next.base_offset() <= start);
        if segments_go {
            self.checkpoint_after(&mut last)?;
        }
        while rolled && self.shared.is_dir_dirty() || self.offsets().synced_offset < start {
            self.shared.sync()?;
        }
        Ok(Prepared {
            log_start_offset: start,
            changes: changes || segments_go,
        })
    }

    /// With the writer's lock.
    fn is_boundary(&self, writer: &Writer, offset: Offset) -> bool {
        let segments = self.shared.segments();
        let is_base = segments
            .binary_search_by_key(&offset, |segment| segment.base_offset())
            .is_ok();
        is_base || offset == writer.end
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
    /// it. Returns the segments that lie below, which are not the log's any more, oldest first.
    pub(crate) fn raise_log_start(&self, start: Offset) -> Result<Vec<Arc<Segment>>> {
        let _checkpoint = lock(&self.checkpointed);
        let removed = {
            let _writer = lock(&self.writer);
            self.shared.check_exists()?;
            self.shared.offsets.send_modify(|now| {
                now.log_start_offset = start.max(now.log_start_offset);
                // Records of an open transaction may go.
                now.last_stable_offset = now.last_stable_offset.max(now.log_start_offset);
            });
            self.epochs
                .write()
                .unwrap_or_else(PoisonError::into_inner)
                .truncate_start(start);
            self.take_segments_below(start)
        };
        let (topic, partition) = (self.topic(), self.partition());
        if let Err(error) = self.write_epochs() {
            // The next append writes them.
            tracing::warn!(topic, partition, %error, "leader epochs below the log's start are left");
        }
        let segments = removed.len();
        tracing::debug!(
            topic,
            partition,
            log_start_offset = start,
            segments,
            "records deleted"
        );
        Ok(removed)
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

    /// Blocking. Removes the files of a segment that is not the log's any more.
    pub(crate) fn remove_files(&self, segment: &Segment) -> Result<()> {
        // Whoever deletes the log moves its folder away in a turn of his own: after that, another
        // log of that name may have files of these names. None has files of the names that they get
        // here, so that appends which wait for a sync need not wait until large files are gone.
        let renamed = self.shared.between_syncs(|| {
            if self.shared.check_exists().is_err() {
                return Ok(false);
            }
            match segment.rename(&deleted_suffix()) {
                Ok(()) => Ok(true),
                // One may be missing, or there is no room for a longer name.
                Err(_) => segment.remove().map(|()| false),
            }
        })?;
        if renamed { segment.remove() } else { Ok(()) }
    }
}
