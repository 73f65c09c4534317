//! Power cuts: whatever was not synced may be gone, cut short or zeros, in every file on its own.
//! What was synced has to be there, what follows has to be a prefix of what was appended, and the
//! producer has to be able to go on where the log ends.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use faulty_disk::{Keep, Random, write_tree};
use storage::LogConfig;
use storage::batch::{BatchBuilder, Compression};
use storage::partition_log::{DeleteTo, Durability, ReadLimit};

use crate::fixture::*;

const SEEDS: u64 = 10;

/// Puts what a power cut leaves in the place of what is there.
fn cut_power(disk: &FaultyDisk, path: &Path, seed: u64) {
    let left = disk.image().tree(Keep::Some(seed));
    fs::remove_dir_all(path).expect("removes");
    write_tree(&left, path).expect("writes");
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
        let mut random = Random::new(seed);
        let folder = tempfile::tempdir().expect("a folder");
        let config = LogConfig {
            segment_bytes: 2_000,
            ..small_segments()
        };
        let (mut start, mut durable) = (0, 0);
        let mut ends = vec![0];
        for round in 0..5 {
            let disk = FaultyDisk::over(folder.path());
            let dir = open_dir_on(Arc::new(disk.clone()), folder.path()).expect("opens the folder");
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
            for _ in 0..random.below(60) {
                let count = 1 + random.below(4) as i64;
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
                match random.below(20) {
                    0 => {
                        dir.checkpoint().expect("checkpoints");
                        durable = next;
                    }
                    1 | 2 => {
                        log.wait(next, Durability::Disk).await.expect("durable");
                        durable = next;
                    }
                    3 => {
                        start += random.below(4) as i64 * (next - start) / 3;
                        let to = DeleteTo::Offset(start);
                        let answers = dir.delete_records(&[(Arc::clone(&log), to)]);
                        assert_eq!(answers[0].as_ref().ok(), Some(&start), "{place}");
                        durable = durable.max(start);
                    }
                    _ => {}
                }
            }
            drop((log, dir));
            cut_power(&disk, folder.path(), random.next());
        }
    }
}

#[tokio::test]
async fn a_segment_that_could_not_be_made_does_not_come_back() {
    let folder = folder_in_memory();
    let disk = FaultyDisk::over(folder.path());
    let dir = open_dir_on(Arc::new(disk.clone()), folder.path()).expect("opens the folder");
    let log = open_log(&dir, small_segments());
    for number in 0..4 {
        log.append(&numbered(number * 8, 8)).expect("appends");
    }
    dir.checkpoint().expect("checkpoints");
    disk.fail(failing_creations());
    assert!(log.append(&numbered(32, 40)).is_err());
    disk.heal();
    // It fits into the segment before.
    log.append(&numbered(32, 1)).expect("appends");
    assert_eq!(files(folder.path(), "log").len(), 1);
    log.wait(33, Durability::Disk).await.expect("durable");
    let image = disk.image();
    drop((log, dir));
    for seed in 0..SEEDS {
        let folder = folder_in_memory();
        write_tree(&image.tree(Keep::Some(seed)), folder.path()).expect("writes");
        let dir = open_dir(folder.path());
        let log = open_log(&dir, small_segments());
        assert_eq!(log.offsets().log_end_offset, 33, "seed {seed}");
    }
}
