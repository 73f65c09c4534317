//! Idempotence: which batches are new, duplicates, out of order or of a stale epoch.

use std::path::Path;

use bytes::Bytes;
use storage::Error;
use storage::batch::{Batch, BatchBuilder, Compression, layout};
use storage::producer_state::{Decision, ProducerState};

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

/// `batch` with these attributes: nobody looks at its CRC here.
fn with_attributes(batch: &Bytes, attributes: i16) -> Bytes {
    let mut bytes = batch.to_vec();
    bytes[layout::ATTRIBUTES..layout::ATTRIBUTES + 2].copy_from_slice(&attributes.to_be_bytes());
    bytes.into()
}

#[test]
fn a_transaction_is_open_from_its_first_batch_to_its_marker() {
    const TRANSACTIONAL: i16 = 1 << 4;
    const MARKER: i16 = TRANSACTIONAL | 1 << 5;
    let mut state = ProducerState::new();
    let open = |state: &ProducerState| state.active()[0].current_txn_first_offset;
    append(&mut state, &batch(7, 3, 0, 2), 10, 0);
    assert_eq!(open(&state), None);
    append(
        &mut state,
        &with_attributes(&batch(7, 3, 2, 2), TRANSACTIONAL),
        12,
        0,
    );
    append(
        &mut state,
        &with_attributes(&batch(7, 3, 4, 2), TRANSACTIONAL),
        14,
        0,
    );
    assert_eq!(open(&state), Some(12));
    assert_eq!(state.remove_expired(DAY_MS, 1), 0, "an open one is kept");
    let marker = with_attributes(&batch(7, 4, 0, 1), MARKER);
    state.update(&Batch::parse(&marker).unwrap(), 16, 0);
    assert_eq!(open(&state), None);
    assert_eq!(
        (state.active()[0].epoch, state.active()[0].last_sequence),
        (4, -1)
    );
    let late = check(&state, &batch(7, 3, 6, 1));
    assert!(matches!(late, Err(Error::StaleProducerEpoch { .. })));
    append(&mut state, &batch(7, 4, 0, 1), 17, 0);
}
