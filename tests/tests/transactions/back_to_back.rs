//! Many transactions of one producer, one right after the other, beside a reader that reads all along.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::producer::Producer;
use rdkafka::{Offset, TopicPartitionList};
use tests::transaction::{self, Ended};
use tests::{Isolation, Milena, PATIENCE};

use super::{Values, committed, nothing_open, producer, queue, topics, uncommitted};

const TRANSACTIONS: i32 = 500;
const PARTITIONS: i32 = 3;

/// Transaction `n` has two records in each of two partitions; every fifth one is aborted.
fn is_aborted(n: i32) -> bool {
    n % 5 == 3
}

fn partitions_of(n: i32) -> [i32; 2] {
    [n % PARTITIONS, (n + 1) % PARTITIONS]
}

fn expected(wanted: impl Fn(i32) -> bool) -> Values {
    let mut values = Values::new();
    for n in (0..TRANSACTIONS).filter(|n| wanted(*n)) {
        for partition in partitions_of(n) {
            let values = values.entry(partition).or_default();
            values.extend([format!("{n}.0"), format!("{n}.1")]);
        }
    }
    values
}

/// Reads all partitions from their beginnings until so many records came.
fn read_along(milena: &Milena, isolation: Isolation, count: usize) -> Values {
    let consumer: BaseConsumer = milena.client_with(&[
        ("group.id", "unused"),
        ("isolation.level", isolation.name()),
        ("fetch.wait.max.ms", "20"),
    ]);
    let mut assignment = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        let added = assignment.add_partition_offset("t", partition, Offset::Beginning);
        added.expect("an assignment");
    }
    consumer.assign(&assignment).expect("assigned");
    let mut values = Values::new();
    let mut last: BTreeMap<i32, i64> = BTreeMap::new();
    let mut since = Instant::now();
    while values.values().map(Vec::len).sum::<usize>() < count {
        let Some(message) = consumer.poll(Duration::from_millis(100)) else {
            assert!(since.elapsed() < PATIENCE, "of {count} came {values:?}");
            continue;
        };
        let message = message.expect("a record");
        since = Instant::now();
        let before = last.insert(message.partition(), message.offset());
        assert!(before < Some(message.offset()), "offsets only grow");
        let value = super::text(message.payload().map(<[u8]>::to_vec));
        values.entry(message.partition()).or_default().push(value);
    }
    values
}

#[test]
fn five_hundred_transactions_are_read_each_as_a_whole_and_in_order() {
    let milena = Milena::start(&topics(&[("t", PARTITIONS)]));
    let producer = producer(&milena, "t");
    let (all, kept) = (expected(|_| true), expected(|n| !is_aborted(n)));
    std::thread::scope(|scope| {
        let reader = |isolation, expected: &Values| {
            let count = expected.values().map(Vec::len).sum();
            let milena = &milena;
            scope.spawn(move || read_along(milena, isolation, count))
        };
        let committed_reader = reader(Isolation::ReadCommitted, &kept);
        let uncommitted_reader = reader(Isolation::ReadUncommitted, &all);
        for n in 0..TRANSACTIONS {
            producer.begin_transaction().expect("begun");
            for partition in partitions_of(n) {
                for record in 0..2 {
                    queue(&producer, "t", partition, &format!("{n}.{record}"));
                }
            }
            if is_aborted(n) {
                // Not before they are in the log: there is to be something to hide.
                transaction::flush(&producer);
                assert_eq!(transaction::abort(&producer), Ended::Aborted, "{n}");
            } else {
                assert_eq!(transaction::commit(&producer), Ended::Committed, "{n}");
            }
        }
        assert_eq!(committed_reader.join().expect("a reader"), kept);
        assert_eq!(uncommitted_reader.join().expect("a reader"), all);
    });
    nothing_open(&milena, "t");
    assert_eq!(committed(&milena, "t"), kept);
    assert_eq!(uncommitted(&milena, "t"), all);
    // Beside the records there is a marker of each transaction in each of its partitions, and nothing else.
    let markers = 2 * TRANSACTIONS as usize;
    let records: usize = all.values().map(Vec::len).sum();
    let end: i64 = milena.ends("t").values().sum();
    assert_eq!(end as usize, records + markers);
}

#[test]
fn producers_side_by_side_share_partitions() {
    const PRODUCERS: i32 = 4;
    const EACH: i32 = 50;
    let milena = Milena::start(&topics(&[("t", PARTITIONS)]));
    std::thread::scope(|scope| {
        for number in 0..PRODUCERS {
            let milena = &milena;
            scope.spawn(move || {
                let producer = producer(milena, &format!("producer-{number}"));
                for n in 0..EACH {
                    producer.begin_transaction().expect("begun");
                    for partition in 0..PARTITIONS {
                        queue(&producer, "t", partition, &format!("{number} {n:04}"));
                    }
                    transaction::flush(&producer);
                    if is_aborted(n) {
                        assert_eq!(transaction::abort(&producer), Ended::Aborted);
                    } else {
                        assert_eq!(transaction::commit(&producer), Ended::Committed);
                    }
                }
            });
        }
    });
    nothing_open(&milena, "t");
    let read = committed(&milena, "t");
    for partition in 0..PARTITIONS {
        for number in 0..PRODUCERS {
            let own = format!("{number} ");
            let values: Vec<&str> = read[&partition]
                .iter()
                .filter_map(|value| value.strip_prefix(&own))
                .collect();
            let kept = (0..EACH).filter(|n| !is_aborted(*n));
            let expected: Vec<String> = kept.map(|n| format!("{n:04}")).collect();
            assert_eq!(values, expected, "producer {number}, partition {partition}");
        }
    }
}
