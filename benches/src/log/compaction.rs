//! Compacting a log, by codec: JSON records of some 250 bytes in batches of 64 KiB before compression,
//! of whose keys about half have a newer record, anywhere behind. MB/s are of uncompressed records.
//!
//! The bare loop reads each batch once, compares its CRC-32C, opens it, puts every second record into a
//! new batch in the same codec and writes that; then `fdatasync`. It looks at no keys: compaction reads
//! the log twice, the first time for these.

use std::fmt::Write as _;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use bytes::Bytes;
use storage::batch::{Batch, BatchBuilder, Compression, Opened};
use storage::compaction::{CompactionStats, Compactor, CompactorConfig, Throttle};
use storage::{LogConfig, LogDir};

use super::Options;
use super::figures::{Rounds, Took};
use super::fixture::{open_dir, open_log};

const BATCH_BYTES: usize = 64 << 10;
const SEGMENT_BYTES: u64 = 4 << 20;
/// So many records for each key leave one of two.
const RECORDS_PER_KEY: f64 = 1.594;
const MAX_DECOMPRESSED_BYTES: usize = 16 << 20;

const CODECS: [(&str, Compression); 5] = [
    ("uncompressed", Compression::None),
    ("gzip", Compression::Gzip),
    ("snappy", Compression::Snappy),
    ("lz4", Compression::Lz4),
    ("zstd", Compression::Zstd),
];

/// Prints the table.
pub fn run(options: &Options) {
    println!(
        "| compaction of records that are | MB/s | bare | of bare | CPU-s/GB | bare |\n\
         |---|---|---|---|---|---|"
    );
    // Five codecs, and the slowest takes a second for 50 MB.
    let bytes = options.bytes() / 4;
    // Used again from log to log, as a cleaner thread does.
    let mut compactor = compactor();
    for (name, codec) in CODECS {
        let keyed = Keyed::new(codec, bytes);
        let (mut rates, mut cpu) = (Rounds::default(), Rounds::default());
        for _ in 0..options.rounds {
            let folder = options.folder();
            let dir = open_dir(folder.path());
            keyed.append(&dir, 0);
            let (ours, stats) = compact(&dir, &mut compactor);
            let done = keyed.record_bytes * stats.records_read;
            let bare = bare(folder.path(), &keyed);
            rates.push(
                ours.gigabytes_per_second(done) * 1e3,
                bare.gigabytes_per_second(keyed.bytes()) * 1e3,
            );
            cpu.push(
                ours.cpu_per_gigabyte(done),
                bare.cpu_per_gigabyte(keyed.bytes()),
            );
        }
        println!(
            "| {name} | {:.0} | {:.0} | {:.0} % | {:.2} | {:.2} |",
            rates.ours(),
            rates.bare(),
            rates.percent(),
            cpu.ours(),
            cpu.bare(),
        );
    }
}

/// Batches of a log that is to be compacted.
#[derive(Debug)]
pub struct Keyed {
    batches: Vec<Bytes>,
    records: u64,
    /// Of a record, uncompressed.
    record_bytes: u64,
    codec: Compression,
}

