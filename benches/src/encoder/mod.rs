//! Text encoders beside each other: Milena's, stock Candle's, ONNX Runtime and PyTorch, on the same tokens.

pub mod arm;
pub mod cases;
pub mod milena;
#[cfg(feature = "stock-candle")]
pub mod stock;

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::statistics::median;

/// What one arm did with one case, a line of JSON.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Figure {
    /// Which texts.
    pub case: String,
    /// How many of them at a time.
    pub batch: usize,
    /// In all.
    pub texts_per_second: f64,
    /// Of a batch.
    pub p50_ms: f64,
}

/// What is asked of an arm.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Of the model.
    pub folder: std::path::PathBuf,
    /// That work.
    pub threads: usize,
    /// How many texts at a time.
    pub batches: Vec<usize>,
    /// For each of them, and what is left of its texts then.
    pub time: Duration,
}

/// Runs a case batch by batch, all of it as often as there is time: how many texts a second, and the time of each batch in
/// milliseconds. A first batch does not count.
pub fn run(
    texts: &[Vec<u32>],
    batch: usize,
    time: Duration,
    mut infer: impl FnMut(&[Vec<u32>]) -> anyhow::Result<()>,
) -> anyhow::Result<(f64, Vec<f64>)> {
    infer(&texts[..batch.min(texts.len())])?;
    let (mut times, mut passes) = (Vec::new(), 0);
    let began = Instant::now();
    while began.elapsed() < time || passes == 0 {
        for part in texts.chunks(batch) {
            let started = Instant::now();
            infer(part)?;
            times.push(started.elapsed().as_secs_f64() * 1e3);
        }
        passes += 1;
    }
    let done = passes * texts.len();
    Ok((done as f64 / began.elapsed().as_secs_f64(), times))
}

/// As a line of output.
pub fn tell(case: &str, batch: usize, texts_per_second: f64, times: &[f64]) -> anyhow::Result<()> {
    let figure = Figure {
        case: case.to_owned(),
        batch,
        texts_per_second,
        p50_ms: median(times),
    };
    println!("{}", serde_json::to_string(&figure)?);
    Ok(())
}
