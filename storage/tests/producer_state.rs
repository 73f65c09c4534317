//! Idempotence and transactions: which batches are new, duplicates, out of order or of a stale epoch,
//! and from where to where transactions are open.

use std::path::Path;

use bytes::Bytes;
use storage::Error;
use storage::batch::{Batch, BatchBuilder, Compression, EndMarker, TransactionResult};
use storage::producer_state::{AbortedTransaction, Decision, ProducerState};

const DAY_MS: i64 = 86_400_000;

fn batch(producer_id: i64, epoch: i16, base_sequence: i32, records: usize) -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None);
    if producer_id >= 0 {
        builder = builder.producer(producer_id, epoch, base_sequence);
    }
    for _ in 0..records {
        builder.push(0, None, Some(b"v"), &[]);
    }
    builder.build()
}

fn check(state: &ProducerState, batch: &Bytes) -> Result<Decision, Error> {
    state.check(&Batch::parse(batch).unwrap())
}

/// Appends a batch that must be new.
fn append(state: &mut ProducerState, batch: &Bytes, base_offset: i64, now_ms: i64) {
    assert_eq!(check(state, batch).unwrap(), Decision::New);
    state.update(&Batch::parse(batch).unwrap(), base_offset, now_ms);
}

fn duplicate(base_offset: i64, last_offset: i64, append_time_ms: i64) -> Decision {
    Decision::Duplicate {
        base_offset,
        last_offset,
        append_time_ms,
    }
}

fn is_out_of_order(state: &ProducerState, batch: &Bytes) -> bool {
    matches!(check(state, batch), Err(Error::OutOfOrderSequence { .. }))
}

#[test]
fn sequences_follow_each_other_and_gaps_are_refused() {
    let mut state = ProducerState::new();
    append(&mut state, &batch(1, 0, 0, 3), 100, 0);
    append(&mut state, &batch(1, 0, 3, 1), 103, 0);
    assert!(is_out_of_order(&state, &batch(1, 0, 5, 1)));
    // Overlaps what is there, but repeats none of it.
    assert!(is_out_of_order(&state, &batch(1, 0, 3, 2)));
    assert!(is_out_of_order(&state, &batch(1, 0, 0, 2)));
    match check(&state, &batch(1, 0, 9, 1)) {
        Err(Error::OutOfOrderSequence {
            producer_id: 1,
            last: 3,
            found: 9,
        }) => {}
        other => panic!("{other:?}"),
    }
    append(&mut state, &batch(1, 0, 4, 1), 104, 0);
}

#[test]
fn the_last_five_batches_are_recognised_and_an_older_one_is_out_of_order() {
    let mut state = ProducerState::new();
    for index in 0..6 {
        append(
            &mut state,
            &batch(1, 0, index * 2, 2),
            1000 + i64::from(index) * 10,
            i64::from(index),
        );
    }
    assert!(is_out_of_order(&state, &batch(1, 0, 0, 2)));
    for index in 1..6 {
        let base = 1000 + i64::from(index) * 10;
        let expected = duplicate(base, base + 1, i64::from(index));
        assert_eq!(check(&state, &batch(1, 0, index * 2, 2)).unwrap(), expected);
    }
    // Checking changes nothing.
    append(&mut state, &batch(1, 0, 12, 1), 2000, 9);
}

#[test]
fn sequences_wrap_around_inside_of_a_batch_and_between_batches() {
    let mut state = ProducerState::new();
    append(&mut state, &batch(1, 0, i32::MAX - 1, 3), 0, 5);
    assert_eq!(
        check(&state, &batch(1, 0, i32::MAX - 1, 3)).unwrap(),
        duplicate(0, 2, 5)
    );
    append(&mut state, &batch(1, 0, 1, 1), 3, 5);

    append(&mut state, &batch(2, 0, i32::MAX, 1), 4, 5);
    assert!(is_out_of_order(&state, &batch(2, 0, 1, 1)));
    append(&mut state, &batch(2, 0, 0, 1), 5, 5);
}

#[test]
fn an_unknown_producer_may_begin_anywhere_and_none_at_all_is_never_checked() {
    let mut state = ProducerState::new();
    append(&mut state, &batch(1, 4, 77, 1), 0, 0);
    for offset in 1..4 {
        append(&mut state, &batch(-1, 0, 0, 1), offset, 0);
    }
    assert_eq!(state.len(), 1);
}

