//! Kafka's own performance tools, against both brokers.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

use super::{GB, less, load, more, target};
use crate::versus::bench::{Bench, produced};
use crate::versus::broker::Broker;
use crate::versus::scenario::{Column, Figures, Row, Scenario};

const RECORDS: u64 = 800_000;
const RECORD_BYTES: u64 = 1 << 10;
const ROUND_TRIPS: u64 = 3_000;
const PARTITIONS: u32 = 6;
const TIMEOUT: Duration = Duration::from_secs(120);

/// `versus --scenario kafka-tools`.
#[derive(Debug, Default)]
pub struct KafkaTools {
    /// By arm: a topic to be consumed.
    filled: BTreeMap<String, String>,
}

const ROWS: [&str; 3] = [
    "ProducerPerformance",
    "ConsumerPerformance",
    "EndToEndLatency",
];

/// The tool's arguments.
fn arguments(tool: &str, bootstrap: &str, topic: &str) -> String {
    match tool {
        "ProducerPerformance" => format!(
            "--bootstrap-server {bootstrap} --topic {topic} --num-records {RECORDS} \
             --record-size {RECORD_BYTES} --throughput -1 --command-property acks=1"
        ),
        "ConsumerPerformance" => format!(
            "--bootstrap-server {bootstrap} --topic {topic} --num-records {RECORDS} --hide-header"
        ),
        _ => format!("{bootstrap} {topic} {ROUND_TRIPS} 1 {RECORD_BYTES}"),
    }
}

impl Scenario for KafkaTools {
    fn name(&self) -> &'static str {
        "kafka-tools"
    }

    fn about(&self) -> String {
        "Kafka's own tools with Java's clients and their defaults, as a check of the other tables: \
         ProducerPerformance (0.82 GB in records of 1 KiB, acks=1), ConsumerPerformance (the same, without \
         the time that its group takes to form), EndToEndLatency (one record at a time, acks=1); topics \
         with 6 partitions. MB are 10^6 bytes, which the tools don't use. CPU is the broker's."
            .to_owned()
    }

    fn columns(&self) -> Vec<Column> {
        vec![
            more("MB/s"),
            less("CPU-s/GB"),
            less("mean ms"),
            less("p50 ms"),
            less("p99 ms"),
        ]
    }

    fn rows(&self, short: bool) -> Vec<Row> {
        let row = |tool: &str| Row {
            name: tool.to_owned(),
            arms: vec!["milena", "kafka"],
            settings: format!(
                "org.apache.kafka.tools.{tool} {}",
                arguments(tool, "BOOTSTRAP", "TOPIC")
            ),
        };
        let tools = if short { &ROWS[..1] } else { &ROWS };
        tools.iter().map(|tool| row(tool)).collect()
    }

    fn rounds(&self, wanted: usize) -> usize {
        wanted.min(3)
    }

    fn run(&mut self, bench: &mut Bench, row: &Row, arm: &str) -> anyhow::Result<Figures> {
        let broker = bench.broker(arm)?;
        let topic = match (row.name.as_str(), self.filled.get(arm)) {
            ("ConsumerPerformance", Some(filled)) => filled.clone(),
            _ => bench.create_topic(&broker, PARTITIONS, &[])?,
        };
        let is_new = !self.filled.values().any(|filled| *filled == topic);
        if row.name == "ConsumerPerformance" && is_new {
            self.filled.insert(arm.to_owned(), topic.clone());
            let target = target(&broker, &topic);
            let line =
                format!("produce {target} --records {RECORDS} --size {RECORD_BYTES} --acks 1");
            produced(&load(bench, &broker, &line)?.0)?;
        }
        let outcome = measure(bench, &broker, &row.name, &topic);
        if row.name != "ConsumerPerformance" {
            broker.delete_topics(&[&topic])?;
        }
        outcome
    }

    fn finish(&mut self, bench: &mut Bench) -> anyhow::Result<()> {
        for (arm, topic) in std::mem::take(&mut self.filled) {
            bench.broker(&arm)?.delete_topics(&[&topic])?;
        }
        Ok(())
    }
}

fn measure(bench: &mut Bench, broker: &Broker, tool: &str, topic: &str) -> anyhow::Result<Figures> {
    let before = broker.cpu_seconds()?;
    let said = run_tool(bench, tool, &arguments(tool, &broker.bootstrap, topic))?;
    let cpu = broker.cpu_seconds()? - before;
    let parsed = match tool {
        "ProducerPerformance" => producer_performance(&said),
        "ConsumerPerformance" => consumer_performance(&said),
        _ => end_to_end_latency(&said),
    };
    let mut figures = parsed.with_context(|| format!("{tool} has said: {said}"))?;
    if tool != "EndToEndLatency" {
        figures.insert("CPU-s/GB", cpu / ((RECORDS * RECORD_BYTES) as f64 / GB));
    }
    Ok(figures)
}

