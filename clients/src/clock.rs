//! The run's time: microseconds since it began, from one monotonic clock for all threads.

use std::time::{Duration, Instant};

/// Begins with the run.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    began: Instant,
}

impl Clock {
    /// The run begins now.
    pub fn start() -> Self {
        Self {
            began: Instant::now(),
        }
    }

    /// Microseconds since the run began.
    pub fn now_us(&self) -> u64 {
        self.began.elapsed().as_micros() as u64
    }

    /// Sleeps until that time; returns at once where it is past. Late by less than 0.1 ms where a
    /// processor is free and [`wake_precisely`] was called on this thread.
    pub fn sleep_until_us(&self, at_us: u64) {
        let until = Duration::from_micros(at_us);
        if let Some(left) = until.checked_sub(self.began.elapsed()) {
            std::thread::sleep(left);
        }
    }
}

/// Asks the kernel not to group this thread's wake-ups with others (by default it may be late by
/// 50 µs).
pub fn wake_precisely() {
    const SLACK_NS: libc::c_ulong = 1;
    // SAFETY: PR_SET_TIMERSLACK takes a number and touches no memory. A refusal leaves the default.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, SLACK_NS) };
}

/// Seconds as microseconds; what is too large becomes the largest number.
pub fn seconds_to_us(seconds: f64) -> u64 {
    (seconds * 1e6).round() as u64
}

/// Microseconds as seconds.
pub fn us_to_seconds(us: u64) -> f64 {
    us as f64 / 1e6
}
