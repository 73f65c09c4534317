//! A start after an unclean stop, before any checkpoint: every batch of the log is looked at.
//!
//! *Page cache*: the log is in memory, as after a `kill -9`. *Device*: it is not, as after a power cut.
//! The bare loop reads the file with `pread`, 1 MiB at a time, and computes CRC-32C over it.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use storage::LogConfig;

use super::Options;
use super::figures::{Rounds, Took};
use super::fixture::{Ring, forget_pages, open_dir, open_log, segments};

const RECORD_BYTES: usize = 1 << 10;
const BATCH_BYTES: usize = 64 << 10;
const READ_BYTES: usize = 1 << 20;

/// Prints the table.
pub fn run(options: &Options) {
    println!(
        "| recovery of a log in the | GB/s | bare pread + crc32c | of bare | CPU-s/GB | bare |\n\
         |---|---|---|---|---|---|"
    );
    let mut ring = Ring::new(RECORD_BYTES, BATCH_BYTES);
    let mut bytes = 0;
    let folder = options.folder();
    {
        let dir = open_dir(folder.path());
        let log = open_log(&dir, 0, LogConfig::default());
        while bytes < options.bytes() {
            for batch in ring.stamped() {
                log.append(batch).expect("appends");
                bytes += batch.len() as u64;
            }
        }
        // Nothing is stopped: the next start is an unclean one.
    }
    for cold in [false, true] {
        let (mut rates, mut cpu) = (Rounds::default(), Rounds::default());
        for round in 0..options.rounds {
            let mut took = [Took::default(); 2];
            // Each goes first in every other round.
            for turn in [round % 2, 1 - round % 2] {
                let files = segments(folder.path());
                for file in &files {
                    match cold {
                        true => forget_pages(file),
                        false => bare(file),
                    }
                }
                took[turn].add(|| match turn {
                    0 => recover(folder.path()),
                    _ => files.iter().for_each(|file| bare(file)),
                });
            }
            let [ours, bare] = took;
            rates.push(
                ours.gigabytes_per_second(bytes),
                bare.gigabytes_per_second(bytes),
            );
            cpu.push(ours.cpu_per_gigabyte(bytes), bare.cpu_per_gigabyte(bytes));
        }
        println!(
            "| {} | {:.2} | {:.2} | {:.0} % | {:.3} | {:.3} |",
            if cold { "device" } else { "page cache" },
            rates.ours(),
            rates.bare(),
            rates.percent(),
            cpu.ours(),
            cpu.bare(),
        );
    }
}

fn recover(folder: &Path) {
    let dir = open_dir(folder);
    assert!(!dir.was_clean(), "the stop was unclean");
    let log = open_log(&dir, 0, LogConfig::default());
    assert!(log.offsets().log_end_offset > 0, "the log is there");
}

fn bare(path: &Path) {
    let file = File::open(path).expect("the segment opens");
    let mut buffer = vec![0; READ_BYTES];
    let mut position = 0;
    loop {
        let read = file.read_at(&mut buffer, position).expect("reads");
        if read == 0 {
            return;
        }
        std::hint::black_box(crc32c::crc32c(&buffer[..read]));
        position += read as u64;
    }
}
