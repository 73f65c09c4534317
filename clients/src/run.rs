//! The one loop that watches a run.
//!
//! Workers are threads; the loop takes what their lanes have every second, shows it, and ends when all
//! workers have. It tells them to stop where one of them fails or where no record has ended
//! for too long, so that every run ends.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::clock::{Clock, us_to_seconds};
use crate::error::{Error, Result};
use crate::meter::{Counts, Lane, percentiles};
use crate::progress::Progress;
use crate::report::Interval;

const INTERVAL_US: u64 = 1_000_000;

/// What all threads of a run share.
#[derive(Debug)]
pub struct Shared {
    /// The run's time.
    pub clock: Clock,
    /// When the load begins; before it, clients connect.
    begins_us: AtomicU64,
    /// From when on records are counted.
    counted_from_us: AtomicU64,
    stop: AtomicBool,
    heard: Mutex<Option<String>>,
}

impl Shared {
    /// Whether all are to end now.
    pub fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// When the load begins; the end of time as long as that isn't known.
    pub fn begins_us(&self) -> u64 {
        self.begins_us.load(Ordering::Relaxed)
    }

    /// When the warm-up is over.
    pub fn counted_from_us(&self) -> u64 {
        self.counted_from_us.load(Ordering::Relaxed)
    }

    /// What a client says is wrong; shown where the run fails for want of progress.
    pub fn hear(&self, what: &str) {
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = Some(what.to_owned());
    }

    fn heard(&self) -> String {
        match &*self.heard.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(what) => format!("; last heard: {what}"),
            None => String::new(),
        }
    }
}

/// What was measured.
#[derive(Debug)]
pub struct Measured {
    /// By all producers.
    pub produced: Counts,
    /// By all consumers.
    pub consumed: Counts,
    /// Second by second.
    pub intervals: Vec<Interval>,
    /// Why the run failed, where it did.
    pub failure: Option<Error>,
}

/// A run.
#[derive(Debug)]
pub struct Run {
    shared: Arc<Shared>,
    produced: Vec<Arc<Lane>>,
    consumed: Vec<Arc<Lane>>,
    workers: Vec<JoinHandle<()>>,
    finished: (Sender<Result<()>>, Receiver<Result<()>>),
}

impl Run {
    /// Its clock starts; the load begins with [`Run::begin`].
    pub fn new() -> Self {
        Self {
            shared: Arc::new(Shared {
                clock: Clock::start(),
                begins_us: AtomicU64::new(u64::MAX),
                counted_from_us: AtomicU64::new(u64::MAX),
                stop: AtomicBool::new(false),
                heard: Mutex::new(None),
            }),
            produced: Vec::new(),
            consumed: Vec::new(),
            workers: Vec::new(),
            finished: mpsc::channel(),
        }
    }

    /// What its threads share.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// The load begins now. Consumers that read already count from the end of the warm-up.
    pub fn begin(&self, warmup_us: u64) {
        let now = self.shared.clock.now_us();
        self.shared.begins_us.store(now, Ordering::Relaxed);
        self.shared
            .counted_from_us
            .store(now.saturating_add(warmup_us), Ordering::Relaxed);
        for lane in &self.consumed {
            lane.begin(now.saturating_add(warmup_us));
        }
    }

    /// A lane for a producer.
    pub fn producer_lane(&mut self) -> Arc<Lane> {
        let lane = Arc::new(Lane::default());
        self.produced.push(Arc::clone(&lane));
        lane
    }

    /// A lane for a consumer.
    pub fn consumer_lane(&mut self) -> Arc<Lane> {
        let lane = Arc::new(Lane::default());
        self.consumed.push(Arc::clone(&lane));
        lane
    }

    /// Starts a thread that ends by itself, or soon after [`Shared::stopped`].
    pub fn spawn(
        &mut self,
        name: String,
        work: impl FnOnce() -> Result<()> + Send + 'static,
    ) -> Result<()> {
        let finished = Finished {
            result: None,
            to: self.finished.0.clone(),
        };
        let worker = thread::Builder::new()
            .name(name)
            .spawn(move || {
                let mut finished = finished;
                finished.result = Some(work());
            })
            .map_err(|source| Error::System {
                doing: "starting a thread".to_owned(),
                source,
            })?;
        self.workers.push(worker);
        Ok(())
    }

