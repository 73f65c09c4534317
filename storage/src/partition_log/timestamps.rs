//! Lookups by timestamp. As in Kafka, the answer is the first *offset* whose record's timestamp is
//! at or after the one asked for; timestamps need not ascend.
//!
//! The largest timestamp of each segment is in memory and leads to the one segment that can have
//! the answer; no other is opened. In it the two indexes lead to within one index interval of the
//! first batch whose header promises it, and batches are opened, compressed ones too, where their
//! header does. Two things cost more: where the largest timestamp of a segment was deleted with its
//! first records, the headers of what is left of it are walked; and a batch that promises more than
//! its records have is opened in vain. What lies above a derived partition's high watermark is never
//! looked at.

use std::sync::Arc;

use super::sync::Segments;
use super::{PartitionLog, ReadLimit, TimestampAndOffset, read};
use crate::Offset;
use crate::batch::Opened;
use crate::error::Result;
use crate::segment::{Access, BatchHead, Entries, Miss, Segment, TimeEntry, Walk};

/// The most that a compressed batch may decompress to here.
const MAX_DECOMPRESSED_BYTES: usize = 64 << 20;

impl PartitionLog {
    /// Blocking. The first record at or after `timestamp_ms`, below `limit`.
    pub fn offset_for_timestamp(
        &self,
        timestamp_ms: i64,
        limit: ReadLimit,
    ) -> Result<Option<TimestampAndOffset>> {
        self.look(self.visible(limit), |segments, start, end| {
            for segment in below(segments, start, end) {
                let largest = segment.largest_timestamp()?;
                if largest.is_none_or(|largest| largest < timestamp_ms) {
                    continue;
                }
                if let Some(found) = first_at(segment, timestamp_ms, start)? {
                    return Ok(Some(found).filter(|found| found.offset < end));
                }
            }
            Ok(None)
        })
    }

    /// Blocking. The record with the largest timestamp.
    pub fn max_timestamp(&self) -> Result<Option<TimestampAndOffset>> {
        self.look(ReadLimit::HighWatermark, |segments, start, end| {
            // What a segment has is at most what it is known for: that may be deleted, or hidden.
            let mut promised: Vec<(i64, &Arc<Segment>)> = Vec::new();
            for segment in below(segments, start, end) {
                let largest = segment.largest_timestamp()?;
                promised.extend(largest.map(|largest| (largest, segment)));
            }
            // Stable: of equal ones the oldest first.
            promised.sort_by_key(|(largest, _)| std::cmp::Reverse(*largest));
            let mut largest: Option<(i64, Offset, &Arc<Segment>)> = None;
            for (promised, segment) in promised {
                if largest.is_some_and(|(known, ..)| promised < known) {
                    break;
                }
                let Some((timestamp, offset)) = largest_from(segment, start)? else {
                    continue;
                };
                let better = |(known, at, _): (i64, Offset, _)| {
                    timestamp > known || (timestamp == known && offset < at)
                };
                if largest.is_none_or(better) {
                    largest = Some((timestamp, offset, segment));
                }
            }
            let Some((timestamp, offset, segment)) = largest else {
                return Ok(None);
            };
            let walk = segment.walk(Access::Load)?;
            let Some((position, head)) = walk.batch_from(offset)? else {
                return Ok(None);
            };
            let found = record_in(&walk, position, &head, timestamp, start)?;
            // A header that promises more than its records have: the batch is the best answer.
            let found = found.unwrap_or_else(|| at_start_of(&head, start));
            // One of a damaged batch may be beyond the log.
            Ok(Some(found).filter(|found| found.offset < end))
        })
    }

    /// Looks at the segments from the log's start to the end that `limit` means, and again where
    /// records were deleted meanwhile, and with them files that the first look has missed.
    fn look<T>(
        &self,
        limit: ReadLimit,
        look: impl Fn(&Segments, Offset, Offset) -> Result<T, Miss>,
    ) -> Result<T> {
        loop {
            self.shared.check_exists()?;
            let (offsets, end) = self.shared.readable_to(limit)?;
            let start = offsets.log_start_offset;
            match look(&self.shared.segments(), start, end) {
                Ok(found) => return Ok(found),
                Err(Miss::Examined) => {}
                Err(_) if self.offsets().log_start_offset > start => {}
                Err(miss) => return Err(read::failed(&self.shared, start, miss)),
            }
        }
    }

    fn visible(&self, limit: ReadLimit) -> ReadLimit {
        if self.reads_hidden_tail(limit) {
            ReadLimit::HighWatermark
        } else {
            limit
        }
    }
}

/// The segments that may have offsets in `start..end`.
fn below(segments: &Segments, start: Offset, end: Offset) -> impl Iterator<Item = &Arc<Segment>> {
    read::from(segments, start).take_while(move |segment| segment.base_offset() < end)
}

/// The first record of `segment` at or after `timestamp_ms` that is not below `start`.
fn first_at(
    segment: &Segment,
    timestamp_ms: i64,
    start: Offset,
) -> Result<Option<TimestampAndOffset>, Miss> {
    // The walk first: the time index is then at least as far as the walk's index.
    let walk = segment.walk(Access::Load)?;
    let position = match segment.times()? {
        Some(times) => before_time(segment, &walk, &times, timestamp_ms)?,
        None => 0,
    };
    let mut next = walk.batch_after(position, start)?;
    while let Some((position, head)) = next {
        if head.max_timestamp >= timestamp_ms
            && let Some(found) = record_in(&walk, position, &head, timestamp_ms, start)?
        {
            return Ok(Some(found));
        }
        next = walk.following(position, &head)?;
    }
    Ok(None)
}

