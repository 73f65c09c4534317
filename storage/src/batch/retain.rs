//! A stored batch with some of its records gone, as compaction leaves it.
//!
//! The records are read in place, one after the other ([`Records::each`]). What is kept is then put
//! together anew ([`Records::retaining`]), byte for byte as Kafka's `MemoryRecords.filterTo` does: base
//! offset, last offset delta, leader epoch, producer, base sequence, codec, timestamp type and the
//! transactional and control bits stay; so do each record's offset, timestamp, key, value and
//! headers. The base timestamp is the first kept record's, or the delete horizon; the largest
//! timestamp is that of the kept ones; count, length and CRC are right.
//!
//! Of a batch that is emptied only the header stays ([`emptied`]), for its offsets and its producer.

use std::borrow::Cow;
use std::ops::Range;

use crate::Offset;
use crate::batch::header::{
    Batch, COMPRESSION_MASK, Compression, DELETE_HORIZON_BIT, TimestampType,
};
use crate::batch::record_view::{Malformed, RecordView, with_timestamp_delta};
use crate::batch::records::MIN_RECORD_SIZE;
use crate::batch::validate::max_decompressed_bytes;
use crate::batch::{codec, layout};
use crate::error::{Error, Result};

/// The timestamp of a record that has none, and where none is known.
const NO_TIMESTAMP: i64 = -1;

/// The records of one batch, decompressed.
pub(crate) struct Records<'a> {
    batch: Batch<'a>,
    bytes: Cow<'a, [u8]>,
    count: usize,
    compression: Compression,
}

/// One record, in its batch's bytes.
#[derive(Debug)]
pub(crate) struct InPlace<'a> {
    pub offset: Offset,
    pub timestamp: i64,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    place: Range<usize>,
}

/// A record that is kept.
#[derive(Debug)]
pub(crate) struct Kept {
    timestamp: i64,
    /// There may be many, in less than 2 GiB.
    place: Range<u32>,
}

impl InPlace<'_> {
    /// What [`Records::retaining`] takes.
    pub fn kept(&self) -> Kept {
        Kept {
            timestamp: self.timestamp,
            place: self.place.start as u32..self.place.end as u32,
        }
    }
}

impl<'a> Records<'a> {
    /// `CorruptBatch` where the CRC is wrong, the records do not decompress within
    /// `max_decompressed_bytes`, or there can't be as many as the header says.
    pub fn open(batch: Batch<'a>, max_decompressed_bytes: usize) -> Result<Self> {
        batch.check_crc()?;
        Self::of_sound(batch, max_decompressed_bytes)
    }

    /// Opens a stored batch whose CRC was checked, which may be larger than the topic's batches are
    /// today: its records may decompress to as much as those of a batch of its size, or of
    /// `max_message_bytes` where that is larger, when it was appended.
    pub fn of_stored(batch: Batch<'a>, max_message_bytes: usize) -> Result<Self> {
        let largest = max_message_bytes.max(batch.size_in_bytes());
        Self::of_sound(batch, max_decompressed_bytes(largest))
    }

    fn of_sound(batch: Batch<'a>, max_decompressed_bytes: usize) -> Result<Self> {
        let compression = batch.compression()?;
        // An emptied batch has nothing to decompress, whatever its attributes say.
        let bytes = match compression {
            _ if batch.records_bytes().is_empty() => Cow::Borrowed(&[][..]),
            Compression::None => Cow::Borrowed(batch.records_bytes()),
            codec => Cow::Owned(codec::decompress(
                codec,
                batch.records_bytes(),
                max_decompressed_bytes,
            )?),
        };
        let count = usize::try_from(batch.records_count())
            .ok()
            .filter(|count| *count <= bytes.len() / MIN_RECORD_SIZE)
            .ok_or_else(|| {
                let (count, size) = (batch.records_count(), bytes.len());
                Error::CorruptBatch(format!("{count} records in {size} bytes"))
            })?;
        Ok(Self {
            batch,
            bytes,
            count,
            compression,
        })
    }

    /// How many there are, as the header says; [`Records::each`] checks it.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Goes over the records in order. `CorruptBatch` where one is malformed, or `visit` finds
    /// something wrong with it, or bytes follow the last one; what was visited was well formed.
    pub fn each<'b>(
        &'b self,
        mut visit: impl FnMut(InPlace<'b>) -> std::result::Result<(), &'static str>,
    ) -> Result<()> {
        let stamped = match self.batch.timestamp_type() {
            TimestampType::CreateTime => None,
            TimestampType::LogAppendTime => Some(self.batch.max_timestamp()),
        };
        let mut rest: &[u8] = &self.bytes;
        for index in 0..self.count {
            let start = self.bytes.len() - rest.len();
            self.read(&mut rest, start, stamped)
                .and_then(|record| visit(record).map_err(Malformed))
                .map_err(|Malformed(what)| {
                    let base_offset = self.batch.base_offset();
                    Error::CorruptBatch(format!(
                        "record {index} of the batch at {base_offset}: {what}"
                    ))
                })?;
        }
        if rest.is_empty() {
            return Ok(());
        }
        let left = rest.len();
        Err(Error::CorruptBatch(format!(
            "{left} bytes follow the last record"
        )))
    }

