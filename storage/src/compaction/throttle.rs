//! `log.cleaner.io.max.bytes.per.second`: how much all compaction together reads and writes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::partition_log::lock;

/// How long a wait goes on before it looks whether it is still wanted.
const SLICE: Duration = Duration::from_millis(50);

/// Shared by all that compact.
#[derive(Debug)]
pub struct Throttle {
    bytes_per_second: Option<f64>,
    /// When what was granted so far is used up.
    until: Mutex<Instant>,
}

impl Throttle {
    /// So many bytes a second; without a number, as many as the disk takes. A number that is not above
    /// zero counts as one byte.
    pub fn new(bytes_per_second: Option<f64>) -> Self {
        Self {
            bytes_per_second: bytes_per_second
                .filter(|rate| rate.is_finite())
                .map(|rate| rate.max(1.0)),
            until: Mutex::new(Instant::now()),
        }
    }

    /// Counts bytes; returns how long whoever moved them has to wait before the next.
    fn count(&self, bytes: u64, now: Instant) -> Duration {
        let Some(rate) = self.bytes_per_second else {
            return Duration::ZERO;
        };
        let takes = Duration::try_from_secs_f64(bytes as f64 / rate).unwrap_or(Duration::MAX);
        let mut until = lock(&self.until);
        let end = until.max(now).checked_add(takes);
        // An hour is as good as any time that the clock has no number for.
        *until = end.unwrap_or(now + Duration::from_secs(3600));
        until.saturating_duration_since(now)
    }
}

/// What a pass may move, and whether it is still wanted.
#[derive(Clone, Debug)]
pub(crate) struct Pace {
    throttle: Arc<Throttle>,
    stop: Arc<AtomicBool>,
}

impl Pace {
    pub fn new(throttle: Arc<Throttle>, stop: Arc<AtomicBool>) -> Self {
        Self { throttle, stop }
    }

    /// Nobody wants it any more.
    pub fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// Counts bytes that were moved, and waits until more may be. `Closed` when stopped.
    pub fn moved(&self, bytes: u64) -> Result<()> {
        let mut wait = self.throttle.count(bytes, Instant::now());
        loop {
            if self.is_stopped() {
                return Err(Error::Closed);
            }
            if wait.is_zero() {
                return Ok(());
            }
            let slice = wait.min(SLICE);
            std::thread::sleep(slice);
            wait -= slice;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_moved_takes_its_time() {
        let throttle = Throttle::new(Some(1000.0));
        let start = Instant::now();
        // What was not used before is not saved up.
        assert_eq!(
            throttle.count(500, start + Duration::from_secs(60)),
            Duration::from_millis(500)
        );
        assert_eq!(
            throttle.count(250, start + Duration::from_secs(60)),
            Duration::from_millis(750)
        );
        assert_eq!(
            throttle.count(1000, start + Duration::from_secs(62)),
            Duration::from_secs(1)
        );
    }

    #[test]
    fn without_a_limit_nothing_waits() {
        for unlimited in [None, Some(f64::INFINITY)] {
            let throttle = Throttle::new(unlimited);
            assert_eq!(throttle.count(u64::MAX, Instant::now()), Duration::ZERO);
        }
    }

    #[test]
    fn whoever_waits_is_told_to_stop() {
        let stop = Arc::new(AtomicBool::new(true));
        let pace = Pace::new(Arc::new(Throttle::new(Some(f64::MIN_POSITIVE))), stop);
        assert!(matches!(pace.moved(u64::MAX), Err(Error::Closed)));
    }
}
