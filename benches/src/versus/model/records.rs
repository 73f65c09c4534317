//! The records that are scored, JSON objects, each different.
//!
//! Those with numbers have [`RECORD_BYTES`] bytes, and are the same ones for the same seed. Such a record has the model's [`INPUTS`] numbers, `f00` to `f31`, with six decimals, about normally
//! distributed, and between them texts that the model does not want: ids, a country, a client, a note
//! that fills it up. Those with a text have the lines of `tests/minilm/texts.txt`.

use std::fmt::Write;

use ::tests::random::Random;
use anyhow::Context;
use serde_json::json;

use super::network::INPUTS;

/// How many of those with numbers there are; a longer topic has them again and again.
pub const COUNT: usize = 10_000;
/// Of each.
pub const RECORD_BYTES: usize = 1024;

const SEED: u64 = 20_261_130;

/// Values in the order of their keys: the record with key `n` has value `n % COUNT`.
pub fn rows() -> Vec<String> {
    let mut random = Random::new(SEED);
    (0..COUNT).map(|n| value(n, &mut random)).collect()
}

/// The same with a text each: an id, and the text in `body`.
pub fn texts() -> anyhow::Result<Vec<String>> {
    let path = ::tests::repository().join("tests/minilm/texts.txt");
    let lines = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let value = |(n, text): (usize, &str)| json!({ "id": n, "body": text }).to_string();
    Ok(lines.lines().enumerate().map(value).collect())
}

fn value(n: usize, random: &mut Random) -> String {
    const COUNTRIES: [&str; 4] = ["CZ", "DE", "PT", "FI"];
    let mut json = String::with_capacity(RECORD_BYTES);
    // Writing to a string does not fail.
    let _ = write!(
        json,
        r#"{{"event_id":"{:016x}{:016x}","ts":{},"customer":"c-{:06}","country":"{}""#,
        random.below(u64::MAX),
        random.below(u64::MAX),
        1_760_000_000_000_u64 + n as u64,
        random.below(1_000_000),
        COUNTRIES[random.below(4) as usize],
    );
    for input in 0..INPUTS {
        if input == INPUTS / 2 {
            json += r#","user_agent":"Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0""#;
        }
        let _ = write!(json, r#","f{input:02}":{:.6}"#, normal(random));
    }
    json += r#","note":""#;
    while json.len() < RECORD_BYTES - 2 {
        let letter = char::from(b'a' + random.below(27) as u8);
        json.push(if letter.is_ascii_lowercase() {
            letter
        } else {
            ' '
        });
    }
    json + "\"}"
}

/// About a standard normal number: a sum of uniform ones has their mean and variance.
fn normal(random: &mut Random) -> f64 {
    let uniform = |random: &mut Random| random.below(1 << 32) as f64 / f64::from(u32::MAX);
    (0..12).map(|_| uniform(random)).sum::<f64>() - 6.0
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn records_are_json_of_the_size_and_differ() {
        let values = rows();
        assert_eq!(values.iter().collect::<BTreeSet<_>>().len(), COUNT);
        for value in &values {
            assert_eq!(value.len(), RECORD_BYTES);
            let json: serde_json::Value = serde_json::from_str(value).unwrap();
            assert!(json["f00"].is_f64() && json["f31"].is_f64() && json["note"].is_string());
        }
    }
}
