//! What lies on the disk: the headers of a topic's record batches. Only they tell whether a client
//! did compress, and whether its producer was idempotent; a client that quietly does neither still
//! gets its records back.

use std::fs;
use std::path::Path;

/// The codecs by their number in a batch's attributes.
pub const CODECS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];

/// One record batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Its codec.
    pub codec: &'static str,
    /// Whether it is from an idempotent producer.
    pub idempotent: bool,
    /// Whether it is part of a transaction.
    pub transactional: bool,
    /// Whether it is the marker that ends a transaction.
    pub control: bool,
}

/// The batches of a partition's first segment.
pub fn of_partition(data_dir: &Path, topic: &str, partition: i32) -> Result<Vec<Batch>, String> {
    let path = data_dir.join(format!("{topic}-{partition}/00000000000000000000.log"));
    let log = fs::read(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    walk(&log)
}

/// Layout of a batch's header: Kafka's `DefaultRecordBatch`. What follows the last batch is the
/// space that was allocated ahead.
fn walk(mut log: &[u8]) -> Result<Vec<Batch>, String> {
    let mut batches = Vec::new();
    while let Some(header) = log.get(..61) {
        let length = u32::from_be_bytes([header[8], header[9], header[10], header[11]]) as usize;
        if length == 0 {
            break;
        }
        let codec = usize::from(header[22] & 7);
        batches.push(Batch {
            codec: CODECS
                .get(codec)
                .ok_or(format!("a batch with codec {codec}"))?,
            idempotent: header[43..51] != [0xff; 8],
            transactional: header[22] & 0x10 != 0,
            control: header[22] & 0x20 != 0,
        });
        log = log
            .get(12 + length..)
            .ok_or("a batch is longer than its file")?;
    }
    Ok(batches)
}
