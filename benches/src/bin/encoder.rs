//! How fast a text encoder runs by itself, on one thread: texts of random tokens, of one length or of many.
//!
//! ```sh
//! cargo run --release -p benches --bin encoder -- FOLDER --length 20 --length 128
//! ```
//!
//! The folder is a Hugging Face one. Of each length the table has texts in a second at the best batch, and the
//! median time of a text by itself. GFLOP/s count the multiplications of the layers.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;
use benches::statistics::percentile;
use candle_core::Device;
use clap::Parser;
use inference::model::text::{Pooling, TextModel, TextTask, Tokens};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Debug, Parser)]
struct Options {
    /// The model's folder.
    folder: PathBuf,
    /// Tokens of each text.
    #[arg(long = "length", value_name = "TOKENS", default_values_t = [20, 128])]
    lengths: Vec<usize>,
    /// Texts in a batch.
    #[arg(long = "batch", value_name = "TEXTS", default_values_t = [1, 8, 32, 64])]
    batches: Vec<usize>,
    /// For each batch size.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let task = TextTask::Embed {
        pooling: Pooling::Mean,
        normalize: true,
    };
    let model = TextModel::read(&options.folder, task, &Device::Cpu).context("the model")?;
    println!(
        "| tokens | texts in a batch | texts/s | p50 of a batch, ms | GFLOP/s |\n|---|---|---|---|---|"
    );
    for &length in &options.lengths {
        for &texts in &options.batches {
            let batch = batch(texts, length, model.config().vocabulary);
            let times = run(&model, &batch, Duration::from_secs_f64(options.seconds))?;
            let p50 = percentile(&times, 0.5);
            let flops = flops(&model, texts, length);
            println!(
                "| {length} | {texts} | {:.1} | {p50:.2} | {:.0} |",
                texts as f64 / p50 * 1e3,
                flops / p50 / 1e6
            );
        }
    }
    Ok(())
}

fn batch(texts: usize, length: usize, vocabulary: usize) -> Tokens {
    let mut tokens = Tokens::default();
    for text in 0..texts {
        let ids: Vec<u32> = (0..length)
            .map(|at| ((text * 7919 + at * 104_729) % vocabulary) as u32)
            .collect();
        tokens.push(&ids);
    }
    tokens
}

/// Milliseconds of each run.
fn run(model: &TextModel, batch: &Tokens, time: Duration) -> anyhow::Result<Vec<f64>> {
    model.forward(batch)?;
    let began = Instant::now();
    let mut times = Vec::new();
    while began.elapsed() < time || times.len() < 3 {
        let started = Instant::now();
        model.forward(batch)?;
        times.push(started.elapsed().as_secs_f64() * 1e3);
    }
    Ok(times)
}

/// Of the layers' products and of attention.
fn flops(model: &TextModel, texts: usize, length: usize) -> f64 {
    let config = model.config();
    let (width, middle) = (config.width as f64, config.middle as f64);
    let of_token = 2.0 * (4.0 * width * width + 2.0 * width * middle) + 4.0 * width * length as f64;
    of_token * (texts * length * config.layers) as f64
}
