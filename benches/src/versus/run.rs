//! The command: which scenarios run, in which turns, and what is written of them.
//!
//! Within a round every row is measured once for each arm, one right after the other, and the arm that
//! is first changes from round to round. An arm that fails is a line of the report; the rest goes on.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use anyhow::{anyhow, ensure};
use clap::Parser;

use super::bench::{self, Bench};
use super::results::{Results, Sample, ScenarioResults};
use super::scenario::{Row, Scenario};
use super::{kafka, machine, plot, report, scenarios};

/// Measures Milena beside Apache Kafka and bare loops of the same work, and model topics beside a
/// Python pipeline, and writes a report.
#[derive(Debug, Parser)]
#[command(name = "versus")]
pub struct Options {
    /// Only these scenarios; all where nothing is named.
    #[arg(long = "scenario", value_name = "NAME")]
    scenarios: Vec<String>,
    /// Only rows whose name contains this.
    #[arg(long, value_name = "SUBSTRING")]
    row: Option<String>,
    /// How often each arm of each row is measured [default: 5, or 2 with --short].
    #[arg(long)]
    rounds: Option<usize>,
    /// Fewer rows and rounds: ends in ten minutes.
    #[arg(long)]
    short: bool,
    /// Where the report goes.
    #[arg(long, value_name = "DIR", default_value_os_t = bench::default_out())]
    out: PathBuf,
    /// Which Kafka.
    #[arg(long, value_name = "VERSION", default_value = "4.4.0")]
    kafka_version: String,
    /// Lists scenarios and rows without measuring.
    #[arg(long)]
    list: bool,
    /// Writes report.md and the pictures anew from the report.json of an earlier run.
    #[arg(long)]
    render: bool,
}

/// Does what the options say.
pub fn run(options: &Options) -> anyhow::Result<()> {
    if options.render {
        return write(&Results::read(&options.out)?, options);
    }
    let mut chosen = scenarios::all();
    for name in &options.scenarios {
        let known = chosen.iter().any(|scenario| scenario.name() == name);
        ensure!(known, "there is no scenario '{name}'; --list lists them");
    }
    let named = |s: &dyn Scenario| {
        options.scenarios.is_empty() || options.scenarios.iter().any(|name| name == s.name())
    };
    chosen.retain(|scenario| named(scenario.as_ref()));
    if options.list {
        for scenario in &chosen {
            println!("{}", scenario.name());
            for row in rows_of(scenario.as_ref(), options) {
                println!("    {} [{}]", row.name, row.arms.join(", "));
            }
        }
        return Ok(());
    }
    chosen.retain(|scenario| !rows_of(scenario.as_ref(), options).is_empty());
    let mut bench = Bench::new(options.short, &options.kafka_version)?;
    eprintln!("building what is measured");
    bench.prepare()?;
    let mut run = Run {
        began: Instant::now(),
        results: new_results(&bench, options),
        options,
    };
    for scenario in &mut chosen {
        run.scenario(&mut bench, scenario.as_mut())?;
    }
    eprintln!("{}", options.out.join("report.md").display());
    Ok(())
}

fn rows_of(scenario: &dyn Scenario, options: &Options) -> Vec<Row> {
    let mut rows = scenario.rows(options.short);
    if let Some(part) = &options.row {
        rows.retain(|row| row.name.contains(part));
    }
    rows
}

fn new_results(bench: &Bench, options: &Options) -> Results {
    let command: Vec<String> = std::env::args().skip(1).collect();
    let command = format!(
        "cargo run --release -p benches --bin versus -- {}",
        command.join(" ")
    );
    let java = machine::first_line(Command::new("java").arg("-version"));
    let versions = [
        ("Milena", env!("CARGO_PKG_VERSION").to_owned()),
        ("Apache Kafka", options.kafka_version.clone()),
        ("Java", java),
    ];
    let settings = [
        ("milena", bench::MILENA_CONFIG.to_owned()),
        (
            "kafka",
            format!("{}\n{}", kafka::JVM_FLAGS.join(" "), kafka::PROPERTIES),
        ),
    ];
    Results {
        command: command.trim_end_matches([' ', '-']).to_owned(),
        date: machine::date(),
        rounds: rounds(options),
        machine: machine::Machine::this(bench.folder()),
        versions: versions
            .map(|(what, version)| (what.to_owned(), version))
            .into(),
        settings: settings.map(|(arm, text)| (arm.to_owned(), text)).into(),
        ..Results::default()
    }
}

fn rounds(options: &Options) -> usize {
    let usual = if options.short { 2 } else { 5 };
    options.rounds.unwrap_or(usual).max(1)
}

struct Run<'a> {
    began: Instant,
    results: Results,
    options: &'a Options,
}

impl Run<'_> {
    fn scenario(&mut self, bench: &mut Bench, scenario: &mut dyn Scenario) -> anyhow::Result<()> {
        let rows = rows_of(scenario, self.options);
        let at = self.results.scenarios.len();
        self.results
            .scenarios
            .push(ScenarioResults::new(scenario, &rows));
        let rounds = scenario.rounds(rounds(self.options));
        for round in 0..rounds {
            for (n, row) in rows.iter().enumerate() {
                for turn in 0..row.arms.len() {
                    let arm = row.arms[(turn + round) % row.arms.len()];
                    eprint!(
                        "{} | {} | {arm} | {}/{rounds}: ",
                        scenario.name(),
                        row.name,
                        round + 1
                    );
                    // What others have left to write back is not this one's to wait for.
                    machine::sync();
                    let began = Instant::now();
                    let outcome = caught(|| scenario.run(bench, row, arm));
                    let sample = Sample::new(round, arm, began.elapsed().as_secs_f64(), outcome);
                    eprintln!("{}", said(&sample));
                    self.results.scenarios[at].rows[n].samples.push(sample);
                }
            }
            self.results.seconds = self.began.elapsed().as_secs_f64();
            self.results.write(&self.options.out)?;
        }
        if let Err(error) = caught(|| scenario.finish(bench)) {
            self.results.scenarios[at].errors.push(format!("{error:#}"));
        }
        self.results.seconds = self.began.elapsed().as_secs_f64();
        write(&self.results, self.options)
    }
}

/// What panics is an error like others.
fn caught<T>(work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        Err(anyhow!("panicked: {}", text.unwrap_or("without a word")))
    })
}

fn said(sample: &Sample) -> String {
    match &sample.error {
        Some(error) => format!("error: {error}"),
        None => {
            let figures = sample.figures.iter();
            let mut said: Vec<String> = figures
                .map(|(name, value)| format!("{} {name}", report::number(*value)))
                .collect();
            said.push(format!("(in {:.1} s)", sample.seconds));
            said.join(", ")
        }
    }
}

fn write(results: &Results, options: &Options) -> anyhow::Result<()> {
    results.write(&options.out)?;
    for scenario in &results.scenarios {
        plot::draw(scenario, &options.out)?;
    }
    std::fs::write(options.out.join("report.md"), report::render(results))?;
    Ok(())
}
