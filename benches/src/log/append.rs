//! Appends: one thread, a batch at a time, as a produce request does it: checked, given an offset and
//! written. *Page cache*: as fast as it goes. *Disk*: after every `GROUP_BYTES` it waits until all
//! is on the device.
//!
//! The bare loop computes and compares each batch's CRC-32C and writes it to a file with one `pwrite`,
//! to a new file wherever a segment would roll; after every `GROUP_BYTES` it runs `fdatasync` where
//! the log waits. It looks at no record, has no index, no offsets and no readers.
//!
//! Batches come from memory, the same ones again and again; between two rounds through them, which is
//! not measured, they get new timestamps.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use bytes::Bytes;
use storage::partition_log::Durability;
use storage::{LogConfig, PartitionLog};

use super::Options;
use super::figures::{Rounds, Took};
use super::fixture::{Ring, crc_is_right, open_dir, open_log};

/// Bytes between two waits for the disk.
const GROUP_BYTES: u64 = 8 << 20;

/// Bytes of a record's value, and of a batch.
const SHAPES: [(usize, usize); 5] = [
    (100, 64 << 10),
    (1 << 10, 64 << 10),
    // The value and what goes around it.
    (64 << 10, 65 << 10),
    (1 << 10, 1 << 10),
    (100, 100),
];

/// Prints the table.
pub fn run(options: &Options) {
    println!(
        "| append to | records of | batches of | GB/s | bare | of bare | CPU-s/GB | bare |\n\
         |---|---|---|---|---|---|---|---|"
    );
    for durable in [false, true] {
        for (record_bytes, batch_bytes) in SHAPES {
            let mut ring = Ring::new(record_bytes, batch_bytes);
            // Small batches take their time.
            let bytes = match ring.batch_bytes {
                0..4096 => options.bytes() / 8,
                _ => options.bytes(),
            };
            let (mut rates, mut cpu) = (Rounds::default(), Rounds::default());
            for round in 0..options.rounds {
                let mut took = [Took::default(); 2];
                // Each goes first in every other round.
                for turn in [round % 2, 1 - round % 2] {
                    let folder = options.folder();
                    took[turn] = match turn {
                        0 => log(folder.path(), &mut ring, bytes, durable),
                        _ => bare(folder.path(), &mut ring, bytes, durable),
                    };
                }
                let [ours, bare] = took;
                rates.push(
                    ours.gigabytes_per_second(bytes),
                    bare.gigabytes_per_second(bytes),
                );
                cpu.push(ours.cpu_per_gigabyte(bytes), bare.cpu_per_gigabyte(bytes));
            }
            println!(
                "| {} | {record_bytes} B | {} B | {:.2} | {:.2} | {:.0} % | {:.3} | {:.3} |",
                if durable { "disk" } else { "page cache" },
                ring.batch_bytes,
                rates.ours(),
                rates.bare(),
                rates.percent(),
                cpu.ours(),
                cpu.bare(),
            );
        }
    }
}

/// Appends `bytes`, about, and returns what exactly `bytes` of it would have taken.
fn measure(
    ring: &mut Ring,
    bytes: u64,
    mut append: impl FnMut(&Bytes),
    mut wait: impl FnMut(),
) -> Took {
    let mut took = Took::default();
    let (mut done, mut unsynced) = (0, 0);
    while done < bytes {
        let of_ring = ring.bytes();
        let batches = ring.stamped();
        took.add(|| {
            for batch in batches {
                append(batch);
            }
        });
        done += of_ring;
        unsynced += of_ring;
        if unsynced >= GROUP_BYTES || done >= bytes {
            unsynced = 0;
            took.add(&mut wait);
        }
    }
    let scale = bytes as f64 / done as f64;
    Took {
        wall: took.wall.mul_f64(scale),
        cpu: took.cpu.mul_f64(scale),
    }
}

fn log(folder: &Path, ring: &mut Ring, bytes: u64, durable: bool) -> Took {
    let dir = open_dir(folder);
    let log = open_log(&dir, 0, LogConfig::default());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    let append = |batch: &Bytes| {
        log.append(batch).expect("appends");
    };
    let wait = || {
        if durable {
            runtime.block_on(wait_for_disk(&log));
        }
    };
    measure(ring, bytes, append, wait)
}

async fn wait_for_disk(log: &PartitionLog) {
    let end = log.offsets().log_end_offset;
    log.wait(end, Durability::Disk).await.expect("syncs");
}

fn bare(folder: &Path, ring: &mut Ring, bytes: u64, durable: bool) -> Took {
    let create = |number: u64| {
        File::create_new(folder.join(number.to_string())).expect("the file is created")
    };
    let segment_bytes = LogConfig::default().segment_bytes;
    // Both halves of the loop use the file.
    let state = std::cell::RefCell::new((create(0), 0, 0));
    let append = |batch: &Bytes| {
        let mut state = state.borrow_mut();
        let (file, number, position) = &mut *state;
        assert!(crc_is_right(batch), "the batch is sound");
        if *position + batch.len() as u64 > segment_bytes {
            *number += 1;
            *position = 0;
            *file = create(*number);
        }
        file.write_all_at(batch, *position).expect("writes");
        *position += batch.len() as u64;
    };
    let wait = || {
        if durable {
            state.borrow().0.sync_data().expect("syncs");
        }
    };
    measure(ring, bytes, append, wait)
}
