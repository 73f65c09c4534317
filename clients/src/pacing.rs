//! When each record is due in an open loop.
//!
//! Record `k` of a run is due at `k / rate` after the start, whatever was sent before: the schedule
//! never slips, so that a stall of the broker is seen by all the records that were due during it
//! (no coordinated omission). Several producers take turns: producer `p` of `n` sends the records
//! `p`, `p + n`, `p + 2n`, …

use crate::run::Shared;

/// The shortest time between two looks at the schedule, in microseconds. Above 10,000 records a second
/// several are sent at once; each is late by less than this, and its latency says so.
pub const SHORTEST_SLEEP_US: u64 = 100;

/// How long a sender sleeps at most before it looks whether the run was stopped.
const LOOK_US: u64 = 50_000;

/// One producer's part of the schedule.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    begins_us: u64,
    period_us: f64,
    first: u64,
    stride: u64,
}

impl Schedule {
    /// The part of producer `index` of `producers`, at `rate` records a second over all of them, from
    /// `begins_us` on.
    pub fn new(rate: f64, begins_us: u64, index: usize, producers: usize) -> Self {
        Self {
            begins_us,
            period_us: 1e6 / rate,
            first: index as u64,
            stride: producers as u64,
        }
    }

    /// When this producer's record `n`, counted from 0, is due, to the nearest microsecond.
    pub fn due_us(&self, n: u64) -> u64 {
        let after_us = (self.first + n * self.stride) as f64 * self.period_us;
        self.begins_us.saturating_add(after_us.round() as u64)
    }

    /// Sleeps until record `n` is due, not at all where it is past; false where the run was stopped before.
    pub fn wait(&self, n: u64, shared: &Shared) -> bool {
        let due_us = self.due_us(n);
        loop {
            let now_us = shared.clock.now_us();
            if shared.stopped() {
                return false;
            }
            if now_us >= due_us {
                return true;
            }
            let wake_us = self.wake_us(n, now_us).min(now_us + LOOK_US);
            shared.clock.sleep_until_us(wake_us);
        }
    }

    /// Until when to sleep at `now_us` where record `n` is the next and not due yet.
    pub fn wake_us(&self, n: u64, now_us: u64) -> u64 {
        let crowded = self.due_us(n + 1) - self.due_us(n) < SHORTEST_SLEEP_US;
        self.due_us(n).max(if crowded {
            now_us + SHORTEST_SLEEP_US
        } else {
            0
        })
    }
}

/// Sleeps until that time, not at all where it is past; false where the run was stopped before.
pub fn sleep_until_us(at_us: u64, shared: &Shared) -> bool {
    while !shared.stopped() {
        let now_us = shared.clock.now_us();
        if now_us >= at_us {
            return true;
        }
        shared.clock.sleep_until_us(at_us.min(now_us + LOOK_US));
    }
    false
}

/// How many of `total` fall to part `index` of `parts`: as even as it gets, the first ones take the
/// rest.
pub fn part(total: u64, index: usize, parts: usize) -> u64 {
    let (index, parts) = (index as u64, parts as u64);
    total / parts + u64::from(index < total % parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_due_at_equal_distances() {
        let schedule = Schedule::new(1000.0, 0, 0, 1);
        assert_eq!(
            [0, 1, 2, 1000].map(|n| schedule.due_us(n)),
            [0, 1000, 2000, 1_000_000]
        );
    }

    #[test]
    fn rounding_does_not_add_up() {
        let schedule = Schedule::new(3_000_000.0, 0, 0, 1);
        assert_eq!(schedule.due_us(3_000_000 * 3600), 3600 * 1_000_000);
        let odd = Schedule::new(7.0, 0, 0, 1);
        assert!(odd.due_us(7_000_000).abs_diff(1_000_000_000_000) <= 1);
    }

    #[test]
    fn producers_take_turns() {
        let whole = Schedule::new(10_000.0, 0, 0, 1);
        for producers in 1..5 {
            let parts: Vec<_> = (0..producers)
                .map(|index| Schedule::new(10_000.0, 0, index, producers))
                .collect();
            let mut due: Vec<u64> = (0..20 * producers as u64)
                .map(|k| parts[k as usize % producers].due_us(k / producers as u64))
                .collect();
            due.sort_unstable();
            let wanted: Vec<u64> = (0..20 * producers as u64)
                .map(|k| whole.due_us(k))
                .collect();
            assert_eq!(due, wanted);
        }
    }

    #[test]
    fn a_late_sender_does_not_move_the_schedule() {
        let schedule = Schedule::new(1000.0, 0, 0, 1);
        assert_eq!(schedule.wake_us(5, 4_200), 5_000, "on time");
        assert_eq!(schedule.due_us(5), 5_000, "and due then even at 300 ms");
        assert_eq!(schedule.wake_us(5, 300_000), 5_000, "past: no sleep");
    }

    #[test]
    fn fast_rates_do_not_wake_for_each_record() {
        let sleep = |rate: f64| {
            let schedule = Schedule::new(rate, 0, 0, 1);
            schedule.wake_us(1, schedule.due_us(0))
        };
        assert_eq!(sleep(1000.0), 1000);
        assert_eq!(sleep(10_000.0), 100);
        assert_eq!(sleep(1e6), SHORTEST_SLEEP_US);
    }

    #[test]
    fn parts_add_up() {
        for total in [0, 1, 7, 100] {
            for parts in 1..9 {
                let split: Vec<u64> = (0..parts).map(|index| part(total, index, parts)).collect();
                assert_eq!(split.iter().sum::<u64>(), total);
                assert!(split.iter().max().unwrap() - split.iter().min().unwrap() <= 1);
            }
        }
    }
}
