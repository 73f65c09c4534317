//! Finding batches in a segment through its maps, without a copy.
//!
//! A walk goes from header to header; the offset index brings it near its start, and past the
//! middle of a large read, so that a read costs about one index interval of headers at each end.

use std::cell::RefCell;
use std::ops::Range;

use bytes::Bytes;

use super::index::{Entries, OffsetEntry};
use super::map::whole_pages;
use super::{Access, BatchHead, Miss, Segment, View};
use crate::Offset;
use crate::batch::layout;

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

    /// Reads whole batches.
    pub fn find(&self, wanted: &Wanted, access: Access) -> Result<Found, Miss> {
        let walk = self.walk(access)?;
        let Some((position, first)) = walk.batch_from(wanted.offset)? else {
            return Ok(Found::Beyond);
        };
        let too_large = first.size > wanted.max_bytes && !wanted.at_least_one;
        if too_large || first.last_offset >= wanted.limit {
            return Ok(Found::Records(Bytes::new()));
        }
        let end = walk.end_of(position, &first, wanted)?;
        Ok(Found::Records(walk.records(position..end)?))
    }
}

impl Walk<'_> {
    /// The batch at `position`; `None` at the end of what is readable.
    pub fn head(&self, position: u64) -> Result<Option<BatchHead>, Miss> {
        let Some(view) = self
            .view
            .as_ref()
            .filter(|view| position < view.len() as u64)
        else {
            return Ok(None);
        };
        let corrupt = |reason: &str| Miss::from(self.segment.corrupt(position, reason));
        // Below the view's length, so it fits.
        let start = position as usize;
        let range = start..start.saturating_add(layout::RECORDS);
        self.ensure(view, &range)?;
        let header = view
            .get(range)
            .ok_or_else(|| corrupt("the file ends inside of a header"))?;
        let head = BatchHead::parse_slice(header).map_err(|reason| corrupt(&reason))?;
        if head.size > view.len() as u64 - position {
            return Err(corrupt("the file ends inside of a batch"));
        }
        Ok(Some(head))
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

    /// The first batch that ends at or after `offset`.
    pub fn batch_from(&self, offset: Offset) -> Result<Option<(u64, BatchHead)>, Miss> {
        let base_offset = self.segment.base_offset();
        let mut position = self
            .index
            .last_where(|entry| base_offset + i64::from(entry.relative_offset) <= offset)
            .map_or(0, |entry| u64::from(entry.position));
        while let Some(head) = self.head(position)? {
            if head.last_offset >= offset {
                return Ok(Some((position, head)));
            }
            position += head.size;
        }
        Ok(None)
    }

    /// The batch that the last index entry points at, or the first one.
    pub fn last_indexed(&self) -> u64 {
        self.index
            .last()
            .map_or(0, |entry| u64::from(entry.position))
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
        Ok(view.clone().into_bytes(start..end))
    }

    /// Where the batches end that a read from `first`, at `start`, returns.
    fn end_of(&self, start: u64, first: &BatchHead, wanted: &Wanted) -> Result<u64, Miss> {
        let base_offset = self.segment.base_offset();
        let after_first = start + first.size;
        let bound = start.saturating_add(wanted.max_bytes);
        // All batches before an indexed one are whole, and end before its last offset.
        let indexed = self.index.last_where(|entry| {
            u64::from(entry.position) <= bound
                && base_offset + i64::from(entry.relative_offset) < wanted.limit
        });
        let mut end = indexed
            .map_or(0, |entry| u64::from(entry.position))
            .max(after_first);
        while end < bound {
            match self.head(end)? {
                Some(head) if head.size <= bound - end && head.last_offset < wanted.limit => {
                    end += head.size;
                }
                _ => break,
            }
        }
        Ok(end)
    }
}
