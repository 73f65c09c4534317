//! The card of a tabular model: `config.json` in the model's folder.
//!
//! A model's folder holds `config.json` and `model.safetensors`. The card says what the model is, and
//! how a record becomes its row of numbers:
//!
//! ```json
//! {
//!   "model_type": "mlp",
//!   "task": "classify",
//!   "labels": ["ok", "fraud"],
//!   "inputs": [
//!     { "name": "amount", "path": "$.amount", "default": 0.0, "transform": "log1p", "mean": 3.1, "std": 1.2 },
//!     { "path": "$.card.country", "one_of": ["CZ", "DE"] },
//!     { "path": "$.items[0].price" }
//!   ],
//!   "hidden": [32, 16],
//!   "activation": "relu",
//!   "output": 1
//! }
//! ```
//!
//! | key | meaning |
//! |---|---|
//! | `model_type` | `linear` (one layer) or `mlp` (`hidden` layers, then one of `output`) |
//! | `task` | `classify`, `regress` or `anomaly` (`mlp` only) |
//! | `labels` | classify: one for each output, by softmax; or two with `output` 1, by sigmoid, the second being the positive one |
//! | `inputs` | the numbers of the model's row, in order |
//! | `hidden`, `activation` | `mlp` only: widths of the hidden layers; `relu`, `tanh`, `gelu` (the exact one), `silu`, `sigmoid` |
//! | `output` | how many numbers the last layer gives; anomaly: as many as the row has |
//! | `threshold` | anomaly only, optional: the score from which a record is an anomaly, 0 or more |
//! | `metadata` | an object that is not read: who trained it, on what, how well |
//!
//! An input is a number (a boolean counts as 0 or 1): `(transform(value) - mean) / std`, with `transform`
//! `none` or `log1p`, `mean` 0 and `std` 1 by default. With `one_of` it is a text, and becomes one number
//! for each text listed: 1 for the one that it equals, 0 for the others, and all 0 for any other text. An
//! input that is absent or null takes its `default` (before the transform); one without a default is
//! required. Paths are `$.a.b` and `$.a[0]`: names without quotes, and positions.
//!
//! An input without a path has a name, and is given by the feature of that name of the model topic: one
//! number, or `width` of them, to each of which transform and scaling apply.
//!
//! An anomaly model is an autoencoder: its network reconstructs the row from what fits through its hidden layers.
//! A record's score is the mean of the squared differences between its row, as scaled, and the reconstruction.
//!
//! `model.safetensors` holds `layers.N.weight` of shape `[out, in]` and `layers.N.bias` of shape `[out]`
//! for N from 0, as PyTorch's `nn.Linear` has them, in F32, F16 or BF16; and nothing else. Writing such a
//! folder from PyTorch:
//!
//! ```python
//! import json, os
//! from safetensors.torch import save_file
//!
//! def save(folder, linears, card):           # linears: the model's nn.Linear modules, in order
//!     os.makedirs(folder, exist_ok=True)
//!     save_file({f"layers.{i}.{kind}": getattr(layer, kind).detach().contiguous()
//!                for i, layer in enumerate(linears) for kind in ("weight", "bias")},
//!               os.path.join(folder, "model.safetensors"))
//!     with open(os.path.join(folder, "config.json"), "w") as file:
//!         json.dump(card, file, indent=2)
//! ```

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use super::Takes;
use super::text::TextCard;
use crate::feature::JsonPath;

/// Widest layer, and most inputs of one.
pub const MAX_LAYER_WIDTH: usize = 1 << 15;
/// Most layers of a model.
pub const MAX_LAYERS: usize = 64;
/// Most weights of a model: a GiB of f32.
pub const MAX_PARAMETERS: usize = 1 << 28;

/// What kind of model it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModelType {
    /// One layer.
    Linear,
    /// Hidden layers with an activation, then one layer.
    Mlp,
}

