//! What was sent, what came back scored, and how long it took.
//!
//! A transaction is known by its partition and offset in the input topic: the acknowledgement of its
//! produce names them, and the scored record carries them in its lineage headers. The two may come in
//! either order. Per partition scored records keep the order of their inputs, so one that names an
//! offset at or below an earlier one is a double.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::time::{Duration, Instant};

use hdrhistogram::{CreationError, Histogram};

/// A score from here on is an alert.
pub const ALERT_SCORE: f64 = 0.9;

/// Longer latencies count as this one.
const MAX_LATENCY_US: u64 = 600_000_000;

/// A transaction on its way.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    /// Its number in the generator.
    pub index: u64,
    /// When produce was called.
    pub at: Instant,
}

/// A scored record, as the derived topic has it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scored {
    /// Partition of the input, and of the output.
    pub partition: i32,
    /// Offset of the input.
    pub source_offset: i64,
    /// Probability of fraud.
    pub score: f64,
}

/// A transaction whose score is at or above [`ALERT_SCORE`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Alert {
    /// Its number in the generator.
    pub index: u64,
    /// Probability of fraud.
    pub score: f64,
}

/// Median and 99th percentile.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Latency {
    /// Half are faster.
    pub p50: Duration,
    /// One in a hundred is slower.
    pub p99: Duration,
}

/// Counts of a run so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Acknowledged by the broker.
    pub acknowledged: u64,
    /// Scored, each transaction counted once.
    pub scored: u64,
    /// Scored records beyond the first of a transaction.
    pub doubles: u64,
    /// Scored, with an alert.
    pub alerts: u64,
    /// Scored records of transactions that somebody else produced, or that an earlier run left.
    pub others: u64,
}

#[derive(Debug)]
struct Partition {
    /// The end of the input when the run began; what is below is an earlier run's.
    first_offset: i64,
    highest_scored: i64,
    /// Acknowledged, not yet scored, by offset.
    outstanding: HashMap<i64, Sent>,
    /// Scored before their acknowledgement came, by offset.
    early: BTreeMap<i64, (Scored, Instant)>,
    /// Offsets acknowledged to this run, coalesced.
    ours: Vec<Range<i64>>,
}

/// See the module.
#[derive(Debug)]
pub struct Tracker {
    partitions: Vec<Partition>,
    counts: Counts,
    last_scored: Option<Instant>,
    total: Histogram<u64>,
    interval: Histogram<u64>,
}

impl Tracker {
    /// For a topic whose partitions end at these offsets.
    pub fn new(ends: &[i64]) -> Result<Tracker, CreationError> {
        Ok(Tracker {
            partitions: ends
                .iter()
                .map(|&end| Partition {
                    first_offset: end,
                    highest_scored: end - 1,
                    outstanding: HashMap::new(),
                    early: BTreeMap::new(),
                    ours: Vec::new(),
                })
                .collect(),
            counts: Counts::default(),
            last_scored: None,
            total: Histogram::new_with_bounds(1, MAX_LATENCY_US, 3)?,
            interval: Histogram::new_with_bounds(1, MAX_LATENCY_US, 3)?,
        })
    }

    /// The broker has stored a batch of this run at `base_offset`. Returns how many of its
    /// transactions turn out to be scored already, and their alerts.
    pub fn acknowledged(
        &mut self,
        partition: i32,
        base_offset: i64,
        batch: Vec<Sent>,
    ) -> (usize, Vec<Alert>) {
        let mut done = 0;
        let mut alerts = Vec::new();
        let Some(index) = self.partition_index(partition) else {
            return (done, alerts);
        };
        let state = &mut self.partitions[index];
        let end = base_offset + batch.len() as i64;
        match state.ours.last_mut() {
            Some(last) if last.end == base_offset => last.end = end,
            _ => state.ours.push(base_offset..end),
        }
        self.counts.acknowledged += batch.len() as u64;
        for (offset, sent) in (base_offset..).zip(batch) {
            match self.partitions[index].early.remove(&offset) {
                Some((scored, at)) => {
                    done += 1;
                    alerts.extend(self.complete(sent, scored.score, at));
                }
                None => {
                    self.partitions[index].outstanding.insert(offset, sent);
                }
            }
        }
        // Acknowledgements come in the order of offsets: what is still unknown below is not ours.
        let state = &mut self.partitions[index];
        let later = state.early.split_off(&end);
        self.counts.others += std::mem::replace(&mut state.early, later).len() as u64;
        (done, alerts)
    }

