//! From the rows of a text's tokens to its embedding, or to a score for each label.

use candle_core::{Result, Tensor};
use serde::{Deserialize, Serialize};

use super::architectures::Reader;
use super::config::Architecture;
use super::kernels::{Activation, LayerNorm, means};
use super::packed::Lengths;
use crate::model::dense::Dense;
use crate::model::load::LoadError;

/// What stands for a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Pooling {
    /// The mean of its tokens' rows.
    Mean,
    /// The row of its first token.
    Cls,
}

impl Pooling {
    /// `[texts, width]`
    pub fn forward(self, rows: &Tensor, lengths: &Lengths) -> Result<Tensor> {
        match self {
            Self::Mean => means(rows, lengths),
            Self::Cls => {
                let lengths = lengths.as_slice();
                let firsts = lengths.iter().scan(0, |start, length| {
                    let first = *start;
                    *start += *length as u32;
                    Some(first)
                });
                let firsts = Tensor::new(firsts.collect::<Vec<u32>>(), rows.device())?;
                rows.index_select(&firsts, 0)
            }
        }
    }
}

/// What is made of the rows.
#[derive(Clone, Debug)]
pub enum Head {
    /// An embedding.
    Embed {
        /// Of what.
        pooling: Pooling,
        /// Scaled to a length of 1.
        normalize: bool,
    },
    /// Logits, one for each label.
    Classify(Classifier),
}

/// A layer with an activation, and one to the labels.
#[derive(Clone, Debug)]
pub struct Classifier {
    pooling: Pooling,
    dense: Dense,
    activation: Activation,
    norm: Option<LayerNorm>,
    output: Dense,
}

impl Head {
    /// `[texts, outputs]`, from the rows of all their tokens.
    pub fn forward(&self, rows: &Tensor, lengths: &Lengths) -> Result<Tensor> {
        match self {
            Self::Embed { pooling, .. } => pooling.forward(rows, lengths),
            Self::Classify(classifier) => classifier.forward(rows, lengths),
        }
    }

    /// Numbers for a text, of an encoder of such a width.
    pub fn outputs(&self, width: usize) -> usize {
        match self {
            Self::Embed { .. } => width,
            Self::Classify(classifier) => classifier.output.outputs(),
        }
    }
}

/// Scales rows to a length of 1; those of zeros stay.
pub fn normalize(rows: &mut [f32], width: usize) {
    for row in rows.chunks_exact_mut(width.max(1)) {
        let length = row
            .iter()
            .map(|x| f64::from(*x) * f64::from(*x))
            .sum::<f64>()
            .sqrt();
        let scale = (1.0 / length.max(1e-12)) as f32;
        row.iter_mut().for_each(|x| *x *= scale);
    }
}

impl Classifier {
    /// Of a checkpoint of a sequence classifier, whose encoder's tensors have a prefix and whose head's
    /// have not.
    pub(super) fn read(
        encoder: &Reader<'_>,
        head: &Reader<'_>,
    ) -> std::result::Result<Self, LoadError> {
        let config = head.config;
        let (width, labels) = (config.width, config.labels.len());
        let (reader, names, activation) = match &config.architecture {
            Architecture::Bert { .. } => {
                (encoder, ["pooler.dense", "classifier"], Activation::Tanh)
            }
            Architecture::DistilBert => (head, ["pre_classifier", "classifier"], Activation::Relu),
            Architecture::XlmRoberta { .. } => (
                head,
                ["classifier.dense", "classifier.out_proj"],
                Activation::Tanh,
            ),
            Architecture::ModernBert(modern) => (
                head,
                ["head.dense", "classifier"],
                modern.classifier_activation,
            ),
        };
        let (pooling, bias, norm) = match &config.architecture {
            Architecture::ModernBert(modern) => (
                if modern.classifies_mean {
                    Pooling::Mean
                } else {
                    Pooling::Cls
                },
                modern.classifier_bias,
                Some(head.norm("head.norm", modern.norm_bias)?),
            ),
            _ => (Pooling::Cls, true, None),
        };
        Ok(Self {
            pooling,
            dense: reader.dense(names[0], width, width, bias)?,
            activation,
            norm,
            output: head.dense(names[1], labels, width, true)?,
        })
    }

    fn forward(&self, rows: &Tensor, lengths: &Lengths) -> Result<Tensor> {
        let pooled = self.pooling.forward(rows, lengths)?;
        let x = self.activation.apply(&self.dense.forward(&pooled)?)?;
        let x = match &self.norm {
            Some(norm) => norm.forward(&x)?,
            None => x,
        };
        self.output.forward(&x)
    }
}
