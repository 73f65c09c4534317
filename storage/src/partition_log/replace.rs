//! Segments that compaction has written anew take the place of the old ones, as in Kafka:
//!
//! 1. the new files are on the device, called `.cleaned`;
//! 2. they are renamed to `.swap`, the `.log` last. Once that is on the device there is no way back: a
//!    start that finds a `.log.swap` goes on from here;
//! 3. the old files are renamed to `.<number>.deleted`, and that is put on the device: an old segment beside the
//!    new one would have the same offsets;
//! 4. the new files lose their `.swap`, which is put on the device before anything relies on it.
//!
//! Readers that have an old segment keep it: its files stay, under the names that they have now, until
//! `file.delete.delay.ms` has passed and nobody holds it. Appends are not kept waiting.

use std::sync::Arc;

use super::PartitionLog;
use super::sync::lock;
use crate::error::{Error, Result};
use crate::segment::{SWAP_SUFFIX, Segment, deleted_suffix};

impl PartitionLog {
    /// Blocking. Puts `cleaned`, whose files are on the device, in the place of `replaced`, which
    /// follow each other and are closed. `Closed` where they are not all the log's any more. With any
    /// error but `ReadOnly` nothing was changed, and `cleaned` is gone; after that one the next start
    /// goes on with it.
    pub(crate) fn replace_segments(
        &self,
        replaced: &[Arc<Segment>],
        cleaned: Segment,
    ) -> Result<()> {
        // Whoever takes segments out of the log, or deletes it, has this.
        let _checkpoint = lock(&self.checkpointed);
        // Where the renaming fails, the `.log`, which comes last, has its old name.
        let is_free = match self.shared.check_writable() {
            Ok(()) if self.has_segments(replaced) => cleaned.rename(SWAP_SUFFIX),
            Ok(()) => Err(Error::Closed),
            Err(error) => Err(error),
        };
        if let Err(error) = is_free {
            cleaned.discard();
            return Err(error);
        }
        let cleaned = Arc::new(cleaned);
        self.swap(replaced, &cleaned)
            .map_err(|error| self.shared.fail(&error))?;

        let _writer = lock(&self.writer);
        let before = self.shared.segments();
        let mut segments = Vec::with_capacity(before.len());
        for segment in before.iter() {
            match replaced.iter().position(|old| Arc::ptr_eq(old, segment)) {
                None => segments.push(Arc::clone(segment)),
                Some(0) => segments.push(Arc::clone(&cleaned)),
                Some(_) => {}
            }
        }
        self.shared.set_segments(segments);
        Ok(())
    }

    fn swap(&self, replaced: &[Arc<Segment>], cleaned: &Segment) -> Result<()> {
        self.sync_dir()?;
        let suffix = deleted_suffix();
        for segment in replaced {
            segment.rename(&suffix)?;
        }
        self.sync_dir()?;
        cleaned.rename("")?;
        self.sync_dir()
    }

    /// They follow each other in the log, and none of them is the newest.
    fn has_segments(&self, wanted: &[Arc<Segment>]) -> bool {
        let segments = self.shared.segments();
        let Some(first) = wanted.first() else {
            return false;
        };
        let base = first.base_offset();
        let from = segments.partition_point(|segment| segment.base_offset() < base);
        let there = segments.get(from..from + wanted.len()).unwrap_or_default();
        there.len() == wanted.len()
            && from + wanted.len() < segments.len()
            && there.iter().zip(wanted).all(|(a, b)| Arc::ptr_eq(a, b))
    }

    fn sync_dir(&self) -> Result<()> {
        let dir = &self.shared.dir;
        self.shared
            .disk
            .sync_dir(dir)
            .map_err(|error| Error::io("sync", dir, &error))
    }
}
