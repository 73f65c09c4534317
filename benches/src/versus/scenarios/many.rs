//! A thousand partitions, a thousand connections, a hundred groups.
//!
//! Each broker is one of its own here, with nothing else in it, as it is stopped and started; those of other
//! scenarios do not run meanwhile.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clients::report::Latency;
use tests::Milena;

use super::{latencies, less, load, target};
use crate::raw::api_versions_frame;
use crate::versus::bench::{Bench, MILENA_CONFIG, broker_of, produced};
use crate::versus::broker::Broker;
use crate::versus::kafka::Kafka;
use crate::versus::scenario::{Column, Figures, Row, Scenario};

const TOPIC: &str = "many";
const PARTITIONS: u32 = 1_000;
const CONNECTIONS: usize = 1_000;
const MB: f64 = 1e6;

/// `versus --scenario many`.
#[derive(Default)]
pub struct Many {
    milena: Option<Milena>,
    kafka: Option<Kafka>,
}

#[derive(Clone, Copy)]
enum What {
    Start,
    Idle,
    Produce,
    Connections,
    Groups,
}

const ROWS: [(&str, What, &str); 5] = [
    (
        "1,000 partitions: 2,000/s",
        What::Produce,
        "--rate 2000 --size 1KiB --acks 1 --linger-ms 0 -X sticky.partitioning.linger.ms=0",
    ),
    (
        "1,000 partitions: stopped and started",
        What::Start,
        "SIGTERM, and a start",
    ),
    ("1,000 partitions: idle", What::Idle, "nothing"),
    (
        "1,000 other connections: 1,000/s",
        What::Connections,
        "--rate 1000 --size 1KiB --acks 1 --linger-ms 0",
    ),
    (
        "100 groups: 100/s to each",
        What::Groups,
        "--rate 100 --size 1KiB --acks 1 --linger-ms 0 --groups 100",
    ),
];

impl Scenario for Many {
    fn name(&self) -> &'static str {
        "many"
    }

    fn about(&self) -> String {
        "One topic of 1,000 partitions with some records in each. Start: stopped with SIGTERM and started, \
         from `exec` to the whole answer to an ApiVersions request; memory two seconds later. Idle: the CPU \
         time of some seconds without a request. Produce: one producer that gives each record to a random \
         partition; times to the acknowledgement. Connections: 1,000 others are open, each of which has had \
         one answer; memory is what they have added, `p99` that of an ordinary producer meanwhile. Groups: \
         each of 100 groups reads every record of another topic; times from when a record was due to when \
         each group has it."
            .to_owned()
    }

    fn columns(&self) -> Vec<Column> {
        vec![
            less("p99 ms"),
            less("p50 ms"),
            less("CPU cores"),
            less("start ms"),
            less("RSS MB"),
            less("anonymous MB"),
        ]
    }

    fn rows(&self, short: bool) -> Vec<Row> {
        let row = |(name, what, settings): &(&str, What, &str)| Row {
            name: (*name).to_owned(),
            arms: vec!["milena", "kafka"],
            settings: match what {
                What::Start | What::Idle => (*settings).to_owned(),
                What::Groups => format!("milena-load mix {settings}"),
                _ => format!("milena-load produce {settings}"),
            },
        };
        let rows = if short { &ROWS[..2] } else { &ROWS };
        rows.iter().map(row).collect()
    }

    fn rounds(&self, wanted: usize) -> usize {
        wanted.min(3)
    }

    fn run(&mut self, bench: &mut Bench, row: &Row, arm: &str) -> anyhow::Result<Figures> {
        let found = ROWS.iter().find(|(name, ..)| *name == row.name);
        let (_, what, settings) = *found.context("a row of this scenario")?;
        let broker = self.broker(bench, arm)?;
        let seconds = if bench.short { 3 } else { 5 };
        let produce = format!("{settings} --seconds {seconds} --warmup-seconds 1");
        match what {
            What::Start => {
                let figures = self.start(arm)?;
                let broker = self.broker(bench, arm)?;
                fill(bench, &broker)?;
                Ok(figures)
            }
            What::Idle => idle(
                &broker,
                Duration::from_secs(if bench.short { 5 } else { 10 }),
            ),
            What::Produce => {
                let line = format!("produce {} {produce}", target(&broker, TOPIC));
                measure(bench, &broker, &line)
            }
            What::Connections => connections(bench, &broker, &produce),
            What::Groups => {
                let topic = bench.create_topic(&broker, 1, &[])?;
                let line = format!("mix {} {produce}", target(&broker, &topic));
                let outcome = measure(bench, &broker, &line);
                broker.delete_topics(&[&topic])?;
                outcome
            }
        }
    }

    fn finish(&mut self, _bench: &mut Bench) -> anyhow::Result<()> {
        (self.milena, self.kafka) = (None, None);
        Ok(())
    }
}

