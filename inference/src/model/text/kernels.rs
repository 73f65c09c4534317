//! What an encoder does beside multiplying: fused, on the calling thread, in one pass over memory.
//!
//! Each is one function of tensors. On the processor it is a custom operation written here; elsewhere it
//! is put together from the device's own operations, so that the networks above have one path.
//!
//! Loops over slices go through [`pulp`], which compiles them for each width of vectors and picks one when
//! the program runs.

use std::cell::RefCell;

use candle_core::{CpuStorage, CustomOp1, CustomOp2, D, Layout, Result, Shape, Tensor, bail};
use gemm::Parallelism;
use pulp::Arch;

use super::super::dense::{Dense, contiguous};
use super::packed::Lengths;

/// Numbers of a feed-forward layer's middle that are worked on together: they stay in the cache.
const MIDDLE_NUMBERS: usize = 256 * 1024;
/// Sums are kept in so many lanes, as wide as the widest vector.
const LANES: usize = 16;

thread_local! {
    /// What a kernel needs for as long as it runs.
    static SCRATCH: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// Runs with `len` numbers of this thread's scratch memory, of any value.
fn with_scratch<T>(len: usize, run: impl FnOnce(&mut [f32]) -> T) -> T {
    SCRATCH.with_borrow_mut(|scratch| {
        if scratch.len() < len {
            scratch.resize(len, 0.0);
        }
        run(scratch.get_mut(..len).unwrap_or_default())
    })
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
fn exp(x: f32) -> f32 {
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
fn sum(values: &[f32], each: impl Fn(f32) -> f32) -> f32 {
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

fn cpu(storage: &candle_core::Storage) -> Result<&CpuStorage> {
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

/// How tokens look at each other.
#[derive(Clone, Debug)]
pub struct Attention {
    /// Heads, between which the width is divided.
    pub heads: usize,
    /// How far a token looks to each side; everywhere without one.
    pub window: Option<usize>,
    /// Rotates queries and keys by their position.
    pub rotary: Option<Rotary>,
}

/// Cosines and sines by position, `[positions, head / 2]`.
#[derive(Clone, Debug)]
pub struct Rotary {
    cos: Tensor,
    sin: Tensor,
}

impl Rotary {
    /// For so many positions of heads of `size` numbers.
    pub fn new(
        theta: f64,
        size: usize,
        positions: usize,
        device: &candle_core::Device,
    ) -> Result<Self> {
        let half = size / 2;
        let angles: Vec<f64> = (0..positions)
            .flat_map(|position| {
                (0..half).map(move |at| position as f64 / theta.powf(2.0 * at as f64 / size as f64))
            })
            .collect();
        let tensor = |of: fn(f64) -> f64| {
            let values: Vec<f32> = angles.iter().map(|angle| of(*angle) as f32).collect();
            Tensor::from_vec(values, (positions, half), device)
        };
        Ok(Self {
            cos: tensor(f64::cos)?,
            sin: tensor(f64::sin)?,
        })
    }
}

impl Attention {
    /// Of queries, keys and values side by side, `[tokens, 3 width]`, of texts one after another.
    pub fn forward(&self, qkv: &Tensor, lengths: &Lengths) -> Result<Tensor> {
        if qkv.device().is_cpu() {
            return qkv.apply_op1_no_bwd(&Attend {
                attention: self,
                lengths,
            });
        }
        let mut outs = Vec::with_capacity(lengths.as_slice().len());
        let mut start = 0;
        for &length in lengths.as_slice() {
            outs.push(self.of_text(&qkv.narrow(0, start, length)?)?);
            start += length;
        }
        Tensor::cat(&outs, 0)
    }

    /// From a device's own operations.
    fn of_text(&self, qkv: &Tensor) -> Result<Tensor> {
        let (tokens, wide) = qkv.dims2()?;
        let size = wide / 3 / self.heads;
        let parts = qkv
            .reshape((tokens, 3, self.heads, size))?
            .permute((1, 2, 0, 3))?;
        let part = |at| parts.get(at)?.contiguous();
        let (mut q, mut k, v) = (part(0)?, part(1)?, part(2)?);
        if let Some(rotary) = &self.rotary {
            let (cos, sin) = (
                rotary.cos.narrow(0, 0, tokens)?,
                rotary.sin.narrow(0, 0, tokens)?,
            );
            let rotate =
                |x: &Tensor| candle_nn::rotary_emb::rope(&x.unsqueeze(0)?, &cos, &sin)?.squeeze(0);
            (q, k) = (rotate(&q)?, rotate(&k)?);
        }
        let mut scores = (q.matmul(&k.t()?)? / (size as f64).sqrt())?;
        if let Some(window) = self.window {
            let hidden = |i: usize, j: usize| {
                if i.abs_diff(j) > window {
                    f32::NEG_INFINITY
                } else {
                    0.0
                }
            };
            let mask: Vec<f32> = (0..tokens)
                .flat_map(|i| (0..tokens).map(move |j| hidden(i, j)))
                .collect();
            let mask = Tensor::from_vec(mask, (tokens, tokens), qkv.device())?;
            scores = scores.broadcast_add(&mask)?;
        }
        let shares = candle_nn::ops::softmax_last_dim(&scores)?;
        shares
            .matmul(&v)?
            .transpose(0, 1)?
            .reshape((tokens, wide / 3))
    }
}

struct Attend<'a> {
    attention: &'a Attention,
    lengths: &'a Lengths,
}

impl CustomOp1 for Attend<'_> {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn cpu_fwd(&self, qkv: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let heads = self.attention.heads;
        let (tokens, wide) = layout.shape().dims2()?;
        let width = wide / 3;
        let lengths = self.lengths.as_slice();
        if heads == 0 || width == 0 || wide != 3 * width || !width.is_multiple_of(heads) {
            bail!("{wide} numbers are not queries, keys and values of {heads} heads");
        }
        if lengths.iter().sum::<usize>() != tokens {
            bail!(
                "texts of {} tokens in {tokens}",
                lengths.iter().sum::<usize>()
            );
        }
        let qkv = contiguous(qkv, layout)?;
        let rotated = match &self.attention.rotary {
            Some(rotary) => rotary.rotate(qkv, lengths, heads, width / heads)?,
            None => Vec::new(),
        };
        let qkv = if rotated.is_empty() { qkv } else { &rotated };
        let longest = lengths.iter().copied().max().unwrap_or(0);
        let mut out = vec![0.0; tokens * width];
        with_scratch(longest * longest, |scores| {
            let (mut from, mut to) = (qkv, out.as_mut_slice());
            for &length in lengths {
                let (text, from_rest) = from.split_at(length * wide);
                let (of_text, to_rest) = to.split_at_mut(length * width);
                for head in 0..heads {
                    self.head(text, of_text, scores, length, head, width);
                }
                (from, to) = (from_rest, to_rest);
            }
        });
        Ok((CpuStorage::F32(out), Shape::from((tokens, width))))
    }
}

impl Attend<'_> {
    /// One head of one text: `text` is `[length, 3 width]`, `out` `[length, width]`.
    fn head(
        &self,
        text: &[f32],
        out: &mut [f32],
        scores: &mut [f32],
        length: usize,
        head: usize,
        width: usize,
    ) {
        let size = width / self.attention.heads;
        let at = head * size;
        let wide = 3 * width;
        let scores = &mut scores[..length * length];
        assert!(text.len() == length * wide && out.len() == length * width);
        // SAFETY: queries, keys and values are `length` rows of `size` numbers, `wide` apart, that begin at
        // `at`, `width + at` and `2 width + at` of a slice of `length * wide`, with `at + size <= width`.
        // The scores are `length` rows of `length`, and do not alias.
        unsafe {
            multiply(
                (length, length, size),
                (scores.as_mut_ptr(), length),
                (text.as_ptr().add(at), wide, 1),
                (text.as_ptr().add(width + at), 1, wide),
                1.0 / (size as f32).sqrt(),
            );
        }
        self.softmax(scores, length);
        // SAFETY: as above; the output is `length` rows of `size` numbers, `width` apart, from `at` on.
        unsafe {
            multiply(
                (length, size, length),
                (out.as_mut_ptr().add(at), width),
                (scores.as_ptr(), length, 1),
                (text.as_ptr().add(2 * width + at), wide, 1),
                1.0,
            );
        }
    }

    fn softmax(&self, scores: &mut [f32], length: usize) {
        let window = self.attention.window.unwrap_or(usize::MAX);
        Arch::new().dispatch(
            #[inline(always)]
            || {
                for (token, row) in scores.chunks_exact_mut(length.max(1)).enumerate() {
                    let first = token.saturating_sub(window);
                    let last = token.saturating_add(window).min(length - 1);
                    row[..first].fill(0.0);
                    row[last + 1..].fill(0.0);
                    softmax(&mut row[first..=last]);
                }
            },
        );
    }
}

#[inline(always)]
fn softmax(row: &mut [f32]) {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = row.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane = lane.max(*value);
        }
    }
    let largest = lanes
        .iter()
        .chain(rest)
        .copied()
        .fold(f32::NEG_INFINITY, f32::max);
    for value in row.iter_mut() {
        *value = exp(*value - largest);
    }
    let scale = 1.0 / sum(row, |x| x);
    for value in row.iter_mut() {
        *value *= scale;
    }
}

