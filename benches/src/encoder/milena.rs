//! Milena's encoder: as many threads as are asked for, each with a batch at a time.

use anyhow::Context;
use candle_core::Device;
use inference::model::text::{Pooling, TextModel, TextTask, Tokens};

use super::cases::Cases;
use super::{Asked, run, tell};

/// Tells of all cases.
pub fn serve(asked: &Asked, cases: &Cases) -> anyhow::Result<()> {
    let task = TextTask::Embed {
        pooling: Pooling::Mean,
        normalize: true,
    };
    let model = TextModel::read(&asked.folder, task, &Device::Cpu).context("the model")?;
    let infer = |texts: &[Vec<u32>]| {
        let mut tokens = Tokens::default();
        texts.iter().for_each(|text| tokens.push(text));
        model.forward(&tokens)?;
        Ok(())
    };
    for (case, texts) in cases {
        for &batch in &asked.batches {
            // Each begins with other texts.
            let shares = (0..asked.threads).map(|thread| {
                let (before, after) = texts.split_at(texts.len() * thread / asked.threads);
                [after, before].concat()
            });
            let shares: Vec<Vec<Vec<u32>>> = shares.collect();
            let results = std::thread::scope(|scope| {
                let threads: Vec<_> = shares
                    .iter()
                    .map(|texts| scope.spawn(|| run(texts, batch, asked.time, infer)))
                    .collect();
                let joined = threads.into_iter().map(|thread| thread.join());
                joined
                    .map(|result| result.expect("a thread that embeds"))
                    .collect::<anyhow::Result<Vec<_>>>()
            })?;
            let rate = results.iter().map(|(rate, _)| rate).sum();
            let times: Vec<f64> = results.into_iter().flat_map(|(_, times)| times).collect();
            tell(case, batch, rate, &times)?;
        }
    }
    Ok(())
}