impl Many {
    /// The arm's own broker, with the topic filled.
    fn broker(&mut self, bench: &mut Bench, arm: &str) -> anyhow::Result<Broker> {
        bench.stop();
        match (arm, &self.milena, &self.kafka) {
            ("milena", Some(milena), _) => return Ok(broker_of(milena)),
            ("kafka", _, Some(kafka)) => return kafka.broker(),
            _ => {}
        }
        let broker = if arm == "milena" {
            broker_of(self.milena.insert(Milena::start(MILENA_CONFIG)))
        } else {
            let class_path = bench.class_path()?;
            let kafka = Kafka::start(&class_path, bench.folder(), "")?;
            self.kafka.insert(kafka).broker()?
        };
        broker.create_topic(TOPIC, PARTITIONS, &[])?;
        fill(bench, &broker)?;
        Ok(broker)
    }

    fn start(&mut self, arm: &str) -> anyhow::Result<Figures> {
        let (broker, start) = if arm == "milena" {
            let milena = self.milena.as_mut().context("milena runs")?;
            let status = milena.stop();
            if !status.success() {
                bail!("milena ended with {status}");
            }
            let started = Instant::now();
            milena.spawn();
            milena.wait_until_it_answers();
            (broker_of(milena), started.elapsed())
        } else {
            let kafka = self.kafka.as_mut().context("Kafka runs")?;
            kafka.stop()?;
            let start = kafka.restart()?;
            (kafka.broker()?, start)
        };
        std::thread::sleep(Duration::from_secs(2));
        let memory = broker.memory()?;
        Ok(Figures::from([
            ("start ms", start.as_secs_f64() * 1e3),
            ("RSS MB", memory.resident as f64 / MB),
            ("anonymous MB", memory.anonymous as f64 / MB),
        ]))
    }
}

/// Some records for each partition, one request each; afterwards the broker is warm.
fn fill(bench: &Bench, broker: &Broker) -> anyhow::Result<()> {
    let target = target(broker, TOPIC);
    let line = format!(
        "produce {target} --records 50000 --size 1KiB --acks 1 --linger-ms 0 \
         -X sticky.partitioning.linger.ms=0"
    );
    produced(&load(bench, broker, &line)?.0)?;
    Ok(())
}

fn idle(broker: &Broker, time: Duration) -> anyhow::Result<Figures> {
    // What came before is done with.
    std::thread::sleep(Duration::from_secs(2));
    let before = broker.cpu_seconds()?;
    std::thread::sleep(time);
    let cpu = broker.cpu_seconds()? - before;
    Ok(Figures::from([("CPU cores", cpu / time.as_secs_f64())]))
}

/// Times are end to end where those were measured, else to the acknowledgement.
fn measure(bench: &Bench, broker: &Broker, line: &str) -> anyhow::Result<Figures> {
    let began = Instant::now();
    let (report, cpu) = load(bench, broker, line)?;
    let cores = cpu / began.elapsed().as_secs_f64();
    let side = produced(&report)?;
    let latency: Option<&Latency> = report.end_to_end.as_ref().or(side.latency.as_ref());
    let mut figures = latencies(latency, false)?;
    figures.insert("CPU cores", cores);
    Ok(figures)
}

fn connections(bench: &mut Bench, broker: &Broker, produce: &str) -> anyhow::Result<Figures> {
    let before = broker.memory()?;
    let request = api_versions_frame()?;
    let mut open = Vec::with_capacity(CONNECTIONS);
    for _ in 0..CONNECTIONS {
        let mut stream = TcpStream::connect(&broker.bootstrap)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.write_all(&request)?;
        let mut length = [0; 4];
        stream.read_exact(&mut length)?;
        stream.read_exact(&mut vec![0; u32::from_be_bytes(length) as usize])?;
        open.push(stream);
    }
    let after = broker.memory()?;
    let topic = bench.create_topic(broker, 6, &[])?;
    let line = format!("produce {} {produce}", target(broker, &topic));
    let outcome = measure(bench, broker, &line);
    broker.delete_topics(&[&topic])?;
    let mut figures = outcome?;
    let added = |after: u64, before: u64| after.saturating_sub(before) as f64 / MB;
    figures.insert("RSS MB", added(after.resident, before.resident));
    figures.insert("anonymous MB", added(after.anonymous, before.anonymous));
    Ok(figures)
}
