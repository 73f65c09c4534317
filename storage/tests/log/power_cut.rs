//! Power cuts: whatever was not synced may be gone, cut short or zeros, in every file on its own.
//! What was synced has to be there, what follows has to be a prefix of what was appended, and the
//! producer has to be able to go on where the log ends.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use storage::LogConfig;
use storage::batch::{BatchBuilder, Compression};
use storage::partition_log::{DeleteTo, Durability, ReadLimit};

use crate::fixture::*;

const SEEDS: u64 = 10;

/// The same numbers in every run, so that a failure can be looked at.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end.max(1)
    }
}

/// How much of each file is on the device.
type Synced = BTreeMap<PathBuf, u64>;

fn note(synced: &mut Synced, path: &Path, suffixes: &[&str]) {
    for file in suffixes.iter().flat_map(|suffix| files(path, suffix)) {
        let size = file.metadata().expect("is there").len();
        synced.insert(file, size);
    }
}

/// Segments that were deleted, of which a power cut may bring back each file on its own.
type Deleted = BTreeMap<PathBuf, Vec<u8>>;

fn contents(path: &Path) -> Deleted {
    ["log", "index", "timeindex"]
        .iter()
        .flat_map(|suffix| files(path, suffix))
        .map(|file| (file.clone(), fs::read(file).expect("reads")))
        .collect()
}

fn bring_back(deleted: &mut Deleted, numbers: &mut Numbers) {
    for (file, bytes) in std::mem::take(deleted) {
        if numbers.below(2) == 0 {
            fs::write(file, bytes).expect("writes");
        }
    }
}

fn cut_power(synced: &Synced, path: &Path, numbers: &mut Numbers) {
    for file in ["log", "index", "timeindex", "snapshot"]
        .iter()
        .flat_map(|s| files(path, s))
    {
        let mut bytes = fs::read(&file).expect("reads");
        let kept = synced.get(&file).copied();
        let from = kept.unwrap_or(0).min(bytes.len() as u64);
        let lost = (from + numbers.below(bytes.len() as u64 - from + 1)) as usize;
        // The folder's own entries are journaled in order: the first file does not go alone.
        let first = files(path, "log").first() == Some(&file);
        match numbers.below(4) {
            0 if kept.is_none() && !first => {
                fs::remove_file(&file).expect("removes");
                continue;
            }
            0 | 1 => bytes.truncate(lost),
            2 => bytes[lost..].fill(0),
            _ => {}
        }
        fs::write(&file, bytes).expect("writes");
    }
}

fn numbered(first: i64, count: i64) -> Bytes {
    let mut batch = BatchBuilder::new(Compression::None).producer(7, 0, first as i32);
    for number in first..first + count {
        batch.push(number, None, Some(&number.to_be_bytes()), &[]);
    }
    batch.build()
}

#[tokio::test]
async fn what_was_synced_survives_and_the_rest_is_a_prefix() {
    for seed in 0..SEEDS {
        let mut numbers = Numbers(seed);
        let folder = tempfile::tempdir().expect("a folder");
        let config = LogConfig {
            segment_bytes: 2_000,
            ..small_segments()
        };
        let mut synced = Synced::new();
        let mut deleted = Deleted::new();
        let (mut start, mut durable) = (0, 0);
        let mut ends = vec![0];
        for round in 0..5 {
            let disk = FaultyDisk::default();
            disk.faults.skip_syncs.store(true, Ordering::Relaxed);
            let dir = open_dir_on(Arc::new(disk), folder.path()).expect("opens the folder");
            let log = open_log(&dir, config.clone());
            let end = log.offsets().log_end_offset;
            let place = format!("seed {seed}, round {round}");
            assert!(
                durable <= end && ends.contains(&end),
                "{place}: {durable} <= {end}"
            );
            assert_eq!(log.offsets().log_start_offset, start, "{place}");
            let expected: Vec<_> = (start..end).map(|number| (number, number)).collect();
            let mut found = read_all(&log, start, 700);
            found.retain(|(offset, _)| *offset >= start);
            assert!(found == expected, "{place}: other records");
            for number in [start, start + (end - start) / 2, end - 1] {
                let found = log
                    .offset_for_timestamp(number, ReadLimit::HighWatermark)
                    .expect("looks up")
                    .map(|found| found.offset);
                assert_eq!(
                    found,
                    (start..end).contains(&number).then_some(number),
                    "{place}"
                );
            }
            ends.retain(|other| *other <= end);
            let mut next = end;
            for _ in 0..numbers.below(60) {
                let count = 1 + numbers.below(4) as i64;
                let appended = log
                    .append(&numbered(next, count))
                    .expect("the next sequence");
                assert_eq!(
                    (appended.base_offset, appended.duplicate),
                    (next, false),
                    "{place}"
                );
                next += count;
                ends.push(next);
                match numbers.below(20) {
                    0 => {
                        dir.checkpoint().expect("checkpoints");
                        note(
                            &mut synced,
                            folder.path(),
                            &["log", "index", "timeindex", "snapshot"],
                        );
                        durable = next;
                    }
                    1 | 2 => {
                        log.wait(next, Durability::Disk).await.expect("durable");
                        note(&mut synced, folder.path(), &["log"]);
                        durable = next;
                    }
                    3 => {
                        let before = contents(folder.path());
                        start += numbers.below(4) as i64 * (next - start) / 3;
                        let to = DeleteTo::Offset(start);
                        let answers = dir.delete_records(&[(Arc::clone(&log), to)]);
                        assert_eq!(answers[0].as_ref().ok(), Some(&start), "{place}");
                        let left = contents(folder.path());
                        let gone = before.into_iter().filter(|(f, _)| !left.contains_key(f));
                        let known = deleted.len();
                        deleted.extend(gone);
                        if deleted.len() > known {
                            note(
                                &mut synced,
                                folder.path(),
                                &["log", "index", "timeindex", "snapshot"],
                            );
                            durable = next;
                        } else if log.offsets().synced_offset == next {
                            note(&mut synced, folder.path(), &["log"]);
                            durable = next;
                        }
                    }
                    _ => {}
                }
            }
            drop((log, dir));
            bring_back(&mut deleted, &mut numbers);
            cut_power(&synced, folder.path(), &mut numbers);
        }
    }
}
