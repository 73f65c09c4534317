//! `config.json` of a text encoder, as `save_pretrained` writes it. Keys that do not change what the model
//! computes are not read.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::kernels::Activation;
use crate::model::card::CardError;

/// Architectures that run.
pub const SUPPORTED: [&str; 4] = ["bert", "distilbert", "modernbert", "xlm-roberta"];

/// Widest rows.
const MAX_WIDTH: usize = 1 << 14;
/// Most layers.
const MAX_LAYERS: usize = 256;
/// Most tokens of a vocabulary.
const MAX_VOCABULARY: usize = 1 << 22;
/// Longest text.
const MAX_POSITIONS: usize = 1 << 17;
/// Numbers of a table of rotations: heads of 128 numbers at the most positions.
const MAX_ROTATIONS: usize = 1 << 23;

/// What all of them have, under one name each.
#[derive(Clone, Debug, PartialEq)]
pub struct EncoderConfig {
    /// Which one.
    pub architecture: Architecture,
    /// Numbers of a token.
    pub width: usize,
    /// Layers.
    pub layers: usize,
    /// Heads of each.
    pub heads: usize,
    /// Numbers in the middle of a feed-forward layer.
    pub middle: usize,
    /// Between its products.
    pub activation: Activation,
    /// Tokens that there are.
    pub vocabulary: usize,
    /// Tokens of the longest text.
    pub positions: usize,
    /// What norms add to a variance.
    pub epsilon: f64,
    /// Of a classifier, in order of their numbers; a single one is a value's.
    pub labels: Vec<String>,
}

/// What only one of them has.
#[derive(Clone, Debug, PartialEq)]
pub enum Architecture {
    /// BERT.
    Bert {
        /// Kinds of segments.
        segments: usize,
    },
    /// DistilBERT.
    DistilBert,
    /// XLM-RoBERTa, whose positions are counted from behind the padding token's number.
    XlmRoberta {
        /// The padding token.
        padding: usize,
        /// Kinds of segments.
        segments: usize,
    },
    /// ModernBERT.
    ModernBert(ModernBert),
}

/// ModernBERT's own settings.
#[derive(Clone, Debug, PartialEq)]
pub struct ModernBert {
    /// Every so many layers, from the first on, look everywhere.
    pub global_every: usize,
    /// How far the others look to each side.
    pub window: usize,
    /// The base of rotations in the first kind of layers ...
    pub global_theta: f64,
    /// ... and in the others.
    pub local_theta: f64,
    /// What a classifier reads: the mean of all tokens, or the first one.
    pub classifies_mean: bool,
    /// What stands in the classifier's head.
    pub classifier_activation: Activation,
    /// Which products and norms have biases.
    pub attention_bias: bool,
    /// As above.
    pub middle_bias: bool,
    /// As above.
    pub norm_bias: bool,
    /// As above, of the classifier's head.
    pub classifier_bias: bool,
}

#[derive(Deserialize)]
struct Json {
    model_type: String,
    hidden_size: Option<usize>,
    dim: Option<usize>,
    num_hidden_layers: Option<usize>,
    n_layers: Option<usize>,
    num_attention_heads: Option<usize>,
    n_heads: Option<usize>,
    intermediate_size: Option<usize>,
    hidden_dim: Option<usize>,
    hidden_act: Option<String>,
    activation: Option<String>,
    hidden_activation: Option<String>,
    vocab_size: usize,
    max_position_embeddings: usize,
    type_vocab_size: Option<usize>,
    layer_norm_eps: Option<f64>,
    norm_eps: Option<f64>,
    pad_token_id: Option<usize>,
    position_embedding_type: Option<String>,
    id2label: Option<BTreeMap<String, String>>,
    problem_type: Option<String>,
    global_attn_every_n_layers: Option<usize>,
    local_attention: Option<usize>,
    global_rope_theta: Option<f64>,
    local_rope_theta: Option<f64>,
    rope_parameters: Option<BTreeMap<String, Rope>>,
    classifier_pooling: Option<String>,
    classifier_activation: Option<String>,
    #[serde(default)]
    attention_bias: bool,
    #[serde(default)]
    mlp_bias: bool,
    #[serde(default)]
    norm_bias: bool,
    #[serde(default)]
    classifier_bias: bool,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Rope {
    Of { rope_theta: Option<f64> },
    Other(serde::de::IgnoredAny),
}

impl EncoderConfig {
    /// Numbers of a table of rotations; 0 where nothing is rotated.
    pub(super) fn rotations(&self) -> usize {
        match self.architecture {
            Architecture::ModernBert(_) => self.positions * (self.width / self.heads / 2),
            _ => 0,
        }
    }