#[test]
fn epochs_only_go_up_and_a_new_one_begins_at_zero() {
    let mut state = ProducerState::new();
    append(&mut state, &batch(1, 1, 0, 2), 0, 0);
    assert!(is_out_of_order(&state, &batch(1, 2, 2, 1)));
    append(&mut state, &batch(1, 2, 0, 2), 2, 0);
    match check(&state, &batch(1, 1, 0, 2)) {
        Err(Error::StaleProducerEpoch {
            producer_id: 1,
            newest: 2,
            found: 1,
        }) => {}
        other => panic!("a stale epoch is no duplicate: {other:?}"),
    }
    assert_eq!(
        check(&state, &batch(1, 2, 0, 2)).unwrap(),
        duplicate(2, 3, 0)
    );
}

#[test]
fn producers_expire_by_their_last_append_and_not_earlier() {
    let mut state = ProducerState::new();
    append(&mut state, &batch(1, 0, 0, 1), 0, 1000);
    append(&mut state, &batch(2, 0, 0, 1), 1, 1001);
    assert_eq!(state.remove_expired(1000 + DAY_MS - 1, DAY_MS), 0);
    assert_eq!(state.remove_expired(1000 + DAY_MS, DAY_MS), 1);
    assert!(is_out_of_order(&state, &batch(2, 0, 5, 1)));
    append(&mut state, &batch(1, 0, 5, 1), 2, 1000 + DAY_MS);
    // A clock that was set back expires nobody.
    assert_eq!(state.remove_expired(0, DAY_MS), 0);
}

#[test]
fn a_snapshot_is_kafkas_bytes() {
    let mut state = ProducerState::new();
    append(&mut state, &batch(0x0102, 3, 7, 2), 40, 0x0a0b);
    let mut expected = vec![
        0, 1, // version
        0, 0, 0, 0, // CRC
        0, 0, 0, 1, // entries
        0, 0, 0, 0, 0, 0, 1, 2, // producer id
        0, 3, // epoch
        0, 0, 0, 8, // last sequence
        0, 0, 0, 0, 0, 0, 0, 41, // last offset
        0, 0, 0, 1, // offset delta
        0, 0, 0, 0, 0, 0, 0x0a, 0x0b, // timestamp
        0xff, 0xff, 0xff, 0xff, // coordinator epoch
        0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, // open transaction
    ];
    let crc = crc32c::crc32c(&expected[6..]);
    expected[2..6].copy_from_slice(&crc.to_be_bytes());
    assert_eq!(state.encode_snapshot(), expected);
}

#[test]
fn a_snapshot_keeps_the_last_batch_of_each_producer() {
    let path = Path::new("00000000000000000012.snapshot");
    let mut state = ProducerState::new();
    append(&mut state, &batch(1, 0, 0, 2), 0, 10);
    append(&mut state, &batch(1, 0, 2, 2), 2, 20);
    append(&mut state, &batch(9, 5, i32::MAX, 2), 4, 30);
    let mut loaded = ProducerState::decode_snapshot(path, &state.encode_snapshot()).unwrap();
    assert_eq!(loaded.len(), 2);
    assert!(is_out_of_order(&loaded, &batch(1, 0, 0, 2)));
    assert_eq!(
        check(&loaded, &batch(1, 0, 2, 2)).unwrap(),
        duplicate(2, 3, 20)
    );
    assert_eq!(
        check(&loaded, &batch(9, 5, i32::MAX, 2)).unwrap(),
        duplicate(4, 5, 30)
    );
    assert_eq!(loaded.encode_snapshot(), state.encode_snapshot());
    append(&mut loaded, &batch(1, 0, 4, 1), 6, 40);
    assert_eq!(loaded.remove_expired(30 + DAY_MS, DAY_MS), 1);

    let empty = ProducerState::new().encode_snapshot();
    assert!(
        ProducerState::decode_snapshot(path, &empty)
            .unwrap()
            .is_empty()
    );
}

