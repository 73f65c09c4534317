//! Producing in transactions, beside the same without them.

use std::collections::BTreeMap;

use anyhow::Context;
use clients::report::{Latency, Side};

use super::{GB, latencies, less, load, more, target};
use crate::versus::bench::{Bench, produced};
use crate::versus::scenario::{Column, Figures, Row, Scenario};

/// Of payload, in each run.
const BYTES: u64 = 800_000_000;
const PARTITIONS: u32 = 6;
/// Records that are not acknowledged yet, over all producers. With librdkafka's whole queue, of 100,000, a
/// commit would wait for the queue to run dry for far longer than the transaction took records, and
/// intervals of 10 and 100 ms would come to the same.
const IN_FLIGHT: u32 = 2_000;

/// `versus --scenario transactions`.
#[derive(Debug, Default)]
pub struct Transactions {
    /// By arm and producers: the MB/s without transactions in this round. Where `--row` leaves that row
    /// out there is nothing to compare with.
    idempotent: BTreeMap<(String, u32), f64>,
}

struct Setting {
    producers: u32,
    /// How long a transaction takes records; none is an idempotent producer without transactions.
    duration_ms: Option<u32>,
    in_short: bool,
}

const fn setting(producers: u32, duration_ms: Option<u32>, in_short: bool) -> Setting {
    Setting {
        producers,
        duration_ms,
        in_short,
    }
}

/// Those without transactions go before those that are compared with them.
const SETTINGS: [Setting; 6] = [
    setting(1, None, true),
    setting(1, Some(100), true),
    setting(1, Some(10), true),
    setting(8, None, false),
    setting(8, Some(100), false),
    setting(8, Some(10), false),
];

impl Setting {
    fn name(&self) -> String {
        let producers = match self.producers {
            1 => "1 producer".to_owned(),
            more => format!("{more} producers"),
        };
        match self.duration_ms {
            Some(ms) => format!("{producers}, a commit after {ms} ms"),
            None => format!("{producers}, idempotent"),
        }
    }

    /// As given to `milena-load`; the transactional ids begin with `id`.
    fn load(&self, id: &str) -> String {
        let kind = match self.duration_ms {
            Some(ms) => format!("--transactional-id {id} --transaction-duration-ms {ms}"),
            None => "--idempotent".to_owned(),
        };
        let (producers, in_flight) = (self.producers, IN_FLIGHT / self.producers);
        format!(
            "--acks all --bytes {BYTES} --size 1KiB --linger-ms 5 --producers {producers} \
             --in-flight {in_flight} {kind}"
        )
    }
}

impl Scenario for Transactions {
    fn name(&self) -> &'static str {
        "transactions"
    }

    fn about(&self) -> String {
        "librdkafka producers, as fast as they go, to a new topic with 6 partitions, acks=all: 0.8 GB of payload in \
         records of 1 KiB a run, with 2,000 records unacknowledged at any time, over all producers. A \
         transaction takes records for 100 or 10 ms, then it is committed, and nothing is sent until it is; \
         each producer has a transactional id of its own. `of idempotent` is the arm's MB/s divided by \
         its own MB/s without transactions in the same round. `commit` is from the call to its return, \
         which waits for the acknowledgement of the transaction's last records; `after acks` the part of it \
         after the last acknowledgement: what the coordinator takes. `p99` is from handing a record to \
         librdkafka to its acknowledgement, CPU the broker's.\n\n\
         `milena` waits for the disk; `milena page cache` is what Kafka does (topic config \
         `milena.acks.all.durability=page_cache`)."
            .to_owned()
    }

    fn columns(&self) -> Vec<Column> {
        vec![
            more("MB/s"),
            more("of idempotent"),
            more("transactions/s"),
            less("commit p50 ms"),
            less("commit p99 ms"),
            less("after acks p50 ms"),
            less("after acks p99 ms"),
            less("p99 ms"),
            less("CPU-s/GB"),
        ]
    }

    fn rows(&self, short: bool) -> Vec<Row> {
        let settings = SETTINGS.iter().filter(|setting| setting.in_short || !short);
        let row = |setting: &Setting| Row {
            name: setting.name(),
            arms: vec!["milena", "milena page cache", "kafka"],
            settings: format!("milena-load produce {}", setting.load("TOPIC")),
        };
        settings.map(row).collect()
    }

    fn run(&mut self, bench: &mut Bench, row: &Row, arm: &str) -> anyhow::Result<Figures> {
        let setting = SETTINGS.iter().find(|setting| setting.name() == row.name);
        let setting = setting.context("a row of this scenario")?;
        let key = (arm.to_owned(), setting.producers);
        if setting.duration_ms.is_none() {
            // Where this run fails, that of another round is nothing to compare with.
            self.idempotent.remove(&key);
        }
        let configs: &[(&str, &str)] = match arm {
            "milena page cache" => &[("milena.acks.all.durability", "page_cache")],
            _ => &[],
        };
        let broker = bench.broker(arm)?;
        let topic = bench.create_topic(&broker, PARTITIONS, configs)?;
        let line = format!(
            "produce {} {}",
            target(&broker, &topic),
            setting.load(&topic)
        );
        let outcome = load(bench, &broker, &line);
        broker.delete_topics(&[&topic])?;
        let (report, cpu) = outcome?;
        let side = produced(&report)?;
        let mut figures = latencies(side.latency.as_ref(), false)?;
        figures.remove("p50 ms");
        figures.insert("MB/s", side.mb_per_second);
        figures.insert("CPU-s/GB", cpu / (side.bytes as f64 / GB));
        if setting.duration_ms.is_none() {
            self.idempotent.insert(key, side.mb_per_second);
        } else {
            figures.append(&mut commits(side)?);
            if let Some(idempotent) = self.idempotent.get(&key) {
                figures.insert("of idempotent", side.mb_per_second / idempotent);
            }
        }
        Ok(figures)
    }
}

fn commits(side: &Side) -> anyhow::Result<Figures> {
    let transactions = side.transactions.as_ref();
    let transactions = transactions.context("no transaction was committed")?;
    let measured = |latency: &Option<Latency>| latency.clone().context("no commit was measured");
    let whole = measured(&transactions.commit)?;
    let after = measured(&transactions.commit_after_acknowledgements)?;
    let ms = |us: u64| us as f64 / 1e3;
    Ok(Figures::from([
        ("transactions/s", transactions.committed_per_second),
        ("commit p50 ms", ms(whole.p50_us)),
        ("commit p99 ms", ms(whole.p99_us)),
        ("after acks p50 ms", ms(after.p50_us)),
        ("after acks p99 ms", ms(after.p99_us)),
    ]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_setting_comes_after_what_it_is_compared_with() {
        for (n, setting) in SETTINGS.iter().enumerate() {
            let before = SETTINGS[..=n].iter();
            let mut same = before.filter(|other| other.producers == setting.producers);
            let idempotent = same.next().expect("itself at least");
            assert!(idempotent.duration_ms.is_none(), "{}", setting.name());
            assert!(
                idempotent.in_short || !setting.in_short,
                "{}",
                setting.name()
            );
        }
    }
}
