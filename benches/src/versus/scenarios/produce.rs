//! Producing as fast as one producer goes.

use std::time::{Duration, Instant};

use anyhow::Context;
use bytesize::ByteSize;

use super::{GB, latencies, less, load, more, target};
use crate::raw::{Connection, check_produced, produce_frame};
use crate::versus::bare::{Cheapest, socket_to_file};
use crate::versus::bench::{Bench, produced};
use crate::versus::broker::Broker;
use crate::versus::scenario::{Column, Figures, Row, Scenario};

/// Of payload, in each run.
const BYTES: u64 = 800_000_000;

/// `versus --scenario produce`.
#[derive(Debug, Default)]
pub struct Produce {
    buffer: Cheapest<usize>,
}

/// Of a raw client's requests, like librdkafka's `batch.size`; and most of what a record has beside its value.
const RAW_BYTES: u64 = 1_000_000;
const RAW_RECORD_BYTES: u64 = 16;
/// How long a new topic's partitions may refuse what they will take.
const READY: Duration = Duration::from_secs(10);
/// What stands for `Setting::extra` where a raw client produces.
const RAW: &str = "--acks 1, raw requests of 1 MB";

struct Setting {
    /// Of a record, as given to `milena-load`.
    size: &'static str,
    partitions: u32,
    /// As given to `milena-load`, or [`RAW`]; also the row's name, as far as it is not the usual.
    extra: &'static str,
    in_short: bool,
}

const fn setting(
    size: &'static str,
    partitions: u32,
    extra: &'static str,
    in_short: bool,
) -> Setting {
    Setting {
        size,
        partitions,
        extra,
        in_short,
    }
}

const SETTINGS: [Setting; 19] = [
    setting("1KiB", 1, "--acks 1", true),
    setting("1KiB", 6, "--acks 1", true),
    setting("1KiB", 100, "--acks 1", false),
    setting("100B", 1, "--acks 1", false),
    setting("100B", 6, "--acks 1", true),
    setting("100B", 100, "--acks 1", false),
    setting("10KiB", 1, "--acks 1", false),
    setting("10KiB", 6, "--acks 1", false),
    setting("10KiB", 100, "--acks 1", false),
    setting("1KiB", 1, RAW, true),
    setting("1KiB", 100, RAW, false),
    setting("100B", 1, RAW, false),
    setting("1KiB", 1, "--acks all", false),
    setting("1KiB", 6, "--acks all", true),
    setting("1KiB", 6, "--acks all --idempotent", false),
    setting("1KiB", 1, "--acks 1 --compression lz4", false),
    setting("1KiB", 6, "--acks 1 --compression lz4", false),
    setting("1KiB", 1, "--acks 1 --compression zstd", false),
    setting("1KiB", 6, "--acks 1 --compression zstd", false),
];

impl Setting {
    fn name(&self) -> String {
        let partitions = if self.partitions == 1 {
            "partition"
        } else {
            "partitions"
        };
        let extra = self
            .extra
            .replace(" --compression ", ", ")
            .replace("--acks ", "acks=");
        format!(
            "{}, {} {partitions}, {}",
            self.size,
            self.partitions,
            extra.replace(" --", ", ")
        )
    }

    fn arms(&self) -> Vec<&'static str> {
        match self.extra {
            "--acks 1" | RAW => vec!["milena", "kafka", "bare"],
            extra if extra.starts_with("--acks all") => {
                vec!["milena", "milena page cache", "kafka"]
            }
            _ => vec!["milena", "kafka"],
        }
    }

    fn load(&self) -> String {
        if self.extra == RAW {
            return "one request in flight, to one partition after the other".to_owned();
        }
        format!(
            "milena-load produce --bytes {BYTES} --size {} --linger-ms 5 {}",
            self.size, self.extra
        )
    }
}

