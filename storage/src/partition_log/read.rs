//! Reading: from the page cache without a copy, or, where pages are missing, later on a thread that
//! may block.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::sync::{Segments, Shared, lock};
use super::{Fetched, Offsets, PartitionLog, Read, ReadLimit, Visibility};
use crate::Offset;
use crate::batch::batches;
use crate::error::{Error, Result};
use crate::producer_state::AbortedTransaction;
use crate::segment::{Access, Found, Miss, Wanted};

/// A read that has to wait for the device. Run [`ColdRead::load`] on a thread that may block.
#[derive(Debug)]
pub struct ColdRead {
    shared: Arc<Shared>,
    segments: Segments,
    offsets: Offsets,
    wanted: Wanted,
    committed: bool,
}

impl ColdRead {
    /// Brings the pages in and returns what the read found, with its checksums compared: it comes
    /// from the device.
    pub fn load(self) -> Result<Fetched> {
        let offset = self.wanted.offset;
        match find(&self.segments, &self.wanted, Access::Load) {
            // The search may have met damage.
            Ok(records) => match damaged(&self.segments, offset, self.wanted.limit) {
                Some(error) => Err(error),
                None => self.fetched(records),
            },
            Err(miss) => Err(failed(&self.shared, offset, miss)),
        }
    }

    fn fetched(self, records: Bytes) -> Result<Fetched> {
        let aborted = match self.committed {
            true => aborted(&self.segments, self.wanted.offset, &records, Access::Load),
            false => Ok(Vec::new()),
        };
        Ok(Fetched {
            records,
            aborted: aborted.map_err(|miss| failed(&self.shared, self.wanted.offset, miss))?,
            offsets: self.offsets,
        })
    }
}

impl PartitionLog {
    /// Reads whole batches from the one that holds `offset`, up to `max_bytes` or, where
    /// `at_least_one` is set, one batch even if it is larger. Batches before damage are returned
    /// as if the log ended there.
    ///
    /// `OffsetOutOfRange` outside of the log; `Damaged` where the offset was lost with a damaged
    /// part of it: it goes on at the offset that the error names.
    pub fn read(
        &self,
        offset: Offset,
        max_bytes: usize,
        at_least_one: bool,
        limit: ReadLimit,
    ) -> Result<Read> {
        let shared = &self.shared;
        shared.check_exists()?;
        if self.reads_hidden_tail(limit) {
            return self.read_hidden_tail(offset, max_bytes, at_least_one);
        }
        let committed = limit == ReadLimit::LastStableOffset;
        let (offsets, limit) = shared.readable_to(limit)?;
        check_offset(offset, &offsets, limit)?;
        if offset == limit {
            return Ok(Read::Warm(Fetched {
                records: Bytes::new(),
                aborted: Vec::new(),
                offsets,
            }));
        }
        let wanted = Wanted {
            offset,
            limit,
            max_bytes: max_bytes as u64,
            at_least_one,
        };
        let segments = shared.segments();
        if segments
            .first()
            .is_some_and(|first| first.base_offset() > offset)
        {
            // It was deleted since the offsets were taken.
            return Err(deleted(shared, offset));
        }
        if let Some(error) = damaged(&segments, offset, limit) {
            return Err(error);
        }
        let found = find(&segments, &wanted, Access::Probe).and_then(|records| {
            let aborted = match committed {
                true => aborted(&segments, offset, &records, Access::Probe)?,
                false => Vec::new(),
            };
            Ok(Fetched {
                records,
                aborted,
                offsets,
            })
        });
        match found {
            Ok(fetched) => Ok(Read::Warm(fetched)),
            Err(Miss::NotResident) => {
                let shared = Arc::clone(shared);
                Ok(Read::Cold(ColdRead {
                    shared,
                    segments,
                    offsets,
                    wanted,
                    committed,
                }))
            }
            Err(miss) => Err(failed(shared, offset, miss)),
        }
    }

    pub(super) fn reads_hidden_tail(&self, limit: ReadLimit) -> bool {
        self.shared.visibility == Visibility::Derived && limit == ReadLimit::LogEnd
    }

    /// What lies above a high watermark may be cut off at any time, under the feet of a map; so
    /// the writer is kept out, and a copy returned.
    fn read_hidden_tail(
        &self,
        offset: Offset,
        max_bytes: usize,
        at_least_one: bool,
    ) -> Result<Read> {
        let _writer = lock(&self.writer);
        let offsets = self.shared.offsets();
        let limit = offsets.log_end_offset;
        check_offset(offset, &offsets, limit)?;
        let wanted = Wanted {
            offset,
            limit,
            max_bytes: max_bytes as u64,
            at_least_one,
        };
        let segments = self.shared.segments();
        if let Some(error) = damaged(&segments, offset, limit) {
            return Err(error);
        }
        let mut records = Vec::new();
        for segment in from(&segments, offset) {
            records = segment.copy(&wanted)?;
            if !records.is_empty() {
                break;
            }
        }
        // The search may have met damage.
        match damaged(&segments, offset, limit) {
            Some(error) => Err(error),
            None => Ok(Read::Warm(Fetched {
                records: Bytes::from(records),
                aborted: Vec::new(),
                offsets,
            })),
        }
    }

