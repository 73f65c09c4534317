//! A typed view over the bytes of one record batch.
//!
//! [`Batch::parse`] guarantees the frame and nothing else: the magic is 2, the length field covers
//! at least a header, and the bytes that it promises are there. So every accessor is a plain read
//! that cannot fail. The CRC is *not* checked by parsing (see [`Batch::check_crc`]), and every
//! other field may hold anything.

use crate::batch::layout;
use crate::error::{Error, Result};

/// The only batch format there is: magic 2.
const MAGIC_V2: i8 = 2;
pub(super) const COMPRESSION_MASK: i16 = 0b111;
pub(super) const LOG_APPEND_TIME_BIT: i16 = 1 << 3;
pub(super) const TRANSACTIONAL_BIT: i16 = 1 << 4;
pub(super) const CONTROL_BIT: i16 = 1 << 5;
pub(super) const DELETE_HORIZON_BIT: i16 = 1 << 6;

/// How a batch's records are compressed: bits 0 to 2 of its attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// 0.
    None,
    /// 1.
    Gzip,
    /// 2.
    Snappy,
    /// 3.
    Lz4,
    /// 4.
    Zstd,
}

impl Compression {
    /// The number that attributes hold.
    pub fn id(self) -> i16 {
        match self {
            Self::None => 0,
            Self::Gzip => 1,
            Self::Snappy => 2,
            Self::Lz4 => 3,
            Self::Zstd => 4,
        }
    }
}

/// Whose clock a batch's timestamps are from: bit 3 of its attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimestampType {
    /// The producer's, record by record.
    CreateTime,
    /// The broker's at the append: every record has the batch's `max_timestamp`.
    LogAppendTime,
}

/// A view over one whole batch: a header of 61 bytes and the records.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a>(&'a [u8]);

impl<'a> Batch<'a> {
    /// The first batch in `bytes`, which may hold more after it.
    ///
    /// `CorruptBatch` where `bytes` end before the batch does or its length is impossible,
    /// `UnsupportedMagic` where it is not record batch v2.
    pub fn parse(bytes: &'a [u8]) -> Result<Self> {
        if bytes.len() <= layout::MAGIC {
            return Err(Error::CorruptBatch(format!(
                "{} bytes are no batch",
                bytes.len()
            )));
        }
        // The magic is at the same place in every format there has been; read it before anything
        // that only holds for this one.
        let magic = i8::from_be_bytes([bytes[layout::MAGIC]]);
        if magic != MAGIC_V2 {
            return Err(Error::UnsupportedMagic(magic));
        }
        let length = i32::from_be_bytes(array(bytes, layout::BATCH_LENGTH));
        let size = usize::try_from(length)
            .ok()
            .and_then(|length| length.checked_add(layout::LOG_OVERHEAD))
            .filter(|size| *size >= layout::RECORDS)
            .ok_or_else(|| Error::CorruptBatch(format!("impossible batch length {length}")))?;
        match bytes.get(..size) {
            Some(batch) => Ok(Self(batch)),
            None => Err(Error::CorruptBatch(format!(
                "truncated: {size} bytes by its length, {} are there",
                bytes.len()
            ))),
        }
    }

    /// The first record's offset.
    pub fn base_offset(&self) -> i64 {
        i64::from_be_bytes(array(self.0, layout::BASE_OFFSET))
    }

    /// Bytes after the length field.
    pub fn batch_length(&self) -> i32 {
        i32::from_be_bytes(array(self.0, layout::BATCH_LENGTH))
    }

    /// The epoch of the leader that appended the batch; -1 where none has.
    pub fn partition_leader_epoch(&self) -> i32 {
        i32::from_be_bytes(array(self.0, layout::PARTITION_LEADER_EPOCH))
    }

    /// Always 2.
    pub fn magic(&self) -> i8 {
        MAGIC_V2
    }

    /// The CRC that the header holds.
    pub fn crc(&self) -> u32 {
        u32::from_be_bytes(array(self.0, layout::CRC))
    }

    /// The bits that [`Batch::compression`] and the `is_` methods read.
    pub fn attributes(&self) -> i16 {
        i16::from_be_bytes(array(self.0, layout::ATTRIBUTES))
    }

    /// The last record's offset, from `base_offset`.
    pub fn last_offset_delta(&self) -> i32 {
        i32::from_be_bytes(array(self.0, layout::LAST_OFFSET_DELTA))
    }

    /// What the records' timestamps are relative to, milliseconds since the epoch (with
    /// [`Batch::has_delete_horizon`] set: the delete horizon).
    pub fn base_timestamp(&self) -> i64 {
        i64::from_be_bytes(array(self.0, layout::BASE_TIMESTAMP))
    }

    /// The largest timestamp, milliseconds since the epoch.
    pub fn max_timestamp(&self) -> i64 {
        i64::from_be_bytes(array(self.0, layout::MAX_TIMESTAMP))
    }

    /// -1 where there is none.
    pub fn producer_id(&self) -> i64 {
        i64::from_be_bytes(array(self.0, layout::PRODUCER_ID))
    }

    /// -1 where there is none.
    pub fn producer_epoch(&self) -> i16 {
        i16::from_be_bytes(array(self.0, layout::PRODUCER_EPOCH))
    }

    /// The first record's sequence; -1 where there is none.
    pub fn base_sequence(&self) -> i32 {
        i32::from_be_bytes(array(self.0, layout::BASE_SEQUENCE))
    }

    /// Records, as the header says.
    pub fn records_count(&self) -> i32 {
        i32::from_be_bytes(array(self.0, layout::RECORDS_COUNT))
    }

