//! What all encoders have in common: tokens to rows, and layers of attention and products.
//!
//! Texts of different lengths share a batch as rows one after another ([`Tokens`]): nothing is computed for
//! padding, since only attention knows where a text ends.

use candle_core::{Device, Result, Tensor};

use super::attention::Attention;
use super::kernels::{FeedForward, LayerNorm, add};
use super::packed::{Lengths, Tokens};
use crate::model::dense::Dense;

/// A network from tokens to a row for each.
#[derive(Clone, Debug)]
pub struct Encoder {
    pub(super) embeddings: Embeddings,
    pub(super) layers: Vec<Layer>,
    /// Behind the last layer.
    pub(super) last_norm: Option<LayerNorm>,
    pub(super) device: Device,
}

/// A token's row: its own, its position's where that has one, and the norm of their sum.
#[derive(Clone, Debug)]
pub(super) struct Embeddings {
    /// `[vocabulary, width]`; where all tokens are of one segment, that is added already.
    pub(super) tokens: Tensor,
    /// `[positions, width]`, from the first one that a text has.
    pub(super) positions: Option<Tensor>,
    pub(super) norm: LayerNorm,
}

/// Attention and products, each with a norm before or behind it.
#[derive(Clone, Debug)]
pub(super) struct Layer {
    pub(super) norms: Norms,
    /// Queries, keys and values at once: `[3 width, width]`.
    pub(super) qkv: Dense,
    pub(super) attention: Attention,
    pub(super) output: Dense,
    pub(super) feed_forward: FeedForward,
}

/// Where the norms are.
#[derive(Clone, Debug)]
pub(super) enum Norms {
    /// Of what comes in; the first layer may have none before its attention.
    Before {
        attention: Option<LayerNorm>,
        feed_forward: LayerNorm,
    },
    /// Of the sum of what comes in and what goes out.
    Behind {
        attention: LayerNorm,
        feed_forward: LayerNorm,
    },
}

impl Encoder {
    /// A row for each token, `[tokens, width]`.
    pub fn forward(&self, tokens: &Tokens) -> Result<Tensor> {
        let lengths = tokens.lengths();
        let mut x = self.embeddings.forward(tokens, &self.device)?;
        for layer in &self.layers {
            x = layer.forward(&x, lengths)?;
        }
        match &self.last_norm {
            Some(norm) => norm.forward(&x),
            None => Ok(x),
        }
    }
}

impl Embeddings {
    fn forward(&self, tokens: &Tokens, device: &Device) -> Result<Tensor> {
        let ids = Tensor::new(tokens.ids(), device)?;
        let rows = self.tokens.index_select(&ids, 0)?;
        let Some(positions) = &self.positions else {
            return self.norm.forward(&rows);
        };
        let numbers = tokens
            .lengths()
            .as_slice()
            .iter()
            .flat_map(|&length| 0..length as u32);
        let numbers = Tensor::new(numbers.collect::<Vec<u32>>(), device)?;
        self.norm
            .forward_sum(&rows, &positions.index_select(&numbers, 0)?)
    }
}

impl Layer {
    fn forward(&self, x: &Tensor, lengths: &Lengths) -> Result<Tensor> {
        let attend = |x: &Tensor| {
            let looked = self.attention.forward(&self.qkv.forward(x)?, lengths)?;
            self.output.forward(&looked)
        };
        match &self.norms {
            Norms::Behind {
                attention,
                feed_forward,
            } => {
                let x = attention.forward_sum(&attend(x)?, x)?;
                feed_forward.forward_sum(&self.feed_forward.forward(&x)?, &x)
            }
            Norms::Before {
                attention,
                feed_forward,
            } => {
                let attended = match attention {
                    Some(norm) => attend(&norm.forward(x)?)?,
                    None => attend(x)?,
                };
                let x = add(x, &attended)?;
                add(&x, &self.feed_forward.forward(&feed_forward.forward(&x)?)?)
            }
        }
    }
}
