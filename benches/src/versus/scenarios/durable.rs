//! Producing so that a record is on the disk when it is acknowledged.

use std::time::Duration;

use anyhow::Context;

use super::storm::exchange;
use super::{GB, latencies, less, load, more, target};
use crate::raw::{check_produced, produce_frame};
use crate::versus::bare::group_commit;
use crate::versus::bench::{Bench, produced};
use crate::versus::broker::Broker;
use crate::versus::scenario::{Column, Figures, Row, Scenario};

const TIME: Duration = Duration::from_secs(2);
const RECORD_BYTES: usize = 1 << 10;
const ACKS_ALL: i16 = -1;

/// `versus --scenario durable`.
#[derive(Debug)]
pub struct Durable;

#[derive(Clone, Copy)]
enum Client {
    /// `milena-load`, with these arguments.
    Load(&'static str),
    /// So many connections with one request of one record in flight each.
    Raw(usize),
}

const ROWS: [(&str, Client); 5] = [
    (
        "1 producer, 1 record in flight",
        Client::Load("--producers 1 --in-flight 1 --linger-ms 0 --seconds 2"),
    ),
    (
        "16 producers, 1 record in flight each",
        Client::Load("--producers 16 --in-flight 1 --linger-ms 0 --seconds 2"),
    ),
    ("raw, 1 connection", Client::Raw(1)),
    ("raw, 16 connections", Client::Raw(16)),
    (
        "as fast as it goes",
        Client::Load("--linger-ms 5 --bytes 800000000"),
    ),
];

impl Scenario for Durable {
    fn name(&self) -> &'static str {
        "durable"
    }

    fn about(&self) -> String {
        "acks=all with records of 1 KiB to one partition, each on the disk before it is acknowledged: Milena's \
         default; Kafka with the topic config `flush.messages=1`, which is how it does the same. A producer \
         with one record in flight sends the next when the last is acknowledged; the raw client is that \
         of `storm`. Latencies are to the acknowledgement.\n\n`bare` are as many threads that append \
         1 KiB to one file and wait for an `fdatasync` that one of them does for all; without sockets."
            .to_owned()
    }

    fn columns(&self) -> Vec<Column> {
        vec![
            more("records/s"),
            less("p50 ms"),
            less("p99 ms"),
            less("p99.9 ms"),
            less("CPU-s/GB"),
        ]
    }

    fn rows(&self, short: bool) -> Vec<Row> {
        let row = |(name, client): &(&str, Client)| {
            let (arms, settings) = match client {
                Client::Load(load) => (
                    vec!["milena", "kafka"],
                    format!("milena-load produce --acks all --size 1KiB {load}"),
                ),
                Client::Raw(connections) => (
                    vec!["milena", "kafka", "bare"],
                    format!("{connections} raw connections, {} s", TIME.as_secs_f64()),
                ),
            };
            Row {
                name: (*name).to_owned(),
                arms,
                settings,
            }
        };
        let rows = if short { &ROWS[1..4] } else { &ROWS[..] };
        rows.iter().map(row).collect()
    }

    fn run(&mut self, bench: &mut Bench, row: &Row, arm: &str) -> anyhow::Result<Figures> {
        let found = ROWS.iter().find(|(name, _)| *name == row.name);
        let (_, client) = *found.context("a row of this scenario")?;
        match client {
            Client::Raw(connections) if arm == "bare" => bare(bench, connections),
            client => {
                let configs: &[(&str, &str)] = match arm {
                    "kafka" => &[("flush.messages", "1")],
                    _ => &[],
                };
                let broker = bench.broker(arm)?;
                let topic = bench.create_topic(&broker, 1, configs)?;
                let outcome = measure(bench, &broker, &topic, client);
                broker.delete_topics(&[&topic])?;
                outcome
            }
        }
    }
}

fn measure(bench: &Bench, broker: &Broker, topic: &str, client: Client) -> anyhow::Result<Figures> {
    match client {
        Client::Load(settings) => {
            let target = target(broker, topic);
            let line = format!("produce {target} --acks all --size 1KiB {settings}");
            let (report, cpu) = load(bench, broker, &line)?;
            let side = produced(&report)?;
            let mut figures = latencies(side.latency.as_ref(), true)?;
            figures.remove("max ms");
            figures.insert("records/s", side.records_per_second);
            figures.insert("CPU-s/GB", cpu / (side.bytes as f64 / GB));
            Ok(figures)
        }
        Client::Raw(connections) => {
            let frame = produce_frame(topic, 0, 1, RECORD_BYTES, ACKS_ALL)?;
            let (exchanges, cpu) = exchange(broker, frame, connections, TIME, check_produced)?;
            let bytes = exchanges.times_us.len() * RECORD_BYTES;
            Ok(Figures::from([
                ("records/s", exchanges.per_second()),
                ("p50 ms", exchanges.percentile_ms(0.5)),
                ("p99 ms", exchanges.percentile_ms(0.99)),
                ("p99.9 ms", exchanges.percentile_ms(0.999)),
                ("CPU-s/GB", cpu / (bytes as f64 / GB)),
            ]))
        }
    }
}

fn bare(bench: &Bench, appenders: usize) -> anyhow::Result<Figures> {
    let outcome = group_commit::run(bench.folder(), appenders, RECORD_BYTES, TIME)?;
    Ok(Figures::from([
        ("records/s", outcome.per_second()),
        ("p50 ms", outcome.percentile_ms(0.5)),
        ("p99 ms", outcome.percentile_ms(0.99)),
        ("p99.9 ms", outcome.percentile_ms(0.999)),
    ]))
}