    /// Reads and checks it.
    pub fn parse(json: &[u8]) -> Result<Self, CardError> {
        let mut reader = serde_json::Deserializer::from_slice(json);
        let json: Json = serde_path_to_error::deserialize(&mut reader)
            .map_err(|error| CardError::new(error.path().to_string(), error.inner().to_string()))?;
        json.check()
    }
}

impl EncoderConfig {
    /// What some checkpoints have before the names of the encoder's tensors, and the name of one of them.
    pub(super) fn names(&self) -> (&'static str, &'static str) {
        let word_embeddings = "embeddings.word_embeddings.weight";
        match &self.architecture {
            Architecture::Bert { .. } => ("bert.", word_embeddings),
            Architecture::DistilBert => ("distilbert.", word_embeddings),
            Architecture::XlmRoberta { .. } => ("roberta.", word_embeddings),
            Architecture::ModernBert(_) => ("model.", "embeddings.tok_embeddings.weight"),
        }
    }
}

fn between(key: &str, found: usize, most: usize) -> Result<usize, CardError> {
    match found {
        0 => Err(CardError::new(key, "0 is too few")),
        found if found > most => Err(CardError::new(key, format!("{found} is over {most}"))),
        found => Ok(found),
    }
}

fn activation(key: &str, name: Option<&str>) -> Result<Activation, CardError> {
    let name = name.unwrap_or("gelu");
    Activation::of(name).ok_or_else(|| CardError::new(key, format!("{name:?} is not supported")))
}

fn epsilon(key: &str, found: f64) -> Result<f64, CardError> {
    match found.is_finite() && found > 0.0 {
        true => Ok(found),
        false => Err(CardError::new(
            key,
            format!("{found} is not a number above 0"),
        )),
    }
}

impl Json {
    fn check(self) -> Result<EncoderConfig, CardError> {
        let needed = |key: &str, most: usize, found: Option<usize>| match found {
            Some(found) => between(key, found, most),
            None => Err(CardError::new(key, "is missing")),
        };
        let labels = labels(self.id2label.as_ref())?;
        let vocabulary = between("vocab_size", self.vocab_size, MAX_VOCABULARY)?;
        let positions = between(
            "max_position_embeddings",
            self.max_position_embeddings,
            MAX_POSITIONS,
        )?;
        let is_distilled = self.model_type == "distilbert";
        let config = if is_distilled {
            EncoderConfig {
                architecture: Architecture::DistilBert,
                width: needed("dim", MAX_WIDTH, self.dim)?,
                layers: needed("n_layers", MAX_LAYERS, self.n_layers)?,
                heads: needed("n_heads", MAX_WIDTH, self.n_heads)?,
                middle: needed("hidden_dim", MAX_WIDTH * 8, self.hidden_dim)?,
                activation: activation("activation", self.activation.as_deref())?,
                vocabulary,
                positions,
                epsilon: 1e-12,
                labels,
            }
        } else {
            let (architecture, positions, epsilon, activation) = match self.model_type.as_str() {
                "bert" => (
                    Architecture::Bert {
                        segments: between(
                            "type_vocab_size",
                            self.type_vocab_size.unwrap_or(2),
                            1 << 10,
                        )?,
                    },
                    positions,
                    epsilon("layer_norm_eps", self.layer_norm_eps.unwrap_or(1e-12))?,
                    activation("hidden_act", self.hidden_act.as_deref())?,
                ),
                "xlm-roberta" => {
                    let padding = self.pad_token_id.unwrap_or(1);
                    let Some(left) = positions
                        .checked_sub(padding)
                        .and_then(|left| left.checked_sub(1))
                        .filter(|left| *left > 0)
                    else {
                        let reason =
                            format!("{positions} leave none behind the padding token, {padding}");
                        return Err(CardError::new("max_position_embeddings", reason));
                    };
                    let segments = between(
                        "type_vocab_size",
                        self.type_vocab_size.unwrap_or(1),
                        1 << 10,
                    )?;
                    (
                        Architecture::XlmRoberta { padding, segments },
                        left,
                        epsilon("layer_norm_eps", self.layer_norm_eps.unwrap_or(1e-5))?,
                        activation("hidden_act", self.hidden_act.as_deref())?,
                    )
                }
                "modernbert" => (
                    Architecture::ModernBert(self.modern()?),
                    positions,
                    epsilon("norm_eps", self.norm_eps.unwrap_or(1e-5))?,
                    activation("hidden_activation", self.hidden_activation.as_deref())?,
                ),
                other => {
                    let reason = format!(
                        "{other:?} is not supported; supported: {}",
                        SUPPORTED.join(", ")
                    );
                    return Err(CardError::new("model_type", reason));
                }
            };
            EncoderConfig {
                architecture,
                width: needed("hidden_size", MAX_WIDTH, self.hidden_size)?,
                layers: needed("num_hidden_layers", MAX_LAYERS, self.num_hidden_layers)?,
                heads: needed("num_attention_heads", MAX_WIDTH, self.num_attention_heads)?,
                middle: needed("intermediate_size", MAX_WIDTH * 8, self.intermediate_size)?,
                activation,
                vocabulary,
                positions,
                epsilon,
                labels,
            }
        };
        let (width, heads) = (config.width, config.heads);
        if !width.is_multiple_of(heads) {
            let reason = format!("{heads} heads do not divide a width of {width}");
            return Err(CardError::new("num_attention_heads", reason));
        }
        if matches!(config.architecture, Architecture::ModernBert(_))
            && !(width / heads).is_multiple_of(2)
        {
            let reason = format!("heads of {} numbers can't be rotated", width / heads);
            return Err(CardError::new("num_attention_heads", reason));
        }
        if config.rotations() > MAX_ROTATIONS {
            let reason = format!(
                "{} positions of heads of {} numbers are over {MAX_ROTATIONS} rotations",
                config.positions,
                width / heads
            );
            return Err(CardError::new("max_position_embeddings", reason));
        }
        if let Some(kind) = self
            .problem_type
            .filter(|kind| kind == "multi_label_classification")
        {
            let reason = format!(
                "{kind:?} is not supported; supported: single_label_classification, regression"
            );
            return Err(CardError::new("problem_type", reason));
        }
        if let Some(kind) = self
            .position_embedding_type
            .filter(|kind| kind != "absolute")
        {
            let reason = format!("{kind:?} is not supported; supported: absolute");
            return Err(CardError::new("position_embedding_type", reason));
        }
        Ok(config)
    }

