//! What a partition's segments have come to.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Recovery;
use crate::error::Result;
use crate::segment::{Kept, LookedAt, Scan, Scanned, Segment, Tail};
use crate::{LogConfig, Offset};

/// What the files of a partition came to.
pub(super) struct Recovered {
    pub segments: Vec<Arc<Segment>>,
    pub tail: Tail,
    pub end: Offset,
    /// Leader epochs seen while scanning.
    pub epochs: Vec<(i32, Offset)>,
    /// Files were removed.
    pub removed: bool,
    /// The log ends before offsets that were on the device.
    pub lost: bool,
    /// The newest segment, which all parts of a start look at.
    pub looked_at: Option<LookedAt>,
}

/// A segment that is looked at, and what is known of its surroundings.
struct Look<'a> {
    dir: &'a Path,
    segment: &'a Segment,
    /// Both indexes are there.
    sound: bool,
    /// Below this offset everything was on the device.
    trusted: Offset,
    /// The base offsets of the segments behind it.
    behind: &'a [Offset],
    config: &'a LogConfig,
}

impl Recovery<'_> {
    /// What the segments have come to, without those whose records are all deleted. `None` where
    /// no record is left, and the log begins afresh where it is to start.
    pub(super) fn recovered(
        &self,
        dir: &Path,
        bases: &[Offset],
        config: &LogConfig,
    ) -> Result<Option<Recovered>> {
        let start = self.log_start_offset.unwrap_or(0);
        // First: a crash in the middle of their removal may have left a gap.
        let deleted = bases
            .partition_point(|base| *base <= start)
            .saturating_sub(1);
        let (deleted, bases) = bases.split_at(deleted);
        self.remove_deleted(dir, deleted)?;
        if bases.is_empty() {
            return Ok(None);
        }
        let mut recovered = self.recover(dir, bases, config)?;
        recovered.removed |= !deleted.is_empty();
        if recovered.end < start {
            // Deleted records alone are left, and what followed them is lost. Their offsets are
            // not given again.
            let reason = format!("the log ends at {}, below its start {start}", recovered.end);
            self.remove_from(dir, bases, &reason)?;
            return Ok(None);
        }
        Ok(Some(recovered))
    }

    /// Opens the segments, scans those that need it, and cuts off what is damaged.
    fn recover(&self, dir: &Path, bases: &[Offset], config: &LogConfig) -> Result<Recovered> {
        let mut recovered = Recovered {
            segments: Vec::with_capacity(bases.len()),
            tail: Tail::EMPTY,
            end: bases.first().copied().unwrap_or(0),
            epochs: Vec::new(),
            removed: false,
            lost: false,
            looked_at: None,
        };
        let trusted = if self.clean {
            Offset::MAX
        } else {
            self.recovery_point.unwrap_or(0)
        };
        for (index, base) in bases.iter().enumerate() {
            let behind = bases.get(index + 1..).unwrap_or_default();
            let next_base = behind.first().copied();
            // The end of the segment before is only known where it was looked at.
            let known_end = index > 0 && *base > trusted;
            // Compaction takes the last batches of a segment, too. Where a checkpoint has been written
            // since, that was below it; what is missing above was lost.
            let may_have_gaps = self.was_compacted && self.recovery_point.is_none();
            let follows = match may_have_gaps {
                true => *base >= recovered.end,
                false => *base == recovered.end,
            };
            if known_end && !follows {
                let found = format!("segment {base} does not follow offset {}", recovered.end);
                let following = bases.get(index..).unwrap_or_default();
                self.put_aside(dir, following, config, &found)?;
                recovered.removed = true;
                break;
            }
            let newest = next_base.is_none();
            let (mut segment, sound) = Segment::open(self.disk, dir, *base, newest, config)?;
            segment.set_has_gaps(self.was_compacted);
            let segment = Arc::new(segment);
            recovered.looked_at = Some(LookedAt::new(&segment));
            segment.set_next_base(next_base.filter(|next| *next <= trusted));
            let look = Look {
                dir,
                segment: &segment,
                sound,
                trusted,
                behind,
                config,
            };
            let ended = match next_base {
                Some(next) if sound && next < trusted => {
                    recovered.end = next;
                    false
                }
                _ => self.look_at(&look, &mut recovered)?,
            };
            recovered.segments.push(segment);
            if ended {
                recovered.removed |= !behind.is_empty();
                break;
            }
        }
        Ok(recovered)
    }

    /// Finds the end of a segment, from the headers alone where that may be trusted, and cuts off
    /// what is damaged. True where that has ended the log.
    fn look_at(&self, look: &Look<'_>, recovered: &mut Recovered) -> Result<bool> {
        let segment = look.segment;
        let reason = match self.clean && look.sound {
            true => match segment.load_tail()? {
                Ok((tail, end)) => {
                    (recovered.tail, recovered.end) = (tail, end);
                    return Ok(false);
                }
                Err(reason) => Some(reason),
            },
            false => (!look.sound).then(|| "one is missing, or has an impossible size".to_owned()),
        };
        if let Some(reason) = reason {
            let file = segment.path().display();
            tracing::warn!(%file, reason, "rebuilding the indexes of a segment");
        }
        let (scan, keep) = self.scan_of(look)?;
        let mut scanned = segment.scan_across(&scan, look.trusted, |bytes| self.scanned(bytes))?;
        // The segments behind are sound as far as anybody knows.
        let goes_on = match look.behind.first() {
            Some(next) if scanned.next_offset < look.trusted => {
                let reaches = !self.was_compacted || scanned.damage.is_some();
                scanned.close_ranges(segment.size(), Some(*next).filter(|_| reaches));
                scanned.next_offset = *next;
                true
            }
            _ => scanned.damage.is_none(),
        };
        let damage = scanned.damage.take();
        // By the indexes as they are, which lead behind the damage.
        let cut_batches = match goes_on {
            true => 0,
            false => {
                let (position, next_offset) = (scanned.end_position, scanned.next_offset);
                segment.sound_batches(position, next_offset, |bytes| self.scanned(bytes))?
            }
        };
        // The next start will take what is below the recovery point for granted.
        let whole = keep.is_nothing() && (!look.sound || segment.base_offset() < look.trusted);
        let closed = !look.behind.is_empty() && goes_on;
        segment.repair(&mut scanned, keep, whole, closed)?;
        let reason = damage
            .as_deref()
            .unwrap_or("checksums or offsets are wrong");
        segment.note_damage(&scanned.ranges, reason);
        if !goes_on {
            recovered.lost |= scanned.next_offset < look.trusted;
            self.cut(look, &scanned, cut_batches, reason)?;
        }
        recovered.epochs.append(&mut scanned.epochs);
        (recovered.tail, recovered.end) = (scanned.tail, scanned.next_offset);
        Ok(!goes_on)
    }

    /// How to scan a segment, and what of its indexes is kept.
    fn scan_of(&self, look: &Look<'_>) -> Result<(Scan, Kept)> {
        let interval = u64::from(look.config.index_interval_bytes);
        let is_trusted = self.clean
            || look
                .behind
                .first()
                .is_some_and(|next| *next <= look.trusted);
        let whole = Scan {
            position: 0,
            next_offset: look.segment.base_offset(),
            tail: Tail::EMPTY,
            check_crc: !is_trusted,
            index_interval_bytes: interval,
            end: look.segment.size(),
        };
        let resumed = match look.sound && !self.clean {
            true => look.segment.resume_at(look.trusted, interval)?,
            false => None,
        };
        Ok(resumed.unwrap_or((whole, Kept::default())))
    }

    /// Ends the log where damage begins. What is cut off is kept where it may be worth something:
    /// sound batches, or anything that was on the device.
    fn cut(
        &self,
        look: &Look<'_>,
        scanned: &Scanned,
        sound_batches: u64,
        reason: &str,
    ) -> Result<()> {
        let segment = look.segment;
        let position = scanned.end_position;
        let cut_bytes = segment.size() - position;
        let lost = scanned.next_offset < look.trusted;
        let file = segment.path().display();
        if sound_batches > 0 || (lost && cut_bytes > 0) {
            let kept = self.keep_cut(segment, position)?;
            tracing::error!(
                %file,
                position,
                next_offset = scanned.next_offset,
                cut_bytes,
                sound_batches,
                kept_as = %kept.display(),
                reason,
                "a log ends where it is damaged: what follows is cut off, and kept beside it"
            );
        } else {
            tracing::warn!(
                %file,
                position,
                next_offset = scanned.next_offset,
                cut_bytes,
                reason,
                "cut off the damaged end of a log"
            );
        }
        self.put_aside(look.dir, look.behind, look.config, reason)?;
        segment.cut_log(position)
    }

    /// Counts bytes that went by.
    pub(super) fn scanned(&self, bytes: u64) {
        self.progress
            .scanned_bytes
            .fetch_add(bytes, Ordering::Relaxed);
    }
}
