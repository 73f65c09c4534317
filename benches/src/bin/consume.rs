//! What it costs the broker to serve a consumer that reads the same data from one partition and
//! from many.
//!
//! ```text
//! cargo run --release -p benches --bin consume
//! ```
//!
//! [`TOPIC_BYTES`] in 1 KiB records lie in each topic, in the page cache. Two consumers read a topic to
//! its end: librdkafka's, and one that sends raw requests in a fetch session and throws away what
//! comes, with the same limits (1 MiB of a partition, 50 MiB in all). The topics take turns,
//! [`ROUNDS`] times; figures are medians over the rounds. CPU is the broker's, user and system, over
//! all its threads; GB are 10^9 bytes of payload.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::{
    ApiKey, FetchRequest, FetchResponse, RequestHeader, ResponseHeader, TopicName,
};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use rdkafka::{Offset, TopicPartitionList};
use tests::{Milena, PATIENCE};

const ROUNDS: usize = 7;
const PARTITIONS: [i32; 3] = [1, 6, 100];
const TOPIC_BYTES: u64 = 1_000_000_000;
const RECORD: [u8; 1_024] = [b'x'; 1_024];
const RECORDS: u64 = TOPIC_BYTES / RECORD.len() as u64;

/// The newest version that names topics by name.
const FETCH_VERSION: i16 = 12;
const PARTITION_MAX_BYTES: i32 = 1024 * 1024;
const MAX_BYTES: i32 = 50 * 1024 * 1024;

fn main() {
    let topics: String = PARTITIONS
        .iter()
        .map(|count| format!("[[topic]]\nname = \"p{count}\"\npartitions = {count}\n"))
        .collect();
    let milena = Milena::start(&topics);
    for count in PARTITIONS {
        produce(&milena, count);
    }
    let mut raw = [const { Vec::new() }; PARTITIONS.len()];
    let mut librdkafka = [const { Vec::new() }; PARTITIONS.len()];
    for _ in 0..ROUNDS {
        for (n, count) in PARTITIONS.into_iter().enumerate() {
            raw[n].push(measure(&milena, || read_raw(&milena, count)));
            librdkafka[n].push(measure(&milena, || read_librdkafka(&milena, count)));
        }
    }
    println!(
        "| 1 GB in 1 KiB records, from | raw: fetches | MB/s | CPU-s/GB | against one | \
         librdkafka: MB/s | CPU-s/GB | against one |\n|---|---|---|---|---|---|---|---|"
    );
    let one = [median(&raw[0], cpu), median(&librdkafka[0], cpu)];
    for (n, count) in PARTITIONS.into_iter().enumerate() {
        let (raw, librdkafka) = (&raw[n], &librdkafka[n]);
        println!(
            "| {count} partition{} | {:.0} | {:.0} | {:.3} | {:.2} | {:.0} | {:.3} | {:.2} |",
            if count == 1 { "" } else { "s" },
            median(raw, |run| run.fetches as f64),
            median(raw, |run| run.rate),
            median(raw, cpu),
            median(raw, cpu) / one[0],
            median(librdkafka, |run| run.rate),
            median(librdkafka, cpu),
            median(librdkafka, cpu) / one[1],
        );
    }
}

/// One reading of a topic.
struct Run {
    fetches: u64,
    /// MB per second.
    rate: f64,
    /// CPU seconds of the broker for each GB.
    cpu: f64,
}

fn cpu(run: &Run) -> f64 {
    run.cpu
}

fn measure(milena: &Milena, read: impl FnOnce() -> u64) -> Run {
    let (cpu, started) = (cpu_seconds(milena.pid()), Instant::now());
    let fetches = read();
    let gigabytes = (RECORDS * RECORD.len() as u64) as f64 / 1e9;
    Run {
        fetches,
        rate: gigabytes * 1e3 / started.elapsed().as_secs_f64(),
        cpu: (cpu_seconds(milena.pid()) - cpu) / gigabytes,
    }
}

fn produce(milena: &Milena, count: i32) {
    let producer: ThreadedProducer<DefaultProducerContext> = milena.client_with(&[
        ("acks", "1"),
        ("linger.ms", "5"),
        ("sticky.partitioning.linger.ms", "0"),
    ]);
    let topic = format!("p{count}");
    for n in 0..RECORDS {
        // Runs of records to one partition, so that batches fill alike.
        let partition = (n / 512 % count as u64) as i32;
        let record = BaseRecord::<[u8], [u8]>::to(&topic)
            .payload(&RECORD)
            .partition(partition);
        tests::send(&producer, record);
    }
    producer.flush(PATIENCE).expect("every record is delivered");
}

fn read_librdkafka(milena: &Milena, count: i32) -> u64 {
    let consumer: BaseConsumer = milena.client_with(&[
        ("group.id", "none"),
        ("enable.auto.commit", "false"),
        ("check.crcs", "false"),
        ("queued.max.messages.kbytes", "262144"),
        ("fetch.queue.backoff.ms", "1"),
    ]);
    let mut all = TopicPartitionList::new();
    for partition in 0..count {
        all.add_partition_offset(&format!("p{count}"), partition, Offset::Beginning)
            .expect("an offset");
    }
    consumer.assign(&all).expect("assigned");
    let (mut read, began) = (0, Instant::now());
    while read < RECORDS {
        match consumer.poll(Duration::from_millis(100)) {
            Some(record) => {
                record.expect("a record");
                read += 1;
            }
            None => assert!(began.elapsed() < PATIENCE, "{read} of {RECORDS} records"),
        }
    }
    0
}

