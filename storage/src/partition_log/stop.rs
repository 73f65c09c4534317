//! Leaving a partition so that the next start has little or nothing to scan.

use std::sync::atomic::Ordering;

use super::sync::lock;
use super::{PartitionLog, Visibility};
use crate::Offset;
use crate::error::Result;
use crate::segment::{INDEX_SUFFIX, TIME_INDEX_SUFFIX};

/// Up to where a start may trust the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Checkpointed {
    /// Batches, indexes and a producer snapshot for everything below are on the device.
    pub recovery_point: Offset,
    /// The producer snapshot at the recovery point is there.
    pub has_snapshot: bool,
}

impl PartitionLog {
    /// Blocking. Puts everything on the device that a start would otherwise scan, while appends go
    /// on; returns the recovery point.
    pub(crate) fn checkpoint(&self) -> Result<Offset> {
        self.checkpoint_after(&mut lock(&self.checkpointed))
    }

    /// As [`PartitionLog::checkpoint`], after the `last` one.
    pub(super) fn checkpoint_after(&self, last: &mut Checkpointed) -> Result<Offset> {
        self.shared.check_exists()?;
        let (end, snapshot) = {
            let mut writer = lock(&self.writer);
            self.forget_idle_producers(&mut writer);
            let state = &writer.producers;
            let (end, is_of_end) = match self.shared.visibility {
                Visibility::Ordinary => (writer.end, true),
                // The hidden tail may go, and what a recovery point covers must not.
                Visibility::Derived => (self.shared.offsets().high_watermark, state.is_empty()),
            };
            // Nothing has come: a log that nobody writes to costs no more than this.
            if last.recovery_point >= end && last.has_snapshot {
                return Ok(last.recovery_point);
            }
            (end, is_of_end.then(|| state.encode_snapshot()))
        };
        let synced = self.shared.sync()?;
        let recovery_point = end.min(synced).max(last.recovery_point);
        self.sync_indexes(last.recovery_point, recovery_point)?;
        let has_snapshot = match snapshot {
            Some(snapshot) if recovery_point == end => {
                self.snapshots.write_durably(end, &snapshot)?;
                true
            }
            _ => false,
        };
        *last = Checkpointed {
            recovery_point,
            has_snapshot,
        };
        Ok(recovery_point)
    }

    /// Blocking. Refuses appends from now on and leaves nothing to be scanned; returns the recovery
    /// point.
    pub(crate) fn close(&self) -> Result<Offset> {
        let mut last = lock(&self.checkpointed);
        let mut writer = lock(&self.writer);
        self.shared.close();
        self.shared.check_exists()?;
        // What a failed sync or cut has left is for the next start to find out.
        self.shared.check_synced()?;
        // Clients may have been told of an epoch that nothing was appended under; after a clean stop
        // the next start would go back to the one before, which they would not believe.
        self.write_epochs()?;
        let end = writer.end;
        let recovery_point = match self.shared.visibility {
            Visibility::Ordinary => end,
            // As in a checkpoint, and the high watermark may not be known.
            Visibility::Derived => {
                let high_watermark = self.shared.offsets().high_watermark;
                end.min(high_watermark.max(last.recovery_point))
            }
        };
        self.shared.is_written_to();
        let finished = writer.active.finish()?;
        self.give_room_back(&writer);
        let unchanged = last.recovery_point == end && last.has_snapshot && !finished;
        if unchanged && self.is_synced_to(end) {
            self.remove_distrusted_indexes();
            self.shared.close_synced_files();
            return Ok(end);
        }
        self.shared.sync()?;
        self.sync_indexes(last.recovery_point, end)?;
        self.snapshots
            .write_durably(end, &writer.producers.encode_snapshot())?;
        *last = Checkpointed {
            recovery_point,
            has_snapshot: recovery_point == end,
        };
        self.remove_distrusted_indexes();
        self.shared.close_synced_files();
        Ok(recovery_point)
    }

    /// Nothing is written any more: the next start finds no index and builds one.
    fn remove_distrusted_indexes(&self) {
        let segments = self.shared.segments();
        for segment in segments.iter().filter(|segment| segment.is_distrusted()) {
            for suffix in [INDEX_SUFFIX, TIME_INDEX_SUFFIX] {
                let path = segment.path().with_extension(suffix);
                if let Err(error) = self.shared.disk.remove_file(&path) {
                    // It is found out again.
                    tracing::warn!(file = %path.display(), %error, "a damaged index stays");
                }
            }
        }
    }

    /// Ends everything on this log while `remove` takes its files away.
    pub(crate) fn delete(&self, remove: impl FnOnce() -> Result<()>) -> Result<()> {
        let _checkpoint = lock(&self.checkpointed);
        let _writer = lock(&self.writer);
        self.shared.delete();
        self.shared.between_syncs(remove)
    }

    /// The high watermark, where it is known.
    pub(crate) fn known_high_watermark(&self) -> Option<Offset> {
        let readable = self.shared.readable.load(Ordering::Acquire);
        readable.then(|| self.offsets().high_watermark)
    }

    fn is_synced_to(&self, end: Offset) -> bool {
        let segments = self.shared.segments();
        self.offsets().synced_offset >= end
            && !self.shared.is_dir_dirty()
            && !segments.iter().any(|segment| segment.was_cut())
    }

    /// Indexes of all segments that have offsets in `from..end`, and of the one that ends at `from`:
    /// it may have got its last time index entry since `from` was its log's end.
    fn sync_indexes(&self, from: Offset, end: Offset) -> Result<()> {
        let segments = self.shared.segments();
        for (index, segment) in segments.iter().enumerate() {
            let follows = segments.get(index + 1).map(|next| next.base_offset());
            if segment.base_offset() < end && follows.is_none_or(|next| next >= from) {
                segment.sync_indexes()?;
                if follows.is_some() {
                    segment.close_files();
                }
            }
        }
        Ok(())
    }
}
