//! Lookups of random offsets and timestamps in a log of 100 segments of 1 GiB.
//!
//! Each segment has 1,024 batches of 8 KiB, between two large ones whose value is a hole in the file: so
//! it takes 800 MB of the disk, and 20 KiB for each segment's indexes. Headers, checksums and indexes are
//! as an append leaves them.
//!
//! *Offset*: the log finds the batch that has the offset and reads its header; the bare loop reads the
//! header with `pread` from a file that is open, at a position that it knows. *Timestamp*: the log finds
//! the first record that is as late, for which it reads a batch and compares its checksum; the bare loop
//! reads that batch with `pread` and computes CRC-32C. *First*: after a clean stop and a start, with
//! nothing of the log in the page cache. *Again*: the same lookups once more.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use storage::batch::{Batch, BatchBuilder, Compression, layout};
use storage::partition_log::{Read, ReadLimit};
use storage::producer_state::ProducerState;
use storage::{LogConfig, PartitionLog};

use super::Options;
use super::figures::Rounds;
use super::fixture::{
    BatchCrc, TOPIC, crc_is_right, files, forget_pages, open_dir, open_log, segments,
};
use crate::statistics::median;

const SEGMENTS: u64 = 100;
const SEGMENT_BYTES: u64 = 1 << 30;
const BATCH_BYTES: usize = 8 << 10;
/// Small ones in each segment.
const BATCHES: u64 = 1_024;
/// Of each large one, of which there is one before the others and one behind.
const LARGE_BYTES: usize = (SEGMENT_BYTES as usize - BATCHES as usize * BATCH_BYTES) / 2;
/// In each small batch.
const RECORDS: i64 = 20;
/// Between two records, of which a large batch has one.
const RECORD_MS: i64 = 10;
/// Offsets of a segment.
const OFFSETS: i64 = BATCHES as i64 * RECORDS + 2;
/// The first record's timestamp.
const BEGAN_MS: i64 = 1_700_000_000_000;
const LOOKUPS: usize = 2_000;

/// Prints the table.
pub fn run(options: &Options) {
    let folder = options.folder();
    write(folder.path());
    let names = [
        "offset, first",
        "offset, again",
        "timestamp, first",
        "timestamp, again",
    ];
    let mut rates: [Rounds; 4] = Default::default();
    let mut opened_ms = Vec::new();
    for round in 0..options.rounds {
        let wanted = wanted(round as u64);
        for by_time in [false, true] {
            forget(folder.path());
            let begun = Instant::now();
            let dir = open_dir(folder.path());
            assert!(dir.was_clean(), "the stop was clean");
            let config = LogConfig {
                segment_bytes: SEGMENT_BYTES,
                ..LogConfig::default()
            };
            let log = open_log(&dir, 0, config);
            opened_ms.push(begun.elapsed().as_secs_f64() * 1e3);
            let look = |log: &PartitionLog| match by_time {
                false => wanted.iter().for_each(|place| look_up_offset(log, *place)),
                true => wanted.iter().for_each(|place| look_up_time(log, *place)),
            };
            let ours = [per_second(|| look(&log)), per_second(|| look(&log))];
            drop(log);
            dir.shutdown().expect("stops");
            drop(dir);
            forget(folder.path());
            let open = |path: &std::path::PathBuf| File::open(path).expect("the segment opens");
            let files: Vec<File> = segments(folder.path()).iter().map(open).collect();
            let look = || {
                wanted
                    .iter()
                    .for_each(|place| look_bare(&files, *place, by_time))
            };
            let bare = [per_second(look), per_second(look)];
            for again in 0..2 {
                rates[2 * usize::from(by_time) + again].push(ours[again], bare[again]);
            }
        }
    }
    println!(
        "| lookups in a sparse log of 100 GB | per second | bare pread | of bare |\n|---|---|---|---|"
    );
    for (name, rates) in names.iter().zip(&rates) {
        println!(
            "| {name} | {:.0} | {:.0} | {:.0} % |",
            rates.ours(),
            rates.bare(),
            rates.percent()
        );
    }
    println!("| opening it, ms | {:.1} | | |", median(&opened_ms));
}

/// A segment, a small batch in it and a record in that.
type Place = (u64, u64, i64);

fn offset_of((segment, batch, record): Place) -> i64 {
    segment as i64 * OFFSETS + 1 + batch as i64 * RECORDS + record
}

fn time_of(offset: i64) -> i64 {
    BEGAN_MS + offset * RECORD_MS
}

fn wanted(seed: u64) -> Vec<Place> {
    let mut random = seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut next = |below: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % below
    };
    (0..LOOKUPS)
        .map(|_| (next(SEGMENTS), next(BATCHES), next(RECORDS as u64) as i64))
        .collect()
}

fn per_second(look: impl FnOnce()) -> f64 {
    let begun = Instant::now();
    look();
    LOOKUPS as f64 / begun.elapsed().as_secs_f64()
}

fn look_up_offset(log: &PartitionLog, place: Place) {
    let offset = offset_of(place);
    // So small a read comes to nothing when it has found its batch.
    let found = match log.read(offset, 1, false, ReadLimit::HighWatermark) {
        Ok(Read::Warm(found)) => Ok(found),
        Ok(Read::Cold(cold)) => cold.load(),
        Err(error) => Err(error),
    };
    assert!(
        found.expect("the offset is found").records.is_empty(),
        "nothing is read"
    );
}

