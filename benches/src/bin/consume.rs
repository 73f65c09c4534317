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

use std::time::{Duration, Instant};

use benches::process;
use benches::raw::Consumer;
use benches::statistics;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use rdkafka::{Offset, TopicPartitionList};
use tests::{Milena, PATIENCE};

const ROUNDS: usize = 7;
const PARTITIONS: [i32; 3] = [1, 6, 100];
const TOPIC_BYTES: u64 = 1_000_000_000;
const RECORD: [u8; 1_024] = [b'x'; 1_024];
const RECORDS: u64 = TOPIC_BYTES / RECORD.len() as u64;

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
    let (cpu, started) = (cpu_seconds(milena), Instant::now());
    let fetches = read();
    let gigabytes = (RECORDS * RECORD.len() as u64) as f64 / 1e9;
    Run {
        fetches,
        rate: gigabytes * 1e3 / started.elapsed().as_secs_f64(),
        cpu: (cpu_seconds(milena) - cpu) / gigabytes,
    }
}

fn cpu_seconds(milena: &Milena) -> f64 {
    process::cpu_seconds(milena.pid()).expect("the broker runs")
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
    let client = Consumer::new(&milena.bootstrap(), &format!("p{count}"), count);
    let read = client.and_then(|mut client| client.read(RECORDS));
    read.expect("everything is read")
}

fn median(runs: &[Run], figure: impl Fn(&Run) -> f64) -> f64 {
    let figures: Vec<f64> = runs.iter().map(figure).collect();
    statistics::median(&figures)
}
