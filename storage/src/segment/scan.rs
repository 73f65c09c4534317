//! Reading a segment's log file from front to back, through the file rather than a map: at start,
//! when nobody knows yet how much of it is sound.

use std::sync::Arc;

use crate::Offset;
use crate::batch::layout;
use crate::disk::{self, File};
use crate::error::{Error, Result};

use super::index::{Entry, OffsetEntry};
use super::walk::Wanted;
use super::{BatchHead, DamagedRange, Segment, Tail};

/// Bytes read at once where whole batches are looked at.
const SCAN_BUFFER_BYTES: usize = 1 << 20;
/// Bytes read at once where only headers are.
const HEAD_BUFFER_BYTES: usize = 8 << 10;

/// Reads headers and checksums from a segment's file. Memory is bounded by its buffer, whatever
/// lengths the file claims.
#[derive(Debug)]
pub(crate) struct BatchReader<'a> {
    segment: &'a Segment,
    /// The file's size.
    len: u64,
    buffer: Vec<u8>,
    buffer_bytes: usize,
    /// Where the buffer's first byte is in the file.
    start: u64,
    /// Open from the first read on.
    file: Option<Arc<dyn File>>,
}

impl<'a> BatchReader<'a> {
    /// For going from header to header.
    pub fn heads(segment: &'a Segment) -> Self {
        Self::new(segment, HEAD_BUFFER_BYTES)
    }

    /// For reading everything.
    pub fn whole(segment: &'a Segment) -> Self {
        Self::new(segment, SCAN_BUFFER_BYTES)
    }

    /// Does as if the file ended at `end`, which is not beyond its end.
    pub fn up_to(mut self, end: u64) -> Self {
        self.len = end;
        self
    }

    /// As many bytes from `position` as there are at once.
    pub fn chunk(&mut self, position: u64) -> Result<&[u8]> {
        self.bytes(position, self.buffer_bytes)
    }

    fn new(segment: &'a Segment, buffer_bytes: usize) -> Self {
        Self {
            segment,
            len: segment.size(),
            buffer: Vec::new(),
            buffer_bytes,
            start: 0,
            file: None,
        }
    }

    /// The batch at `position`, which is `< len`, and its header's bytes; or what is wrong there.
    pub fn head(
        &mut self,
        position: u64,
    ) -> Result<std::result::Result<(BatchHead, [u8; layout::RECORDS]), String>> {
        let rest = self.len.saturating_sub(position);
        Ok(self.header(position)?.and_then(|(head, header)| {
            if head.size > rest {
                return Err(format!("batch of {} bytes, {rest} are there", head.size));
            }
            Ok((head, header))
        }))
    }

    /// As [`BatchReader::head`], of a batch that may be cut short.
    pub fn header(
        &mut self,
        position: u64,
    ) -> Result<std::result::Result<(BatchHead, [u8; layout::RECORDS]), String>> {
        let bytes = self.bytes(position, layout::RECORDS)?;
        let Ok(header) = <[u8; layout::RECORDS]>::try_from(bytes) else {
            return Ok(Err(format!("{} bytes are no whole header", bytes.len())));
        };
        Ok(BatchHead::parse(&header).map(|head| (head, header)))
    }

    /// What follows the header of the batch at `position`; nothing where that is more than fits into the
    /// buffer, which no transaction's marker is.
    pub fn records(&mut self, position: u64, head: &BatchHead) -> Result<&[u8]> {
        let size = head.size.saturating_sub(layout::RECORDS as u64);
        match usize::try_from(size) {
            Ok(size) if size <= self.buffer_bytes => {
                self.bytes(position + layout::RECORDS as u64, size)
            }
            _ => Ok(&[]),
        }
    }

