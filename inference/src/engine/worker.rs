//! The threads that own a model.
//!
//! A worker takes a batch and runs it through the model in *passes*: all of it, and halves of what fails. While
//! a pass runs, its batch lies in the worker's [`Seat`], where a watcher sees how long it takes. Over the
//! model's timeout the watcher takes the batch away and goes on with it on a new thread; the old one, which
//! nobody can end, ends by itself when the model returns and it finds the seat taken.

use std::any::Any;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::cache::{Cache, Plan};
use super::priority::give_way;
use super::queue::{Job, Queue};
use super::{FailedRow, Inferred};
use crate::model::{InferError, Input, Model, Rows, Takes};

/// Without a timeout, a pass that takes longer is told of.
const STUCK_AFTER: Duration = Duration::from_secs(30);
/// Most threads of a model that are left alone with what they do not return from: each may take a core. One
/// record among 1,024 that the model never returns from is found with eleven.
const MAX_ABANDONED: usize = 16;
/// How often a watcher looks whether an abandoned thread has returned.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// A thread that runs a model, and one that watches it.
pub(super) struct Worker {
    shared: Arc<Shared>,
    model: Box<dyn Model>,
    /// Never run, so that a panic can't have left it half changed.
    pristine: Box<dyn Model>,
    /// Whose turn it is to sit in the seat.
    turn: u64,
}

/// What all threads of a model have in common.
pub(super) struct OfModel {
    pub(super) name: String,
    pub(super) queue: Arc<Queue>,
    /// Longest that a pass may take.
    pub(super) timeout: Option<Duration>,
    pub(super) overdue: Overdue,
    pub(super) cache: Option<Cache>,
}

/// What a worker, its watcher and their successors have in common.
struct Shared {
    model: Arc<OfModel>,
    seat: Mutex<Seat>,
    changed: Condvar,
    /// Set once the queue has ended.
    ended: AtomicBool,
}

/// Passes of a model that have taken longer than they may and have not returned.
pub(super) struct Overdue {
    abandoned: AtomicUsize,
    gauge: metrics::Gauge,
}

#[derive(Default)]
struct Seat {
    pass: Option<Pass>,
    turn: u64,
    /// For the worker whose turn it is now.
    handed_over: Option<Work>,
    watcher_sleeps: bool,
}

struct Pass {
    work: Work,
    range: Range<usize>,
    started: Instant,
}

/// A batch on its way through the model.
struct Work {
    jobs: Vec<Job>,
    lengths: Vec<usize>,
    /// What is asked of the model.
    rows: Arc<Input>,
    /// How it becomes answers to the jobs, where some are known already.
    plan: Option<Plan>,
    logits: Rows,
    failed: Vec<FailedRow>,
    /// Ranges still to do, the next one last.
    todo: Vec<Range<usize>>,
    started: Instant,
}

impl Overdue {
    pub(super) fn new(model: &str) -> Self {
        let gauge = metrics::gauge!("milena_model_overdue_passes", "model" => model.to_owned());
        gauge.set(0.0);
        Self {
            abandoned: AtomicUsize::new(0),
            gauge,
        }
    }

    fn abandon(&self) {
        self.abandoned.fetch_add(1, Ordering::AcqRel);
        self.gauge.increment(1.0);
    }

    fn returned(&self) {
        self.abandoned.fetch_sub(1, Ordering::AcqRel);
        self.gauge.decrement(1.0);
    }
}

impl Shared {
    fn seat(&self) -> MutexGuard<'_, Seat> {
        self.seat.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn spawn_worker(&self, worker: Worker) -> std::io::Result<()> {
        std::thread::Builder::new()
            .name(format!("model-{}", self.model.name))
            .spawn(move || {
                if worker.model.takes() == Takes::Tokens {
                    give_way(&worker.shared.model.name);
                }
                worker.run();
            })
            .map(drop)
    }
}

/// Starts a worker named `model-<name>` and its watcher.
pub(super) fn start(of_model: &Arc<OfModel>, model: &dyn Model) -> std::io::Result<()> {
    let shared = Arc::new(Shared {
        model: Arc::clone(of_model),
        seat: Mutex::default(),
        changed: Condvar::new(),
        ended: AtomicBool::new(false),
    });
    let worker = Worker {
        shared: Arc::clone(&shared),
        model: model.replica(),
        pristine: model.replica(),
        turn: 0,
    };
    let watcher = Watcher {
        shared: Arc::clone(&shared),
        pristine: model.replica(),
    };
    shared.spawn_worker(worker)?;
    std::thread::Builder::new()
        .name(format!("watch-{}", of_model.name))
        .spawn(move || watcher.run())?;
    Ok(())
}

