//! Produce without a broker: what comes over a socket is read into one buffer, its CRC-32C is computed,
//! and it is written to a new file in the page cache.
//!
//! Left out: framing, looking at the batches, indexes, answers.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::time::Instant;

use anyhow::ensure;

use super::{Moved, connection};
use crate::process::thread_cpu_seconds;

/// Sizes of the buffer that are tried.
pub const BUFFERS: [usize; 3] = [64 << 10, 256 << 10, 1 << 20];

/// Moves so many bytes into a file in `folder`, which is removed afterwards.
pub fn run(folder: &Path, bytes: u64, buffer_bytes: usize) -> anyhow::Result<Moved> {
    let (mut client, mut server) = connection()?;
    let path = folder.join("bare-received");
    let mut file = File::create(&path)?;
    let mut buffer = vec![0; buffer_bytes];
    let moved = std::thread::scope(|scope| {
        scope.spawn(move || {
            let data: Vec<u8> = (0..1 << 20).map(|n: u32| (n * 31 / 7) as u8).collect();
            let mut left = bytes;
            while left > 0 {
                let part = left.min(data.len() as u64);
                // The other end fails where this does.
                if client.write_all(&data[..part as usize]).is_err() {
                    return;
                }
                left -= part;
            }
        });
        let (began, cpu) = (Instant::now(), thread_cpu_seconds());
        let (mut moved, mut crc) = (0, 0);
        while moved < bytes {
            // As large writes as the buffer allows.
            let want = (bytes - moved).min(buffer_bytes as u64) as usize;
            server.read_exact(&mut buffer[..want])?;
            crc = crc32c::crc32c_append(crc, &buffer[..want]);
            file.write_all(&buffer[..want])?;
            moved += want as u64;
        }
        ensure!(std::hint::black_box(crc) != 0, "a CRC of everything");
        Ok(Moved {
            bytes,
            seconds: began.elapsed().as_secs_f64(),
            cpu_seconds: thread_cpu_seconds() - cpu,
        })
    });
    std::fs::remove_file(path)?;
    moved
}