    /// CRC-32C of what `head`'s covers.
    pub fn crc(&mut self, position: u64, head: &BatchHead) -> Result<u32> {
        let end = position + head.size;
        let mut position = position + layout::CRC_COVERS_FROM as u64;
        let mut crc = 0;
        while position < end {
            // Bounded by the buffer's size, so it fits.
            let wanted = (end - position).min(self.buffer_bytes as u64) as usize;
            let bytes = self.bytes(position, wanted)?;
            if bytes.is_empty() {
                break;
            }
            crc = crc32c::crc32c_append(crc, bytes);
            position += bytes.len() as u64;
        }
        Ok(crc)
    }

    /// Up to `count` bytes from `position`; fewer at the end of the file. `count` is at most the
    /// buffer's size.
    fn bytes(&mut self, position: u64, count: usize) -> Result<&[u8]> {
        let count = (self.len.saturating_sub(position)).min(count as u64);
        let buffered = self.start..self.start + self.buffer.len() as u64;
        if position < buffered.start || position + count > buffered.end {
            let fill = (self.len.saturating_sub(position)).min(self.buffer_bytes as u64) as usize;
            self.buffer.resize(fill, 0);
            let log = &self.segment.log;
            let file = match &mut self.file {
                Some(file) => file,
                none => none.insert(log.file()?),
            };
            let read = disk::read_full_at(file.as_ref(), &mut self.buffer, position)
                .map_err(|error| log.io("read", &error))?;
            self.buffer.truncate(read);
            self.start = position;
        }
        let from = (position - self.start) as usize;
        let to = (from + count as usize).min(self.buffer.len());
        Ok(self.buffer.get(from..to).unwrap_or_default())
    }
}

/// How to scan.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scan {
    /// Where to begin: a batch's first byte.
    pub position: u64,
    /// The offset that the batch there has, at least.
    pub next_offset: Offset,
    /// What the batches before came to.
    pub tail: Tail,
    /// Check each batch's CRC.
    pub check_crc: bool,
    /// `index.interval.bytes`.
    pub index_interval_bytes: u64,
    /// Where to end.
    pub end: u64,
}

/// What a scan found.
#[derive(Debug)]
pub(crate) struct Scanned {
    /// Where the sound batches end.
    pub end_position: u64,
    /// The offset after them.
    pub next_offset: Offset,
    /// What the batches came to.
    pub tail: Tail,
    /// How many there were.
    pub batches: u64,
    /// Why the scan ended before its end.
    pub damage: Option<String>,
    /// Damage that was stepped over.
    pub ranges: Vec<DamagedRange>,
    /// Entries for the offset index, encoded.
    pub offset_entries: Vec<u8>,
    /// Entries for the time index, encoded.
    pub time_entries: Vec<u8>,
    /// Leader epochs and the first offset seen under each.
    pub epochs: Vec<(i32, Offset)>,
}

impl Segment {
    /// Walks the file from `scan.position` to its end or to the first damage. `progress` is told
    /// of the bytes as they go by.
    pub fn scan(&self, scan: &Scan, progress: impl FnMut(u64)) -> Result<Scanned> {
        let mut scanned = Scanned {
            end_position: scan.position,
            next_offset: scan.next_offset,
            tail: scan.tail,
            batches: 0,
            damage: None,
            ranges: Vec::new(),
            offset_entries: Vec::new(),
            time_entries: Vec::new(),
            epochs: Vec::new(),
        };
        self.scan_on(scan, &mut scanned, progress)?;
        Ok(scanned)
    }

