//! Up to where each isolation level may read: ListOffsets, lookups by time, waiting fetches and groups.

use std::time::{Duration, SystemTime};

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::message::Message;
use rdkafka::producer::{BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};
use tests::transaction::{self, Ended};
use tests::{Isolation, Milena, PATIENCE, eventually, send};

use super::{committed, nothing_open, producer, text, topics, values_of, write, write_plainly};

fn consumer(milena: &Milena, isolation: Isolation, settings: &[(&str, &str)]) -> BaseConsumer {
    let mut all = vec![
        ("group.id", "readers"),
        ("auto.offset.reset", "earliest"),
        ("enable.auto.commit", "false"),
        ("isolation.level", isolation.name()),
        ("topic.metadata.refresh.interval.ms", "500"),
    ];
    all.extend_from_slice(settings);
    milena.client_with(&all)
}

fn assign(consumer: &BaseConsumer, start: Offset) {
    let mut assignment = TopicPartitionList::new();
    let added = assignment.add_partition_offset("t", 0, start);
    added.expect("an assignment");
    consumer.assign(&assignment).expect("assigned");
}

fn next_value(consumer: &BaseConsumer) -> String {
    eventually("a record", || {
        let message = consumer.poll(Duration::from_millis(100))?;
        let message = message.expect("a record");
        Some(text(message.payload().map(<[u8]>::to_vec)))
    })
}

/// Last stable offset and high watermark of the topic's partition 0.
fn ends(milena: &Milena) -> (i64, i64) {
    let end = |isolation| milena.ends_as(isolation, "t")[&0];
    (
        end(Isolation::ReadCommitted),
        end(Isolation::ReadUncommitted),
    )
}

fn expect_ends(milena: &Milena, expected: (i64, i64)) {
    eventually(&format!("the ends are {expected:?}"), || {
        (ends(milena) == expected).then_some(())
    });
}

#[test]
fn the_last_stable_offset_is_where_the_oldest_open_transaction_begins() {
    let mut milena = Milena::start(&topics(&[("t", 1)]));
    for n in 0..3 {
        write_plainly(&milena, "t", 0, &format!("plain {n}"));
    }
    assert_eq!(ends(&milena), (3, 3));
    let (one, two) = (producer(&milena, "one"), producer(&milena, "two"));
    one.begin_transaction().expect("begun");
    two.begin_transaction().expect("begun");
    assert_eq!(ends(&milena), (3, 3), "nothing was written");
    write(&one, "t", 0, "one 3");
    write_plainly(&milena, "t", 0, "plain 4");
    write(&two, "t", 0, "two 5");
    assert_eq!(ends(&milena), (3, 6));
    assert_eq!(transaction::commit(&two), Ended::Committed);
    expect_ends(&milena, (3, 7));
    let read = ["plain 0", "plain 1", "plain 2"];
    assert_eq!(committed(&milena, "t"), values_of(&[(0, &read)]));

    // What is open stays open.
    milena.kill();
    milena.restart();
    assert_eq!(ends(&milena), (3, 7));
    assert!(milena.stop().success(), "{}", milena.log());
    milena.restart();
    assert_eq!(ends(&milena), (3, 7));

    assert_eq!(transaction::abort(&one), Ended::Aborted);
    expect_ends(&milena, (8, 8));
    let read = ["plain 0", "plain 1", "plain 2", "plain 4", "two 5"];
    assert_eq!(committed(&milena, "t"), values_of(&[(0, &read)]));
}

