//! Whether a log is to be compacted, and which part. Decided here, from facts alone.
//!
//! As in Kafka's `LogCleanerManager`: the dirty part begins at the first offset that was never
//! compacted, and ends at a segment's beginning: of the newest one, of the one that holds the
//! [`LogFacts::limit`], or of the first one with a record younger than `min.compaction.lag.ms`,
//! whichever comes first. A log is due when more than `min.cleanable.dirty.ratio` of its bytes up to
//! there is dirty, or when its dirty part has a record older than `max.compaction.lag.ms`.
//!
//! Bytes are counted in whole segments. One that was compacted in part, because the map was full,
//! counts as both.

use std::cmp::Ordering;

use crate::config::NEVER;
use crate::retention::SegmentFacts;
use crate::{LogConfig, Offset};

/// What is known of a log without a look at its files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LogFacts {
    /// The time, milliseconds since the epoch.
    pub now_ms: i64,
    /// The first readable offset.
    pub log_start_offset: Offset,
    /// The next record's offset.
    pub log_end_offset: Offset,
    /// From the checkpoint; `None` where the log was never compacted.
    pub first_dirty_offset: Option<Offset>,
    /// Nothing here or above is compacted: readers may not see it, or a crash may take it.
    pub limit: Offset,
}

/// A part of a log that is due.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Choice {
    /// Where the dirty part begins.
    pub first_dirty_offset: Offset,
    /// Where it ends: the first offset that is not compacted, the base of a segment.
    pub end_offset: Offset,
    /// Bytes of the segments that begin below the dirty part.
    pub clean_bytes: u64,
    /// Bytes of the segments of the dirty part.
    pub dirty_bytes: u64,
    /// A dirty record is older than `max.compaction.lag.ms`.
    pub urgent: bool,
    /// What the checkpoint says though the log has no such offset: for a warning. The log is taken to
    /// be dirty from its start on.
    pub invalid_checkpoint: Option<Offset>,
}

impl Choice {
    /// How much of the bytes that the pass goes over is dirty, 0 to 1.
    pub fn dirty_ratio(&self) -> f64 {
        match self.clean_bytes.saturating_add(self.dirty_bytes) {
            0 => 0.0,
            total => self.dirty_bytes as f64 / total as f64,
        }
    }

    /// Greater is the one that needs it more.
    pub fn cmp_need(&self, other: &Self) -> Ordering {
        self.dirty_ratio().total_cmp(&other.dirty_ratio())
    }
}

/// Chooses among `segments`, oldest first, the last of which is written to. `largest_ms` tells a
/// segment's largest timestamp, or else when its file was written; `first_ms` its first batch's
/// timestamp, where it has one. Both are asked by a segment's place, only where the choice depends
/// on it, and the first error is the answer.
pub(crate) fn choose<E>(
    config: &LogConfig,
    log: LogFacts,
    segments: &[SegmentFacts],
    mut largest_ms: impl FnMut(usize) -> Result<i64, E>,
    mut first_ms: impl FnMut(usize) -> Result<Option<i64>, E>,
) -> Result<Option<Choice>, E> {
    if !config.compact {
        return Ok(None);
    }
    let valid = log.log_start_offset..=log.log_end_offset;
    let checkpoint = log.first_dirty_offset;
    let invalid = checkpoint.filter(|offset| !valid.contains(offset));
    let first_dirty_offset = match checkpoint {
        Some(offset) if invalid.is_none() => offset,
        _ => log.log_start_offset,
    };
    let begin = holder(segments, first_dirty_offset);
    let mut end = holder(segments, log.limit);
    let ago = |ms: u64| {
        let ms = i64::try_from(ms).unwrap_or(i64::MAX);
        log.now_ms.saturating_sub(ms)
    };
    if config.min_compaction_lag_ms > 0 {
        let youngest = ago(config.min_compaction_lag_ms);
        for at in begin..end {
            if largest_ms(at)? > youngest {
                end = at;
                break;
            }
        }
    }
    let Some(dirty) = segments.get(begin..end) else {
        return Ok(None);
    };
    let dirty_bytes = bytes(dirty);
    let Some(end_segment) = segments.get(end).filter(|_| dirty_bytes > 0) else {
        return Ok(None);
    };
    let clean = segments.partition_point(|segment| segment.base_offset < first_dirty_offset);
    let mut urgent = false;
    if config.max_compaction_lag_ms < NEVER {
        let oldest = ago(config.max_compaction_lag_ms);
        for at in begin..end {
            urgent = first_ms(at)?.is_some_and(|first| first > 0 && first < oldest);
            if urgent {
                break;
            }
        }
    }
    let choice = Choice {
        first_dirty_offset,
        end_offset: end_segment.base_offset,
        clean_bytes: bytes(segments.get(..clean).unwrap_or_default()),
        dirty_bytes,
        urgent,
        // With `delete`, retention moves the log's start on past it all the time.
        invalid_checkpoint: invalid.filter(|offset| !config.delete || *offset > log.log_end_offset),
    };
    let due = urgent || choice.dirty_ratio() > config.min_cleanable_dirty_ratio;
    Ok(due.then_some(choice))
}

/// The place of the segment that `offset` is in; the first where it lies before all.
fn holder(segments: &[SegmentFacts], offset: Offset) -> usize {
    let begun = segments.partition_point(|segment| segment.base_offset <= offset);
    begun.saturating_sub(1)
}

fn bytes(segments: &[SegmentFacts]) -> u64 {
    segments.iter().map(|segment| segment.size_bytes).sum()
}

#[cfg(test)]
#[path = "choose/tests.rs"]
mod tests;
