//! Cutting the end of a log off: an append that failed half way, or a hidden tail.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use super::snapshots::Restore;
use super::{PartitionLog, Writer};
use crate::error::{Error, Result};
use crate::segment::{Segment, SegmentWriter};
use crate::{Offset, disk};

impl PartitionLog {
    /// Cuts everything at and above `end` off, which is where a batch begins, or the log's end, and
    /// not below what is readable. Where the disk fails half way the log is read-only from then on.
    pub(super) fn cut_to(&self, writer: &mut Writer, end: Offset) -> Result<()> {
        self.shared.is_written_to();
        let segments = self.shared.segments();
        // The first segment stays whatever happens; of the others those that begin below `end`.
        let kept = segments
            .partition_point(|segment| segment.base_offset() < end)
            .max(1);
        let Some(last) = segments.get(kept - 1) else {
            return Err(Error::Closed);
        };
        // Before anything is changed: this is where an `end` inside of a batch is found out.
        let position = last.position_of(end)?;
        self.cut_files(writer, end, position, last, &segments[kept..])
            .map_err(|error| self.shared.fail(&error))?;
        writer.end = end;
        self.shared.cut(end);
        Ok(())
    }

    fn cut_files(
        &self,
        writer: &mut Writer,
        end: Offset,
        position: u64,
        last: &Arc<Segment>,
        removed: &[Arc<Segment>],
    ) -> Result<()> {
        let shared = &self.shared;
        // Left, they would say at the next start what is no longer so: a failed append may have
        // rolled, and what comes next may end at the same offset.
        let stale = self.snapshots.remove_above(end)?;
        if !removed.is_empty() {
            let all = shared.segments();
            shared.set_segments(all[..all.len() - removed.len()].to_vec());
            // The newest first, and durably, so that no crash leaves a gap or an old segment
            // behind a new end.
            for path in removed.iter().rev().flat_map(|segment| segment.paths()) {
                shared
                    .disk
                    .remove_file(&path)
                    .map_err(|error| Error::io("remove", &path, &error))?;
            }
        }
        if stale || !removed.is_empty() {
            match shared.disk.sync_dir(&shared.dir) {
                // The next sync does it, before anything that comes after is acknowledged.
                Err(error) if disk::is_out_of_handles(&error) => {
                    shared.dir_dirty.store(true, Ordering::Release);
                }
                synced => synced.map_err(|error| Error::io("sync", &shared.dir, &error))?,
            }
        }
        if !removed.is_empty() {
            let now_ms = shared.clock.now_ms();
            let (tail, _) = last
                .load_tail()?
                .map_err(|reason| last.corrupt(last.size(), reason))?;
            writer.active = SegmentWriter::over(Arc::clone(last), tail, now_ms);
        }
        writer.active.truncate(position, end)?;
        // Were they to come back with a power cut, they would be in the place of other records under the
        // same leader epoch.
        writer.active.sync_cut()?;
        // A snapshot has the last batch of each producer only, so it is the last resort.
        if !writer.producers.cut(end) {
            let segments = shared.segments();
            let what = Restore {
                segments: &segments,
                end,
                now_ms: shared.clock.now_ms(),
                unclean_from: None,
            };
            let restored = self.snapshots.restore(what, |_, _| Ok(()))?;
            let before = std::mem::replace(&mut writer.producers, restored);
            writer.producers.take_batches(before);
        }
        // Written before the next append, as a new one: on a full disk there may be no room for it now,
        // and a start cuts off epochs beyond the end.
        self.epochs
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .truncate(end);
        Ok(())
    }
}
