//! What a folder says about how its model is used: `architectures` of its config, and the files that
//! sentence-transformers writes beside it.

use std::path::Path;

use serde::Deserialize;

use super::head::Pooling;
use super::tensors::read;
use crate::model::card::{CardError, ModelTask};
use crate::model::load::LoadError;

/// Lists the steps of a sentence-transformers model.
pub const MODULES_FILE: &str = "modules.json";
/// Largest of these files.
const MAX_BYTES: u64 = 1 << 20;

/// How the folder's model is meant to be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// What it was trained for.
    pub task: ModelTask,
    /// Of embeddings.
    pub pooling: Pooling,
    /// Of embeddings.
    pub normalize: bool,
}

#[derive(Deserialize)]
struct Architectures {
    #[serde(default)]
    architectures: Vec<String>,
}

#[derive(Deserialize)]
struct Module {
    #[serde(default)]
    path: String,
    r#type: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct PoolingConfig {
    pooling_mode_cls_token: bool,
    pooling_mode_mean_tokens: bool,
    pooling_mode_max_tokens: bool,
    pooling_mode_mean_sqrt_len_tokens: bool,
    pooling_mode_weightedmean_tokens: bool,
    pooling_mode_lasttoken: bool,
}

impl Usage {
    /// Of a folder with this config, of so many labels. A folder without sentence-transformers' files is meant to give
    /// normalized means.
    pub(super) fn of(folder: &Path, config: &[u8], labels: usize) -> Result<Self, LoadError> {
        let named: Option<Architectures> = serde_json::from_slice(config).ok();
        let classifies = named.is_some_and(|named| {
            let mut names = named.architectures.iter();
            names.any(|name| name.ends_with("ForSequenceClassification"))
        });
        let mut usage = Self {
            task: match (classifies, labels) {
                (true, 1) => ModelTask::Regress,
                (true, _) => ModelTask::Classify,
                (false, _) => ModelTask::Embed,
            },
            pooling: Pooling::Mean,
            normalize: true,
        };
        let path = folder.join(MODULES_FILE);
        if !path.is_file() {
            return Ok(usage);
        }
        let modules: Vec<Module> = parse(&path)?;
        usage.normalize = false;
        for module in modules {
            // The type is a name in Python: its last part is enough.
            match module.r#type.rsplit('.').next().unwrap_or_default() {
                "Transformer" => {}
                "Normalize" => usage.normalize = true,
                "Pooling" => usage.pooling = pooling(&folder.join(plain(&path, &module.path)?))?,
                other => {
                    let reason = format!(
                        "a step {other:?} is not supported; supported: Transformer, Pooling, Normalize"
                    );
                    return Err(in_file(&path, "type", reason));
                }
            }
        }
        Ok(usage)
    }
}

/// A module's folder is beside the config.
fn plain<'a>(modules: &Path, name: &'a str) -> Result<&'a str, LoadError> {
    match name.contains(['/', '\\']) || name.starts_with('.') {
        true => Err(in_file(
            modules,
            "path",
            format!("{name:?} is not a folder beside it"),
        )),
        false => Ok(name),
    }
}

fn pooling(folder: &Path) -> Result<Pooling, LoadError> {
    let path = folder.join("config.json");
    let config: PoolingConfig = parse(&path)?;
    let others = config.pooling_mode_max_tokens
        || config.pooling_mode_mean_sqrt_len_tokens
        || config.pooling_mode_weightedmean_tokens
        || config.pooling_mode_lasttoken;
    match (
        config.pooling_mode_cls_token,
        config.pooling_mode_mean_tokens,
        others,
    ) {
        (true, false, false) => Ok(Pooling::Cls),
        (false, true, false) => Ok(Pooling::Mean),
        _ => Err(in_file(
            &path,
            ".",
            "the pooling is not supported; supported: cls, mean".to_owned(),
        )),
    }
}

fn parse<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<T, LoadError> {
    let json = read(path, MAX_BYTES, MAX_BYTES)?;
    serde_json::from_slice(&json).map_err(|error| in_file(path, ".", error.to_string()))
}

fn in_file(path: &Path, key: &str, reason: String) -> LoadError {
    LoadError::Card {
        path: path.to_owned(),
        source: CardError::new(key, reason),
    }
}
