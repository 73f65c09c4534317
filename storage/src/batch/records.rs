//! Iterating and building the records of a batch, in every codec.

use bytes::Bytes;

use crate::batch::codec;
use crate::batch::header::{Batch, CONTROL_BIT, Compression, TRANSACTIONAL_BIT, TimestampType};
use crate::batch::layout;
use crate::batch::record_view::{Malformed, RecordView, varlong_size, write_varlong};
use crate::error::{Error, Result};

/// What a record takes at the least: seven varints and bytes of its own, each of one byte.
pub(super) const MIN_RECORD_SIZE: usize = 7;
/// Headers to make room for on a count's word alone; a header takes two bytes in a batch and 64 in
/// memory.
const MAX_RESERVED_HEADERS: usize = 64;
/// Records to make room for on a count's word alone.
const MAX_RESERVED_RECORDS: usize = 1024;

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

/// Every record of one batch: [`Opened`], all of it.
pub fn decode(batch: &Bytes, max_decompressed_bytes: usize) -> Result<Vec<Record>> {
    let opened = Opened::open(batch, max_decompressed_bytes)?;
    // A count that is plausible only; in memory a record takes many times its least bytes.
    let mut records = Vec::with_capacity(opened.count.min(MAX_RESERVED_RECORDS));
    for record in opened.records() {
        records.push(record?);
    }
    Ok(records)
}

/// A batch whose records are decompressed, to be read one by one: who does not keep them takes no
/// more memory than the opened bytes and one record.
///
/// Keys, values and headers are slices of the batch, or of one buffer of at most
/// `max_decompressed_bytes`.
#[derive(Clone, Debug)]
pub struct Opened {
    bytes: Bytes,
    count: usize,
    base_offset: i64,
    last_offset_delta: i32,
    base_timestamp: i64,
    /// That of every record, where the log stamps it.
    log_append_time: Option<i64>,
}

impl Opened {
    /// `CorruptBatch` where the CRC is wrong, the records do not decompress within
    /// `max_decompressed_bytes`, or there can't be as many as the header says.
    pub fn open(batch: &Bytes, max_decompressed_bytes: usize) -> Result<Self> {
        let view = Batch::parse(batch)?;
        view.check_crc()?;
        let bytes = match view.compression()? {
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
        // A batch that compaction emptied has no records.
        let count = usize::try_from(view.records_count())
            .ok()
            .filter(|count| *count <= bytes.len() / MIN_RECORD_SIZE)
            .ok_or_else(|| {
                let count = view.records_count();
                Error::CorruptBatch(format!("{count} records in {} bytes", bytes.len()))
            })?;
        Ok(Self {
            bytes,
            count,
            base_offset: view.base_offset(),
            last_offset_delta: view.last_offset_delta(),
            base_timestamp: view.base_timestamp(),
            log_append_time: match view.timestamp_type() {
                TimestampType::CreateTime => None,
                TimestampType::LogAppendTime => Some(view.max_timestamp()),
            },
        })
    }

    /// The records in order. `CorruptBatch`, once and last, where one is malformed or bytes follow
    /// the last one.
    pub fn records(&self) -> impl Iterator<Item = Result<Record>> {
        self.each(|bytes, view| self.record(bytes, view))
    }

    /// The records' timestamps and offsets, in order; nothing is allocated for a record. Errors as
    /// [`Opened::records`].
    pub fn times(&self) -> impl Iterator<Item = Result<(i64, i64)>> {
        self.each(|_, mut view| {
            let time = (self.timestamp(&view), self.offset(&view)?);
            while view.headers.next()?.is_some() {}
            Ok(time)
        })
    }

    /// That every record is well formed, without keeping any.
    pub fn check(&self) -> Result<()> {
        self.times().try_for_each(|time| time.map(drop))
    }

    fn each<'a, T>(
        &'a self,
        read: impl Fn(&'a Bytes, RecordView<'a>) -> std::result::Result<T, Malformed> + 'a,
    ) -> impl Iterator<Item = Result<T>> + 'a {
        let mut rest: &[u8] = &self.bytes;
        let mut index = 0;
        let mut ended = false;
        std::iter::from_fn(move || {
            if ended {
                return None;
            }
            if index == self.count {
                ended = true;
                let left = rest.len();
                let message = || format!("{left} bytes follow the last record");
                return (left > 0).then(|| Err(Error::CorruptBatch(message())));
            }
            let item = RecordView::read(&mut rest).and_then(|view| read(&self.bytes, view));
            ended = item.is_err();
            index += 1;
            Some(item.map_err(|Malformed(what)| {
                let (index, base_offset) = (index - 1, self.base_offset);
                Error::CorruptBatch(format!(
                    "record {index} of the batch at {base_offset}: {what}"
                ))
            }))
        })
    }

    fn record(
        &self,
        bytes: &Bytes,
        mut view: RecordView<'_>,
    ) -> std::result::Result<Record, Malformed> {
        let (timestamp, offset) = (self.timestamp(&view), self.offset(&view)?);
        let mut headers = Vec::with_capacity(view.headers.remaining().min(MAX_RESERVED_HEADERS));
        while let Some((key, value)) = view.headers.next()? {
            headers.push(Header {
                key: bytes.slice_ref(key),
                value: value.map(|value| bytes.slice_ref(value)),
            });
        }
        Ok(Record {
            offset,
            timestamp,
            key: view.key.map(|key| bytes.slice_ref(key)),
            value: view.value.map(|value| bytes.slice_ref(value)),
            headers,
        })
    }

    fn timestamp(&self, view: &RecordView<'_>) -> i64 {
        self.log_append_time
            .unwrap_or_else(|| self.base_timestamp.wrapping_add(view.timestamp_delta))
    }

    fn offset(&self, view: &RecordView<'_>) -> std::result::Result<i64, Malformed> {
        if view.offset_delta < 0 || view.offset_delta > self.last_offset_delta {
            return Err(Malformed("offset delta outside of the batch"));
        }
        Ok(self
            .base_offset
            .saturating_add(i64::from(view.offset_delta)))
    }
}

