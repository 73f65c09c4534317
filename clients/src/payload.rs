//! The values that are sent: a pool that is made before the run and cycled through in it.
//!
//! Synthetic values are JSON objects of exactly the wanted size (cut, and then no longer JSON, where that
//! is below some 200 bytes). Names of fields repeat, words come from a vocabulary, numbers and ids
//! are random: gzip makes about a quarter of a batch of them, as of real JSON. The pool has about 4 MiB, more than a batch may have, so that no batch has a value
//! twice; a compressor finds nothing there that it wouldn't find in real records.

use std::fmt::Write;
use std::fs;
use std::ops::Range;
use std::path::Path;

use serde::de::IgnoredAny;

use crate::error::{Error, Result};
use crate::random::Random;

const POOL_BYTES: u64 = 4 << 20;
const FEWEST: u64 = 8;

const WORDS: [&str; 32] = [
    "account", "agent", "alpine", "basket", "bridge", "candle", "cargo", "delta", "ember",
    "fabric", "garden", "harbour", "island", "journal", "kernel", "lantern", "market", "needle",
    "orchard", "parcel", "quarry", "river", "signal", "timber", "umbrella", "valley", "window",
    "yellow", "zephyr", "checkout", "payment", "refund",
];

/// Distinct values, in one piece of memory.
#[derive(Debug)]
pub struct Payloads {
    bytes: Vec<u8>,
    ranges: Vec<Range<usize>>,
}

impl Payloads {
    /// Synthetic values of `size` bytes each.
    pub fn synthetic(size: u64, seed: u64) -> Self {
        let mut random = Random::seeded(seed);
        let count = (POOL_BYTES / size).max(FEWEST);
        let mut payloads = Self {
            bytes: Vec::with_capacity((count * size) as usize),
            ranges: Vec::with_capacity(count as usize),
        };
        for _ in 0..count {
            payloads.push(synthetic(size as usize, &mut random).as_bytes());
        }
        payloads
    }

    /// The lines of a file, each of which must be a JSON value; empty lines at the end are left out.
    pub fn from_file(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).map_err(|source| Error::PayloadFile {
            path: path.to_owned(),
            source,
        })?;
        let text = text.trim_end();
        if text.is_empty() {
            return Err(Error::PayloadFileEmpty {
                path: path.to_owned(),
            });
        }
        let mut payloads = Self {
            bytes: Vec::with_capacity(text.len()),
            ranges: Vec::new(),
        };
        for (index, line) in text.lines().enumerate() {
            let parsed: serde_json::Result<IgnoredAny> = serde_json::from_str(line);
            parsed.map_err(|source| Error::PayloadLine {
                path: path.to_owned(),
                line: index + 1,
                source,
            })?;
            payloads.push(line.as_bytes());
        }
        Ok(payloads)
    }

    /// Value `n` of a run; the first comes again after the last.
    pub fn get(&self, n: u64) -> &[u8] {
        let index = (n % self.ranges.len() as u64) as usize;
        &self.bytes[self.ranges[index].clone()]
    }

    fn push(&mut self, value: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(value);
        self.ranges.push(start..self.bytes.len());
    }
}

fn synthetic(size: usize, random: &mut Random) -> String {
    const END: &str = "\"}";
    let mut text = String::with_capacity(size + 64);
    let word = |random: &mut Random| WORDS[random.below(WORDS.len() as u64) as usize];
    let _ = write!(
        text,
        "{{\"id\":\"{:016x}\",\"timestamp_ms\":{},\"customer\":\"customer-{}\",\"kind\":\"{}\",\
         \"amount\":{}.{:02},\"currency\":\"EUR\",\"items\":{},\"accepted\":{},\"note\":\"",
        random.bits(),
        1_760_000_000_000 + random.below(10_000_000),
        random.below(100_000),
        word(random),
        random.below(2000),
        random.below(100),
        random.below(20),
        random.below(2) == 0,
    );
    while text.len() + END.len() < size {
        match random.below(4) {
            0 => drop(write!(text, "{} ", random.below(100_000))),
            _ => drop(write!(text, "{} ", word(random))),
        }
    }
    text.truncate(size.saturating_sub(END.len()).max(size.min(1)));
    if size > 200 {
        text.push_str(END);
    } else {
        while text.len() < size {
            text.push('x');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    #[test]
    fn every_size_is_exact() {
        let mut random = Random::seeded(1);
        for size in (1..300).chain([1024, 65536]) {
            for _ in 0..10 {
                assert_eq!(synthetic(size, &mut random).len(), size);
            }
        }
    }

    #[test]
    fn values_are_json_and_distinct() {
        let payloads = Payloads::synthetic(1024, 1);
        let first = payloads.get(0);
        for n in 0..1000 {
            serde_json::from_slice::<serde_json::Value>(payloads.get(n)).unwrap();
            assert!(n == 0 || payloads.get(n) != first);
        }
    }

    #[test]
    fn the_seed_decides() {
        assert_eq!(
            Payloads::synthetic(500, 3).get(7),
            Payloads::synthetic(500, 3).get(7)
        );
        assert_ne!(
            Payloads::synthetic(500, 3).get(7),
            Payloads::synthetic(500, 4).get(7)
        );
    }

    #[test]
    fn a_batch_compresses_as_real_json_does() {
        let payloads = Payloads::synthetic(1024, 1);
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        for n in 0..1000 {
            encoder.write_all(payloads.get(n)).unwrap();
        }
        let ratio = 1024.0 * 1000.0 / encoder.finish().unwrap().len() as f64;
        assert!((3.0..4.5).contains(&ratio), "{ratio}");
    }

    #[test]
    fn a_file_is_cycled() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lines");
        fs::write(&path, "{\"a\":1}\n2\n\n").unwrap();
        let payloads = Payloads::from_file(&path).unwrap();
        let values: Vec<&[u8]> = (0..3).map(|n| payloads.get(n)).collect();
        assert_eq!(values, [&b"{\"a\":1}"[..], b"2", b"{\"a\":1}"]);
    }

    #[test]
    fn a_bad_file_is_refused_with_its_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lines");
        assert!(matches!(
            Payloads::from_file(&path),
            Err(Error::PayloadFile { .. })
        ));
        fs::write(&path, "\n").unwrap();
        assert!(matches!(
            Payloads::from_file(&path),
            Err(Error::PayloadFileEmpty { .. })
        ));
        fs::write(&path, "1\n2\nthree\n").unwrap();
        let error = Payloads::from_file(&path).unwrap_err().to_string();
        assert!(error.contains("line 3 is not JSON"), "{error}");
    }
}
