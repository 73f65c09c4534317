//! What each broker is before it does anything, and under load.

use std::time::{Duration, Instant};

use anyhow::ensure;
use tests::Milena;

use super::{less, target};
use crate::process::{self, Memory};
use crate::versus::bench::{Bench, MILENA_CONFIG, broker_of, produced};
use crate::versus::broker::Broker;
use crate::versus::kafka::Kafka;
use crate::versus::load::Load;
use crate::versus::scenario::{Column, Figures, Row, Scenario};

/// After its start; then it is idle.
const IDLE_AFTER: Duration = Duration::from_secs(5);
const LOAD: &str = "--partitions 6 --bytes 1000000000 --size 1KiB --acks 1 --linger-ms 5";
const MB: f64 = 1e6;

/// `versus --scenario footprint`.
#[derive(Debug)]
pub struct Footprint;

impl Scenario for Footprint {
    fn name(&self) -> &'static str {
        "footprint"
    }

    fn about(&self) -> String {
        "A new broker in an empty data folder, which was formatted before in Kafka's case. Size on the \
         disk is Milena's binary, and the sum of the jars on Kafka's class path without the JDK. Start is from \
         `exec` to the whole answer to an ApiVersions request. Idle memory is taken five seconds later; \
         RSS has the pages of mapped files too, anonymous memory is the process's own. CPU is what it \
         had used by then. Peak memory is while 1 GB is produced to 6 partitions. Kafka's heap has the \
         1 GB that its scripts give it, which it fills before it collects."
            .to_owned()
    }

    fn columns(&self) -> Vec<Column> {
        vec![
            less("start ms"),
            less("RSS MB"),
            less("anonymous MB"),
            less("CPU-s"),
            less("peak RSS MB"),
            less("peak anonymous MB"),
            less("size MB"),
        ]
    }

    fn rows(&self, short: bool) -> Vec<Row> {
        let arms = vec!["milena", "kafka"];
        let row = |name: &str, settings: &str| Row {
            name: name.to_owned(),
            arms: arms.clone(),
            settings: settings.to_owned(),
        };
        let mut rows = vec![
            row("idle, 5 s after the start", "an empty data folder"),
            row(
                "1 KiB produced to 6 partitions",
                &format!("milena-load produce {LOAD}"),
            ),
        ];
        if short {
            rows.truncate(1);
        }
        rows
    }

    fn rounds(&self, wanted: usize) -> usize {
        wanted.min(3)
    }

    fn run(&mut self, bench: &mut Bench, row: &Row, arm: &str) -> anyhow::Result<Figures> {
        let idle = row.name.starts_with("idle");
        // What others have built, or fetched, is no part of a start.
        let class_path = bench.class_path()?;
        bench.stop();
        if arm == "milena" {
            let size = std::fs::metadata(tests::binary())?.len();
            let mut milena = Milena::prepare("", MILENA_CONFIG);
            let started = Instant::now();
            milena.spawn();
            milena.wait_until_it_answers();
            let start = started.elapsed();
            measure(bench, &broker_of(&milena), idle, start, size)
        } else {
            let size = class_path.bytes();
            let mut kafka = Kafka::prepare(&class_path, bench.folder(), "")?;
            let start = kafka.restart()?;
            measure(bench, &kafka.broker()?, idle, start, size)
        }
    }
}

fn measure(
    bench: &Bench,
    broker: &Broker,
    idle: bool,
    start: Duration,
    size: u64,
) -> anyhow::Result<Figures> {
    if idle {
        std::thread::sleep(IDLE_AFTER);
        let memory = broker.memory()?;
        return Ok(Figures::from([
            ("start ms", start.as_secs_f64() * 1e3),
            ("RSS MB", memory.resident as f64 / MB),
            ("anonymous MB", memory.anonymous as f64 / MB),
            ("CPU-s", broker.cpu_seconds()?),
            ("size MB", size as f64 / MB),
        ]));
    }
    let line = format!("produce {} {LOAD}", target(broker, "load"));
    let args: Vec<&str> = line.split_whitespace().collect();
    let mut load = bench.start_load(&args)?;
    let peak = peak_until_the_end(broker.pid, &mut load)?;
    produced(&load.report(Duration::from_secs(60))?)?;
    Ok(Figures::from([
        ("peak RSS MB", peak.resident as f64 / MB),
        ("peak anonymous MB", peak.anonymous as f64 / MB),
    ]))
}

fn peak_until_the_end(pid: u32, load: &mut Load) -> anyhow::Result<Memory> {
    let mut peak = Memory::default();
    let deadline = Instant::now() + Duration::from_secs(120);
    while !load.has_ended() {
        ensure!(Instant::now() < deadline, "the load does not end");
        peak = peak.max(process::memory(pid)?);
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(peak)
}
