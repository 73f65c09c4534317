//! One record's bytes, read in place: no allocation, no copy.
//!
//! A record is (Kafka's `DefaultRecord`; varints are zigzag, least significant group first):
//! length varint · attributes int8 · timestamp delta varlong · offset delta varint ·
//! key length varint, key · value length varint, value · header count varint, and per header
//! key length varint, key, value length varint, value. A negative length of a key, a value or a
//! header's value is null.

/// What is wrong with a record's bytes, to be wrapped with the record's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed(pub &'static str);

type Result<T> = std::result::Result<T, Malformed>;

/// One record: its fields as slices of the bytes it was read from.
#[derive(Debug)]
pub(super) struct RecordView<'a> {
    pub timestamp_delta: i64,
    pub offset_delta: i32,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    /// Not read yet: [`HeaderViews::next`] finds what is malformed in them.
    pub headers: HeaderViews<'a>,
}

impl<'a> RecordView<'a> {
    /// Reads the record that `bytes` begin with, and moves `bytes` past it.
    #[inline(always)]
    pub fn read(bytes: &mut &'a [u8]) -> Result<Self> {
        let length = read_varint(bytes)?;
        let length = usize::try_from(length).map_err(|_| Malformed("negative length"))?;
        let mut body = take(bytes, length)?;
        let body = &mut body;
        take(body, 1)?; // Attributes: no bit has a meaning.
        let timestamp_delta = read_varlong(body)?;
        let offset_delta = read_varint(body)?;
        let key = read_nullable(body)?;
        let value = read_nullable(body)?;
        let count = usize::try_from(read_varint(body)?);
        let remaining = count.map_err(|_| Malformed("negative header count"))?;
        // Each header takes two bytes at the least.
        if remaining > body.len() / 2 {
            return Err(Malformed("more headers than bytes"));
        }
        let headers = HeaderViews {
            remaining,
            bytes: body,
        };
        Ok(Self {
            timestamp_delta,
            offset_delta,
            key,
            value,
            headers,
        })
    }
}

/// A header's key and value.
pub(super) type HeaderView<'a> = (&'a [u8], Option<&'a [u8]>);

/// The headers of one record that were not read yet.
#[derive(Debug)]
pub(super) struct HeaderViews<'a> {
    remaining: usize,
    bytes: &'a [u8],
}

impl<'a> HeaderViews<'a> {
    /// How many are left; never more than half of the record's bytes.
    pub fn remaining(&self) -> usize {
        self.remaining
    }

    /// The next header's key and value. The end also checks that nothing follows in the record.
    #[inline(always)]
    pub fn next(&mut self) -> Result<Option<HeaderView<'a>>> {
        if self.remaining == 0 {
            if self.bytes.is_empty() {
                return Ok(None);
            }
            return Err(Malformed("bytes left over after the last header"));
        }
        self.remaining -= 1;
        let key = read_nullable(&mut self.bytes)?.ok_or(Malformed("null header key"))?;
        let value = read_nullable(&mut self.bytes)?;
        Ok(Some((key, value)))
    }
}

#[inline(always)]
fn take<'a>(bytes: &mut &'a [u8], count: usize) -> Result<&'a [u8]> {
    let (taken, rest) = bytes
        .split_at_checked(count)
        .ok_or(Malformed("cut short"))?;
    *bytes = rest;
    Ok(taken)
}

#[inline(always)]
fn read_nullable<'a>(bytes: &mut &'a [u8]) -> Result<Option<&'a [u8]>> {
    match usize::try_from(read_varint(bytes)?) {
        Ok(length) => take(bytes, length).map(Some),
        Err(_) => Ok(None),
    }
}

#[inline(always)]
fn read_varint(bytes: &mut &[u8]) -> Result<i32> {
    if let Some(raw) = read_short(bytes) {
        return Ok((raw >> 1) as i32 ^ -((raw & 1) as i32));
    }
    let raw = read_unsigned(bytes, 5)?;
    // What does not fit in 32 bits is no varint of Kafka's.
    let raw = u32::try_from(raw).map_err(|_| Malformed("varint over 32 bits"))?;
    Ok((raw >> 1) as i32 ^ -((raw & 1) as i32))
}

#[inline(always)]
fn read_varlong(bytes: &mut &[u8]) -> Result<i64> {
    let raw = match read_short(bytes) {
        Some(raw) => u64::from(raw),
        None => read_unsigned(bytes, 10)?,
    };
    Ok((raw >> 1) as i64 ^ -((raw & 1) as i64))
}

