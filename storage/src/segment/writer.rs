//! The writing end of the newest segment. When index entries are added and when a segment is full
//! is as in Kafka's `LogSegment`.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::index::{Entry, OffsetEntry, TimeEntry};
use super::{BatchHead, BatchReader, Scan, Scanned, Segment};
use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::{LogConfig, Offset};

/// Positions are 32 bits wide in the index, signed in Kafka.
const MAX_SEGMENT_BYTES: u64 = i32::MAX as u64;

/// What the batches of a segment have come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tail {
    /// Since the last index entry.
    bytes_since_index: u64,
    /// The largest timestamp so far, and the last offset of the first batch that had it.
    max_timestamp: Option<(i64, Offset)>,
    /// The timestamp of the last time index entry.
    indexed_timestamp: Option<i64>,
}

/// The index entries that are due for a batch.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Due {
    pub offset: Option<OffsetEntry>,
    pub time: Option<TimeEntry>,
}

impl Tail {
    /// Of an empty segment.
    pub const EMPTY: Self = Self {
        bytes_since_index: 0,
        max_timestamp: None,
        indexed_timestamp: None,
    };

    /// At an index entry: the batch there is still to be noted.
    pub fn at_entry(base_offset: Offset, time: Option<TimeEntry>) -> Self {
        Self {
            bytes_since_index: 0,
            max_timestamp: time.map(|entry| {
                (
                    entry.timestamp,
                    base_offset + i64::from(entry.relative_offset),
                )
            }),
            indexed_timestamp: time.map(|entry| entry.timestamp),
        }
    }

    /// Takes in the batch at `position`; returns the entries that are due for it.
    pub fn note(
        &mut self,
        base_offset: Offset,
        head: &BatchHead,
        position: u64,
        index_interval_bytes: u64,
    ) -> Due {
        let largest = self.max_timestamp.map_or(-1, |(timestamp, _)| timestamp);
        if head.max_timestamp > largest {
            self.max_timestamp = Some((head.max_timestamp, head.last_offset));
        }
        let mut due = Due::default();
        if self.bytes_since_index > index_interval_bytes {
            due.offset = u32::try_from(head.last_offset - base_offset)
                .ok()
                .zip(u32::try_from(position).ok())
                .map(|(relative_offset, position)| OffsetEntry {
                    relative_offset,
                    position,
                });
            due.time = self.due_time(base_offset);
            self.bytes_since_index = 0;
        }
        self.bytes_since_index += head.size;
        due
    }

