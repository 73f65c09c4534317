//! Rows through a network of tensors, on the calling thread alone.

use candle_core::{Device, Tensor};

use super::{Footprint, InferError, Rows, Takes};

/// Elements of a tensor from which candle splits elementwise operations over a pool of its own, whose
/// threads spin (`PAR_ELEMWISE_MIN` in its `cpu_backend`). Staying below it also keeps what a layer
/// works on in the processor's cache.
const POOLED_ELEMENTS: usize = 64 * 1024;

const _: () = assert!(super::card::MAX_LAYER_WIDTH < POOLED_ELEMENTS);

/// Runs rows through a network whose widest layer or input is `widest`, in parts that candle does not
/// split.
pub(super) fn forward(
    rows: &Rows,
    widest: usize,
    output_width: usize,
    network: impl Fn(Tensor) -> candle_core::Result<Tensor>,
) -> Result<Rows, InferError> {
    let part_rows = ((POOLED_ELEMENTS - 1) / widest.max(1)).max(1);
    let part_values = part_rows.saturating_mul(rows.width().max(1));
    let mut all = Rows::new(output_width);
    for part in rows.values().chunks(part_values) {
        let count = part.len() / rows.width().max(1);
        let logits = Tensor::from_slice(part, (count, rows.width()), &Device::Cpu)
            .and_then(&network)
            .and_then(|logits| logits.flatten_all()?.to_vec1::<f32>())
            .map_err(|error| InferError(error.to_string()))?;
        if logits.len() != count * output_width {
            return Err(InferError(format!(
                "the model answered {count} rows with {} numbers, expected {output_width} for each",
                logits.len()
            )));
        }
        all.values_mut().extend(logits);
    }
    Ok(all)
}

/// Of a network that is run by [`forward`].
pub(super) fn footprint(weights: u64, takes: Takes, output_width: usize) -> Footprint {
    let width = match takes {
        Takes::Rows(width) => width,
        Takes::Tokens => 0,
    };
    Footprint {
        weights,
        // A layer's input, its output, and that with an activation.
        replica: 3 * 4 * POOLED_ELEMENTS as u64,
        // What a batch is put together of, the batch, and the same of the answers.
        record: 2 * 4 * (width + output_width) as u64,
        ..Footprint::default()
    }
}
