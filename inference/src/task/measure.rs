//! A model topic's metrics.
//!
//! | name | kind | labels |
//! |---|---|---|
//! | `milena_model_topic_records_total` | counter, records committed | topic |
//! | `milena_model_topic_errors_total` | counter, records that failed | topic, stage (`decode`, `infer`) |
//! | `milena_model_topic_missed_records_total` | counter, input records that were gone before they were read | topic |
//! | `milena_model_topic_decode_seconds` | histogram, by poll | topic |
//! | `milena_model_topic_queue_seconds` | histogram, by submission to the engine | topic |
//! | `milena_model_topic_infer_seconds` | histogram, by submission to the engine | topic |
//! | `milena_model_topic_commit_seconds` | histogram, by commit | topic |
//! | `milena_model_topic_lag_records` | gauge | topic, partition |
//! | `milena_model_topic_halted` | gauge, 0 or 1 | topic |
//!
//! The engine adds `milena_inference_batch_records` and loading `milena_model_load_seconds`, both by model.

use std::collections::BTreeMap;

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

pub(super) struct Measures {
    topic: String,
    pub(super) records: Counter,
    pub(super) decode_errors: Counter,
    pub(super) infer_errors: Counter,
    pub(super) missed_records: Counter,
    pub(super) decode: Histogram,
    pub(super) queue: Histogram,
    pub(super) infer: Histogram,
    pub(super) commit: Histogram,
    lag: BTreeMap<i32, Gauge>,
}

impl Measures {
    pub(super) fn new(topic: &str) -> Self {
        let errors = |stage: &'static str| counter!("milena_model_topic_errors_total", "topic" => topic.to_owned(), "stage" => stage);
        halted(topic, false);
        Self {
            records: counter!("milena_model_topic_records_total", "topic" => topic.to_owned()),
            decode_errors: errors("decode"),
            infer_errors: errors("infer"),
            missed_records: counter!("milena_model_topic_missed_records_total", "topic" => topic.to_owned()),
            decode: histogram!("milena_model_topic_decode_seconds", "topic" => topic.to_owned()),
            queue: histogram!("milena_model_topic_queue_seconds", "topic" => topic.to_owned()),
            infer: histogram!("milena_model_topic_infer_seconds", "topic" => topic.to_owned()),
            commit: histogram!("milena_model_topic_commit_seconds", "topic" => topic.to_owned()),
            lag: BTreeMap::new(),
            topic: topic.to_owned(),
        }
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

pub(super) fn halted(topic: &str, halted: bool) {
    gauge!("milena_model_topic_halted", "topic" => topic.to_owned())
        .set(f64::from(u8::from(halted)));
}
