//! What an encoder does beside multiplying: fused, on the calling thread, in one pass over memory.
//!
//! Each is one function of tensors. On the processor it is a custom operation written here; elsewhere it
//! is put together from the device's own operations, so that the networks above have one path.
//!
//! Loops over slices go through [`pulp`], which compiles them for each width of vectors and picks one when
//! the program runs.

use std::cell::RefCell;

use candle_core::{CpuStorage, CustomOp1, CustomOp2, D, Layout, Result, Shape, Tensor, bail};
use pulp::Arch;

use super::super::dense::{Dense, contiguous};
use super::config::EncoderConfig;
use super::packed::Lengths;

/// Numbers of a feed-forward layer's middle that are worked on together: they stay in the cache.
const MIDDLE_NUMBERS: usize = 256 * 1024;
/// Sums are kept in so many lanes, as wide as the widest vector.
pub(super) const LANES: usize = 16;

thread_local! {
    /// What a kernel needs for as long as it runs.
    static SCRATCH: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// Runs with `len` numbers of this thread's scratch memory, of any value.
pub(super) fn with_scratch<T>(len: usize, run: impl FnOnce(&mut [f32]) -> T) -> T {
    SCRATCH.with_borrow_mut(|scratch| {
        if scratch.len() < len {
            scratch.resize(len, 0.0);
        }
        run(scratch.get_mut(..len).unwrap_or_default())
    })
}

/// Of scratch memory that does not grow with a text's length.
pub(super) fn scratch_bytes(config: &EncoderConfig) -> u64 {
    // A gated layer has its middle twice.
    4 * MIDDLE_NUMBERS.max(2 * config.middle) as u64
}

/// What stands between the two products of a feed-forward layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// x Φ(x), by the error function.
    Gelu,
    /// The same by tanh.
    GeluTanh,
    /// max(x, 0)
    Relu,
    /// x sigmoid(x)
    Silu,
    /// tanh(x)
    Tanh,
}

impl Activation {
    /// As `config.json` names it.
    pub fn of(name: &str) -> Option<Self> {
        Some(match name {
            "gelu" => Self::Gelu,
            "gelu_new" | "gelu_pytorch_tanh" | "gelu_fast" => Self::GeluTanh,
            "relu" => Self::Relu,
            "silu" | "swish" => Self::Silu,
            "tanh" => Self::Tanh,
            _ => return None,
        })
    }

    /// On all numbers of a tensor.
    pub fn apply(self, x: &Tensor) -> Result<Tensor> {
        if x.device().is_cpu() {
            return x.apply_op1_no_bwd(&Activate(self));
        }
        match self {
            Self::Gelu => x.gelu_erf(),
            Self::GeluTanh => x.gelu(),
            Self::Relu => x.relu(),
            Self::Silu => x.silu(),
            Self::Tanh => x.tanh(),
        }
    }

    fn apply_to(self, values: &mut [f32]) {
        match self {
            Self::Gelu => map(values, |x| {
                0.5 * x * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2))
            }),
            Self::GeluTanh => map(values, |x| {
                0.5 * x * (1.0 + tanh(0.797_884_6 * (x + 0.044_715 * x * x * x)))
            }),
            Self::Relu => map(values, |x| x.max(0.0)),
            Self::Silu => map(values, |x| x / (1.0 + exp(-x))),
            Self::Tanh => map(values, tanh),
        }
    }
}

#[inline(always)]
fn map(values: &mut [f32], each: impl Fn(f32) -> f32) {
    Arch::new().dispatch(
        #[inline(always)]
        || {
            for value in values.iter_mut() {
                *value = each(*value);
            }
        },
    );
}

