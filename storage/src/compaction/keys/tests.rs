//! One batch after the other into a map.

use bytes::Bytes;

use super::*;
use crate::batch::Compression;
use crate::compaction::test_batches::{CODECS, by, changed, marker, parse, plain, transactional};
use crate::error::Error;

const MAX: usize = 1 << 14;

fn map_of(keys: usize) -> OffsetMap {
    OffsetMap::new(24 * 2 * keys, 0.5)
}

fn put(batch: &Bytes, from: Offset, map: &mut OffsetMap) -> Result<Mapped, Refused> {
    map_keys(&parse(batch), from, MAX, &Transactions::default(), map)
}

#[test]
fn keys_of_dirty_records_are_mapped_in_every_codec() {
    for codec in CODECS {
        let records = [
            (5, Some("a"), Some("1")),
            (6, Some("b"), None),
            (7, None, Some("3")),
            (8, Some("a"), Some("4")),
            (9, Some(""), Some("5")),
        ];
        let batch = plain(100, codec, &records);
        let mut map = map_of(10);
        let mapped = put(&batch, 101, &mut map).unwrap();
        assert_eq!((mapped.records_read, mapped.is_full), (5, false));
        assert_eq!(map.len(), 3);
        let found = |key: &str| map.get(key.as_bytes());
        assert_eq!(
            (found("a"), found("b"), found(""), map.latest_offset()),
            (Some(103), Some(101), Some(104), 104)
        );
    }
}

#[test]
fn a_batch_below_the_dirty_part_changes_nothing() {
    let mut map = map_of(10);
    let batch = plain(
        0,
        Compression::None,
        &[(0, Some("a"), None), (0, Some("b"), None)],
    );
    put(&batch, 2, &mut map).unwrap();
    assert_eq!((map.len(), map.latest_offset()), (0, -1));
}

#[test]
fn a_full_map_ends_before_the_first_key_without_room() {
    let records = [
        (0, Some("a"), Some("0")),
        (0, Some("b"), Some("1")),
        (0, Some("a"), Some("2")),
        (0, Some("c"), Some("3")),
        (0, Some("a"), Some("4")),
    ];
    let batch = plain(10, Compression::Lz4, &records);
    let mut map = map_of(2);
    assert!(put(&batch, 0, &mut map).unwrap().is_full);
    assert_eq!((map.len(), map.latest_offset()), (2, 12));
    assert_eq!(map.get(b"a"), Some(12));
}

#[test]
fn nothing_of_a_damaged_batch_is_mapped() {
    let records = [(0, Some("a"), Some("0")), (0, Some("b"), Some("1"))];
    let sound = plain(0, Compression::None, &records);
    let mut wrong_crc = sound.to_vec();
    *wrong_crc.last_mut().unwrap() ^= 1;
    // One byte more than the records have, though the CRC is right.
    let left_over = changed(&sound, |bytes| {
        bytes.push(0);
        let length = (bytes.len() - 12) as i32;
        bytes[8..12].copy_from_slice(&length.to_be_bytes());
    });
    for batch in [Bytes::from(wrong_crc), left_over] {
        let mut map = map_of(10);
        let refused = put(&batch, 0, &mut map).unwrap_err();
        assert!(
            matches!(refused, Refused::Damaged(Error::CorruptBatch(_))),
            "{refused:?}"
        );
        assert_eq!((map.len(), map.latest_offset()), (0, -1));
    }
}

#[test]
fn aborted_batches_and_markers_hide_nothing() {
    let record = [(0, Some("a"), Some("0"))];
    let log = [
        plain(0, Compression::None, &record),
        transactional(&by(1, 1, Compression::Zstd, &record)),
        marker(1, 2, 0),
        transactional(&by(1, 3, Compression::Zstd, &[(0, Some("b"), None)])),
        marker(1, 4, 1),
    ];
    let mut transactions = Transactions::default();
    let mut map = map_of(10);
    for at in [1, 2] {
        let refused = map_keys(&parse(&log[at]), 0, MAX, &transactions, &mut map);
        assert!(matches!(refused, Err(Refused::TransactionsUnknown)));
    }
    for batch in &log {
        transactions.learn(&parse(batch));
    }
    transactions.learnt();
    for batch in &log {
        assert!(
            !map_keys(&parse(batch), 0, MAX, &transactions, &mut map)
                .unwrap()
                .is_full
        );
    }
    assert_eq!((map.len(), map.latest_offset()), (2, 4));
    assert_eq!((map.get(b"a"), map.get(b"b")), (Some(0), Some(3)));
}
