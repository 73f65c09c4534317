//! Taking figures: time, CPU time, medians over rounds.

use std::time::{Duration, Instant};

use crate::statistics::median;

/// What some work took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Took {
    /// By the clock.
    pub wall: Duration,
    /// Of all processors, in this process and for it in the kernel.
    pub cpu: Duration,
}

impl Took {
    /// Adds what `work` takes.
    pub fn add<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let (wall, cpu) = (Instant::now(), cpu_time());
        let result = work();
        self.wall += wall.elapsed();
        self.cpu += cpu_time().saturating_sub(cpu);
        result
    }

    /// GB/s for so many bytes.
    pub fn gigabytes_per_second(&self, bytes: u64) -> f64 {
        bytes as f64 / 1e9 / self.wall.as_secs_f64()
    }

    /// CPU seconds per GB for so many bytes.
    pub fn cpu_per_gigabyte(&self, bytes: u64) -> f64 {
        self.cpu.as_secs_f64() / (bytes as f64 / 1e9)
    }
}

fn cpu_time() -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `clock_gettime` writes one `timespec`, which `time` is.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    assert_eq!(result, 0, "the process's CPU time can be read");
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// What a measurement and its bare loop came to, round by round.
#[derive(Debug, Default)]
pub struct Rounds {
    ours: Vec<f64>,
    bare: Vec<f64>,
}

impl Rounds {
    /// One round's figures.
    pub fn push(&mut self, ours: f64, bare: f64) {
        self.ours.push(ours);
        self.bare.push(bare);
    }

    /// Ours.
    pub fn ours(&self) -> f64 {
        median(&self.ours)
    }

    /// The bare loop's.
    pub fn bare(&self) -> f64 {
        median(&self.bare)
    }

    /// Ours as a part of the bare loop's, in percent.
    pub fn percent(&self) -> f64 {
        let ratios: Vec<f64> = self
            .ours
            .iter()
            .zip(&self.bare)
            .map(|(a, b)| a / b)
            .collect();
        median(&ratios) * 100.0
    }
}
