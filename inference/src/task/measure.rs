//! A model topic's metrics.
//!
//! | name | kind | labels |
//! |---|---|---|
//! | `milena_model_topic_records_total` | counter, records committed | topic |
//! | `milena_model_topic_errors_total` | counter, records that failed | topic, stage (`decode`, `features`, `infer`, `output`) |
//! | `milena_model_topic_late_records_total` | counter, records whose window had closed | topic |
//! | `milena_model_topic_missed_records_total` | counter, input records that were gone before they were read | topic |
//! | `milena_model_topic_decode_seconds` | histogram, by poll | topic |
//! | `milena_model_topic_features_seconds` | histogram, by poll | topic |
//! | `milena_model_topic_queue_seconds` | histogram, by submission to the engine | topic |
//! | `milena_model_topic_infer_seconds` | histogram, by submission to the engine | topic |
//! | `milena_model_topic_commit_seconds` | histogram, by commit | topic |
//! | `milena_model_topic_lag_records` | gauge | topic, partition |
//! | `milena_model_topic_lag_seconds` | gauge, age of the last record that was committed while others wait; 0 where none does | topic |
//! | `milena_model_topic_state_bytes` | gauge | topic, where (`memory`, `disk`) |
//! | `milena_model_topic_state_keys` | gauge, keys that are in memory | topic |
//! | `milena_model_topic_restore_seconds` | gauge, how long the state took to be restored last | topic |
//! | `milena_model_topic_halted` | gauge, 0 or 1 | topic |
//!
//! The engine adds `milena_inference_batch_records` and loading `milena_model_load_seconds`, both by model.

use std::collections::BTreeMap;

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

use super::prepare::Stage;
use crate::state::Store;

pub(super) struct Measures {
    topic: String,
    pub(super) records: Counter,
    decode_errors: Counter,
    features_errors: Counter,
    infer_errors: Counter,
    output_errors: Counter,
    pub(super) missed_records: Counter,
    pub(super) decode: Histogram,
    pub(super) queue: Histogram,
    pub(super) infer: Histogram,
    pub(super) commit: Histogram,
    pub(super) features: Features,
    pub(super) restore: Gauge,
    pub(super) lag_seconds: Gauge,
    lag: BTreeMap<i32, Gauge>,
}

impl Measures {
    pub(super) fn new(topic: &str) -> Self {
        let errors = |stage: &'static str| counter!("milena_model_topic_errors_total", "topic" => topic.to_owned(), "stage" => stage);
        halted(topic, false);
        Self {
            records: counter!("milena_model_topic_records_total", "topic" => topic.to_owned()),
            decode_errors: errors("decode"),
            features_errors: errors("features"),
            infer_errors: errors("infer"),
            output_errors: errors("output"),
            missed_records: counter!("milena_model_topic_missed_records_total", "topic" => topic.to_owned()),
            decode: histogram!("milena_model_topic_decode_seconds", "topic" => topic.to_owned()),
            queue: histogram!("milena_model_topic_queue_seconds", "topic" => topic.to_owned()),
            infer: histogram!("milena_model_topic_infer_seconds", "topic" => topic.to_owned()),
            commit: histogram!("milena_model_topic_commit_seconds", "topic" => topic.to_owned()),
            features: Features::new(topic),
            restore: gauge!("milena_model_topic_restore_seconds", "topic" => topic.to_owned()),
            lag_seconds: gauge!("milena_model_topic_lag_seconds", "topic" => topic.to_owned()),
            lag: BTreeMap::new(),
            topic: topic.to_owned(),
        }
    }

    /// Counts a record that failed.
    pub(super) fn error(&self, stage: Stage) {
        let errors = match stage {
            Stage::Decode => &self.decode_errors,
            Stage::Features | Stage::Late => &self.features_errors,
            Stage::Infer => &self.infer_errors,
            Stage::Output => &self.output_errors,
        };
        errors.increment(1);
    }

    pub(super) fn lag(&mut self, lag: &BTreeMap<i32, i64>) {
        for (&partition, &records) in lag {
            let gauge = self.lag.entry(partition).or_insert_with(|| {
                gauge!(
                    "milena_model_topic_lag_records",
                    "topic" => self.topic.clone(),
                    "partition" => partition.to_string()
                )
            });
            gauge.set(records as f64);
        }
    }
}

/// What is measured while features are made.
#[derive(Clone, Debug)]
pub(super) struct Features {
    pub(super) seconds: Histogram,
    pub(super) late: Counter,
    memory_bytes: Gauge,
    disk_bytes: Gauge,
    keys: Gauge,
}

impl Features {
    fn new(topic: &str) -> Self {
        let bytes = |place: &'static str| gauge!("milena_model_topic_state_bytes", "topic" => topic.to_owned(), "where" => place);
        Self {
            seconds: histogram!("milena_model_topic_features_seconds", "topic" => topic.to_owned()),
            late: counter!("milena_model_topic_late_records_total", "topic" => topic.to_owned()),
            memory_bytes: bytes("memory"),
            disk_bytes: bytes("disk"),
            keys: gauge!("milena_model_topic_state_keys", "topic" => topic.to_owned()),
        }
    }

    pub(super) fn state(&self, store: &Store) {
        self.memory_bytes.set(store.memory_bytes() as f64);
        self.disk_bytes.set(store.disk_bytes() as f64);
        self.keys.set(store.keys_in_memory() as f64);
    }
}

pub(super) fn halted(topic: &str, halted: bool) {
    gauge!("milena_model_topic_halted", "topic" => topic.to_owned())
        .set(f64::from(u8::from(halted)));
}
