//! A segment that compaction writes: what is left of several that follow each other.
//!
//! Its files are called `<20 digits>.log.cleaned` and so on until the segment takes the place of the
//! others; what a crash leaves of them before that is of no use, and the next start removes it. The
//! indexes have the entries that they would have if the same batches had been appended.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::index::Entry;
use super::{BatchHead, Expected, Scan, Segment, Tail};
use crate::batch::layout;
use crate::disk::Disk;
use crate::error::Result;
use crate::producer_state::AbortedTransaction;
use crate::{LogConfig, Offset};

/// The last part of the names of a segment that is being written.
const CLEANED_SUFFIX: &str = ".cleaned";
/// Of one that is whole, and takes the place of others.
pub(crate) const SWAP_SUFFIX: &str = ".swap";
/// Of those whose place it takes.
const DELETED_SUFFIX: &str = ".deleted";

/// How much is written between two syncs: a device that has all of a segment to write at once keeps
/// the syncs of other logs waiting.
const SYNC_BYTES: u64 = 8 << 20;

/// What segments are called that are no log's any more, and that somebody may still read: other than
/// all before, of which some may have had the same offsets.
pub(crate) fn deleted_suffix() -> String {
    static DELETED: AtomicU64 = AtomicU64::new(0);
    let number = DELETED.fetch_add(1, Ordering::Relaxed);
    format!(".{number}{DELETED_SUFFIX}")
}

/// A segment that is being written. Memory: one buffer, and the entries of the sparse indexes.
#[derive(Debug)]
pub(crate) struct CleanedSegment {
    segment: Segment,
    tail: Tail,
    index_interval_bytes: u64,
    buffer: Vec<u8>,
    buffer_bytes: usize,
    written: u64,
    synced: u64,
    offset_entries: Vec<u8>,
    time_entries: Vec<u8>,
}

impl CleanedSegment {
    /// A new one, empty. Writes about `buffer_bytes` at once.
    pub fn create(
        disk: &Arc<dyn Disk>,
        dir: &Path,
        base_offset: Offset,
        config: &LogConfig,
        buffer_bytes: usize,
    ) -> Result<Self> {
        let segment = Segment::create_files(disk, dir, base_offset, config, CLEANED_SUFFIX)?;
        Ok(Self {
            segment: Segment {
                expected: Expected::NO_MORE,
                has_gaps: true,
                has_room: AtomicBool::new(false),
                ..segment
            },
            tail: Tail::EMPTY,
            index_interval_bytes: u64::from(config.index_interval_bytes),
            buffer: Vec::new(),
            buffer_bytes,
            written: 0,
            synced: 0,
            offset_entries: Vec::new(),
            time_entries: Vec::new(),
        })
    }

    /// The first offset that it may hold.
    pub fn base_offset(&self) -> Offset {
        self.segment.base_offset
    }

    /// Bytes so far.
    pub fn size(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    /// Bytes of the larger index so far.
    pub fn index_bytes(&self) -> u64 {
        self.offset_entries.len().max(self.time_entries.len()) as u64
    }

    /// Adds a whole batch.
    pub fn append(&mut self, batch: &[u8]) -> Result<()> {
        let position = self.size();
        let header = batch.get(..layout::RECORDS).unwrap_or_default();
        let head = BatchHead::parse_slice(header)
            .map_err(|reason| self.segment.corrupt(position, reason))?;
        if position + head.size > i32::MAX as u64 {
            return Err(self.segment.corrupt(position, "the segment is full"));
        }
        let base_offset = self.segment.base_offset;
        let due = self
            .tail
            .note(base_offset, &head, position, self.index_interval_bytes);
        if let Some(entry) = due.offset {
            entry.encode(&mut self.offset_entries);
        }
        if let Some(entry) = due.time {
            entry.encode(&mut self.time_entries);
        }
        self.buffer.extend_from_slice(batch);
        if self.buffer.len() >= self.buffer_bytes {
            self.flush()?;
        }
        Ok(())
    }

    /// The last batch is the marker of a transaction that was aborted.
    pub fn add_aborted(&self, transaction: &AbortedTransaction) -> Result<()> {
        self.segment.add_aborted(transaction).map(drop)
    }

    fn flush(&mut self) -> Result<()> {
        self.segment
            .log
            .write_all_at(&[&self.buffer], self.written)?;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        if self.written - self.synced >= SYNC_BYTES {
            self.segment.log.sync()?;
            self.synced = self.written;
        }
        Ok(())
    }

    /// Puts everything on the device under the name that it has, and closes the files. The file of
    /// batches is as old as `modified_ms` says: where no batch has a timestamp that is the segment's
    /// age. Where this fails nothing is left.
    pub fn finish(mut self, modified_ms: i64) -> Result<Segment> {
        if let Err(error) = self.put_on_device(modified_ms) {
            self.discard();
            return Err(error);
        }
        let segment = self.segment;
        segment.close_files();
        segment.set_largest_timestamp(&self.tail);
        segment.size.store(self.written, Ordering::Release);
        segment.publish();
        Ok(segment)
    }

    fn put_on_device(&mut self, modified_ms: i64) -> Result<()> {
        self.flush()?;
        if let Some(entry) = self.tail.due_time(self.segment.base_offset) {
            entry.encode(&mut self.time_entries);
        }
        let segment = &self.segment;
        segment
            .offset_index
            .replace_after(0, &self.offset_entries)?;
        segment.time_index.replace_after(0, &self.time_entries)?;
        let file = segment.log.file()?;
        file.set_modified_ms(modified_ms)
            .map_err(|error| segment.log.io("utimensat", &error))?;
        segment.sync_indexes()?;
        segment.log.sync()
    }

    /// Removes what was written.
    pub fn discard(self) {
        self.segment.discard();
    }
}

impl Segment {
    /// Removes the files of a segment that never was a log's. What can't be removed is left to the next
    /// start.
    pub fn discard(&self) {
        if let Err(error) = self.remove() {
            tracing::warn!(%error, "what compaction has left stays until the next start");
        }
    }
}

/// Blocking. The offset that the batches come to of a segment that is to take the place of others,
/// from their headers; and what is wrong with it, where something is.
pub(crate) fn end_of_swap(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    base_offset: Offset,
) -> Result<(Offset, Option<String>)> {
    let config = LogConfig::default();
    let segment = Segment::open_files(disk, dir, base_offset, false, &config, SWAP_SUFFIX)?.0;
    let scan = Scan {
        position: 0,
        next_offset: base_offset,
        tail: Tail::EMPTY,
        check_crc: false,
        index_interval_bytes: u64::MAX,
        end: segment.size(),
    };
    let scanned = segment.scan(&scan, |_| {})?;
    Ok((scanned.next_offset, scanned.damage))
}
