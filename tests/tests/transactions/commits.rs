//! What a commit and an abort come to for readers.

use std::collections::BTreeMap;

use rdkafka::producer::Producer;
use tests::Milena;
use tests::transaction::{self, Ended};

use super::{
    TransactionalProducer, Values, committed, expect_committed, nothing_open, producer,
    producer_with, queue, topics, uncommitted, values_of, write, write_plainly,
};

/// A record for each of the five partitions of two topics.
fn send_to_all(producer: &TransactionalProducer, value: &str) {
    for (topic, partitions) in [("a", 3), ("b", 2)] {
        for partition in 0..partitions {
            queue(producer, topic, partition, value);
        }
    }
    transaction::flush(producer);
}

fn in_each(partitions: i32, values: &[&str]) -> Values {
    let expected: Vec<_> = (0..partitions)
        .map(|partition| (partition, values))
        .collect();
    values_of(&expected)
}

#[test]
fn a_transaction_over_partitions_and_topics_is_read_once_it_is_committed() {
    let milena = Milena::start(&topics(&[("a", 3), ("b", 2)]));
    let producer = producer(&milena, "t");
    producer.begin_transaction().expect("begun");
    send_to_all(&producer, "1");
    for (topic, partitions) in [("a", 3), ("b", 2)] {
        assert_eq!(uncommitted(&milena, topic), in_each(partitions, &["1"]));
        assert_eq!(committed(&milena, topic), Values::new(), "it is open");
    }
    assert_eq!(transaction::commit(&producer), Ended::Committed);
    for (topic, partitions) in [("a", 3), ("b", 2)] {
        nothing_open(&milena, topic);
        assert_eq!(committed(&milena, topic), in_each(partitions, &["1"]));
        // The marker has an offset of its own.
        let ends = (0..partitions).map(|partition| (partition, 2));
        assert_eq!(milena.ends(topic), ends.collect::<BTreeMap<_, _>>());
    }
}

#[test]
fn an_aborted_transaction_is_never_read_and_the_next_one_is() {
    let milena = Milena::start(&topics(&[("a", 3), ("b", 2)]));
    let producer = producer(&milena, "t");
    for (value, commits) in [("1", false), ("2", true), ("3", false), ("4", true)] {
        producer.begin_transaction().expect("begun");
        send_to_all(&producer, value);
        if commits {
            assert_eq!(transaction::commit(&producer), Ended::Committed);
        } else {
            assert_eq!(transaction::abort(&producer), Ended::Aborted);
        }
    }
    for (topic, partitions) in [("a", 3), ("b", 2)] {
        nothing_open(&milena, topic);
        assert_eq!(committed(&milena, topic), in_each(partitions, &["2", "4"]));
        let all = in_each(partitions, &["1", "2", "3", "4"]);
        assert_eq!(uncommitted(&milena, topic), all);
    }
}

#[test]
fn an_abort_takes_what_is_not_sent_yet_with_it() {
    let milena = Milena::start(&topics(&[("a", 1)]));
    let producer = producer_with(&milena, "t", &[("linger.ms", "20000")]);
    producer.begin_transaction().expect("begun");
    queue(&producer, "a", 0, "1");
    assert_eq!(transaction::abort(&producer), Ended::Aborted);
    producer.begin_transaction().expect("begun");
    queue(&producer, "a", 0, "2");
    assert_eq!(transaction::commit(&producer), Ended::Committed);
    expect_committed(&milena, "a", &[(0, &["2"])]);
    assert_eq!(uncommitted(&milena, "a"), values_of(&[(0, &["2"])]));
}

#[test]
fn a_transaction_without_a_record_ends_either_way() {
    let milena = Milena::start(&topics(&[("a", 1)]));
    let producer = producer(&milena, "t");
    for _ in 0..3 {
        producer.begin_transaction().expect("begun");
        assert_eq!(transaction::commit(&producer), Ended::Committed);
        producer.begin_transaction().expect("begun");
        assert_eq!(transaction::abort(&producer), Ended::Aborted);
    }
    producer.begin_transaction().expect("begun");
    write(&producer, "a", 0, "1");
    assert_eq!(transaction::commit(&producer), Ended::Committed);
    expect_committed(&milena, "a", &[(0, &["1"])]);
    assert_eq!(milena.ends("a")[&0], 2, "nothing else was written");
}

#[test]
fn transactions_that_overlap_in_one_partition_end_each_by_itself() {
    let milena = Milena::start(&topics(&[("a", 1)]));
    let ids = ["one", "two", "three"];
    let producers = ids.map(|id| producer(&milena, id));
    for round in 0..2 {
        for producer in &producers {
            producer.begin_transaction().expect("begun");
        }
        for step in 0..3 {
            for (id, producer) in ids.iter().zip(&producers) {
                write(producer, "a", 0, &format!("{id}-{round}.{step}"));
            }
            write_plainly(&milena, "a", 0, &format!("plain-{round}.{step}"));
        }
        // The first is open longest, so that what the others came to has to wait for it.
        let [one, two, three] = &producers;
        assert_eq!(transaction::commit(three), Ended::Committed);
        assert_eq!(transaction::abort(two), Ended::Aborted);
        let all = uncommitted(&milena, "a").remove(&0).expect("records");
        let before = committed(&milena, "a").remove(&0).unwrap_or_default();
        assert!(
            before
                .iter()
                .all(|value| value.contains("-0.") && round == 1),
            "{before:?} is read while the first transaction is open"
        );
        assert_eq!(transaction::commit(one), Ended::Committed);
        nothing_open(&milena, "a");
        let expected: Vec<String> = all
            .into_iter()
            .filter(|value| !value.starts_with("two"))
            .collect();
        assert_eq!(expected.len(), 9 * (round + 1));
        assert_eq!(committed(&milena, "a")[&0], expected);
    }
}

#[test]
fn transactions_of_every_codec_are_read_and_hidden() {
    const RECORDS: usize = 500;
    let codecs = ["none", "gzip", "snappy", "lz4", "zstd"];
    let milena = Milena::start(&topics(&codecs.map(|codec| (codec, 1))));
    for codec in codecs {
        let settings = [("compression.type", codec), ("linger.ms", "5")];
        let producer = producer_with(&milena, codec, &settings);
        for name in ["aborted", "committed"] {
            producer.begin_transaction().expect("begun");
            for n in 0..RECORDS {
                let value = format!("{name} {n} {}", "and more of it ".repeat(n % 20));
                queue(&producer, codec, 0, &value);
            }
            transaction::flush(&producer);
            if name == "aborted" {
                assert_eq!(transaction::abort(&producer), Ended::Aborted);
            } else {
                assert_eq!(transaction::commit(&producer), Ended::Committed);
            }
        }
        nothing_open(&milena, codec);
        let all = uncommitted(&milena, codec).remove(&0).expect("records");
        assert_eq!(all.len(), 2 * RECORDS, "{codec}");
        assert_eq!(committed(&milena, codec)[&0], all[RECORDS..], "{codec}");
    }
}
