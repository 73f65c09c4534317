//! Ten thousand partitions in one process: how long starts and stops take, and what the process holds.
//!
//! ```text
//! cargo run --release -p benches --bin partitions            # the shapes below
//! cargo run --release -p benches --bin partitions -- 100 10 5   # topics, partitions in each, segments in each
//! ```
//!
//! Each partition gets as many segments as the shape says, each with [`RECORDS`] records of
//! [`RECORD_BYTES`] in a batch. *Serving* is the time from `exec` to the answer to a Metadata request
//! that names every partition and a produced record; starts are medians of [`ROUNDS`]. RSS counts mapped log
//! files that happen to be in the page cache, *anonymous* is the process's own; files and maps are
//! the entries of `/proc/<pid>/fd` and `/proc/<pid>/maps`. CPU is the broker's, user and system.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use benches::process;
use benches::raw::Connection;
use bytes::Bytes;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    CreateTopicsRequest, FetchRequest, MetadataRequest, ProduceRequest, TopicName,
};
use kafka_protocol::protocol::StrBytes;
use storage::batch::{BatchBuilder, Compression};
use tests::Milena;

const ROUNDS: usize = 5;
/// Topics, partitions in each, segments in each partition.
const SHAPES: [(usize, i32, usize); 3] = [(1_000, 10, 1), (1, 10_000, 1), (1_000, 10, 5)];
const RECORDS: usize = 20;
const RECORD_BYTES: usize = 100;
/// `segment.ms`, and how far apart the records of two segments are.
const SEGMENT_MS: &str = "60000";
const SEGMENTS_APART_MS: i64 = 120_000;
const IDLE: Duration = Duration::from_secs(30);
const FETCH_BYTES: i32 = 50 << 20;

/// Start, memory, files and maps of a broker with very many partitions.
#[derive(clap::Parser)]
struct Args {
    /// Topics, partitions in each, segments in each partition; three shapes of 10,000 partitions one
    /// after the other where nothing is given.
    #[arg(num_args = 3, value_names = ["TOPICS", "PARTITIONS", "SEGMENTS"], value_parser = clap::value_parser!(i32).range(1..))]
    shape: Vec<i32>,
}

fn main() {
    let args: Args = clap::Parser::parse();
    println!("| what | figure |\n|---|---|");
    match args.shape[..] {
        [topics, partitions, segments] => measure((topics as usize, partitions, segments as usize)),
        _ => SHAPES.into_iter().for_each(measure),
    }
}

fn measure((topics, partitions, segments): (usize, i32, usize)) {
    println!("| **{topics} topics of {partitions} partitions, {segments} segments each** | |");
    let shape = Shape {
        topics,
        partitions,
        segments,
    };
    // Checkpoints in the midst would make what is measured differ from run to run.
    let mut milena = Milena::start_with_broker("checkpoint_interval_ms = 3600000", "");
    let mut client = connect(&milena);
    let took = timed(|| shape.create(&mut client));
    row("all created in", &format!("{took:.2} s"));
    holds(&milena, "created");
    let took = timed(|| (0..segments).for_each(|n| shape.produce(&mut client, n)));
    row(
        &format!("{RECORDS} records produced to each, {segments} times, acks=1"),
        &format!("{took:.2} s"),
    );
    holds(&milena, "written to");
    let took = timed(|| shape.fetch(&mut client));
    row("all fetched in", &format!("{took:.2} s"));
    holds(&milena, "read");

    let (mut stops, mut clean, mut killed) = (Vec::new(), Vec::new(), Vec::new());
    stops.push(timed(|| stop(&mut milena)));
    row("first clean stop", &format!("{:.2} s", stops[0]));
    for _ in 0..ROUNDS {
        clean.push(shape.start(&mut milena));
        stops.push(timed(|| stop(&mut milena)));
    }
    let stops: Vec<f64> = stops.into_iter().skip(1).collect();
    spread("serving after a clean stop", &clean);
    spread("clean stop with nothing written", &stops);

    shape.start(&mut milena);
    holds(&milena, "after a clean stop");
    let cpu = cpu_seconds(&milena);
    std::thread::sleep(IDLE);
    let cpu = cpu_seconds(&milena) - cpu;
    row(
        &format!("CPU in {} s of idling", IDLE.as_secs()),
        &format!("{:.0} ms", cpu * 1e3),
    );
    let mut client = connect(&milena);
    let took = timed(|| shape.fetch(&mut client));
    row("all fetched in", &format!("{took:.2} s"));
    holds(&milena, "after a clean stop, read");
    let took = timed(|| shape.produce(&mut client, segments));
    row("produced to each", &format!("{took:.2} s"));
    holds(&milena, "after a clean stop, read and written to");
    for _ in 0..ROUNDS {
        milena.kill();
        killed.push(shape.start(&mut milena));
        shape.produce(&mut connect(&milena), segments);
    }
    spread(
        "serving after kill -9, all written to and no checkpoint",
        &killed,
    );
    holds(&milena, "after kill -9, all written to");
    let took = timed(|| stop(&mut milena));
    row("clean stop, all written to", &format!("{took:.2} s"));
}

