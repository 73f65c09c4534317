//! Transactions through the real binary, with librdkafka: who reads only what is committed reads a
//! transaction as a whole or not at all, whatever becomes of its producer and of the broker.
//!
//! Markers are written after a commit is answered, so what is committed may take a moment to be read; what
//! is not committed must never be.

mod back_to_back;
mod commits;
mod consume_transform_produce;
mod fencing;
mod isolation;
mod model_topics;
mod restarts;
mod timeouts;

use std::collections::BTreeMap;

use rdkafka::producer::{BaseRecord, DefaultProducerContext, ThreadedProducer};
use tests::{Isolation, Milena, eventually, send, transaction};

type TransactionalProducer = ThreadedProducer<DefaultProducerContext>;

/// Values of records by partition, in the order of their offsets.
type Values = BTreeMap<i32, Vec<String>>;

/// A config with these topics and their numbers of partitions.
fn topics(topics: &[(&str, i32)]) -> String {
    let topic = |(name, partitions): &(&str, i32)| {
        format!("[[topic]]\nname = \"{name}\"\npartitions = {partitions}\n")
    };
    topics.iter().map(topic).collect()
}

/// A producer of this id that has not introduced itself yet.
fn unknown_producer(milena: &Milena, id: &str, settings: &[(&str, &str)]) -> TransactionalProducer {
    let mut all = vec![
        ("transactional.id", id),
        ("linger.ms", "0"),
        ("reconnect.backoff.ms", "10"),
        ("reconnect.backoff.max.ms", "100"),
    ];
    all.extend_from_slice(settings);
    milena.client_with(&all)
}

/// A producer of this id that may begin: whoever had the id before is fenced.
fn producer_with(milena: &Milena, id: &str, settings: &[(&str, &str)]) -> TransactionalProducer {
    let producer = unknown_producer(milena, id, settings);
    transaction::init(&producer).expect("initialised");
    producer
}

fn producer(milena: &Milena, id: &str) -> TransactionalProducer {
    producer_with(milena, id, &[])
}

/// Queues a record.
fn queue(producer: &TransactionalProducer, topic: &str, partition: i32, value: &str) {
    let record = BaseRecord::<[u8], [u8]>::to(topic).partition(partition);
    send(producer, record.payload(value.as_bytes()));
}

/// Sends a record in the open transaction and waits until it is in the log.
fn write(producer: &TransactionalProducer, topic: &str, partition: i32, value: &str) {
    queue(producer, topic, partition, value);
    transaction::flush(producer);
}

/// Sends a record in no transaction and waits until it is in the log.
fn write_plainly(milena: &Milena, topic: &str, partition: i32, value: &str) {
    let producer: TransactionalProducer =
        milena.client_with(&[("acks", "all"), ("linger.ms", "0")]);
    write(&producer, topic, partition, value);
}

fn text(value: Option<Vec<u8>>) -> String {
    String::from_utf8(value.unwrap_or_default()).expect("text")
}

/// Everything that may be read at this level now; partitions without a record are left out.
fn values(milena: &Milena, isolation: Isolation, topic: &str) -> Values {
    let read = milena.read_topic_as(isolation, topic, &BTreeMap::new());
    let values = read.into_iter().map(|(partition, records)| {
        let values: Vec<String> = records
            .into_iter()
            .map(|record| text(record.value))
            .collect();
        (partition, values)
    });
    values.filter(|(_, values)| !values.is_empty()).collect()
}

fn committed(milena: &Milena, topic: &str) -> Values {
    values(milena, Isolation::ReadCommitted, topic)
}

fn uncommitted(milena: &Milena, topic: &str) -> Values {
    values(milena, Isolation::ReadUncommitted, topic)
}

/// Waits until no transaction is open in the topic.
fn nothing_open(milena: &Milena, topic: &str) {
    eventually("no transaction is open", || {
        let ends = |isolation| milena.ends_as(isolation, topic);
        (ends(Isolation::ReadCommitted) == ends(Isolation::ReadUncommitted)).then_some(())
    });
}

/// Waits until no transaction is open in the topic, and holds what is committed against `expected`.
fn expect_committed(milena: &Milena, topic: &str, expected: &[(i32, &[&str])]) {
    nothing_open(milena, topic);
    assert_eq!(committed(milena, topic), values_of(expected), "{topic}");
}

fn values_of(expected: &[(i32, &[&str])]) -> Values {
    let values = expected.iter().map(|(partition, values)| {
        let values: Vec<String> = values.iter().map(|value| (*value).to_owned()).collect();
        (*partition, values)
    });
    values.collect()
}
