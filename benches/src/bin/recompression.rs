//! What it costs to store batches in another codec than they come in (`compression.type`).
//!
//! ```text
//! cargo run --release -p benches --bin recompression
//! ```
//!
//! One thread appends batches of [`RECORDS`] JSON records to a log in the page cache, as a produce
//! request does: the batch is checked, opened and compressed anew where the codecs differ, and
//! written. MB/s are of uncompressed records; the rows are what the topic says, the columns what the
//! producer sent. The settings take turns, [`ROUNDS`] times; figures are medians over the rounds.

use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use storage::batch::{BatchBuilder, Compression};
use storage::config::CompressionType;
use storage::disk::RealDisk;
use storage::log_dir::{LogDirConfig, OpenLog};
use storage::partition_log::Visibility;
use storage::{LogConfig, LogDir, PartitionLog};
use uuid::Uuid;

const ROUNDS: usize = 5;
const RECORDS: u64 = 300;
/// Different batches, so that no codec sees the same one twice in a row.
const BATCHES: u64 = 50;
/// Of each measurement, at the least.
const TAKES: Duration = Duration::from_millis(150);

const CODECS: [(&str, Compression); 5] = [
    ("uncompressed", Compression::None),
    ("gzip", Compression::Gzip),
    ("snappy", Compression::Snappy),
    ("lz4", Compression::Lz4),
    ("zstd", Compression::Zstd),
];

fn main() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = LogDirConfig {
        path: folder.path().to_owned(),
        node_id: 0,
        sync_threads: 1,
        recovery_threads: 1,
    };
    let dir = LogDir::open(dir, Arc::new(RealDisk)).expect("opens the folder");
    let sent: Vec<Vec<Bytes>> = CODECS
        .iter()
        .map(|(_, codec)| (0..BATCHES).map(|n| batch(n, *codec)).collect())
        .collect();
    let bytes: usize = sent[0].iter().map(Bytes::len).sum();
    let topics: Vec<(&str, CompressionType)> = [("producer", CompressionType::Producer)]
        .into_iter()
        .chain(CODECS.map(|(name, codec)| (name, CompressionType::Codec { codec, level: None })))
        .collect();
    let mut rates = vec![vec![Vec::new(); CODECS.len()]; topics.len()];
    let mut partition = 0;
    for _ in 0..ROUNDS {
        for (topic, (_, compression)) in topics.iter().enumerate() {
            for (codec, batches) in sent.iter().enumerate() {
                partition += 1;
                let log = open(&dir, partition, *compression);
                rates[topic][codec].push(megabytes_per_second(&log, batches, bytes));
                dir.delete_log("bench", partition).expect("deletes");
            }
        }
    }
    let mut table = String::from("| MB/s, stored as |");
    for ((name, _), batches) in CODECS.iter().zip(&sent) {
        let stored: usize = batches.iter().map(Bytes::len).sum();
        let percent = stored * 100 / bytes;
        let _ = write!(table, " sent {name} ({percent} %) |");
    }
    table.push_str("\n|---|");
    table.push_str(&"---|".repeat(CODECS.len()));
    for ((name, _), rates) in topics.iter().zip(&mut rates) {
        let _ = write!(table, "\n| {name} |");
        for rates in rates {
            rates.sort_by(f64::total_cmp);
            let _ = write!(table, " {:.0} |", rates[ROUNDS / 2]);
        }
    }
    println!("{table}");
}

fn open(dir: &LogDir, partition: i32, compression: CompressionType) -> Arc<PartitionLog> {
    let log = OpenLog {
        topic: "bench".to_owned(),
        topic_id: Uuid::from_u128(1),
        partition,
        config: Arc::new(LogConfig {
            compression,
            message_timestamp_after_max_ms: i64::MAX,
            ..LogConfig::default()
        }),
        visibility: Visibility::Ordinary,
    };
    dir.open_logs(vec![log]).expect("opens the log").remove(0)
}

fn megabytes_per_second(log: &PartitionLog, batches: &[Bytes], bytes: usize) -> f64 {
    let begun = Instant::now();
    let mut appended = 0;
    while begun.elapsed() < TAKES {
        for batch in batches {
            log.append(batch).expect("appends");
        }
        appended += bytes;
    }
    appended as f64 / 1e6 / begun.elapsed().as_secs_f64()
}

/// Records as a shop's payments are.
fn batch(number: u64, codec: Compression) -> Bytes {
    let mut batch = BatchBuilder::new(codec);
    for record in 0..RECORDS {
        let n = number * RECORDS + record;
        let random = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
        let value = format!(
            "{{\"transaction_id\":\"{:011x}\",\"customer_id\":{},\"amount\":{}.{:02},\
             \"currency\":\"EUR\",\"merchant\":\"shop-{}\",\"country\":\"{}\",\"card_present\":{},\
             \"time\":\"2026-11-20T12:{:02}:{:02}Z\"}}",
            random,
            random % 50_000,
            random % 900,
            random % 100,
            random % 800,
            ["CZ", "DE", "AT", "FR"][(random % 4) as usize],
            random.is_multiple_of(3),
            n / 60 % 60,
            n % 60,
        );
        let key = (random % 50_000).to_string();
        batch.push(n as i64, Some(key.as_bytes()), Some(value.as_bytes()), &[]);
    }
    batch.build()
}
