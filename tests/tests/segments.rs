//! A consumer that reads a partition across many segments sees every offset once.

use std::time::{Duration, Instant};

use rdkafka::Message;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use rdkafka::{Offset, TopicPartitionList};
use tests::{Milena, PATIENCE};

/// Produces `records` of `size` bytes, whose first 8 are their number, and reads them back.
fn produce_and_read(milena: &Milena, topic: &str, records: u64, size: usize, acks: &str) {
    let producer: ThreadedProducer<DefaultProducerContext> = milena.client_with(&[
        ("acks", acks),
        ("enable.idempotence", "false"),
        ("max.in.flight.requests.per.connection", "1"),
        ("linger.ms", "5"),
        ("queue.buffering.max.kbytes", "262144"),
    ]);
    let mut payload = vec![b'.'; size];
    for n in 0..records {
        payload[..8].copy_from_slice(&n.to_be_bytes());
        let record = BaseRecord::<[u8], [u8]>::to(topic)
            .partition(0)
            .payload(&payload);
        tests::send(&producer, record);
    }
    producer
        .flush(PATIENCE * 5)
        .expect("every record is delivered");

    let consumer: BaseConsumer = milena.client_with(&[("group.id", "reader")]);
    let mut assignment = TopicPartitionList::new();
    assignment
        .add_partition_offset(topic, 0, Offset::Beginning)
        .expect("an assignment");
    consumer.assign(&assignment).expect("assign");
    let mut next = 0;
    let mut last = Instant::now();
    while next < records {
        let Some(message) = consumer.poll(Duration::from_millis(100)) else {
            assert!(last.elapsed() < PATIENCE, "nothing after offset {next}");
            continue;
        };
        last = Instant::now();
        let message = message.expect("a record");
        assert_eq!(message.offset(), next as i64, "every offset once, in order");
        let payload = message.payload().expect("a payload");
        assert_eq!(payload.len(), size);
        assert_eq!(
            payload[..8],
            next.to_be_bytes(),
            "the record produced as number {next}"
        );
        next += 1;
    }
}

fn segments(milena: &Milena, topic: &str) -> usize {
    std::fs::read_dir(milena.data_dir().join(format!("{topic}-0")))
        .expect("the partition's folder")
        .filter(|entry| {
            entry
                .as_ref()
                .is_ok_and(|e| e.path().extension().is_some_and(|x| x == "log"))
        })
        .count()
}

#[test]
fn every_offset_once_across_small_segments() {
    let mut milena = Milena::start(
        "[[topic]]\nname = \"small\"\n[topic.configs]\n\"segment.bytes\" = \"1048576\"\n",
    );
    produce_and_read(&milena, "small", 30_000, 1_000, "all");
    assert!(
        segments(&milena, "small") >= 25,
        "{} segments",
        segments(&milena, "small")
    );
    // And again from what a clean stop left.
    assert!(milena.stop().success());
    milena.restart();
    assert_eq!(milena.read_topic("small")[&0].len(), 30_000);
}

#[test]
#[ignore = "writes and reads 2.5 GB: run by .ci/long"]
fn every_offset_once_across_real_segments() {
    let milena = Milena::start("[[topic]]\nname = \"large\"\n");
    let started = Instant::now();
    produce_and_read(&milena, "large", 250_000, 10_000, "1");
    assert_eq!(segments(&milena, "large"), 3, "two rolls of 1 GiB");
    println!(
        "2.5 GB through three 1 GiB segments in {:.1?}",
        started.elapsed()
    );
}