impl Worker {
    fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let mut work = shared.seat().handed_over.take();
        let of_model = Arc::clone(&shared.model);
        let sizes =
            metrics::histogram!("milena_inference_batch_records", "model" => of_model.name.clone());
        loop {
            let next = work.take().or_else(|| {
                let jobs = of_model.queue.take()?;
                sizes.record(jobs.iter().map(|job| job.rows.len()).sum::<usize>() as f64);
                Some(Work::new(jobs, &*self.model, of_model.cache.as_ref()))
            });
            let Some(next) = next else {
                shared.ended.store(true, Ordering::Release);
                // The watcher looks while it has the seat.
                drop(shared.seat());
                shared.changed.notify_all();
                return;
            };
            match self.finish(next) {
                Some(done) => done.answer(of_model.cache.as_ref()),
                None => return of_model.overdue.returned(),
            }
        }
    }

    /// Runs what is to do; `None` where a watcher has taken the batch away.
    fn finish(&mut self, mut work: Work) -> Option<Work> {
        while let Some(range) = work.todo.pop() {
            let rows = Arc::clone(&work.rows);
            self.sit(work, range.clone());
            let result = match range.len() == rows.len() {
                true => self.infer_contained(&rows),
                false => self.infer_contained(&rows.slice(range.clone())),
            };
            work = self.stand_up()?;
            work.take(range, result);
        }
        Some(work)
    }

    fn sit(&self, work: Work, range: Range<usize>) {
        let mut seat = self.shared.seat();
        let started = Instant::now();
        seat.pass = Some(Pass {
            work,
            range,
            started,
        });
        if std::mem::take(&mut seat.watcher_sleeps) {
            drop(seat);
            self.shared.changed.notify_all();
        }
    }

    fn stand_up(&self) -> Option<Work> {
        let mut seat = self.shared.seat();
        (seat.turn == self.turn)
            .then(|| seat.pass.take())
            .flatten()
            .map(|pass| pass.work)
    }

    fn infer_contained(&mut self, rows: &Input) -> Result<Rows, InferError> {
        let model = &mut self.model;
        match catch_unwind(AssertUnwindSafe(|| model.infer(rows))) {
            Ok(Ok(logits))
                if logits.len() == rows.len() && logits.width() == self.model.output_width() =>
            {
                Ok(logits)
            }
            Ok(Ok(logits)) => Err(InferError(format!(
                "the model answered {} rows with {} rows of {} numbers",
                rows.len(),
                logits.len(),
                logits.width()
            ))),
            Ok(Err(error)) => Err(error),
            Err(panic) => {
                self.model = self.pristine.replica();
                Err(InferError(format!(
                    "the model panicked: {}",
                    panic_message(&*panic)
                )))
            }
        }
    }
}

struct Watcher {
    shared: Arc<Shared>,
    pristine: Box<dyn Model>,
}