/// What the model's numbers mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ModelTask {
    /// A score for each label.
    Classify,
    /// A value.
    Regress,
    /// An embedding of a text.
    Embed,
    /// How badly a row is reconstructed.
    Anomaly,
}

impl std::fmt::Display for ModelTask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Classify => "classify",
            Self::Regress => "regress",
            Self::Embed => "embed",
            Self::Anomaly => "anomaly",
        })
    }
}

/// What stands between two layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// max(x, 0)
    Relu,
    /// tanh(x)
    Tanh,
    /// x Φ(x), by the error function
    Gelu,
    /// x sigmoid(x)
    Silu,
    /// 1 / (1 + exp(-x))
    Sigmoid,
}

/// What is done to a number before scaling.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Transform {
    /// Nothing.
    #[default]
    None,
    /// ln(1 + x)
    Log1p,
}

/// What an absent input counts as.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum InputDefault {
    /// For a number.
    Number(f64),
    /// For a text.
    Text(String),
}

/// One input of the model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputSpec {
    /// What errors call it; the path by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Where it is in the record; without one, the model topic's feature of its name gives it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<JsonPath>,
    /// How many numbers the feature gives; 1 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub width: Option<usize>,
    /// What it counts as where it is absent or null; without one it is required.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<InputDefault>,
    /// Before the scaling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transform: Option<Transform>,
    /// Subtracted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mean: Option<f64>,
    /// Divided by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub std: Option<f64>,
    /// The texts that a one-hot input knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub one_of: Option<Vec<String>>,
}

impl InputSpec {
    /// A required number at a path, not scaled.
    pub fn number(path: JsonPath) -> Self {
        Self {
            name: None,
            path: Some(path),
            ..Self::feature("")
        }
    }

    /// What a model topic's feature of that name gives, not scaled.
    pub fn feature(name: &str) -> Self {
        Self {
            name: Some(name.to_owned()),
            path: None,
            width: None,
            default: None,
            transform: None,
            mean: None,
            std: None,
            one_of: None,
        }
    }

    /// What errors call it.
    pub fn label(&self) -> &str {
        let path = self.path.as_ref().map(JsonPath::as_str);
        self.name.as_deref().or(path).unwrap_or("?")
    }

    /// How many numbers of the row it gives.
    pub fn width(&self) -> usize {
        match &self.one_of {
            Some(texts) => texts.len(),
            None => self.width.unwrap_or(1),
        }
    }

    fn check(&self) -> Result<(), &'static str> {
        if self.path.is_some() {
            if self.width.is_some() {
                return Err("width goes without a path: it is a feature's");
            }
        } else {
            if self.name.as_deref().unwrap_or_default().is_empty() {
                return Err("an input without a path needs a name: its feature's");
            }
            if self.one_of.is_some() {
                return Err("one_of goes with a path: a feature gives numbers");
            }
        }
        match &self.one_of {
            Some(texts) => {
                if texts.is_empty() {
                    return Err("one_of is empty");
                }
                if twice(texts).is_some() {
                    return Err("one_of names a text twice");
                }
                if self.mean.is_some() || self.std.is_some() || self.transform.is_some() {
                    return Err("one_of goes without mean, std and transform");
                }
                if matches!(self.default, Some(InputDefault::Number(_))) {
                    return Err("the default of a one_of input is a text");
                }
            }
            None => {
                if self.mean.is_some_and(|mean| !mean.is_finite()) {
                    return Err("mean is not finite");
                }
                if self.std.is_some_and(|std| !(std.is_finite() && std > 0.0)) {
                    return Err("std is not a number above 0");
                }
                if matches!(self.default, Some(InputDefault::Text(_))) {
                    return Err("the default of a number is a number");
                }
            }
        }
        Ok(())
    }
}