    /// The codec; `CorruptBatch` where the attributes name one that does not exist.
    pub fn compression(&self) -> Result<Compression> {
        match self.attributes() & COMPRESSION_MASK {
            0 => Ok(Compression::None),
            1 => Ok(Compression::Gzip),
            2 => Ok(Compression::Snappy),
            3 => Ok(Compression::Lz4),
            4 => Ok(Compression::Zstd),
            unknown => Err(Error::CorruptBatch(format!(
                "unknown compression codec {unknown}"
            ))),
        }
    }

    /// Whose clock the timestamps are from.
    pub fn timestamp_type(&self) -> TimestampType {
        if self.attributes() & LOG_APPEND_TIME_BIT == 0 {
            TimestampType::CreateTime
        } else {
            TimestampType::LogAppendTime
        }
    }

    /// Part of a transaction.
    pub fn is_transactional(&self) -> bool {
        self.attributes() & TRANSACTIONAL_BIT != 0
    }

    /// Transaction markers and the like.
    pub fn is_control(&self) -> bool {
        self.attributes() & CONTROL_BIT != 0
    }

    /// Compaction has set the time after which the batch's tombstones or markers may go; it is in
    /// the place of the base timestamp (KIP-534).
    pub fn has_delete_horizon(&self) -> bool {
        self.attributes() & DELETE_HORIZON_BIT != 0
    }

    /// The whole batch's size.
    pub fn size_in_bytes(&self) -> usize {
        self.0.len()
    }

    /// The last record's offset.
    pub fn last_offset(&self) -> i64 {
        self.base_offset()
            .saturating_add(i64::from(self.last_offset_delta()))
    }

    /// The offset after the batch.
    pub fn next_offset(&self) -> i64 {
        self.last_offset().saturating_add(1)
    }

    /// The last record's sequence; after 2^31 - 1 comes 0. -1 where there is none.
    pub fn last_sequence(&self) -> i32 {
        match self.base_sequence() {
            -1 => -1,
            base => add_to_sequence(base, self.last_offset_delta()),
        }
    }

    /// What follows the header, compressed as [`Batch::compression`] says.
    pub fn records_bytes(&self) -> &'a [u8] {
        &self.0[layout::RECORDS..]
    }

    /// The whole batch.
    pub fn bytes(&self) -> &'a [u8] {
        self.0
    }

    /// CRC-32C over everything after the CRC field.
    pub fn compute_crc(&self) -> u32 {
        crc32c::crc32c(&self.0[layout::CRC_COVERS_FROM..])
    }

    /// `CorruptBatch` where the header's CRC is not that of the bytes.
    pub fn check_crc(&self) -> Result<()> {
        let (stored, computed) = (self.crc(), self.compute_crc());
        if stored == computed {
            return Ok(());
        }
        Err(Error::CorruptBatch(format!(
            "crc is {stored:#010x}, of the bytes {computed:#010x}"
        )))
    }
}

/// The batches in a buffer of whole batches. An error is the last item: where the next batch
/// begins is unknown after it.
pub fn batches(bytes: &[u8]) -> impl Iterator<Item = Result<Batch<'_>>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let batch = Batch::parse(rest);
        rest = match &batch {
            Ok(batch) => &rest[batch.size_in_bytes()..],
            Err(_) => &[],
        };
        Some(batch)
    })
}

/// A batch's header with the base offset and the leader epoch of its append. The CRC covers
/// neither, so the rest of the batch goes to disk as it came.
pub fn patch_header(
    batch: &Batch<'_>,
    base_offset: i64,
    leader_epoch: i32,
) -> [u8; layout::RECORDS] {
    let mut header: [u8; layout::RECORDS] = array(batch.0, 0);
    put(&mut header, layout::BASE_OFFSET, &base_offset.to_be_bytes());
    put(
        &mut header,
        layout::PARTITION_LEADER_EPOCH,
        &leader_epoch.to_be_bytes(),
    );
    header
}

/// As [`patch_header`], for a topic with `message.timestamp.type=LogAppendTime`: the timestamp
/// type and the largest timestamp are replaced too, and the CRC recomputed.
pub fn patch_header_with_log_append_time(
    batch: &Batch<'_>,
    base_offset: i64,
    leader_epoch: i32,
    log_append_time_ms: i64,
) -> [u8; layout::RECORDS] {
    let mut header = patch_header(batch, base_offset, leader_epoch);
    let attributes = batch.attributes() | LOG_APPEND_TIME_BIT;
    put(&mut header, layout::ATTRIBUTES, &attributes.to_be_bytes());
    put(
        &mut header,
        layout::MAX_TIMESTAMP,
        &log_append_time_ms.to_be_bytes(),
    );
    let crc = crc32c::crc32c(&header[layout::CRC_COVERS_FROM..]);
    let crc = crc32c::crc32c_append(crc, batch.records_bytes());
    put(&mut header, layout::CRC, &crc.to_be_bytes());
    header
}

/// `sequence` moved on by `records`; sequences are 31 bits wide and wrap to 0.
pub(crate) fn add_to_sequence(sequence: i32, records: i32) -> i32 {
    let sum = i64::from(sequence) + i64::from(records);
    // The remainder is below 2^31, so the cast keeps it.
    sum.rem_euclid(1 << 31) as i32
}

/// `N` bytes of `bytes` at `position`; the caller knows that they are there.
fn array<const N: usize>(bytes: &[u8], position: usize) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[position..position + N]);
    array
}

fn put(header: &mut [u8; layout::RECORDS], position: usize, field: &[u8]) {
    header[position..position + field.len()].copy_from_slice(field);
}
