//! The writing end of the newest segment. When index entries are added and when a segment is full
//! is as in Kafka's `LogSegment`.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{BatchHead, Segment, Tail};
use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::{LogConfig, Offset};

/// Positions are 32 bits wide in the index, signed in Kafka.
const MAX_SEGMENT_BYTES: u64 = i32::MAX as u64;

/// A number that differs from segment to segment and from partition to partition, and stays a
/// segment's own across restarts.
fn jitter(segment: &Segment) -> u64 {
    let path = segment.path();
    let partition = path.parent().and_then(Path::file_name);
    let mut hasher = DefaultHasher::new();
    (partition, segment.base_offset()).hash(&mut hasher);
    hasher.finish()
}

/// Appends to one segment. Sole owner of its `size` and of its indexes' entries.
#[derive(Debug)]
pub(crate) struct SegmentWriter {
    segment: Arc<Segment>,
    tail: Tail,
    /// The first batch's largest timestamp, once it was needed.
    first_timestamp: Option<i64>,
    /// When the segment was created or opened, for batches without timestamps.
    created_ms: i64,
    /// Where in the range of `segment.jitter.ms` this segment is.
    jitter: u64,
}

impl SegmentWriter {
    /// A new, empty segment.
    pub fn create(
        disk: &Arc<dyn Disk>,
        dir: &Path,
        base_offset: Offset,
        config: &LogConfig,
        now_ms: i64,
    ) -> Result<Self> {
        let segment = Arc::new(Segment::create(disk, dir, base_offset, config)?);
        Ok(Self::over(segment, Tail::EMPTY, now_ms))
    }

    /// A segment that exists, with what its batches have come to.
    pub fn over(segment: Arc<Segment>, tail: Tail, now_ms: i64) -> Self {
        segment.set_largest_timestamp(&tail);
        Self {
            jitter: jitter(&segment),
            segment,
            tail,
            first_timestamp: None,
            created_ms: now_ms,
        }
    }

    /// The segment.
    pub fn segment(&self) -> &Arc<Segment> {
        &self.segment
    }

    /// The next batch belongs into a new segment.
    pub fn is_full_for(
        &mut self,
        head: &BatchHead,
        now_ms: i64,
        config: &LogConfig,
    ) -> Result<bool> {
        let size = self.segment.size();
        if size == 0 {
            return Ok(false);
        }
        let max_bytes = config.segment_bytes.min(MAX_SEGMENT_BYTES);
        let index_bytes = u64::from(config.segment_index_bytes);
        Ok(size.saturating_add(head.size) > max_bytes
            || head.last_offset - self.segment.base_offset > i64::from(i32::MAX)
            || self.segment.offset_index.added() >= index_bytes / 8
            // One more is written when the segment is closed.
            || self.segment.time_index.added() + 1 >= index_bytes / 12
            || self.age_ms(head.max_timestamp, now_ms)? > self.max_age_ms(config))
    }

    /// `segment.ms`, or `max.compaction.lag.ms` where that is less and the log is compacted (the
    /// newest segment never is), less this segment's part of `segment.jitter.ms`.
    fn max_age_ms(&self, config: &LogConfig) -> u64 {
        let max_ms = match config.compact {
            true => config.segment_ms.min(config.max_compaction_lag_ms),
            false => config.segment_ms,
        };
        let range = config.segment_jitter_ms.min(max_ms);
        let jitter = self.jitter.checked_rem(range).unwrap_or(0);
        max_ms - jitter
    }

    /// How old the segment is: by timestamps where the first batch has one, or by the clock.
    fn age_ms(&mut self, timestamp: i64, now_ms: i64) -> Result<u64> {
        let first = match self.first_timestamp {
            Some(first) => first,
            // Nothing sound is left of a segment that is damaged altogether.
            None => match self.segment.seek(self.segment.base_offset)? {
                Some((_, head)) => head.max_timestamp,
                None => -1,
            },
        };
        self.first_timestamp = Some(first);
        let age = if first >= 0 {
            // Unlike in Kafka, a time that is yet to come counts as now: a producer whose clock counts
            // in nanoseconds would have every batch roll a segment.
            timestamp.min(now_ms).saturating_sub(first)
        } else {
            now_ms.saturating_sub(self.created_ms)
        };
        Ok(u64::try_from(age).unwrap_or(0))
    }

