//! The threads that compact logs: `log.cleaner.threads` of them, named `log-cleaner-N`.
//!
//! Each compacts the log that needs it most of those that nobody is at, one after the other, and
//! waits `log.cleaner.backoff.ms` where none does. They run at a lower priority than what waits for an
//! answer: where that takes all processors, logs grow until it takes less. Where the configuration
//! changes they are stopped and started anew; a pass that is cut short is made again, from its
//! beginning. They have stopped before any log is closed.
//!
//! | name | kind | labels |
//! |---|---|---|
//! | `milena_compaction_passes_total` | counter | outcome (`done`, `failed`) |
//! | `milena_compaction_read_bytes_total` | counter, bytes of `.log` files; what is read twice counts twice | |
//! | `milena_compaction_written_bytes_total` | counter, bytes of `.log` files | |
//! | `milena_compaction_kept_records_total` | counter | |
//! | `milena_compaction_dropped_records_total` | counter | |
//! | `milena_compaction_pass_seconds` | histogram | |
//! | `milena_compaction_last_pass_timestamp_seconds` | gauge: when it ended, seconds since 1970 | |
//! | `milena_compaction_last_pass_keys` | gauge: different keys in what it compacted anew | |
//! | `milena_compaction_full_passes_total` | counter: the keys did not fit in, and the rest was left | |
//! | `milena_compaction_threads` | gauge: that run | |
//! | `milena_compaction_uncleanable_partitions` | gauge: whose last pass failed (`http`) | |

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use storage::compaction::{CompactionStats, Compactor, CompactorConfig, Throttle};
use storage::log_dir::Compacted;
use storage::{LogDir, PartitionLog};
use tokio::sync::watch;

use crate::cleaner_config::CleanerConfig;

/// Compacts logs as `config` says, until the server stops. No thread is left when this returns.
pub(super) async fn run(
    log_dir: Arc<LogDir>,
    mut config: watch::Receiver<CleanerConfig>,
    mut shutdown: watch::Receiver<bool>,
) {
    let failures = Arc::new(Failures::default());
    loop {
        let current = config.borrow_and_update().clone();
        let threads = Threads::start(&log_dir, &current, &failures);
        let goes_on = tokio::select! {
            _ = shutdown.wait_for(|stop| *stop) => false,
            // Where nobody changes it any more, the server stops.
            Ok(()) = config.changed() => true,
        };
        // A pass that is under way ends at the next batch; meanwhile the tokio threads are free.
        if let Err(error) = tokio::task::spawn_blocking(move || threads.stop()).await {
            tracing::error!(%error, "stopping the threads that compact logs panicked");
        }
        if !goes_on {
            return;
        }
        tracing::info!(config = ?*config.borrow(), "the configuration of compaction has changed");
    }
}

struct Threads {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Threads {
    fn start(log_dir: &Arc<LogDir>, config: &CleanerConfig, failures: &Arc<Failures>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let throttle = Arc::new(Throttle::new(config.io_limit()));
        let count = if config.enable { config.threads } else { 0 };
        let mut threads = Vec::with_capacity(count);
        for number in 0..count {
            let worker = Worker {
                log_dir: Arc::clone(log_dir),
                config: config.clone(),
                throttle: Arc::clone(&throttle),
                stop: Arc::clone(&stop),
                failures: Arc::clone(failures),
            };
            let thread = thread::Builder::new().name(format!("log-cleaner-{number}"));
            match thread.spawn(move || worker.run()) {
                Ok(thread) => threads.push(thread),
                Err(error) => {
                    tracing::error!(%error, number, "a thread that compacts logs does not start")
                }
            }
        }
        Self { stop, threads }
    }

    /// Blocking, for as long as a batch takes.
    fn stop(mut self) {
        let threads = std::mem::take(&mut self.threads);
        self.tell(&threads);
        for thread in threads {
            // It has caught its own panic.
            let _ = thread.join();
        }
    }

    fn tell(&self, threads: &[JoinHandle<()>]) {
        self.stop.store(true, Ordering::Release);
        threads.iter().for_each(|thread| thread.thread().unpark());
    }
}

impl Drop for Threads {
    /// Of a server that was not stopped.
    fn drop(&mut self) {
        self.tell(&self.threads);
    }
}

struct Worker {
    log_dir: Arc<LogDir>,
    config: CleanerConfig,
    throttle: Arc<Throttle>,
    stop: Arc<AtomicBool>,
    failures: Arc<Failures>,
}

impl Worker {
    fn run(self) {
        metrics::gauge!("milena_compaction_threads").increment(1);
        lower_priority();
        if catch_unwind(AssertUnwindSafe(|| self.work())).is_err() {
            tracing::error!("a thread that compacts logs panicked: the others go on without it");
        }
        metrics::gauge!("milena_compaction_threads").decrement(1);
    }

