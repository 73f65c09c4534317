//! Consume without a broker: a file that is in the page cache is sent over a socket, to a thread that throws
//! it away.
//!
//! Left out: requests, framing, finding offsets.

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::Instant;

use memmap2::Mmap;

use super::{Moved, connection};
use crate::process::thread_cpu_seconds;

/// How bytes get from the file to the socket, and how many with each call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// `write` from a map of the file.
    Map(usize),
    /// `sendfile`.
    Sendfile(usize),
}

/// All that are tried.
pub const WAYS: [Way; 4] = [
    Way::Map(64 << 10),
    Way::Map(1 << 20),
    Way::Sendfile(64 << 10),
    Way::Sendfile(1 << 20),
];

/// A file to send, which goes with it.
#[derive(Debug)]
pub struct Source {
    path: PathBuf,
    bytes: u64,
}

impl Source {
    /// Of so many bytes, written just now.
    pub fn create(folder: &Path, bytes: u64) -> anyhow::Result<Self> {
        let source = Self {
            path: folder.join("bare-sent"),
            bytes,
        };
        let mut file = File::create(&source.path)?;
        let data: Vec<u8> = (0..1 << 20).map(|n: u32| (n * 31 / 7) as u8).collect();
        let mut left = bytes;
        while left > 0 {
            let part = left.min(data.len() as u64);
            file.write_all(&data[..part as usize])?;
            left -= part;
        }
        Ok(source)
    }

    /// Sends all of it.
    pub fn send(&self, way: Way) -> anyhow::Result<Moved> {
        let file = File::open(&self.path)?;
        let (mut client, mut server) = connection()?;
        std::thread::scope(|scope| {
            let reader = scope.spawn(move || -> std::io::Result<()> {
                let mut buffer = vec![0; 256 << 10];
                while client.read(&mut buffer)? > 0 {}
                Ok(())
            });
            let (began, cpu) = (Instant::now(), thread_cpu_seconds());
            match way {
                Way::Map(chunk) => {
                    // SAFETY: nobody shortens the file while it is mapped.
                    let map = unsafe { Mmap::map(&file)? };
                    map.chunks(chunk)
                        .try_for_each(|part| server.write_all(part))?;
                }
                Way::Sendfile(chunk) => sendfile(&file, &server, self.bytes, chunk)?,
            }
            let cpu_seconds = thread_cpu_seconds() - cpu;
            drop(server);
            reader.join().expect("the reader does not panic")?;
            Ok(Moved {
                bytes: self.bytes,
                seconds: began.elapsed().as_secs_f64(),
                cpu_seconds,
            })
        })
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

fn sendfile(file: &File, to: &TcpStream, bytes: u64, chunk: usize) -> anyhow::Result<()> {
    let mut offset = 0;
    while (offset as u64) < bytes {
        let (from, to) = (file.as_raw_fd(), to.as_raw_fd());
        // SAFETY: both descriptors are open; only `offset` is written.
        let sent = unsafe { libc::sendfile(to, from, &raw mut offset, chunk) };
        match sent {
            0 => anyhow::bail!("the file has become shorter"),
            1.. => {}
            _ => return Err(std::io::Error::last_os_error().into()),
        }
    }
    Ok(())
}
