//! Damage in a segment's log file: which stretches of it are no sound batches, and where it goes on.
//!
//! A *survey* reads a stretch of the file with all its checksums and finds every damaged range in
//! it. It is made where anything does not fit: by a start that scans, and later by the walk or the
//! lookup that meets an impossible header or a wrong checksum. From then on the ranges are known:
//! walks step over them, and whoever reads an offset that one of them has is told so. Each range is
//! logged once, at `error`.
//!
//! Where sound batches go on behind damage is found, in this order:
//!
//! 1. by the damaged batch's own length, and the lengths behind it: a wrong byte in a payload harms
//!    nothing else;
//! 2. by looking at every byte for a header whose checksum is right, *and* from which lengths lead
//!    exactly to the batch of the next sound index entry, or to the end of the file or a batch torn
//!    there: a record may hold the bytes of a batch, which was never appended here;
//! 3. at the batch of the next sound index entry.
//!
//! Memory is bounded by the readers' buffers and [`MAX_RANGES`]; what checksums are computed of
//! candidates that come to nothing is bounded by [`Budget`], so that no bytes, whoever wrote them,
//! make the work grow faster than the file.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use super::{BatchHead, BatchReader, Scan, Scanned, Segment, Tail};
use crate::Offset;
use crate::batch::layout;
use crate::error::Result;

/// Damaged ranges told apart in one segment. Beyond, the last one goes on to the segment's end.
const MAX_RANGES: usize = 4096;
/// Ranges of one survey that are logged one by one.
const LOGGED_RANGES: usize = 16;

/// A stretch of a log file that holds no sound batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DamagedRange {
    /// Its first byte.
    pub position: u64,
    /// The byte after it: a sound batch begins there, or what was looked at ends.
    pub end_position: u64,
    /// The first offset that is lost.
    pub from: Offset,
    /// The offset of the sound batch behind it; `None` where there is none in this segment.
    pub to: Option<Offset>,
}

/// The damaged ranges that are known of a segment.
#[derive(Debug, Default)]
pub(crate) struct Damage {
    count: AtomicUsize,
    /// By position, without overlaps.
    ranges: RwLock<Arc<[DamagedRange]>>,
    /// One survey at a time.
    survey: Mutex<()>,
}