    fn work(&self) {
        let backoff = Duration::from_millis(self.config.backoff_ms);
        while !self.is_stopped() {
            self.compact_while_needed();
            self.pause(backoff);
        }
    }

    /// The memory that it takes is given back when this returns.
    fn compact_while_needed(&self) {
        let config = CompactorConfig {
            dedupe_buffer_bytes: self.config.dedupe_bytes_per_thread(),
            dedupe_buffer_load_factor: self.config.io_buffer_load_factor,
            io_buffer_bytes: self.config.io_bytes_per_thread(),
        };
        let throttle = Arc::clone(&self.throttle);
        let mut compactor = Compactor::new(config, throttle, Arc::clone(&self.stop));
        while !self.is_stopped() {
            let begun = Instant::now();
            let Some(compacted) = self.log_dir.compact_next(&mut compactor) else {
                return;
            };
            self.report(compacted, begun.elapsed());
        }
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    fn pause(&self, time: Duration) {
        let until = Instant::now() + time;
        while !self.is_stopped() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            thread::park_timeout(left);
        }
    }
}

impl Worker {
    fn report(&self, compacted: Compacted, took: Duration) {
        let log = &compacted.log;
        let (topic, partition) = (log.topic(), log.partition());
        match compacted.outcome {
            Ok(stats) => {
                if self.failures.forget(log) {
                    tracing::info!(topic, partition, "the partition is compacted again");
                }
                record(&stats, took);
                tracing::info!(
                    topic,
                    partition,
                    first_dirty_offset = stats.first_dirty_offset,
                    end_offset = stats.end_offset,
                    records = stats.records_read,
                    kept = stats.records_kept,
                    keys = stats.map_entries,
                    segments_before = stats.segments_before,
                    segments = stats.segments_after,
                    bytes_read = stats.bytes_read,
                    bytes_written = stats.bytes_written,
                    ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
                    "compacted"
                );
            }
            Err(error) => {
                metrics::counter!("milena_compaction_passes_total", "outcome" => "failed")
                    .increment(1);
                if self.failures.is_news(log, error.to_string()) {
                    tracing::error!(topic, partition, %error, "the partition is not compacted");
                }
            }
        }
    }
}

fn record(stats: &CompactionStats, took: Duration) {
    metrics::counter!("milena_compaction_passes_total", "outcome" => "done").increment(1);
    metrics::counter!("milena_compaction_read_bytes_total").increment(stats.bytes_read);
    metrics::counter!("milena_compaction_written_bytes_total").increment(stats.bytes_written);
    metrics::counter!("milena_compaction_kept_records_total").increment(stats.records_kept);
    let dropped = stats.records_read.saturating_sub(stats.records_kept);
    metrics::counter!("milena_compaction_dropped_records_total").increment(dropped);
    let full = u64::from(stats.map_was_full);
    metrics::counter!("milena_compaction_full_passes_total").increment(full);
    metrics::gauge!("milena_compaction_last_pass_keys").set(stats.map_entries as f64);
    metrics::histogram!("milena_compaction_pass_seconds").record(took.as_secs_f64());
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let ended = since_epoch.map_or(0.0, |time| time.as_secs_f64());
    metrics::gauge!("milena_compaction_last_pass_timestamp_seconds").set(ended);
}

/// Why partitions are not compacted: each reason is said once.
#[derive(Default)]
struct Failures(Mutex<HashMap<(String, i32), String>>);

impl Failures {
    /// The reason is not the one of the last time.
    fn is_news(&self, log: &PartitionLog, reason: String) -> bool {
        let mut failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (log.topic().to_owned(), log.partition());
        failures.insert(key, reason.clone()).as_ref() != Some(&reason)
    }

    /// False where it had not failed.
    fn forget(&self, log: &PartitionLog) -> bool {
        let mut failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // The name is only built where there is one to look for.
        !failures.is_empty()
            && failures
                .remove(&(log.topic().to_owned(), log.partition()))
                .is_some()
    }
}

/// Of the calling thread alone: on Linux, where a thread has a priority of its own.
#[cfg(target_os = "linux")]
fn lower_priority() {
    /// At 19 a log of which producers kept the processors busy was hardly compacted before they ended.
    const NICE: libc::c_int = 5;
    // SAFETY: no memory is involved; 0 is the calling thread.
    if unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICE) } != 0 {
        let error = std::io::Error::last_os_error();
        tracing::debug!(%error, "compaction runs at the priority of everything else");
    }
}

#[cfg(not(target_os = "linux"))]
fn lower_priority() {}
