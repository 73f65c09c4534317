//! What a consumer says it has subscribed to, in the metadata of its protocol.
//!
//! Kafka's `ConsumerProtocolSubscription`: a version (int16), then the topics (an int32 count, each
//! with an int16 length); all versions begin like this. What follows is left alone.

/// The topics of a subscription, where it is one. Allocates no more than is there.
pub fn topics(metadata: &[u8]) -> Option<Vec<&str>> {
    let (version, rest) = metadata.split_first_chunk::<2>()?;
    if i16::from_be_bytes(*version) < 0 {
        return None;
    }
    let (count, mut rest) = rest.split_first_chunk::<4>()?;
    let mut topics = Vec::new();
    for _ in 0..u32::try_from(i32::from_be_bytes(*count)).ok()? {
        let (length, after) = rest.split_first_chunk::<2>()?;
        let length = usize::try_from(i16::from_be_bytes(*length)).ok()?;
        let (topic, after) = after.split_at_checked(length)?;
        topics.push(std::str::from_utf8(topic).ok()?);
        rest = after;
    }
    Some(topics)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subscription_of_any_version_is_read_and_nonsense_is_not() {
        let two = b"\0\x03\0\0\0\x02\0\x01a\0\x02bc and more";
        assert_eq!(topics(two), Some(vec!["a", "bc"]));
        assert_eq!(topics(b"\0\0\0\0\0\0"), Some(vec![]));
        for nonsense in [
            &b""[..],
            b"\0",
            b"range",
            b"\xff\xff\0\0\0\0",
            b"\0\0\xff\xff\xff\xff",
            b"\0\0\x7f\xff\xff\xff",
            b"\0\0\0\0\0\x01\xff\xff",
            b"\0\0\0\0\0\x01\0\x05abc",
            b"\0\0\0\0\0\x01\0\x01\xff",
        ] {
            assert_eq!(topics(nonsense), None, "{nonsense:?}");
        }
    }
}
