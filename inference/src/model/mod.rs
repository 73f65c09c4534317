//! Models: one file per architecture, and the folder that one is loaded from.
//!
//! A [`Model`] is owned by one OS thread and runs with single-threaded kernels, so that as many models
//! run side by side as there are workers, and none of them waits for a thread pool.

mod autoencoder;
pub mod card;
mod dense;
mod device;
mod forward;
mod input;
mod linear;
mod load;
mod matmul;
mod mlp;
pub mod text;
mod weights;

use std::sync::Arc;

pub use autoencoder::Autoencoder;
pub use device::{Device, DeviceChoice};
pub use input::{Input, Takes};
pub use linear::Linear;
pub use load::{CARD_FILE, LoadError, LoadOptions, WEIGHTS_FILE, load, read_card};
pub use mlp::Mlp;

use card::Card;

/// Rows of numbers of the same width, one after another.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rows {
    width: usize,
    values: Vec<f32>,
}

impl Rows {
    /// No rows yet.
    pub fn new(width: usize) -> Self {
        Self {
            width,
            values: Vec::new(),
        }
    }

    /// Rows from their numbers; `None` where they do not fill whole rows.
    pub fn from_values(width: usize, values: Vec<f32>) -> Option<Self> {
        (width > 0 && values.len().is_multiple_of(width)).then_some(Self { width, values })
    }

    /// Numbers in a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// How many rows.
    pub fn len(&self) -> usize {
        self.values.len().checked_div(self.width).unwrap_or(0)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// All numbers, row after row.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// The numbers of the rows, to append whole rows to.
    pub fn values_mut(&mut self) -> &mut Vec<f32> {
        &mut self.values
    }

    /// A row; empty where there is none.
    pub fn row(&self, index: usize) -> &[f32] {
        let start = index.saturating_mul(self.width);
        self.values
            .get(start..start.saturating_add(self.width))
            .unwrap_or_default()
    }

    /// Some of the rows, copied.
    pub fn slice(&self, rows: std::ops::Range<usize>) -> Self {
        let range = rows.start.saturating_mul(self.width)..rows.end.saturating_mul(self.width);
        Self {
            width: self.width,
            values: self.values.get(range).unwrap_or_default().to_vec(),
        }
    }

    /// Leaves so many rows.
    pub fn truncate(&mut self, rows: usize) {
        self.values.truncate(rows.saturating_mul(self.width));
    }

    /// Appends the rows of another of the same width.
    pub fn append(&mut self, other: &Self) {
        debug_assert_eq!(self.width, other.width);
        self.values.extend_from_slice(&other.values);
    }
}

/// Why a batch was not inferred. Some record of it may be the cause, so it may succeed in parts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InferError(pub String);

/// A model, owned by one thread.
///
/// A batch is answered before the next one is given. A device whose results come later (CUDA) answers
/// through a method of its own that starts a batch; a worker may then have one batch in flight while it
/// prepares the next, and nothing above the engine changes.
pub trait Model: Send {
    /// In what form it is given records.
    fn takes(&self) -> Takes;

    /// Numbers that each record is answered with.
    fn output_width(&self) -> usize;

    /// Where it runs.
    fn device(&self) -> Device;

    /// What it takes in memory.
    fn footprint(&self) -> Footprint;

    /// The logits of a batch: one row for each record, in order.
    fn infer(&mut self, batch: &Input) -> Result<Rows, InferError>;

    /// Another one of the same weights, for another thread.
    fn replica(&self) -> Box<dyn Model>;
}

/// What a model takes in memory, in bytes, about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Footprint {
    /// Its weights, which replicas share.
    pub weights: u64,
    /// A replica, whatever the batch.
    pub replica: u64,
    /// Each record of a batch.
    pub record: u64,
    /// Each token of a batch.
    pub token: u64,
    /// Each pair of tokens of a batch's longest text.
    pub pair: u64,
}

/// How large batches of a model get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LargestBatch {
    /// Records.
    pub records: usize,
    /// Tokens of all texts.
    pub tokens: usize,
    /// Tokens of one text.
    pub longest: usize,
}

impl Footprint {
    /// With so many replicas that each run a batch.
    pub fn bytes(&self, replicas: usize, largest: LargestBatch) -> u64 {
        let LargestBatch {
            records,
            tokens,
            longest,
        } = largest;
        let tokens = tokens.max(longest) as u64;
        let pairs = (longest as u64).saturating_mul(longest as u64);
        let batch = [
            self.replica,
            self.record.saturating_mul(records as u64),
            self.token.saturating_mul(tokens),
            self.pair.saturating_mul(pairs),
        ];
        let batch = batch.into_iter().fold(0, u64::saturating_add);
        self.weights
            .saturating_add(batch.saturating_mul(replicas as u64))
    }
}

/// Which model it is, for lineage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelInfo {
    /// Its name in the config.
    pub name: String,
    /// The version's id.
    pub version: String,
    /// SHA-256 of the weights file, in hexadecimal.
    pub sha256: String,
}

/// A model that is ready to run.
pub struct LoadedModel {
    /// Which it is.
    pub info: ModelInfo,
    /// Its card, with the labels that the config gives.
    pub card: Arc<Card>,
    /// The model.
    pub model: Box<dyn Model>,
}

impl std::fmt::Debug for LoadedModel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LoadedModel")
            .field("info", &self.info)
            .field("card", &self.card)
            .finish_non_exhaustive()
    }
}
