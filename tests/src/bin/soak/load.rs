//! The producers: idempotent, acks=all, each record stamped, each acknowledgement booked.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::message::Message;
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};
use tests::Milena;

use crate::ledger::{Ledger, Stamp};
use tests::random::Random;

/// One producer for each codec that librdkafka knows.
const CODECS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];
/// A producer's pause between two bursts.
const PAUSE: Duration = Duration::from_millis(20);
/// Records of a burst, all to one partition: 5 producers make 2,000 records a second.
const BURST: u32 = 8;
const FILLER: &str =
    "................................................................................";

/// Running producers.
pub struct Load {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<u64>>,
    latencies_us: Arc<Mutex<Vec<u32>>>,
}

/// What they did.
pub struct Written {
    pub records: u64,
    pub p99: Duration,
    pub slowest: Duration,
}

impl Load {
    pub fn start(milena: &Milena, topic: &str, partitions: i32, ledger: &Arc<Ledger>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let latencies_us = Arc::default();
        let threads = (0..)
            .zip(CODECS)
            .map(|(number, codec)| {
                let producer = milena
                    .client()
                    .set("enable.idempotence", "true")
                    .set("acks", "all")
                    .set("compression.type", codec)
                    .set("linger.ms", "2")
                    .create_with_context(Acknowledged {
                        ledger: Arc::clone(ledger),
                        latencies_us: Arc::clone(&latencies_us),
                    })
                    .expect("a producer");
                let (stop, topic) = (Arc::clone(&stop), topic.to_owned());
                std::thread::spawn(move || produce(&producer, &topic, partitions, number, &stop))
            })
            .collect();
        Self {
            stop,
            threads,
            latencies_us,
        }
    }

    /// Waits until all is acknowledged.
    pub fn finish(self) -> Written {
        self.stop.store(true, Ordering::Relaxed);
        let records = self
            .threads
            .into_iter()
            .map(|thread| thread.join().expect("a producer"))
            .sum();
        let mut latencies_us = std::mem::take(&mut *self.latencies_us.lock().expect("latencies"));
        latencies_us.sort_unstable();
        let at = |share: usize| {
            let index = latencies_us.len() * share / 100;
            let us = latencies_us.get(index).or(latencies_us.last());
            Duration::from_micros(us.copied().unwrap_or(0).into())
        };
        Written {
            records,
            p99: at(99),
            slowest: at(100),
        }
    }
}

fn produce(
    producer: &ThreadedProducer<Acknowledged>,
    topic: &str,
    partitions: i32,
    number: u64,
    stop: &AtomicBool,
) -> u64 {
    let mut random = Random::new(number);
    let mut sequence = 0;
    while !stop.load(Ordering::Relaxed) {
        let partition = random.below(partitions as u64) as i32;
        for _ in 0..BURST {
            let value = format!("{number}:{sequence} {FILLER}");
            let stamp = number << 32 | sequence;
            let record =
                BaseRecord::<(), [u8], _>::with_opaque_to(topic, Box::new((Instant::now(), stamp)))
                    .partition(partition)
                    .payload(value.as_bytes());
            producer.send(record).expect("room in the queue");
            sequence += 1;
        }
        std::thread::sleep(PAUSE);
    }
    producer
        .flush(tests::PATIENCE)
        .expect("every record is acknowledged");
    sequence
}

/// The stamp in a record's value.
pub fn stamp(value: &str) -> Option<Stamp> {
    let (producer, sequence) = value.split(' ').next()?.split_once(':')?;
    let (producer, sequence): (u64, u64) = (producer.parse().ok()?, sequence.parse().ok()?);
    Some(producer << 32 | sequence)
}

struct Acknowledged {
    ledger: Arc<Ledger>,
    latencies_us: Arc<Mutex<Vec<u32>>>,
}

impl ClientContext for Acknowledged {}

impl ProducerContext for Acknowledged {
    type DeliveryOpaque = Box<(Instant, Stamp)>;

    fn delivery(&self, result: &DeliveryResult<'_>, sent: Self::DeliveryOpaque) {
        let (at, stamp) = *sent;
        match result {
            Ok(record) => {
                let us = u32::try_from(at.elapsed().as_micros()).unwrap_or(u32::MAX);
                self.latencies_us.lock().expect("latencies").push(us);
                self.ledger
                    .acknowledged(record.partition(), record.offset(), stamp);
            }
            Err((error, record)) => self.ledger.fault(format!(
                "a record to partition {} failed: {error}",
                record.partition()
            )),
        }
    }
}
