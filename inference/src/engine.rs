//! The batching queue in front of a model, and the OS threads that own it.
//!
//! - A worker takes what waits, from any model topic and partition, up to the smallest `max_records` of
//!   what it takes, and starts as soon as it is free: the deeper the queue, the larger the batches. With a
//!   `max_delay` a batch that is not full waits that long from the submission of its oldest rows.
//! - The queue is bounded in rows: [`Engine::submit`] waits for room.
//! - A batch that fails, or panics, is halved until the rows are found that fail by themselves; logits
//!   that are not finite fail their row. Every other row gets its logits.
//! - The threads end when the last handle is gone and the queue is empty.

use std::any::Any;
use std::collections::VecDeque;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::model::card::Card;
use crate::model::{
    self, InferError, Input, LoadError, LoadedModel, Model, ModelInfo, Rows, Takes,
};
use crate::spec::ModelSource;

/// How an engine runs.
#[derive(Clone, Copy, Debug)]
pub struct EngineConfig {
    /// Threads, each with the model for itself.
    pub workers: usize,
    /// Most rows that wait, those of one submission aside.
    pub queue_rows: usize,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            workers: 1,
            queue_rows: 65_536,
        }
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The model can't be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// No thread could be started.
    #[error("a thread for model {model:?} could not be started: {source}")]
    Thread {
        /// The model's name.
        model: String,
        /// Why.
        source: std::io::Error,
    },
    /// Its threads have ended.
    #[error("model {0:?} does not run any more")]
    Stopped(String),
    /// Records in another form than the model's.
    #[error("{found} for model {model:?}, which takes {expected}")]
    Form {
        /// The model's name.
        model: String,
        /// The model's.
        expected: Takes,
        /// The records'.
        found: Takes,
    },
}

/// What a submission asks of the batch that it ends up in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchLimits {
    /// Most rows of the batch, unless the submission alone has more.
    pub max_records: usize,
    /// Most tokens of its texts, likewise.
    pub max_tokens: usize,
    /// How long it may wait to be full.
    pub max_delay: Duration,
}

/// A row that the model failed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedRow {
    /// Its index in the submission.
    pub row: usize,
    /// What the model says.
    pub reason: String,
}

/// The answer to a submission.
#[derive(Clone, Debug)]
pub struct Inferred {
    /// A row for each row; those that failed are zeros.
    pub logits: Rows,
    /// In order.
    pub failed: Vec<FailedRow>,
    /// From its submission to the start of its batch.
    pub queued: Duration,
    /// Of its batch.
    pub inferring: Duration,
}

/// A handle to a model that runs. Cheap to clone.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine")
            .field("info", &self.inner.info)
            .finish_non_exhaustive()
    }
}

struct Inner {
    info: Arc<ModelInfo>,
    card: Arc<Card>,
    takes: Takes,
    room: Arc<Semaphore>,
    queue_rows: usize,
    queue: Arc<Queue>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.queue.lock().closed = true;
        self.queue.changed.notify_all();
    }
}

impl Engine {
    /// Loads a model and starts it.
    pub fn load(source: &ModelSource) -> Result<Self, EngineError> {
        let model = model::load(
            &source.name,
            &source.version,
            &source.folder,
            &source.options,
        )?;
        Self::start(model, EngineConfig::default())
    }