impl Watcher {
    fn run(self) {
        let shared = &self.shared;
        let model = &shared.model;
        // When the pass began that is counted as overdue.
        let mut counted: Option<Instant> = None;
        let mut seat = shared.seat();
        loop {
            let running = seat.pass.as_ref().map(|pass| pass.started);
            if counted.is_some() && counted != running {
                counted = None;
                model.overdue.gauge.decrement(1.0);
                tracing::info!(model = model.name, "the model returned");
            }
            let Some(started) = running else {
                if shared.ended.load(Ordering::Acquire) {
                    return;
                }
                seat.watcher_sleeps = true;
                let woken = shared.changed.wait(seat);
                seat = woken.unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let may_take = model.timeout.unwrap_or(STUCK_AFTER);
            let mut wait = may_take.saturating_sub(started.elapsed());
            if wait.is_zero() {
                wait = LOOK_AGAIN;
                if let Some(timeout) = model.timeout
                    && model.overdue.abandoned.load(Ordering::Acquire) < MAX_ABANDONED
                    && self.take_over(&mut seat, timeout)
                {
                    continue;
                }
                if counted.is_none() {
                    counted = Some(started);
                    model.overdue.gauge.increment(1.0);
                    tracing::error!(
                        model = model.name,
                        seconds = started.elapsed().as_secs_f64(),
                        "the model does not return: what is asked of it waits"
                    );
                }
            }
            let woken = shared.changed.wait_timeout(seat, wait);
            seat = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Goes on with what is in the seat on a new thread; whether there is one.
    fn take_over(&self, seat: &mut Seat, timeout: Duration) -> bool {
        let worker = Worker {
            shared: Arc::clone(&self.shared),
            model: self.pristine.replica(),
            pristine: self.pristine.replica(),
            turn: seat.turn + 1,
        };
        // It waits for the seat.
        if let Err(error) = self.shared.spawn_worker(worker) {
            tracing::error!(model = self.shared.model.name, %error, "there is no other thread for the model");
            return false;
        }
        seat.turn += 1;
        self.shared.model.overdue.abandon();
        if let Some(Pass {
            mut work, range, ..
        }) = seat.pass.take()
        {
            tracing::warn!(
                model = self.shared.model.name,
                records = range.len(),
                timeout_ms = timeout.as_millis() as u64,
                "the model took too long over a batch: its thread is left alone"
            );
            let reason = format!("the model took longer than {timeout:?}");
            work.take(range, Err(InferError(reason)));
            seat.handed_over = Some(work);
        }
        true
    }
}

impl Work {
    fn new(mut jobs: Vec<Job>, model: &dyn Model, cache: Option<&Cache>) -> Self {
        let takes = model.takes();
        let lengths: Vec<usize> = jobs.iter().map(|job| job.rows.len()).collect();
        let started = Instant::now();
        let rows = match jobs.as_mut_slice() {
            [job] => std::mem::replace(&mut job.rows, takes.none()),
            jobs => {
                let mut together = takes.none();
                jobs.iter().for_each(|job| together.append(&job.rows));
                together
            }
        };
        let (rows, plan) = match cache.map(|cache| cache.plan(&rows)) {
            Some((ask, plan)) => (ask, Some(plan)),
            None => (rows, None),
        };
        let whole = 0..rows.len();
        Self {
            todo: (!whole.is_empty()).then_some(whole).into_iter().collect(),
            rows: Arc::new(rows),
            plan,
            jobs,
            lengths,
            logits: Rows::new(model.output_width()),
            failed: Vec::new(),
            started,
        }
    }

    /// Takes what a pass came to. Passes come in the order of their rows.
    fn take(&mut self, range: Range<usize>, result: Result<Rows, InferError>) {
        match result {
            Ok(of_range) if range.len() == self.rows.len() => self.logits = of_range,
            Ok(of_range) => self.logits.append(&of_range),
            Err(InferError(reason)) if range.len() <= 1 => {
                let zeros = std::iter::repeat_n(0.0, self.logits.width());
                self.logits.values_mut().extend(zeros);
                self.failed.push(FailedRow {
                    row: range.start,
                    reason,
                });
            }
            Err(_) => {
                let middle = range.start + range.len() / 2;
                self.todo.push(middle..range.end);
                self.todo.push(range.start..middle);
            }
        }
    }

    /// Gives each job its part.
    fn answer(mut self, cache: Option<&Cache>) {
        fail_not_finite(&mut self.logits, &mut self.failed);
        if let (Some(plan), Some(cache)) = (self.plan, cache) {
            (self.logits, self.failed) = cache.complete(plan, &self.logits, self.failed);
        }
        let inferring = self.started.elapsed();
        let mut failed = self.failed.into_iter().peekable();
        let mut start = 0;
        let single = self.jobs.len() == 1;
        let mut whole = Some(self.logits);
        for (job, length) in self.jobs.into_iter().zip(self.lengths) {
            let end = start + length;
            let mut of_job = Vec::new();
            while let Some(next) = failed.next_if(|next| next.row < end) {
                of_job.push(FailedRow {
                    row: next.row - start,
                    reason: next.reason,
                });
            }
            let logits = match single {
                true => whole.take(),
                false => whole.as_ref().map(|logits| logits.slice(start..end)),
            };
            // Nobody may be waiting any more.
            let _ = job.answer.send(Inferred {
                logits: logits.unwrap_or_default(),
                failed: of_job,
                queued: self.started.saturating_duration_since(job.submitted),
                inferring,
            });
            start = end;
        }
    }
}

fn fail_not_finite(logits: &mut Rows, failed: &mut Vec<FailedRow>) {
    // Mostly all are finite, and one pass is all.
    if logits.values().iter().all(|logit| logit.is_finite()) {
        return;
    }
    let width = logits.width();
    for row in 0..logits.len() {
        if let Some(logit) = logits.row(row).iter().find(|logit| !logit.is_finite()) {
            let reason = format!("the model gives {logit}");
            failed.push(FailedRow { row, reason });
            for logit in logits.values_mut().iter_mut().skip(row * width).take(width) {
                *logit = 0.0;
            }
        }
    }
    failed.sort_by_key(|failed| failed.row);
}

fn panic_message(panic: &(dyn Any + Send)) -> &str {
    if let Some(message) = panic.downcast_ref::<&str>() {
        message
    } else if let Some(message) = panic.downcast_ref::<String>() {
        message
    } else {
        "without a message"
    }
}
