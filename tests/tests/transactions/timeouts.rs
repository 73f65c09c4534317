//! Transactions that nobody ends: the broker does, once their time is over.

use rdkafka::error::RDKafkaErrorCode;
use rdkafka::producer::Producer;
use tests::transaction::{self, Ended};
use tests::{Milena, eventually};

use super::{
    committed, expect_committed, nothing_open, producer, producer_with, topics, unknown_producer,
    values_of, write, write_plainly,
};

const SHORT: [(&str, &str); 1] = [("transaction.timeout.ms", "1500")];

#[test]
fn a_transaction_that_takes_too_long_is_aborted_and_its_readers_go_on() {
    let milena = Milena::start(&topics(&[("t", 2), ("u", 1)]));
    let slow = producer_with(&milena, "slow", &SHORT);
    let other = producer(&milena, "other");
    other.begin_transaction().expect("begun");
    write(&other, "u", 0, "of the other");
    slow.begin_transaction().expect("begun");
    write(&slow, "t", 0, "too slow");
    write(&slow, "t", 1, "too slow");
    write_plainly(&milena, "t", 0, "plain");
    eventually("the readers go on", || {
        (committed(&milena, "t") == values_of(&[(0, &["plain"])])).then_some(())
    });
    nothing_open(&milena, "t");
    assert_eq!(milena.ends("u")[&0], 0, "the other has time left");

    // It is told, whatever it tries, and what it sends is not read.
    let _ = slow.send(rdkafka::producer::BaseRecord::<str, str>::to("t").payload("late"));
    assert_ne!(transaction::commit(&slow), Ended::Committed);
    drop(slow);
    let slow = producer(&milena, "slow");
    slow.begin_transaction().expect("begun");
    write(&slow, "t", 1, "in time");
    assert_eq!(transaction::commit(&slow), Ended::Committed);
    expect_committed(&milena, "t", &[(0, &["plain"]), (1, &["in time"])]);
    assert_eq!(transaction::commit(&other), Ended::Committed);
    expect_committed(&milena, "u", &[(0, &["of the other"])]);
}

#[test]
fn what_was_open_at_a_kill_is_aborted_in_time_after_the_start() {
    let mut milena = Milena::start(&topics(&[("t", 3)]));
    for partition in 0..3 {
        let settings = [("transaction.timeout.ms", "3000")];
        let gone = producer_with(&milena, &format!("gone-{partition}"), &settings);
        gone.begin_transaction().expect("begun");
        write(&gone, "t", partition, "of one that is gone");
    }
    milena.kill();
    milena.restart();
    for partition in 0..3 {
        write_plainly(&milena, "t", partition, "plain");
    }
    let plain: &[&str] = &["plain"];
    expect_committed(&milena, "t", &[(0, plain), (1, plain), (2, plain)]);
}

#[test]
fn a_transaction_is_not_timed_out_by_the_ones_before_it() {
    let milena = Milena::start(&topics(&[("t", 1)]));
    // Longer than one of them takes, however busy the machine is.
    let settings = [("transaction.timeout.ms", "6000")];
    let producer = producer_with(&milena, "t", &settings);
    let began = std::time::Instant::now();
    let mut values = Vec::new();
    // Together they take longer than one of them may.
    while began.elapsed() < std::time::Duration::from_secs(8) {
        producer.begin_transaction().expect("begun");
        values.push(format!("{}", values.len()));
        write(&producer, "t", 0, &values[values.len() - 1]);
        std::thread::sleep(std::time::Duration::from_millis(300));
        assert_eq!(transaction::commit(&producer), Ended::Committed);
    }
    let values: Vec<&str> = values.iter().map(String::as_str).collect();
    expect_committed(&milena, "t", &[(0, &values)]);
}

#[test]
fn a_time_beyond_the_brokers_is_refused() {
    let milena = Milena::start(&topics(&[("t", 1)]));
    let settings = [("transaction.timeout.ms", "3600000")];
    let producer = unknown_producer(&milena, "t", &settings);
    let refused = transaction::init(&producer).expect_err("an hour is too long");
    assert_eq!(refused.code(), RDKafkaErrorCode::InvalidTransactionTimeout);
}
