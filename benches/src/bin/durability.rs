//! What it costs to wait for the disk: acks=all with a completed fdatasync, beside acks=all and
//! acks=1 in the page cache.
//!
//! ```text
//! cargo run --release -p benches --bin durability
//! ```
//!
//! *Latency*: one producer, linger 0, one 1 KiB record at a time, each waited for. *Throughput*: as fast
//! as one producer goes, 1 KiB records to 6 partitions, linger 5 ms. The three settings take turns,
//! [`ROUNDS`] times; figures are medians over the rounds. `bare fdatasync` appends 1 KiB to a file and
//! syncs it, in the same rounds.

use std::fs::File;
use std::io::Write;
use std::sync::mpsc;
use std::time::Instant;

use rdkafka::ClientContext;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{
    BaseRecord, DefaultProducerContext, Producer, ProducerContext, ThreadedProducer,
};
use tests::{Milena, PATIENCE};

const ROUNDS: usize = 5;
const LATENCIES: usize = 1_000;
const LOAD_RECORDS: usize = 300_000;
const RECORD: [u8; 1_024] = [b'x'; 1_024];

/// Topic, its config, the producer's acks, and what that is called.
const SETTINGS: [(&str, &str, &str, &str); 3] = [
    ("disk", "disk", "all", "acks=all on the disk (default)"),
    ("cache", "page_cache", "all", "acks=all in the page cache"),
    ("one", "disk", "1", "acks=1 in the page cache (default)"),
];

fn main() {
    let topics: String = SETTINGS
        .iter()
        .map(|(topic, durability, ..)| {
            format!(
                "[[topic]]\nname = \"{topic}\"\npartitions = 6\n\
                 configs = {{ \"milena.acks.all.durability\" = \"{durability}\" }}\n"
            )
        })
        .collect();
    let milena = Milena::start(&topics);
    let mut p50 = [const { Vec::new() }; 4];
    let mut p99 = [const { Vec::new() }; 4];
    let mut rates = [const { Vec::new() }; 3];
    for _ in 0..ROUNDS {
        for (n, (topic, _, acks, _)) in SETTINGS.iter().enumerate() {
            let mut times = latencies_us(&milena, topic, acks);
            p50[n].push(percentile(&mut times, 0.5));
            p99[n].push(percentile(&mut times, 0.99));
        }
        let mut times = bare_fdatasync_us(&milena);
        p50[3].push(percentile(&mut times, 0.5));
        p99[3].push(percentile(&mut times, 0.99));
    }
    // Afterwards: what a load leaves for the disk to write back would slow the syncs down.
    for _ in 0..ROUNDS {
        for (n, (topic, _, acks, _)) in SETTINGS.iter().enumerate() {
            rates[n].push(load_mb_per_second(&milena, topic, acks));
        }
    }
    println!("| 1 KiB records | p50 | p99 | throughput |\n|---|---|---|---|");
    for (n, (_, _, _, what)) in SETTINGS.iter().enumerate() {
        println!(
            "| {what} | {:.0} µs | {:.0} µs | {:.0} MB/s |",
            percentile(&mut p50[n], 0.5),
            percentile(&mut p99[n], 0.5),
            percentile(&mut rates[n], 0.5),
        );
    }
    println!(
        "| bare fdatasync after an append, no broker | {:.0} µs | {:.0} µs | |",
        percentile(&mut p50[3], 0.5),
        percentile(&mut p99[3], 0.5)
    );
}

/// Tells when a record is delivered.
struct Delivered(mpsc::Sender<bool>);

impl ClientContext for Delivered {}

impl ProducerContext for Delivered {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let _ = self.0.send(result.is_ok());
    }
}

fn latencies_us(milena: &Milena, topic: &str, acks: &str) -> Vec<f64> {
    let (delivered, deliveries) = mpsc::channel();
    let mut config = milena.client();
    config
        .set("acks", acks)
        .set("linger.ms", "0")
        .set("socket.nagle.disable", "true");
    let producer: ThreadedProducer<Delivered> =
        ThreadedProducer::from_config_and_context(&config, Delivered(delivered))
            .expect("a producer");
    let mut times = Vec::with_capacity(LATENCIES);
    // The first ones connect.
    for n in 0..LATENCIES + 50 {
        let started = Instant::now();
        producer
            .send(
                BaseRecord::<[u8], [u8]>::to(topic)
                    .payload(&RECORD)
                    .partition(0),
            )
            .map_err(|(error, _)| error)
            .expect("queued");
        assert_eq!(deliveries.recv_timeout(PATIENCE), Ok(true), "delivered");
        if n >= 50 {
            times.push(started.elapsed().as_secs_f64() * 1e6);
        }
    }
    times
}

fn load_mb_per_second(milena: &Milena, topic: &str, acks: &str) -> f64 {
    let producer: ThreadedProducer<DefaultProducerContext> =
        milena.client_with(&[("acks", acks), ("linger.ms", "5")]);
    let started = Instant::now();
    for n in 0..LOAD_RECORDS {
        let partition = (n / 512 % 6) as i32;
        let record = BaseRecord::<[u8], [u8]>::to(topic)
            .payload(&RECORD)
            .partition(partition);
        tests::send(&producer, record);
    }
    producer.flush(PATIENCE).expect("every record is delivered");
    (LOAD_RECORDS * RECORD.len()) as f64 / 1e6 / started.elapsed().as_secs_f64()
}

fn bare_fdatasync_us(milena: &Milena) -> Vec<f64> {
    let mut file = File::create(milena.data_dir().join("bare")).expect("a file");
    (0..LATENCIES)
        .map(|_| {
            let started = Instant::now();
            file.write_all(&RECORD).expect("written");
            file.sync_data().expect("synced");
            started.elapsed().as_secs_f64() * 1e6
        })
        .collect()
}

fn percentile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    values[((values.len() - 1) as f64 * share) as usize]
}
