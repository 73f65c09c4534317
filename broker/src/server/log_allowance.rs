//! Keeps log lines that a client can cause at will from filling the disk.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// One line in this long, over time ...
const INTERVAL_MS: u64 = 100;
/// ... and so many at once.
const BURST: u64 = 100;

/// Lines that may still be written.
#[derive(Debug)]
pub(super) struct LogAllowance {
    begin: Instant,
    /// When what was written is used up at one line per interval.
    spent_until_ms: AtomicU64,
    held_back: AtomicU64,
}

impl LogAllowance {
    pub(super) fn new() -> Self {
        Self {
            begin: Instant::now(),
            spent_until_ms: AtomicU64::new(0),
            held_back: AtomicU64::new(0),
        }
    }

    /// Whether a line may be written now; if so, how many were held back since the last one.
    pub(super) fn take(&self) -> Option<u64> {
        self.take_at(self.begin.elapsed().as_millis() as u64)
    }

    fn take_at(&self, now_ms: u64) -> Option<u64> {
        let take = |spent_until: u64| {
            let spent_until = spent_until.max(now_ms) + INTERVAL_MS;
            (spent_until - now_ms <= BURST * INTERVAL_MS).then_some(spent_until)
        };
        let taken = self
            .spent_until_ms
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
        if taken.is_ok() {
            Some(self.held_back.swap(0, Ordering::Relaxed))
        } else {
            self.held_back.fetch_add(1, Ordering::Relaxed);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_and_then_a_rate() {
        let allowance = LogAllowance::new();
        for _ in 0..BURST {
            assert_eq!(allowance.take_at(5), Some(0));
        }
        assert_eq!(allowance.take_at(5), None);
        assert_eq!(allowance.take_at(5 + INTERVAL_MS - 1), None);
        assert_eq!(allowance.take_at(5 + INTERVAL_MS), Some(2));
        assert_eq!(allowance.take_at(5 + INTERVAL_MS), None);
    }
}
