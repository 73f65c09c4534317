//! Batches as they are in a log, for the tests.

use bytes::Bytes;

use crate::Offset;
use crate::batch::{Batch, BatchBuilder, Compression, Record, decode, layout};

pub(super) const CODECS: [Compression; 5] = [
    Compression::None,
    Compression::Gzip,
    Compression::Snappy,
    Compression::Lz4,
    Compression::Zstd,
];

const LOG_APPEND_TIME: i16 = 1 << 3;
const TRANSACTIONAL: i16 = 1 << 4;
const CONTROL: i16 = 1 << 5;

/// Timestamp, key, value.
pub(super) type Plain<'a> = (i64, Option<&'a str>, Option<&'a str>);

/// `records` at `base_offset` and on, by no producer.
pub(super) fn plain(base_offset: Offset, compression: Compression, records: &[Plain<'_>]) -> Bytes {
    by(-1, base_offset, compression, records)
}

/// As [`plain`], by a producer of epoch 3 whose sequences are its offsets.
pub(super) fn by(
    producer_id: i64,
    base_offset: Offset,
    compression: Compression,
    records: &[Plain<'_>],
) -> Bytes {
    let mut builder = BatchBuilder::new(compression);
    if producer_id >= 0 {
        builder = builder.producer(producer_id, 3, base_offset as i32);
    }
    for (timestamp, key, value) in records {
        let (key, value) = (key.map(str::as_bytes), value.map(str::as_bytes));
        builder.push(*timestamp, key, value, &[]);
    }
    changed(&builder.build(), |bytes| {
        bytes[..8].copy_from_slice(&base_offset.to_be_bytes());
        bytes[layout::PARTITION_LEADER_EPOCH..layout::MAGIC].copy_from_slice(&5i32.to_be_bytes());
    })
}

/// Part of a transaction.
pub(super) fn transactional(batch: &Bytes) -> Bytes {
    with_attributes(batch, TRANSACTIONAL)
}

/// Stamped by the broker with the largest timestamp.
pub(super) fn log_append_time(batch: &Bytes) -> Bytes {
    with_attributes(batch, LOG_APPEND_TIME)
}

/// A control batch of one record; kind 0 is an abort, 1 a commit.
pub(super) fn marker(producer_id: i64, offset: Offset, kind: i16) -> Bytes {
    let [high, low] = kind.to_be_bytes();
    let mut builder = BatchBuilder::new(Compression::None).producer(producer_id, 3, -1);
    builder.push(offset, Some(&[0, 0, high, low]), Some(&[0; 6]), &[]);
    let batch = changed(&builder.build(), |bytes| {
        bytes[..8].copy_from_slice(&offset.to_be_bytes());
    });
    with_attributes(&batch, TRANSACTIONAL | CONTROL)
}

fn with_attributes(batch: &Bytes, more: i16) -> Bytes {
    let attributes = parse(batch).attributes() | more;
    changed(batch, |bytes| {
        bytes[layout::ATTRIBUTES..layout::LAST_OFFSET_DELTA]
            .copy_from_slice(&attributes.to_be_bytes());
    })
}

/// `batch` after `change`, with the CRC that is right then.
pub(super) fn changed(batch: &Bytes, change: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    let mut bytes = batch.to_vec();
    change(&mut bytes);
    let crc = crc32c::crc32c(&bytes[layout::CRC_COVERS_FROM..]);
    bytes[layout::CRC..layout::ATTRIBUTES].copy_from_slice(&crc.to_be_bytes());
    Bytes::from(bytes)
}

pub(super) fn parse(batch: &[u8]) -> Batch<'_> {
    Batch::parse(batch).expect("a batch")
}

/// The records as a reader gets them.
pub(super) fn records(batch: &[u8]) -> Vec<Record> {
    decode(&Bytes::copy_from_slice(batch), 1 << 20).expect("sound records")
}
