//! Iterating and building the records of a batch, in every codec.

use bytes::Bytes;

use crate::batch::codec;
use crate::batch::header::{Batch, Compression, TimestampType};
use crate::batch::layout;
use crate::batch::record_view::{Malformed, RecordView, varlong_size, write_varlong};
use crate::error::{Error, Result};

/// What a record takes at the least: seven varints and bytes of its own, each of one byte.
const MIN_RECORD_SIZE: usize = 7;
/// Headers to make room for on a count's word alone; a header takes two bytes in a batch and 64 in
/// memory.
const MAX_RESERVED_HEADERS: usize = 64;

/// A record's header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// UTF-8 by the protocol, kept as bytes.
    pub key: Bytes,
    /// May be null.
    pub value: Option<Bytes>,
}

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its offset.
    pub offset: i64,
    /// Milliseconds since the epoch.
    pub timestamp: i64,
    /// May be null.
    pub key: Option<Bytes>,
    /// May be null.
    pub value: Option<Bytes>,
    /// In order, duplicates allowed.
    pub headers: Vec<Header>,
}

/// Every record of one batch. Keys, values and headers are slices of `batch`, or of one buffer of
/// at most `max_decompressed_bytes`.
///
/// `CorruptBatch` where the CRC is wrong, the records do not decompress within
/// `max_decompressed_bytes`, or they are not what the header says.
pub fn decode(batch: &Bytes, max_decompressed_bytes: usize) -> Result<Vec<Record>> {
    let view = Batch::parse(batch)?;
    view.check_crc()?;
    let records = match view.compression()? {
        Compression::None => batch.slice_ref(view.records_bytes()),
        compression => {
            let compressed = view.records_bytes();
            Bytes::from(codec::decompress(
                compression,
                compressed,
                max_decompressed_bytes,
            )?)
        }
    };
    decode_records(&view, &records)
}

fn decode_records(view: &Batch<'_>, bytes: &Bytes) -> Result<Vec<Record>> {
    // A batch that compaction emptied has no records.
    let count = usize::try_from(view.records_count())
        .ok()
        .filter(|count| *count <= bytes.len() / MIN_RECORD_SIZE)
        .ok_or_else(|| {
            let count = view.records_count();
            Error::CorruptBatch(format!("{count} records in {} bytes", bytes.len()))
        })?;
    let mut records = Vec::with_capacity(count);
    let mut rest: &[u8] = bytes;
    for index in 0..count {
        let record = decode_record(view, bytes, &mut rest).map_err(|Malformed(what)| {
            let base_offset = view.base_offset();
            Error::CorruptBatch(format!(
                "record {index} of the batch at {base_offset}: {what}"
            ))
        })?;
        records.push(record);
    }
    if !rest.is_empty() {
        return Err(Error::CorruptBatch(format!(
            "{} bytes follow the last record",
            rest.len()
        )));
    }
    Ok(records)
}

fn decode_record<'a>(
    view: &Batch<'_>,
    bytes: &'a Bytes,
    rest: &mut &'a [u8],
) -> std::result::Result<Record, Malformed> {
    let mut record = RecordView::read(rest)?;
    if record.offset_delta < 0 || record.offset_delta > view.last_offset_delta() {
        return Err(Malformed("offset delta outside of the batch"));
    }
    let timestamp = match view.timestamp_type() {
        TimestampType::CreateTime => view.base_timestamp().wrapping_add(record.timestamp_delta),
        TimestampType::LogAppendTime => view.max_timestamp(),
    };
    let mut headers = Vec::with_capacity(record.headers.remaining().min(MAX_RESERVED_HEADERS));
    while let Some((key, value)) = record.headers.next()? {
        headers.push(Header {
            key: bytes.slice_ref(key),
            value: value.map(|value| bytes.slice_ref(value)),
        });
    }
    Ok(Record {
        offset: view
            .base_offset()
            .saturating_add(i64::from(record.offset_delta)),
        timestamp,
        key: record.key.map(|key| bytes.slice_ref(key)),
        value: record.value.map(|value| bytes.slice_ref(value)),
        headers,
    })
}

/// Builds one batch.
///
/// A batch's size is an int32, so that what is pushed must stay well below 2 GiB; callers bound it
/// by [`BatchBuilder::size_in_bytes`].
#[derive(Debug)]
pub struct BatchBuilder {
    compression: Compression,
    producer_id: i64,
    producer_epoch: i16,
    base_sequence: i32,
    base_timestamp: i64,
    max_timestamp: i64,
    count: i32,
    /// Room for the header, then the records as they come.
    bytes: Vec<u8>,
}