    /// How many damaged ranges of the log are known. Each was logged when it was found.
    pub fn damaged_ranges(&self) -> usize {
        let segments = self.shared.segments();
        segments
            .iter()
            .map(|segment| segment.damage().count())
            .sum()
    }
}

impl Shared {
    /// The offsets, and the one of them that `limit` means.
    pub(super) fn readable_to(&self, limit: ReadLimit) -> Result<(Offsets, Offset)> {
        if !self.readable.load(Ordering::Acquire) {
            return Err(Error::NotReadable);
        }
        let offsets = self.offsets();
        let end = match limit {
            ReadLimit::HighWatermark => offsets.high_watermark,
            ReadLimit::LastStableOffset => offsets.last_stable_offset,
            ReadLimit::LogEnd => offsets.log_end_offset,
        };
        Ok((offsets, end))
    }
}

fn check_offset(offset: Offset, offsets: &Offsets, end: Offset) -> Result<()> {
    let start = offsets.log_start_offset;
    if (start..=end).contains(&offset) {
        return Ok(());
    }
    Err(Error::OffsetOutOfRange { offset, start, end })
}

/// The segments from the one that may hold `offset`.
pub(super) fn from(
    segments: &Segments,
    offset: Offset,
) -> impl Iterator<Item = &Arc<crate::segment::Segment>> {
    let after = segments.partition_point(|segment| segment.base_offset() <= offset);
    segments.iter().skip(after.saturating_sub(1))
}

/// The transactions that were aborted, of `records`, which were found for `offset`.
fn aborted(
    segments: &Segments,
    offset: Offset,
    records: &[u8],
    access: Access,
) -> Result<Vec<AbortedTransaction>, Miss> {
    let mut found = Vec::new();
    // Most logs have no transactions.
    if !from(segments, offset).any(|segment| segment.has_aborted()) {
        return Ok(found);
    }
    let last = batches(records).filter_map(Result::ok).last();
    let Some(end) = last.map(|batch| batch.next_offset()) else {
        return Ok(found);
    };
    for segment in from(segments, offset) {
        if segment.aborted_in(offset, end, access, &mut found)? {
            break;
        }
    }
    Ok(found)
}

fn find(segments: &Segments, wanted: &Wanted, access: Access) -> Result<Bytes, Miss> {
    for segment in from(segments, wanted.offset) {
        match segment.find(wanted, access)? {
            Found::Records(records) => return Ok(records),
            Found::Beyond => {}
        }
        // The next segment has what this one ends before, or offsets are missing.
        if segment.must_reach().is_some_and(|end| wanted.offset < end) {
            if segment.damage().of(wanted.offset, Offset::MAX).is_some() {
                break;
            }
            if access == Access::Probe {
                return Err(Miss::NotResident);
            }
            let reason = "the segment ends before the next one begins";
            segment.examine(segment.readable(), segment.readable(), reason)?;
        }
    }
    Ok(Bytes::new())
}

/// Why `offset`, which is below `limit`, cannot be read, where that is known: it was lost with a
/// damaged part of the log.
fn damaged(segments: &Segments, offset: Offset, limit: Offset) -> Option<Error> {
    let segment = from(segments, offset).next()?;
    if segment.damage().count() == 0 {
        return None;
    }
    let end = segment.next_base().unwrap_or(limit);
    let range = segment.damage().of(offset, end)?;
    Some(Error::Damaged {
        path: segment.path().to_owned(),
        position: range.position,
        offset,
        from: range.from,
        to: range.to.map_or(end, |to| to.min(end)),
    })
}

fn deleted(shared: &Shared, offset: Offset) -> Error {
    let offsets = shared.offsets();
    let (start, end) = (offsets.log_start_offset, offsets.high_watermark);
    Error::OffsetOutOfRange { offset, start, end }
}

/// The error of a read at `offset`. The files of a deleted log, or of deleted records, are gone,
/// which is no error of the disk's.
pub(super) fn failed(shared: &Shared, offset: Offset, miss: Miss) -> Error {
    match (shared.check_exists(), miss) {
        (Err(closed), _) => closed,
        (Ok(()), Miss::Failed(_)) if offset < shared.offsets().log_start_offset => {
            deleted(shared, offset)
        }
        (Ok(()), Miss::Failed(error)) => error,
        // Whoever gets these looks again.
        (Ok(()), Miss::NotResident | Miss::Examined) => Error::NotReadable,
    }
}