#[test]
fn a_damaged_snapshot_is_refused_whatever_is_damaged() {
    let path = Path::new("00000000000000000012.snapshot");
    let mut state = ProducerState::new();
    for producer_id in 0..3 {
        append(&mut state, &batch(producer_id, 0, 0, 1), producer_id, 0);
    }
    let sound = state.encode_snapshot();
    let refused = |bytes: &[u8]| {
        matches!(
            ProducerState::decode_snapshot(path, bytes),
            Err(Error::CorruptFile { .. })
        )
    };
    for cut in 0..sound.len() {
        assert!(refused(&sound[..cut]), "cut at {cut}");
    }
    for bit in 0..sound.len() * 8 {
        let mut bytes = sound.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(refused(&bytes), "bit {bit}");
    }
    // A count that lies, under a CRC that is right.
    for count in [-1i32, 2, 4, i32::MAX, i32::MIN] {
        let mut bytes = sound.clone();
        bytes[6..10].copy_from_slice(&count.to_be_bytes());
        let crc = crc32c::crc32c(&bytes[6..]);
        bytes[2..6].copy_from_slice(&crc.to_be_bytes());
        assert!(refused(&bytes), "count {count}");
    }
}

/// As [`batch`], part of a transaction.
fn in_transaction(producer_id: i64, epoch: i16, base_sequence: i32, records: usize) -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None)
        .producer(producer_id, epoch, base_sequence)
        .transactional();
    for _ in 0..records {
        builder.push(0, None, Some(b"v"), &[]);
    }
    builder.build()
}

fn marker(producer_id: i64, producer_epoch: i16, result: TransactionResult) -> EndMarker {
    EndMarker {
        producer_id,
        producer_epoch,
        coordinator_epoch: 4,
        result,
    }
}

fn abort(producer_id: i64, producer_epoch: i16) -> EndMarker {
    marker(producer_id, producer_epoch, TransactionResult::Abort)
}

fn commit(producer_id: i64, producer_epoch: i16) -> EndMarker {
    marker(producer_id, producer_epoch, TransactionResult::Commit)
}

/// Ends a transaction; what was aborted with it.
fn end(state: &mut ProducerState, marker: EndMarker, offset: i64) -> Option<AbortedTransaction> {
    state.check_marker(&marker).expect("is not stale");
    let batch = marker.batch(0);
    state.update(&Batch::parse(&batch).unwrap(), offset, 0)
}

/// Where the transactions of the producers begin, by id.
fn open(state: &ProducerState) -> Vec<Option<i64>> {
    let active = state.active().into_iter();
    active
        .map(|producer| producer.current_txn_first_offset)
        .collect()
}

#[test]
fn a_transaction_is_open_from_its_first_batch_to_its_marker() {
    let mut state = ProducerState::new();
    append(&mut state, &batch(7, 3, 0, 2), 10, 0);
    assert_eq!(
        (open(&state), state.first_open_transaction()),
        (vec![None], None)
    );
    append(&mut state, &in_transaction(7, 3, 2, 2), 12, 0);
    append(&mut state, &in_transaction(7, 3, 4, 2), 14, 0);
    assert_eq!(open(&state), [Some(12)]);
    assert_eq!(state.first_open_transaction(), Some(12));
    assert_eq!(state.remove_expired(DAY_MS, 1), 0, "an open one is kept");
    assert_eq!(end(&mut state, commit(7, 3), 16), None);
    assert_eq!(
        (open(&state), state.first_open_transaction()),
        (vec![None], None)
    );
    // The marker has no sequence of its own.
    assert_eq!(state.active()[0].last_sequence, 5);
    append(&mut state, &in_transaction(7, 3, 6, 1), 17, 0);
    assert_eq!(open(&state), [Some(17)]);
}

#[test]
fn an_aborted_transaction_is_told_with_its_first_and_last_offset() {
    let mut state = ProducerState::new();
    for (producer_id, offset) in [(1, 10), (2, 11), (3, 12)] {
        append(&mut state, &in_transaction(producer_id, 0, 0, 1), offset, 0);
    }
    append(&mut state, &in_transaction(2, 0, 1, 2), 13, 0);
    let aborted = |producer_id, first_offset, last_offset, last_stable_offset| {
        Some(AbortedTransaction {
            producer_id,
            first_offset,
            last_offset,
            last_stable_offset,
        })
    };
    assert_eq!(end(&mut state, abort(2, 0), 15), aborted(2, 11, 15, 10));
    assert_eq!(end(&mut state, commit(1, 0), 16), None);
    assert_eq!(state.first_open_transaction(), Some(12));
    assert_eq!(end(&mut state, abort(3, 0), 17), aborted(3, 12, 17, 18));
    // Of one that has nothing here, nobody has to be told.
    assert_eq!(end(&mut state, abort(3, 0), 18), None);
    assert_eq!(end(&mut state, abort(9, 0), 19), None);
    assert_eq!(state.first_open_transaction(), None);
}