impl Rotary {
    /// A copy with queries and keys rotated: the first half of a head's numbers with the second.
    fn rotate(
        &self,
        qkv: &[f32],
        lengths: &[usize],
        heads: usize,
        size: usize,
    ) -> Result<Vec<f32>> {
        let (cos, cos_layout) = self.cos.storage_and_layout();
        let (sin, sin_layout) = self.sin.storage_and_layout();
        let cos = contiguous(cpu(&cos)?, cos_layout)?;
        let sin = contiguous(cpu(&sin)?, sin_layout)?;
        let half = size / 2;
        let longest = lengths.iter().copied().max().unwrap_or(0);
        if longest * half > cos.len() || size != 2 * half {
            bail!(
                "a text of {longest} tokens, and positions for {}",
                cos.len() / half.max(1)
            );
        }
        let mut rotated = qkv.to_vec();
        let mut rows = rotated.chunks_exact_mut(3 * heads * size);
        for &length in lengths {
            for (position, row) in rows.by_ref().take(length).enumerate() {
                let cos = &cos[position * half..][..half];
                let sin = &sin[position * half..][..half];
                // Queries, and behind them keys.
                for head in row[..2 * heads * size].chunks_exact_mut(size) {
                    let (a, b) = head.split_at_mut(half);
                    for (((a, b), cos), sin) in a.iter_mut().zip(b).zip(cos).zip(sin) {
                        (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
                    }
                }
            }
        }
        Ok(rotated)
    }
}

/// `out = scale * a b` for `a` of m x k and `b` of k x n. `out` has its rows so far apart, the others their
/// rows and their columns.
///
/// # Safety
///
/// All elements that this names are within one allocation each, `a`'s and `b`'s are initialized, and `out`'s
/// are not read or written by anybody else.
unsafe fn multiply(
    (m, n, k): (usize, usize, usize),
    (out, out_rows): (*mut f32, usize),
    (a, a_rows, a_columns): (*const f32, usize, usize),
    (b, b_rows, b_columns): (*const f32, usize, usize),
    scale: f32,
) {
    // SAFETY: the caller's.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out,
            1,
            out_rows as isize,
            false,
            a,
            a_columns as isize,
            a_rows as isize,
            b,
            b_columns as isize,
            b_rows as isize,
            0.0_f32,
            scale,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

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

    fn random(count: usize, seed: u64) -> Vec<f32> {
        let mut state = seed;
        let mut next = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            ((state >> 40) as f32 / (1 << 24) as f32) * 2.0 - 1.0
        };
        (0..count).map(|_| next()).collect()
    }

