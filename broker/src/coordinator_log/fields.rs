//! The fields of keys and values, as Kafka's messages have them. Big-endian.
//!
//! Strings have an int16 length and byte strings and arrays an int32 length, -1 for null; in flexible
//! versions all have an unsigned varint of the length plus one, and every structure ends with tagged
//! fields.

use bytes::{BufMut, Bytes, BytesMut};

/// The longest string that these records can hold, bytes.
pub const MAX_STRING_BYTES: usize = i16::MAX as usize;

/// Why bytes are not one of these records, or a record can't be written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The bytes end before the record does.
    #[error("{field} is cut off")]
    CutOff {
        /// The field that could not be read.
        field: &'static str,
    },
    /// A version that is not known.
    #[error("{record} has version {version}")]
    UnknownVersion {
        /// The kind of record.
        record: &'static str,
        /// What it says.
        version: i16,
    },
    /// A string that is not UTF-8, is null where it must not be, or the like.
    #[error("{field} is not valid")]
    Invalid {
        /// The field.
        field: &'static str,
    },
    /// A string that is too long to be written.
    #[error("a string of {bytes} bytes is longer than {MAX_STRING_BYTES}")]
    StringTooLong {
        /// Its length.
        bytes: usize,
    },
}

/// Not of a flexible version.
pub fn put_string(out: &mut BytesMut, string: &str) -> Result<(), RecordError> {
    let length = i16::try_from(string.len()).map_err(|_| RecordError::StringTooLong {
        bytes: string.len(),
    })?;
    out.put_i16(length);
    out.put_slice(string.as_bytes());
    Ok(())
}

/// Not of a flexible version.
pub fn put_nullable_string(out: &mut BytesMut, string: Option<&str>) -> Result<(), RecordError> {
    match string {
        Some(string) => put_string(out, string),
        None => {
            out.put_i16(-1);
            Ok(())
        }
    }
}

/// Unsigned.
pub fn put_varint(out: &mut BytesMut, mut value: u32) {
    while value >= 0x80 {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

/// Takes fields off the front. Never reads past the end, never allocates more than is there.
pub struct Reader<'a> {
    bytes: &'a [u8],
    flexible: bool,
}

impl<'a> Reader<'a> {
    /// Of a key, or of a value whose version is read next.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            flexible: false,
        }
    }

    /// Lengths are varints, and structures end with tagged fields.
    pub fn is_flexible(&self) -> bool {
        self.flexible
    }

    fn take(&mut self, count: usize, field: &'static str) -> Result<&'a [u8], RecordError> {
        let (taken, rest) = self
            .bytes
            .split_at_checked(count)
            .ok_or(RecordError::CutOff { field })?;
        self.bytes = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], RecordError> {
        let (taken, rest) = self
            .bytes
            .split_first_chunk::<N>()
            .ok_or(RecordError::CutOff { field })?;
        self.bytes = rest;
        Ok(*taken)
    }

    /// The next int8.
    pub fn i8(&mut self, field: &'static str) -> Result<i8, RecordError> {
        self.array(field).map(i8::from_be_bytes)
    }

    /// The next int16.
    pub fn i16(&mut self, field: &'static str) -> Result<i16, RecordError> {
        self.array(field).map(i16::from_be_bytes)
    }

    /// The next int32.
    pub fn i32(&mut self, field: &'static str) -> Result<i32, RecordError> {
        self.array(field).map(i32::from_be_bytes)
    }

    /// The next int64.
    pub fn i64(&mut self, field: &'static str) -> Result<i64, RecordError> {
        self.array(field).map(i64::from_be_bytes)
    }

    /// A value's version, from 0 to the `newest`, which is the first flexible one; the fields after it are
    /// read as it says.
    pub fn version(&mut self, record: &'static str, newest: i16) -> Result<i16, RecordError> {
        let version = self.i16(record)?;
        if !(0..=newest).contains(&version) {
            return Err(RecordError::UnknownVersion { record, version });
        }
        self.flexible = version >= newest;
        Ok(version)
    }

    /// The next unsigned varint.
    pub fn varint(&mut self, field: &'static str) -> Result<u32, RecordError> {
        let mut value = 0u32;
        for shift in (0..35).step_by(7) {
            let [byte] = self.array(field)?;
            value |= u32::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(RecordError::Invalid { field })
    }

    /// `None` for a null.
    fn length(&mut self, field: &'static str, wide: bool) -> Result<Option<usize>, RecordError> {
        let length = if self.flexible {
            i64::from(self.varint(field)?) - 1
        } else if wide {
            i64::from(self.i32(field)?)
        } else {
            i64::from(self.i16(field)?)
        };
        match length {
            -1 => Ok(None),
            length => usize::try_from(length)
                .map(Some)
                .map_err(|_| RecordError::Invalid { field }),
        }
    }

    /// The next string, `None` for a null.
    pub fn nullable_string(&mut self, field: &'static str) -> Result<Option<String>, RecordError> {
        let Some(length) = self.length(field, false)? else {
            return Ok(None);
        };
        let bytes = self.take(length, field)?;
        let string = std::str::from_utf8(bytes).map_err(|_| RecordError::Invalid { field })?;
        Ok(Some(string.to_owned()))
    }

    /// The next string.
    pub fn string(&mut self, field: &'static str) -> Result<String, RecordError> {
        self.nullable_string(field)?
            .ok_or(RecordError::Invalid { field })
    }

    /// The next byte string, empty for a null.
    pub fn bytes(&mut self, field: &'static str) -> Result<Bytes, RecordError> {
        let Some(length) = self.length(field, true)? else {
            return Ok(Bytes::new());
        };
        self.take(length, field).map(Bytes::copy_from_slice)
    }

    /// An array's length, `None` for a null.
    pub fn nullable_count(&mut self, field: &'static str) -> Result<Option<usize>, RecordError> {
        self.length(field, true)
    }

    /// An array's length.
    pub fn count(&mut self, field: &'static str) -> Result<usize, RecordError> {
        self.length(field, true)?
            .ok_or(RecordError::Invalid { field })
    }

    /// The tagged fields at the end of a structure, each with its tag.
    pub fn tagged_fields(&mut self, mut each: impl FnMut(u32, &[u8])) -> Result<(), RecordError> {
        const FIELD: &str = "tagged fields";
        for _ in 0..self.varint(FIELD)? {
            let tag = self.varint(FIELD)?;
            let size = self.varint(FIELD)?;
            each(tag, self.take(size as usize, FIELD)?);
        }
        Ok(())
    }
}