#[test]
fn a_marker_of_an_older_epoch_is_refused() {
    let mut state = ProducerState::new();
    append(&mut state, &in_transaction(7, 3, 0, 1), 0, 0);
    match state.check_marker(&abort(7, 2)) {
        Err(Error::StaleProducerEpoch {
            producer_id: 7,
            newest: 3,
            found: 2,
        }) => {}
        other => panic!("{other:?}"),
    }
    assert_eq!(open(&state), [Some(0)]);
    end(&mut state, commit(7, 3), 1);
    assert_eq!(state.active()[0].coordinator_epoch, 4);
    let by_coordinator = |coordinator_epoch| EndMarker {
        coordinator_epoch,
        ..abort(7, 3)
    };
    match state.check_marker(&by_coordinator(3)) {
        Err(Error::StaleCoordinatorEpoch {
            producer_id: 7,
            newest: 4,
            found: 3,
        }) => {}
        other => panic!("{other:?}"),
    }
    assert!(state.check_marker(&by_coordinator(4)).is_ok());
    end(&mut state, by_coordinator(9), 2);
    assert_eq!(state.active()[0].coordinator_epoch, 9);
    assert!(state.check_marker(&by_coordinator(8)).is_err());
    // Of a producer that is unknown, so is its coordinator.
    let unknown = EndMarker {
        producer_id: 8,
        ..by_coordinator(0)
    };
    assert!(state.check_marker(&unknown).is_ok());
}

#[test]
fn the_broker_s_own_batch_of_a_transaction_needs_the_newest_epoch_and_no_sequence() {
    let mut state = ProducerState::new();
    append(&mut state, &batch(7, 3, 0, 2), 0, 0);
    let commit_of_offsets = |epoch| in_transaction(7, epoch, -1, 2);
    let check = |state: &ProducerState, batch: &Bytes| {
        state.check_unsequenced(&Batch::parse(batch).unwrap())
    };
    let stale = check(&state, &commit_of_offsets(2));
    assert!(
        matches!(stale, Err(Error::StaleProducerEpoch { found: 2, .. })),
        "{stale:?}"
    );
    let batch = commit_of_offsets(3);
    assert!(check(&state, &batch).is_ok());
    assert!(check(&ProducerState::new(), &batch).is_ok());
    state.update(&Batch::parse(&batch).unwrap(), 2, 0);
    assert_eq!(open(&state), [Some(2)]);
    // The producer's own sequence goes on.
    append(&mut state, &in_transaction(7, 3, 2, 1), 4, 0);
}

#[test]
fn a_batch_that_is_no_part_of_the_open_transaction_is_refused() {
    let mut state = ProducerState::new();
    append(&mut state, &in_transaction(7, 3, 0, 2), 5, 0);
    match check(&state, &batch(7, 3, 2, 1)) {
        Err(Error::TransactionIsOpen {
            producer_id: 7,
            first_offset: 5,
        }) => {}
        other => panic!("{other:?}"),
    }
    // What is in the log already is answered all the same.
    assert_eq!(
        check(&state, &in_transaction(7, 3, 0, 2)).unwrap(),
        duplicate(5, 6, 0)
    );
    append(&mut state, &batch(8, 0, 0, 1), 7, 0);
    end(&mut state, commit(7, 3), 8);
    append(&mut state, &batch(7, 3, 2, 1), 9, 0);
}

