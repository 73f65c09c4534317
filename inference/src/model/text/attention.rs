//! Attention of texts that are one after another, each within itself.
//!
//! On the processor it is one operation, head by head, whose scores stay in the cache; elsewhere it is put
//! together from the device's own operations.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, bail};
use pulp::Arch;

use super::kernels::{LANES, cpu, exp, sum, with_scratch};
use super::packed::Lengths;
use crate::model::dense::contiguous;
use crate::model::matmul::{Left, Panels, multiply, multiply_into, packed_len};

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
        let tensor = |of: fn(f64) -> f64| {
            let values = (0..positions).flat_map(|position| {
                (0..half).map(move |at| {
                    of(position as f64 / theta.powf(2.0 * at as f64 / size as f64)) as f32
                })
            });
            // Its length is known: what collects an iterator of iterators does not know it.
            let mut table = Vec::with_capacity(positions * half);
            table.extend(values);
            Tensor::from_vec(table, (positions, half), device)
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
        let size = width / heads.max(1);
        let mut out = vec![0.0; tokens * width];
        let keys = packed_len(size, longest);
        let values = packed_len(longest, size);
        with_scratch(longest * longest + keys + values, |scratch| {
            let (scores, scratch) = scratch.split_at_mut(longest * longest);
            let (keys, values) = scratch.split_at_mut(keys);
            let (mut from, mut to) = (qkv, out.as_mut_slice());
            for &length in lengths {
                let (text, from_rest) = from.split_at(length * wide);
                let (of_text, to_rest) = to.split_at_mut(length * width);
                let mut scratch = Scratch {
                    scores: &mut scores[..length * length],
                    keys: &mut keys[..packed_len(size, length)],
                    values: &mut values[..packed_len(length, size)],
                };
                for head in 0..heads {
                    self.head(text, of_text, &mut scratch, (length, width, head * size));
                }
                (from, to) = (from_rest, to_rest);
            }
        });
        Ok((CpuStorage::F32(out), Shape::from((tokens, width))))
    }
}

/// Of one head of one text.
struct Scratch<'a> {
    scores: &'a mut [f32],
    keys: &'a mut [f32],
    values: &'a mut [f32],
}

impl Attend<'_> {
    /// One head of one text, whose numbers begin `at`: `text` is `[length, 3 width]`, `out` `[length, width]`.
    fn head(
        &self,
        text: &[f32],
        out: &mut [f32],
        scratch: &mut Scratch<'_>,
        (length, width, at): (usize, usize, usize),
    ) {
        let size = width / self.attention.heads;
        let wide = 3 * width;
        let scale = 1.0 / (size as f32).sqrt();
        let keys = Panels::pack(scratch.keys, (size, length), |number, token| {
            scale * text[token * wide + width + at + number]
        });
        let queries = Left {
            values: &text[at..],
            rows: length,
            stride: wide,
        };
        multiply(queries, keys, &[], scratch.scores);
        self.softmax(scratch.scores, length);
        let values = Panels::pack(scratch.values, (length, size), |token, number| {
            text[token * wide + 2 * width + at + number]
        });
        let shares = Left {
            values: scratch.scores,
            rows: length,
            stride: length,
        };
        multiply_into(shares, values, &[], (&mut out[at..], width));
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

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::model::matmul::tests::random;

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
}
