//! The header of a request, read without trusting it.
//!
//! The first eight bytes (API, version, correlation id) are the same in every header version; the
//! client id follows in all versions that are served, then tagged fields in version 2.

use bytes::Bytes;
use kafka_protocol::messages::RequestHeader;
use kafka_protocol::protocol::Decodable;

/// API, version, correlation id.
const START_BYTES: usize = 8;

/// What can be known of a request whose API or version is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start {
    /// The API's key.
    pub api_key: i16,
    /// The API's version.
    pub api_version: i16,
    /// Echoed in the response.
    pub correlation_id: i32,
}

/// Why a header can't be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// Shorter than any header.
    #[error("a request of {0} bytes is shorter than its header")]
    Short(usize),
    /// It does not decode.
    #[error("the request header does not decode: {0}")]
    Undecodable(String),
}

/// Reads the part that all header versions share.
pub fn start(frame: &[u8]) -> Result<Start, HeaderError> {
    match frame {
        [k0, k1, v0, v1, c0, c1, c2, c3, ..] => Ok(Start {
            api_key: i16::from_be_bytes([*k0, *k1]),
            api_version: i16::from_be_bytes([*v0, *v1]),
            correlation_id: i32::from_be_bytes([*c0, *c1, *c2, *c3]),
        }),
        _ => Err(HeaderError::Short(frame.len())),
    }
}

/// The client id of a request that is otherwise unknown, for the log.
pub fn client_id(frame: &[u8]) -> Option<String> {
    let (len, rest) = frame.get(START_BYTES..)?.split_first_chunk::<2>()?;
    let len = usize::try_from(i16::from_be_bytes(*len)).ok()?;
    Some(String::from_utf8_lossy(rest.get(..len.min(256))?).into_owned())
}

/// Takes the header off a frame.
pub fn decode(frame: &mut Bytes, header_version: i16) -> Result<RequestHeader, HeaderError> {
    if frame.len() < START_BYTES {
        return Err(HeaderError::Short(frame.len()));
    }
    RequestHeader::decode(frame, header_version)
        .map_err(|error| HeaderError::Undecodable(format!("{error:#}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_short_header_panics() {
        let whole: &[u8] = &[0, 18, 0, 3, 0, 0, 0, 9, 0, 2, b'm', b'e', 1, 5, 1, 0];
        for len in 0..whole.len() {
            let mut frame = Bytes::copy_from_slice(&whole[..len]);
            let _ = client_id(&frame);
            assert_eq!(start(&frame).is_ok(), len >= 8);
            assert!(decode(&mut frame, 2).is_err(), "{len} bytes");
        }
        let header = decode(&mut Bytes::from_static(whole), 2).expect("a whole header");
        assert_eq!(header.correlation_id, 9);
        assert_eq!(client_id(whole).as_deref(), Some("me"));
    }

    #[test]
    fn a_header_with_a_lying_tag_is_refused() {
        let mut frame =
            Bytes::from_static(&[0, 18, 0, 3, 0, 0, 0, 9, 255, 255, 255, 255, 255, 255, 15, 1]);
        assert!(matches!(
            decode(&mut frame, 2),
            Err(HeaderError::Undecodable(_))
        ));
    }
}
