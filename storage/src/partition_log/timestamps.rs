//! Lookups by timestamp. As in Kafka, the answer is the first *offset* whose record's timestamp is
//! at or after the one asked for; timestamps need not ascend.
//!
//! The time index leads to the batch from which on there can be such a record; batches are opened,
//! compressed ones too, where their header says that they have one. What lies above a derived
//! partition's high watermark is never looked at.

use std::sync::Arc;

use super::{PartitionLog, ReadLimit, TimestampAndOffset, read};
use crate::Offset;
use crate::batch::{Record, records};
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
        self.shared.check_exists()?;
        let (offsets, end) = self.shared.readable_to(self.visible(limit))?;
        let segments = self.shared.segments();
        let mut remaining = read::from(&segments, offsets.log_start_offset).peekable();
        while let Some(segment) = remaining.next() {
            let closed = remaining.peek().is_some() && segment.has_all_times();
            let found = first_at(segment, closed, timestamp_ms, offsets.log_start_offset)
                .map_err(|miss| read::failed(&self.shared, miss))?;
            if let Some(found) = found {
                return Ok(Some(found).filter(|found| found.offset < end));
            }
        }
        Ok(None)
    }

    /// Blocking. The record with the largest timestamp.
    pub fn max_timestamp(&self) -> Result<Option<TimestampAndOffset>> {
        self.shared.check_exists()?;
        let (offsets, _) = self.shared.readable_to(ReadLimit::HighWatermark)?;
        let segments = self.shared.segments();
        let failed = |miss| read::failed(&self.shared, miss);
        let mut remaining = read::from(&segments, offsets.log_start_offset).peekable();
        let mut largest: Option<(i64, Offset, &Arc<Segment>)> = None;
        while let Some(segment) = remaining.next() {
            let closed = remaining.peek().is_some() && segment.has_all_times();
            let Some((timestamp, offset)) = largest_in(segment, closed).map_err(failed)? else {
                continue;
            };
            if largest.is_none_or(|(known, ..)| timestamp > known) {
                largest = Some((timestamp, offset, segment));
            }
        }
        let Some((timestamp, offset, segment)) = largest else {
            return Ok(None);
        };
        let walk = segment.walk(Access::Load).map_err(failed)?;
        let Some((position, head)) = walk.batch_from(offset).map_err(failed)? else {
            return Ok(None);
        };
        let wanted = |record: &Record| record.timestamp >= timestamp;
        let found = record_in(&walk, position, &head, wanted).map_err(failed)?;
        // A header that promises more than its records have: the batch is the best answer.
        Ok(Some(
            found.unwrap_or_else(|| at_start_of(&head, head.base_offset)),
        ))
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
            let wanted =
                |record: &Record| record.timestamp >= timestamp_ms && record.offset >= start;
            if let Some(found) = record_in(&walk, position, &head, wanted)? {
                return Ok(Some(found));
            }
        }
        let after = position + head.size;
        next = walk.head(after)?.map(|head| (after, head));
    }
    Ok(None)
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
    let mut position = walk.last_indexed();
    while let Some(head) = walk.head(position)? {
        if head.max_timestamp > largest.map_or(-1, |(timestamp, _)| timestamp) {
            largest = Some((head.max_timestamp, head.last_offset));
        }
        position += head.size;
    }
    Ok(largest)
}

/// The first record of a batch that is `wanted`. One that cannot be opened is taken to have it at
/// its start: a reader that starts there misses nothing.
fn record_in(
    walk: &crate::segment::Walk<'_>,
    position: u64,
    head: &BatchHead,
    wanted: impl Fn(&Record) -> bool,
) -> Result<Option<TimestampAndOffset>, Miss> {
    let batch = walk.records(position..position + head.size)?;
    let records = match records::decode(&batch, MAX_DECOMPRESSED_BYTES) {
        Ok(records) => records,
        Err(error) => {
            tracing::debug!(%error, base_offset = head.base_offset, "batch cannot be opened");
            return Ok(Some(at_start_of(head, head.base_offset)));
        }
    };
    Ok(records
        .iter()
        .find(|record| wanted(record))
        .map(|record| TimestampAndOffset {
            timestamp_ms: record.timestamp,
            offset: record.offset,
            leader_epoch: head.leader_epoch,
        }))
}

fn at_start_of(head: &BatchHead, offset: Offset) -> TimestampAndOffset {
    TimestampAndOffset {
        timestamp_ms: head.max_timestamp,
        offset,
        leader_epoch: head.leader_epoch,
    }
}
