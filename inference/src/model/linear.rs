//! Linear and logistic regression: a single layer.

use candle_core::Tensor;

use super::dense::Dense;
use super::{Device, InferError, Model, Rows};

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
    fn input_width(&self) -> usize {
        self.layer.inputs()
    }

    fn output_width(&self) -> usize {
        self.layer.outputs()
    }

    fn device(&self) -> Device {
        Device::Cpu
    }

    fn infer(&mut self, rows: &Rows) -> Result<Rows, InferError> {
        forward(rows, self.output_width(), |x| self.layer.forward(&x))
    }

    fn replica(&self) -> Box<dyn Model> {
        Box::new(self.clone())
    }
}

/// Runs rows through a network of tensors.
pub(super) fn forward(
    rows: &Rows,
    output_width: usize,
    network: impl FnOnce(Tensor) -> candle_core::Result<Tensor>,
) -> Result<Rows, InferError> {
    if rows.is_empty() {
        return Ok(Rows::new(output_width));
    }
    let logits = Tensor::from_slice(
        rows.values(),
        (rows.len(), rows.width()),
        &candle_core::Device::Cpu,
    )
    .and_then(network)
    .and_then(|logits| logits.flatten_all()?.to_vec1::<f32>())
    .map_err(|error| InferError(error.to_string()))?;
    match Rows::from_values(output_width, logits) {
        Some(logits) if logits.len() == rows.len() => Ok(logits),
        _ => Err(InferError(format!(
            "the model did not answer {} rows with {output_width} numbers each",
            rows.len()
        ))),
    }
}