    fn modern(&self) -> Result<ModernBert, CardError> {
        let theta = |kind: &str, old: Option<f64>, default: f64| {
            let new = self
                .rope_parameters
                .as_ref()
                .and_then(|kinds| match kinds.get(kind) {
                    Some(Rope::Of { rope_theta }) => *rope_theta,
                    _ => None,
                });
            epsilon("rope_theta", new.or(old).unwrap_or(default))
        };
        let classifies_mean = match self.classifier_pooling.as_deref() {
            None | Some("cls") => false,
            Some("mean") => true,
            Some(other) => {
                let reason = format!("{other:?} is not supported; supported: cls, mean");
                return Err(CardError::new("classifier_pooling", reason));
            }
        };
        Ok(ModernBert {
            global_every: between(
                "global_attn_every_n_layers",
                self.global_attn_every_n_layers.unwrap_or(3),
                MAX_LAYERS,
            )?,
            window: between(
                "local_attention",
                self.local_attention.unwrap_or(128),
                MAX_POSITIONS,
            )? / 2,
            global_theta: theta("full_attention", self.global_rope_theta, 160_000.0)?,
            local_theta: theta("sliding_attention", self.local_rope_theta, 10_000.0)?,
            classifies_mean,
            classifier_activation: activation(
                "classifier_activation",
                self.classifier_activation.as_deref(),
            )?,
            attention_bias: self.attention_bias,
            middle_bias: self.mlp_bias,
            norm_bias: self.norm_bias,
            classifier_bias: self.classifier_bias,
        })
    }
}

/// Labels in order of their numbers, which have to be 0 and up.
fn labels(id2label: Option<&BTreeMap<String, String>>) -> Result<Vec<String>, CardError> {
    let Some(id2label) = id2label else {
        // What is not written is as transformers has it.
        return Ok(vec!["LABEL_0".to_owned(), "LABEL_1".to_owned()]);
    };
    (0..id2label.len())
        .map(|id| match id2label.get(&id.to_string()) {
            Some(label) => Ok(label.clone()),
            None => {
                let reason = format!("{} labels, but none for {id}", id2label.len());
                Err(CardError::new("id2label", reason))
            }
        })
        .collect()
}