#[test]
fn a_marker_of_a_later_epoch_raises_the_producer_s() {
    let mut state = ProducerState::new();
    append(&mut state, &in_transaction(7, 3, 0, 2), 0, 0);
    end(&mut state, commit(7, 4), 2);
    let producer = state.active()[0];
    assert_eq!((producer.epoch, producer.last_sequence), (4, -1));
    let late = check(&state, &in_transaction(7, 3, 2, 1));
    assert!(
        matches!(
            late,
            Err(Error::StaleProducerEpoch {
                newest: 4,
                found: 3,
                ..
            })
        ),
        "{late:?}"
    );
    // Not even what it has appended itself.
    let again = check(&state, &in_transaction(7, 3, 0, 2));
    assert!(
        matches!(again, Err(Error::StaleProducerEpoch { .. })),
        "{again:?}"
    );
    assert!(is_out_of_order(&state, &in_transaction(7, 4, 2, 1)));
    append(&mut state, &in_transaction(7, 4, 0, 1), 3, 0);
    assert_eq!(open(&state), [Some(3)]);
    assert!(state.check_marker(&commit(7, 3)).is_err());
}

#[test]
fn what_a_cut_marker_has_ended_is_not_known_without_the_log() {
    let mut state = ProducerState::new();
    append(&mut state, &in_transaction(7, 3, 0, 2), 0, 0);
    append(&mut state, &batch(8, 0, 0, 1), 2, 0);
    end(&mut state, commit(7, 3), 3);
    append(&mut state, &batch(8, 0, 1, 1), 4, 0);
    assert!(state.clone().cut(4), "a batch of the other one");
    assert!(!state.clone().cut(3), "the marker");
    // Of one that a snapshot knows to be over.
    let path = Path::new("00000000000000000005.snapshot");
    let mut loaded = ProducerState::decode_snapshot(path, &state.encode_snapshot()).unwrap();
    end(&mut loaded, abort(7, 3), 5);
    assert!(loaded.clone().cut(6));
    assert!(!loaded.cut(5));
}

#[test]
fn an_epoch_that_was_cut_off_is_not_the_producer_s() {
    let mut state = ProducerState::new();
    // Commits of offsets, in one transaction.
    for (epoch, offset) in [(3, 0), (4, 1)] {
        let batch = in_transaction(7, epoch, -1, 1);
        state.update(&Batch::parse(&batch).unwrap(), offset, 0);
    }
    assert!(state.clone().cut(2));
    assert!(!state.cut(1), "it is of epoch 3 again");
}

#[test]
fn a_transaction_that_was_cut_off_is_not_known_without_the_log() {
    let mut state = ProducerState::new();
    append(&mut state, &batch(7, 3, 0, 2), 0, 0);
    append(&mut state, &in_transaction(7, 3, 2, 1), 2, 0);
    append(&mut state, &in_transaction(7, 3, 3, 1), 3, 0);
    let mut cut = state.clone();
    assert!(cut.cut(3));
    assert_eq!(
        (open(&cut), cut.first_open_transaction()),
        (vec![Some(2)], Some(2))
    );
    append(&mut cut, &in_transaction(7, 3, 3, 1), 3, 0);
    assert!(!state.cut(2), "whether the one before was over");
}

#[test]
fn a_snapshot_has_the_open_transactions() {
    let path = Path::new("00000000000000000009.snapshot");
    let mut state = ProducerState::new();
    append(&mut state, &in_transaction(7, 3, 0, 1), 0, 10);
    end(&mut state, commit(7, 4), 1);
    append(&mut state, &in_transaction(8, 0, 0, 1), 2, 20);
    append(&mut state, &in_transaction(9, 5, 0, 2), 3, 30);
    append(&mut state, &in_transaction(7, 4, 0, 1), 5, 40);
    end(&mut state, abort(9, 5), 6);
    let bytes = state.encode_snapshot();
    let mut loaded = ProducerState::decode_snapshot(path, &bytes).unwrap();
    assert_eq!(loaded.encode_snapshot(), bytes);
    assert_eq!(loaded.active(), state.active());
    assert_eq!(open(&loaded), [Some(5), Some(2), None]);
    assert_eq!(loaded.first_open_transaction(), Some(2));
    let stale = EndMarker {
        coordinator_epoch: 3,
        ..commit(9, 5)
    };
    assert!(loaded.check_marker(&stale).is_err());
    let plain = check(&loaded, &batch(8, 0, 1, 1));
    assert!(matches!(
        plain,
        Err(Error::TransactionIsOpen {
            first_offset: 2,
            ..
        })
    ));
    assert_eq!(end(&mut loaded, commit(8, 0), 7), None);
    assert_eq!(loaded.first_open_transaction(), Some(5));
    let aborted = end(&mut loaded, abort(7, 4), 8).expect("was open");
    assert_eq!((aborted.first_offset, aborted.last_stable_offset), (5, 9));
    // A producer of which a marker alone is known.
    let mut state = ProducerState::new();
    end(&mut state, commit(1, 2), 0);
    let loaded = ProducerState::decode_snapshot(path, &state.encode_snapshot()).unwrap();
    assert_eq!(loaded.active(), state.active());
    assert_eq!(check(&loaded, &batch(1, 2, 0, 1)).unwrap(), Decision::New);
}

