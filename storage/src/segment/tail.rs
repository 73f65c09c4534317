//! What a segment's batches come to, batch by batch: when an index entry is due. The same rules for
//! appending and for rebuilding an index, so that both give the same files; they are Kafka's.

use super::BatchHead;
use super::index::{OffsetEntry, TimeEntry};
use crate::Offset;

/// What the batches of a segment have come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tail {
    /// Since the last index entry.
    bytes_since_index: u64,
    /// The largest timestamp so far, and the last offset of the first batch that had it.
    pub max_timestamp: Option<(i64, Offset)>,
    /// The timestamp of the last time index entry.
    indexed_timestamp: Option<i64>,
}

/// The index entries that are due for a batch.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Due {
    pub offset: Option<OffsetEntry>,
    pub time: Option<TimeEntry>,
}

impl Tail {
    /// Of an empty segment.
    pub const EMPTY: Self = Self {
        bytes_since_index: 0,
        max_timestamp: None,
        indexed_timestamp: None,
    };

    /// At an index entry: the batch there is still to be noted.
    pub fn at_entry(base_offset: Offset, time: Option<TimeEntry>) -> Self {
        Self {
            bytes_since_index: 0,
            max_timestamp: time.map(|entry| {
                (
                    entry.timestamp,
                    base_offset + i64::from(entry.relative_offset),
                )
            }),
            indexed_timestamp: time.map(|entry| entry.timestamp),
        }
    }

    /// Takes in the batch at `position`; returns the entries that are due for it.
    pub fn note(
        &mut self,
        base_offset: Offset,
        head: &BatchHead,
        position: u64,
        index_interval_bytes: u64,
    ) -> Due {
        let largest = self.max_timestamp.map_or(-1, |(timestamp, _)| timestamp);
        if head.max_timestamp > largest {
            self.max_timestamp = Some((head.max_timestamp, head.last_offset));
        }
        let mut due = Due::default();
        if self.bytes_since_index > index_interval_bytes {
            due.offset = u32::try_from(head.last_offset - base_offset)
                .ok()
                .zip(u32::try_from(position).ok())
                .map(|(relative_offset, position)| OffsetEntry {
                    relative_offset,
                    position,
                });
            due.time = self.due_time(base_offset);
            self.bytes_since_index = 0;
        }
        self.bytes_since_index += head.size;
        due
    }

    /// The time index entry that is due when the segment is closed or an offset entry is added.
    pub fn due_time(&mut self, base_offset: Offset) -> Option<TimeEntry> {
        let (timestamp, offset) = self.max_timestamp?;
        if self
            .indexed_timestamp
            .is_some_and(|indexed| timestamp <= indexed)
        {
            return None;
        }
        let relative_offset = u32::try_from(offset - base_offset).ok()?;
        self.indexed_timestamp = Some(timestamp);
        Some(TimeEntry {
            timestamp,
            relative_offset,
        })
    }
}
