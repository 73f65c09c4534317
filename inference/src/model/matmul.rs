//! Products of matrices, on the calling thread, with the widest vectors that the processor has.
//!
//! The right side is rearranged beforehand ([`Panels`]): a layer's weights once, when they are loaded. Libraries
//! do that at each product, which short texts one by one feel most. A tile of the result stays in registers until it is done; a panel and the rows that meet it stay in the cache.

use std::array::from_fn;

use pulp::{Arch, Simd, WithSimd};

/// Numbers of the left side that are gone through with one panel after another: they stay in the second cache.
const BLOCK_NUMBERS: usize = 64 * 1024;
/// Most rows of a tile; fewer where there are no registers for them.
const MAX_TILE_ROWS: usize = 12;
/// Columns of the widest panel.
const MAX_COLUMNS: usize = 32;

/// A matrix of `inner` rows, column by column in panels: two vectors of the first row, the same columns of the
/// second row, and so on. The last panel is filled up with zeros.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Panels<'a> {
    inner: usize,
    columns: usize,
    values: &'a [f32],
}

/// The left side, and the size of the result: rows of numbers that are `stride` apart.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Left<'a> {
    pub values: &'a [f32],
    pub rows: usize,
    pub stride: usize,
}

/// Columns of a panel.
pub(crate) fn panel_columns() -> usize {
    struct Columns;
    impl WithSimd for Columns {
        type Output = usize;

        #[inline(always)]
        fn with_simd<S: Simd>(self, _: S) -> usize {
            2 * S::F32_LANES
        }
    }
    Arch::new().dispatch(Columns)
}

/// How many numbers the panels of a matrix take.
pub(crate) fn packed_len(inner: usize, columns: usize) -> usize {
    inner * columns.next_multiple_of(panel_columns())
}

impl<'a> Panels<'a> {
    /// Arranges a matrix in `memory`, of [`packed_len`].
    pub(crate) fn pack(
        memory: &'a mut [f32],
        (inner, columns): (usize, usize),
        at: impl Fn(usize, usize) -> f32,
    ) -> Self {
        Self::pack_in(memory, panel_columns(), (inner, columns), at)
    }

    fn pack_in(
        memory: &'a mut [f32],
        of_panel: usize,
        (inner, columns): (usize, usize),
        at: impl Fn(usize, usize) -> f32,
    ) -> Self {
        for (panel, values) in memory
            .chunks_exact_mut((inner * of_panel).max(1))
            .enumerate()
        {
            let first = panel * of_panel;
            let there = columns.saturating_sub(first).min(of_panel);
            for (row, values) in values.chunks_exact_mut(of_panel).enumerate() {
                let (values, rest) = values.split_at_mut(there);
                for (column, value) in values.iter_mut().enumerate() {
                    *value = at(row, first + column);
                }
                rest.fill(0.0);
            }
        }
        Self::new(memory, (inner, columns))
    }

    /// Of what [`Self::pack`] has arranged.
    pub(crate) fn new(values: &'a [f32], (inner, columns): (usize, usize)) -> Self {
        Self {
            inner,
            columns,
            values,
        }
    }
}

/// `out = left right + bias`; zeros are added where the bias is empty. It is a row of whole panels. Rows of
/// `out` are as long as the right side has columns.
///
/// # Panics
///
/// Where a slice is shorter than that.
pub(crate) fn multiply(left: Left<'_>, right: Panels<'_>, bias: &[f32], out: &mut [f32]) {
    let stride = right.columns;
    multiply_into(left, right, bias, (out, stride));
}

/// The same, to rows that are `stride` apart.
pub(crate) fn multiply_into(
    left: Left<'_>,
    right: Panels<'_>,
    bias: &[f32],
    (out, stride): (&mut [f32], usize),
) {
    Arch::new().dispatch(Multiply {
        left,
        right,
        bias,
        out,
        stride,
    });
}

struct Multiply<'a> {
    left: Left<'a>,
    right: Panels<'a>,
    bias: &'a [f32],
    out: &'a mut [f32],
    stride: usize,
}

impl WithSimd for Multiply<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self {
            left,
            right,
            bias,
            out,
            stride,
        } = self;
        let Panels { inner, columns, .. } = right;
        let of_panel = 2 * S::F32_LANES;
        let (panels, _) = S::as_simd_f32s(right.values);
        // Two vectors for each row of a tile; three are needed beside them.
        let tile_rows = ((S::REGISTER_COUNT - 3) / 2).min(MAX_TILE_ROWS);
        let block = (BLOCK_NUMBERS / inner.max(1)).max(tile_rows);
        for block_start in (0..left.rows).step_by(block) {
            let rows = block.min(left.rows - block_start);
            let tiles = rows.div_ceil(tile_rows);
            for panel in 0..columns.div_ceil(of_panel) {
                let first = panel * of_panel;
                let there = of_panel.min(columns - first);
                let tile = Tile {
                    simd,
                    inner,
                    stride: left.stride,
                    panel: &panels[2 * panel * inner..][..2 * inner],
                    bias: if bias.is_empty() {
                        &[]
                    } else {
                        &bias[first..][..of_panel]
                    },
                };
                // Tiles of about the same height, since low ones wait for their own sums.
                for at in 0..tiles {
                    let (start, end) = (rows * at / tiles, rows * (at + 1) / tiles);
                    let row = block_start + start;
                    let left = &left.values[row * left.stride..];
                    let out = &mut out[row * stride + first..];
                    if there == of_panel {
                        tile.compute(end - start, left, out, stride);
                    } else {
                        let mut whole = [0.0; MAX_TILE_ROWS * MAX_COLUMNS];
                        tile.compute(end - start, left, &mut whole, of_panel);
                        for (at, row) in whole.chunks_exact(of_panel).take(end - start).enumerate()
                        {
                            out[at * stride..][..there].copy_from_slice(&row[..there]);
                        }
                    }
                }
            }
        }
    }
}