    /// Goes on with a scan from where it has come to.
    pub fn scan_on(
        &self,
        scan: &Scan,
        scanned: &mut Scanned,
        mut progress: impl FnMut(u64),
    ) -> Result<()> {
        let mut reader = if scan.check_crc {
            BatchReader::whole(self)
        } else {
            BatchReader::heads(self)
        }
        .up_to(scan.end);
        while scanned.end_position < scan.end {
            let position = scanned.end_position;
            let head = match self.sound(&mut reader, position, scanned.next_offset, scan)? {
                Ok(head) => head,
                Err(reason) => {
                    scanned.damage = Some(reason);
                    break;
                }
            };
            // The checksum does not cover the epoch either; and epochs never go back, but where a power cut
            // has brought something older back behind what is newer.
            let newest = scanned.epochs.last().map_or(-1, |(epoch, _)| *epoch);
            if scan.check_crc && (0..newest).contains(&head.leader_epoch) {
                scanned.damage = Some(format!("leader epoch {} after {newest}", head.leader_epoch));
                break;
            }
            let entries =
                scanned
                    .tail
                    .note(self.base_offset, &head, position, scan.index_interval_bytes);
            if let Some(entry) = entries.offset {
                entry.encode(&mut scanned.offset_entries);
            }
            if let Some(entry) = entries.time {
                entry.encode(&mut scanned.time_entries);
            }
            if scanned
                .epochs
                .last()
                .is_none_or(|(epoch, _)| *epoch < head.leader_epoch)
            {
                scanned.epochs.push((head.leader_epoch, head.base_offset));
            }
            scanned.batches += 1;
            scanned.end_position += head.size;
            scanned.next_offset = head.next_offset();
            progress(head.size);
        }
        Ok(())
    }

    /// The batch at `position`, as sound as `scan` asks, or what is wrong with it.
    fn sound(
        &self,
        reader: &mut BatchReader<'_>,
        position: u64,
        next_offset: Offset,
        scan: &Scan,
    ) -> Result<Result<BatchHead, String>> {
        let head = match reader.head(position)? {
            Ok((head, _)) => head,
            Err(reason) => return Ok(Err(reason)),
        };
        if let Some(reason) = self.misplaced(&head, next_offset) {
            return Ok(Err(reason));
        }
        let after = position + head.size;
        // Of what is known to be damaged itself, nothing is taken for granted.
        let known = self
            .damage
            .at(after)
            .is_some_and(|range| range.position > position);
        if head.base_offset > next_offset && after < scan.end && !known {
            // The checksum does not cover the offset.
            let following = reader.head(after)?.ok();
            if let Some(reason) = head.leaps_over(following.map(|(head, _)| head), next_offset) {
                return Ok(Err(reason));
            }
        }
        if scan.check_crc {
            let crc = reader.crc(position, &head)?;
            if crc != head.crc {
                let (stored, computed) = (head.crc, crc);
                return Ok(Err(format!(
                    "crc is {stored:#010x}, of the bytes {computed:#010x}"
                )));
            }
        }
        Ok(Ok(head))
    }

    /// Blocking, through the file: the first sound batch that ends at or after `offset`. Damage that
    /// is met is surveyed and stepped over.
    pub fn seek(&self, offset: Offset) -> Result<Option<(u64, BatchHead)>> {
        let base_offset = self.base_offset;
        let is_before =
            |entry: &OffsetEntry| base_offset + i64::from(entry.relative_offset) <= offset;
        let before = self.offset_index.count_while(is_before)?;
        let mut reader = BatchReader::heads(self);
        let mut position = 0;
        // An entry that does not lead to its batch is passed over for an earlier one.
        let mut back = 1;
        while let Some(index) = before.checked_sub(back) {
            let entry = self.offset_index.read(index)?;
            // In a damaged index, what comes earlier may be of later offsets.
            if is_before(&entry)
                && self.entry_leads(&entry, |at| Ok(reader.head(at)?.ok().map(|(head, _)| head)))?
            {
                position = u64::from(entry.position);
                break;
            }
            back *= 2;
        }
        self.seek_from(&mut reader, position, offset)
    }