    /// The time index entry that is due when the segment is closed or an offset entry is added.
    pub fn due_time(&mut self, base_offset: Offset) -> Option<TimeEntry> {
        let (timestamp, offset) = self.max_timestamp?;
        if self
            .indexed_timestamp
            .is_some_and(|indexed| timestamp <= indexed)
        {
            return None;
        }
        let relative_offset = u32::try_from(offset - base_offset).ok()?;
        self.indexed_timestamp = Some(timestamp);
        Some(TimeEntry {
            timestamp,
            relative_offset,
        })
    }
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
        Self {
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
            || self.segment.offset_index.written() >= index_bytes / 8
            || self.segment.time_index.written() >= index_bytes / 12
            || self.age_ms(head.max_timestamp, now_ms)? > config.segment_ms)
    }

    /// How old the segment is: by timestamps where the first batch has one, or by the clock.
    fn age_ms(&mut self, timestamp: i64, now_ms: i64) -> Result<u64> {
        let first = match self.first_timestamp {
            Some(first) => first,
            None => match BatchReader::heads(&self.segment).head(0)? {
                Ok((head, _)) => head.max_timestamp,
                Err(reason) => return Err(self.segment.corrupt(0, reason)),
            },
        };
        self.first_timestamp = Some(first);
        let age = if first >= 0 {
            timestamp.saturating_sub(first)
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
        let tail = self.tail;
        let entries = (
            self.segment.offset_index.written(),
            self.segment.time_index.written(),
        );
        match self.write(head, header, rest, position, config) {
            Ok(()) => {
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
                self.cut(position, entries).map_err(|cut| {
                    Error::ReadOnly(format!("{error}, and could not be cut back: {cut}"))
                })?;
                Err(error)
            }
        }
    }

    fn write(
        &mut self,
        head: &BatchHead,
        header: &[u8],
        rest: &[u8],
        position: u64,
        config: &LogConfig,
    ) -> Result<()> {
        self.segment.log.write_all_at(&[header, rest], position)?;
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

    /// Writes the last time index entry, as Kafka does when a segment is rolled or closed. False
    /// where it is there already.
    pub fn finish(&mut self) -> Result<bool> {
        let mut tail = self.tail;
        let Some(entry) = tail.due_time(self.segment.base_offset) else {
            return Ok(false);
        };
        let written = self.segment.time_index.written();
        if let Err(error) = self.segment.time_index.append(&entry) {
            self.segment.time_index.truncate(written).map_err(|cut| {
                Error::ReadOnly(format!("{error}, and could not be cut back: {cut}"))
            })?;
            return Err(error);
        }
        self.tail = tail;
        Ok(true)
    }

    /// Cuts everything at and after `position` off, where the batch of offset `end` begins.
    /// Nothing that is readable may be cut.
    pub fn truncate(&mut self, position: u64, end: Offset) -> Result<()> {
        let entries = self.segment.entries_below(end)?;
        self.cut(position, entries)?;
        let (tail, _) = self
            .segment
            .load_tail()?
            .map_err(|reason| self.segment.corrupt(position, reason))?;
        self.tail = tail;
        if position == 0 {
            self.first_timestamp = None;
        }
        Ok(())
    }

    fn cut(&self, position: u64, (offsets, times): (u64, u64)) -> Result<()> {
        // The log last: entries that point beyond its end would be worse than a log without them.
        self.segment.offset_index.truncate(offsets)?;
        self.segment.time_index.truncate(times)?;
        self.segment.log.set_len(position)?;
        self.segment.size.store(position, Ordering::Release);
        Ok(())
    }
}

impl Segment {
    /// Blocking. Reads the last entry of each index, and the headers from the batch it points at
    /// to the end of the file: what the batches have come to, and the offset after them. Says what
    /// is wrong where the indexes or headers do not fit together.
    pub fn load_tail(&self) -> Result<Result<(Tail, Offset), String>, Error> {
        let entries = (self.offset_index.written(), self.time_index.written());
        let start = match self.scan_after(entries)? {
            Ok(start) => start,
            Err(reason) => return Ok(Err(reason)),
        };
        let scanned = self.scan(&start, |_| {})?;
        if let Some(damage) = scanned.damage {
            return Ok(Err(format!(
                "{damage} at position {}",
                scanned.end_position
            )));
        }
        if scanned
            .tail
            .max_timestamp
            .is_some_and(|(_, offset)| offset >= scanned.next_offset)
        {
            return Ok(Err("time index entry beyond the end".to_owned()));
        }
        Ok(Ok((scanned.tail, scanned.next_offset)))
    }

    /// Blocking. Where a scan of everything from `offset` on begins, and how many entries of each
    /// index are kept. `None` where the indexes do not lead there.
    pub fn resume_at(
        &self,
        offset: Offset,
        index_interval_bytes: u64,
    ) -> Result<Option<(Scan, (u64, u64))>> {
        if offset <= self.base_offset {
            return Ok(None);
        }
        let keep = self.sound_entries_below(offset)?;
        let Ok(mut start) = self.scan_after(keep)? else {
            return Ok(None);
        };
        let mut reader = BatchReader::heads(self);
        while start.position < self.size() {
            match reader.head(start.position)? {
                Ok((head, _)) if head.last_offset < offset => {
                    // Its entries are there already.
                    let _ = start
                        .tail
                        .note(self.base_offset, &head, start.position, u64::MAX);
                    start.position += head.size;
                    start.next_offset = head.next_offset();
                }
                Ok(_) => break,
                // Damage below the recovery point: take nothing for granted.
                Err(_) => return Ok(None),
            }
        }
        start.check_crc = true;
        start.index_interval_bytes = index_interval_bytes;
        Ok(Some((start, keep)))
    }

    /// As `entries_below`, where what follows those entries may be anything: after a power cut, for
    /// one, zeros.
    fn sound_entries_below(&self, end: Offset) -> Result<(u64, u64)> {
        let below = |relative: u32| self.base_offset + i64::from(relative) < end;
        let mut last = OffsetEntry {
            relative_offset: 0,
            position: 0,
        };
        let offsets = self.offset_index.count_in_order(|entry| {
            let sound = entry.position > last.position
                && entry.relative_offset > last.relative_offset
                && below(entry.relative_offset);
            last = *entry;
            sound
        })?;
        let mut last = TimeEntry {
            timestamp: -1,
            relative_offset: 0,
        };
        let times = self.time_index.count_in_order(|entry| {
            let sound = entry.timestamp > last.timestamp
                && entry.relative_offset >= last.relative_offset
                && below(entry.relative_offset);
            last = *entry;
            sound
        })?;
        Ok((offsets, times))
    }

    /// Before there are readers: makes the indexes say what a scan has found, after their first
    /// `keep` entries.
    pub fn repair(&self, scanned: &mut Scanned, keep: (u64, u64), closed: bool) -> Result<()> {
        // A damaged one will be the newest.
        let last = match closed && scanned.damage.is_none() {
            true => scanned.tail.due_time(self.base_offset),
            false => None,
        };
        if let Some(entry) = last {
            entry.encode(&mut scanned.time_entries);
        }
        self.offset_index
            .replace_after(keep.0, &scanned.offset_entries)?;
        self.time_index.replace_after(keep.1, &scanned.time_entries)
    }

    /// Before there are readers: cuts the log file off at `position`.
    pub fn cut_log(&self, position: u64) -> Result<()> {
        self.log.set_len(position)?;
        self.size.store(position, Ordering::Release);
        Ok(())
    }

    /// A scan without checksums from the batch that the last of the first `entries` of the offset
    /// index points at, or from the start. Says what is wrong with that entry.
    fn scan_after(&self, entries: (u64, u64)) -> Result<Result<Scan, String>, Error> {
        let time = match entries.1.checked_sub(1) {
            Some(last) => Some(self.time_index.read(last)?),
            None => None,
        };
        let mut scan = Scan {
            position: 0,
            next_offset: self.base_offset,
            tail: Tail::at_entry(self.base_offset, time),
            check_crc: false,
            index_interval_bytes: u64::MAX,
        };
        let Some(last) = entries.0.checked_sub(1) else {
            return Ok(Ok(scan));
        };
        let entry = self.offset_index.read(last)?;
        scan.position = u64::from(entry.position);
        let expected = self.base_offset + i64::from(entry.relative_offset);
        if scan.position >= self.size() {
            return Ok(Err(format!(
                "index entry for position {} beyond the end",
                scan.position
            )));
        }
        Ok(match BatchReader::heads(self).head(scan.position)? {
            Ok((head, _)) if head.last_offset == expected => Ok(scan),
            Ok((head, _)) => Err(format!(
                "index entry for offset {expected} points at {}",
                head.last_offset
            )),
            Err(reason) => Err(reason),
        })
    }
}