fn look_up_time(log: &PartitionLog, place: Place) {
    let offset = offset_of(place);
    let time = time_of(offset);
    let found = log.offset_for_timestamp(time, ReadLimit::HighWatermark);
    let found = found
        .expect("the timestamp is looked up")
        .map(|found| found.offset);
    assert_eq!(found, Some(offset), "at {time}");
}

fn look_bare(files: &[File], (segment, batch, _): Place, by_time: bool) {
    let file = &files[segment as usize];
    let position = LARGE_BYTES as u64 + batch * BATCH_BYTES as u64;
    let mut found = [0; BATCH_BYTES];
    let found = &mut found[..if by_time {
        BATCH_BYTES
    } else {
        layout::RECORDS
    }];
    file.read_exact_at(found, position).expect("reads");
    let base = i64::from_be_bytes(found[..8].try_into().expect("8 bytes"));
    assert_eq!(base, offset_of((segment, batch, 0)), "the batch is there");
    assert!(!by_time || crc_is_right(found), "the batch is sound");
}

fn forget(folder: &Path) {
    for suffix in ["log", "index", "timeindex"] {
        files(folder, suffix)
            .iter()
            .for_each(|file| forget_pages(file));
    }
}

/// A batch of exactly `size` bytes. All but its first `records - 1` records' values are zeros.
fn batch(records: i64, size: usize) -> Bytes {
    let build = |filler: usize| {
        let mut batch = BatchBuilder::new(Compression::None);
        for record in 0..records {
            let last = record == records - 1;
            let value = vec![u8::from(!last); if last { filler } else { size / 64 }];
            batch.push(record * RECORD_MS, Some(b"key"), Some(&value), &[]);
        }
        batch.build()
    };
    let filler = size / 2;
    let batch = build(filler + size - build(filler).len());
    assert_eq!(batch.len(), size, "a batch of just that size");
    batch
}

/// Writes the log into a data folder that was stopped cleanly.
fn write(folder: &Path) {
    let leader_epoch = {
        let dir = open_dir(folder);
        let log = open_log(&dir, 0, LogConfig::default());
        dir.shutdown().expect("stops");
        log.leader_epoch()
    };
    for suffix in ["log", "index", "timeindex", "snapshot"] {
        for file in files(folder, suffix) {
            std::fs::remove_file(file).expect("an empty log's file goes");
        }
    }
    let partition = folder.join(format!("{TOPIC}-0"));
    let mut large = Made::of(&batch(1, LARGE_BYTES));
    let mut small = Made::of(&batch(RECORDS, BATCH_BYTES));
    for segment in 0..SEGMENTS {
        let base = segment as i64 * OFFSETS;
        let name = partition.join(format!("{base:020}"));
        let mut files = Segment {
            log: File::create_new(name.with_extension("log")).expect("a segment"),
            base,
            leader_epoch,
            position: 0,
            index: Vec::new(),
            time_index: Vec::new(),
        };
        files.append(&mut large);
        for _ in 0..BATCHES {
            files.append(&mut small);
        }
        files.append(&mut large);
        files
            .log
            .set_len(SEGMENT_BYTES)
            .expect("it ends with a hole");
        std::fs::write(name.with_extension("index"), files.index).expect("writes");
        std::fs::write(name.with_extension("timeindex"), files.time_index).expect("writes");
    }
    let end = SEGMENTS as i64 * OFFSETS;
    let snapshot = partition.join(format!("{end:020}.snapshot"));
    std::fs::write(snapshot, ProducerState::new().encode_snapshot()).expect("writes");
}

/// A batch to be written again and again.
struct Made {
    /// All but the zeros in the end.
    bytes: BytesMut,
    size: usize,
    offsets: i64,
    crc: BatchCrc,
}

impl Made {
    fn of(batch: &Bytes) -> Self {
        let hole = batch
            .iter()
            .rposition(|byte| *byte != 0)
            .map_or(0, |last| last + 1);
        let parsed = Batch::parse(batch).expect("a batch");
        Self {
            // A small one is written as it is.
            bytes: BytesMut::from(&batch[..hole.max(BATCH_BYTES)]),
            size: batch.len(),
            offsets: i64::from(parsed.last_offset_delta()) + 1,
            crc: BatchCrc::of(std::slice::from_ref(batch)).remove(0),
        }
    }
}

/// A segment that is being written.
struct Segment {
    log: File,
    base: i64,
    leader_epoch: i32,
    position: u64,
    index: Vec<u8>,
    time_index: Vec<u8>,
}

impl Segment {
    fn append(&mut self, batch: &mut Made) {
        let offset = match self.index.len() / 8 {
            0 if self.position == 0 => self.base,
            entries => self.base + 1 + entries as i64 * RECORDS,
        };
        let last = offset + batch.offsets - 1;
        batch
            .crc
            .stamp(&mut batch.bytes, time_of(offset), time_of(last));
        batch.bytes[..8].copy_from_slice(&offset.to_be_bytes());
        batch.bytes[layout::PARTITION_LEADER_EPOCH..layout::MAGIC]
            .copy_from_slice(&self.leader_epoch.to_be_bytes());
        self.log
            .write_all_at(&batch.bytes, self.position)
            .expect("writes");
        // Every batch but the first has an entry: the one before it was large enough.
        if self.position > 0 {
            let relative = (last - self.base) as u32;
            self.index.extend_from_slice(&relative.to_be_bytes());
            self.index
                .extend_from_slice(&(self.position as u32).to_be_bytes());
            self.time_index
                .extend_from_slice(&time_of(last).to_be_bytes());
            self.time_index.extend_from_slice(&relative.to_be_bytes());
        }
        self.position += batch.size as u64;
    }
}
