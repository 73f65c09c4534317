//! From a checkpoint's tensors to an [`Encoder`]: which tensor is which, by architecture.
//!
//! A file for each would repeat what they share; what differs is the names, where the norms are, and what a
//! position is.

use candle_core::Tensor;

use super::attention::{Attention, Rotary};
use super::config::{Architecture, EncoderConfig, ModernBert};
use super::encoder::{Embeddings, Encoder, Layer, Norms};
use super::kernels::{FeedForward, LayerNorm};
use super::tensors::Tensors;
use crate::model::dense::Dense;
use crate::model::load::LoadError;

/// What a tensor operation on sound weights can't fail of, but a device can.
pub(super) fn failed(error: candle_core::Error) -> LoadError {
    LoadError::Run(error.to_string())
}

/// Reads layers and norms of a checkpoint.
pub(super) struct Reader<'a> {
    pub tensors: &'a Tensors,
    pub config: &'a EncoderConfig,
}

/// How much memory the weights of an encoder and its head are worth in a checkpoint, in bytes. Checkpoints
/// also have heads that are not used here, the largest of which is as large as the vocabulary.
pub(super) fn most_bytes(config: &EncoderConfig) -> u64 {
    let [width, middle, layers, vocabulary, positions] = [
        config.width,
        config.middle,
        config.layers,
        config.vocabulary,
        config.positions,
    ]
    .map(|n| n as u64);
    let of_layer = 4 * width * width + 3 * width * middle + 16 * width + 3 * middle;
    let numbers = layers * of_layer
        + 2 * vocabulary * (width + 1)
        + (positions + 1024) * width
        + 4 * width * width;
    numbers * 4 + (16 << 20)
}

impl Reader<'_> {
    /// `name.weight` `[outputs, inputs]` and `name.bias`, or zeros.
    pub fn dense(
        &self,
        name: &str,
        outputs: usize,
        inputs: usize,
        bias: bool,
    ) -> Result<Dense, LoadError> {
        let weight = self
            .tensors
            .get(&format!("{name}.weight"), &[outputs, inputs])?;
        let bias = match bias {
            true => self.tensors.get(&format!("{name}.bias"), &[outputs])?,
            false => Tensor::zeros(outputs, weight.dtype(), weight.device()).map_err(failed)?,
        };
        Dense::new(&weight, &bias).map_err(failed)
    }

    pub fn norm(&self, name: &str, bias: bool) -> Result<LayerNorm, LoadError> {
        let width = [self.config.width];
        let weight = self.tensors.get(&format!("{name}.weight"), &width)?;
        let bias = bias
            .then(|| self.tensors.get(&format!("{name}.bias"), &width))
            .transpose()?;
        LayerNorm::new(weight, bias, self.config.epsilon).map_err(failed)
    }

    fn width(&self) -> usize {
        self.config.width
    }

    /// Three products of `[width, width]` as one.
    fn together(&self, names: [String; 3]) -> Result<Dense, LoadError> {
        let width = self.width();
        let get = |kind: &str, shape: &[usize]| {
            let parts = names
                .iter()
                .map(|name| self.tensors.get(&format!("{name}.{kind}"), shape));
            let parts: Vec<Tensor> = parts.collect::<Result<_, _>>()?;
            Tensor::cat(&parts, 0).map_err(failed)
        };
        Dense::new(&get("weight", &[width, width])?, &get("bias", &[width])?).map_err(failed)
    }

    fn attention(&self, window: Option<usize>) -> Attention {
        Attention {
            heads: self.config.heads,
            window,
            rotary: None,
        }
    }

    fn feed_forward(
        &self,
        up: &str,
        down: &str,
        gated: bool,
        bias: bool,
    ) -> Result<FeedForward, LoadError> {
        let (width, middle) = (self.width(), self.config.middle);
        Ok(FeedForward {
            up: self.dense(up, if gated { 2 * middle } else { middle }, width, bias)?,
            down: self.dense(down, width, middle, bias)?,
            activation: self.config.activation,
            gated,
        })
    }
}

impl Encoder {
    /// Of a checkpoint of the architecture that its config names.
    pub(super) fn read(tensors: &Tensors, config: &EncoderConfig) -> Result<Self, LoadError> {
        let reader = Reader { tensors, config };
        match &config.architecture {
            Architecture::Bert { segments } => reader.bert(*segments, 0),
            // Positions begin behind the padding token's number.
            Architecture::XlmRoberta { padding, segments } => reader.bert(*segments, padding + 1),
            Architecture::DistilBert => reader.distilbert(),
            Architecture::ModernBert(modern) => reader.modernbert(modern),
        }
    }
}

