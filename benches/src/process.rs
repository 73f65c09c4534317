//! What the kernel says of a process: its CPU time and its memory.

use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// User and system time of all threads of a process so far, of those that have ended as well, in
/// seconds. The clock counts nanoseconds.
pub fn cpu_seconds(pid: u32) -> io::Result<f64> {
    let mut clock = 0;
    // SAFETY: one clock id is written, to `clock`.
    match unsafe { libc::clock_getcpuclockid(pid as libc::pid_t, &raw mut clock) } {
        0 => seconds(clock),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

/// User and system time of this thread so far, in seconds.
pub fn thread_cpu_seconds() -> f64 {
    seconds(libc::CLOCK_THREAD_CPUTIME_ID).expect("a thread has a clock")
}

fn seconds(clock: libc::clockid_t) -> io::Result<f64> {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: one `timespec` is written, which `time` is.
    match unsafe { libc::clock_gettime(clock, &raw mut time) } {
        0 => Ok(time.tv_sec as f64 + time.tv_nsec as f64 / 1e9),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The command's process is killed when this thread ends, however it does: nothing is left behind by a
/// program that was killed.
pub fn end_with_this_thread(command: &mut Command) {
    let arrange = || {
        // SAFETY: the call has no memory effects.
        match unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    };
    // SAFETY: between fork and exec it makes one system call and allocates nothing.
    unsafe { command.pre_exec(arrange) };
}

/// A process's memory, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Resident: with the pages of mapped files that happen to be in the page cache.
    pub resident: u64,
    /// The process's own.
    pub anonymous: u64,
    /// The most that was ever resident.
    pub peak_resident: u64,
}

impl Memory {
    /// The greater of each.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        Self {
            resident: self.resident.max(other.resident),
            anonymous: self.anonymous.max(other.anonymous),
            peak_resident: self.peak_resident.max(other.peak_resident),
        }
    }
}

/// What a process has in memory now.
pub fn memory(pid: u32) -> io::Result<Memory> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        kib.map_or(0, |kib| kib * 1024)
    };
    Ok(Memory {
        resident: field("VmRSS:"),
        anonymous: field("RssAnon:"),
        peak_resident: field("VmHWM:"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_takes_time_of_the_process_and_of_the_thread() {
        let (process, thread) = (
            cpu_seconds(std::process::id()).unwrap(),
            thread_cpu_seconds(),
        );
        let mut n = 1_u64;
        while thread_cpu_seconds() < thread + 0.01 {
            n = std::hint::black_box(n.wrapping_mul(3));
        }
        assert!(cpu_seconds(std::process::id()).unwrap() >= process + 0.01);
    }

    #[test]
    fn there_is_some_memory() {
        let memory = memory(std::process::id()).unwrap();
        assert!(memory.anonymous > 0 && memory.peak_resident >= memory.anonymous);
    }
}