/// e^x to about 2 units in the last place, without branches.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    let x = x.clamp(-87.3, 88.3);
    // x = n ln 2 + r with |r| <= ln 2 / 2. Adding and taking away 1.5 * 2^23 rounds to an integer.
    const ROUND: f32 = 12_582_912.0;
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = (x - n * 0.693_359_4) + n * 2.121_944_4e-4;
    let p = 1.987_569_1e-4_f32;
    let p = p * r + 1.398_199_9e-3;
    let p = p * r + 8.333_452e-3;
    let p = p * r + 4.166_579_6e-2;
    let p = p * r + 1.666_666_6e-1;
    let p = p * r + 0.5;
    let e = p * r * r + r + 1.0;
    // The low bits of `shifted` are n.
    let scale = f32::from_bits((shifted.to_bits().wrapping_add(127)) << 23);
    e * scale
}

/// Within 1.5e-7.
#[inline(always)]
fn tanh(x: f32) -> f32 {
    1.0 - 2.0 / (exp(2.0 * x) + 1.0)
}

/// The error function, within 1.5e-7 (Abramowitz and Stegun, 7.1.26).
#[inline(always)]
fn erf(x: f32) -> f32 {
    let a = x.abs();
    let t = 1.0 / (1.0 + 0.327_591_1 * a);
    let p = 1.061_405_4_f32;
    let p = p * t - 1.453_152;
    let p = p * t + 1.421_413_7;
    let p = p * t - 0.284_496_74;
    let p = p * t + 0.254_829_6;
    let y = 1.0 - p * t * exp(-a * a);
    y.copysign(x)
}

struct Activate(Activation);

impl CustomOp1 for Activate {
    fn name(&self) -> &'static str {
        "activate"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let mut values = contiguous(x, layout)?.to_vec();
        self.0.apply_to(&mut values);
        Ok((CpuStorage::F32(values), layout.shape().clone()))
    }
}

/// Scales each row to a mean of 0 and a variance of 1, and then by weights.
#[derive(Clone, Debug)]
pub struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
    epsilon: f64,
}

impl LayerNorm {
    /// Of `[width]` weights, and a bias or zeros.
    pub fn new(weight: Tensor, bias: Option<Tensor>, epsilon: f64) -> Result<Self> {
        let bias = match bias {
            Some(bias) => bias,
            None => weight.zeros_like()?,
        };
        if weight.dims1()? != bias.dims1()? {
            bail!(
                "a norm of {:?} weights and {:?} biases",
                weight.dims(),
                bias.dims()
            );
        }
        Ok(Self {
            weight: weight.contiguous()?,
            bias: bias.contiguous()?,
            epsilon,
        })
    }

    /// Of rows `[rows, width]`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        if x.device().is_cpu() {
            return x.apply_op1_no_bwd(&Normalize(self));
        }
        candle_nn::ops::layer_norm(x, &self.weight, &self.bias, self.epsilon as f32)
    }

    /// Of `x + residual`.
    pub fn forward_sum(&self, x: &Tensor, residual: &Tensor) -> Result<Tensor> {
        if x.device().is_cpu() {
            return x.apply_op2_no_bwd(residual, &Normalize(self));
        }
        self.forward(&add(x, residual)?)
    }

    fn rows(&self, mut values: Vec<f32>, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (_, width) = layout.shape().dims2()?;
        let (weight, weight_layout) = self.weight.storage_and_layout();
        let (bias, bias_layout) = self.bias.storage_and_layout();
        let weight = contiguous(cpu(&weight)?, weight_layout)?;
        let bias = contiguous(cpu(&bias)?, bias_layout)?;
        if weight.len() != width || bias.len() != width || width == 0 {
            bail!("rows of {width} numbers for a norm of {}", weight.len());
        }
        let epsilon = self.epsilon as f32;
        Arch::new().dispatch(
            #[inline(always)]
            || {
                for row in values.chunks_exact_mut(width) {
                    let mean = sum(row, |x| x) / width as f32;
                    let variance = sum(row, |x| (x - mean) * (x - mean)) / width as f32;
                    let scale = 1.0 / (variance + epsilon).sqrt();
                    for ((x, weight), bias) in row.iter_mut().zip(weight).zip(bias) {
                        *x = (*x - mean) * scale * weight + bias;
                    }
                }
            },
        );
        Ok((CpuStorage::F32(values), layout.shape().clone()))
    }
}