    /// Writes one batch, given as its header and the rest, to the page cache. On an error nothing
    /// has changed; [`Error::ReadOnly`] where a half-written batch could not be cut off again.
    pub fn append(
        &mut self,
        head: &BatchHead,
        header: &[u8],
        rest: &[u8],
        config: &LogConfig,
    ) -> Result<()> {
        let position = self.segment.size();
        if position != 0 && position.saturating_add(head.size) > MAX_SEGMENT_BYTES {
            return Err(self.segment.corrupt(position, "the segment is full"));
        }
        // First: where the system has no handle for it, nothing is written that has to be cut back.
        let _open = self.segment.log.to_write()?;
        let tail = self.tail;
        let entries = (
            self.segment.offset_index.added(),
            self.segment.time_index.added(),
        );
        let log = self.segment.log.write_all_at(&[header, rest], position);
        let written = log.is_ok();
        match log.and_then(|()| self.index(head, position, config)) {
            Ok(()) => {
                self.segment.set_largest_timestamp(&self.tail);
                self.segment
                    .size
                    .store(position + head.size, Ordering::Release);
                if position == 0 {
                    self.first_timestamp = Some(head.max_timestamp);
                }
                Ok(())
            }
            Err(error) => {
                self.tail = tail;
                let cut = self.cut(position, entries);
                // A whole batch must not come back in the place of the next, under its leader epoch.
                let cut = match written {
                    true => cut.and_then(|()| self.sync_cut()),
                    false => cut,
                };
                cut.map_err(|cut| {
                    Error::ReadOnly(format!("{error}, and could not be cut back: {cut}"))
                })?;
                Err(error)
            }
        }
    }

    fn index(&mut self, head: &BatchHead, position: u64, config: &LogConfig) -> Result<()> {
        let interval = u64::from(config.index_interval_bytes);
        let due = self
            .tail
            .note(self.segment.base_offset, head, position, interval);
        if let Some(entry) = due.offset {
            self.segment.offset_index.append(&entry)?;
        }
        if let Some(entry) = due.time {
            self.segment.time_index.append(&entry)?;
        }
        Ok(())
    }

    /// Adds the last time index entry, as Kafka does when a segment is rolled or closed, and puts all
    /// entries into the files. False where that one was there already.
    pub fn finish(&mut self) -> Result<bool> {
        let mut tail = self.tail;
        let due = tail.due_time(self.segment.base_offset);
        let times = &self.segment.time_index;
        let before = times.added();
        let added = due.map_or(Ok(()), |entry| times.append(&entry));
        let written = added
            .and_then(|()| times.write_held())
            .and_then(|()| self.segment.offset_index.write_held())
            .and_then(|()| self.segment.write_aborted());
        if let Err(error) = written {
            times.truncate(before).map_err(|cut| {
                Error::ReadOnly(format!("{error}, and could not be cut back: {cut}"))
            })?;
            return Err(error);
        }
        self.tail = tail;
        Ok(due.is_some())
    }

    /// Cuts everything at and after `position` off, where the batch of offset `end` begins.
    /// Nothing that is readable may be cut.
    pub fn truncate(&mut self, position: u64, end: Offset) -> Result<()> {
        let entries = self.segment.entries_below(end)?;
        self.cut(position, entries)?;
        self.segment.keep_aborted_below(end)?;
        let (tail, _) = self
            .segment
            .load_tail()?
            .map_err(|reason| self.segment.corrupt(position, reason))?;
        self.tail = tail;
        self.segment.set_largest_timestamp(&self.tail);
        if position == 0 {
            self.first_timestamp = None;
        }
        Ok(())
    }

    /// Puts what was cut off last beyond recall.
    pub fn sync_cut(&self) -> Result<()> {
        self.segment.log.sync()
    }

    fn cut(&self, position: u64, (offsets, times): (u64, u64)) -> Result<()> {
        // The log last: entries that point beyond its end would be worse than a log without them.
        self.segment.offset_index.truncate(offsets)?;
        self.segment.time_index.truncate(times)?;
        self.segment.set_was_cut(true);
        self.segment.log.set_len(position)?;
        self.segment.has_room.store(false, Ordering::Release);
        self.segment.size.store(position, Ordering::Release);
        Ok(())
    }
}
