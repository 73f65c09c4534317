//! A multilayer perceptron: layers with an activation between them.

use candle_core::Tensor;

use super::card::Activation;
use super::dense::Dense;
use super::forward::{footprint, forward};
use super::{Device, Footprint, InferError, Input, Model, Rows, Takes};

/// Layers with an activation between them.
#[derive(Clone, Debug)]
pub struct Mlp {
    hidden: Vec<Dense>,
    last: Dense,
    activation: Activation,
    /// Of the input and all layers.
    widest: usize,
}

impl Mlp {
    /// Of the layers' weights `[out, in]` and biases `[out]`, in order.
    pub fn new(layers: &[(Tensor, Tensor)], activation: Activation) -> candle_core::Result<Self> {
        let mut hidden = Vec::with_capacity(layers.len());
        for (weight, bias) in layers {
            let layer = Dense::new(weight, bias)?;
            if let Some(before) = hidden.last().map(Dense::outputs)
                && before != layer.inputs()
            {
                candle_core::bail!(
                    "a layer of {} inputs after one of {before} outputs",
                    layer.inputs()
                );
            }
            hidden.push(layer);
        }
        let width = |layer: &Dense| layer.inputs().max(layer.outputs());
        let widest = hidden.iter().map(width).max().unwrap_or(1);
        match hidden.pop() {
            Some(last) => Ok(Self {
                widest,
                hidden,
                last,
                activation,
            }),
            None => candle_core::bail!("an mlp needs a layer"),
        }
    }
}

impl Model for Mlp {
    fn takes(&self) -> Takes {
        Takes::Rows(self.hidden.first().unwrap_or(&self.last).inputs())
    }

    fn output_width(&self) -> usize {
        self.last.outputs()
    }

    fn device(&self) -> Device {
        Device::Cpu
    }

    fn footprint(&self) -> Footprint {
        let layers = self.hidden.iter().chain([&self.last]);
        footprint(
            layers.map(Dense::bytes).sum(),
            self.takes(),
            self.output_width(),
        )
    }

    fn infer(&mut self, batch: &Input) -> Result<Rows, InferError> {
        forward(
            batch.as_rows()?,
            self.widest,
            self.output_width(),
            |mut x| {
                for layer in &self.hidden {
                    x = activate(self.activation, &layer.forward(&x)?)?;
                }
                self.last.forward(&x)
            },
        )
    }

    fn replica(&self) -> Box<dyn Model> {
        Box::new(self.clone())
    }
}

fn activate(activation: Activation, x: &Tensor) -> candle_core::Result<Tensor> {
    match activation {
        Activation::Relu => x.relu(),
        Activation::Tanh => x.tanh(),
        Activation::Gelu => x.gelu_erf(),
        Activation::Silu => x.silu(),
        Activation::Sigmoid => candle_nn::ops::sigmoid(x),
    }
}
