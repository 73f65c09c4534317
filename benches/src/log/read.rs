//! Reading a log from front to back, `READ_BYTES` at a time.
//!
//! What a read gives is a slice of the segment's memory map: nothing is copied yet, and that the pages
//! are in memory is already looked up. A fetch writes it to a socket. Two ends, the same in both loops:
//!
//! - *to a buffer*: the log's bytes are copied from the map to a buffer that is used again and again;
//!   the bare loop has `pread` copy them there;
//! - *to a socket*: the log's bytes are written from the map to a Unix socket, whose other end a thread
//!   reads and throws away; the bare loop does `pread` to a buffer and writes that.
//!
//! *First*: nobody has read the segment since the log was opened, so that its map has no pages yet.
//! *Again*: the same once more. *From the device*: nothing of the log is in the page cache; reads are loaded as
//! for a fetch, which compares each batch's checksum then. The bare loop does not.

use std::fs::File;
use std::io::{Read as _, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

use storage::partition_log::{Read, ReadLimit};
use storage::{LogConfig, PartitionLog};

use super::Options;
use super::figures::{Rounds, Took};
use super::fixture::{Ring, forget_pages, open_dir, open_log, segments};

/// What a read asks for: `max.partition.fetch.bytes` of Kafka's consumers.
const READ_BYTES: usize = 1 << 20;
const RECORD_BYTES: usize = 1 << 10;
const BATCH_BYTES: usize = 64 << 10;

/// Where the bytes go, or come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Buffer,
    Socket,
    FromDevice,
}

const ENDS: [End; 3] = [End::Buffer, End::Socket, End::FromDevice];

/// Prints the table.
pub fn run(options: &Options) {
    let folder = options.folder();
    let mut ring = Ring::new(RECORD_BYTES, BATCH_BYTES);
    let bytes = fill(folder.path(), &mut ring, options.bytes());
    let mut figures = <[[(Rounds, Rounds); 2]; 3]>::default();
    let mut buffer = vec![0; READ_BYTES];
    let (mut socket, mut other) = UnixStream::pair().expect("a socket");
    let drained = std::thread::spawn(move || {
        let mut buffer = vec![0; READ_BYTES];
        while other.read(&mut buffer).expect("reads the socket") > 0 {}
    });
    for round in 0..options.rounds {
        for (end, figures) in ENDS.iter().zip(&mut figures) {
            let cold = *end == End::FromDevice;
            let times = if cold { 1 } else { 2 };
            let mut took = [[Took::default(); 2]; 2];
            // Each goes first in every other round.
            for turn in [round % 2, 1 - round % 2] {
                if cold {
                    segments(folder.path())
                        .iter()
                        .for_each(|file| forget_pages(file));
                }
                let mut give = |bytes: &[u8]| match (end, turn) {
                    (End::Socket, _) => socket.write_all(bytes).expect("writes to the socket"),
                    (_, 0) => {
                        buffer[..bytes.len()].copy_from_slice(bytes);
                        std::hint::black_box(&buffer);
                    }
                    // It has them in its buffer.
                    _ => {}
                };
                if turn == 1 {
                    for took in &mut took[1][..times] {
                        took.add(|| read_bare(folder.path(), bytes, &mut give));
                    }
                    continue;
                }
                // A new map each round.
                let dir = open_dir(folder.path());
                let log = open_log(&dir, 0, LogConfig::default());
                for took in &mut took[0][..times] {
                    took.add(|| read_log(&log, &ring, bytes, &mut give));
                }
                drop(log);
                dir.shutdown().expect("stops");
            }
            let [ours, bare] = took;
            for ((ours, bare), (rates, cpu)) in ours.iter().zip(&bare).zip(figures).take(times) {
                rates.push(
                    ours.gigabytes_per_second(bytes),
                    bare.gigabytes_per_second(bytes),
                );
                cpu.push(ours.cpu_per_gigabyte(bytes), bare.cpu_per_gigabyte(bytes));
            }
        }
    }
    drop(socket);
    drained.join().expect("the socket was read");
    println!(
        "| sequential read | GB/s | bare pread | of bare | CPU-s/GB | bare |\n|---|---|---|---|---|---|"
    );
    let names = [
        ["to a buffer, first", "to a buffer, again"],
        ["to a socket, first", "to a socket, again"],
        ["to a buffer, from the device", ""],
    ];
    for (names, figures) in names.iter().zip(&figures) {
        for (name, (rates, cpu)) in names.iter().zip(figures) {
            if name.is_empty() {
                continue;
            }
            println!(
                "| {name} | {:.2} | {:.2} | {:.0} % | {:.3} | {:.3} |",
                rates.ours(),
                rates.bare(),
                rates.percent(),
                cpu.ours(),
                cpu.bare(),
            );
        }
    }
}

/// A log of about `bytes`, stopped cleanly; says how many they are.
fn fill(folder: &Path, ring: &mut Ring, bytes: u64) -> u64 {
    let dir = open_dir(folder);
    let log = open_log(&dir, 0, LogConfig::default());
    let mut written = 0;
    while written < bytes {
        for batch in ring.stamped() {
            log.append(batch).expect("appends");
            written += batch.len() as u64;
        }
    }
    dir.shutdown().expect("stops");
    written
}

fn read_log(log: &PartitionLog, ring: &Ring, bytes: u64, give: &mut impl FnMut(&[u8])) {
    let (mut offset, mut done) = (0, 0);
    while done < bytes {
        let read = log.read(offset, READ_BYTES, true, ReadLimit::HighWatermark);
        let records = match read.expect("reads") {
            Read::Warm(fetched) => fetched.records,
            Read::Cold(cold) => cold.load().expect("loads").records,
        };
        assert!(!records.is_empty(), "there is something at {offset}");
        done += records.len() as u64;
        // All batches are alike.
        offset += (records.len() / ring.batch_bytes) as i64 * ring.records;
        give(&records);
    }
    assert_eq!(done, bytes, "all was read");
}

fn read_bare(folder: &Path, bytes: u64, give: &mut impl FnMut(&[u8])) {
    let mut buffer = vec![0; READ_BYTES];
    let mut done = 0;
    for path in segments(folder) {
        let file = File::open(&path).expect("the segment opens");
        let mut position = 0;
        loop {
            let read = file.read_at(&mut buffer, position).expect("reads");
            if read == 0 {
                break;
            }
            give(&buffer[..read]);
            position += read as u64;
        }
        done += position;
    }
    assert_eq!(done, bytes, "all was read");
}
