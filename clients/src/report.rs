//! What a run of `milena-load` has measured; its JSON form is what `--report` writes.
//!
//! Times are seconds (`seconds`) or microseconds (`*_us`), sizes are bytes of keys and values before
//! compression, MB are 10^6 bytes.

use serde::{Deserialize, Serialize};

/// A whole run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// `milena-load` and its version, and librdkafka's.
    pub tool: String,
    /// The arguments it was started with.
    pub command: Vec<String>,
    /// What was produced, where something was.
    pub produced: Option<Side>,
    /// What was consumed, where something was; over all groups and consumers.
    pub consumed: Option<Side>,
    /// From when a record was due to when a consumer had it.
    pub end_to_end: Option<Latency>,
    /// What became of the records that were to arrive, where that is followed.
    #[serde(default)]
    pub arrivals: Option<Arrivals>,
    /// Why the run failed, where it did.
    #[serde(default)]
    pub failure: Option<String>,
    /// One after another, of a second each but for the last.
    pub intervals: Vec<Interval>,
}

/// One direction of a run, from the first record's start to the last one's end; in transactions, to
/// the end of the last commit.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Side {
    /// Delivered, or consumed.
    pub records: u64,
    /// Of keys and values.
    pub bytes: u64,
    /// Records that were not delivered, by librdkafka's name of the error.
    pub errors: std::collections::BTreeMap<String, u64>,
    /// How long it took.
    pub seconds: f64,
    /// Records a second.
    pub records_per_second: f64,
    /// MB a second.
    pub mb_per_second: f64,
    /// Producing: from when a record was due (as fast as it goes: handed to librdkafka) to its
    /// acknowledgement. Consuming: none.
    pub latency: Option<Latency>,
    /// Producing at a fixed rate: how much later than due records were handed to librdkafka. Where
    /// this is not small, the generator or its full queue was behind; the latency includes it.
    #[serde(default)]
    pub handed_over_late: Option<Latency>,
    /// Producing in transactions: their commits.
    #[serde(default)]
    pub transactions: Option<Transactions>,
}

/// The transactions of a run that were committed, those of the warm-up left out.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Transactions {
    /// How many.
    pub committed: u64,
    /// How many a second.
    pub committed_per_second: f64,
    /// From the call of the commit to its return. The commit first waits for the acknowledgement of
    /// all records of the transaction.
    pub commit: Option<Latency>,
    /// The part of it after the last acknowledgement.
    pub commit_after_acknowledgements: Option<Latency>,
}

/// What became of the records of an end-to-end run, those of the warm-up included.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arrivals {
    /// Handed to librdkafka.
    pub sent: u64,
    /// Of these, how many have arrived at least once.
    pub arrived: u64,
    /// Of these, how many have not arrived.
    pub missing: u64,
    /// Arrivals of records that had arrived before.
    pub duplicated: u64,
    /// Arrivals of records that this run has not sent; in no other figure.
    pub foreign: u64,
}

/// A distribution of times, from an HDR histogram with three significant digits.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[expect(missing_docs, reason = "percentiles are named as they are")]
pub struct Latency {
    pub count: u64,
    pub min_us: u64,
    pub mean_us: f64,
    pub p50_us: u64,
    pub p90_us: u64,
    pub p99_us: u64,
    pub p999_us: u64,
    pub max_us: u64,
}

/// What happened in one second of a run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Interval {
    /// Its end, in seconds since the run began.
    pub end_seconds: f64,
    /// Records acknowledged in it.
    pub produced: u64,
    /// Records consumed in it.
    pub consumed: u64,
    /// Bytes acknowledged in it.
    #[serde(default)]
    pub produced_bytes: u64,
    /// Bytes consumed in it.
    #[serde(default)]
    pub consumed_bytes: u64,
    /// Of the records that ended in it: end to end where that is measured, else to the
    /// acknowledgement.
    pub latency: Option<Latency>,
}
