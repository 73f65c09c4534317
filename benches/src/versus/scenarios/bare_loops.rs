//! What the machine can do without a broker, as a table of its own.

use std::time::Duration;

use anyhow::{Context, bail};

use super::{less, more};
use crate::versus::bare::file_to_socket::{Source, Way};
use crate::versus::bare::ping_pong::{self, Server};
use crate::versus::bare::{group_commit, socket_to_file};
use crate::versus::bench::Bench;
use crate::versus::scenario::{Column, Figures, Row, Scenario};

const BYTES: u64 = 800_000_000;
const TIME: Duration = Duration::from_millis(1_500);
const RECORD_BYTES: usize = 1 << 10;
const FRAME_BYTES: usize = 64;

/// `versus --scenario bare-loops`.
#[derive(Debug, Default)]
pub struct BareLoops {
    source: Option<Source>,
}

#[derive(Clone, Copy)]
enum Loop {
    Receive(usize),
    Send(Way),
    PingPong(Server, usize),
    GroupCommit(usize),
}

const LOOPS: [(&str, Loop); 13] = [
    (
        "socket, crc32c, page cache: 64 KiB",
        Loop::Receive(64 << 10),
    ),
    (
        "socket, crc32c, page cache: 256 KiB",
        Loop::Receive(256 << 10),
    ),
    ("socket, crc32c, page cache: 1 MiB", Loop::Receive(1 << 20)),
    ("map to socket: 64 KiB", Loop::Send(Way::Map(64 << 10))),
    ("map to socket: 1 MiB", Loop::Send(Way::Map(1 << 20))),
    ("sendfile: 64 KiB", Loop::Send(Way::Sendfile(64 << 10))),
    ("sendfile: 1 MiB", Loop::Send(Way::Sendfile(1 << 20))),
    (
        "64 bytes there and back: 1 connection",
        Loop::PingPong(Server::Threads, 1),
    ),
    (
        "64 bytes there and back: 16 connections, threads",
        Loop::PingPong(Server::Threads, 16),
    ),
    (
        "64 bytes there and back: 16 connections, epoll",
        Loop::PingPong(Server::Epoll, 16),
    ),
    ("1 KiB and fdatasync: 1 thread", Loop::GroupCommit(1)),
    ("1 KiB and fdatasync: 8 threads", Loop::GroupCommit(8)),
    ("1 KiB and fdatasync: 64 threads", Loop::GroupCommit(64)),
];

impl Scenario for BareLoops {
    fn name(&self) -> &'static str {
        "bare-loops"
    }

    fn about(&self) -> String {
        "What the machine does without a broker, in this process over loopback: 0.8 GB from a socket \
         through crc32c into a file in the page cache, with one buffer; 0.8 GB from a file in the page \
         cache to a socket; frames of 64 bytes there and back, always one in flight on each \
         connection; appends that wait for an `fdatasync`, of which one serves all that wait. CPU is \
         that of the serving threads alone."
            .to_owned()
    }

    fn columns(&self) -> Vec<Column> {
        vec![
            more("MB/s"),
            less("CPU-s/GB"),
            more("per s"),
            less("p50 ms"),
            less("p99 ms"),
            less("CPU-s/million"),
        ]
    }

    fn rows(&self, short: bool) -> Vec<Row> {
        let row = |(name, _): &(&str, Loop)| Row {
            name: (*name).to_owned(),
            arms: vec!["bare"],
            settings: (*name).to_owned(),
        };
        // One of each kind.
        let step = if short { 4 } else { 1 };
        LOOPS.iter().step_by(step).map(row).collect()
    }

    fn run(&mut self, bench: &mut Bench, row: &Row, _arm: &str) -> anyhow::Result<Figures> {
        let found = LOOPS.iter().find(|(name, _)| *name == row.name);
        let (_, which) = found.context("a row of this scenario")?;
        match *which {
            Loop::Receive(buffer) => {
                Ok(socket_to_file::run(bench.folder(), BYTES, buffer)?.figures())
            }
            Loop::Send(way) => {
                if self.source.is_none() {
                    self.source = Some(Source::create(bench.folder(), BYTES)?);
                }
                let source = self.source.as_ref().context("the file to send")?;
                Ok(source.send(way)?.figures())
            }
            Loop::PingPong(server, connections) => {
                ping_pong_figures(server, connections, (FRAME_BYTES, FRAME_BYTES), TIME)
            }
            Loop::GroupCommit(threads) => {
                let outcome = group_commit::run(bench.folder(), threads, RECORD_BYTES, TIME)?;
                Ok(Figures::from([
                    ("per s", outcome.per_second()),
                    ("p50 ms", outcome.percentile_ms(0.5)),
                    ("p99 ms", outcome.percentile_ms(0.99)),
                ]))
            }
        }
    }

    fn finish(&mut self, _bench: &mut Bench) -> anyhow::Result<()> {
        self.source = None;
        Ok(())
    }
}

/// A ping-pong's figures, as other scenarios have them too.
pub fn ping_pong_figures(
    server: Server,
    connections: usize,
    bytes: (usize, usize),
    time: Duration,
) -> anyhow::Result<Figures> {
    let outcome = ping_pong::run(server, connections, bytes, time)?;
    if outcome.requests == 0 {
        bail!("no request was answered");
    }
    Ok(Figures::from([
        ("per s", outcome.exchanges.per_second()),
        ("p50 ms", outcome.exchanges.percentile_ms(0.5)),
        ("p99 ms", outcome.exchanges.percentile_ms(0.99)),
        (
            "CPU-s/million",
            outcome.cpu_seconds / outcome.requests as f64 * 1e6,
        ),
    ]))
}