    /// Waits until `ready`; an error where a worker ended or `patience` is over before.
    pub fn wait_until(&self, patience: Duration, ready: impl Fn() -> bool) -> Result<()> {
        let deadline = self.shared.clock.now_us() + patience.as_micros() as u64;
        while !ready() {
            match self.finished.1.recv_timeout(Duration::from_millis(1)) {
                Ok(Err(error)) => return Err(self.stop(error)),
                Ok(Ok(())) | Err(_) if self.shared.clock.now_us() < deadline => {}
                _ => {
                    let error = self.no_progress(patience, &Counts::default(), &Counts::default());
                    return Err(self.stop(error));
                }
            }
        }
        Ok(())
    }

    /// Watches until all workers have ended.
    pub fn watch(self, patience: Duration, mut progress: Progress) -> Measured {
        let mut measured = Measured {
            produced: Counts::default(),
            consumed: Counts::default(),
            intervals: Vec::new(),
            failure: None,
        };
        let begins_us = self.shared.begins_us();
        let patience_us = patience.as_micros() as u64;
        let mut moved_us = begins_us;
        let mut running = self.workers.len();
        let mut tick_us = begins_us + INTERVAL_US;
        while running > 0 {
            let wait_us = tick_us.saturating_sub(self.shared.clock.now_us());
            match self.finished.1.recv_timeout(Duration::from_micros(wait_us)) {
                Ok(result) => {
                    running -= 1;
                    if let Err(error) = result {
                        let error = self.stop(error);
                        measured.failure.get_or_insert(error);
                    }
                    continue;
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            let now_us = self.shared.clock.now_us();
            tick_us += INTERVAL_US;
            if self.collect(&mut measured, now_us) {
                moved_us = now_us;
            }
            progress.show(us_to_seconds(now_us - begins_us), &measured);
            if now_us - moved_us >= patience_us && measured.failure.is_none() {
                let error = self.no_progress(patience, &measured.produced, &measured.consumed);
                measured.failure = Some(self.stop(error));
            }
        }
        let now_us = self.shared.clock.now_us();
        self.collect(&mut measured, now_us);
        progress.clear();
        for worker in self.workers {
            if worker.join().is_err() {
                measured.failure.get_or_insert(Error::Worker);
            }
        }
        measured
    }

    /// Takes what the lanes have as one more interval; whether any record has ended in it.
    fn collect(&self, measured: &mut Measured, now_us: u64) -> bool {
        let sum = |lanes: &[Arc<Lane>], total: &mut Counts| {
            let mut interval = Counts::default();
            for lane in lanes {
                interval.add(&lane.take());
            }
            total.add(&interval);
            interval
        };
        let produced = sum(&self.produced, &mut measured.produced);
        let consumed = sum(&self.consumed, &mut measured.consumed);
        let latency = percentiles(&consumed.latency).or_else(|| percentiles(&produced.latency));
        measured.intervals.push(Interval {
            end_seconds: us_to_seconds(now_us - self.shared.begins_us()),
            produced: produced.records,
            consumed: consumed.records,
            produced_bytes: produced.bytes,
            consumed_bytes: consumed.bytes,
            latency,
        });
        produced.moved || consumed.moved
    }

    fn stop(&self, error: Error) -> Error {
        self.shared.stop.store(true, Ordering::Relaxed);
        error
    }

    fn no_progress(&self, patience: Duration, produced: &Counts, consumed: &Counts) -> Error {
        Error::NoProgress {
            seconds: patience.as_secs_f64(),
            produced: produced.records,
            consumed: consumed.records,
            heard: self.shared.heard(),
        }
    }
}

impl Default for Run {
    fn default() -> Self {
        Self::new()
    }
}

/// Reports a worker's end even where it panics.
struct Finished {
    result: Option<Result<()>>,
    to: Sender<Result<()>>,
}

impl Drop for Finished {
    fn drop(&mut self) {
        let result = self.result.take().unwrap_or(Err(Error::Worker));
        // The other end is gone only where the run was given up already.
        let _ = self.to.send(result);
    }
}
