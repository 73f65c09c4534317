//! Reading a log from front to back, [`READ_BYTES`] at a time, from the page cache.
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
//! *Again*: the same once more.

use std::fs::File;
use std::io::{Read as _, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

use bytes::Bytes;
use storage::partition_log::{Read, ReadLimit};
use storage::{LogConfig, PartitionLog};

use super::Options;
use super::figures::{Rounds, Took};
use super::fixture::{Ring, open_dir, open_log, segments};

/// What a read asks for: `max.partition.fetch.bytes` of Kafka's consumers.
const READ_BYTES: usize = 1 << 20;
const RECORD_BYTES: usize = 1 << 10;
const BATCH_BYTES: usize = 64 << 10;

/// Prints the table.
pub fn run(options: &Options) {
    let folder = options.folder();
    let mut ring = Ring::new(RECORD_BYTES, BATCH_BYTES);
    let bytes = fill(folder.path(), &mut ring, options.bytes());
    let mut figures = <[[(Rounds, Rounds); 2]; 2]>::default();
    let mut buffer = vec![0; READ_BYTES];
    let (mut socket, mut other) = UnixStream::pair().expect("a socket");
    let drained = std::thread::spawn(move || {
        let mut buffer = vec![0; READ_BYTES];
        while other.read(&mut buffer).expect("reads the socket") > 0 {}
    });
    for _ in 0..options.rounds {
        for to_socket in [false, true] {
            let mut give = |bytes: Bytes| match to_socket {
                false => {
                    buffer[..bytes.len()].copy_from_slice(&bytes);
                    std::hint::black_box(&buffer);
                }
                true => socket.write_all(&bytes).expect("writes to the socket"),
            };
            // A new map each round.
            let dir = open_dir(folder.path());
            let log = open_log(&dir, 0, LogConfig::default());
            let mut took = [Took::default(); 2];
            for took in &mut took {
                took.add(|| read_log(&log, &ring, bytes, &mut give));
            }
            drop(log);
            dir.shutdown().expect("stops");
            let mut give = |bytes: &[u8]| {
                if to_socket {
                    socket.write_all(bytes).expect("writes to the socket");
                }
            };
            for (again, ours) in took.into_iter().enumerate() {
                let mut bare = Took::default();
                bare.add(|| read_bare(folder.path(), bytes, &mut give));
                let (rates, cpu) = &mut figures[usize::from(to_socket)][again];
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
    for (figures, end) in figures.iter().zip(["to a buffer", "to a socket"]) {
        for ((rates, cpu), time) in figures.iter().zip(["first", "again"]) {
            println!(
                "| {end}, {time} | {:.2} | {:.2} | {:.0} % | {:.3} | {:.3} |",
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

fn read_log(log: &PartitionLog, ring: &Ring, bytes: u64, give: &mut impl FnMut(Bytes)) {
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
        give(records);
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