/// In lanes, which the compiler may not do by itself.
#[inline(always)]
pub(super) fn sum(values: &[f32], each: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0.0_f32; LANES];
    let (chunks, rest) = values.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane += each(*value);
        }
    }
    let of_rest: f32 = rest.iter().map(|value| each(*value)).sum();
    lanes.iter().sum::<f32>() + of_rest
}

pub(super) fn cpu(storage: &candle_core::Storage) -> Result<&CpuStorage> {
    match storage {
        candle_core::Storage::Cpu(storage) => Ok(storage),
        _ => bail!("weights and rows are on different devices"),
    }
}

/// The sum of two tensors of the same shape.
pub fn add(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    match a.device().is_cpu() {
        true => a.apply_op2_no_bwd(b, &Add),
        false => a + b,
    }
}

struct Add;

impl CustomOp2 for Add {
    fn name(&self) -> &'static str {
        "add"
    }

    fn cpu_fwd(
        &self,
        a: &CpuStorage,
        a_layout: &Layout,
        b: &CpuStorage,
        b_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let sums = sums((a, a_layout), (b, b_layout))?;
        Ok((CpuStorage::F32(sums), a_layout.shape().clone()))
    }
}

fn sums(
    (a, a_layout): (&CpuStorage, &Layout),
    (b, b_layout): (&CpuStorage, &Layout),
) -> Result<Vec<f32>> {
    let (a, b) = (contiguous(a, a_layout)?, contiguous(b, b_layout)?);
    if a.len() != b.len() {
        bail!("{} numbers are added to {}", b.len(), a.len());
    }
    Ok(a.iter().zip(b).map(|(a, b)| a + b).collect())
}

struct Normalize<'a>(&'a LayerNorm);

impl CustomOp1 for Normalize<'_> {
    fn name(&self) -> &'static str {
        "layer_norm"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        self.0.rows(contiguous(x, layout)?.to_vec(), layout)
    }
}

impl CustomOp2 for Normalize<'_> {
    fn name(&self) -> &'static str {
        "add_layer_norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        layout: &Layout,
        residual: &CpuStorage,
        residual_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.0
            .rows(sums((x, layout), (residual, residual_layout))?, layout)
    }
}

/// Two products with an activation between them. Where it is gated, the first gives twice as many numbers,
/// and the second half is multiplied with the activation of the first.
#[derive(Clone, Debug)]
pub struct FeedForward {
    /// `[middle, width]`, or `[2 middle, width]` where it is gated.
    pub up: Dense,
    /// `[width, middle]`
    pub down: Dense,
    /// Between them.
    pub activation: Activation,
    /// See above.
    pub gated: bool,
}

impl FeedForward {
    /// Of rows `[rows, width]`. On the processor the middle of a few hundred rows at a time is in memory.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        if x.device().is_cpu() {
            return x.apply_op1_no_bwd(&Feed(self));
        }
        let middle = self.up.forward(x)?;
        let middle = if self.gated {
            let half = self.up.outputs() / 2;
            let gate = middle.narrow(D::Minus1, half, half)?;
            (self.activation.apply(&middle.narrow(D::Minus1, 0, half)?)? * gate)?
        } else {
            self.activation.apply(&middle)?
        };
        self.down.forward(&middle)
    }
}

struct Feed<'a>(&'a FeedForward);

impl CustomOp1 for Feed<'_> {
    fn name(&self) -> &'static str {
        "feed_forward"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let FeedForward {
            up,
            down,
            activation,
            gated,
        } = self.0;
        let (rows, width) = layout.shape().dims2()?;
        let (wide, middle) = (up.outputs(), down.inputs());
        if up.inputs() != width || wide != if *gated { 2 * middle } else { middle } {
            bail!(
                "rows of {width} numbers through {} x {wide} and {middle}",
                up.inputs()
            );
        }
        let x = contiguous(x, layout)?;
        let outputs = down.outputs();
        let mut out = vec![0.0; rows * outputs];
        let part = (MIDDLE_NUMBERS / wide.max(1)).clamp(1, rows.max(1));
        with_scratch(part * wide, |scratch| {
            let parts = x.chunks(part * width).zip(out.chunks_mut(part * outputs));
            for (x, out) in parts {
                let rows = x.len() / width;
                let between = scratch.get_mut(..rows * wide).unwrap_or_default();
                up.multiply(x, width, between)?;
                if *gated {
                    for row in between.chunks_exact_mut(wide) {
                        let (value, gate) = row.split_at_mut(middle);
                        activation.apply_to(value);
                        for (value, gate) in value.iter_mut().zip(gate) {
                            *value *= *gate;
                        }
                    }
                } else {
                    activation.apply_to(between);
                }
                down.multiply(between, wide, out)?;
            }
            Ok((CpuStorage::F32(out), Shape::from((rows, outputs))))
        })
    }
}

