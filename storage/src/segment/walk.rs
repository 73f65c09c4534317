//! Finding batches in a segment through its maps, without a copy.
//!
//! A walk goes from header to header; the offset index brings it near its start, and past the
//! middle of a large read, so that a read costs about one index interval of headers at each end.
//!
//! An index entry is followed only where it leads to its batch, and passed over for an earlier one
//! otherwise. Damage that is known is stepped over; what does not fit is surveyed where that may
//! block, and the walk begun again ([`Miss::Examined`]).

use std::cell::RefCell;
use std::ops::Range;

use bytes::Bytes;

use super::index::{Entries, OffsetEntry};
use super::view::whole_pages;
use super::{Access, BatchHead, INDEX_SUFFIX, Miss, Segment, View};
use crate::Offset;
use crate::batch::{batches, layout};

/// Whoever reads as much at once from the device reads a log on from there...
const READ_ON_FROM_BYTES: usize = 64 << 10;
/// ...and so much more is brought in meanwhile.
const READ_AHEAD_BYTES: usize = 16 << 20;

/// What a segment has for a read.
#[derive(Debug)]
pub(crate) enum Found {
    /// Whole batches, perhaps none where the limits allow none.
    Records(Bytes),
    /// All of the segment's batches end before the offset asked for.
    Beyond,
}

/// The part of a read that is the same in every segment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    /// The first batch returned holds this offset or follows it.
    pub offset: Offset,
    /// No batch that reaches this offset is returned.
    pub limit: Offset,
    /// Bytes, at most, but for the first batch where `at_least_one` is set.
    pub max_bytes: u64,
    /// The first batch is returned whatever its size.
    pub at_least_one: bool,
}

/// A segment's readable bytes and index at one moment.
pub(crate) struct Walk<'a> {
    segment: &'a Segment,
    index: Entries<OffsetEntry>,
    view: Option<View>,
    access: Access,
    /// Known to be in memory: most headers are in the page of the one before.
    ensured: RefCell<Range<usize>>,
}

impl Segment {
    /// A walk over what is readable now.
    pub fn walk(&self, access: Access) -> Result<Walk<'_>, Miss> {
        // The entries first, then the bytes: see the module's header on the order.
        let index = self
            .offset_index
            .entries(self.expected.index_bytes, access)?;
        let readable = self.readable();
        let view = match readable {
            0 => None,
            _ => Some(self.log.view(readable, self.expected.log_bytes)?),
        };
        Ok(Walk {
            segment: self,
            index,
            view,
            access,
            ensured: RefCell::default(),
        })
    }

    /// Reads whole batches, up to where damage begins. What is loaded from the device has its
    /// checksums compared.
    pub fn find(&self, wanted: &Wanted, access: Access) -> Result<Found, Miss> {
        loop {
            match self.find_once(wanted, access) {
                Err(Miss::Examined) => {}
                found => return found,
            }
        }
    }

    fn find_once(&self, wanted: &Wanted, access: Access) -> Result<Found, Miss> {
        let walk = self.walk(access)?;
        let Some((position, first)) = walk.batch_from(wanted.offset)? else {
            return Ok(Found::Beyond);
        };
        if first.last_offset >= wanted.limit {
            // The last batches before an open transaction may be compacted.
            if self.has_gaps && first.base_offset >= wanted.limit {
                return Ok(Found::Records(Bytes::new()));
            }
            // A batch ends at every limit, and the reader asks for what lies before this one.
            let (last, limit) = (first.last_offset, wanted.limit);
            let reason = format!("offset {last} in a log that ends at {limit}");
            return Err(match access {
                Access::Probe => Miss::NotResident,
                Access::Load => Miss::from(self.corrupt(position, reason)),
            });
        }
        if first.size > wanted.max_bytes && !wanted.at_least_one {
            return Ok(Found::Records(Bytes::new()));
        }
        let end = walk.end_of(position, &first, wanted)?;
        let records = walk.records(position..end)?;
        match access {
            Access::Load => walk.check(position, &records)?,
            // The index has led to the end, and a batch that says to be longer than it is goes on beyond:
            // whoever may block finds out.
            Access::Probe if !are_whole(&records) => return Err(Miss::NotResident),
            // A length that lies leads to no header.
            Access::Probe => match walk.sound_from(end, first.next_offset()) {
                Err(Miss::NotResident) if !walk.is_resident(end) => {}
                behind => drop(behind?),
            },
        }
        Ok(Found::Records(records))
    }
}