#[derive(Clone, Copy)]
struct Shape {
    topics: usize,
    partitions: i32,
    segments: usize,
}

impl Shape {
    fn names(self) -> impl Iterator<Item = TopicName> {
        (0..self.topics).map(|n| TopicName(StrBytes::from_string(format!("topic-{n}"))))
    }

    fn create(self, client: &mut Connection) {
        let names: Vec<TopicName> = self.names().collect();
        for some in names.chunks(100) {
            let topics = some.iter().map(|name| {
                let config = CreatableTopicConfig::default()
                    .with_name(StrBytes::from_static_str("segment.ms"))
                    .with_value(Some(StrBytes::from_static_str(SEGMENT_MS)));
                CreatableTopic::default()
                    .with_name(name.clone())
                    .with_num_partitions(self.partitions)
                    .with_replication_factor(1)
                    .with_configs(vec![config])
            });
            let request = CreateTopicsRequest::default()
                .with_topics(topics.collect())
                .with_timeout_ms(600_000);
            let response = client.call(&request, 4).expect("a response");
            for topic in response.topics {
                assert_eq!(topic.error_code, 0, "{:?}", topic.error_message);
            }
        }
    }

    /// A batch to every partition, into its `segment`; requests of 100 partitions.
    fn produce(self, client: &mut Connection, segment: usize) {
        let records = batch(segment.min(self.segments - 1));
        for name in self.names() {
            let partitions: Vec<i32> = (0..self.partitions).collect();
            for some in partitions.chunks(100) {
                self.produce_to(client, &name, some, &records);
            }
        }
    }

    fn produce_to(self, client: &mut Connection, name: &TopicName, to: &[i32], records: &Bytes) {
        let data = to.iter().map(|partition| {
            PartitionProduceData::default()
                .with_index(*partition)
                .with_records(Some(records.clone()))
        });
        let topic = TopicProduceData::default()
            .with_name(name.clone())
            .with_partition_data(data.collect());
        let request = ProduceRequest::default()
            .with_acks(1)
            .with_timeout_ms(60_000)
            .with_topic_data(vec![topic]);
        let response = client.call(&request, 9).expect("a response");
        for partition in response
            .responses
            .iter()
            .flat_map(|t| &t.partition_responses)
        {
            assert_eq!(partition.error_code, 0, "{:?}", partition.error_message);
        }
    }

