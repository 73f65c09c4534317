//! Fills an input topic before anything scores it, and looks at what was made of it afterwards.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, ensure};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use super::ends::Ends;
use super::workload::Workload;

/// Of every topic here.
pub const PARTITIONS: u32 = 4;

const TIMEOUT: Duration = Duration::from_secs(60);
/// Records that go to one partition before those for the next one.
const RUN: u64 = 64;
/// Records that are looked at, from each end of each partition.
const SAMPLE: i64 = 500;

/// Produces the records with keys below `records`, each to the partition that its key names.
pub fn load(bootstrap: &str, topic: &str, workload: &Workload, records: u64) -> anyhow::Result<()> {
    let producer: ThreadedProducer<DefaultProducerContext> = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("acks", "1")
        .set("linger.ms", "5")
        .set("queue.buffering.max.kbytes", "131072")
        .create()?;
    for key in 0..records {
        let text = key.to_string();
        let mut record = BaseRecord::<[u8], [u8]>::to(topic)
            .partition((key / RUN % u64::from(PARTITIONS)) as i32)
            .key(text.as_bytes())
            .payload(workload.value(key));
        loop {
            match producer.send(record) {
                Ok(()) => break,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), returned)) => {
                    record = returned;
                    std::thread::sleep(Duration::from_micros(500));
                }
                Err((error, _)) => return Err(error.into()),
            }
        }
    }
    producer.flush(TIMEOUT).context("the backlog")?;
    let found = Ends::of(bootstrap, topic, PARTITIONS as i32)?.sum();
    ensure!(
        found == records,
        "{found} of {records} records of the backlog were delivered"
    );
    Ok(())
}

/// Compares outputs at both ends of each partition with what they must be: no key twice, no other score.
pub fn check_outputs(bootstrap: &str, topic: &str, workload: &Workload) -> anyhow::Result<()> {
    let mut keys = BTreeSet::new();
    for (partition, end) in Ends::of(bootstrap, topic, PARTITIONS as i32)?.by_partition() {
        let middle = end.min(SAMPLE);
        for (from, to) in [(0, middle), (middle.max(end - SAMPLE), end)] {
            for (key, value) in read(bootstrap, topic, partition, from, to)? {
                let must = workload.output(key);
                let output = super::output::Output::parse(&value);
                let same = output.and_then(|output| must.compare(&output));
                same.with_context(|| format!("the output of the record with key {key}"))?;
                ensure!(
                    keys.insert(key),
                    "the record with key {key} has two outputs"
                );
            }
        }
    }
    ensure!(!keys.is_empty(), "there are no outputs");
    Ok(())
}

/// Keys and values of a range of offsets.
fn read(
    bootstrap: &str,
    topic: &str,
    partition: i32,
    from: i64,
    to: i64,
) -> anyhow::Result<Vec<(u64, Vec<u8>)>> {
    let mut records = Vec::new();
    if from >= to {
        return Ok(records);
    }
    // Each range has its own: librdkafka aborts where an assignment is replaced before it has begun.
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", "unused")
        .set("enable.auto.commit", "false")
        .create()?;
    let mut assignment = TopicPartitionList::new();
    assignment.add_partition_offset(topic, partition, Offset::Offset(from))?;
    consumer.assign(&assignment)?;
    let (mut next, deadline) = (from, Instant::now() + TIMEOUT);
    while next < to {
        ensure!(
            Instant::now() < deadline,
            "{topic}/{partition} is not read to offset {to}"
        );
        let Some(message) = consumer.poll(Duration::from_millis(100)) else {
            continue;
        };
        let message = message?;
        if message.partition() != partition || message.offset() < next || message.offset() >= to {
            continue;
        }
        next = message.offset() + 1;
        let key = message
            .key()
            .and_then(|key| std::str::from_utf8(key).ok()?.parse().ok());
        let key = key.ok_or_else(|| anyhow!("an output without its record's key"))?;
        records.push((key, message.payload().unwrap_or_default().to_vec()));
    }
    Ok(records)
}