impl BatchBuilder {
    /// An empty batch.
    pub fn new(compression: Compression) -> Self {
        Self {
            compression,
            producer_id: -1,
            producer_epoch: -1,
            base_sequence: -1,
            base_timestamp: -1,
            max_timestamp: -1,
            count: 0,
            bytes: vec![0; layout::RECORDS],
        }
    }

    /// Stamps a producer.
    pub fn producer(mut self, producer_id: i64, producer_epoch: i16, base_sequence: i32) -> Self {
        self.producer_id = producer_id;
        self.producer_epoch = producer_epoch;
        self.base_sequence = base_sequence;
        self
    }

    /// Adds a record.
    pub fn push(
        &mut self,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[Header],
    ) {
        if self.count == 0 {
            self.base_timestamp = timestamp;
            self.max_timestamp = timestamp;
        }
        self.max_timestamp = self.max_timestamp.max(timestamp);
        let timestamp_delta = timestamp.wrapping_sub(self.base_timestamp);
        let offset_delta = i64::from(self.count);
        self.count += 1;

        let length = 1
            + varlong_size(timestamp_delta)
            + varlong_size(offset_delta)
            + nullable_size(key)
            + nullable_size(value)
            + varlong_size(headers.len() as i64)
            + headers.iter().map(header_size).sum::<usize>();
        let out = &mut self.bytes;
        out.reserve(length + varlong_size(length as i64));
        write_varlong(out, length as i64);
        out.push(0);
        write_varlong(out, timestamp_delta);
        write_varlong(out, offset_delta);
        write_nullable(out, key);
        write_nullable(out, value);
        write_varlong(out, headers.len() as i64);
        for header in headers {
            write_nullable(out, Some(&header.key));
            write_nullable(out, header.value.as_deref());
        }
    }

    /// Records so far.
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// No records so far.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Size so far, before compression.
    pub fn size_in_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The batch: base offset 0, leader epoch -1, CRC set. An empty one is a caller's bug.
    pub fn build(self) -> Bytes {
        debug_assert!(self.count > 0, "a batch has at least one record");
        let (compression, mut bytes) = compressed(self.compression, self.bytes);
        debug_assert!(i32::try_from(bytes.len()).is_ok(), "a batch is below 2 GiB");
        let batch_length = (bytes.len() - layout::LOG_OVERHEAD) as i32;
        let mut put = |position: usize, field: &[u8]| {
            bytes[position..position + field.len()].copy_from_slice(field);
        };
        put(layout::BATCH_LENGTH, &batch_length.to_be_bytes());
        put(layout::PARTITION_LEADER_EPOCH, &(-1i32).to_be_bytes());
        put(layout::MAGIC, &2i8.to_be_bytes());
        put(layout::ATTRIBUTES, &compression.id().to_be_bytes());
        put(layout::LAST_OFFSET_DELTA, &(self.count - 1).to_be_bytes());
        put(layout::BASE_TIMESTAMP, &self.base_timestamp.to_be_bytes());
        put(layout::MAX_TIMESTAMP, &self.max_timestamp.to_be_bytes());
        put(layout::PRODUCER_ID, &self.producer_id.to_be_bytes());
        put(layout::PRODUCER_EPOCH, &self.producer_epoch.to_be_bytes());
        put(layout::BASE_SEQUENCE, &self.base_sequence.to_be_bytes());
        put(layout::RECORDS_COUNT, &self.count.to_be_bytes());
        let crc = crc32c::crc32c(&bytes[layout::CRC_COVERS_FROM..]);
        bytes[layout::CRC..layout::ATTRIBUTES].copy_from_slice(&crc.to_be_bytes());
        Bytes::from(bytes)
    }
}

/// Compresses what follows the header's place in `bytes`. Where a codec fails, which it does only
/// for want of memory, the records stay as they are: that is a sound batch too.
fn compressed(compression: Compression, bytes: Vec<u8>) -> (Compression, Vec<u8>) {
    if compression == Compression::None {
        return (Compression::None, bytes);
    }
    let Ok(records) = codec::compress(compression, &bytes[layout::RECORDS..]) else {
        return (Compression::None, bytes);
    };
    let mut batch = bytes;
    batch.truncate(layout::RECORDS);
    batch.extend_from_slice(&records);
    (compression, batch)
}

fn header_size(header: &Header) -> usize {
    nullable_size(Some(&header.key)) + nullable_size(header.value.as_deref())
}

fn nullable_size(bytes: Option<&[u8]>) -> usize {
    match bytes {
        Some(bytes) => varlong_size(bytes.len() as i64) + bytes.len(),
        None => varlong_size(-1),
    }
}

fn write_nullable(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        Some(bytes) => {
            write_varlong(out, bytes.len() as i64);
            out.extend_from_slice(bytes);
        }
        None => write_varlong(out, -1),
    }
}
