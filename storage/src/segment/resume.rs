//! Taking up a segment that exists: from its indexes where they can be trusted, and making indexes
//! say what a scan has found.

use std::sync::atomic::Ordering;

use super::index::{Entry, OffsetEntry, TimeEntry};
use super::{BatchReader, Scan, Scanned, Segment, Tail};
use crate::Offset;
use crate::error::{Error, Result};

/// What of a segment's indexes a scan that begins in its midst leaves as it is.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    resumed: bool,
    /// The first entries of each index.
    entries: (u64, u64),
}

impl Kept {
    /// Nothing is kept: no index led to where the scan begins.
    pub fn is_nothing(&self) -> bool {
        !self.resumed
    }
}

impl Segment {
    /// Blocking. Reads the last entry of each index, and the headers from the batch it points at
    /// to the end of the file: what the batches have come to, and the offset after them. Says what
    /// is wrong where the indexes or headers do not fit together.
    pub fn load_tail(&self) -> Result<Result<(Tail, Offset), String>, Error> {
        let entries = (self.offset_index.added(), self.time_index.added());
        let start = match self.scan_after(entries)? {
            Ok(start) => start,
            Err(reason) => return Ok(Err(reason)),
        };
        let indexed = start.tail.max_timestamp;
        let scanned = self.scan(&start, |_| {})?;
        if let Some(damage) = scanned.damage {
            return Ok(Err(format!(
                "{damage} at position {}",
                scanned.end_position
            )));
        }
        if let Some(reason) = self.wrong_last_time(indexed, &start, &scanned)? {
            return Ok(Err(reason));
        }
        Ok(Ok((scanned.tail, scanned.next_offset)))
    }

    /// What is wrong with the last time index entry, of a segment that was scanned from the batch
    /// that the last offset index entry leads to.
    fn wrong_last_time(
        &self,
        indexed: Option<(i64, Offset)>,
        start: &Scan,
        scanned: &Scanned,
    ) -> Result<Option<String>> {
        if start.position > 0 {
            // Both indexes get an entry at the same time, where there is a later timestamp.
            let first = BatchReader::heads(self).head(start.position)?;
            let largest = first.map_or(-1, |(head, _)| head.max_timestamp);
            if indexed.map_or(-1, |(timestamp, _)| timestamp) < largest {
                return Ok(Some(format!("no time index entry for {largest}")));
            }
        }
        let Some((timestamp, offset)) = indexed else {
            return Ok(None);
        };
        if offset >= scanned.next_offset {
            return Ok(Some("time index entry beyond the end".to_owned()));
        }
        let batch = self.seek(offset)?.map(|(_, head)| head);
        let leads =
            batch.is_some_and(|head| head.base_offset <= offset && head.max_timestamp == timestamp);
        let is_lost = self.damage().of(offset, Offset::MAX).is_some();
        Ok((!leads && !is_lost).then(|| format!("no batch at {offset} has time {timestamp}")))
    }

    /// Blocking. Where a scan of everything from `offset` on begins, and what of the indexes is kept.
    /// `None` where the indexes do not lead there.
    pub fn resume_at(
        &self,
        offset: Offset,
        index_interval_bytes: u64,
    ) -> Result<Option<(Scan, Kept)>> {
        if offset <= self.base_offset {
            return Ok(None);
        }
        let entries = self.sound_entries_below(offset)?;
        let Ok(mut start) = self.scan_after(entries)? else {
            return Ok(None);
        };
        let kept = Kept {
            resumed: true,
            entries,
        };
        let mut reader = BatchReader::heads(self);
        while start.position < self.size() {
            match reader.head(start.position)? {
                // The checksum does not cover the offset, and a torn write may have lost that alone: the
                // scan finds out what goes back.
                Ok((head, _))
                    if head.base_offset < start.next_offset && start.next_offset >= offset =>
                {
                    break;
                }
                Ok((head, _)) if head.base_offset < start.next_offset => return Ok(None),
                Ok((head, _)) if head.last_offset < offset => {
                    let due = start.tail.note(
                        self.base_offset,
                        &head,
                        start.position,
                        index_interval_bytes,
                    );
                    // Lookups by time rely on it that both indexes get their entries at the same
                    // time. Where some are missing in the midst, or the interval has become smaller,
                    // all are made anew.
                    if due.offset.is_some() || due.time.is_some() {
                        return Ok(None);
                    }
                    start.position += head.size;
                    start.next_offset = head.next_offset();
                }
                Ok(_) => break,
                // The damaged end of the log: the scan finds it out.
                Err(_) if start.next_offset >= offset => break,
                // Damage below the recovery point: take nothing for granted.
                Err(_) => return Ok(None),
            }
        }
        start.check_crc = true;
        start.index_interval_bytes = index_interval_bytes;
        Ok(Some((start, kept)))
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
        // Zeros look like a first entry.
        let times = match times.checked_sub(1) {
            Some(last) if !self.last_time_leads(last, offsets)? => last,
            _ => times,
        };
        Ok((offsets, times))
    }

    /// Whether a time index entry leads to a batch that has its time, by the first `offsets` entries
    /// of the offset index.
    fn last_time_leads(&self, time: u64, offsets: u64) -> Result<bool> {
        let time = self.time_index.read(time)?;
        let offset = self.base_offset + i64::from(time.relative_offset);
        let before = self.offset_index.count_among(offsets, |entry| {
            entry.relative_offset <= time.relative_offset
        })?;
        let mut position = match before.checked_sub(1) {
            Some(last) => u64::from(self.offset_index.read(last)?.position),
            None => 0,
        };
        let mut reader = BatchReader::heads(self);
        while position < self.size() {
            match reader.head(position)? {
                Ok((head, _)) if head.last_offset < offset => position += head.size,
                Ok((head, _)) => {
                    return Ok(head.last_offset == offset && head.max_timestamp == time.timestamp);
                }
                Err(_) => break,
            }
        }
        Ok(false)
    }

    /// Before there are readers: makes the indexes say what a scan has found, after what is kept.
    /// Where `whole` is set the files are replaced instead: were one cut first and then written, a
    /// crash in between would leave one that is sound, and lacks entries.
    pub fn repair(
        &self,
        scanned: &mut Scanned,
        kept: Kept,
        whole: bool,
        closed: bool,
    ) -> Result<()> {
        // A damaged one will be the newest.
        let last = match closed && scanned.damage.is_none() {
            true => scanned.tail.due_time(self.base_offset),
            false => None,
        };
        if let Some(entry) = last {
            entry.encode(&mut scanned.time_entries);
        }
        if whole {
            // No offset index entry is ever there without that of the time index.
            if self.offset_index.added() > 0 {
                self.offset_index.replace(&[])?;
            }
            self.time_index.replace(&scanned.time_entries)?;
            return self.offset_index.replace(&scanned.offset_entries);
        }
        let (offsets, times) = kept.entries;
        self.offset_index
            .replace_after(offsets, &scanned.offset_entries)?;
        self.time_index.replace_after(times, &scanned.time_entries)
    }

    /// Before there are readers: cuts the log file off at `position`.
    pub fn cut_log(&self, position: u64) -> Result<()> {
        self.log.set_len(position)?;
        // Now: behind what comes next, older batches could come back, which their checksums vouch for.
        self.log.sync()?;
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
            end: self.size(),
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
