//! The second half of a pass: what is left of the old segments goes into new ones, which take their
//! places.

use std::sync::Arc;

use super::CompactionStats;
use super::filter::{Refused, Round, Verdict};
use super::pass::Ended;
use super::throttle::Pace;
use crate::Offset;
use crate::batch::Batch;
use crate::error::Result;
use crate::partition_log::PartitionLog;
use crate::segment::{AbortedInOrder, Batches, CleanedSegment, Segment};

/// What goes over the segments.
pub(super) struct Rewrite<'a> {
    pub log: &'a PartitionLog,
    pub round: Round<'a>,
    pub pace: &'a Pace,
    pub buffer_bytes: usize,
    pub replaced: &'a mut dyn FnMut(Vec<Arc<Segment>>),
    pub stats: &'a mut CompactionStats,
    /// So far.
    pub read_bytes: u64,
    pub kept_bytes: u64,
}

/// Segments that one new one replaces.
struct Group {
    old: Vec<Arc<Segment>>,
    new: CleanedSegment,
    /// It has not all batches of the old ones as they are.
    changed: bool,
}

impl Rewrite<'_> {
    /// Goes over `segments`, which follow each other and are closed.
    pub fn all(mut self, segments: &[Arc<Segment>]) -> Result<(), Ended> {
        let mut current: Option<Group> = None;
        for segment in segments {
            if let Some(full) = current.take_if(|group| !self.has_room(group, segment)) {
                self.close(full)?;
            }
            let mut group = match current.take() {
                Some(group) => group,
                None => Group {
                    old: Vec::new(),
                    new: self.log.create_cleaned(segment, self.buffer_bytes)?,
                    changed: false,
                },
            };
            self.stats.segments_before += 1;
            if let Err(error) = self.add(&mut group, segment) {
                group.new.discard();
                return Err(error);
            }
            current = Some(group);
        }
        if let Some(last) = current {
            self.close(last)?;
        }
        Ok(())
    }

    /// Whether what is left of `segment` fits behind what the group has, going by how much was left so
    /// far. Should it be more, the new segment gets larger than `segment.bytes`, but never too large
    /// for its indexes.
    fn has_room(&self, group: &Group, segment: &Segment) -> bool {
        let config = self.log.config();
        let end = segment.next_base().unwrap_or(Offset::MAX);
        let at_most = group.new.size() + segment.size();
        let expected = match self.read_bytes {
            0 => segment.size(),
            read => {
                (u128::from(segment.size()) * u128::from(self.kept_bytes) / u128::from(read)) as u64
            }
        };
        group.new.size() + expected <= config.segment_bytes
            && at_most <= i32::MAX as u64
            && group.new.index_bytes() < u64::from(config.segment_index_bytes)
            && end - 1 - group.new.base_offset() <= i64::from(i32::MAX)
    }

    fn add(&mut self, group: &mut Group, segment: &Arc<Segment>) -> Result<(), Ended> {
        let mut batches = Batches::from(segment, 0, self.buffer_bytes)?;
        let mut aborted = AbortedInOrder::of(segment);
        while let Some((head, batch)) = batches.next()? {
            self.stats.bytes_read += head.size;
            self.read_bytes += head.size;
            let verdict = self.verdict(batch)?;
            let kept = match &verdict {
                Verdict::AsItIs => batch,
                Verdict::Rewritten(bytes) => bytes,
                Verdict::Gone => &[],
            };
            group.changed |= verdict != Verdict::AsItIs;
            if !kept.is_empty() {
                group.new.append(kept)?;
                self.kept_bytes += kept.len() as u64;
                let kept = Batch::parse(kept)?;
                // A reader that is told of a transaction leaves its producer out until its marker.
                if kept.is_control()
                    && kept.records_count() > 0
                    && let Some(aborted) = aborted.ended_at(head.base_offset)?
                {
                    group.new.add_aborted(&aborted)?;
                }
            }
            self.pace.moved(head.size + kept.len() as u64)?;
        }
        group.old.push(Arc::clone(segment));
        Ok(())
    }

    fn verdict(&mut self, batch: &[u8]) -> Result<Verdict, Ended> {
        let filtered = match self.round.filter(&Batch::parse(batch)?) {
            Ok(filtered) => filtered,
            Err(Refused::TransactionsUnknown) => return Err(Ended::TransactionsUnknown),
            Err(Refused::Damaged(error)) => {
                if self.stats.unreadable_batches == 0 {
                    let (topic, partition) = (self.log.topic(), self.log.partition());
                    tracing::error!(topic, partition, %error, "compaction keeps a batch that cannot be read");
                }
                self.stats.unreadable_batches += 1;
                return Ok(Verdict::AsItIs);
            }
        };
        let (stats, counts) = (&mut *self.stats, filtered.counts);
        stats.records_read += counts.records_read;
        stats.records_kept += counts.records_kept;
        stats.tombstones_dropped += counts.tombstones_dropped;
        stats.keyless_dropped += counts.keyless_dropped;
        Ok(filtered.verdict)
    }

    /// The group's new segment takes its place.
    fn close(&mut self, group: Group) -> Result<()> {
        self.stats.segments_after += 1;
        let last = match group.old.as_slice() {
            [] => return Ok(()),
            [_] if !group.changed => {
                group.new.discard();
                return Ok(());
            }
            [.., last] => last.modified_ms(),
        };
        let modified_ms = match last {
            Ok(modified_ms) => modified_ms,
            Err(error) => {
                group.new.discard();
                return Err(error);
            }
        };
        let bytes = group.new.size();
        let new = group.new.finish(modified_ms)?;
        self.log.replace_segments(&group.old, new)?;
        self.stats.bytes_written += bytes;
        (self.replaced)(group.old);
        Ok(())
    }
}
