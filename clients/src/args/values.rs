//! The values of the command line's options: what they may be, and how they are read.

use bytesize::ByteSize;
use clap::ValueEnum;

/// Where a consumer starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[expect(missing_docs, reason = "named as in Kafka")]
pub enum From {
    Earliest,
    Latest,
}

/// Kafka's `acks`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Acks {
    /// None: a record counts as delivered when it is sent.
    #[value(name = "0")]
    Zero,
    /// The leader's.
    #[value(name = "1")]
    One,
    /// Those of all replicas in sync.
    All,
}

/// Kafka's `compression.type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[expect(missing_docs, reason = "named as in Kafka")]
pub enum Compression {
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

/// Kafka's `isolation.level`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Isolation {
    /// What transactions that are open or were aborted have written is not read.
    #[value(name = "read_committed")]
    Committed,
    /// It is.
    #[value(name = "read_uncommitted")]
    Uncommitted,
}

/// A value as it is written on the command line.
pub fn written(value: &impl ValueEnum) -> String {
    let written = value.to_possible_value();
    written.map_or_else(String::new, |value| value.get_name().to_owned())
}

/// `key=value`.
pub fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("is not of the form key=value".to_owned()),
    }
}

/// Bytes, such as 1GB or 512MiB; at least one.
pub fn size(text: &str) -> Result<u64, String> {
    match text.parse::<ByteSize>()?.as_u64() {
        0 => Err("must be at least one byte".to_owned()),
        size => Ok(size),
    }
}

/// A number above 0.
pub fn positive(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(number) if number > 0.0 && number <= 1e9 => Ok(number),
        _ => Err("must be a number above 0, up to 10^9".to_owned()),
    }
}

/// A number from 0 on.
pub fn not_negative(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(number) if (0.0..=1e9).contains(&number) => Ok(number),
        _ => Err("must be a number from 0 to 10^9".to_owned()),
    }
}