/// A varint of one or two bytes, which nearly all are, before its zigzag is undone.
#[inline(always)]
fn read_short(bytes: &mut &[u8]) -> Option<u32> {
    match **bytes {
        [first, ref rest @ ..] if first < 0x80 => {
            *bytes = rest;
            Some(u32::from(first))
        }
        [first, second, ref rest @ ..] if second < 0x80 => {
            *bytes = rest;
            Some(u32::from(first & 0x7f) | u32::from(second) << 7)
        }
        _ => None,
    }
}

#[cold]
#[inline(never)]
fn read_unsigned(bytes: &mut &[u8], max_bytes: usize) -> Result<u64> {
    let mut raw = 0u64;
    for (index, &byte) in bytes.iter().take(max_bytes).enumerate() {
        let group = u64::from(byte & 0x7f);
        if index == 9 && group > 1 {
            return Err(Malformed("varlong over 64 bits"));
        }
        raw |= group << (7 * index);
        if byte < 0x80 {
            *bytes = &bytes[index + 1..];
            return Ok(raw);
        }
    }
    Err(Malformed("varint without an end"))
}

/// Appends `record`, one whole, with another timestamp delta; all else of it stays as it is.
pub(super) fn with_timestamp_delta(record: &[u8], delta: i64, out: &mut Vec<u8>) -> Result<()> {
    let mut rest = record;
    read_varint(&mut rest)?;
    let attributes = take(&mut rest, 1)?;
    if read_varlong(&mut rest)? == delta {
        out.extend_from_slice(record);
        return Ok(());
    }
    write_varlong(out, (1 + varlong_size(delta) + rest.len()) as i64);
    out.extend_from_slice(attributes);
    write_varlong(out, delta);
    out.extend_from_slice(rest);
    Ok(())
}

/// Appends `value` as a zigzag varint: at most 5 bytes for what fits in 32 bits, 10 for the rest.
pub(super) fn write_varlong(out: &mut Vec<u8>, value: i64) {
    let mut raw = ((value << 1) ^ (value >> 63)) as u64;
    while raw >= 0x80 {
        out.push(raw as u8 | 0x80);
        raw >>= 7;
    }
    out.push(raw as u8);
}

/// How many bytes [`write_varlong`] appends for `value`.
pub(super) fn varlong_size(value: i64) -> usize {
    let raw = ((value << 1) ^ (value >> 63)) as u64;
    let bits = (64 - (raw | 1).leading_zeros()) as usize;
    bits.div_ceil(7)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_are_zigzag_and_come_back() {
        for (value, bytes) in [
            (0, &[0x00][..]),
            (-1, &[0x01]),
            (1, &[0x02]),
            (63, &[0x7e]),
            (-64, &[0x7f]),
            (64, &[0x80, 0x01]),
            (8191, &[0xfe, 0x7f]),
            (-8192, &[0xff, 0x7f]),
            (8192, &[0x80, 0x80, 0x01]),
            (i64::from(i32::MAX), &[0xfe, 0xff, 0xff, 0xff, 0x0f]),
            (i64::from(i32::MIN), &[0xff, 0xff, 0xff, 0xff, 0x0f]),
        ] {
            let mut out = Vec::new();
            write_varlong(&mut out, value);
            assert_eq!(out, bytes, "{value}");
            assert_eq!(out.len(), varlong_size(value), "{value}");
            assert_eq!(read_varint(&mut &out[..]).map(i64::from), Ok(value));
            assert_eq!(read_varlong(&mut &out[..]), Ok(value));
        }
        for value in [i64::MAX, i64::MIN, 1 << 40, -(1 << 40)] {
            let mut out = Vec::new();
            write_varlong(&mut out, value);
            assert_eq!(out.len(), varlong_size(value), "{value}");
            assert_eq!(read_varlong(&mut &out[..]), Ok(value));
            assert!(read_varint(&mut &out[..]).is_err(), "{value} is no int32");
        }
    }

    #[test]
    fn varints_without_an_end_or_too_wide_are_refused() {
        for bytes in [
            &[][..],
            &[0x80],
            &[0xff; 4],
            &[0xff; 11],
            &[0xff, 0xff, 0xff, 0xff, 0x1f],
        ] {
            assert!(read_varint(&mut &bytes[..]).is_err(), "{bytes:?}");
        }
        let mut wide = [0xff; 10];
        wide[9] = 0x02;
        assert!(read_varlong(&mut &wide[..]).is_err());
    }
}
