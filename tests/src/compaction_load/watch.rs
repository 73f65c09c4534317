//! Looks at the files, the memory and the metrics while something else happens.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::Milena;

/// How often it looks.
const INTERVAL: Duration = Duration::from_millis(200);
/// What is there at one time, or the most of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    /// Of `.log` files.
    pub log_bytes: u64,
    /// Of those, what is not in a partition's newest.
    pub closed_bytes: u64,
    /// Of all files of the topic, those to be deleted among them.
    pub all_bytes: u64,
    pub resident: u64,
    pub anonymous: u64,
    pub passes: f64,
    pub failed: f64,
    pub read: f64,
    pub written: f64,
    /// In passes.
    pub seconds: f64,
}

/// Looks until it is dropped.
pub(super) struct Watch<'a> {
    milena: &'a Milena,
    topic: &'a str,
    peak: Arc<Mutex<Seen>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl<'a> Watch<'a> {
    pub fn start(milena: &'a Milena, topic: &'a str, verbose: bool) -> Self {
        let (peak, stop) = (Arc::<Mutex<Seen>>::default(), Arc::<AtomicBool>::default());
        let folder = milena.data_dir();
        let pid = milena.pid();
        let (owned, shared, stopped) = (topic.to_owned(), Arc::clone(&peak), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            let mut said = Instant::now();
            while !stopped.load(Ordering::Acquire) {
                let mut seen = Seen::default();
                seen.look_at_files(&folder, &owned);
                seen.look_at_memory(pid);
                if verbose && said.elapsed() >= Duration::from_secs(1) {
                    said = Instant::now();
                    eprintln!(
                        "log {} MB, with files to be deleted {} MB, own memory {} MB",
                        seen.log_bytes / 1_000_000,
                        seen.all_bytes / 1_000_000,
                        seen.anonymous / 1_000_000
                    );
                }
                let mut peak = shared.lock().unwrap_or_else(PoisonError::into_inner);
                peak.log_bytes = peak.log_bytes.max(seen.log_bytes);
                peak.closed_bytes = peak.closed_bytes.max(seen.closed_bytes);
                peak.all_bytes = peak.all_bytes.max(seen.all_bytes);
                peak.anonymous = peak.anonymous.max(seen.anonymous);
                peak.resident = peak.resident.max(seen.resident);
                drop(peak);
                thread::sleep(INTERVAL);
            }
        });
        Self {
            milena,
            topic,
            peak,
            stop,
            thread: Some(thread),
        }
    }

    pub fn now(&self) -> Seen {
        let mut seen = Seen::default();
        seen.look_at_files(&self.milena.data_dir(), self.topic);
        (seen.resident, seen.anonymous) = self.milena.resident_bytes();
        let metric = |name: &str| self.milena.metric_if_there(name).unwrap_or(0.0);
        seen.passes = metric("milena_compaction_passes_total{outcome=\"done\"}");
        seen.failed = metric("milena_compaction_passes_total{outcome=\"failed\"}");
        seen.read = metric("milena_compaction_read_bytes_total");
        seen.written = metric("milena_compaction_written_bytes_total");
        seen.seconds = metric("milena_compaction_pass_seconds_sum");
        seen
    }

    pub fn peak(&self) -> Seen {
        let peak = self.peak.lock().unwrap_or_else(PoisonError::into_inner);
        peak.clone()
    }

    /// Waits until no pass has ended and the files have not changed for as long as `quiet`; returns
    /// how long it took, that while apart.
    pub fn settled(
        &self,
        begun: Instant,
        quiet: Duration,
        patience: Duration,
    ) -> Result<Duration, String> {
        let mut last = self.now();
        let mut changed = Instant::now();
        while changed.elapsed() < quiet {
            if begun.elapsed() > patience {
                return Err(format!("compaction has not come to an end in {patience:?}"));
            }
            thread::sleep(INTERVAL);
            let now = self.now();
            if now.passes != last.passes || now.log_bytes != last.log_bytes {
                changed = Instant::now();
            }
            last = now;
        }
        Ok(changed.duration_since(begun))
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Seen {
    fn look_at_files(&mut self, data: &Path, topic: &str) {
        let prefix = format!("{topic}-");
        for folder in entries(data) {
            let name = folder.file_name();
            if !name.is_some_and(|name| name.to_string_lossy().starts_with(&prefix)) {
                continue;
            }
            let mut logs = Vec::new();
            for file in entries(&folder) {
                // It may be gone by now.
                let size = fs::metadata(&file).map_or(0, |file| file.len());
                self.all_bytes += size;
                if file.extension().is_some_and(|suffix| suffix == "log") {
                    logs.push((file, size));
                }
            }
            logs.sort();
            let newest = logs.pop().map_or(0, |(_, size)| size);
            let closed: u64 = logs.iter().map(|(_, size)| size).sum();
            self.closed_bytes += closed;
            self.log_bytes += closed + newest;
        }
    }

    fn look_at_memory(&mut self, pid: u32) {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let kb = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
            kb.unwrap_or(0) * 1024
        };
        (self.resident, self.anonymous) = (field("VmRSS:"), field("RssAnon:"));
    }
}

fn entries(folder: &Path) -> Vec<std::path::PathBuf> {
    let found = fs::read_dir(folder).into_iter().flatten();
    found.flatten().map(|entry| entry.path()).collect()
}