    /// From the start of every partition; requests of 1,000 partitions.
    fn fetch(self, client: &mut Connection) {
        let all: Vec<(TopicName, i32)> = self
            .names()
            .flat_map(|name| (0..self.partitions).map(move |p| (name.clone(), p)))
            .collect();
        for some in all.chunks(1_000) {
            let topics = some.chunk_by(|a, b| a.0 == b.0).map(|of_one| {
                let partitions = of_one.iter().map(|(_, partition)| {
                    FetchPartition::default()
                        .with_partition(*partition)
                        .with_partition_max_bytes(1 << 20)
                });
                FetchTopic::default()
                    .with_topic(of_one[0].0.clone())
                    .with_partitions(partitions.collect())
            });
            let request = FetchRequest::default()
                .with_max_bytes(FETCH_BYTES)
                .with_session_epoch(-1)
                .with_topics(topics.collect());
            let response = client.call(&request, 12).expect("a response");
            assert_eq!(response.error_code, 0);
            for partition in response
                .responses
                .iter()
                .flat_map(|topic| &topic.partitions)
            {
                assert_eq!(partition.error_code, 0);
                let records = partition.records.as_deref().unwrap_or_default();
                assert!(
                    !records.is_empty(),
                    "partition {}",
                    partition.partition_index
                );
            }
        }
    }

    /// Starts it, and returns the seconds until it serves all partitions.
    fn start(self, milena: &mut Milena) -> f64 {
        let started = Instant::now();
        milena.spawn();
        milena.wait_until_it_answers();
        let mut client = connect(milena);
        let metadata = client
            .call(&MetadataRequest::default().with_topics(None), 9)
            .expect("a response");
        let known = metadata.topics.iter().filter(|topic| !topic.is_internal);
        let partitions: usize = known.map(|topic| topic.partitions.len()).sum();
        assert_eq!(partitions, self.topics * self.partitions as usize);
        let name = self.names().next().expect("a topic");
        self.produce_to(&mut client, &name, &[0], &batch(self.segments - 1));
        started.elapsed().as_secs_f64()
    }
}

/// A batch for a segment, by its records' times.
fn batch(segment: usize) -> Bytes {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("a time");
    let hour_ago = now.as_millis() as i64 - 3_600_000;
    let hour_ago = hour_ago / 3_600_000 * 3_600_000;
    let timestamp = hour_ago + segment as i64 * SEGMENTS_APART_MS;
    let mut batch = BatchBuilder::new(Compression::None);
    for _ in 0..RECORDS {
        batch.push(timestamp, None, Some(&[b'x'; RECORD_BYTES]), &[]);
    }
    batch.build()
}

fn connect(milena: &Milena) -> Connection {
    Connection::open(&milena.bootstrap()).expect("connected")
}

fn cpu_seconds(milena: &Milena) -> f64 {
    process::cpu_seconds(milena.pid()).expect("the broker runs")
}

fn stop(milena: &mut Milena) {
    assert!(milena.stop().success(), "{}", milena.log());
}

fn timed(work: impl FnOnce()) -> f64 {
    let started = Instant::now();
    work();
    started.elapsed().as_secs_f64()
}

fn row(what: &str, figure: &str) {
    println!("| {what} | {figure} |");
}

fn spread(what: &str, seconds: &[f64]) {
    let mut sorted = seconds.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (first, last) = (sorted[0], sorted[sorted.len() - 1]);
    let median = sorted[sorted.len() / 2];
    row(
        &format!("{what}: median (min-max)"),
        &format!("{median:.2} s ({first:.2}-{last:.2})"),
    );
}

/// What the process holds now, and at most since it started.
fn holds(milena: &Milena, when: &str) {
    let (rss, anonymous) = milena.resident_bytes();
    let proc = format!("/proc/{}", milena.pid());
    let files = std::fs::read_dir(format!("{proc}/fd")).map_or(0, Iterator::count);
    let maps = std::fs::read_to_string(format!("{proc}/maps")).unwrap_or_default();
    let status = std::fs::read_to_string(format!("{proc}/status")).unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak = peak.and_then(|peak| peak.split_whitespace().next()?.parse::<u64>().ok());
    row(
        &format!("held, {when}: RSS (peak) / anonymous / files / maps"),
        &format!(
            "{} MB ({} MB) / {} MB / {files} / {}",
            rss / 1_000_000,
            peak.unwrap_or(0) / 1_000,
            anonymous / 1_000_000,
            maps.lines().count()
        ),
    );
}
