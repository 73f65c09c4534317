//! What the broker's own clients feel of a text model that has more to do than it can: produce and fetch latency at a
//! fixed rate with and without it.
//!
//! ```sh
//! cargo run --release -p benches --bin beside_model
//! ```
//!
//! A broker has a topic `plain`, and a topic with a backlog of sentences. With the model, a model topic embeds the
//! backlog with MiniLM (whose weights are fetched) for as long as is measured; without, the same broker has no
//! model. `milena-load` produces to `plain` and reads from there: `produce` is from when a record is due to its
//! acknowledgement, `fetch` to when a consumer has it. Both by turns, each on a new broker; medians of the rounds, and
//! of the rounds' ratios.

use std::time::Duration;

use anyhow::{Context, ensure};
use benches::statistics::{median, ratios};
use benches::versus::load::Load;
use benches::versus::model::{backlog, minilm, workload::Workload};
use clap::Parser;
use clients::report::Latency;
use tests::{Milena, eventually};

const LOAD_TIMEOUT: Duration = Duration::from_secs(120);
/// More texts than any machine embeds meanwhile.
const BACKLOG: u64 = 40_000;

#[derive(Debug, Parser)]
struct Options {
    /// Records a second.
    #[arg(long, value_delimiter = ',', default_values_t = [1000, 10_000])]
    rates: Vec<u32>,
    /// Bytes of a record.
    #[arg(long, default_value = "1KiB")]
    size: String,
    /// Threads of the model.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 2])]
    workers: Vec<usize>,
    /// Of each measurement.
    #[arg(long, default_value_t = 10)]
    seconds: u32,
    /// How often all have their turn.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
}

/// Of one rate and number of workers (none: without the model), by round.
struct Measured {
    rate: u32,
    workers: usize,
    produce: Vec<Latency>,
    fetch: Vec<Latency>,
    texts_per_second: Vec<f64>,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let folder = tempfile::tempdir()?;
    let workload = Workload::text_for(folder.path(), minilm::fetched()?)?;
    let mut measured = Vec::new();
    for &rate in &options.rates {
        for workers in std::iter::once(0).chain(options.workers.iter().copied()) {
            measured.push(Measured {
                rate,
                workers,
                produce: Vec::new(),
                fetch: Vec::new(),
                texts_per_second: Vec::new(),
            });
        }
    }
    for round in 1..=options.rounds {
        for measured in &mut measured {
            eprintln!(
                "round {round}: {} records a second, {} workers",
                measured.rate, measured.workers
            );
            measure(&options, &workload, folder.path(), measured)?;
        }
    }
    print(&measured);
    Ok(())
}

fn measure(
    options: &Options,
    workload: &Workload,
    folder: &std::path::Path,
    measured: &mut Measured,
) -> anyhow::Result<()> {
    let mut milena = Milena::start(&format!(
        "[[topic]]\nname = \"plain\"\npartitions = 4\n\
         [[topic]]\nname = \"texts\"\npartitions = {}\n",
        backlog::PARTITIONS
    ));
    backlog::load(&milena.bootstrap(), "texts", workload, BACKLOG)?;
    let status = milena.stop();
    ensure!(status.success(), "milena ended with {status}");
    if measured.workers > 0 {
        milena.set_config(format!(
            "{}\n[[model]]\nname = \"minilm\"\nsource = {:?}\nworkers = {}\n\
             [[model_topic]]\nname = \"embedded\"\ninput = \"texts\"\nmodel = \"minilm\"\n{}",
            milena.config(),
            workload.model,
            measured.workers,
            workload.kind.config()
        ));
    }
    milena.restart();
    let embedded = || -> i64 {
        match measured.workers {
            0 => 0,
            _ => milena.ends("embedded").values().sum(),
        }
    };
    eventually("the model is at work", || {
        (measured.workers == 0 || embedded() > 0).then_some(())
    });
    let (rate, seconds) = (measured.rate.to_string(), options.seconds.to_string());
    let before = embedded();
    let report = Load::spawn(
        folder,
        &[
            "end-to-end",
            "--bootstrap",
            &milena.bootstrap(),
            "--topic",
            "plain",
            "--partitions",
            "4",
            "--rate",
            &rate,
            "--size",
            &options.size,
            "--acks",
            "1",
            "--linger-ms",
            "0",
            "--seconds",
            &seconds,
            "--warmup-seconds",
            "2",
        ],
    )?
    .report(LOAD_TIMEOUT)?;
    let after = embedded();
    ensure!(
        after < BACKLOG as i64,
        "the model has nothing left to do: --seconds is too long"
    );
    let produced = report.produced.context("nothing was produced")?;
    ensure!(produced.errors.is_empty(), "{:?}", produced.errors);
    measured
        .produce
        .push(produced.latency.context("no produce latency")?);
    measured
        .fetch
        .push(report.end_to_end.context("no fetch latency")?);
    measured
        .texts_per_second
        .push((after - before) as f64 / f64::from(options.seconds + 2));
    Ok(())
}

fn print(measured: &[Measured]) {
    println!(
        "| records a second | model | texts embedded a second | produce p50, p99 ms | fetch p50, p99 ms | p99 with it / without: produce, fetch |\n\
         |---|---|---|---|---|---|"
    );
    let p50 = |latency: &Latency| latency.p50_us as f64 / 1e3;
    let p99 = |latency: &Latency| latency.p99_us as f64 / 1e3;
    for found in measured {
        let without = measured
            .iter()
            .find(|other| other.rate == found.rate && other.workers == 0);
        let times = |latencies: &[Latency]| {
            let middle =
                |of: fn(&Latency) -> f64| median(&latencies.iter().map(of).collect::<Vec<f64>>());
            format!("{:.2}, {:.2}", middle(p50), middle(p99))
        };
        let ratio = |of: fn(&Measured) -> &Vec<Latency>| {
            let all = |measured: &Measured| -> Vec<Option<f64>> {
                of(measured)
                    .iter()
                    .map(|latency| Some(p99(latency)))
                    .collect()
            };
            let ratios = without.map(|without| ratios(&all(found), &all(without)));
            median(&ratios.unwrap_or_default())
        };
        let model = match found.workers {
            0 => "none".to_owned(),
            1 => "1 worker".to_owned(),
            workers => format!("{workers} workers"),
        };
        println!(
            "| {} | {model} | {:.0} | {} | {} | {:.2}, {:.2} |",
            found.rate,
            median(&found.texts_per_second),
            times(&found.produce),
            times(&found.fetch),
            ratio(|measured| &measured.produce),
            ratio(|measured| &measured.fetch),
        );
    }
}
