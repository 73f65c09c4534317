//! Taking up a segment that exists: from its indexes where they can be trusted, and making indexes
//! say what a scan has found.

use std::sync::atomic::Ordering;

use super::index::{Entry, OffsetEntry, TimeEntry};
use super::{BatchReader, Scan, Scanned, Segment, Tail};
use crate::Offset;
use crate::error::{Error, Result};

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
