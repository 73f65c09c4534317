//! Lookups by timestamp. As in Kafka, the answer is the first *offset* whose record's timestamp is
//! at or after the one asked for; timestamps need not ascend.
//!
//! The time index leads to the batch from which on there can be such a record; batches are opened,
//! compressed ones too, where their header says that they have one. What lies above a derived
//! partition's high watermark is never looked at.

use std::sync::Arc;

use super::sync::Segments;
use super::{PartitionLog, ReadLimit, TimestampAndOffset, read};
use crate::Offset;
use crate::batch::Opened;
use crate::error::Result;
use crate::segment::{Access, BatchHead, Miss, Segment};

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
            let mut remaining = read::from(segments, start).peekable();
            while let Some(segment) = remaining.next() {
                let closed = remaining.peek().is_some() && segment.has_all_times();
                if let Some(found) = first_at(segment, closed, timestamp_ms, start)? {
                    return Ok(Some(found).filter(|found| found.offset < end));
                }
            }
            Ok(None)
        })
    }

    /// Blocking. The record with the largest timestamp.
    pub fn max_timestamp(&self) -> Result<Option<TimestampAndOffset>> {
        self.look(ReadLimit::HighWatermark, |segments, start, _| {
            let mut remaining = read::from(segments, start).peekable();
            let mut largest: Option<(i64, Offset, &Arc<Segment>)> = None;
            while let Some(segment) = remaining.next() {
                let closed = remaining.peek().is_some() && segment.has_all_times();
                let Some((timestamp, offset)) = largest_from(segment, closed, start)? else {
                    continue;
                };
                if largest.is_none_or(|(known, ..)| timestamp > known) {
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
            let wanted = |(time, offset)| time >= timestamp && offset >= start;
            let found = record_in(&walk, position, &head, wanted)?;
            // A header that promises more than its records have: the batch is the best answer.
            let best = || at_start_of(&head, head.base_offset.max(start));
            Ok(Some(found.unwrap_or_else(best)))
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

/// The first record of `segment` at or after `timestamp_ms` that is not below `start`.
fn first_at(
    segment: &Segment,
    closed: bool,
    timestamp_ms: i64,
    start: Offset,
) -> Result<Option<TimestampAndOffset>, Miss> {
    let times = segment.times(Access::Load)?;
    // The last entry of a closed segment has its largest timestamp.
    if closed
        && times
            .last()
            .is_none_or(|last| last.timestamp < timestamp_ms)
    {
        return Ok(None);
    }
    let before = times
        .last_where(|entry| entry.timestamp <= timestamp_ms)
        .map_or(segment.base_offset(), |entry| {
            segment.base_offset() + i64::from(entry.relative_offset)
        });
    let walk = segment.walk(Access::Load)?;
    let mut next = walk.batch_from(before.max(start))?;
    while let Some((position, head)) = next {
        if head.max_timestamp >= timestamp_ms {
            let wanted = |(time, offset)| time >= timestamp_ms && offset >= start;
            if let Some(found) = record_in(&walk, position, &head, wanted)? {
                return Ok(Some(found));
            }
        }
        next = walk.following(position, &head)?;
    }
    Ok(None)
}

/// As [`largest_in`], of what is not below `start`.
fn largest_from(
    segment: &Segment,
    closed: bool,
    start: Offset,
) -> Result<Option<(i64, Offset)>, Miss> {
    let largest = largest_in(segment, closed)?;
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
        if let Some(found) = found
            && largest.is_none_or(|(known, _)| found.0 > known)
        {
            largest = Some(found);
        }
        next = walk.following(position, &head)?;
    }
    Ok(largest)
}

/// The largest timestamp in `segment`, and the last offset of the first batch that has it.
fn largest_in(segment: &Segment, closed: bool) -> Result<Option<(i64, Offset)>, Miss> {
    let indexed = || {
        let last = segment.times(Access::Load)?.last();
        Ok(last.map(|entry| {
            let offset = segment.base_offset() + i64::from(entry.relative_offset);
            (entry.timestamp, offset)
        }))
    };
    if closed {
        return indexed();
    }
    // The walk first: the time index is then at least as far as the walk's index, and no batch
    // falls between the two.
    let walk = segment.walk(Access::Load)?;
    let mut largest = indexed()?;
    let mut next = walk.sound_from(walk.last_indexed()?, segment.base_offset())?;
    while let Some((position, head)) = next {
        if head.max_timestamp > largest.map_or(-1, |(timestamp, _)| timestamp) {
            largest = Some((head.max_timestamp, head.last_offset));
        }
        next = walk.following(position, &head)?;
    }
    Ok(largest)
}

/// The first record of a batch that is `wanted`. One that cannot be opened is taken to have it at
/// its start: a reader that starts there misses nothing.
fn record_in(
    walk: &crate::segment::Walk<'_>,
    position: u64,
    head: &BatchHead,
    wanted: impl Fn((i64, Offset)) -> bool,
) -> Result<Option<TimestampAndOffset>, Miss> {
    let batch = walk.records(position..position + head.size)?;
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
            Ok(Some(at_start_of(head, head.base_offset)))
        }
    }
}

fn at_start_of(head: &BatchHead, offset: Offset) -> TimestampAndOffset {
    TimestampAndOffset {
        timestamp_ms: head.max_timestamp,
        offset,
        leader_epoch: head.leader_epoch,
    }
}
