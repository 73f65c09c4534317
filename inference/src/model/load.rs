//! From a folder to a model that is ready to run.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use super::card::{Card, CardError, ModelCard, ModelTask, ModelType};
use super::text::{self, Pooling};
use super::weights::Weights;
use super::{Autoencoder, DeviceChoice, Input, Linear, LoadedModel, Mlp, Model, ModelInfo, Rows};

/// The card's file name.
pub const CARD_FILE: &str = "config.json";
/// The weights' file name.
pub const WEIGHTS_FILE: &str = "model.safetensors";
/// Tokens of the text that a model is run with when it is loaded.
const WARM_UP_TOKENS: usize = 8;
/// Largest card.
const MAX_CARD_BYTES: u64 = 16 << 20;

/// Why a model can't be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The folder is not there.
    #[error("model folder {path} does not exist")]
    NoFolder {
        /// The folder.
        path: PathBuf,
    },
    /// The weights are in a format that can run code.
    #[error(
        "{path} is a pickle, which can run code when it is read: save the weights as {WEIGHTS_FILE}"
    )]
    Pickle {
        /// The file.
        path: PathBuf,
    },
    /// A file can't be read.
    #[error("{path} can't be read: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file is larger than it can be worth.
    #[error("{path} is {length} bytes long, over the {limit} that its card can need")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// In bytes.
        length: u64,
        /// In bytes.
        limit: u64,
    },
    /// The card is wrong.
    #[error("{path}: {source}")]
    Card {
        /// The card's file.
        path: PathBuf,
        /// What is wrong with it.
        source: CardError,
    },
    /// The config contradicts the card.
    #[error("the config says task = {expected:?}, the card says {found:?}")]
    Task {
        /// The config's.
        expected: String,
        /// The card's.
        found: String,
    },
    /// The weights are not the ones that the config pins.
    #[error("{path} has sha256 {found}, but {expected} is pinned")]
    Hash {
        /// The file.
        path: PathBuf,
        /// The pin.
        expected: String,
        /// The file's.
        found: String,
    },
    /// The weights are no safetensors file.
    #[error("{WEIGHTS_FILE} is malformed: {0}")]
    Malformed(String),
    /// A tensor is missing.
    #[error("tensor {name} of shape {expected:?} is missing")]
    Missing {
        /// The tensor.
        name: String,
        /// By the card.
        expected: Vec<usize>,
    },
    /// A tensor is not the card's.
    #[error("tensor {name} is not one of the {expected} that the card's layers have")]
    Extra {
        /// The tensor.
        name: String,
        /// How many there are by the card.
        expected: usize,
    },
    /// A tensor has the wrong shape.
    #[error("tensor {name} has shape {found:?}, expected {expected:?}")]
    Shape {
        /// The tensor.
        name: String,
        /// By the card.
        expected: Vec<usize>,
        /// In the file.
        found: Vec<usize>,
    },
    /// A tensor has a type that is not served.
    #[error("tensor {name} has dtype {found}, expected F32, F16 or BF16")]
    Dtype {
        /// The tensor.
        name: String,
        /// In the file.
        found: String,
    },
    /// A tensor has a weight that is NaN or infinite.
    #[error("tensor {name} has {value} at {index}, expected finite numbers")]
    NotFinite {
        /// The tensor.
        name: String,
        /// Which one, row after row.
        index: usize,
        /// NaN or infinite.
        value: f32,
    },
    /// The tokenizer can't be used.
    #[error("{path}: {reason}")]
    Tokenizer {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The config names more or fewer classes than there are.
    #[error("{given} labels for a model of {outputs} classes")]
    Labels {
        /// By the config.
        given: usize,
        /// By the folder.
        outputs: usize,
    },
    /// The config says something that is not about this kind of model.
    #[error("{key} is about models of texts, and this is one of rows")]
    NotText {
        /// The key.
        key: &'static str,
    },
    /// There is no such device.
    #[error("device {choice:?} can't be used: {reason}")]
    Device {
        /// As it is written.
        choice: &'static str,
        /// Why.
        reason: String,
    },
    /// It was loaded, but does not run.
    #[error("the model does not run: {0}")]
    Run(String),
}