#[test]
fn a_lookup_by_time_ends_where_the_isolation_level_does() {
    let milena = Milena::start(&topics(&[("t", 1)]));
    let producer = producer(&milena, "t");
    // Markers have the time at which they are written, and are found as well: the records are of later.
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let minutes = Duration::from_secs(60).as_millis() as i64;
    let after = |n: i64| now.as_ref().map_or(0, |now| now.as_millis() as i64) + n * minutes;
    let write_after = |n: i64| {
        let record = BaseRecord::<[u8], [u8]>::to("t").partition(0);
        send(&producer, record.payload(b"x").timestamp(after(n)));
        transaction::flush(&producer);
    };
    let found = |isolation, n: i64| {
        let consumer = consumer(&milena, isolation, &[]);
        let mut wanted = TopicPartitionList::new();
        let added = wanted.add_partition_offset("t", 0, Offset::Offset(after(n)));
        added.expect("a time");
        let found = consumer.offsets_for_times(wanted, PATIENCE);
        found.expect("an answer").elements()[0].offset()
    };
    producer.begin_transaction().expect("begun");
    write_after(10);
    assert_eq!(transaction::commit(&producer), Ended::Committed);
    nothing_open(&milena, "t");
    producer.begin_transaction().expect("begun");
    write_after(20);
    for isolation in [Isolation::ReadCommitted, Isolation::ReadUncommitted] {
        assert_eq!(found(isolation, 5), Offset::Offset(0), "{isolation:?}");
    }
    let uncommitted = found(Isolation::ReadUncommitted, 15);
    assert_eq!(uncommitted, Offset::Offset(2));
    assert_eq!(found(Isolation::ReadCommitted, 15), Offset::End);
    assert_eq!(transaction::commit(&producer), Ended::Committed);
    nothing_open(&milena, "t");
    let committed = found(Isolation::ReadCommitted, 15);
    assert_eq!(committed, Offset::Offset(2));
}

#[test]
fn readers_that_wait_are_woken_by_the_end_of_a_transaction() {
    let milena = Milena::start(&topics(&[("t", 1)]));
    let producer = producer(&milena, "t");
    // A fetch that is not woken waits far longer than the test does.
    let patient = [
        ("fetch.wait.max.ms", "200000"),
        ("socket.timeout.ms", "250000"),
    ];
    for (value, commits) in [("1", true), ("2", false)] {
        let from_now = milena.ends("t")[&0];
        std::thread::scope(|scope| {
            let wait = || {
                let consumer = consumer(&milena, Isolation::ReadCommitted, &patient);
                assign(&consumer, Offset::Offset(from_now));
                next_value(&consumer)
            };
            let waiting: Vec<_> = (0..3).map(|_| scope.spawn(wait)).collect();
            producer.begin_transaction().expect("begun");
            write(&producer, "t", 0, value);
            // What follows is held up by what is open.
            write_plainly(&milena, "t", 0, "plain");
            std::thread::sleep(Duration::from_millis(300));
            let waits = waiting.iter().all(|reader| !reader.is_finished());
            assert!(waits, "the transaction is open");
            if commits {
                assert_eq!(transaction::commit(&producer), Ended::Committed);
            } else {
                assert_eq!(transaction::abort(&producer), Ended::Aborted);
            }
            for reader in waiting {
                let read = reader.join().expect("a reader");
                assert_eq!(read, if commits { value } else { "plain" });
            }
        });
    }
}

#[test]
fn a_group_goes_on_behind_what_was_aborted() {
    let mut milena = Milena::start(&format!(
        "{}[group]\ngroup_initial_rebalance_delay_ms = 100\n",
        topics(&[("t", 1)])
    ));
    let producer = producer(&milena, "t");
    let transaction = |value: &str, commits: bool| {
        producer.begin_transaction().expect("begun");
        write(&producer, "t", 0, value);
        if commits {
            assert_eq!(transaction::commit(&producer), Ended::Committed);
        } else {
            assert_eq!(transaction::abort(&producer), Ended::Aborted);
        }
    };
    let member = |milena: &Milena| {
        let member = consumer(milena, Isolation::ReadCommitted, &[]);
        member.subscribe(&["t"]).expect("subscribed");
        member
    };
    transaction("1", true);
    transaction("2", false);
    let first = member(&milena);
    assert_eq!(next_value(&first), "1");
    let committed = first.commit_consumer_state(CommitMode::Sync);
    committed.expect("committed");
    drop(first);
    transaction("3", false);
    transaction("4", true);
    milena.kill();
    milena.restart();
    let second = member(&milena);
    assert_eq!(next_value(&second), "4");
}

#[test]
fn reading_uncommitted_goes_through_what_is_open_and_what_was_aborted() {
    let milena = Milena::start(&topics(&[("t", 1)]));
    let reader = consumer(&milena, Isolation::ReadUncommitted, &[]);
    assign(&reader, Offset::Beginning);
    let producer = producer(&milena, "t");
    for (value, commits) in [("1", true), ("2", false), ("3", true)] {
        producer.begin_transaction().expect("begun");
        write(&producer, "t", 0, value);
        assert_eq!(next_value(&reader), value, "it is open");
        if commits {
            assert_eq!(transaction::commit(&producer), Ended::Committed);
        } else {
            assert_eq!(transaction::abort(&producer), Ended::Aborted);
        }
    }
}