    /// As [`Segment::seek`], from a batch at `position` on.
    pub fn seek_from(
        &self,
        reader: &mut BatchReader<'_>,
        mut position: u64,
        offset: Offset,
    ) -> Result<Option<(u64, BatchHead)>> {
        let mut next_offset = self.base_offset;
        while position < self.size() {
            if let Some(range) = self.damage.at(position) {
                position = range.end_position;
                continue;
            }
            let headers = Scan {
                position,
                next_offset,
                tail: Tail::EMPTY,
                check_crc: false,
                index_interval_bytes: u64::MAX,
                end: self.size(),
            };
            let head = match self.sound(reader, position, next_offset, &headers)? {
                Ok(head) => head,
                Err(reason) => {
                    if !self.examine(self.size(), position, &reason)? {
                        return Err(self.corrupt(position, reason));
                    }
                    // What was taken for sound may not have been.
                    (position, next_offset) = (0, self.base_offset);
                    continue;
                }
            };
            if head.last_offset >= offset {
                return Ok(Some((position, head)));
            }
            position += head.size;
            next_offset = head.next_offset();
        }
        Ok(None)
    }

    /// Whether an index entry leads to a sound batch before which everything is below the entry's
    /// offset. `head` reads a header.
    pub fn entry_leads<E>(
        &self,
        entry: &OffsetEntry,
        mut head: impl FnMut(u64) -> Result<Option<BatchHead>, E>,
    ) -> Result<bool, E> {
        let position = u64::from(entry.position);
        if position >= self.size() {
            return Ok(false);
        }
        let last = self.base_offset + i64::from(entry.relative_offset);
        // Kafka's older versions have the last offset of the last of several batches there.
        let leads = head(position)?.is_some_and(|head| head.last_offset <= last);
        Ok(leads && self.damage.at(position).is_none())
    }

    /// Blocking, through the file: where a batch begins at or after `offset`, or the segment ends.
    /// An error where `offset` is inside of a batch.
    pub fn position_of(&self, offset: Offset) -> Result<u64> {
        match self.seek(offset)? {
            None => Ok(self.size()),
            Some((position, head)) if head.base_offset >= offset => Ok(position),
            Some((_, head)) => Err(Error::InvalidRecord(format!(
                "offset {offset} is inside of the batch {}..={}",
                head.base_offset, head.last_offset
            ))),
        }
    }

    /// Blocking, through the file: a copy of the batches wanted.
    pub fn copy(&self, wanted: &Wanted) -> Result<Vec<u8>> {
        let Some((start, first)) = self.seek(wanted.offset)? else {
            return Ok(Vec::new());
        };
        let mut reader = BatchReader::heads(self);
        let mut end = start;
        let mut next = Some(first);
        while let Some(head) = next {
            let fits = end - start + head.size <= wanted.max_bytes;
            let first = end == start && wanted.at_least_one;
            if !(fits || first) || head.last_offset >= wanted.limit {
                break;
            }
            end += head.size;
            next = match end < self.size() {
                // Damage ends a read; the next one begins at it.
                true if self.damage.at(end).is_none() => {
                    reader.head(end)?.ok().map(|(head, _)| head)
                }
                _ => None,
            };
        }
        // Bounded by the file's size, as every batch counted is there.
        let mut records = vec![0; (end - start) as usize];
        disk::read_exact_at(self.log.file()?.as_ref(), &mut records, start)
            .map_err(|error| self.log.io("read", &error))?;
        Ok(records)
    }

    /// Why a batch cannot be where offsets have come to `next_offset`.
    pub fn misplaced(&self, head: &BatchHead, next_offset: Offset) -> Option<String> {
        if head.base_offset < next_offset {
            return Some(format!("offset {} after {next_offset}", head.base_offset));
        }
        if head.last_offset - self.base_offset > i64::from(i32::MAX) {
            return Some(format!(
                "offset {} is too far from the base",
                head.last_offset
            ));
        }
        if let Some(next) = self.next_base().filter(|next| head.last_offset >= *next) {
            let last = head.last_offset;
            return Some(format!("offset {last} in the segment before {next}"));
        }
        None
    }
}