/// What the config says about a model beyond its folder.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// Pins the weights file, in hexadecimal.
    pub sha256: Option<String>,
    /// Must be the card's.
    pub task: Option<ModelTask>,
    /// Take the place of the card's.
    pub labels: Option<Vec<String>>,
    /// Of a text model's embeddings, in place of what its folder says.
    pub pooling: Option<Pooling>,
    /// As above.
    pub normalize: Option<bool>,
    /// Where it is to run.
    pub device: DeviceChoice,
}

/// Loads a model from its folder and runs it once. Adds to the histogram `milena_model_load_seconds`.
pub fn load(
    name: &str,
    version: &str,
    folder: &Path,
    options: &LoadOptions,
) -> Result<LoadedModel, LoadError> {
    let started = Instant::now();
    let (path, json) = read_config(folder)?;
    let kind = model_type(&json).map_err(|source| LoadError::Card {
        path: path.clone(),
        source,
    })?;
    let (mut model, card, sha256): (Box<dyn Model>, Card, String) = if is_text(&kind) {
        let (model, card) = text::load(folder, &json, &path, options)?;
        let sha256 = model.sha256().to_owned();
        (Box::new(model), Card::Text(card), sha256)
    } else {
        let (model, card, sha256) = load_rows(folder, options)?;
        (model, Card::Tabular(card), sha256)
    };
    model
        .infer(&warm_up(&card))
        .map_err(|error| LoadError::Run(error.to_string()))?;
    let elapsed = started.elapsed();
    metrics::histogram!("milena_model_load_seconds", "model" => name.to_owned())
        .record(elapsed.as_secs_f64());
    tracing::info!(
        model = name,
        version,
        sha256,
        device = %model.device(),
        takes = %model.takes(),
        load_ms = elapsed.as_millis() as u64,
        "loaded a model"
    );
    Ok(LoadedModel {
        info: ModelInfo {
            name: name.to_owned(),
            version: version.to_owned(),
            sha256,
        },
        card: Arc::new(card),
        model,
    })
}

/// A batch of one record, of which nothing is expected.
fn warm_up(card: &Card) -> Input {
    match card {
        Card::Tabular(card) => {
            let zeros = Rows::from_values(card.width(), vec![0.0; card.width()]);
            zeros.unwrap_or_default().into()
        }
        Card::Text(card) => {
            let mut tokens = text::Tokens::default();
            tokens.push(&vec![0; WARM_UP_TOKENS.min(card.positions)]);
            tokens.into()
        }
    }
}

fn load_rows(
    folder: &Path,
    options: &LoadOptions,
) -> Result<(Box<dyn Model>, ModelCard, String), LoadError> {
    let card = read_card(folder, options)?;
    for (key, is_given) in [
        ("pooling", options.pooling.is_some()),
        ("normalize", options.normalize.is_some()),
        ("device", options.device == DeviceChoice::Cuda),
    ] {
        if is_given {
            return Err(LoadError::NotText { key });
        }
    }
    let path = weights_path(folder)?;
    let layers = card.layers();
    let weights = Weights::read(&path, &layers)?;
    check_pin(&path, options.sha256.as_deref(), &weights.sha256)?;
    let tensors = weights.layers(&layers)?;
    let unusable = |error: candle_core::Error| LoadError::Run(error.to_string());
    let model: Box<dyn Model> = match (card.model_type, card.activation, tensors.as_slice()) {
        (ModelType::Linear, _, [(weight, bias)]) => {
            Box::new(Linear::new(weight, bias).map_err(unusable)?)
        }
        (ModelType::Mlp, Some(activation), layers) => {
            let network = Mlp::new(layers, activation).map_err(unusable)?;
            match card.task {
                ModelTask::Anomaly => Box::new(Autoencoder::new(network)),
                _ => Box::new(network),
            }
        }
        _ => {
            return Err(LoadError::Run(
                "its layers do not fit its model_type".to_owned(),
            ));
        }
    };
    Ok((model, card, weights.sha256))
}