fn run_tool(bench: &mut Bench, tool: &str, arguments: &str) -> anyhow::Result<String> {
    let output = bench.folder().join("tool.out");
    let mut child = bench
        .class_path()?
        // As kafka-producer-perf-test.sh and its like have it.
        .java(&["-Xmx512M"], &format!("org.apache.kafka.tools.{tool}"))
        .args(arguments.split_whitespace())
        .stdout(std::fs::File::create(&output)?)
        .stderr(Stdio::null())
        .spawn()?;
    let began = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if began.elapsed() > TIMEOUT {
            child.kill()?;
            child.wait()?;
            bail!("{tool} has not ended after {TIMEOUT:?}");
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let said = std::fs::read_to_string(output)?;
    ensure!(status.success(), "{tool}: {status}: {said}");
    Ok(said)
}

/// `800000 records sent, 351493.8 records/sec (343.26 MB/sec), 60.0 ms avg latency, 226.00 ms max
/// latency, 58 ms 50th, 103 ms 95th, 170 ms 99th, 190 ms 99.9th.`
fn producer_performance(said: &str) -> Option<Figures> {
    let mut lines = said.lines().rev();
    let line = lines.find(|line| line.contains("records sent") && line.contains("99th"))?;
    let before = |what: &str| -> Option<f64> {
        let mut parts = line.split([',', '(']).map(str::trim);
        parts.find_map(|part| part.strip_suffix(what)?.trim().parse().ok())
    };
    Some(Figures::from([
        ("MB/s", before("records/sec")? * RECORD_BYTES as f64 / 1e6),
        ("mean ms", before("ms avg latency")?),
        ("p50 ms", before("ms 50th")?),
        ("p99 ms", before("ms 99th")?),
    ]))
}

/// `start.time, end.time, data.consumed.in.MB, MB.sec, data.consumed.in.nMsg, nMsg.sec,
/// rebalance.time.ms, fetch.time.ms, fetch.MB.sec, fetch.nMsg.sec`
fn consumer_performance(said: &str) -> Option<Figures> {
    let fields = said.lines().rev().find_map(|line| {
        let fields: Vec<&str> = line.split(',').map(str::trim).collect();
        (fields.len() == 10).then_some(fields)
    })?;
    let per_second: f64 = fields[9].parse().ok()?;
    Some(Figures::from([(
        "MB/s",
        per_second * RECORD_BYTES as f64 / 1e6,
    )]))
}

/// `Avg latency: 0.5321 ms` and `Percentiles: 50th = 0, 99th = 2, 99.9th = 6`
fn end_to_end_latency(said: &str) -> Option<Figures> {
    let after = |what: &str| -> Option<f64> {
        let (_, rest) = said.split_once(what)?;
        let number: String = rest
            .trim_start()
            .chars()
            .take_while(|c| c.is_ascii_digit() || *c == '.')
            .collect();
        number.parse().ok()
    };
    Some(Figures::from([
        ("mean ms", after("Avg latency:")?),
        ("p50 ms", after("50th =")?),
        ("p99 ms", after("99th =")?),
    ]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_tools_say_is_understood() {
        let said = "x\n800000 records sent, 351493.8 records/sec (343.26 MB/sec), 60.5 ms avg \
                    latency, 226.00 ms max latency, 58 ms 50th, 103 ms 95th, 170 ms 99th, \
                    190 ms 99.9th.\n";
        let found = producer_performance(said).unwrap();
        assert_eq!(
            (found["mean ms"], found["p50 ms"], found["p99 ms"]),
            (60.5, 58.0, 170.0)
        );
        assert!((found["MB/s"] - 359.93).abs() < 0.01);
        let said = "2026-11-30 14:00:00:000, 2026-11-30 14:00:02:000, 781.25, 390.6, 800000, \
                    400000.0, 300, 1700, 459.6, 500000.0\n";
        assert_eq!(consumer_performance(said).unwrap()["MB/s"], 512.0);
        let said = "0\t1.5\nAvg latency: 0.5321 ms\nPercentiles: 50th = 0, 99th = 2, 99.9th = 6\n";
        let found = end_to_end_latency(said).unwrap();
        assert_eq!(
            (found["mean ms"], found["p50 ms"], found["p99 ms"]),
            (0.5321, 0.0, 2.0)
        );
        assert!(producer_performance("nothing").is_none());
    }
}
