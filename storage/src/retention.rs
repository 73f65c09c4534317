//! Which segments a log no longer keeps. Decided here, from facts alone; done by
//! [`crate::LogDir::apply_retention`].
//!
//! As in Kafka's `UnifiedLog.deleteOldSegments`:
//!
//! | why a segment goes | with `cleanup.policy` |
//! |---|---|
//! | everything in it lies below the log's start | any |
//! | without it the log still has `retention.bytes` or more | `delete` |
//! | its largest timestamp is more than `retention.ms` ago | `delete` |
//!
//! Whole segments go, the oldest first and none before an older one; never one that reaches above
//! the high watermark. The newest one may go like any other, unless it is empty: the log then goes on
//! in a new one. A segment none of whose records has a timestamp is as old as its file. One that has
//! a timestamp from the future stays, with all that follow it.

use crate::{LogConfig, Offset};

/// What is known of a log without a look at its files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogFacts {
    /// The time, milliseconds since the epoch.
    pub now_ms: i64,
    /// The first readable offset.
    pub log_start_offset: Offset,
    /// Readers stop here, and so does retention.
    pub high_watermark: Offset,
    /// The next record's offset.
    pub log_end_offset: Offset,
}

/// What is known of a segment without a look at its files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentFacts {
    /// The first offset that it may hold.
    pub base_offset: Offset,
    /// Bytes of its `.log` file.
    pub size_bytes: u64,
}

/// Why a segment goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Everything in it was deleted before.
    LogStart,
    /// The log is larger than `retention.bytes`.
    Size,
    /// It is older than `retention.ms`.
    Time,
}

impl Reason {
    /// For metrics and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::LogStart => "log_start",
            Self::Size => "size",
            Self::Time => "time",
        }
    }
}

/// What goes for one reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Removal {
    /// Why.
    pub reason: Reason,
    /// How many segments.
    pub segments: usize,
    /// The bytes of their `.log` files.
    pub size_bytes: u64,
}

/// What goes of a log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// Each reason at most once, in the order of the segments; empty where nothing goes.
    pub removals: Vec<Removal>,
    /// Where the log begins then: at the first segment that stays, or at the log's end. `None` where
    /// nothing goes.
    pub log_start_offset: Option<Offset>,
    /// The segment (its base offset) that stays because of a timestamp that is yet to come, and that.
    pub future_timestamp: Option<(Offset, i64)>,
}

/// Chooses among `segments`, oldest first. `newest_ms` tells how new a segment is, by its place: its
/// largest timestamp, or else when its file was written. It is asked only of segments that the
/// choice depends on, in their order, and its first error is the answer.
pub fn choose<E>(
    config: &LogConfig,
    log: LogFacts,
    segments: &[SegmentFacts],
    mut newest_ms: impl FnMut(usize) -> Result<i64, E>,
) -> Result<Choice, E> {
    let mut choice = Choice::default();
    let retention_bytes = u64::try_from(config.retention_bytes).ok();
    let mut size_bytes: u64 = segments.iter().map(|segment| segment.size_bytes).sum();
    for (at, segment) in segments.iter().enumerate() {
        let following = segments.get(at + 1).map(|following| following.base_offset);
        let end = following.unwrap_or(log.log_end_offset);
        let without = size_bytes.saturating_sub(segment.size_bytes);
        let may_go = config.delete
            && end <= log.high_watermark
            && (following.is_some() || segment.size_bytes > 0);
        let reason = if following.is_some() && end <= log.log_start_offset {
            Reason::LogStart
        } else if !may_go {
            break;
        } else if retention_bytes.is_some_and(|most| without >= most) {
            Reason::Size
        } else if config.retention_ms >= 0 {
            let newest_ms = newest_ms(at)?;
            if newest_ms > log.now_ms {
                choice.future_timestamp = Some((segment.base_offset, newest_ms));
            }
            if log.now_ms.saturating_sub(newest_ms) <= config.retention_ms {
                break;
            }
            Reason::Time
        } else {
            break;
        };
        choice.take(reason, segment.size_bytes);
        choice.log_start_offset = Some(end);
        size_bytes = without;
    }
    Ok(choice)
}

impl Choice {
    fn take(&mut self, reason: Reason, size_bytes: u64) {
        match self
            .removals
            .last_mut()
            .filter(|last| last.reason == reason)
        {
            Some(last) => {
                last.segments += 1;
                last.size_bytes += size_bytes;
            }
            None => self.removals.push(Removal {
                reason,
                segments: 1,
                size_bytes,
            }),
        }
    }
}

#[cfg(test)]
#[path = "retention/tests.rs"]
mod tests;
