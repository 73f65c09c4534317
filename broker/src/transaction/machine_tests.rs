//! The rules of one transactional id, step by step.

use super::*;

const TIMEOUT_MS: i32 = 60_000;

fn init(expected: Option<Producer>) -> Init {
    Init {
        timeout_ms: TIMEOUT_MS,
        expected,
    }
}

fn initialized(machine: &Transaction, expected: Option<Producer>) -> Transaction {
    match machine.init(1, init(expected), None) {
        Ok(Initialized::As(next)) => next,
        other => panic!("{other:?}"),
    }
}

fn at(partition: i32) -> TopicPartition {
    ("t".to_owned(), partition)
}

fn open(machine: &Transaction, version: TransactionVersion) -> Transaction {
    let added = machine.add(2, machine.producer(), &[at(0)], version);
    added.expect("may be added").expect("is to be written")
}

fn end_by(producer: Producer, result: TransactionResult, version: TransactionVersion) -> End {
    End {
        producer,
        result,
        version,
    }
}

/// The states of a whole end: decided, and completed.
fn ended(
    machine: &Transaction,
    result: TransactionResult,
    version: TransactionVersion,
) -> (Transaction, Transaction) {
    let end = end_by(machine.producer(), result, version);
    let decided = match machine.end(3, end, None).expect("may end") {
        Ending::SyncFirst(syncing) => {
            assert_eq!(syncing.stored.state, State::Ongoing, "nothing is decided");
            syncing.synced(4)
        }
        Ending::Decide(decided) => decided,
        Ending::Done(_) => panic!("was open"),
    };
    let completed = decided.completed(5);
    (decided, completed)
}

fn refused<T: std::fmt::Debug>(result: Result<T, Refusal>) -> ResponseError {
    match result {
        Err(Refusal::Error(error)) => error,
        other => panic!("{other:?}"),
    }
}

const V1: TransactionVersion = TransactionVersion::V1;
const V2: TransactionVersion = TransactionVersion::V2;
const ABORT: TransactionResult = TransactionResult::Abort;
const COMMIT: TransactionResult = TransactionResult::Commit;

#[test]
fn every_introduction_raises_the_epoch_and_fences_who_was_there() {
    let first = initialized(&Transaction::new(7, 0), None);
    assert_eq!(first.producer(), Producer { id: 7, epoch: 0 });
    let second = initialized(&first, None);
    assert_eq!(second.producer(), Producer { id: 7, epoch: 1 });
    let zombie = first.producer();
    assert_eq!(
        refused(second.add(2, zombie, &[at(0)], V1)),
        ResponseError::ProducerFenced
    );
    let end = end_by(zombie, COMMIT, V1);
    assert_eq!(
        refused(second.end(2, end, None)),
        ResponseError::ProducerFenced
    );
    let again = second.init(2, init(Some(zombie)), None);
    assert_eq!(refused(again), ResponseError::ProducerFenced);
    let other = Producer { id: 8, epoch: 1 };
    let mapping = ResponseError::InvalidProducerIdMapping;
    assert_eq!(refused(second.add(2, other, &[at(0)], V1)), mapping);
}

#[test]
fn a_producer_that_says_who_it_was_goes_on_and_may_ask_twice() {
    let first = initialized(&Transaction::new(7, 0), None);
    let raised = initialized(&first, Some(first.producer()));
    assert_eq!(raised.producer().epoch, 1);
    let again = initialized(&raised, Some(first.producer()));
    assert_eq!(again.producer().epoch, 1, "its answer was lost");
    // After a restart nobody knows that it was no other.
    let restarted = Transaction::restore(raised.stored.clone());
    let asked = restarted.init(2, init(Some(first.producer())), None);
    assert_eq!(refused(asked), ResponseError::ProducerFenced);
}

#[test]
fn an_open_transaction_is_aborted_first_under_an_epoch_that_nobody_gets() {
    let begun = open(&initialized(&Transaction::new(7, 0), None), V1);
    let Ok(Initialized::AbortFirst(aborting)) = begun.init(3, init(None), None) else {
        panic!("is open");
    };
    assert_eq!(aborting.stored.state, State::PrepareAbort);
    assert_eq!(aborting.marker(0).expect("is decided").producer_epoch, 1);
    assert_eq!(aborting.init(3, init(None), None), Err(Refusal::Concurrent));
    let next = initialized(&aborting.completed(4), None);
    assert_eq!(next.producer().epoch, 2);
}