/// `config.json` of a tabular model's folder. See the module's documentation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelCard {
    /// The architecture.
    pub model_type: ModelType,
    /// What its numbers mean.
    pub task: ModelTask,
    /// Names of the classes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
    /// The row, in order.
    pub inputs: Vec<InputSpec>,
    /// Widths of the hidden layers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hidden: Vec<usize>,
    /// Between the layers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activation: Option<Activation>,
    /// Width of the last layer.
    pub output: usize,
    /// The score from which a record is an anomaly. Compared as the score is, in f32.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threshold: Option<f64>,
    /// Not read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<serde_json::Map<String, serde_json::Value>>,
}

/// What is known of a model beside its weights.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub enum Card {
    /// Of a model of rows.
    Tabular(ModelCard),
    /// Of a model of texts.
    Text(TextCard),
}

impl Card {
    /// That of a model of rows.
    pub fn tabular(&self) -> Option<&ModelCard> {
        match self {
            Self::Tabular(card) => Some(card),
            Self::Text(_) => None,
        }
    }

    /// What the model's numbers mean.
    pub fn task(&self) -> ModelTask {
        match self {
            Self::Tabular(card) => card.task,
            Self::Text(card) => card.task,
        }
    }

    /// Names of the classes.
    pub fn labels(&self) -> &[String] {
        match self {
            Self::Tabular(card) => &card.labels,
            Self::Text(card) => &card.labels,
        }
    }

    /// The score from which a record is an anomaly.
    pub fn threshold(&self) -> Option<f64> {
        self.tabular().and_then(|card| card.threshold)
    }

    /// In what form the model takes records.
    pub fn takes(&self) -> Takes {
        match self {
            Self::Tabular(card) => Takes::Rows(card.width()),
            Self::Text(_) => Takes::Tokens,
        }
    }
}

/// Why a card can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {reason}")]
pub struct CardError {
    /// Where in the card, as `inputs[2].std`.
    pub path: String,
    /// What is wrong there.
    pub reason: String,
}

impl CardError {
    pub(super) fn new(path: impl Into<String>, reason: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            reason: reason.into(),
        }
    }
}

/// The first text that was there before, and where.
fn twice(texts: &[String]) -> Option<(usize, &String)> {
    let mut known = HashSet::with_capacity(texts.len());
    texts
        .iter()
        .enumerate()
        .find(|(_, text)| !known.insert(text.as_str()))
}

/// A layer's name and its width in and out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerShape {
    /// Columns of the weight.
    pub inputs: usize,
    /// Rows of the weight.
    pub outputs: usize,
}

impl ModelCard {
    /// Reads and checks a card.
    pub fn parse(json: &[u8]) -> Result<Self, CardError> {
        let mut json = serde_json::Deserializer::from_slice(json);
        let card: Self = serde_path_to_error::deserialize(&mut json).map_err(|error| {
            let path = error.path().to_string();
            CardError::new(path, error.into_inner().to_string())
        })?;
        json.end()
            .map_err(|error| CardError::new(".", error.to_string()))?;
        card.check()?;
        Ok(card)
    }

    /// Checks what the types alone do not say.
    pub fn check(&self) -> Result<(), CardError> {
        if self.inputs.is_empty() {
            return Err(CardError::new("inputs", "there is none"));
        }
        for (index, input) in self.inputs.iter().enumerate() {
            input
                .check()
                .map_err(|reason| CardError::new(format!("inputs[{index}]"), reason))?;
            if let Some(width) = input.width
                && !(1..=MAX_LAYER_WIDTH).contains(&width)
            {
                return Err(CardError::new(
                    format!("inputs[{index}].width"),
                    format!("{width} is not between 1 and {MAX_LAYER_WIDTH}"),
                ));
            }
        }
        self.check_architecture()?;
        self.check_labels()?;
        self.check_anomaly()?;
        let mut parameters = 0usize;
        for LayerShape { inputs, outputs } in self.layers() {
            if inputs == 0 || outputs == 0 || inputs > MAX_LAYER_WIDTH || outputs > MAX_LAYER_WIDTH
            {
                return Err(CardError::new(
                    ".",
                    format!(
                        "a layer of {inputs} inputs and {outputs} outputs is not between 1 and {MAX_LAYER_WIDTH} wide"
                    ),
                ));
            }
            parameters = parameters.saturating_add(inputs * outputs + outputs);
        }
        if parameters > MAX_PARAMETERS {
            return Err(CardError::new(
                ".",
                format!("the layers have {parameters} weights, over {MAX_PARAMETERS}"),
            ));
        }
        Ok(())
    }