/// Before anything is made of the weights.
pub(super) fn check_pin(path: &Path, pin: Option<&str>, found: &str) -> Result<(), LoadError> {
    match pin {
        Some(expected) if !expected.eq_ignore_ascii_case(found) => Err(LoadError::Hash {
            path: path.to_owned(),
            expected: expected.to_owned(),
            found: found.to_owned(),
        }),
        _ => Ok(()),
    }
}

/// A folder's `config.json`: where it is, and its bytes.
pub(super) fn read_config(folder: &Path) -> Result<(PathBuf, Vec<u8>), LoadError> {
    if !folder.is_dir() {
        return Err(LoadError::NoFolder {
            path: folder.to_owned(),
        });
    }
    let path = folder.join(CARD_FILE);
    let unreadable = |source| LoadError::Read {
        path: path.clone(),
        source,
    };
    let length = std::fs::metadata(&path).map_err(unreadable)?.len();
    if length > MAX_CARD_BYTES {
        return Err(LoadError::TooLarge {
            path,
            length,
            limit: MAX_CARD_BYTES,
        });
    }
    let json = std::fs::read(&path).map_err(unreadable)?;
    Ok((path, json))
}

/// What decides how the rest of a folder is read.
fn model_type(json: &[u8]) -> Result<String, CardError> {
    #[derive(serde::Deserialize)]
    struct Kind {
        model_type: String,
    }
    let mut reader = serde_json::Deserializer::from_slice(json);
    let kind: Kind = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let path = error.path().to_string();
        CardError::new(path, error.into_inner().to_string())
    })?;
    let kind = kind.model_type;
    let of_rows = ["linear", "mlp"];
    if is_text(&kind) || of_rows.contains(&kind.as_str()) {
        return Ok(kind);
    }
    let supported: Vec<&str> = text::config::SUPPORTED.into_iter().chain(of_rows).collect();
    let reason = format!(
        "{kind:?} is not supported; supported: {}",
        supported.join(", ")
    );
    Err(CardError::new("model_type", reason))
}

fn is_text(kind: &str) -> bool {
    text::config::SUPPORTED.contains(&kind)
}

/// Reads the card of a model of rows, with what the config says about it.
pub fn read_card(folder: &Path, options: &LoadOptions) -> Result<ModelCard, LoadError> {
    let (path, json) = read_config(folder)?;
    let in_card = |source| LoadError::Card {
        path: path.clone(),
        source,
    };
    let mut card = ModelCard::parse(&json).map_err(in_card)?;
    if let Some(task) = options.task
        && task != card.task
    {
        return Err(LoadError::Task {
            expected: task.to_string(),
            found: card.task.to_string(),
        });
    }
    if let Some(labels) = &options.labels {
        card.labels = labels.clone();
        card.check().map_err(in_card)?;
    }
    Ok(card)
}

/// The weights file, or why there is none.
pub(super) fn weights_path(folder: &Path) -> Result<PathBuf, LoadError> {
    let path = folder.join(WEIGHTS_FILE);
    if path.is_file() {
        return Ok(path);
    }
    let entries = std::fs::read_dir(folder).map_err(|source| LoadError::Read {
        path: folder.to_owned(),
        source,
    })?;
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.sort();
    let pickle = files.into_iter().find(|file| {
        let extension = file.extension().and_then(|extension| extension.to_str());
        matches!(
            extension,
            Some("bin" | "pt" | "pth" | "pkl" | "pickle" | "ckpt" | "joblib")
        )
    });
    match pickle {
        Some(path) => Err(LoadError::Pickle { path }),
        None => Err(LoadError::Read {
            path,
            source: std::io::ErrorKind::NotFound.into(),
        }),
    }
}
