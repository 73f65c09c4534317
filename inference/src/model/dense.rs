//! A fully connected layer: `x W + b` in one pass, on the calling thread.
//!
//! Candle's own matmul asks for the number of threads on each call, which costs more than a small layer; this
//! one is never threaded, and starts from the bias instead of adding it in a second pass.

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, bail};

use super::matmul::{Left, Panels, multiply, packed_len, panel_columns};

/// A layer's weight and bias `[out]`. Copies share them.
#[derive(Clone, Debug)]
pub(crate) struct Dense {
    inputs: usize,
    outputs: usize,
    weights: Weights,
}

#[derive(Clone, Debug)]
enum Weights {
    /// On the processor: panels, and the bias filled up to whole ones.
    Packed {
        weight: Arc<[f32]>,
        bias: Arc<[f32]>,
    },
    /// On another device: `[in, out]` and `[out]`.
    Tensors { weight: Tensor, bias: Tensor },
}

impl Dense {
    /// Of an f32 weight `[out, in]` and bias `[out]`.
    pub(crate) fn new(weight: &Tensor, bias: &Tensor) -> Result<Self> {
        let (outputs, inputs) = weight.dims2()?;
        if bias.dims1()? != outputs {
            bail!("a bias of {:?} for {outputs} outputs", bias.dims());
        }
        let weights = if weight.device().is_cpu() {
            let values = weight.flatten_all()?.to_vec1::<f32>()?;
            let mut packed = vec![0.0; packed_len(inputs, outputs)];
            Panels::pack(&mut packed, (inputs, outputs), |input, output| {
                values.get(output * inputs + input).copied().unwrap_or(0.0)
            });
            let mut bias = bias.to_vec1::<f32>()?;
            bias.resize(outputs.next_multiple_of(panel_columns()), 0.0);
            Weights::Packed {
                weight: packed.into(),
                bias: bias.into(),
            }
        } else {
            Weights::Tensors {
                weight: weight.t()?.contiguous()?,
                bias: bias.contiguous()?,
            }
        };
        Ok(Self {
            inputs,
            outputs,
            weights,
        })
    }

    pub(crate) fn inputs(&self) -> usize {
        self.inputs
    }

    pub(crate) fn outputs(&self) -> usize {
        self.outputs
    }

    /// Of its weights.
    pub(crate) fn bytes(&self) -> u64 {
        4 * match &self.weights {
            Weights::Packed { weight, bias } => weight.len() + bias.len(),
            Weights::Tensors { weight, bias } => weight.elem_count() + bias.elem_count(),
        } as u64
    }

    /// `[rows, in]` to `[rows, out]`.
    pub(crate) fn forward(&self, rows: &Tensor) -> Result<Tensor> {
        match &self.weights {
            Weights::Packed { .. } => rows.apply_op1_no_bwd(&MultiplyAdd(self)),
            Weights::Tensors { weight, bias } => rows.matmul(weight)?.broadcast_add(bias),
        }
    }

    /// Rows that are `stride` numbers apart, of which the first are the layer's inputs, to `out`; on the
    /// processor.
    pub(crate) fn multiply(&self, rows: &[f32], stride: usize, out: &mut [f32]) -> Result<()> {
        let Weights::Packed { weight, bias } = &self.weights else {
            bail!("a dense layer's weights are not on the processor");
        };
        let count = rows.len().checked_div(stride).unwrap_or(0);
        if stride < self.inputs || rows.len() != count * stride || out.len() != count * self.outputs
        {
            bail!(
                "{} numbers in rows of {stride} for a layer of {} inputs, to {}",
                rows.len(),
                self.inputs,
                out.len()
            );
        }
        let left = Left {
            values: rows,
            rows: count,
            stride,
        };
        multiply(
            left,
            Panels::new(weight, (self.inputs, self.outputs)),
            bias,
            out,
        );
        Ok(())
    }
}

struct MultiplyAdd<'a>(&'a Dense);

impl CustomOp1 for MultiplyAdd<'_> {
    fn name(&self) -> &'static str {
        "dense"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (rows, width) = layout.shape().dims2()?;
        let (inputs, outputs) = (self.0.inputs, self.0.outputs);
        if width != inputs {
            bail!("rows of {width} numbers for a layer of {inputs} inputs");
        }
        let mut out = vec![0.0; rows * outputs];
        self.0.multiply(contiguous(x, layout)?, width, &mut out)?;
        Ok((CpuStorage::F32(out), Shape::from((rows, outputs))))
    }
}

/// All numbers of a tensor, in order.
pub(crate) fn contiguous<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    let values = storage.as_slice::<f32>()?;
    match layout.contiguous_offsets() {
        Some((start, end)) => match values.get(start..end) {
            Some(values) => Ok(values),
            None => bail!("a dense layer's storage is shorter than its shape"),
        },
        None => bail!("a dense layer's arguments are not contiguous"),
    }
}