/// Where a batch is before which nothing is at or after `timestamp_ms`.
fn before_time(
    segment: &Segment,
    walk: &Walk<'_>,
    times: &Entries<TimeEntry>,
    timestamp_ms: i64,
) -> Result<u64, Miss> {
    let earlier = times.count_where(|entry| entry.timestamp < timestamp_ms);
    let offset_of = |entry: TimeEntry| segment.base_offset() + i64::from(entry.relative_offset);
    let around = [earlier.checked_sub(1), Some(earlier)];
    for entry in around.into_iter().flatten().filter_map(|at| times.get(at)) {
        let batch = walk.batch_from(offset_of(entry))?.map(|(_, head)| head);
        if !segment.time_leads(&entry, batch.as_ref()) {
            return Ok(0);
        }
    }
    // A time index entry is written together with the next offset index entry after its batch. So
    // where the offset index has an entry for a batch before that, there was nothing so late yet.
    match times.get(earlier) {
        Some(entry) => walk.indexed_below(offset_of(entry)),
        None => walk.last_indexed(),
    }
}

/// As [`largest_in`], of what is not below `start`.
fn largest_from(segment: &Segment, start: Offset) -> Result<Option<(i64, Offset)>, Miss> {
    let largest = largest_in(segment)?;
    let Some((_, offset)) = largest.filter(|_| segment.base_offset() < start) else {
        return Ok(largest);
    };
    let walk = segment.walk(Access::Load)?;
    let whole = walk
        .batch_from(offset)?
        .is_some_and(|(_, head)| head.base_offset >= start);
    if whole {
        return Ok(largest);
    }
    // The one with the largest timestamp was deleted, and the index knows of no other.
    let mut largest: Option<(i64, Offset)> = None;
    let mut next = walk.batch_from(start)?;
    while let Some((position, head)) = next {
        let found = if head.base_offset < start {
            let batch = walk.records(position..position + head.size)?;
            // Of a batch that can't be opened whole, nothing counts.
            let opened = Opened::open(&batch, MAX_DECOMPRESSED_BYTES);
            let opened = opened.and_then(|opened| opened.check().map(|()| opened));
            opened.ok().and_then(|opened| {
                let times = opened.times().filter_map(Result::ok);
                times
                    .filter(|(_, offset)| *offset >= start)
                    .max_by_key(|(timestamp, offset)| (*timestamp, std::cmp::Reverse(*offset)))
            })
        } else {
            Some((head.max_timestamp, head.last_offset))
        };
        if let Some(found) = found.filter(|(timestamp, _)| *timestamp >= 0)
            && largest.is_none_or(|(known, _)| found.0 > known)
        {
            largest = Some(found);
        }
        next = walk.following(position, &head)?;
    }
    Ok(largest)
}

/// The largest timestamp in `segment`, and the last offset of the first batch that has it.
fn largest_in(segment: &Segment) -> Result<Option<(i64, Offset)>, Miss> {
    // The walk first, as above: so that no batch falls between the two indexes.
    let walk = segment.walk(Access::Load)?;
    let times = segment.times()?;
    let from = match &times {
        Some(_) => walk.last_indexed()?,
        None => 0,
    };
    let last = times.and_then(|times| times.last());
    let mut largest = last.map(|entry| {
        let offset = segment.base_offset() + i64::from(entry.relative_offset);
        (entry.timestamp, offset)
    });
    let mut next = walk.sound_from(from, segment.base_offset())?;
    while let Some((position, head)) = next {
        if head.max_timestamp > largest.map_or(-1, |(timestamp, _)| timestamp) {
            largest = Some((head.max_timestamp, head.last_offset));
        }
        next = walk.following(position, &head)?;
    }
    Ok(largest)
}

/// The first record of a batch that is at or after `timestamp_ms` and not below `start`. One that
/// cannot be opened is taken to have it at its start: a reader that starts there misses nothing.
fn record_in(
    walk: &Walk<'_>,
    position: u64,
    head: &BatchHead,
    timestamp_ms: i64,
    start: Offset,
) -> Result<Option<TimestampAndOffset>, Miss> {
    let batch = walk.records(position..position + head.size)?;
    let wanted = |(time, offset): (i64, Offset)| time >= timestamp_ms && offset >= start;
    let found = Opened::open(&batch, MAX_DECOMPRESSED_BYTES).and_then(|opened| {
        let mut times = opened.times();
        times
            .find(|time| time.as_ref().map_or(true, |time| wanted(*time)))
            .transpose()
    });
    match found {
        Ok(found) => Ok(found.map(|(timestamp_ms, offset)| TimestampAndOffset {
            timestamp_ms,
            offset,
            leader_epoch: head.leader_epoch,
        })),
        Err(error) => {
            tracing::debug!(%error, base_offset = head.base_offset, "batch cannot be opened");
            Ok(Some(at_start_of(head, start)))
        }
    }
}

/// A batch in the place of a record of it that is not below `start`.
fn at_start_of(head: &BatchHead, start: Offset) -> TimestampAndOffset {
    TimestampAndOffset {
        timestamp_ms: head.max_timestamp,
        offset: head.base_offset.max(start),
        leader_epoch: head.leader_epoch,
    }
}
