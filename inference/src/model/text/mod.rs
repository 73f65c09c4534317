//! Text encoders from Hugging Face folders: BERT, DistilBERT, XLM-RoBERTa and ModernBERT, for embeddings and
//! for classification.

mod architectures;
mod attention;
mod card;
pub mod config;
mod encoder;
mod folder;
mod head;
mod kernels;
mod packed;
mod tensors;
mod tokenizer;
mod tokenizer_file;

use std::path::Path;
use std::sync::Arc;

use sha2::{Digest, Sha256};

pub use card::TextCard;
pub use folder::MODULES_FILE;
pub use head::Pooling;
pub use packed::{Lengths, Tokens};
pub use tokenizer::{Overflow, TOKENIZER_FILE, TextLimits, TokenizeError, Tokenizer};

use super::card::ModelTask;
use super::load::{LoadError, LoadOptions, check_pin};
use super::{Device, Footprint, InferError, Input, Model, Rows, Takes};
use architectures::{Reader, most_bytes};
use config::{Architecture, EncoderConfig};
use encoder::Encoder;
use folder::Usage;
use head::{Classifier, Head};
use tensors::Tensors;

/// What a text model is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextTask {
    /// An embedding of each text.
    Embed {
        /// Of what.
        pooling: Pooling,
        /// Scaled to a length of 1.
        normalize: bool,
    },
    /// A score for each label.
    Classify,
}

/// An encoder and what is made of its rows. Copies share the weights.
#[derive(Clone, Debug)]
pub struct TextModel {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    encoder: Encoder,
    head: Head,
    config: EncoderConfig,
    device: Device,
    /// Of the weights in memory.
    bytes: u64,
    /// SHA-256 of the weights, in hexadecimal.
    sha256: String,
}

/// A folder's model and its card, as the config file wants them used.
pub(super) fn load(
    folder: &Path,
    json: &[u8],
    path: &Path,
    options: &LoadOptions,
) -> Result<(TextModel, TextCard), LoadError> {
    let config = EncoderConfig::parse(json).map_err(|source| LoadError::Card {
        path: path.to_owned(),
        source,
    })?;
    let outputs = config.labels.len();
    let usage = Usage::of(folder, json, outputs)?;
    let task = options.task.unwrap_or(usage.task);
    let pooling = options.pooling.unwrap_or(usage.pooling);
    let normalize = options.normalize.unwrap_or(usage.normalize);
    let text_task = match task {
        ModelTask::Embed => TextTask::Embed { pooling, normalize },
        ModelTask::Classify => TextTask::Classify,
        ModelTask::Regress if outputs == 1 => TextTask::Classify,
        ModelTask::Regress | ModelTask::Anomaly => {
            return Err(LoadError::Task {
                expected: task.to_string(),
                found: usage.task.to_string(),
            });
        }
    };
    let labels = match (task, &options.labels) {
        (ModelTask::Classify, given) => {
            let labels = given.as_ref().unwrap_or(&config.labels).clone();
            // Two by the sigmoid of one.
            if labels.len() != outputs.max(2) {
                return Err(LoadError::Labels {
                    given: labels.len(),
                    outputs: outputs.max(2),
                });
            }
            labels
        }
        (_, Some(given)) if !given.is_empty() => {
            return Err(LoadError::Labels {
                given: given.len(),
                outputs: 0,
            });
        }
        _ => Vec::new(),
    };
    let tokenizer = Arc::new(Tokenizer::read(folder, config.vocabulary)?);
    let positions = config.positions;
    let pin = options.sha256.as_deref();
    let device = options.device.open().map_err(|error| LoadError::Device {
        choice: options.device.name(),
        reason: error.to_string(),
    })?;
    let model = TextModel::of(folder, config, text_task, pin, &device)?;
    let embeds = task == ModelTask::Embed;
    let card = TextCard {
        task,
        labels,
        pooling: embeds.then_some(pooling),
        normalize: embeds.then_some(normalize),
        outputs: model.output_width(),
        positions,
        config_sha256: Sha256::digest(json)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect(),
        tokenizer_sha256: tokenizer.sha256().to_owned(),
        tokenizer,
    };
    Ok((model, card))
}

impl TextModel {
    /// Reads a folder's config and weights, without its tokenizer.
    pub fn read(
        folder: &Path,
        task: TextTask,
        device: &candle_core::Device,
    ) -> Result<Self, LoadError> {
        let (path, json) = super::load::read_config(folder)?;
        let config =
            EncoderConfig::parse(&json).map_err(|source| LoadError::Card { path, source })?;
        Self::of(folder, config, task, None, device)
    }

