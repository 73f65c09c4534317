//! The BERT of candle-transformers, with padding and a mask, on candle's own threads.

use anyhow::Context;
use candle_core::{D, DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::bert::{BertModel, Config};

use super::cases::Cases;
use super::{Asked, run, tell};

/// Tells of all cases. The number of threads is the environment's (`RAYON_NUM_THREADS`).
pub fn serve(asked: &Asked, cases: &Cases) -> anyhow::Result<()> {
    let device = Device::Cpu;
    let config = std::fs::read(asked.folder.join("config.json")).context("config.json")?;
    let config: Config = serde_json::from_slice(&config)?;
    let weights = std::fs::read(asked.folder.join("model.safetensors")).context("the weights")?;
    let weights = VarBuilder::from_buffered_safetensors(weights, DType::F32, &device)?;
    let model = BertModel::load(weights, &config)?;
    for (case, texts) in cases {
        for &batch in &asked.batches {
            let (rate, times) = run(texts, batch, asked.time, |texts| {
                embed(&model, texts, &device)?;
                Ok(())
            })?;
            tell(case, batch, rate, &times)?;
        }
    }
    Ok(())
}

/// Normalized means.
fn embed(model: &BertModel, texts: &[Vec<u32>], device: &Device) -> candle_core::Result<Tensor> {
    let longest = texts.iter().map(Vec::len).max().unwrap_or(0);
    let padded = |of: fn(u32) -> u32| {
        let rows = texts.iter().flat_map(|text| {
            let ids = text.iter().copied().map(of);
            ids.chain(std::iter::repeat_n(0, longest - text.len()))
        });
        Tensor::from_vec(rows.collect(), (texts.len(), longest), device)
    };
    let (ids, mask) = (padded(|id| id)?, padded(|_| 1)?);
    let hidden = model.forward(&ids, &ids.zeros_like()?, Some(&mask))?;
    let weights = mask.to_dtype(DType::F32)?.unsqueeze(D::Minus1)?;
    let mean = hidden
        .broadcast_mul(&weights)?
        .sum(1)?
        .broadcast_div(&weights.sum(1)?)?;
    mean.broadcast_div(&mean.sqr()?.sum_keepdim(1)?.sqrt()?)
}