/// Reads everything and returns how many fetches that took.
fn read_raw(milena: &Milena, count: i32) -> u64 {
    let mut client = RawConsumer::new(milena, count);
    let mut fetches = 0;
    while client.read < RECORDS {
        client.fetch();
        fetches += 1;
    }
    fetches
}

struct RawConsumer {
    stream: TcpStream,
    topic: TopicName,
    session: (i32, i32),
    positions: BTreeMap<i32, i64>,
    /// Partitions whose position the session does not know yet.
    changed: Vec<i32>,
    buffer: BytesMut,
    read: u64,
}

impl RawConsumer {
    fn new(milena: &Milena, count: i32) -> Self {
        let stream = TcpStream::connect(milena.bootstrap()).expect("connected");
        stream.set_nodelay(true).expect("nodelay");
        Self {
            stream,
            topic: TopicName(StrBytes::from_string(format!("p{count}"))),
            session: (0, 0),
            positions: (0..count).map(|partition| (partition, 0)).collect(),
            changed: (0..count).collect(),
            buffer: BytesMut::new(),
            read: 0,
        }
    }

    fn fetch(&mut self) {
        let partitions = self.changed.iter().map(|partition| {
            FetchPartition::default()
                .with_partition(*partition)
                .with_fetch_offset(self.positions[partition])
                .with_partition_max_bytes(PARTITION_MAX_BYTES)
        });
        let topic = FetchTopic::default()
            .with_topic(self.topic.clone())
            .with_partitions(partitions.collect());
        let request = FetchRequest::default()
            .with_max_wait_ms(500)
            .with_min_bytes(1)
            .with_max_bytes(MAX_BYTES)
            .with_session_id(self.session.0)
            .with_session_epoch(self.session.1)
            .with_topics(vec![topic]);
        let response = self.call(&request);
        assert_eq!(response.error_code, 0);
        assert_ne!(response.session_id, 0, "a session");
        self.session = (response.session_id, self.session.1 + 1);
        self.changed.clear();
        for partition in response
            .responses
            .iter()
            .flat_map(|topic| &topic.partitions)
        {
            let records = partition.records.as_deref().unwrap_or_default();
            let position = self
                .positions
                .get_mut(&partition.partition_index)
                .expect("a partition that was asked for");
            let mut rest = records;
            // A batch's base offset, length and last offset delta, and how many records it has.
            while let Some((header, _)) = rest.split_first_chunk::<61>() {
                let field = |at: usize| i32::from_be_bytes([0, 1, 2, 3].map(|n| header[at + n]));
                let base = (i64::from(field(0)) << 32) | i64::from(field(4) as u32);
                *position = base + i64::from(field(23)) + 1;
                self.read += field(57) as u64;
                rest = &rest[12 + field(8) as usize..];
            }
            if !records.is_empty() {
                self.changed.push(partition.partition_index);
            }
        }
    }

    fn call(&mut self, request: &FetchRequest) -> FetchResponse {
        let mut frame = BytesMut::zeroed(4);
        RequestHeader::default()
            .with_request_api_key(ApiKey::Fetch as i16)
            .with_request_api_version(FETCH_VERSION)
            .encode(
                &mut frame,
                ApiKey::Fetch.request_header_version(FETCH_VERSION),
            )
            .expect("encoded");
        request.encode(&mut frame, FETCH_VERSION).expect("encoded");
        let len = (frame.len() - 4) as u32;
        frame[..4].copy_from_slice(&len.to_be_bytes());
        self.stream.write_all(&frame).expect("sent");
        let mut len = [0; 4];
        self.stream.read_exact(&mut len).expect("a response");
        self.buffer.resize(u32::from_be_bytes(len) as usize, 0);
        self.stream
            .read_exact(&mut self.buffer)
            .expect("a response");
        let mut response: Bytes = self.buffer.split().freeze();
        ResponseHeader::decode(
            &mut response,
            ApiKey::Fetch.response_header_version(FETCH_VERSION),
        )
        .expect("a header");
        FetchResponse::decode(&mut response, FETCH_VERSION).expect("a response")
    }
}

/// CPU time of all threads so far, as the scheduler counts it, in nanoseconds.
fn cpu_seconds(pid: u32) -> f64 {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("the broker runs");
    let nanoseconds: f64 = tasks
        .filter_map(|task| {
            let stat = std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
            stat.split_whitespace().next()?.parse::<f64>().ok()
        })
        .sum();
    nanoseconds / 1e9
}

fn median(runs: &[Run], figure: impl Fn(&Run) -> f64) -> f64 {
    let mut figures: Vec<f64> = runs.iter().map(figure).collect();
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
