//! Which records of a key are aggregated together, in milliseconds of event time.
//!
//! Windows in time are made of *slices*: a record changes one slice, and a window's value is that of its slices put together.
//! Their rules are those of Kafka Streams (`TimeWindows`, `SessionWindows`): a tumbling window is one slice; a sliding one is
//! the hopping window, advancing by a slice, that contains the record and starts first. With stream time T, the highest
//! event time so far:
//!
//! | | takes a record while | is let go when |
//! |---|---|---|
//! | tumbling, sliding | a window that the record's slice is in is open: slice's start + size + grace > T | that is no longer so |
//! | session | session's end, with the record, + gap + grace >= T | end + gap + grace <= T, before a record moves T |
//! | by count, all | always | nothing came for `ttl` |
//!
//! A record is *late* for a sliding window when its own window, which ends with its slice, has closed: end + grace <= T. It
//! may still count in the windows of later records.

use std::time::Duration;

use crate::spec::{MAX_SLICES, WindowSpec};

/// How records of a key are put together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Window {
    /// Tumbling (with one slice) and sliding.
    Sliced {
        /// A slice's length.
        slice_ms: i64,
        /// How many are in a window.
        slices: i64,
        /// How long a window takes records after its end.
        grace_ms: i64,
    },
    /// Records that follow one another at most a gap apart.
    Session {
        /// The gap.
        gap_ms: i64,
        /// How long a session takes records after its end and the gap.
        grace_ms: i64,
    },
    /// The last records.
    Count {
        /// How many.
        records: i64,
    },
    /// All records.
    All,
}

impl Window {
    /// What was written, or what is wrong with it.
    pub fn new(spec: Option<&WindowSpec>) -> Result<Self, String> {
        let Some(spec) = spec else {
            return Ok(Self::All);
        };
        let grace_ms = spec.grace.map_or(0, ms);
        let of_time = |what: &str| match spec.grace {
            Some(_) => Err(format!("grace is of windows in time, not of {what}")),
            None => Ok(()),
        };
        if spec.slice.is_some() && spec.sliding.is_none() {
            return Err("slice is of a sliding window".to_owned());
        }
        match (spec.tumbling, spec.sliding, spec.session, spec.last) {
            (Some(size), None, None, None) => Ok(Self::Sliced {
                slice_ms: positive("tumbling", size)?,
                slices: 1,
                grace_ms,
            }),
            (None, Some(size), None, None) => {
                let size_ms = positive("sliding", size)?;
                let slice_ms = match spec.slice {
                    Some(slice) => positive("slice", slice)?,
                    None if size_ms % DEFAULT_SLICES == 0 => size_ms / DEFAULT_SLICES,
                    None => {
                        return Err(format!(
                            "a tenth of {size_ms} ms is no whole number of milliseconds: give a slice"
                        ));
                    }
                };
                let slices = size_ms / slice_ms;
                if size_ms % slice_ms != 0 || slices > MAX_SLICES as i64 {
                    return Err(format!(
                        "a window of {size_ms} ms is not 1 to {MAX_SLICES} slices of {slice_ms} ms"
                    ));
                }
                Ok(Self::Sliced {
                    slice_ms,
                    slices,
                    grace_ms,
                })
            }
            (None, None, Some(gap), None) => Ok(Self::Session {
                gap_ms: positive("session", gap)?,
                grace_ms,
            }),
            (None, None, None, Some(records)) => {
                of_time("the last records")?;
                match (1..=MAX_SLICES).contains(&records) {
                    true => Ok(Self::Count {
                        records: records as i64,
                    }),
                    false => Err(format!(
                        "last is from 1 to {MAX_SLICES} records, not {records}"
                    )),
                }
            }
            _ => Err("a window is one of tumbling, sliding, session and last".to_owned()),
        }
    }

    /// How long a window in time is, with its grace; `None` where it has no end in time.
    pub fn retention_ms(&self) -> Option<i64> {
        match *self {
            Self::Sliced {
                slice_ms,
                slices,
                grace_ms,
            } => Some(slice_ms * slices + grace_ms),
            Self::Session { gap_ms, grace_ms } => Some(gap_ms + grace_ms),
            Self::Count { .. } | Self::All => None,
        }
    }

    /// The slice that a time is in.
    pub fn slice_of(slice_ms: i64, time_ms: i64) -> i64 {
        time_ms.div_euclid(slice_ms)
    }

    /// When the slice begins that comes so many after one.
    pub(super) fn start_of(slice_ms: i64, slice: i64, after: i64) -> i128 {
        (i128::from(slice) + i128::from(after)) * i128::from(slice_ms)
    }
}

/// Slices of a sliding window that does not say.
const DEFAULT_SLICES: i64 = 10;

/// In milliseconds. Windows are no longer than [`crate::spec::MAX_WINDOW`].
pub(super) fn ms(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

fn positive(key: &str, duration: Duration) -> Result<i64, String> {
    match ms(duration) {
        0 => Err(format!("{key} is less than a millisecond")),
        ms if Duration::from_millis(ms as u64) != duration => {
            Err(format!("{key} is not in whole milliseconds"))
        }
        ms => Ok(ms),
    }
}
