//! Very many very small requests.

use std::time::Duration;

use anyhow::{Context, ensure};
use bytes::Bytes;

use super::bare_loops::ping_pong_figures;
use super::{less, more};
use crate::raw::{ClosedLoop, Exchanges, api_versions_frame, check_produced, produce_frame};
use crate::versus::bare::ping_pong::Server;
use crate::versus::bench::Bench;
use crate::versus::broker::Broker;
use crate::versus::scenario::{Column, Figures, Row, Scenario};

const TIME: Duration = Duration::from_millis(2_000);
const RECORD_BYTES: usize = 100;
/// Of the bare server's answers: about what the brokers answer.
const PRODUCED_BYTES: usize = 64;

/// `versus --scenario storm`.
#[derive(Debug)]
pub struct Storm;

#[derive(Clone, Copy)]
enum What {
    Produce,
    ApiVersions,
}

const ROWS: [(&str, What, usize); 3] = [
    (
        "Produce of one 100 B record, 1 connection",
        What::Produce,
        1,
    ),
    (
        "Produce of one 100 B record, 16 connections",
        What::Produce,
        16,
    ),
    ("ApiVersions, 1 connection", What::ApiVersions, 1),
];

impl Scenario for Storm {
    fn name(&self) -> &'static str {
        "storm"
    }

    fn about(&self) -> String {
        "One record in each request, and always one request in flight on each connection, from a raw client \
         that sends the same frame again and again and looks at nothing but the answer's length: acks=1, \
         one partition. One connection blocks; sixteen share one epoll thread. CPU is the broker's, per \
         million requests.\n\n`bare` is a server that answers frames of as many bytes with frames of as \
         many bytes and looks at neither; with one thread, or with sixteen for sixteen connections."
            .to_owned()
    }

    fn columns(&self) -> Vec<Column> {
        vec![
            more("per s"),
            less("p50 ms"),
            less("p99 ms"),
            less("CPU-s/million"),
        ]
    }

    fn rows(&self, short: bool) -> Vec<Row> {
        let row = |(name, _, connections): &(&str, What, usize)| Row {
            name: (*name).to_owned(),
            arms: vec!["milena", "kafka", "bare"],
            settings: format!("{connections} raw connections, {} s", TIME.as_secs_f64()),
        };
        let rows = if short { &ROWS[..2] } else { &ROWS };
        rows.iter().map(row).collect()
    }

    fn run(&mut self, bench: &mut Bench, row: &Row, arm: &str) -> anyhow::Result<Figures> {
        let found = ROWS.iter().find(|(name, ..)| *name == row.name);
        let (_, what, connections) = *found.context("a row of this scenario")?;
        if arm == "bare" {
            let bytes = match what {
                What::Produce => (
                    produce_frame("versus1", 0, 1, RECORD_BYTES, 1)?.len(),
                    PRODUCED_BYTES,
                ),
                // An answer names every API.
                What::ApiVersions => (api_versions_frame()?.len(), 600),
            };
            return ping_pong_figures(Server::Threads, connections, bytes, TIME);
        }
        let broker = bench.broker(arm)?;
        match what {
            What::Produce => {
                let topic = bench.create_topic(&broker, 1, &[])?;
                let frame = produce_frame(&topic, 0, 1, RECORD_BYTES, 1)?;
                let outcome = exchange(&broker, frame, connections, TIME, check_produced);
                broker.delete_topics(&[&topic])?;
                outcome.map(figures)
            }
            What::ApiVersions => {
                let check = |response: Bytes| {
                    ensure!(response.get(4..6) == Some(&[0, 0]), "ApiVersions: an error");
                    Ok(())
                };
                exchange(&broker, api_versions_frame()?, connections, TIME, check).map(figures)
            }
        }
    }
}

/// Exchanges frames for so long: what the client has seen, and the broker's CPU seconds.
pub fn exchange(
    broker: &Broker,
    frame: Bytes,
    connections: usize,
    time: Duration,
    check: impl Fn(Bytes) -> anyhow::Result<()>,
) -> anyhow::Result<(Exchanges, f64)> {
    let mut client = ClosedLoop::open(&broker.bootstrap, vec![frame; connections])?;
    let before = broker.cpu_seconds()?;
    let exchanges = client.run(time)?;
    let cpu = broker.cpu_seconds()? - before;
    check(exchanges.last_response.clone())?;
    Ok((exchanges, cpu))
}

fn figures((exchanges, cpu): (Exchanges, f64)) -> Figures {
    Figures::from([
        ("per s", exchanges.per_second()),
        ("p50 ms", exchanges.percentile_ms(0.5)),
        ("p99 ms", exchanges.percentile_ms(0.99)),
        ("CPU-s/million", cpu / exchanges.times_us.len() as f64 * 1e6),
    ])
}
