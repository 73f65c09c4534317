//! What a client's batch must satisfy before it is stored.
//!
//! Guaranteed of a batch that passes: it is the only one in its bytes and within the topic's size;
//! its CRC is right; it holds at least one record, and exactly as many as its offsets span; it is no
//! control batch; uncompressed records are well formed to the last byte and count their offsets up
//! from 0. Compressed records are *not* opened, except on compacted topics, where every record
//! needs a key, and where they are stored in another codec: a reader that opens a bad one fails that
//! batch alone. Timestamps are within the topic's bounds: of every record that is looked at, else the
//! header's first and largest.
//!
//! Damage is `CorruptBatch` (a client may send again), what is intact but wrong `InvalidRecord`:
//! records that do not decompress, too, where the CRC is right.
//!
//! Opening takes at most [`MAX_DECOMPRESSION_RATIO`] times `max.message.bytes`, and never 2 GiB.

use std::ops::RangeInclusive;

use crate::batch::header::Batch;
use crate::batch::record_view::{Malformed, RecordView};
use crate::batch::{Compression, codec};
use crate::error::{Error, Result};

/// Decompressed records may be this many times `max.message.bytes` where a batch has to be opened.
/// Clients bound what they compress by about the same setting, so that real ones stay near 1.
pub const MAX_DECOMPRESSION_RATIO: usize = 64;

/// The timestamp of a record that has none.
const NO_TIMESTAMP: i64 = -1;

/// The limits that a topic sets.
#[derive(Clone, Debug)]
pub struct Limits {
    /// `max.message.bytes`.
    pub max_message_bytes: usize,
    /// The topic is compacted: every record needs a key.
    pub require_keys: bool,
    /// What timestamps of producers are taken; a record that has none passes.
    pub timestamps: RangeInclusive<i64>,
}

impl Limits {
    fn check_timestamp(&self, timestamp: i64, index: Option<i32>) -> Result<()> {
        if timestamp == NO_TIMESTAMP || self.timestamps.contains(&timestamp) {
            return Ok(());
        }
        Err(Error::InvalidTimestamp {
            index,
            timestamp,
            earliest: *self.timestamps.start(),
            latest: *self.timestamps.end(),
        })
    }
}

/// What was found out about a batch besides that it is sound.
#[derive(Debug)]
pub(crate) struct Checked<'a> {
    /// The batch.
    pub batch: Batch<'a>,
    /// Its records, where they are compressed and had to be opened.
    pub decompressed: Option<Vec<u8>>,
    /// The largest timestamp of the records, where they were looked at: the header may have another.
    pub max_timestamp: Option<i64>,
}

/// Checks that `bytes` are exactly one sound batch.
pub fn validate_client_batch(bytes: &[u8], limits: &Limits) -> Result<()> {
    check_client_batch(bytes, limits, false).map(drop)
}

/// As [`validate_client_batch`]; with `open`, compressed records are looked at on every topic.
pub(crate) fn check_client_batch<'a>(
    bytes: &'a [u8],
    limits: &Limits,
    open: bool,
) -> Result<Checked<'a>> {
    let batch = Batch::parse(bytes)?;
    if batch.size_in_bytes() != bytes.len() {
        return Err(Error::InvalidRecord(format!(
            "one record batch is allowed, {} bytes follow the first",
            bytes.len() - batch.size_in_bytes()
        )));
    }
    if bytes.len() > limits.max_message_bytes {
        return Err(Error::BatchTooLarge {
            size: bytes.len(),
            limit: limits.max_message_bytes,
        });
    }
    batch.check_crc()?;
    check_header(&batch)?;
    let (mut decompressed, mut max_timestamp) = (None, None);
    match batch.compression()? {
        Compression::None => {
            max_timestamp = Some(check_records(&batch, batch.records_bytes(), limits)?);
        }
        compression if limits.require_keys || open => {
            let records = decompress(&batch, compression, limits)?;
            max_timestamp = Some(check_records(&batch, &records, limits)?);
            decompressed = Some(records);
        }
        _ => {
            limits.check_timestamp(batch.base_timestamp(), Some(0))?;
            limits.check_timestamp(batch.max_timestamp(), None)?;
        }
    }
    Ok(Checked {
        batch,
        decompressed,
        max_timestamp,
    })
}

