//! Consuming what is there, as fast as it goes.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::{Context, ensure};

use super::{GB, less, load, more, target};
use crate::raw::Consumer;
use crate::versus::bare::Cheapest;
use crate::versus::bare::file_to_socket::{Source, WAYS, Way};
use crate::versus::bench::{Bench, produced};
use crate::versus::broker::Broker;
use crate::versus::cold;
use crate::versus::scenario::{Column, Figures, Row, Scenario};

const RECORD_BYTES: u64 = 1 << 10;
/// In each topic: 0.82 GB.
const RECORDS: u64 = 800_000;

/// `versus --scenario consume`.
#[derive(Debug, Default)]
pub struct Consume {
    way: Cheapest<Way>,
    source: Option<Source>,
    /// By arm and partitions: what is there to be read.
    topics: BTreeMap<(String, u32), String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    Groups(u64),
    Cold,
    Raw,
}

const ROWS: [(&str, u32, How); 8] = [
    ("1 partition", 1, How::Groups(1)),
    ("100 partitions", 100, How::Groups(1)),
    ("1 partition, 10 groups at once", 1, How::Groups(10)),
    ("100 partitions, 10 groups at once", 100, How::Groups(10)),
    ("1 partition, not in the page cache", 1, How::Cold),
    ("100 partitions, not in the page cache", 100, How::Cold),
    ("raw fetches, 1 partition", 1, How::Raw),
    ("raw fetches, 100 partitions", 100, How::Raw),
];

impl How {
    /// In each group: several groups read half as much each.
    fn records(self) -> u64 {
        if matches!(self, Self::Groups(2..)) {
            RECORDS / 2
        } else {
            RECORDS
        }
    }

    fn groups(self) -> u64 {
        if let Self::Groups(groups) = self {
            groups
        } else {
            1
        }
    }

    fn load(self) -> String {
        format!(
            "--assign --groups {} --records {}",
            self.groups(),
            self.records()
        )
    }
}

impl Scenario for Consume {
    fn name(&self) -> &'static str {
        "consume"
    }

    fn about(&self) -> String {
        "0.82 GB in records of 1 KiB, produced once, read from the start: by librdkafka's consumer, or by ten \
         groups at once that read half of it each; and by a raw client that sends fetches in a session and \
         throws away what comes, with librdkafka's limits (1 MiB of a partition, 50 MiB in all), which \
         shows the broker rather than librdkafka. CPU is the broker's, per GB that was read. Everything is in \
         the page cache, but for the row that says otherwise: there the segments' pages are dropped \
         before each run, from the broker's maps too, and `mincore` confirms it.\n\n`bare` sends a file of \
         0.82 GB in the page cache to a socket in the cheapest of four ways: `write` from a map or `sendfile`, \
         64 KiB or 1 MiB a call."
            .to_owned()
    }

    fn columns(&self) -> Vec<Column> {
        vec![more("MB/s"), less("CPU-s/GB")]
    }

    fn rows(&self, short: bool) -> Vec<Row> {
        let row = |(name, partitions, how): &(&str, u32, How)| Row {
            name: (*name).to_owned(),
            arms: match how {
                How::Raw => vec!["milena", "kafka", "bare"],
                _ => vec!["milena", "kafka"],
            },
            settings: match how {
                How::Raw => format!("raw fetches from {partitions} partitions"),
                how => format!("milena-load consume {}", how.load()),
            },
        };
        let usual = |how: How| matches!(how, How::Groups(1) | How::Raw);
        let chosen =
            |(_, partitions, how): &&(&str, u32, How)| !short || (*partitions == 1 && usual(*how));
        ROWS.iter().filter(chosen).map(row).collect()
    }

    fn run(&mut self, bench: &mut Bench, row: &Row, arm: &str) -> anyhow::Result<Figures> {
        let found = ROWS.iter().find(|(name, ..)| *name == row.name);
        let (_, partitions, how) = *found.context("a row of this scenario")?;
        if arm == "bare" {
            return self.bare(bench);
        }
        let broker = bench.broker(arm)?;
        let topic = self.topic(bench, &broker, arm, partitions)?;
        let gigabytes = (how.groups() * how.records() * RECORD_BYTES) as f64 / GB;
        let (rate, cpu) = match how {
            How::Raw => {
                let (began, cpu) = (Instant::now(), broker.cpu_seconds()?);
                Consumer::new(&broker.bootstrap, &topic, partitions as i32)?.read(RECORDS)?;
                let seconds = began.elapsed().as_secs_f64();
                (gigabytes * 1e3 / seconds, broker.cpu_seconds()? - cpu)
            }
            how => {
                if how == How::Cold {
                    cold::forget(&broker, &topic)?;
                }
                let line = format!("consume {} {}", target(&broker, &topic), how.load());
                let (report, cpu) = load(bench, &broker, &line)?;
                let side = report.consumed.context("nothing was consumed")?;
                let expected = how.groups() * how.records();
                ensure!(
                    side.records >= expected,
                    "{} records of {expected}",
                    side.records
                );
                (side.mb_per_second, cpu)
            }
        };
        Ok(Figures::from([
            ("MB/s", rate),
            ("CPU-s/GB", cpu / gigabytes),
        ]))
    }

    fn finish(&mut self, bench: &mut Bench) -> anyhow::Result<()> {
        self.source = None;
        for ((arm, _), topic) in std::mem::take(&mut self.topics) {
            bench.broker(&arm)?.delete_topics(&[&topic])?;
        }
        Ok(())
    }
}

impl Consume {
    /// The broker's topic of so many partitions, filled the first time.
    fn topic(
        &mut self,
        bench: &mut Bench,
        broker: &Broker,
        arm: &str,
        partitions: u32,
    ) -> anyhow::Result<String> {
        let key = (arm.to_owned(), partitions);
        if let Some(topic) = self.topics.get(&key) {
            return Ok(topic.clone());
        }
        let topic = bench.create_topic(broker, partitions, &[])?;
        self.topics.insert(key, topic.clone());
        let target = target(broker, &topic);
        let line = format!("produce {target} --records {RECORDS} --size {RECORD_BYTES} --acks 1");
        let (report, _) = load(bench, broker, &line)?;
        produced(&report)?;
        Ok(topic)
    }

    fn bare(&mut self, bench: &Bench) -> anyhow::Result<Figures> {
        if self.source.is_none() {
            self.source = Some(Source::create(bench.folder(), RECORDS * RECORD_BYTES)?);
        }
        let source = self.source.as_ref().context("the file to send")?;
        Ok(self.way.run(&WAYS, |way| source.send(way))?.figures())
    }
}
