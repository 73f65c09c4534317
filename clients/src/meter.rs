//! What the clients count while a run goes on.
//!
//! Each client has a [`Lane`] of its own, so that no two of them wait for each other. Whoever collects takes
//! what a lane has since the last time, so that each record is in one interval and in one
//! histogram. Latencies are in microseconds, up to an hour, with three significant digits.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use hdrhistogram::Histogram;

use crate::report::Latency;

const LONGEST_US: u64 = 3_600_000_000;

/// A histogram of latencies.
pub fn latencies() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LONGEST_US, 3).expect("constants that hdrhistogram takes")
}

/// What one client has counted since it was last asked.
#[derive(Debug, Default)]
pub struct Lane(Mutex<Counts>);

/// A number of records, and how long they took.
#[derive(Clone, Debug)]
pub struct Counts {
    /// Acknowledged, or consumed.
    pub records: u64,
    /// Of keys and values.
    pub bytes: u64,
    /// Whether any record has ended, counted or of the warm-up.
    pub moved: bool,
    /// Records that were not, by librdkafka's name of the error.
    pub errors: BTreeMap<String, u64>,
    /// To their end.
    pub latency: Histogram<u64>,
    /// How much later than due they were handed to librdkafka.
    pub handed_over_late: Histogram<u64>,
    /// Commits of transactions, where there were any.
    pub commits: Option<Commits>,
    /// When the first record began, in microseconds since the run did.
    pub began_us: Option<u64>,
    /// When the last record ended, or its transaction was committed.
    pub ended_us: u64,
}

/// How long commits of transactions took.
#[derive(Clone, Debug)]
pub struct Commits {
    /// From the call to its return.
    pub latency: Histogram<u64>,
    /// The part of it after the last acknowledgement.
    pub after_acknowledgements: Histogram<u64>,
}

impl Default for Commits {
    fn default() -> Self {
        Self {
            latency: latencies(),
            after_acknowledgements: latencies(),
        }
    }
}

impl Default for Counts {
    fn default() -> Self {
        Self {
            records: 0,
            bytes: 0,
            moved: false,
            errors: BTreeMap::new(),
            latency: latencies(),
            handed_over_late: latencies(),
            commits: None,
            began_us: None,
            ended_us: 0,
        }
    }
}

impl Lane {
    /// To count; not for long, as the collector waits meanwhile.
    pub fn lock(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first record begins at `us`.
    pub fn begin(&self, us: u64) {
        self.lock().began_us.get_or_insert(us);
    }

    /// What was counted since the last time.
    pub fn take(&self) -> Counts {
        let next = Counts::default();
        std::mem::replace(&mut self.lock(), next)
    }
}

impl Counts {
    /// A record of that many bytes ended at `now_us`, `latency_us` after it was due.
    pub fn record(&mut self, bytes: usize, now_us: u64, latency_us: u64) {
        self.count(1, bytes as u64, now_us);
        self.latency.saturating_record(latency_us);
    }

    /// So many records have ended by `now_us`; their latencies are not known.
    pub fn count(&mut self, records: u64, bytes: u64, now_us: u64) {
        self.moved = true;
        self.records += records;
        self.bytes += bytes;
        self.ended_us = self.ended_us.max(now_us);
    }

    /// A transaction was committed at `now_us`, so long after the call and the last acknowledgement.
    pub fn commit(&mut self, now_us: u64, latency_us: u64, after_acknowledgements_us: u64) {
        self.moved = true;
        self.ended_us = self.ended_us.max(now_us);
        let commits = self.commits.get_or_insert_default();
        commits.latency.saturating_record(latency_us);
        commits
            .after_acknowledgements
            .saturating_record(after_acknowledgements_us);
    }

    /// A record failed.
    pub fn fail(&mut self, reason: String) {
        *self.errors.entry(reason).or_default() += 1;
    }

    /// Adds another's.
    pub fn add(&mut self, other: &Self) {
        self.moved |= other.moved;
        self.records += other.records;
        self.bytes += other.bytes;
        for (reason, count) in &other.errors {
            *self.errors.entry(reason.clone()).or_default() += count;
        }
        add(&mut self.latency, &other.latency);
        add(&mut self.handed_over_late, &other.handed_over_late);
        if let Some(theirs) = &other.commits {
            let mine = self.commits.get_or_insert_default();
            add(&mut mine.latency, &theirs.latency);
            add(
                &mut mine.after_acknowledgements,
                &theirs.after_acknowledgements,
            );
        }
        self.began_us = match (self.began_us, other.began_us) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        self.ended_us = self.ended_us.max(other.ended_us);
    }
}

fn add(mine: &mut Histogram<u64>, theirs: &Histogram<u64>) {
    if !theirs.is_empty() {
        mine.add(theirs).expect("both have the same bounds");
    }
}

/// The percentiles of a histogram; none where nothing was recorded.
pub fn percentiles(histogram: &Histogram<u64>) -> Option<Latency> {
    (!histogram.is_empty()).then(|| Latency {
        count: histogram.len(),
        min_us: histogram.min(),
        mean_us: histogram.mean(),
        p50_us: histogram.value_at_quantile(0.5),
        p90_us: histogram.value_at_quantile(0.9),
        p99_us: histogram.value_at_quantile(0.99),
        p999_us: histogram.value_at_quantile(0.999),
        max_us: histogram.max(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_record_is_taken_once() {
        let lane = Lane::default();
        lane.begin(5);
        lane.lock().record(10, 100, 90);
        let mut total = lane.take();
        lane.lock().record(20, 300, 2_000_000_000_000);
        lane.lock().fail("_MSG_TIMED_OUT".to_owned());
        total.add(&lane.take());
        total.add(&lane.take());
        assert_eq!((total.records, total.bytes), (2, 30));
        assert_eq!((total.began_us, total.ended_us), (Some(5), 300));
        assert_eq!(total.errors["_MSG_TIMED_OUT"], 1);
        let latency = percentiles(&total.latency).unwrap();
        assert_eq!((latency.count, latency.min_us), (2, 90));
        assert!(
            latency.max_us >= LONGEST_US,
            "too long counts as the longest"
        );
    }

    #[test]
    fn a_run_ends_with_its_last_commit() {
        let lane = Lane::default();
        lane.lock().record(10, 100, 90);
        lane.lock().commit(150, 60, 50);
        let mut total = lane.take();
        assert!(lane.take().commits.is_none(), "none since");
        lane.lock().commit(400, 200, 10);
        total.add(&lane.take());
        assert_eq!((total.records, total.ended_us), (1, 400));
        let commits = total.commits.unwrap();
        let latency = percentiles(&commits.latency).unwrap();
        assert_eq!(
            (latency.count, latency.min_us, latency.max_us),
            (2, 60, 200)
        );
        let after = percentiles(&commits.after_acknowledgements).unwrap();
        assert_eq!((after.min_us, after.max_us), (10, 50));
    }
}