    fn check_architecture(&self) -> Result<(), CardError> {
        match self.model_type {
            ModelType::Linear => {
                if !self.hidden.is_empty() {
                    return Err(CardError::new("hidden", "a linear model has none"));
                }
                if self.activation.is_some() {
                    return Err(CardError::new("activation", "a linear model has none"));
                }
            }
            ModelType::Mlp => {
                if self.hidden.is_empty() {
                    return Err(CardError::new("hidden", "an mlp has at least one"));
                }
                if self.hidden.len() >= MAX_LAYERS {
                    let given = self.hidden.len();
                    return Err(CardError::new(
                        "hidden",
                        format!("{given} layers, over {}", MAX_LAYERS - 1),
                    ));
                }
                if self.activation.is_none() {
                    return Err(CardError::new("activation", "an mlp needs one"));
                }
            }
        }
        Ok(())
    }

    fn check_labels(&self) -> Result<(), CardError> {
        let (labels, output) = (&self.labels, self.output);
        match self.task {
            ModelTask::Embed => {
                return Err(CardError::new("task", "a model of rows does not embed"));
            }
            ModelTask::Regress if !labels.is_empty() => {
                return Err(CardError::new("labels", "a regression has none"));
            }
            ModelTask::Anomaly if !labels.is_empty() => {
                return Err(CardError::new("labels", "an anomaly score has none"));
            }
            ModelTask::Regress | ModelTask::Anomaly => {}
            ModelTask::Classify => {
                let fits =
                    (labels.len() == output && output >= 2) || (labels.len() == 2 && output == 1);
                if !fits {
                    return Err(CardError::new(
                        "labels",
                        format!(
                            "{} labels for {output} outputs: one for each is needed, or two for a single output",
                            labels.len()
                        ),
                    ));
                }
                if let Some((index, label)) = twice(labels) {
                    return Err(CardError::new(
                        format!("labels[{index}]"),
                        format!("{label:?} is there twice"),
                    ));
                }
            }
        }
        Ok(())
    }

    fn check_anomaly(&self) -> Result<(), CardError> {
        if self.task != ModelTask::Anomaly {
            return match self.threshold {
                Some(_) => Err(CardError::new(
                    "threshold",
                    format!("is for the task anomaly, and this is {}", self.task),
                )),
                None => Ok(()),
            };
        }
        if self.model_type != ModelType::Mlp {
            return Err(CardError::new("task", "anomaly needs an mlp"));
        }
        let (width, output) = (self.width(), self.output);
        if output != width {
            return Err(CardError::new(
                "output",
                format!("{output} numbers do not reconstruct a row of {width}"),
            ));
        }
        match self.threshold {
            Some(threshold) if !((threshold as f32).is_finite() && threshold >= 0.0) => {
                Err(CardError::new(
                    "threshold",
                    format!("{threshold:?} is not 0 or a finite f32 above it"),
                ))
            }
            _ => Ok(()),
        }
    }

    /// How many numbers the model's row has.
    pub fn width(&self) -> usize {
        self.inputs.iter().map(InputSpec::width).sum()
    }

    /// The layers, in order.
    pub fn layers(&self) -> Vec<LayerShape> {
        let mut inputs = self.width();
        let mut layers = Vec::with_capacity(self.hidden.len() + 1);
        for &outputs in self.hidden.iter().chain([&self.output]) {
            layers.push(LayerShape { inputs, outputs });
            inputs = outputs;
        }
        layers
    }
}