impl Damage {
    /// How many ranges are known.
    pub fn count(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    fn ranges(&self) -> Arc<[DamagedRange]> {
        if self.count() == 0 {
            return Arc::default();
        }
        Arc::clone(&self.ranges.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The range that has `position`.
    pub fn at(&self, position: u64) -> Option<DamagedRange> {
        let ranges = self.ranges();
        let after = ranges.partition_point(|range| range.position <= position);
        let range = *ranges.get(after.checked_sub(1)?)?;
        (position < range.end_position || position == range.position).then_some(range)
    }

    /// Where the first range begins at or after `position`.
    pub fn next_from(&self, position: u64) -> Option<u64> {
        let ranges = self.ranges();
        let at = ranges.partition_point(|range| range.position < position);
        ranges.get(at).map(|range| range.position)
    }

    /// The range in which `offset` was lost; one without a sound batch behind it ends at `end`.
    pub fn of(&self, offset: Offset, end: Offset) -> Option<DamagedRange> {
        let ranges = self.ranges();
        let holds = |range: &&DamagedRange| {
            range.from <= offset && offset < range.to.unwrap_or(end).min(end)
        };
        ranges.iter().find(holds).copied()
    }

    /// Takes what a survey of everything has found; returns the ranges that were not known.
    fn set(&self, found: &[DamagedRange]) -> Vec<DamagedRange> {
        let mut ranges = self.ranges.write().unwrap_or_else(PoisonError::into_inner);
        let is_new = |range: &&DamagedRange| !ranges.contains(range);
        let added = found.iter().filter(is_new).copied().collect();
        self.count.store(found.len(), Ordering::Release);
        *ranges = found.into();
        added
    }
}

/// What may be spent on candidates that come to nothing, in bytes.
#[derive(Debug)]
pub(crate) struct Budget(u64);

impl Budget {
    /// For a file of `len` bytes.
    pub fn of(len: u64) -> Self {
        Self(len.saturating_mul(4).saturating_add(1 << 20))
    }

    fn spend(&mut self, bytes: u64) -> bool {
        match self.0.checked_sub(bytes) {
            Some(left) => {
                self.0 = left;
                true
            }
            None => {
                self.0 = 0;
                false
            }
        }
    }
}

/// Looks for sound batches behind damage.
struct Search<'a> {
    segment: &'a Segment,
    /// Of what is looked at.
    end: u64,
    /// What is lost ends at or after this offset.
    next_offset: Offset,
    heads: BatchReader<'a>,
    whole: BatchReader<'a>,
    budget: &'a mut Budget,
}

impl Segment {
    /// Blocking. As [`Segment::scan`], but where damage comes before offset `below` it goes on at
    /// the next sound batch, if there is one, and notes the range. Damage at or after `below`, or
    /// without a sound batch behind it, ends the scan.
    pub fn scan_across(
        &self,
        scan: &Scan,
        below: Offset,
        mut progress: impl FnMut(u64),
    ) -> Result<Scanned> {
        let mut scan = *scan;
        let mut scanned = self.scan(&scan, &mut progress)?;
        let stopped = |scanned: &Scanned| scanned.damage.is_some() && scanned.next_offset < below;
        if stopped(&scanned) && !scan.check_crc {
            // What looked sound up to there may be where the damage is.
            scan = Scan {
                position: 0,
                next_offset: self.base_offset,
                tail: Tail::EMPTY,
                check_crc: true,
                ..scan
            };
            scanned = self.scan(&scan, &mut progress)?;
        }
        let mut budget = Budget::of(scan.end);
        while stopped(&scanned) && scanned.ranges.len() < MAX_RANGES {
            let (position, from) = (scanned.end_position, scanned.next_offset);
            let Some((end_position, to)) = self.resync(position, from, scan.end, &mut budget)?
            else {
                break;
            };
            scanned.ranges.push(DamagedRange {
                position,
                end_position,
                from,
                to: Some(to),
            });
            progress(end_position - position);
            scanned.damage = None;
            (scanned.end_position, scanned.next_offset) = (end_position, to);
            self.scan_on(&scan, &mut scanned, &mut progress)?;
        }
        Ok(scanned)
    }

    /// Blocking. Surveys what there is up to position `end` because of what was met at `position`.
    /// False where nothing was found: then nothing would be gained by looking again.
    pub fn examine(&self, end: u64, position: u64, reason: &str) -> Result<bool> {
        let survey = self.damage.survey.lock();
        let _survey = survey.unwrap_or_else(PoisonError::into_inner);
        if self.damage.at(position).is_some() {
            // Somebody else has met the same meanwhile.
            return Ok(true);
        }
        let scan = Scan {
            position: 0,
            next_offset: self.base_offset,
            tail: Tail::EMPTY,
            check_crc: true,
            index_interval_bytes: u64::MAX,
            end,
        };
        let mut scanned = self.scan_across(&scan, Offset::MAX, |_| {})?;
        scanned.close_ranges(end, self.must_reach().filter(|_| end == self.size()));
        Ok(self.note_damage(&scanned.ranges, reason) > 0)
    }

    /// Blocking. How many sound batches there are from `position` on, where offsets have come to
    /// `next_offset`.
    pub fn sound_batches(
        &self,
        position: u64,
        next_offset: Offset,
        progress: impl FnMut(u64),
    ) -> Result<u64> {
        let scan = Scan {
            position,
            next_offset,
            tail: Tail::EMPTY,
            check_crc: true,
            index_interval_bytes: u64::MAX,
            end: self.size(),
        };
        Ok(self.scan_across(&scan, Offset::MAX, progress)?.batches)
    }

    /// Blocking. The leader epochs of all sound batches, and where each begins.
    pub fn epochs(&self) -> Result<Vec<(i32, Offset)>> {
        let scan = Scan {
            position: 0,
            next_offset: self.base_offset,
            tail: Tail::EMPTY,
            check_crc: false,
            index_interval_bytes: u64::MAX,
            end: self.size(),
        };
        Ok(self.scan_across(&scan, Offset::MAX, |_| {})?.epochs)
    }

    /// Remembers damaged ranges, and logs those that are new. Returns how many.
    pub fn note_damage(&self, ranges: &[DamagedRange], reason: &str) -> usize {
        let added = self.damage.set(ranges);
        for range in added.iter().take(LOGGED_RANGES) {
            tracing::error!(
                file = %self.path().display(),
                position = range.position,
                end_position = range.end_position,
                from = range.from,
                to = range.to.or(self.next_base()),
                reason,
                "a part of a log is damaged: its offsets are lost"
            );
        }
        if added.len() > LOGGED_RANGES {
            tracing::error!(
                file = %self.path().display(),
                ranges = added.len(),
                from = added.first().map(|range| range.from),
                to = added.last().and_then(|range| range.to),
                "more parts of the log are damaged"
            );
        }
        added.len()
    }

    /// The first sound batch behind the damage at `position`, before `end`: where it begins, and
    /// its base offset.
    fn resync(
        &self,
        position: u64,
        next_offset: Offset,
        end: u64,
        budget: &mut Budget,
    ) -> Result<Option<(u64, Offset)>> {
        let mut search = Search {
            segment: self,
            end,
            next_offset,
            heads: BatchReader::heads(self).up_to(end),
            whole: BatchReader::whole(self).up_to(end),
            budget,
        };
        match search.by_length(position)? {
            Hop::Sound(position, offset) => return Ok(Some((position, offset))),
            Hop::End => return Ok(None),
            Hop::Lost => {}
        }
        let landmark = search.landmark(position)?;
        let target = landmark.map_or(end, |(position, _)| position);
        match search.by_bytes(position + 1, target)? {
            Some(found) => Ok(Some(found)),
            None => Ok(landmark),
        }
    }
}

/// Where lengths have led.
enum Hop {
    /// To a sound batch: its position and base offset.
    Sound(u64, Offset),
    /// To the end.
    End,
    /// Nowhere.
    Lost,
}

impl Search<'_> {
    fn by_length(&mut self, position: u64) -> Result<Hop> {
        let Ok((head, _)) = self.heads.head(position)? else {
            return Ok(Hop::Lost);
        };
        let mut next = position + head.size;
        while next < self.end {
            let Some(head) = self.plausible(next)? else {
                return Ok(Hop::Lost);
            };
            if self.has_its_crc(next, &head)? && !self.leaps(next, &head)? {
                return Ok(Hop::Sound(next, head.base_offset));
            }
            next += head.size;
        }
        Ok(Hop::End)
    }

    /// Whether the batch at `position` has an offset that leaves out those of the batch behind it: the
    /// checksum does not cover it.
    fn leaps(&mut self, position: u64, head: &BatchHead) -> Result<bool> {
        let after = position + head.size;
        if after >= self.end {
            return Ok(false);
        }
        let following = self.heads.head(after)?.ok().map(|(head, _)| head);
        Ok(head.leaps_over(following, self.next_offset).is_some())
    }

    /// The first index entry behind `position` that leads to a sound batch.
    fn landmark(&mut self, position: u64) -> Result<Option<(u64, Offset)>> {
        let segment = self.segment;
        let index = &segment.offset_index;
        let mut from = index.count_while(|entry| u64::from(entry.position) <= position)?;
        loop {
            let entries = index.read_some(from)?;
            if entries.is_empty() {
                return Ok(None);
            }
            from += entries.len() as u64;
            for entry in entries {
                let place = u64::from(entry.position);
                let last = segment.base_offset + i64::from(entry.relative_offset);
                if place > position
                    && place < self.end
                    && let Some(head) = self.plausible(place)?
                    && head.last_offset == last
                    && self.has_its_crc(place, &head)?
                {
                    return Ok(Some((place, head.base_offset)));
                }
            }
        }
    }

    /// The first sound batch from `position` on from which lengths lead exactly to `target`.
    fn by_bytes(&mut self, position: u64, target: u64) -> Result<Option<(u64, Offset)>> {
        let mut scanner = BatchReader::whole(self.segment).up_to(target);
        let mut start = position;
        while start + layout::RECORDS as u64 <= target {
            let bytes = scanner.chunk(start)?;
            if bytes.len() < layout::RECORDS {
                break;
            }
            let looked_at = bytes.len() - layout::RECORDS + 1;
            let candidates: Vec<u64> = bytes
                .windows(layout::RECORDS)
                .zip(start..)
                .filter(|(header, _)| header.get(layout::MAGIC) == Some(&2))
                .filter(|(header, _)| {
                    BatchHead::parse_slice(header).is_ok_and(|head| self.fits(&head))
                })
                .map(|(_, position)| position)
                .collect();
            for candidate in candidates {
                let Some(head) = self.plausible(candidate)? else {
                    continue;
                };
                if candidate + head.size <= target
                    && self.has_its_crc(candidate, &head)?
                    && self.leads_to(candidate, head, target)?
                {
                    return Ok(Some((candidate, head.base_offset)));
                }
            }
            start += looked_at as u64;
        }
        Ok(None)
    }

    fn leads_to(&mut self, position: u64, head: BatchHead, target: u64) -> Result<bool> {
        let (mut next, mut offset) = (position + head.size, head.next_offset());
        while next < target {
            if !self.budget.spend(layout::RECORDS as u64) {
                return Ok(false);
            }
            match self.plausible(next)? {
                Some(head) if head.base_offset >= offset => {
                    (next, offset) = (next + head.size, head.next_offset());
                }
                _ => {
                    // The last batch of a file may be torn.
                    let torn = target == self.end
                        && self
                            .heads
                            .header(next)?
                            .is_ok_and(|(head, _)| head.base_offset == offset);
                    return Ok(torn);
                }
            }
        }
        Ok(next == target)
    }

    /// The batch at `position`, if its header can be one behind the damage.
    fn plausible(&mut self, position: u64) -> Result<Option<BatchHead>> {
        let head = self.heads.head(position)?.ok().map(|(head, _)| head);
        Ok(head.filter(|head| self.fits(head)))
    }

    fn fits(&self, head: &BatchHead) -> bool {
        head.base_offset >= self.next_offset
            && head.size <= self.end
            && self.segment.misplaced(head, self.next_offset).is_none()
    }

    fn has_its_crc(&mut self, position: u64, head: &BatchHead) -> Result<bool> {
        Ok(self.budget.spend(head.size) && self.whole.crc(position, head)? == head.crc)
    }
}

impl Scanned {
    /// Notes the damage that the scan has ended at, and offsets that are missing before the next
    /// segment, as ranges without a sound batch behind them.
    pub fn close_ranges(&mut self, end: u64, next_base: Option<Offset>) {
        let ends_early = next_base.is_some_and(|next| self.next_offset < next);
        if self.damage.is_some() || ends_early {
            self.ranges.push(DamagedRange {
                position: self.end_position,
                end_position: end,
                from: self.next_offset,
                to: None,
            });
        }
    }
}
