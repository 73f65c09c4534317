//! Produce v0 to v2: advertised but not served.
//!
//! These versions carry message sets older than record batch v2. They are in the ApiVersions
//! response because librdkafka decides by them whether it may compress (KAFKA-18659). A client that
//! sends one is answered in its own version with UNSUPPORTED_VERSION for every partition.
//!
//! ```text
//! request   acks i16, timeout_ms i32, [ name string, [ index i32, message set bytes ] ]
//! response  [ name string, [ index i32, error i16, base_offset i64, v2: time i64 ] ], v1: throttle i32
//! ```

use bytes::{BufMut, BytesMut};
use kafka_protocol::ResponseError;

use crate::frame::Frame;
use crate::router::Outcome;
use crate::wire_shape::MAX_ELEMENTS;

/// What is wrong with the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A length reaches beyond the end, or is negative.
    #[error("the request ends in field {0}")]
    Ends(&'static str),
    /// More elements than are served.
    #[error("the request has more than {MAX_ELEMENTS} partitions")]
    TooMany,
}

/// Answers a request body of `version` 0, 1 or 2; with acks=0 there is no answer and the connection closes.
pub fn answer(version: i16, correlation_id: i32, body: &[u8]) -> Result<Outcome, Error> {
    let mut request = Reader { rest: body };
    let acks = i16::from_be_bytes(request.array("acks")?);
    request.take("timeout_ms", 4)?;
    if acks == 0 {
        return Ok(Outcome::Close(format!(
            "produce v{version} with acks=0 is not served"
        )));
    }
    let mut out = BytesMut::with_capacity(128);
    out.put_i32(0);
    out.put_i32(correlation_id);
    let topics = request.count("topic_data")?;
    out.put_i32(topics);
    let mut elements = 0;
    for _ in 0..topics {
        let name = request.string("name")?;
        out.put_u16(name.len() as u16);
        out.put_slice(name);
        let partitions = request.count("partition_data")?;
        elements += 1 + partitions as usize;
        if elements > MAX_ELEMENTS {
            return Err(Error::TooMany);
        }
        out.put_i32(partitions);
        for _ in 0..partitions {
            let index = request.take("index", 4)?;
            let records = u32::from_be_bytes(request.array("records")?);
            if records != u32::MAX {
                request.take("records", records as usize)?;
            }
            out.put_slice(index);
            out.put_i16(ResponseError::UnsupportedVersion.code());
            out.put_i64(-1);
            if version >= 2 {
                out.put_i64(-1);
            }
        }
    }
    if version >= 1 {
        out.put_i32(0);
    }
    let len = out.len();
    out[..4].copy_from_slice(&(len as u32 - 4).to_be_bytes());
    Ok(Outcome::Now(Frame {
        chunks: vec![out.freeze()],
        len,
        own_bytes: len,
    }))
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, field: &'static str, len: usize) -> Result<&'a [u8], Error> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(Error::Ends(field))?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], Error> {
        let (taken, rest) = self
            .rest
            .split_first_chunk::<N>()
            .ok_or(Error::Ends(field))?;
        self.rest = rest;
        Ok(*taken)
    }

    /// An array's length; its elements take at least four bytes each.
    fn count(&mut self, field: &'static str) -> Result<i32, Error> {
        let count = i32::from_be_bytes(self.array(field)?);
        match usize::try_from(count) {
            Ok(elements) if elements <= self.rest.len() / 4 => Ok(count),
            _ => Err(Error::Ends(field)),
        }
    }

    fn string(&mut self, field: &'static str) -> Result<&'a [u8], Error> {
        let len = i16::from_be_bytes(self.array(field)?);
        let len = usize::try_from(len).map_err(|_| Error::Ends(field))?;
        self.take(field, len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(acks: i16) -> Vec<u8> {
        let mut out = Vec::new();
        out.put_i16(acks);
        out.put_i32(1000);
        out.put_i32(1);
        out.put_u16(2);
        out.put_slice(b"in");
        out.put_i32(2);
        for index in [4, 5] {
            out.put_i32(index);
            out.put_i32(3);
            out.put_slice(b"old");
        }
        out
    }

    #[test]
    fn each_partition_is_answered_in_the_clients_version() {
        for (version, trailer) in [(0, 0), (1, 4), (2, 4)] {
            let Ok(Outcome::Now(frame)) = answer(version, 77, &request(1)) else {
                panic!("v{version}: no answer")
            };
            let bytes = frame.chunks.concat();
            let mut expected = Vec::new();
            expected.put_i32(77);
            expected.put_i32(1);
            expected.put_u16(2);
            expected.put_slice(b"in");
            expected.put_i32(2);
            for index in [4, 5] {
                expected.put_i32(index);
                expected.put_i16(35);
                expected.put_i64(-1);
                if version == 2 {
                    expected.put_i64(-1);
                }
            }
            expected.put_bytes(0, trailer);
            assert_eq!(bytes[..4], (expected.len() as u32).to_be_bytes());
            assert_eq!(bytes[4..], expected);
        }
    }

    #[test]
    fn acks_0_closes_and_truncations_are_refused() {
        assert!(matches!(answer(2, 1, &request(0)), Ok(Outcome::Close(_))));
        let whole = request(-1);
        for len in 0..whole.len() {
            assert!(
                matches!(answer(2, 1, &whole[..len]), Err(Error::Ends(_))),
                "{len} bytes"
            );
        }
    }
}
