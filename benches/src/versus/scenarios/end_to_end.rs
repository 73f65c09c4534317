//! From when a record is due to when a consumer has it, at fixed rates.

use std::time::Instant;

use anyhow::Context;

use super::{latencies, less, load, more, target};
use crate::versus::bench::Bench;
use crate::versus::scenario::{Column, Figures, Row, Scenario};

/// `versus --scenario end-to-end`.
#[derive(Debug, Default)]
pub struct EndToEnd {
    /// Records a second that the slower broker manages.
    most: Option<f64>,
}

#[derive(Clone, Copy)]
enum Rate {
    Fixed(f64),
    /// Of what the slower broker manages.
    Part(f64),
}

struct Setting {
    name: &'static str,
    rate: Rate,
    load: &'static str,
    /// Whether Milena is measured with acks=all in the page cache too.
    page_cache: bool,
    in_short: bool,
}

const USUAL: &str = "--size 1KiB --acks 1 --linger-ms 0";
const PARTITIONS: u32 = 6;

const SETTINGS: [Setting; 5] = [
    Setting {
        name: "1,000/s",
        rate: Rate::Fixed(1_000.0),
        load: USUAL,
        page_cache: false,
        in_short: true,
    },
    Setting {
        name: "10,000/s",
        rate: Rate::Fixed(10_000.0),
        load: USUAL,
        page_cache: false,
        in_short: false,
    },
    Setting {
        name: "50 % of the slower broker's most",
        rate: Rate::Part(0.5),
        load: USUAL,
        page_cache: false,
        in_short: true,
    },
    Setting {
        name: "80 % of the slower broker's most",
        rate: Rate::Part(0.8),
        load: USUAL,
        page_cache: false,
        in_short: false,
    },
    Setting {
        name: "1,000/s, acks=all",
        rate: Rate::Fixed(1_000.0),
        load: "--size 1KiB --acks all --linger-ms 0",
        page_cache: true,
        in_short: false,
    },
];

impl Scenario for EndToEnd {
    fn name(&self) -> &'static str {
        "end-to-end"
    }

    fn about(&self) -> String {
        "One librdkafka producer and one consumer of a topic with 6 partitions. Records are sent evenly \
         spaced, and a record's time begins when it is due, so that a stall is seen by every record that was \
         due in it. The most that a broker manages is measured first, in the same run, with a thousand \
         records on the way at any time; both brokers then get the same part of what the slower one \
         manages. CPU is the broker's, in cores.\n\n`milena` with acks=all waits for the disk; `milena page \
         cache` is what Kafka does."
            .to_owned()
    }

    fn columns(&self) -> Vec<Column> {
        vec![
            less("p99 ms"),
            less("p50 ms"),
            less("p99.9 ms"),
            less("max ms"),
            less("CPU cores"),
            more("records/s"),
        ]
    }

    fn rows(&self, short: bool) -> Vec<Row> {
        let settings = SETTINGS.iter().filter(|setting| setting.in_short || !short);
        let row = |setting: &Setting| Row {
            name: setting.name.to_owned(),
            arms: if setting.page_cache {
                vec!["milena", "milena page cache", "kafka"]
            } else {
                vec!["milena", "kafka"]
            },
            settings: format!("milena-load end-to-end {}", setting.load),
        };
        settings.map(row).collect()
    }

    fn run(&mut self, bench: &mut Bench, row: &Row, arm: &str) -> anyhow::Result<Figures> {
        let setting = SETTINGS.iter().find(|setting| setting.name == row.name);
        let setting = setting.context("a row of this scenario")?;
        let rate = match setting.rate {
            Rate::Fixed(rate) => rate,
            Rate::Part(part) => (self.most(bench, setting.load)? * part).round(),
        };
        let seconds = if bench.short { 4 } else { 5 };
        let line = format!(
            "{} --rate {rate} --seconds {seconds} --warmup-seconds 1",
            setting.load
        );
        run(bench, arm, &line)
    }
}

impl EndToEnd {
    fn most(&mut self, bench: &mut Bench, load: &str) -> anyhow::Result<f64> {
        if let Some(most) = self.most {
            return Ok(most);
        }
        let mut most = f64::INFINITY;
        for arm in ["milena", "kafka"] {
            let line = format!("{load} --in-flight 1000 --seconds 3 --warmup-seconds 1");
            most = most.min(run(bench, arm, &line)?["records/s"]);
        }
        self.most = Some(most);
        Ok(most)
    }
}

fn run(bench: &mut Bench, arm: &str, settings: &str) -> anyhow::Result<Figures> {
    let configs: &[(&str, &str)] = match arm {
        "milena page cache" => &[("milena.acks.all.durability", "page_cache")],
        _ => &[],
    };
    let broker = bench.broker(arm)?;
    let topic = bench.create_topic(&broker, PARTITIONS, configs)?;
    let line = format!("end-to-end {} {settings}", target(&broker, &topic));
    let began = Instant::now();
    let outcome = load(bench, &broker, &line);
    let seconds = began.elapsed().as_secs_f64();
    broker.delete_topics(&[&topic])?;
    let (report, cpu) = outcome?;
    let mut figures = latencies(report.end_to_end.as_ref(), true)?;
    let consumed = report.consumed.context("nothing was consumed")?;
    figures.insert("records/s", consumed.records_per_second);
    figures.insert("CPU cores", cpu / seconds);
    Ok(figures)
}
