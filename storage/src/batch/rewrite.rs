//! A client's batch that is not stored as it came: in another codec, or with a header that says what
//! its records do, as Kafka's `LogValidator` rewrites them.
//!
//! The records stay as they are, byte for byte before compression: keys, values, headers, timestamp
//! and offset deltas. So do producer id, epoch and sequence, the count, the first timestamp and the
//! transactional bit. What changes is the codec, the largest timestamp where the header's was not
//! that of the records, the timestamp type (which is the broker's to set), the length and the CRC.

use std::borrow::Cow;

use bytes::Bytes;

use crate::batch::header::{COMPRESSION_MASK, LOG_APPEND_TIME_BIT};
use crate::batch::validate::Checked;
use crate::batch::{Compression, codec, layout};
use crate::config::CompressionType;
use crate::error::{Error, Result};

/// The batch as it is to be stored; `sent` itself where nothing has to change.
pub(crate) fn rewritten<'a>(
    sent: &'a Bytes,
    checked: &Checked<'_>,
    stored: CompressionType,
) -> Result<Cow<'a, Bytes>> {
    let batch = &checked.batch;
    let attributes = batch.attributes() & !LOG_APPEND_TIME_BIT;
    let max_timestamp = checked.max_timestamp.unwrap_or(batch.max_timestamp());
    let target = match stored {
        CompressionType::Codec { codec, level } if codec != batch.compression()? => {
            Some((codec, level))
        }
        _ => None,
    };
    let Some((codec, level)) = target else {
        let as_it_came = attributes == batch.attributes() && max_timestamp == batch.max_timestamp();
        return Ok(if as_it_came {
            Cow::Borrowed(sent)
        } else {
            Cow::Owned(stamped(batch.bytes().to_vec(), attributes, max_timestamp))
        });
    };
    let records = match &checked.decompressed {
        Some(records) => records,
        None => batch.records_bytes(),
    };
    let compressed = match codec {
        Compression::None => Cow::Borrowed(records),
        codec => Cow::Owned(
            codec::compress(codec, level, records)
                .map_err(|error| Error::io("compress", "a record batch", &error))?,
        ),
    };
    let attributes = (attributes & !COMPRESSION_MASK) | codec.id();
    let size = layout::RECORDS + compressed.len();
    let length = i32::try_from(size - layout::LOG_OVERHEAD)
        .map_err(|_| Error::InvalidRecord(format!("a batch cannot have {size} bytes")))?;
    let mut bytes = Vec::with_capacity(size);
    bytes.extend_from_slice(&batch.bytes()[..layout::RECORDS]);
    bytes.extend_from_slice(&compressed);
    put(&mut bytes, layout::BATCH_LENGTH, &length.to_be_bytes());
    Ok(Cow::Owned(stamped(bytes, attributes, max_timestamp)))
}

/// A whole batch with these fields, and the CRC that is right then.
fn stamped(mut bytes: Vec<u8>, attributes: i16, max_timestamp: i64) -> Bytes {
    put(&mut bytes, layout::ATTRIBUTES, &attributes.to_be_bytes());
    put(
        &mut bytes,
        layout::MAX_TIMESTAMP,
        &max_timestamp.to_be_bytes(),
    );
    let crc = crc32c::crc32c(&bytes[layout::CRC_COVERS_FROM..]);
    put(&mut bytes, layout::CRC, &crc.to_be_bytes());
    Bytes::from(bytes)
}

fn put(bytes: &mut [u8], position: usize, field: &[u8]) {
    bytes[position..position + field.len()].copy_from_slice(field);
}
