//! MiniLM by Milena, ONNX Runtime, PyTorch and stock Candle: the same tokens, the same number of threads, by turns
//! in one run.
//!
//! ```sh
//! cargo run --release -p benches --features stock-candle --bin encoder
//! ```
//!
//! It fetches the model (`tests/minilm/fetch`) and Python's packages (`benches/versus/python`). Texts have 20 or
//! 128 tokens each, or are 128 of `tests/minilm/texts.txt`, as they come and sorted by their length; Milena
//! packs what the others pad. Of each case the table has the texts in a second at each arm's best batch, and
//! the median time of a text by itself, medians of the rounds, and what Milena's are of the others', medians of
//! the rounds' ratios.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use benches::encoder::arm::{ARMS, Arm};
use benches::encoder::cases::{Cases, cases};
use benches::encoder::{Asked, Figure, milena};
use benches::statistics::{median, ratios};
use benches::versus::model::minilm;
use clap::Parser;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Debug, Parser)]
struct Options {
    /// Another BERT's folder, with model.onnx.
    #[arg(long)]
    model: Option<PathBuf>,
    /// Threads.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 2])]
    threads: Vec<usize>,
    /// Texts at a time, of which the best counts.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 8, 32])]
    batches: Vec<usize>,
    /// For each case and batch.
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// How often all arms have their turn.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Is this arm, and not all of them.
    #[arg(long, hide = true)]
    arm: Option<String>,
    /// What such an arm is given.
    #[arg(long, hide = true)]
    cases: Option<PathBuf>,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    match (&options.arm, &options.cases, &options.model) {
        (Some(arm), Some(cases), Some(folder)) => {
            let cases: Cases = read(cases)?;
            let asked = options.asked(folder.clone(), options.threads[0]);
            match arm.as_str() {
                "milena" => milena::serve(&asked, &cases),
                #[cfg(feature = "stock-candle")]
                "candle" => benches::encoder::stock::serve(&asked, &cases),
                other => anyhow::bail!("there is no arm {other:?} in this build"),
            }
        }
        _ => compare(&options),
    }
}

impl Options {
    fn asked(&self, folder: PathBuf, threads: usize) -> Asked {
        Asked {
            folder,
            threads,
            batches: self.batches.clone(),
            time: Duration::from_secs_f64(self.seconds),
        }
    }
}

/// As Python has them: an object.
fn read(path: &PathBuf) -> anyhow::Result<Cases> {
    let json = std::fs::read(path).context("the cases")?;
    let object: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&json)?;
    object
        .into_iter()
        .map(|(case, texts)| Ok((case, serde_json::from_value(texts)?)))
        .collect()
}

/// By round, the figures of an arm with so many threads.
struct Measured {
    arm: &'static str,
    threads: usize,
    rounds: Vec<Vec<Figure>>,
}

impl Measured {
    /// At the best batch of each round.
    fn rates(&self, case: &str) -> Vec<Option<f64>> {
        let best = |round: &Vec<Figure>| {
            let of_case = round.iter().filter(|figure| figure.case == case);
            of_case
                .map(|figure| figure.texts_per_second)
                .reduce(f64::max)
        };
        self.rounds.iter().map(best).collect()
    }

    fn times(&self, case: &str) -> Vec<Option<f64>> {
        let alone = |round: &Vec<Figure>| {
            let found = round.iter().find(|f| f.case == case && f.batch == 1);
            found.map(|figure| figure.p50_ms)
        };
        self.rounds.iter().map(alone).collect()
    }
}

fn compare(options: &Options) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let model = match &options.model {
        Some(model) => model.clone(),
        None => minilm::with_onnx(folder.path())?,
    };
    let cases = cases(&model)?;
    let path = folder.path().join("cases.json");
    let object: serde_json::Map<String, serde_json::Value> = cases
        .iter()
        .map(|(case, texts)| (case.clone(), serde_json::json!(texts)))
        .collect();
    std::fs::write(&path, serde_json::to_vec(&object)?)?;
    let arms: Vec<(&str, Arm)> = ARMS
        .into_iter()
        .filter(|(_, arm)| *arm != Arm::StockCandle || cfg!(feature = "stock-candle"))
        .collect();
    let mut measured: Vec<Measured> = Vec::new();
    for &threads in &options.threads {
        for (arm, _) in &arms {
            measured.push(Measured {
                arm,
                threads,
                rounds: Vec::new(),
            });
        }
    }
    for round in 1..=options.rounds {
        for measured in &mut measured {
            eprintln!(
                "round {round}: {} with {} threads",
                measured.arm, measured.threads
            );
            let asked = options.asked(model.clone(), measured.threads);
            let arm = arms.iter().find(|(name, _)| *name == measured.arm);
            let (_, arm) = arm.context("an arm")?;
            measured.rounds.push(arm.measure(&asked, &path)?);
        }
    }
    print(&cases, &measured);
    Ok(())
}

fn print(cases: &Cases, measured: &[Measured]) {
    println!(
        "| texts | threads | arm | texts/s | milena's / its | p50 of one text, ms | milena's / its |\n\
         |---|---|---|---|---|---|---|"
    );
    for (case, _) in cases {
        for found in measured {
            let ours = measured
                .iter()
                .find(|other| other.arm == "milena" && other.threads == found.threads);
            let ratio = |of: fn(&Measured, &str) -> Vec<Option<f64>>| {
                let ratios = ours.map(|ours| ratios(&of(ours, case), &of(found, case)));
                median(&ratios.unwrap_or_default())
            };
            let middle = |values: Vec<Option<f64>>| {
                median(&values.into_iter().flatten().collect::<Vec<f64>>())
            };
            println!(
                "| {case} | {} | {} | {:.1} | {:.2} | {:.2} | {:.2} |",
                found.threads,
                found.arm,
                middle(found.rates(case)),
                ratio(Measured::rates),
                middle(found.times(case)),
                ratio(Measured::times),
            );
        }
    }
}