    /// Starts the threads of a model, named `model-<name>`.
    pub fn start(loaded: LoadedModel, config: EngineConfig) -> Result<Self, EngineError> {
        let LoadedModel { info, card, model } = loaded;
        let queue_rows = config.queue_rows.clamp(1, Semaphore::MAX_PERMITS >> 1);
        let inner = Inner {
            info: Arc::new(info),
            card,
            takes: model.takes(),
            room: Arc::new(Semaphore::new(queue_rows)),
            queue_rows,
            queue: Arc::default(),
        };
        for _ in 0..config.workers.max(1) {
            let name = &inner.info.name;
            let worker = Worker {
                name: name.clone(),
                queue: Arc::clone(&inner.queue),
                model: model.replica(),
                pristine: model.replica(),
            };
            std::thread::Builder::new()
                .name(format!("model-{name}"))
                .spawn(move || worker.run())
                .map_err(|source| EngineError::Thread {
                    model: name.clone(),
                    source,
                })?;
        }
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// Which model it runs.
    pub fn info(&self) -> &Arc<ModelInfo> {
        &self.inner.info
    }

    /// The model's card.
    pub fn card(&self) -> &Arc<Card> {
        &self.inner.card
    }

    /// In what form the model takes records.
    pub fn takes(&self) -> Takes {
        self.inner.takes
    }

    /// Queues rows or texts, once there is room. Submissions are answered in any order.
    pub async fn submit(
        &self,
        rows: impl Into<Input>,
        limits: BatchLimits,
    ) -> Result<Pending, EngineError> {
        let rows = rows.into();
        let stopped = || EngineError::Stopped(self.inner.info.name.clone());
        if rows.form() != self.inner.takes {
            return Err(EngineError::Form {
                model: self.inner.info.name.clone(),
                expected: self.inner.takes,
                found: rows.form(),
            });
        }
        let permits = rows.len().min(self.inner.queue_rows) as u32;
        let room = Arc::clone(&self.inner.room)
            .acquire_many_owned(permits)
            .await
            .map_err(|_| stopped())?;
        let (answer, pending) = oneshot::channel();
        let now = Instant::now();
        let job = Job {
            rows,
            max_records: limits.max_records.max(1),
            max_tokens: limits.max_tokens,
            submitted: now,
            deadline: now + limits.max_delay,
            answer,
            _room: room,
        };
        self.inner.queue.lock().jobs.push_back(job);
        self.inner.queue.changed.notify_one();
        Ok(Pending {
            answer: pending,
            model: Arc::clone(&self.inner.info),
        })
    }
}

/// An answer that is to come.
#[derive(Debug)]
pub struct Pending {
    answer: oneshot::Receiver<Inferred>,
    model: Arc<ModelInfo>,
}

impl Pending {
    /// Waits for it.
    pub async fn wait(self) -> Result<Inferred, EngineError> {
        self.answer
            .await
            .map_err(|_| EngineError::Stopped(self.model.name.clone()))
    }
}

struct Job {
    rows: Input,
    max_records: usize,
    max_tokens: usize,
    submitted: Instant,
    deadline: Instant,
    answer: oneshot::Sender<Inferred>,
    /// Given back when the job is answered or dropped.
    _room: OwnedSemaphorePermit,
}

#[derive(Default)]
struct Queue {
    state: Mutex<QueueState>,
    changed: Condvar,
}

#[derive(Default)]
struct QueueState {
    jobs: VecDeque<Job>,
    closed: bool,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next batch, `None` when there will be none.
    fn take(&self) -> Option<Vec<Job>> {
        let mut state = self.lock();
        let mut batch = Batch::default();
        loop {
            let full = batch.take_from(&mut state.jobs);
            let Some(deadline) = batch.deadline else {
                if state.closed {
                    return None;
                }
                state = self
                    .changed
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let left = deadline.saturating_duration_since(Instant::now());
            if full || state.closed || left.is_zero() {
                if !state.jobs.is_empty() {
                    // The wake-up for what is left may have come here.
                    self.changed.notify_one();
                }
                return Some(batch.jobs);
            }
            state = self
                .changed
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }
}

#[derive(Default)]
struct Batch {
    jobs: Vec<Job>,
    rows: usize,
    tokens: usize,
    /// Of records and of tokens: the least of its jobs'.
    limits: Option<(usize, usize)>,
    /// The earliest of its jobs.
    deadline: Option<Instant>,
}

impl Batch {
    /// Takes what fits; whether there is no more room.
    fn take_from(&mut self, jobs: &mut VecDeque<Job>) -> bool {
        while let Some(next) = jobs.front() {
            let (max_records, max_tokens) = match self.limits {
                Some((records, tokens)) => {
                    (records.min(next.max_records), tokens.min(next.max_tokens))
                }
                None => (next.max_records, next.max_tokens),
            };
            let rows = self.rows + next.rows.len();
            let tokens = self.tokens + next.rows.tokens();
            if (rows > max_records || tokens > max_tokens) && !self.jobs.is_empty() {
                return true;
            }
            let Some(job) = jobs.pop_front() else { break };
            (self.rows, self.tokens) = (rows, tokens);
            self.limits = Some((max_records, max_tokens));
            self.deadline = Some(
                self.deadline
                    .map_or(job.deadline, |first| first.min(job.deadline)),
            );
            self.jobs.push(job);
        }
        self.limits
            .is_some_and(|(records, tokens)| self.rows >= records || self.tokens >= tokens)
    }
}

struct Worker {
    name: String,
    queue: Arc<Queue>,
    model: Box<dyn Model>,
    /// Never run, so that a panic can't have left it half changed.
    pristine: Box<dyn Model>,
}

impl Worker {
    fn run(mut self) {
        let sizes =
            metrics::histogram!("milena_inference_batch_records", "model" => self.name.clone());
        while let Some(mut jobs) = self.queue.take() {
            let lengths: Vec<usize> = jobs.iter().map(|job| job.rows.len()).collect();
            sizes.record(lengths.iter().sum::<usize>() as f64);
            let started = Instant::now();
            let together = match jobs.as_mut_slice() {
                [job] => std::mem::replace(&mut job.rows, self.model.takes().none()),
                jobs => {
                    let mut together = self.model.takes().none();
                    jobs.iter().for_each(|job| together.append(&job.rows));
                    together
                }
            };
            let (logits, failed) = self.infer(&together);
            answer(jobs, &lengths, logits, failed, started);
        }
    }

    /// The logits of all rows, and the rows that fail by themselves.
    fn infer(&mut self, rows: &Input) -> (Rows, Vec<FailedRow>) {
        let width = self.model.output_width();
        let mut logits = Rows::new(width);
        let mut failed = Vec::new();
        // Ranges still to do, the next one last.
        let mut ranges: Vec<Range<usize>> = std::iter::once(0..rows.len()).collect();
        while let Some(range) = ranges.pop() {
            let whole = range.len() == rows.len();
            let result = match whole {
                true => self.infer_contained(rows),
                false => self.infer_contained(&rows.slice(range.clone())),
            };
            match result {
                Ok(of_range) if whole => logits = of_range,
                Ok(of_range) => logits.append(&of_range),
                Err(InferError(reason)) if range.len() <= 1 => {
                    logits.values_mut().extend(std::iter::repeat_n(0.0, width));
                    failed.push(FailedRow {
                        row: range.start,
                        reason,
                    });
                }
                Err(_) => {
                    let middle = range.start + range.len() / 2;
                    ranges.push(middle..range.end);
                    ranges.push(range.start..middle);
                }
            }
        }
        fail_not_finite(&mut logits, &mut failed);
        (logits, failed)
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

/// Gives each job its part.
fn answer(
    jobs: Vec<Job>,
    lengths: &[usize],
    logits: Rows,
    failed: Vec<FailedRow>,
    started: Instant,
) {
    let inferring = started.elapsed();
    let mut failed = failed.into_iter().peekable();
    let mut start = 0;
    let single = jobs.len() == 1;
    let mut whole = Some(logits);
    for (job, length) in jobs.into_iter().zip(lengths) {
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
            queued: started.saturating_duration_since(job.submitted),
            inferring,
        });
        start = end;
    }
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
