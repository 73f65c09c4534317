//! What a model has answered, by what it was asked.
//!
//! An engine has one version of a model with one set of weights, and a cache of its own: an answer is never
//! another model's. Keys are whole inputs, so that no two are taken for each other.

use std::collections::HashMap;
use std::sync::Arc;

use quick_cache::Weighter;
use quick_cache::sync::Cache as Entries;

use super::FailedRow;
use crate::model::{Input, Rows};

/// What an entry takes beside its numbers, about.
const OVERHEAD_BYTES: u64 = 128;
/// What an entry takes, for a first guess of how many there will be.
const USUAL_BYTES: u64 = 2048;

/// A bounded cache.
pub(super) struct Cache {
    entries: Entries<Box<[u32]>, Arc<[f32]>, Bytes>,
    hits: metrics::Counter,
    misses: metrics::Counter,
}

#[derive(Clone)]
struct Bytes;

impl Weighter<Box<[u32]>, Arc<[f32]>> for Bytes {
    fn weight(&self, key: &Box<[u32]>, value: &Arc<[f32]>) -> u64 {
        OVERHEAD_BYTES + 4 * (key.len() + value.len()) as u64
    }
}

/// Where the answers to a batch come from.
pub(super) struct Plan {
    rows: Vec<Source>,
    /// What is asked for, in order.
    asked: Vec<Box<[u32]>>,
}

enum Source {
    Cached(Arc<[f32]>),
    /// By its place in what is asked for.
    Asked(usize),
}

impl Cache {
    pub(super) fn new(model: &str, max_bytes: u64) -> Self {
        let guess = usize::try_from(max_bytes / USUAL_BYTES).unwrap_or(usize::MAX);
        let model = model.to_owned();
        Self {
            entries: Entries::with_weighter(guess, max_bytes, Bytes),
            hits: metrics::counter!("milena_model_cache_hits_total", "model" => model.clone()),
            misses: metrics::counter!("milena_model_cache_misses_total", "model" => model),
        }
    }

    /// What is to be asked for: once what is there several times, and nothing that is known.
    pub(super) fn plan(&self, rows: &Input) -> (Input, Plan) {
        let mut asked: Vec<Box<[u32]>> = Vec::new();
        let mut places: HashMap<Box<[u32]>, usize> = HashMap::new();
        let mut ask = rows.form().none();
        let mut sources = Vec::with_capacity(rows.len());
        rows.for_each_bits(|row, bits| {
            if let Some(answer) = self.entries.get(bits) {
                sources.push(Source::Cached(answer));
            } else if let Some(&place) = places.get(bits) {
                sources.push(Source::Asked(place));
            } else {
                sources.push(Source::Asked(asked.len()));
                places.insert(bits.into(), asked.len());
                asked.push(bits.into());
                ask.append(&rows.slice(row..row + 1));
            }
        });
        self.hits.increment((rows.len() - asked.len()) as u64);
        self.misses.increment(asked.len() as u64);
        let plan = Plan {
            rows: sources,
            asked,
        };
        (ask, plan)
    }

    /// Answers to all rows, and which failed, from what was asked for. What did not fail is kept.
    pub(super) fn complete(
        &self,
        plan: Plan,
        computed: &Rows,
        failed: Vec<FailedRow>,
    ) -> (Rows, Vec<FailedRow>) {
        let reasons: HashMap<usize, String> = failed
            .into_iter()
            .map(|failed| (failed.row, failed.reason))
            .collect();
        let mut logits = Rows::new(computed.width());
        let mut failed = Vec::new();
        for (row, source) in plan.rows.into_iter().enumerate() {
            match source {
                Source::Cached(answer) => logits.values_mut().extend_from_slice(&answer),
                Source::Asked(place) => {
                    logits.values_mut().extend_from_slice(computed.row(place));
                    if let Some(reason) = reasons.get(&place) {
                        let reason = reason.clone();
                        failed.push(FailedRow { row, reason });
                    }
                }
            }
        }
        for (place, key) in plan.asked.into_iter().enumerate() {
            if !reasons.contains_key(&place) {
                self.entries.insert(key, computed.row(place).into());
            }
        }
        (logits, failed)
    }
}