    /// A scored record has arrived. Returns whether it completes a transaction of this run, and its
    /// alert.
    pub fn scored(&mut self, scored: Scored, at: Instant) -> (bool, Option<Alert>) {
        let Some(index) = self.partition_index(scored.partition) else {
            return (false, None);
        };
        let state = &mut self.partitions[index];
        if scored.source_offset < state.first_offset {
            self.counts.others += 1;
            return (false, None);
        }
        if scored.source_offset <= state.highest_scored {
            self.counts.doubles += 1;
            return (false, None);
        }
        state.highest_scored = scored.source_offset;
        match state.outstanding.remove(&scored.source_offset) {
            Some(sent) => (true, self.complete(sent, scored.score, at)),
            None => {
                state.early.insert(scored.source_offset, (scored, at));
                (false, None)
            }
        }
    }

    fn complete(&mut self, sent: Sent, score: f64, at: Instant) -> Option<Alert> {
        let latency = at.saturating_duration_since(sent.at).as_micros();
        let latency = u64::try_from(latency).unwrap_or(MAX_LATENCY_US);
        self.total.saturating_record(latency);
        self.interval.saturating_record(latency);
        self.counts.scored += 1;
        self.last_scored = self.last_scored.max(Some(at));
        if score < ALERT_SCORE {
            return None;
        }
        self.counts.alerts += 1;
        Some(Alert {
            index: sent.index,
            score,
        })
    }

    fn partition_index(&self, partition: i32) -> Option<usize> {
        usize::try_from(partition)
            .ok()
            .filter(|&index| index < self.partitions.len())
    }

    /// So far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// When the last score came, `None` where none did.
    pub fn last_scored(&self) -> Option<Instant> {
        self.last_scored
    }

    /// Of the whole run; `None` where nothing was scored.
    pub fn latency(&self) -> Option<Latency> {
        quantiles(&self.total)
    }

    /// Since the last call; `None` where nothing was scored.
    pub fn take_interval(&mut self) -> Option<Latency> {
        let latency = quantiles(&self.interval);
        self.interval.reset();
        latency
    }

    /// The input offsets of each partition that were acknowledged to this run.
    pub fn offsets(&self) -> Vec<Vec<Range<i64>>> {
        self.partitions
            .iter()
            .map(|partition| partition.ours.clone())
            .collect()
    }
}

fn quantiles(histogram: &Histogram<u64>) -> Option<Latency> {
    let at = |quantile| Duration::from_micros(histogram.value_at_quantile(quantile));
    (!histogram.is_empty()).then(|| Latency {
        p50: at(0.5),
        p99: at(0.99),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(index: u64) -> Sent {
        Sent {
            index,
            at: Instant::now(),
        }
    }

    fn scored(source_offset: i64, score: f64) -> Scored {
        Scored {
            partition: 0,
            source_offset,
            score,
        }
    }

    #[test]
    fn matches_in_either_order() {
        let mut tracker = Tracker::new(&[10]).unwrap();
        let later = Instant::now() + Duration::from_millis(5);
        assert_eq!(tracker.scored(scored(10, 0.95), later), (false, None));
        let alert = |index, score| Alert { index, score };
        assert_eq!(
            tracker.acknowledged(0, 10, vec![sent(7), sent(8)]),
            (1, vec![alert(7, 0.95)])
        );
        assert_eq!(
            tracker.scored(scored(11, 0.9), later),
            (true, Some(alert(8, 0.9)))
        );
        let counts = tracker.counts();
        assert_eq!(
            (counts.acknowledged, counts.scored, counts.alerts),
            (2, 2, 2)
        );
        assert!(tracker.latency().unwrap().p99 >= Duration::from_millis(4));
        assert_eq!(tracker.offsets().concat().first(), Some(&(10..12)));
    }

    #[test]
    fn counts_doubles_and_leaves_out_what_others_sent() {
        let mut tracker = Tracker::new(&[10]).unwrap();
        let now = Instant::now();
        tracker.scored(scored(9, 0.1), now);
        tracker.acknowledged(0, 10, vec![sent(1)]);
        tracker.scored(scored(10, 0.1), now);
        tracker.scored(scored(10, 0.1), now);
        tracker.scored(scored(11, 0.1), now);
        tracker.acknowledged(0, 12, vec![sent(2)]);
        let counts = tracker.counts();
        assert_eq!(counts.doubles, 1);
        assert_eq!(counts.others, 2);
        assert_eq!((counts.acknowledged, counts.scored), (2, 1));
        assert_eq!(tracker.offsets(), [vec![10..11, 12..13]]);
    }
}