impl Scenario for Produce {
    fn name(&self) -> &'static str {
        "produce"
    }

    fn about(&self) -> String {
        "One librdkafka producer, as fast as it goes, to a new topic: 0.8 GB of payload a run. CPU is the \
         broker's, per GB of payload before compression; p99 is from handing a record to librdkafka to \
         its acknowledgement, which at this speed is mostly the time in librdkafka's queue. The raw client sends \
         requests that were built before, as large as librdkafka's default batches, which shows the broker \
         rather than librdkafka.\n\n\
         `milena` with acks=all waits for the disk; `milena page cache` is what Kafka does (topic config \
         `milena.acks.all.durability=page_cache`). `bare` reads as many bytes from a socket, computes \
         their CRC-32C and writes them to one file in the page cache, with the buffer of 64 KiB, 256 KiB \
         or 1 MiB that is cheapest."
            .to_owned()
    }

    fn columns(&self) -> Vec<Column> {
        vec![more("MB/s"), less("CPU-s/GB"), less("p99 ms")]
    }

    fn rows(&self, short: bool) -> Vec<Row> {
        let settings = SETTINGS.iter().filter(|setting| setting.in_short || !short);
        let row = |setting: &Setting| Row {
            name: setting.name(),
            arms: setting.arms(),
            settings: setting.load(),
        };
        settings.map(row).collect()
    }

    fn run(&mut self, bench: &mut Bench, row: &Row, arm: &str) -> anyhow::Result<Figures> {
        let setting = SETTINGS.iter().find(|setting| setting.name() == row.name);
        let setting = setting.context("a row of this scenario")?;
        if arm == "bare" {
            let receive = |buffer| socket_to_file::run(bench.folder(), BYTES, buffer);
            return Ok(self
                .buffer
                .run(&socket_to_file::BUFFERS, receive)?
                .figures());
        }
        let configs: &[(&str, &str)] = match arm {
            "milena page cache" => &[("milena.acks.all.durability", "page_cache")],
            _ => &[],
        };
        let broker = bench.broker(arm)?;
        let topic = bench.create_topic(&broker, setting.partitions, configs)?;
        let outcome = if setting.extra == RAW {
            raw(&broker, &topic, setting)
        } else {
            librdkafka(bench, &broker, &topic, setting)
        };
        broker.delete_topics(&[&topic])?;
        outcome
    }
}

fn librdkafka(
    bench: &Bench,
    broker: &Broker,
    topic: &str,
    setting: &Setting,
) -> anyhow::Result<Figures> {
    let line = format!("{} {}", setting.load(), target(broker, topic));
    let line = line.strip_prefix("milena-load ").unwrap_or(&line);
    let (report, cpu) = load(bench, broker, line)?;
    let side = produced(&report)?;
    let mut figures = latencies(side.latency.as_ref(), false)?;
    figures.remove("p50 ms");
    figures.insert("MB/s", side.mb_per_second);
    figures.insert("CPU-s/GB", cpu / (side.bytes as f64 / GB));
    Ok(figures)
}

fn raw(broker: &Broker, topic: &str, setting: &Setting) -> anyhow::Result<Figures> {
    let record_bytes: ByteSize = setting.size.parse().map_err(anyhow::Error::msg)?;
    let record_bytes = record_bytes.as_u64();
    let records = RAW_BYTES / (record_bytes + RAW_RECORD_BYTES);
    let frame =
        |partition| produce_frame(topic, partition, records as usize, record_bytes as usize, 1);
    let partitions = 0..setting.partitions as i32;
    let frames: Vec<_> = partitions.clone().map(frame).collect::<Result<_, _>>()?;
    let request_bytes = records * record_bytes;
    let requests = BYTES.div_ceil(request_bytes);
    let mut connection = Connection::open(&broker.bootstrap)?;
    for partition in partitions {
        until_ready(&mut connection, topic, partition)?;
    }
    let (began, cpu) = (Instant::now(), broker.cpu_seconds()?);
    for frame in frames.iter().cycle().take(requests as usize) {
        check_produced(connection.exchange(frame)?)?;
    }
    let (seconds, cpu) = (began.elapsed().as_secs_f64(), broker.cpu_seconds()? - cpu);
    let gigabytes = (requests * request_bytes) as f64 / GB;
    Ok(Figures::from([
        ("MB/s", gigabytes * 1e3 / seconds),
        ("CPU-s/GB", cpu / gigabytes),
    ]))
}

/// A partition may have no leader yet when its topic is there.
fn until_ready(connection: &mut Connection, topic: &str, partition: i32) -> anyhow::Result<()> {
    let frame = produce_frame(topic, partition, 1, 1, 1)?;
    let began = Instant::now();
    loop {
        match check_produced(connection.exchange(&frame)?) {
            Err(_) if began.elapsed() < READY => std::thread::sleep(READY / 1000),
            done => return done,
        }
    }
}
