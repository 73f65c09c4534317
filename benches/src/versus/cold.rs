//! Dropping a topic from the page cache, so that it is read from the device.
//!
//! The kernel keeps pages that a process has mapped, whatever it is advised about the file; Milena maps
//! its segments. So the pages are first taken out of the broker's maps (`process_madvise` with
//! `MADV_PAGEOUT`, which needs root or the same user and `CAP_SYS_NICE`), and then dropped. What is still
//! there afterwards is counted with `mincore`: more than a few percent are an error.

use std::fs::{self, File};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::ensure;
use memmap2::Mmap;

use super::broker::Broker;

/// What part of the log may be left.
const LEFT: f64 = 0.03;
/// Pages under write-back or just read are not always dropped at once.
const TRIES: usize = 10;

/// Drops all segments of a topic.
pub fn forget(broker: &Broker, topic: &str) -> anyhow::Result<()> {
    let segments = broker.segments(topic)?;
    ensure!(!segments.is_empty(), "topic {topic} has no segments");
    let mut left = 1.0;
    for _ in 0..TRIES {
        for segment in &segments {
            let file = File::open(segment)?;
            file.sync_all()?;
            page_out(broker.pid, segment)?;
            // SAFETY: the descriptor is open; the call changes no memory of ours.
            unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
        }
        left = resident(&segments)?;
        if left <= LEFT {
            return Ok(());
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    anyhow::bail!(
        "{:.0} % of topic {topic} stay in the page cache",
        left * 100.0
    )
}

/// Takes a file's pages out of all maps that a process has of it.
fn page_out(pid: u32, path: &Path) -> anyhow::Result<()> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let ranges = maps.lines().filter_map(|line| range_of(line, path));
    let ranges: Vec<(usize, usize)> = ranges.collect();
    if ranges.is_empty() {
        return Ok(());
    }
    // SAFETY: the call has no memory effects; its result is checked.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid as libc::pid_t, 0) };
    ensure!(fd >= 0, "pidfd_open: {}", std::io::Error::last_os_error());
    // SAFETY: the descriptor is open, and nobody else has it.
    let process = unsafe { OwnedFd::from_raw_fd(fd as i32) };
    for (start, end) in ranges {
        let range = libc::iovec {
            iov_base: start as *mut libc::c_void,
            iov_len: end - start,
        };
        // SAFETY: `range` is only read. Its addresses are the other process's, whose pages stay what they
        // are: they are read from the file again.
        let advised = unsafe {
            libc::syscall(
                libc::SYS_process_madvise,
                process.as_raw_fd(),
                &raw const range,
                1_usize,
                libc::MADV_PAGEOUT,
                0_u32,
            )
        };
        let error = std::io::Error::last_os_error();
        ensure!(advised >= 0, "process_madvise: {error}");
    }
    Ok(())
}

/// The addresses of a line of `/proc/<pid>/maps` that is about this file.
fn range_of(line: &str, path: &Path) -> Option<(usize, usize)> {
    line.ends_with(path.to_str()?).then_some(())?;
    let (start, end) = line.split_once(' ')?.0.split_once('-')?;
    let parse = |text| usize::from_str_radix(text, 16).ok();
    Some((parse(start)?, parse(end)?))
}

/// What part of the files is in the page cache.
fn resident(files: &[PathBuf]) -> anyhow::Result<f64> {
    let (mut there, mut all) = (0, 0);
    for path in files {
        let file = File::open(path)?;
        if file.metadata()?.len() == 0 {
            continue;
        }
        // SAFETY: the map is not read; what the file's pages are doesn't matter.
        let map = unsafe { Mmap::map(&file)? };
        let mut pages = vec![0_u8; map.len().div_ceil(4096)];
        // SAFETY: the map's pages are as many as `pages` has bytes, one for each.
        let result = unsafe {
            libc::mincore(
                map.as_ptr().cast_mut().cast(),
                map.len(),
                pages.as_mut_ptr().cast(),
            )
        };
        ensure!(result == 0, "mincore: {}", std::io::Error::last_os_error());
        there += pages.iter().filter(|page| **page & 1 == 1).count();
        all += pages.len();
    }
    ensure!(all > 0, "the files are empty");
    Ok(there as f64 / all as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_those_of_the_file() {
        let line = "7f00a000-7f00c000 r--s 00000000 fe:00 1234    /tmp/data/t-0/0.log";
        let found = range_of(line, Path::new("/tmp/data/t-0/0.log"));
        assert_eq!(found, Some((0x7f00_a000, 0x7f00_c000)));
        assert_eq!(range_of(line, Path::new("/tmp/data/t-0/1.log")), None);
    }
}
