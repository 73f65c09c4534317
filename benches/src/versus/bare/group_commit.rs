//! Durable appends without a broker: threads append to one file and wait until an `fdatasync` that began
//! after their append has ended. One of those that wait does it for all.
//!
//! Left out: sockets, and all that is done with a record but writing it.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::statistics::percentile;

/// What came of it.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Of each append, in microseconds.
    pub times_us: Vec<f64>,
    /// From the first to the last.
    pub seconds: f64,
}

impl Outcome {
    /// Appends in a second.
    pub fn per_second(&self) -> f64 {
        self.times_us.len() as f64 / self.seconds
    }

    /// The time that `share` of the appends did not exceed, in milliseconds.
    pub fn percentile_ms(&self, share: f64) -> f64 {
        percentile(&self.times_us, share) / 1e3
    }
}

struct Log {
    file: File,
    state: Mutex<State>,
    synced: Condvar,
}

#[derive(Default)]
struct State {
    written: u64,
    synced: u64,
    syncing: bool,
}

/// So many threads append records of so many bytes for so long, in a file in `folder`.
pub fn run(
    folder: &Path,
    threads: usize,
    record_bytes: usize,
    time: Duration,
) -> anyhow::Result<Outcome> {
    let path = folder.join("bare-durable");
    let log = Log {
        file: File::create(&path)?,
        state: Mutex::default(),
        synced: Condvar::new(),
    };
    let record = vec![b'x'; record_bytes];
    let began = Instant::now();
    let times = std::thread::scope(|scope| {
        let append = || -> std::io::Result<Vec<f64>> {
            let mut times = Vec::new();
            while began.elapsed() < time {
                let started = Instant::now();
                log.append(&record)?;
                times.push(started.elapsed().as_secs_f64() * 1e6);
            }
            Ok(times)
        };
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(append)).collect();
        let times = threads
            .into_iter()
            .map(|thread| thread.join().expect("no panic"));
        times.collect::<std::io::Result<Vec<_>>>()
    })?;
    let seconds = began.elapsed().as_secs_f64();
    std::fs::remove_file(path)?;
    Ok(Outcome {
        times_us: times.concat(),
        seconds,
    })
}

impl Log {
    /// Returns when the record is on the disk.
    fn append(&self, record: &[u8]) -> std::io::Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        self.file.write_all_at(record, state.written)?;
        state.written += record.len() as u64;
        let mine = state.written;
        while state.synced < mine {
            if state.syncing {
                let woken = self.synced.wait(state);
                state = woken.unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            state.syncing = true;
            let covered = state.written;
            drop(state);
            let result = self.file.sync_data();
            state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.syncing = false;
            self.synced.notify_all();
            result?;
            state.synced = covered;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_threads_get_on() {
        let folder = tempfile::tempdir().unwrap();
        let outcome = run(folder.path(), 4, 1024, Duration::from_millis(50)).unwrap();
        assert!(outcome.times_us.len() >= 4);
        assert!(outcome.percentile_ms(0.5) > 0.0);
    }
}
