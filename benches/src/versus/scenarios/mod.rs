//! What is measured of the brokers: a file for each scenario.

mod bare_loops;
mod consume;
mod durable;
mod end_to_end;
mod footprint;
mod kafka_tools;
mod many;
mod produce;
mod storm;
mod transactions;

use anyhow::Context;
use clients::report::{Latency, Report};

use super::bench::Bench;
use super::broker::Broker;
use super::scenario::{Better, Column, Figures, Scenario};

/// All of them, in the order in which they run.
pub fn all() -> Vec<Box<dyn Scenario>> {
    let mut all: Vec<Box<dyn Scenario>> = vec![
        Box::new(footprint::Footprint),
        Box::<bare_loops::BareLoops>::default(),
        Box::<produce::Produce>::default(),
        Box::new(durable::Durable),
        Box::<transactions::Transactions>::default(),
        Box::<consume::Consume>::default(),
        Box::<end_to_end::EndToEnd>::default(),
        Box::new(storm::Storm),
    ];
    all.extend(super::model::scenarios());
    all.push(Box::<many::Many>::default());
    all.push(Box::<kafka_tools::KafkaTools>::default());
    all
}

/// Bytes of a gigabyte, as everywhere in the report.
const GB: f64 = 1e9;

fn more(figure: &'static str) -> Column {
    let better = Better::More;
    Column { figure, better }
}

fn less(figure: &'static str) -> Column {
    let better = Better::Less;
    Column { figure, better }
}

/// Runs `milena-load` with arguments that are written as one line, which has no spaces within arguments,
/// and returns its report and the CPU seconds of the broker meanwhile.
fn load(bench: &Bench, broker: &Broker, line: &str) -> anyhow::Result<(Report, f64)> {
    let args: Vec<&str> = line.split_whitespace().collect();
    let before = broker.cpu_seconds()?;
    let report = bench.load(&args)?;
    Ok((report, broker.cpu_seconds()? - before))
}

/// Where the load goes.
fn target(broker: &Broker, topic: &str) -> String {
    format!("--bootstrap {} --topic {topic}", broker.bootstrap)
}

/// A distribution under the names that columns have; `with_tail` adds what is rarer than 1 in 100.
fn latencies(latency: Option<&Latency>, with_tail: bool) -> anyhow::Result<Figures> {
    let latency = latency.context("no latency was measured")?;
    let ms = |us: u64| us as f64 / 1e3;
    let mut figures = Figures::from([
        ("p50 ms", ms(latency.p50_us)),
        ("p99 ms", ms(latency.p99_us)),
    ]);
    if with_tail {
        figures.insert("p99.9 ms", ms(latency.p999_us));
        figures.insert("max ms", ms(latency.max_us));
    }
    Ok(figures)
}