/// Whether lengths lead from batch to batch to the end.
fn are_whole(mut records: &[u8]) -> bool {
    let end = layout::BATCH_LENGTH + size_of::<i32>();
    while let Some(length) = records
        .get(layout::BATCH_LENGTH..end)
        .and_then(|bytes| bytes.first_chunk().copied())
    {
        let size = usize::try_from(i32::from_be_bytes(length)).unwrap_or(usize::MAX);
        match records.get(size.saturating_add(layout::LOG_OVERHEAD)..) {
            Some(rest) => records = rest,
            None => return false,
        }
    }
    records.is_empty()
}

impl Walk<'_> {
    /// The header at `position`, or what is wrong with it; `None` at the end of what is readable.
    fn head(&self, position: u64) -> Result<Option<Result<BatchHead, String>>, Miss> {
        let Some(view) = self
            .view
            .as_ref()
            .filter(|view| position < view.len() as u64)
        else {
            return Ok(None);
        };
        // Below the view's length, so it fits.
        let start = position as usize;
        let range = start..start.saturating_add(layout::RECORDS);
        self.ensure(view, &range)?;
        let Some(header) = view.get(range) else {
            return Ok(Some(Err("the file ends inside of a header".to_owned())));
        };
        Ok(Some(BatchHead::parse_slice(header).and_then(|head| {
            if head.size > view.len() as u64 - position {
                return Err("the file ends inside of a batch".to_owned());
            }
            Ok(head)
        })))
    }

    /// The first sound batch at or behind `position`, where offsets have come to `next_offset`.
    pub fn sound_from(
        &self,
        mut position: u64,
        next_offset: Offset,
    ) -> Result<Option<(u64, BatchHead)>, Miss> {
        while let Some(range) = self.segment.damage().at(position) {
            if range.end_position <= position {
                return Ok(None);
            }
            position = range.end_position;
        }
        let Some(found) = self.head(position)? else {
            return Ok(None);
        };
        let head = match found {
            Ok(head) => head,
            Err(reason) => return Err(self.examine(position, &reason)),
        };
        let mut reason = self.segment.misplaced(&head, next_offset);
        let after = position + head.size;
        if reason.is_none()
            && head.base_offset > next_offset
            && self.segment.damage().at(after).is_none()
        {
            let following = self.head(after)?.and_then(Result::ok);
            reason = head.leaps_over(following, next_offset);
        }
        match reason {
            None => Ok(Some((position, head))),
            Some(reason) => Err(self.examine(position, &reason)),
        }
    }

    /// The sound batch behind one.
    pub fn following(
        &self,
        position: u64,
        head: &BatchHead,
    ) -> Result<Option<(u64, BatchHead)>, Miss> {
        self.sound_from(position + head.size, head.next_offset())
    }

    /// What was met at `position` does not fit.
    fn examine(&self, position: u64, reason: &str) -> Miss {
        if self.access == Access::Probe {
            return Miss::NotResident;
        }
        match self.segment.examine(self.readable(), position, reason) {
            Ok(true) => Miss::Examined,
            Ok(false) => Miss::Failed(self.segment.corrupt(position, reason)),
            Err(error) => Miss::Failed(error),
        }
    }

    /// A look at the header at `position` does not block.
    fn is_resident(&self, position: u64) -> bool {
        self.head(position).is_ok()
    }

    fn readable(&self) -> u64 {
        self.view.as_ref().map_or(0, |view| view.len() as u64)
    }

    /// Compares the checksums of batches that begin at `position`, and whether offsets ascend.
    fn check(&self, mut position: u64, records: &[u8]) -> Result<(), Miss> {
        let mut next_offset = self.segment.base_offset();
        for batch in batches(records) {
            let checked = batch.and_then(|batch| batch.check_crc().map(|()| batch));
            let sound = checked.map_err(|error| error.to_string());
            let sound = sound.and_then(|batch| match batch.base_offset() {
                base if base < next_offset => Err(format!("offset {base} after {next_offset}")),
                _ => Ok(batch),
            });
            match sound {
                Ok(batch) => {
                    position += batch.size_in_bytes() as u64;
                    next_offset = batch.next_offset();
                }
                Err(reason) => return Err(self.examine(position, &reason)),
            }
        }
        Ok(())
    }

    fn ensure(&self, view: &View, range: &Range<usize>) -> Result<(), Miss> {
        let mut ensured = self.ensured.borrow_mut();
        if ensured.start <= range.start && range.end <= ensured.end {
            return Ok(());
        }
        let pages = whole_pages(range);
        view.ensure(pages.clone(), self.access)?;
        *ensured = pages;
        Ok(())
    }

    /// The first sound batch that ends at or after `offset`.
    pub fn batch_from(&self, offset: Offset) -> Result<Option<(u64, BatchHead)>, Miss> {
        self.batch_after(0, offset)
    }

    /// The first sound batch that ends at or after `offset`, and is at or behind `position`, where
    /// one begins.
    pub fn batch_after(
        &self,
        position: u64,
        offset: Offset,
    ) -> Result<Option<(u64, BatchHead)>, Miss> {
        let position = self.led_to(offset)?.max(position);
        let mut next = self.sound_from(position, self.segment.base_offset())?;
        while let Some((position, head)) = next {
            if head.last_offset >= offset {
                break;
            }
            next = self.following(position, &head)?;
        }
        Ok(next)
    }

    /// Where the last index entry leads to whose batch ends before `offset`, or the first batch is.
    pub fn indexed_below(&self, offset: Offset) -> Result<u64, Miss> {
        self.led_to(offset.saturating_sub(1))
    }

    /// Where the last index entry leads to, or the first batch is.
    pub fn last_indexed(&self) -> Result<u64, Miss> {
        self.led_to(Offset::MAX)
    }

    /// Where the last index entry for `offset` or one before leads to, or an earlier one where it
    /// leads nowhere, or the start.
    fn led_to(&self, offset: Offset) -> Result<u64, Miss> {
        let base_offset = self.segment.base_offset();
        let is_before =
            |entry: &OffsetEntry| base_offset + i64::from(entry.relative_offset) <= offset;
        let upto = self.index.count_where(is_before);
        let mut back = 1;
        while let Some(index) = upto.checked_sub(back) {
            // In a damaged index, what comes earlier may be of later offsets.
            if let Some(entry) = self.index.get(index).filter(is_before)
                && self.leads(&entry)?
            {
                return Ok(u64::from(entry.position));
            }
            back *= 2;
        }
        Ok(0)
    }

    fn leads(&self, entry: &OffsetEntry) -> Result<bool, Miss> {
        let position = u64::from(entry.position);
        let leads = self.segment.entry_leads(entry, |position| {
            Ok::<_, Miss>(self.head(position)?.and_then(Result::ok))
        })?;
        let known = self.segment.is_distrusted() || self.segment.damage().at(position).is_some();
        if leads || known {
            return Ok(leads);
        }
        // Either the entry is wrong, or the batch is.
        let reason = "an index entry does not lead to its batch";
        if self.access == Access::Probe {
            return Err(Miss::NotResident);
        }
        if self.segment.examine(self.readable(), position, reason)? {
            return Err(Miss::Examined);
        }
        self.segment.distrust(INDEX_SUFFIX, reason);
        Ok(false)
    }

    /// `range`, in memory as the walk's access says, without a copy.
    pub fn records(&self, range: Range<u64>) -> Result<Bytes, Miss> {
        let Some(view) = &self.view else {
            return Ok(Bytes::new());
        };
        let corrupt = || Miss::from(self.segment.corrupt(range.start, "batches beyond the end"));
        let start = usize::try_from(range.start).map_err(|_| corrupt())?;
        let end = usize::try_from(range.end).map_err(|_| corrupt())?;
        if end > view.len() {
            return Err(corrupt());
        }
        view.ensure(start..end, self.access)?;
        if self.access == Access::Load && end - start >= READ_ON_FROM_BYTES {
            view.read_ahead(end..end.saturating_add(READ_AHEAD_BYTES));
        }
        Ok(view.clone().into_bytes(start..end))
    }

    /// Where the batches end that a read from `first`, at `start`, returns.
    fn end_of(&self, start: u64, first: &BatchHead, wanted: &Wanted) -> Result<u64, Miss> {
        let base_offset = self.segment.base_offset();
        let after_first = start + first.size;
        let damage = self.segment.damage().next_from(after_first);
        let bound = start.saturating_add(wanted.max_bytes);
        let bound = bound.min(damage.unwrap_or(u64::MAX));
        // All batches before an indexed one are whole, and end before its last offset.
        let indexed = self.index.last_where(|entry| {
            u64::from(entry.position) <= bound
                && base_offset + i64::from(entry.relative_offset) < wanted.limit
        });
        let mut end = after_first;
        let mut next_offset = first.next_offset();
        if let Some(entry) = indexed.filter(|entry| u64::from(entry.position) > after_first)
            && self.leads(&entry)?
        {
            end = u64::from(entry.position);
        }
        while end < bound {
            match self.head(end)? {
                Some(Ok(head))
                    if head.size <= bound - end
                        && head.last_offset < wanted.limit
                        && self.segment.misplaced(&head, next_offset).is_none() =>
                {
                    end += head.size;
                    next_offset = head.next_offset();
                }
                // Also where it does not fit: the next read begins there, and finds out.
                _ => break,
            }
        }
        Ok(end)
    }
}