    fn of(
        folder: &Path,
        config: EncoderConfig,
        task: TextTask,
        pin: Option<&str>,
        device: &candle_core::Device,
    ) -> Result<Self, LoadError> {
        let (prefix, first) = config.names();
        let tensors = Tensors::read(folder, most_bytes(&config), device)?;
        check_pin(folder, pin, &tensors.sha256)?;
        let tensors = tensors.with_prefix_of(prefix, first);
        let encoder = Encoder::read(&tensors, &config)?;
        let head = match task {
            TextTask::Embed { pooling, normalize } => Head::Embed { pooling, normalize },
            TextTask::Classify => {
                let bare = tensors.without_prefix();
                let of_encoder = Reader {
                    tensors: &tensors,
                    config: &config,
                };
                let of_head = Reader {
                    tensors: &bare,
                    config: &config,
                };
                Head::Classify(Classifier::read(&of_encoder, &of_head)?)
            }
        };
        let rotations = config.rotations();
        Ok(Self {
            inner: Arc::new(Inner {
                encoder,
                head,
                config,
                device: if device.is_cpu() {
                    Device::Cpu
                } else {
                    Device::Cuda
                },
                // With cosines and sines of two angles.
                bytes: tensors.taken_bytes() + 2 * 2 * 4 * rotations as u64,
                sha256: tensors.sha256.clone(),
            }),
        })
    }

    /// What the folder's config says.
    pub fn config(&self) -> &EncoderConfig {
        &self.inner.config
    }

    /// SHA-256 of the weights, in hexadecimal.
    pub fn sha256(&self) -> &str {
        &self.inner.sha256
    }

    /// A row for each text, in order.
    pub fn forward(&self, tokens: &Tokens) -> Result<Rows, InferError> {
        let Inner {
            encoder,
            head,
            config,
            ..
        } = &*self.inner;
        let width = self.output_width();
        if tokens.is_empty() {
            return Ok(Rows::new(width));
        }
        let lengths = tokens.lengths();
        let positions = config.positions;
        if let Some(length) = lengths
            .as_slice()
            .iter()
            .find(|&&length| length > positions)
        {
            return Err(InferError(format!(
                "a text of {length} tokens, over the model's {positions}"
            )));
        }
        let vocabulary = config.vocabulary;
        if let Some(id) = tokens.ids().iter().find(|&&id| id as usize >= vocabulary) {
            return Err(InferError(format!(
                "token {id}, of a vocabulary of {vocabulary}"
            )));
        }
        let answers = encoder.forward(tokens).and_then(|rows| {
            head.forward(&rows, lengths)?
                .flatten_all()?
                .to_vec1::<f32>()
        });
        let mut values = answers.map_err(|error| InferError(error.to_string()))?;
        if let Head::Embed {
            normalize: true, ..
        } = head
        {
            head::normalize(&mut values, width);
        }
        Rows::from_values(width, values)
            .ok_or_else(|| InferError(format!("the model's answer is no rows of {width} numbers")))
    }
}

impl Model for TextModel {
    fn takes(&self) -> Takes {
        Takes::Tokens
    }

    fn output_width(&self) -> usize {
        self.inner.head.outputs(self.inner.config.width)
    }

    fn device(&self) -> Device {
        self.inner.device
    }

    fn footprint(&self) -> Footprint {
        let EncoderConfig { width, .. } = self.inner.config;
        let is_rotary = matches!(self.inner.config.architecture, Architecture::ModernBert(_));
        // Attention is where most is there at a time: what came in, queries, keys and values, and what goes out;
        // with rotations also what came in normed, and copies of what is rotated.
        let rows = if is_rotary { 9 } else { 5 };
        Footprint {
            weights: self.inner.bytes,
            replica: kernels::scratch_bytes(&self.inner.config),
            record: 2 * 4 * self.output_width() as u64,
            // Tokens' numbers, positions and lengths beside them; keys and values of a head, rearranged.
            token: 4 * (rows * width) as u64 + 32,
            pair: 4,
        }
    }

    fn infer(&mut self, batch: &Input) -> Result<Rows, InferError> {
        self.forward(batch.as_tokens()?)
    }

    fn replica(&self) -> Box<dyn Model> {
        Box::new(self.clone())
    }
}