impl Keyed {
    /// About `bytes` of records before compression.
    pub fn new(codec: Compression, bytes: u64) -> Self {
        let mut value = String::new();
        let (mut batches, mut records, mut size) = (Vec::new(), 0_u64, 0);
        let keys = bytes as f64 / 256.0 / RECORDS_PER_KEY;
        while size < bytes {
            let mut batch = BatchBuilder::new(codec);
            while batch.size_in_bytes() < BATCH_BYTES {
                let random = (records + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                let random = (random ^ random >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 11;
                let key = format!("customer-{:010}", random % keys as u64);
                value.clear();
                let _ = write!(
                    value,
                    "{{\"transaction_id\":\"{random:016x}\",\"amount\":{}.{:02},\"currency\":\"EUR\",\
                     \"merchant\":\"shop-{}\",\"country\":\"{}\",\"card_present\":{},\"terminal\":\"{:08x}\",\
                     \"time\":\"2026-11-20T12:{:02}:{:02}Z\",\"note\":\"paid in the shop at the corner\"}}",
                    random % 900,
                    random % 100,
                    random % 800,
                    ["CZ", "DE", "AT", "FR"][(random % 4) as usize],
                    random.is_multiple_of(3),
                    random >> 21,
                    records / 60 % 60,
                    records % 60,
                );
                batch.push(
                    records as i64 + 1,
                    Some(key.as_bytes()),
                    Some(value.as_bytes()),
                    &[],
                );
                records += 1;
            }
            size += batch.size_in_bytes() as u64;
            batches.push(batch.build());
        }
        Self {
            batches,
            record_bytes: size / records,
            records,
            codec,
        }
    }

    /// Appends them to a new log, which is compacted next.
    pub fn append(&self, dir: &LogDir, partition: i32) {
        let config = LogConfig {
            compact: true,
            delete: false,
            segment_bytes: SEGMENT_BYTES,
            min_cleanable_dirty_ratio: 0.01,
            file_delete_delay_ms: 0,
            ..LogConfig::default()
        };
        let log = open_log(dir, partition, config);
        for batch in &self.batches {
            log.append(batch).expect("appends");
        }
        // Only what is on the device is compacted.
        dir.checkpoint().expect("checkpoints");
    }

    fn bytes(&self) -> u64 {
        self.record_bytes * self.records
    }
}

/// What a broker's cleaner thread has to work with.
pub fn compactor() -> Compactor {
    let throttle = Arc::new(Throttle::new(None));
    let stop = Arc::new(AtomicBool::new(false));
    Compactor::new(CompactorConfig::default(), throttle, stop)
}

/// Compacts the one log that needs it.
fn compact(dir: &LogDir, compactor: &mut Compactor) -> (Took, CompactionStats) {
    let mut took = Took::default();
    let compacted = took.add(|| dir.compact_next(compactor));
    let compacted = compacted.expect("a log is to be compacted");
    let stats = compacted.outcome.expect("it is compacted");
    let kept = stats.records_kept * 100 / stats.records_read;
    assert!((40..60).contains(&kept), "{kept} % of the records are kept");
    (took, stats)
}

fn bare(folder: &Path, keyed: &Keyed) -> Took {
    let path = folder.join("before");
    let before = File::create_new(&path).expect("the file is created");
    let mut position = 0;
    for batch in &keyed.batches {
        before.write_all_at(batch, position).expect("writes");
        position += batch.len() as u64;
    }
    before.sync_data().expect("syncs");
    let before = File::open(&path).expect("the file opens");
    let after = File::create_new(folder.join("after")).expect("the file is created");
    let mut took = Took::default();
    took.add(|| {
        let (mut read, mut written) = (0, 0);
        for batch in &keyed.batches {
            let mut bytes = vec![0; batch.len()];
            before.read_exact_at(&mut bytes, read).expect("reads");
            read += bytes.len() as u64;
            let rewritten = every_second(&Bytes::from(bytes), keyed.codec);
            after.write_all_at(&rewritten, written).expect("writes");
            written += rewritten.len() as u64;
        }
        after.sync_data().expect("syncs");
    });
    took
}

fn every_second(batch: &Bytes, codec: Compression) -> Bytes {
    let mut rewritten = BatchBuilder::new(codec);
    let opened = Opened::open(batch, MAX_DECOMPRESSED_BYTES).expect("the batch opens");
    for record in opened.records().step_by(2) {
        let record = record.expect("a record");
        rewritten.push(
            record.timestamp,
            record.key.as_deref(),
            record.value.as_deref(),
            &record.headers,
        );
    }
    let rewritten = rewritten.build();
    assert!(Batch::parse(&rewritten).is_ok(), "a batch");
    rewritten
}
