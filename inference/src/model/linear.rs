//! Linear and logistic regression: a single layer.

use candle_core::Tensor;

use super::dense::Dense;
use super::forward::{footprint, forward};
use super::{Device, Footprint, InferError, Input, Model, Rows, Takes};

/// A single layer.
#[derive(Clone, Debug)]
pub struct Linear {
    layer: Dense,
}

impl Linear {
    /// Of a weight `[out, in]` and a bias `[out]`.
    pub fn new(weight: &Tensor, bias: &Tensor) -> candle_core::Result<Self> {
        Ok(Self {
            layer: Dense::new(weight, bias)?,
        })
    }
}

impl Model for Linear {
    fn takes(&self) -> Takes {
        Takes::Rows(self.layer.inputs())
    }

    fn output_width(&self) -> usize {
        self.layer.outputs()
    }

    fn device(&self) -> Device {
        Device::Cpu
    }

    fn footprint(&self) -> Footprint {
        footprint(self.layer.bytes(), self.takes(), self.output_width())
    }

    fn infer(&mut self, batch: &Input) -> Result<Rows, InferError> {
        let widest = self.layer.inputs().max(self.layer.outputs());
        forward(batch.as_rows()?, widest, self.output_width(), |x| {
            self.layer.forward(&x)
        })
    }

    fn replica(&self) -> Box<dyn Model> {
        Box::new(self.clone())
    }
}