/// Headers in the form that they have in a record, for records that share them.
#[derive(Clone, Debug, Default)]
pub struct EncodedHeaders {
    count: usize,
    bytes: Vec<u8>,
}

impl EncodedHeaders {
    /// No headers.
    pub const NONE: Self = Self {
        count: 0,
        bytes: Vec::new(),
    };

    /// Of keys and values.
    pub fn new<'h>(headers: impl Iterator<Item = (&'h [u8], Option<&'h [u8]>)>) -> Self {
        let mut encoded = Self::NONE;
        for (key, value) in headers {
            write_header(&mut encoded.bytes, key, value);
            encoded.count += 1;
        }
        encoded
    }
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
    /// Besides the codec's bits.
    attributes: i16,
    base_timestamp: i64,
    max_timestamp: i64,
    count: i32,
    /// Room for the header, then the records as they come.
    bytes: Vec<u8>,
}

impl BatchBuilder {
    /// An empty batch.
    pub fn new(compression: Compression) -> Self {
        Self::with_capacity(compression, 0)
    }

    /// An empty batch, with room for so many bytes of records, uncompressed.
    pub fn with_capacity(compression: Compression, bytes: usize) -> Self {
        let mut header = Vec::with_capacity(layout::RECORDS + bytes);
        header.resize(layout::RECORDS, 0);
        Self {
            compression,
            producer_id: -1,
            producer_epoch: -1,
            base_sequence: -1,
            attributes: 0,
            base_timestamp: -1,
            max_timestamp: -1,
            count: 0,
            bytes: header,
        }
    }

    /// Stamps a producer.
    pub fn producer(mut self, producer_id: i64, producer_epoch: i16, base_sequence: i32) -> Self {
        self.producer_id = producer_id;
        self.producer_epoch = producer_epoch;
        self.base_sequence = base_sequence;
        self
    }

    /// Makes it part of its producer's transaction.
    pub fn transactional(mut self) -> Self {
        self.attributes |= TRANSACTIONAL_BIT;
        self
    }

    /// Makes it a control batch.
    pub(crate) fn control(mut self) -> Self {
        self.attributes |= CONTROL_BIT;
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
        let headers = headers.iter().map(|h| (&h.key[..], h.value.as_deref()));
        self.push_with_headers(timestamp, key, value, &EncodedHeaders::NONE, headers);
    }

    /// Adds a record whose first headers are those of many, and the others, each a key and a value, its
    /// own.
    pub fn push_with_headers<'h>(
        &mut self,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        shared: &EncodedHeaders,
        headers: impl ExactSizeIterator<Item = (&'h [u8], Option<&'h [u8]>)> + Clone,
    ) {
        if self.count == 0 {
            self.base_timestamp = timestamp;
            self.max_timestamp = timestamp;
        }
        self.max_timestamp = self.max_timestamp.max(timestamp);
        let timestamp_delta = timestamp.wrapping_sub(self.base_timestamp);
        let offset_delta = i64::from(self.count);
        self.count += 1;

        let count = (shared.count + headers.len()) as i64;
        let size_of_header = |(key, value)| nullable_size(Some(key)) + nullable_size(value);
        let length = 1
            + varlong_size(timestamp_delta)
            + varlong_size(offset_delta)
            + nullable_size(key)
            + nullable_size(value)
            + varlong_size(count)
            + shared.bytes.len()
            + headers.clone().map(size_of_header).sum::<usize>();
        let out = &mut self.bytes;
        out.reserve(length + varlong_size(length as i64));
        write_varlong(out, length as i64);
        out.push(0);
        write_varlong(out, timestamp_delta);
        write_varlong(out, offset_delta);
        write_nullable(out, key);
        write_nullable(out, value);
        write_varlong(out, count);
        out.extend_from_slice(&shared.bytes);
        for (key, value) in headers {
            write_header(out, key, value);
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
        let attributes = compression.id() | self.attributes;
        put(layout::ATTRIBUTES, &attributes.to_be_bytes());
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
    let Ok(records) = codec::compress(compression, None, &bytes[layout::RECORDS..]) else {
        return (Compression::None, bytes);
    };
    let mut batch = bytes;
    batch.truncate(layout::RECORDS);
    batch.extend_from_slice(&records);
    (compression, batch)
}

fn write_header(out: &mut Vec<u8>, key: &[u8], value: Option<&[u8]>) {
    write_nullable(out, Some(key));
    write_nullable(out, value);
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