/// A panel, and what rows meet it with.
struct Tile<'a, S: Simd> {
    simd: S,
    inner: usize,
    /// Of the left side.
    stride: usize,
    panel: &'a [S::f32s],
    bias: &'a [f32],
}

impl<S: Simd> Tile<'_, S> {
    #[inline(always)]
    fn compute(&self, rows: usize, left: &[f32], out: &mut [f32], stride: usize) {
        match rows {
            1 => self.rows::<1>(left, out, stride),
            2 => self.rows::<2>(left, out, stride),
            3 => self.rows::<3>(left, out, stride),
            4 => self.rows::<4>(left, out, stride),
            5 => self.rows::<5>(left, out, stride),
            6 => self.rows::<6>(left, out, stride),
            7 => self.rows::<7>(left, out, stride),
            8 => self.rows::<8>(left, out, stride),
            9 => self.rows::<9>(left, out, stride),
            10 => self.rows::<10>(left, out, stride),
            11 => self.rows::<11>(left, out, stride),
            _ => self.rows::<MAX_TILE_ROWS>(left, out, stride),
        }
    }

    #[inline(always)]
    fn rows<const ROWS: usize>(&self, left: &[f32], out: &mut [f32], stride: usize) {
        let simd = self.simd;
        let inner = self.inner;
        let left: [&[f32]; ROWS] = from_fn(|row| &left[row * self.stride..][..inner]);
        let start = match S::as_simd_f32s(self.bias).0 {
            [first, second] => [*first, *second],
            _ => [simd.splat_f32s(0.0); 2],
        };
        let mut sums = [start; ROWS];
        let columns = &self.panel.as_chunks::<2>().0[..inner];
        for (at, [first, second]) in columns.iter().enumerate() {
            for (sums, left) in sums.iter_mut().zip(&left) {
                // SAFETY: `at` is below `inner`, which is the length of `columns` and of each row of `left`. The
                // compiler does not see that, and checking takes a fifth of the loop.
                let value = simd.splat_f32s(unsafe { *left.get_unchecked(at) });
                sums[0] = simd.mul_add_e_f32s(value, *first, sums[0]);
                sums[1] = simd.mul_add_e_f32s(value, *second, sums[1]);
            }
        }
        for (row, sums) in sums.iter().enumerate() {
            let (vectors, _) = S::as_mut_simd_f32s(&mut out[row * stride..][..2 * S::F32_LANES]);
            vectors.copy_from_slice(sums);
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::model) fn random(count: usize, seed: u64) -> Vec<f32> {
        let mut state = seed;
        let mut next = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            ((state >> 40) as f32 / (1 << 24) as f32) * 2.0 - 1.0
        };
        (0..count).map(|_| next()).collect()
    }

    /// With vectors of one number, and with those of this processor, in all shapes of tiles and panels.
    #[test]
    fn products_are_the_sums_of_products() {
        for (rows, inner, columns) in [
            (1, 1, 1),
            (1, 384, 16),
            (2, 7, 33),
            (5, 64, 31),
            (6, 3, 48),
            (13, 100, 65),
            (171, 384, 17),
            (400, 33, 5),
        ] {
            let stride = inner + 3;
            let left = random(rows * stride, 1);
            let right = random(inner * columns, 2);
            let bias = random(columns, 3);
            let expected: Vec<f32> = (0..rows * columns)
                .map(|at| {
                    let (row, column) = (at / columns, at % columns);
                    let products = (0..inner).map(|k| {
                        f64::from(left[row * stride + k]) * f64::from(right[k * columns + column])
                    });
                    (products.sum::<f64>() + f64::from(bias[column])) as f32
                })
                .collect();
            let left = Left {
                values: &left,
                rows,
                stride,
            };
            let check = |of_panel: usize, run: &dyn Fn(Multiply<'_>)| {
                let wide = columns.next_multiple_of(of_panel);
                let mut memory = vec![f32::NAN; inner * wide];
                let panels =
                    Panels::pack_in(&mut memory, of_panel, (inner, columns), |k, column| {
                        right[k * columns + column]
                    });
                let mut padded = bias.clone();
                padded.resize(wide, f32::NAN);
                let mut out = vec![f32::NAN; rows * columns];
                run(Multiply {
                    left,
                    right: panels,
                    bias: &padded,
                    out: &mut out,
                    stride: columns,
                });
                for (at, (found, expected)) in out.iter().zip(&expected).enumerate() {
                    assert!(
                        (found - expected).abs() < 5e-5,
                        "{rows} x {inner} x {columns}: {found} at {at}, not {expected}"
                    );
                }
            };
            check(2, &|product| pulp::Scalar::new().vectorize(product));
            check(panel_columns(), &|product| Arch::new().dispatch(product));
        }
    }
}