    fn read<'b>(
        &'b self,
        rest: &mut &'b [u8],
        start: usize,
        stamped: Option<i64>,
    ) -> std::result::Result<InPlace<'b>, Malformed> {
        let mut view = RecordView::read(rest)?;
        if view.offset_delta < 0 || view.offset_delta > self.batch.last_offset_delta() {
            return Err(Malformed("offset delta outside of the batch"));
        }
        while view.headers.next()?.is_some() {}
        let base_timestamp = self.batch.base_timestamp();
        let offset = i64::from(view.offset_delta).saturating_add(self.batch.base_offset());
        Ok(InPlace {
            offset,
            timestamp: stamped.unwrap_or_else(|| base_timestamp.wrapping_add(view.timestamp_delta)),
            key: view.key,
            value: view.value,
            place: start..self.bytes.len() - rest.len(),
        })
    }

    /// The batch with only `kept` records, which are of these and in their order, and at least one.
    /// With `delete_horizon_ms` it has that; else the one that it has.
    pub fn retaining(&self, kept: &[Kept], delete_horizon_ms: Option<i64>) -> Result<Vec<u8>> {
        let batch = &self.batch;
        let horizon = delete_horizon_ms
            .or_else(|| batch.has_delete_horizon().then(|| batch.base_timestamp()));
        let first = kept.first().map(|kept| kept.timestamp);
        let base_timestamp = horizon.or(first).unwrap_or(NO_TIMESTAMP);
        let max_timestamp = match batch.timestamp_type() {
            TimestampType::LogAppendTime => batch.max_timestamp(),
            TimestampType::CreateTime => kept
                .iter()
                .map(|kept| kept.timestamp)
                .fold(NO_TIMESTAMP, i64::max),
        };
        let place = |kept: &Kept| kept.place.start as usize..kept.place.end as usize;
        let kept_bytes: usize = kept.iter().map(|kept| place(kept).len()).sum();
        let mut records = Vec::with_capacity(layout::RECORDS + kept_bytes);
        records.extend_from_slice(&batch.bytes()[..layout::RECORDS]);
        for kept in kept {
            let delta = kept.timestamp.wrapping_sub(base_timestamp);
            let record = self.bytes.get(place(kept)).unwrap_or_default();
            with_timestamp_delta(record, delta, &mut records).map_err(|Malformed(what)| {
                Error::CorruptBatch(format!("the batch at {}: {what}", batch.base_offset()))
            })?;
        }
        if self.compression != Compression::None {
            let compressed = codec::compress(self.compression, None, &records[layout::RECORDS..])
                .map_err(|error| Error::io("compress", "a record batch", &error))?;
            records.truncate(layout::RECORDS);
            records.extend_from_slice(&compressed);
        }
        let mut attributes = batch.attributes() & !DELETE_HORIZON_BIT;
        if horizon.is_some() {
            attributes |= DELETE_HORIZON_BIT;
        }
        let times = (base_timestamp, max_timestamp);
        finished(records, attributes, times, kept.len())
    }
}

/// The header of `batch` without its records. A delete horizon goes with them.
pub(crate) fn emptied(batch: &Batch<'_>) -> Result<Vec<u8>> {
    let header = batch.bytes()[..layout::RECORDS].to_vec();
    let attributes = batch.attributes() & !(COMPRESSION_MASK | DELETE_HORIZON_BIT);
    finished(header, attributes, (NO_TIMESTAMP, batch.max_timestamp()), 0)
}

fn finished(
    mut bytes: Vec<u8>,
    attributes: i16,
    (base_timestamp, max_timestamp): (i64, i64),
    count: usize,
) -> Result<Vec<u8>> {
    let size = bytes.len();
    let (length, count) = i32::try_from(size - layout::LOG_OVERHEAD)
        .and_then(|length| Ok((length, i32::try_from(count)?)))
        .map_err(|_| Error::InvalidRecord(format!("a batch cannot have {size} bytes")))?;
    let mut put = |position: usize, field: &[u8]| {
        bytes[position..position + field.len()].copy_from_slice(field);
    };
    put(layout::BATCH_LENGTH, &length.to_be_bytes());
    put(layout::ATTRIBUTES, &attributes.to_be_bytes());
    put(layout::BASE_TIMESTAMP, &base_timestamp.to_be_bytes());
    put(layout::MAX_TIMESTAMP, &max_timestamp.to_be_bytes());
    put(layout::RECORDS_COUNT, &count.to_be_bytes());
    let crc = crc32c::crc32c(&bytes[layout::CRC_COVERS_FROM..]);
    bytes[layout::CRC..layout::ATTRIBUTES].copy_from_slice(&crc.to_be_bytes());
    Ok(bytes)
}