/// The mean of each text's rows, `[texts, width]`.
pub fn means(x: &Tensor, lengths: &Lengths) -> Result<Tensor> {
    if x.device().is_cpu() {
        return x.apply_op1_no_bwd(&Means(lengths));
    }
    let mut means = Vec::with_capacity(lengths.as_slice().len());
    let mut start = 0;
    for &length in lengths.as_slice() {
        means.push(x.narrow(0, start, length)?.mean_keepdim(0)?);
        start += length;
    }
    Tensor::cat(&means, 0)
}

struct Means<'a>(&'a Lengths);

impl CustomOp1 for Means<'_> {
    fn name(&self) -> &'static str {
        "means"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (_, width) = layout.shape().dims2()?;
        let lengths = self.0.as_slice();
        let mut rows = contiguous(x, layout)?.chunks_exact(width.max(1));
        let mut means = vec![0.0; lengths.len() * width];
        for (mean, &length) in means.chunks_exact_mut(width.max(1)).zip(lengths) {
            for row in rows.by_ref().take(length) {
                for (mean, x) in mean.iter_mut().zip(row) {
                    *mean += x;
                }
            }
            for mean in mean {
                *mean /= length as f32;
            }
        }
        Ok((CpuStorage::F32(means), Shape::from((lengths.len(), width))))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::model::matmul::tests::random;

    #[test]
    fn exponential_and_error_function_are_close() {
        for at in -8_000..=8_000 {
            let x = at as f32 / 100.0;
            let (found, expected) = (f64::from(exp(x)), f64::from(x).exp());
            assert!(
                (found / expected - 1.0).abs() < 5e-7,
                "exp({x}) = {found}, not {expected}"
            );
        }
        // The values of the error function are those of a table.
        for (x, expected) in [
            (0.0, 0.0),
            (0.1, 0.112_462_92),
            (0.5, 0.520_499_9),
            (1.0, 0.842_700_8),
            (2.0, 0.995_322_3),
            (4.0, 1.0),
        ] {
            assert!((erf(x) - expected).abs() < 5e-7, "erf({x}) = {}", erf(x));
            assert!((erf(-x) + expected).abs() < 5e-7, "erf(-{x}) = {}", erf(-x));
        }
    }

    #[test]
    fn norms_are_those_of_the_stock_operation() {
        let (rows, width) = (5, 37);
        let tensor = |seed, shape: &[usize]| {
            Tensor::from_vec(random(shape.iter().product(), seed), shape, &Device::Cpu).unwrap()
        };
        let (x, residual) = (tensor(1, &[rows, width]), tensor(2, &[rows, width]));
        let (weight, bias) = (tensor(3, &[width]), tensor(4, &[width]));
        let norm = LayerNorm::new(weight.clone(), Some(bias.clone()), 1e-5).unwrap();
        let sum = (&x + &residual).unwrap();
        let stock = candle_nn::ops::layer_norm(&sum, &weight, &bias, 1e-5).unwrap();
        for fused in [
            norm.forward_sum(&x, &residual).unwrap(),
            norm.forward(&sum).unwrap(),
        ] {
            let most = (fused - &stock).unwrap().abs().unwrap().max_all().unwrap();
            assert!(most.to_scalar::<f32>().unwrap() < 1e-5);
        }
    }
}