/// What the records of a batch may take decompressed where batches of `max_message_bytes` are allowed.
pub(crate) fn max_decompressed_bytes(max_message_bytes: usize) -> usize {
    max_message_bytes
        .saturating_mul(MAX_DECOMPRESSION_RATIO)
        .min(i32::MAX as usize)
}

fn decompress(batch: &Batch<'_>, compression: Compression, limits: &Limits) -> Result<Vec<u8>> {
    let max_bytes = max_decompressed_bytes(limits.max_message_bytes);
    codec::decompress(compression, batch.records_bytes(), max_bytes).map_err(|error| match error {
        // The CRC is right: it would be no better if it was sent again.
        Error::CorruptBatch(reason) => Error::InvalidRecord(reason),
        other => other,
    })
}

fn check_header(batch: &Batch<'_>) -> Result<()> {
    let (count, last_offset_delta) = (batch.records_count(), batch.last_offset_delta());
    let problem = if batch.is_control() {
        "clients may not write control batches".to_owned()
    } else if batch.base_offset() != 0 {
        format!("base offset is {}, clients send 0", batch.base_offset())
    } else if count < 1 {
        format!("{count} records in a batch")
    } else if last_offset_delta != count - 1 {
        format!("{count} records do not end at offset delta {last_offset_delta}")
    } else if batch.has_delete_horizon() {
        "only compaction sets a delete horizon".to_owned()
    } else {
        return check_producer(batch);
    };
    Err(Error::InvalidRecord(problem))
}

fn check_producer(batch: &Batch<'_>) -> Result<()> {
    let (id, epoch, sequence) = (
        batch.producer_id(),
        batch.producer_epoch(),
        batch.base_sequence(),
    );
    let sound = if id < 0 {
        !batch.is_transactional()
    } else {
        epoch >= 0 && sequence >= 0
    };
    if sound {
        return Ok(());
    }
    Err(Error::InvalidRecord(format!(
        "producer id {id}, epoch {epoch} and sequence {sequence} do not go together"
    )))
}

/// Walks uncompressed `records`, which must be what `batch` says and nothing more. Returns the
/// largest timestamp.
fn check_records(batch: &Batch<'_>, mut records: &[u8], limits: &Limits) -> Result<i64> {
    let mut max_timestamp = NO_TIMESTAMP;
    for index in 0..batch.records_count() {
        let timestamp_delta =
            check_record(&mut records, index, limits.require_keys).map_err(|Malformed(what)| {
                Error::InvalidRecordAt {
                    index,
                    reason: what.to_owned(),
                }
            })?;
        let timestamp = batch.base_timestamp().wrapping_add(timestamp_delta);
        limits.check_timestamp(timestamp, Some(index))?;
        max_timestamp = max_timestamp.max(timestamp);
    }
    if records.is_empty() {
        return Ok(max_timestamp);
    }
    Err(Error::InvalidRecord(format!(
        "{} bytes follow the last record",
        records.len()
    )))
}

/// Returns the record's timestamp delta.
fn check_record(
    records: &mut &[u8],
    index: i32,
    require_keys: bool,
) -> std::result::Result<i64, Malformed> {
    let mut record = RecordView::read(records)?;
    if record.offset_delta != index {
        return Err(Malformed("offset delta is not the record's index"));
    }
    if require_keys && record.key.is_none() {
        return Err(Malformed("no key, and the topic is compacted"));
    }
    while record.headers.next()?.is_some() {}
    Ok(record.timestamp_delta)
}
