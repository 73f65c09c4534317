//! One producer for each transactional id: the newest.

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, Producer};
use tests::transaction::{self, Ended};
use tests::{Isolation, Milena, PATIENCE, eventually};

use super::{
    TransactionalProducer, expect_committed, nothing_open, producer, topics, uncommitted,
    values_of, write,
};

/// It was replaced: nothing that it does has an effect any more.
fn is_fenced(producer: &TransactionalProducer) {
    if producer.begin_transaction().is_ok() {
        send_if_possible(producer, 0);
        let _ = producer.flush(PATIENCE);
    }
    for ended in [
        producer.commit_transaction(PATIENCE),
        producer.abort_transaction(PATIENCE),
    ] {
        let Err(KafkaError::Transaction(error)) = ended else {
            panic!("a zombie ends a transaction: {ended:?}");
        };
        assert!(error.is_fatal(), "{error:?}");
    }
    let (code, reason) = producer.client().fatal_error().expect("a fatal error");
    let fenced = [
        RDKafkaErrorCode::Fenced,
        RDKafkaErrorCode::ProducerFenced,
        RDKafkaErrorCode::InvalidProducerEpoch,
    ];
    assert!(fenced.contains(&code), "{code:?}: {reason}");
}

/// As long as it has not learnt that it was replaced, it may try.
fn send_if_possible(producer: &TransactionalProducer, partition: i32) {
    let late = BaseRecord::<[u8], [u8]>::to("t").partition(partition);
    let _ = producer.send(late.payload(b"from a zombie"));
}

#[test]
fn a_second_producer_ends_the_transaction_of_the_first_which_can_do_nothing_more() {
    let milena = Milena::start(&topics(&[("t", 2)]));
    let first = producer(&milena, "id");
    first.begin_transaction().expect("begun");
    write(&first, "t", 0, "1 of the first");
    write(&first, "t", 1, "2 of the first");
    let second = producer(&milena, "id");
    // Its own transaction can only be written to where the first one's is out of the way.
    nothing_open(&milena, "t");
    second.begin_transaction().expect("begun");
    write(&second, "t", 0, "1 of the second");
    // A partition that the second has in its transaction, and one that it has not.
    for partition in [0, 1] {
        send_if_possible(&first, partition);
    }
    let _ = first.flush(PATIENCE);
    is_fenced(&first);
    assert_eq!(transaction::commit(&second), Ended::Committed);
    expect_committed(&milena, "t", &[(0, &["1 of the second"])]);
    let all: [(i32, &[&str]); 2] = [
        (0, &["1 of the first", "1 of the second"]),
        (1, &["2 of the first"]),
    ];
    assert_eq!(uncommitted(&milena, "t"), values_of(&all));
}

#[test]
fn a_producer_is_fenced_between_two_transactions_and_before_the_first() {
    let milena = Milena::start(&topics(&[("t", 1)]));
    let unused = producer(&milena, "id");
    let first = producer(&milena, "id");
    first.begin_transaction().expect("begun");
    write(&first, "t", 0, "of the first");
    assert_eq!(transaction::commit(&first), Ended::Committed);
    // Nothing is open that would have to be aborted.
    let second = producer(&milena, "id");
    is_fenced(&unused);
    is_fenced(&first);
    second.begin_transaction().expect("begun");
    write(&second, "t", 0, "of the second");
    assert_eq!(transaction::commit(&second), Ended::Committed);
    let expected = ["of the first", "of the second"];
    expect_committed(&milena, "t", &[(0, &expected)]);
    assert_eq!(uncommitted(&milena, "t"), values_of(&[(0, &expected)]));
}

#[test]
fn a_zombie_commits_nothing() {
    let milena = Milena::start(&topics(&[("t", 1)]));
    let first = producer(&milena, "id");
    first.begin_transaction().expect("begun");
    write(&first, "t", 0, "of the first");
    let _second = producer(&milena, "id");
    is_fenced(&first);
    expect_committed(&milena, "t", &[]);
}

#[test]
fn a_zombie_commits_nothing_of_its_successors_transaction() {
    let milena = Milena::start(&topics(&[("t", 1)]));
    let first = producer(&milena, "id");
    first.begin_transaction().expect("begun");
    write(&first, "t", 0, "of the first");
    let second = producer(&milena, "id");
    second.begin_transaction().expect("begun");
    write(&second, "t", 0, "of the second");
    is_fenced(&first);
    let end = milena.ends_as(Isolation::ReadCommitted, "t")[&0];
    assert_eq!(
        end, 2,
        "the second's transaction is open, behind one record and one marker"
    );
    assert_eq!(transaction::abort(&second), Ended::Aborted);
    expect_committed(&milena, "t", &[]);
}

#[test]
fn of_many_producers_one_after_the_other_the_last_one_writes() {
    let mut milena = Milena::start(&topics(&[("t", 1)]));
    let mut before: Option<TransactionalProducer> = None;
    let mut expected = Vec::new();
    for generation in 0..6 {
        let next = producer(&milena, "id");
        if let Some(before) = before.replace(next) {
            is_fenced(&before);
        }
        let producer = before.as_ref().expect("a producer");
        let values = [format!("{generation} a"), format!("{generation} b")];
        producer.begin_transaction().expect("begun");
        write(producer, "t", 0, &values[0]);
        assert_eq!(transaction::commit(producer), Ended::Committed);
        expected.push(values[0].clone());
        producer.begin_transaction().expect("begun");
        write(producer, "t", 0, &values[1]);
        // Who is fenced stays so after a restart.
        if generation == 2 {
            milena.kill();
            milena.restart();
        }
    }
    drop(before);
    let _last = producer(&milena, "id");
    let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
    expect_committed(&milena, "t", &[(0, &expected)]);
}

#[test]
fn other_ids_are_left_alone() {
    let milena = Milena::start(&topics(&[("t", 1)]));
    let other = producer(&milena, "another id");
    other.begin_transaction().expect("begun");
    write(&other, "t", 0, "of the other");
    let first = producer(&milena, "id");
    first.begin_transaction().expect("begun");
    write(&first, "t", 0, "of the first");
    let _second = producer(&milena, "id");
    eventually("the first's transaction is aborted", || {
        (milena.ends_as(Isolation::ReadUncommitted, "t")[&0] == 3).then_some(())
    });
    assert_eq!(milena.ends("t")[&0], 0, "the other's is open");
    assert_eq!(transaction::commit(&other), Ended::Committed);
    expect_committed(&milena, "t", &[(0, &["of the other"])]);
}