impl Reader<'_> {
    fn device(&self) -> candle_core::Device {
        self.tensors.device().clone()
    }

    /// The rows of tokens and positions; `segments` of BERT, of which texts have the first one.
    fn embeddings(
        &self,
        segments: Option<usize>,
        first_position: usize,
    ) -> Result<Embeddings, LoadError> {
        let (width, positions) = (self.width(), self.config.positions);
        let get = |name: &str, rows: usize| {
            self.tensors
                .get(&format!("embeddings.{name}.weight"), &[rows, width])
        };
        let mut tokens = get("word_embeddings", self.config.vocabulary)?;
        if let Some(segments) = segments {
            let first = get("token_type_embeddings", segments)?.narrow(0, 0, 1);
            tokens = first
                .and_then(|first| tokens.broadcast_add(&first))
                .map_err(failed)?;
        }
        let all = get("position_embeddings", first_position + positions)?;
        Ok(Embeddings {
            tokens,
            positions: Some(
                all.narrow(0, first_position, positions)
                    .and_then(|p| p.contiguous())
                    .map_err(failed)?,
            ),
            norm: self.norm("embeddings.LayerNorm", true)?,
        })
    }

    fn bert(&self, segments: usize, first_position: usize) -> Result<Encoder, LoadError> {
        let width = self.width();
        let layer = |n: usize| {
            let name = |part: &str| format!("encoder.layer.{n}.{part}");
            Ok(Layer {
                norms: Norms::Behind {
                    attention: self.norm(&name("attention.output.LayerNorm"), true)?,
                    feed_forward: self.norm(&name("output.LayerNorm"), true)?,
                },
                qkv: self.together(
                    ["query", "key", "value"].map(|part| name(&format!("attention.self.{part}"))),
                )?,
                attention: self.attention(None),
                output: self.dense(&name("attention.output.dense"), width, width, true)?,
                feed_forward: self.feed_forward(
                    &name("intermediate.dense"),
                    &name("output.dense"),
                    false,
                    true,
                )?,
            })
        };
        Ok(Encoder {
            embeddings: self.embeddings(Some(segments), first_position)?,
            layers: (0..self.config.layers)
                .map(layer)
                .collect::<Result<_, LoadError>>()?,
            last_norm: None,
            device: self.device(),
        })
    }

    fn distilbert(&self) -> Result<Encoder, LoadError> {
        let width = self.width();
        let layer = |n: usize| {
            let name = |part: &str| format!("transformer.layer.{n}.{part}");
            Ok(Layer {
                norms: Norms::Behind {
                    attention: self.norm(&name("sa_layer_norm"), true)?,
                    feed_forward: self.norm(&name("output_layer_norm"), true)?,
                },
                qkv: self.together(
                    ["q_lin", "k_lin", "v_lin"].map(|part| name(&format!("attention.{part}"))),
                )?,
                attention: self.attention(None),
                output: self.dense(&name("attention.out_lin"), width, width, true)?,
                feed_forward: self.feed_forward(
                    &name("ffn.lin1"),
                    &name("ffn.lin2"),
                    false,
                    true,
                )?,
            })
        };
        Ok(Encoder {
            embeddings: self.embeddings(None, 0)?,
            layers: (0..self.config.layers)
                .map(layer)
                .collect::<Result<_, LoadError>>()?,
            last_norm: None,
            device: self.device(),
        })
    }

    fn modernbert(&self, modern: &ModernBert) -> Result<Encoder, LoadError> {
        let (width, config) = (self.width(), self.config);
        let layer = |n: usize| {
            let name = |part: &str| format!("layers.{n}.{part}");
            let looks_everywhere = n.is_multiple_of(modern.global_every);
            let window = (!looks_everywhere).then_some(modern.window);
            let norm = |part: &str| self.norm(&name(part), modern.norm_bias);
            Ok(Layer {
                norms: Norms::Before {
                    // What the embeddings give is normal already.
                    attention: (n > 0).then(|| norm("attn_norm")).transpose()?,
                    feed_forward: norm("mlp_norm")?,
                },
                qkv: self.dense(&name("attn.Wqkv"), 3 * width, width, modern.attention_bias)?,
                attention: self.attention(window),
                output: self.dense(&name("attn.Wo"), width, width, modern.attention_bias)?,
                feed_forward: self.feed_forward(
                    &name("mlp.Wi"),
                    &name("mlp.Wo"),
                    true,
                    modern.middle_bias,
                )?,
            })
        };
        let embeddings = Embeddings {
            tokens: self.tensors.get(
                "embeddings.tok_embeddings.weight",
                &[config.vocabulary, width],
            )?,
            positions: None,
            norm: self.norm("embeddings.norm", modern.norm_bias)?,
        };
        let mut layers: Vec<Layer> = (0..config.layers)
            .map(layer)
            .collect::<Result<_, LoadError>>()?;
        // Last: that there are weights of this width is known now.
        let device = self.device();
        let rotary = |theta| {
            Rotary::new(theta, width / config.heads, config.positions, &device).map_err(failed)
        };
        let (global, local) = (rotary(modern.global_theta)?, rotary(modern.local_theta)?);
        for Layer { attention, .. } in &mut layers {
            let table = attention.window.map_or(&global, |_| &local);
            attention.rotary = Some(table.clone());
        }
        Ok(Encoder {
            embeddings,
            layers,
            last_norm: Some(self.norm("final_norm", modern.norm_bias)?),
            device,
        })
    }
}