#[test]
fn a_transaction_that_is_open_for_too_long_is_aborted_and_its_producer_fenced() {
    let begun = open(&initialized(&Transaction::new(7, 0), None), V1);
    let due = 2 + i64::from(TIMEOUT_MS);
    assert_eq!(begun.times_out_at_ms(), Some(due));
    assert_eq!(begun.timed_out(due - 1), None);
    let aborting = begun.timed_out(due).expect("is due");
    assert_eq!(aborting.timed_out(due + 1), None, "once");
    let aborted = aborting.completed(due);
    let end = end_by(begun.producer(), COMMIT, V1);
    assert_eq!(
        refused(aborted.end(due, end, None)),
        ResponseError::ProducerFenced
    );
}

#[test]
fn version_1_keeps_its_epoch_and_version_2_raises_it() {
    for (version, raised) in [(V1, 0), (V2, 1)] {
        let begun = open(&initialized(&Transaction::new(7, 0), None), version);
        for result in [COMMIT, ABORT] {
            let (decided, completed) = ended(&begun, result, version);
            let marker = decided.marker(9).expect("is decided");
            assert_eq!((marker.producer_epoch, marker.result), (raised, result));
            assert_eq!(marker.coordinator_epoch, 9);
            assert_eq!(
                decided.after_end(),
                Producer {
                    id: 7,
                    epoch: raised
                }
            );
            assert_eq!(completed.producer().epoch, raised);
            assert!(completed.stored.partitions.is_empty());
            assert_eq!(completed.marker(9), None);
        }
    }
}

#[test]
fn an_end_that_comes_late_meets_nothing_of_the_next_transaction() {
    let begun = open(&initialized(&Transaction::new(7, 0), None), V2);
    let (_, completed) = ended(&begun, COMMIT, V2);
    let next = open(&completed, V2);
    let late = end_by(begun.producer(), COMMIT, V2);
    assert_eq!(
        refused(next.end(6, late, None)),
        ResponseError::ProducerFenced
    );
    let late = next.add(6, begun.producer(), &[at(1)], V2);
    assert_eq!(refused(late), ResponseError::ProducerFenced);
}

#[test]
fn an_end_whose_answer_was_lost_is_answered_again() {
    for version in [V1, V2] {
        let begun = open(&initialized(&Transaction::new(7, 0), None), version);
        let (decided, completed) = ended(&begun, COMMIT, version);
        let again = end_by(begun.producer(), COMMIT, version);
        assert_eq!(decided.end(6, again, None), Err(Refusal::Concurrent));
        assert_eq!(
            completed.end(6, again, None),
            Ok(Ending::Done(completed.producer()))
        );
        let other = end_by(begun.producer(), ABORT, version);
        assert_eq!(
            refused(decided.end(6, other, None)),
            ResponseError::InvalidTxnState
        );
        assert_eq!(
            refused(completed.end(6, other, None)),
            ResponseError::InvalidTxnState
        );
    }
}

#[test]
fn an_abort_of_nothing_raises_the_epoch_under_version_2_only() {
    let empty = initialized(&Transaction::new(7, 0), None);
    let invalid = ResponseError::InvalidTxnState;
    assert_eq!(
        refused(empty.end(2, end_by(empty.producer(), ABORT, V1), None)),
        invalid
    );
    assert_eq!(
        refused(empty.end(2, end_by(empty.producer(), COMMIT, V2), None)),
        invalid
    );
    let Ok(Ending::Decide(next)) = empty.end(2, end_by(empty.producer(), ABORT, V2), None) else {
        panic!("may abort");
    };
    assert_eq!(next.after_end().epoch, 1);
    let done = next.completed(3);
    // And once more, after an end.
    let Ok(Ending::Decide(next)) = done.end(4, end_by(done.producer(), ABORT, V2), None) else {
        panic!("may abort");
    };
    assert_eq!(next.after_end().epoch, 2);
    let commit = done.end(4, end_by(done.producer(), COMMIT, V2), None);
    assert_eq!(refused(commit), invalid);
}

