//! A fully connected layer: `x W^T + b` in one pass, on the calling thread.
//!
//! Candle's own matmul asks for the number of threads on each call, which costs more than a small
//! layer; this one is never threaded, and starts from the bias instead of adding it in a second pass.

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor, bail};
use gemm::Parallelism;

/// A layer's weight `[out, in]` and bias `[out]`.
#[derive(Clone, Debug)]
pub(crate) struct Dense {
    weight: Tensor,
    bias: Tensor,
}

impl Dense {
    /// Of an f32 weight `[out, in]` and bias `[out]`, both on the processor.
    pub(crate) fn new(weight: &Tensor, bias: &Tensor) -> Result<Self> {
        let (outputs, _inputs) = weight.dims2()?;
        if bias.dims1()? != outputs {
            bail!("a bias of {:?} for {outputs} outputs", bias.dims());
        }
        Ok(Self {
            weight: weight.contiguous()?,
            bias: bias.contiguous()?,
        })
    }

    pub(crate) fn inputs(&self) -> usize {
        self.weight.dims().get(1).copied().unwrap_or(0)
    }

    pub(crate) fn outputs(&self) -> usize {
        self.weight.dims().first().copied().unwrap_or(0)
    }

    /// `[rows, in]` to `[rows, out]`.
    pub(crate) fn forward(&self, rows: &Tensor) -> Result<Tensor> {
        rows.apply_op3_no_bwd(&self.weight, &self.bias, &MultiplyAdd)
    }
}

struct MultiplyAdd;

impl CustomOp3 for MultiplyAdd {
    fn name(&self) -> &'static str {
        "dense"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (rows, inputs) = x_layout.shape().dims2()?;
        let (outputs, weight_inputs) = weight_layout.shape().dims2()?;
        if inputs != weight_inputs {
            bail!("rows of {inputs} numbers for a layer of {weight_inputs} inputs");
        }
        let x = contiguous(x, x_layout)?;
        let weight = contiguous(weight, weight_layout)?;
        let bias = contiguous(bias, bias_layout)?;
        if x.len() != rows * inputs || weight.len() != outputs * inputs || bias.len() != outputs {
            bail!("a dense layer's storage does not match its shape");
        }
        let mut out = Vec::with_capacity(rows * outputs);
        for _ in 0..rows {
            out.extend_from_slice(bias);
        }
        // SAFETY: x is rows x inputs, weight is outputs x inputs (read as its transpose), out is rows x
        // outputs, all of them contiguous and of exactly these lengths, checked above; out is not aliased.
        unsafe {
            gemm::gemm(
                rows,
                outputs,
                inputs,
                out.as_mut_ptr(),
                1,
                outputs as isize,
                true,
                x.as_ptr(),
                1,
                inputs as isize,
                weight.as_ptr(),
                inputs as isize,
                1,
                1.0f32,
                1.0f32,
                false,
                false,
                false,
                Parallelism::None,
            );
        }
        Ok((CpuStorage::F32(out), Shape::from((rows, outputs))))
    }
}

fn contiguous<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    let values = storage.as_slice::<f32>()?;
    match layout.contiguous_offsets() {
        Some((start, end)) => match values.get(start..end) {
            Some(values) => Ok(values),
            None => bail!("a dense layer's storage is shorter than its shape"),
        },
        None => bail!("a dense layer's arguments are not contiguous"),
    }
}