#[test]
fn batches_are_taken_of_producers_that_have_not_gone_on_since() {
    let path = Path::new("00000000000000000009.snapshot");
    let appended = |batches: &[(Bytes, i64)]| {
        let mut state = ProducerState::new();
        for (batch, offset) in batches {
            append(&mut state, batch, *offset, 0);
        }
        state
    };
    let before = [
        (batch(1, 0, 0, 1), 0),
        (batch(1, 0, 1, 1), 1),
        (batch(2, 0, 0, 1), 2),
        (batch(2, 0, 1, 1), 3),
        (in_transaction(3, 0, 0, 1), 4),
        (in_transaction(3, 0, 1, 1), 5),
        (batch(4, 0, 0, 1), 6),
    ];
    let seen = appended(&before);
    let mut state = ProducerState::decode_snapshot(path, &seen.encode_snapshot()).unwrap();
    // A later epoch, and nothing of the one before is a duplicate.
    append(&mut state, &batch(2, 1, 0, 1), 7, 0);
    assert!(is_out_of_order(&state, &batch(1, 0, 0, 1)));
    state.take_batches(seen);
    assert_eq!(
        check(&state, &batch(1, 0, 0, 1)).unwrap(),
        duplicate(0, 0, 0)
    );
    assert!(matches!(
        check(&state, &batch(2, 0, 0, 1)),
        Err(Error::StaleProducerEpoch { .. })
    ));
    assert_eq!(
        check(&state, &in_transaction(3, 0, 0, 1)).unwrap(),
        duplicate(4, 4, 0)
    );
    assert_eq!(open(&state), [None, None, Some(4), None]);
    append(&mut state, &batch(1, 0, 2, 1), 8, 0);
    // Nor is another history of a producer, or one that is unknown.
    let other = appended(&[
        (batch(4, 0, 0, 1), 3),
        (batch(4, 0, 1, 1), 9),
        (batch(5, 0, 0, 1), 10),
    ]);
    state.take_batches(other);
    assert_eq!(
        check(&state, &batch(4, 0, 0, 1)).unwrap(),
        duplicate(6, 6, 0)
    );
    assert_eq!(state.len(), 4);
}

#[test]
fn a_producer_that_is_missing_is_taken_with_its_transaction() {
    let mut state = ProducerState::new();
    append(&mut state, &batch(1, 0, 0, 1), 9, 0);
    let mut other = ProducerState::new();
    append(&mut other, &in_transaction(1, 0, 0, 1), 2, 0);
    append(&mut other, &in_transaction(2, 0, 0, 1), 3, 0);
    state.add_missing(other);
    assert_eq!(open(&state), [None, Some(3)]);
    assert_eq!(state.first_open_transaction(), Some(3));
    assert_eq!(end(&mut state, commit(2, 0), 10), None);
    assert_eq!(state.first_open_transaction(), None);
}

/// Its producer had no answer, and repeats it in a transaction that it takes for the same.
#[test]
fn a_batch_of_a_transaction_that_has_ended_is_no_duplicate() {
    let mut state = ProducerState::new();
    let first = in_transaction(1, 0, 0, 2);
    append(&mut state, &first, 100, 5);
    assert_eq!(check(&state, &first).unwrap(), duplicate(100, 101, 5));
    end(&mut state, abort(1, 0), 102);
    assert!(is_out_of_order(&state, &first));
    append(&mut state, &in_transaction(1, 0, 2, 1), 103, 6);
    assert!(is_out_of_order(&state, &first));
    let again = in_transaction(1, 0, 2, 1);
    assert_eq!(check(&state, &again).unwrap(), duplicate(103, 103, 6));
}
