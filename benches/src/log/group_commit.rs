//! Small appends that wait for the disk: groups of batches of one 1 KiB record are appended, and the
//! last of each group is waited for with `acks=all` on the disk. One sync serves the group, as it does
//! when so many producers send at the same time.
//!
//! The bare loop computes each batch's CRC-32C, writes it with one `pwrite`, and runs one `fdatasync`
//! for each group.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use storage::LogConfig;
use storage::partition_log::Durability;

use super::Options;
use super::figures::Rounds;
use super::fixture::{Ring, crc_is_right, open_dir, open_log};

const RECORD_BYTES: usize = 1 << 10;
const GROUPS: [usize; 4] = [1, 8, 64, 512];

/// Prints the table.
pub fn run(options: &Options) {
    println!(
        "| waiting for the disk in groups of | appends/s | bare fdatasync | of bare |\n|---|---|---|---|"
    );
    // Four groups of two measurements each make a round.
    let time = Duration::from_secs_f64(options.seconds / 4.0);
    for group in GROUPS {
        let mut ring = Ring::new(RECORD_BYTES, RECORD_BYTES);
        let mut rates = Rounds::default();
        for round in 0..options.rounds {
            let mut rate = [0.0; 2];
            for turn in [round % 2, 1 - round % 2] {
                let folder = options.folder();
                rate[turn] = match turn {
                    0 => log(folder.path(), &mut ring, group, time),
                    _ => bare(folder.path(), &mut ring, group, time),
                };
            }
            rates.push(rate[0], rate[1]);
        }
        println!(
            "| {group} | {:.0} | {:.0} | {:.0} % |",
            rates.ours(),
            rates.bare(),
            rates.percent()
        );
    }
}

/// How often a second `commit` appends and syncs one batch of so many.
fn rate(
    ring: &mut Ring,
    group: usize,
    time: Duration,
    mut commit: impl FnMut(&[bytes::Bytes]),
) -> f64 {
    let (mut appends, mut took) = (0, Duration::ZERO);
    while took < time {
        for batches in ring.stamped().chunks_exact(group) {
            let begun = Instant::now();
            commit(batches);
            took += begun.elapsed();
            appends += group;
            if took >= time {
                break;
            }
        }
    }
    appends as f64 / took.as_secs_f64()
}

fn log(folder: &Path, ring: &mut Ring, group: usize, time: Duration) -> f64 {
    let dir = open_dir(folder);
    let log = open_log(&dir, 0, LogConfig::default());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    rate(ring, group, time, |batches| {
        for batch in batches {
            log.append(batch).expect("appends");
        }
        let end = log.offsets().log_end_offset;
        runtime
            .block_on(log.wait(end, Durability::Disk))
            .expect("syncs");
    })
}

fn bare(folder: &Path, ring: &mut Ring, group: usize, time: Duration) -> f64 {
    let file = File::create_new(folder.join("bare")).expect("the file is created");
    let mut position = 0;
    rate(ring, group, time, |batches| {
        for batch in batches {
            assert!(crc_is_right(batch), "the batch is sound");
            file.write_all_at(batch, position).expect("writes");
            position += batch.len() as u64;
        }
        file.sync_data().expect("syncs");
    })
}
