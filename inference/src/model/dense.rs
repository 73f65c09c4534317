//! A fully connected layer: `x W + b` in one pass, on the calling thread.
//!
//! Candle's own matmul asks for the number of threads on each call, which costs more than a small
//! layer; this one is never threaded, and starts from the bias instead of adding it in a second pass.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Storage, Tensor, bail};
use gemm::Parallelism;

/// A layer's weight and bias `[out]`.
#[derive(Clone, Debug)]
pub(crate) struct Dense {
    /// `[in, out]`: so it need not be rearranged at each product, which for few rows costs more than the
    /// product itself.
    weight: Tensor,
    bias: Tensor,
}

impl Dense {
    /// Of an f32 weight `[out, in]` and bias `[out]`.
    pub(crate) fn new(weight: &Tensor, bias: &Tensor) -> Result<Self> {
        let (outputs, _inputs) = weight.dims2()?;
        if bias.dims1()? != outputs {
            bail!("a bias of {:?} for {outputs} outputs", bias.dims());
        }
        Ok(Self {
            weight: weight.t()?.contiguous()?,
            bias: bias.contiguous()?,
        })
    }

    pub(crate) fn inputs(&self) -> usize {
        self.weight.dims().first().copied().unwrap_or(0)
    }

    pub(crate) fn outputs(&self) -> usize {
        self.weight.dims().get(1).copied().unwrap_or(0)
    }

    /// `[rows, in]` to `[rows, out]`.
    pub(crate) fn forward(&self, rows: &Tensor) -> Result<Tensor> {
        if rows.device().is_cpu() {
            return rows.apply_op1_no_bwd(&MultiplyAdd(self));
        }
        rows.matmul(&self.weight)?.broadcast_add(&self.bias)
    }

    /// Rows that are `width` numbers apart, of which the first are the layer's inputs, to `out`; on the
    /// processor.
    pub(crate) fn multiply(&self, rows: &[f32], width: usize, out: &mut [f32]) -> Result<()> {
        let (weight, weight_layout) = self.weight.storage_and_layout();
        let (bias, bias_layout) = self.bias.storage_and_layout();
        let (Storage::Cpu(weight), Storage::Cpu(bias)) = (&*weight, &*bias) else {
            bail!("a dense layer's weights are not on the processor");
        };
        multiply_add(
            (rows, width),
            contiguous(weight, weight_layout)?,
            contiguous(bias, bias_layout)?,
            out,
        )
    }
}

struct MultiplyAdd<'a>(&'a Dense);

impl CustomOp1 for MultiplyAdd<'_> {
    fn name(&self) -> &'static str {
        "dense"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (rows, width) = layout.shape().dims2()?;
        let (inputs, outputs) = (self.0.inputs(), self.0.outputs());
        if width != inputs {
            bail!("rows of {width} numbers for a layer of {inputs} inputs");
        }
        let mut out = vec![0.0; rows * outputs];
        self.0.multiply(contiguous(x, layout)?, width, &mut out)?;
        Ok((CpuStorage::F32(out), Shape::from((rows, outputs))))
    }
}

/// `out = x W + b`. Rows may be further apart in `x` than a layer's inputs, and have others behind them.
fn multiply_add(
    (x, x_width): (&[f32], usize),
    weight: &[f32],
    bias: &[f32],
    out: &mut [f32],
) -> Result<()> {
    let outputs = bias.len();
    let inputs = weight.len().checked_div(outputs).unwrap_or(0);
    let rows = out.len().checked_div(outputs).unwrap_or(0);
    if x_width < inputs
        || x.len() != rows * x_width
        || weight.len() != outputs * inputs
        || out.len() != rows * outputs
    {
        bail!("a dense layer's storage does not match its shape");
    }
    if rows == 0 || inputs == 0 {
        return Ok(());
    }
    for row in out.chunks_exact_mut(outputs) {
        row.copy_from_slice(bias);
    }
    // SAFETY: x is rows x inputs, x_width apart, weight is inputs x outputs, out is rows x outputs, all of
    // them of exactly these lengths, checked above; out is not aliased.
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
            x_width as isize,
            weight.as_ptr(),
            1,
            outputs as isize,
            1.0f32,
            1.0f32,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
    Ok(())
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