/// The answer to an end comes before its markers are written.
#[test]
fn an_abort_of_nothing_waits_for_the_end_of_the_transaction_before() {
    let begun = open(&initialized(&Transaction::new(7, 0), None), V2);
    let (decided, completed) = ended(&begun, COMMIT, V2);
    let next = end_by(decided.after_end(), ABORT, V2);
    assert_eq!(decided.end(4, next, None), Err(Refusal::Concurrent));
    let ending = completed.end(5, next, None);
    assert!(matches!(ending, Ok(Ending::Decide(_))), "{ending:?}");
}

#[test]
fn nothing_is_written_while_a_transaction_ends() {
    let begun = open(&initialized(&Transaction::new(7, 0), None), V2);
    let end = end_by(begun.producer(), COMMIT, V2);
    let Ok(Ending::SyncFirst(syncing)) = begun.end(3, end, None) else {
        panic!("may commit");
    };
    let concurrent = Some(Refusal::Concurrent);
    assert_eq!(
        syncing.add(3, begun.producer(), &[at(0)], V2).err(),
        concurrent
    );
    assert_eq!(syncing.verify(begun.producer(), &at(0)).err(), concurrent);
    assert_eq!(syncing.end(3, end, None).err(), concurrent);
    assert_eq!(syncing.init(3, init(None), None).err(), concurrent);
    assert_eq!(syncing.timed_out(i64::MAX), None);
    assert_eq!(
        syncing.not_decided().add(3, begun.producer(), &[at(0)], V2),
        Ok(None)
    );
    let failed = syncing.sync_failed(4);
    assert_eq!(failed.stored.state, State::PrepareAbort);
}

#[test]
fn what_was_not_added_is_no_part_of_a_transaction() {
    let begun = open(&initialized(&Transaction::new(7, 0), None), V1);
    assert_eq!(begun.verify(begun.producer(), &at(0)), Ok(()));
    let abortable = ResponseError::TransactionAbortable;
    assert_eq!(refused(begun.verify(begun.producer(), &at(1))), abortable);
    let (_, completed) = ended(&begun, COMMIT, V1);
    assert_eq!(
        refused(completed.verify(begun.producer(), &at(0))),
        abortable
    );
}

#[test]
fn after_the_last_epoch_comes_another_producer_id() {
    let mut last = initialized(&Transaction::new(7, 0), None);
    last.stored.producer_epoch = LAST_EPOCH;
    assert_eq!(
        last.init(1, init(None), None),
        Err(Refusal::NeedsProducerId)
    );
    let Ok(Initialized::As(next)) = last.init(1, init(None), Some(8)) else {
        panic!("has another id");
    };
    assert_eq!(next.producer(), Producer { id: 8, epoch: 0 });

    let begun = open(&last, V2);
    let end = end_by(begun.producer(), ABORT, V2);
    assert_eq!(begun.end(2, end, None), Err(Refusal::NeedsProducerId));
    let Ok(Ending::Decide(decided)) = begun.end(2, end, Some(9)) else {
        panic!("has another id");
    };
    assert_eq!(
        decided.marker(0).expect("is decided").producer_epoch,
        i16::MAX
    );
    assert_eq!(decided.after_end(), Producer { id: 9, epoch: 0 });
    let completed = decided.completed(3);
    assert_eq!(completed.producer(), Producer { id: 9, epoch: 0 });
    let again = completed.end(4, end, None);
    assert_eq!(
        again,
        Ok(Ending::Done(completed.producer())),
        "its answer was lost"
    );
}

#[test]
fn an_id_expires_when_nothing_is_open() {
    let empty = initialized(&Transaction::new(7, 0), None);
    assert!(!empty.is_expired(10, 10) && empty.is_expired(11, 10));
    assert!(!open(&empty, V1).is_expired(1_000_000, 10));
    let (decided, completed) = ended(&open(&empty, V1), COMMIT, V1);
    assert!(!decided.is_expired(1_000_000, 10));
    assert!(completed.is_expired(15, 10));
}