    /// The fused operations and candle's own agree, for texts of several lengths.
    #[test]
    fn attention_is_that_of_the_stock_operations() {
        let (heads, size) = (3, 8);
        let width = heads * size;
        let lengths = Lengths::new(vec![1, 17, 5, 40]);
        let tokens = 63;
        let qkv = Tensor::from_vec(
            random(tokens * 3 * width, 1),
            (tokens, 3 * width),
            &Device::Cpu,
        )
        .unwrap();
        for window in [None, Some(4)] {
            for with_rotary in [false, true] {
                let rotary =
                    with_rotary.then(|| Rotary::new(10_000.0, size, 64, &Device::Cpu).unwrap());
                let attention = Attention {
                    heads,
                    window,
                    rotary,
                };
                let fused = attention.forward(&qkv, &lengths).unwrap();
                let mut start = 0;
                for &length in lengths.as_slice() {
                    let stock = attention
                        .of_text(&qkv.narrow(0, start, length).unwrap())
                        .unwrap();
                    let difference = (fused.narrow(0, start, length).unwrap() - stock).unwrap();
                    let most = difference
                        .abs()
                        .unwrap()
                        .max_all()
                        .unwrap()
                        .to_scalar::<f32>()
                        .unwrap();
                    assert!(
                        most < 1e-5,
                        "{most} with window {window:?} and rotary {with_rotary}"
                    );
                    start += length;
                }
            }
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
