//! Ids as Kafka prints them: the 16 bytes in URL-safe base64 without padding, 22 characters.

use uuid::Uuid;

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
const ENCODED_LEN: usize = 22;

/// `id` in 22 characters.
pub fn encode(id: Uuid) -> String {
    let mut out = String::with_capacity(ENCODED_LEN);
    // 22 characters hold 132 bits: the last four are 0.
    for index in 0..ENCODED_LEN {
        let end = 128 - 6 * (index as i32 + 1);
        let bits = if end >= 0 {
            id.as_u128() >> end
        } else {
            id.as_u128() << -end
        };
        out.push(char::from(ALPHABET[(bits & 63) as usize]));
    }
    out
}

/// The id that `text` is; `None` where it is not what [`encode`] makes of any.
pub fn decode(text: &str) -> Option<Uuid> {
    if text.len() != ENCODED_LEN {
        return None;
    }
    let mut id = 0u128;
    for (index, character) in text.bytes().enumerate() {
        let digit = match character {
            b'A'..=b'Z' => character - b'A',
            b'a'..=b'z' => character - b'a' + 26,
            b'0'..=b'9' => character - b'0' + 52,
            b'-' => 62,
            b'_' => 63,
            _ => return None,
        };
        let digit = u128::from(digit);
        id = if index + 1 < ENCODED_LEN {
            (id << 6) | digit
        } else if digit & 0xf == 0 {
            (id << 2) | (digit >> 4)
        } else {
            return None;
        };
    }
    Some(Uuid::from_u128(id))
}

/// A random id whose text does not begin with a dash, which command lines would take for an
/// option.
pub fn random() -> Uuid {
    loop {
        let id = Uuid::new_v4();
        if !encode(id).starts_with('-') {
            return id;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_printed_as_kafka_prints_them() {
        for (id, text) in [
            (0, "AAAAAAAAAAAAAAAAAAAAAA"),
            (1, "AAAAAAAAAAAAAAAAAAAAAQ"),
            (u128::MAX, "_____________________w"),
            // From RFC 4648's "foobar" and on: bytes whose base64 is well known.
            (
                u128::from_be_bytes(*b"foobarfoobarfoob"),
                "Zm9vYmFyZm9vYmFyZm9vYg",
            ),
        ] {
            assert_eq!(encode(Uuid::from_u128(id)), text);
            assert_eq!(decode(text), Some(Uuid::from_u128(id)));
        }
        for _ in 0..100 {
            let id = random();
            assert_eq!(decode(&encode(id)), Some(id));
        }
    }

    #[test]
    fn what_is_no_id_is_none() {
        for text in [
            "",
            "AAAAAAAAAAAAAAAAAAAAA",
            "AAAAAAAAAAAAAAAAAAAAAAA",
            "AAAAAAAAAAAAAAAAAAAAA=",
            "AAAAAAAAAAAAAAAAAAAAAB",
            "AAAAAAAAAAAAAAAAAAAA+A",
            "ééééééééééé",
        ] {
            assert_eq!(decode(text), None, "{text}");
        }
    }
}
