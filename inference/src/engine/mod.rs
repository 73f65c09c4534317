//! The batching queue in front of a model, and the OS threads that own it.
//!
//! - A worker takes what waits, from any model topic and partition, up to the smallest `max_records` of
//!   what it takes, and starts as soon as it is free: the deeper the queue, the larger the batches. With a
//!   `max_delay` a batch that is not full waits that long from the submission of its oldest rows.
//! - The queue is bounded in rows: [`Engine::submit`] waits for room.
//! - A batch that fails, or panics, is halved until the rows are found that fail by themselves; logits
//!   that are not finite fail their row. Every other row gets its logits.
//! - A batch over which the model takes longer than its timeout has failed, too, and is halved like others on
//!   another thread. A model that does not return is told of: `milena_model_overdue_passes`.
//! - With a cache, rows whose answers are known are not asked for again.
//! - The threads end when the last handle is gone and the queue is empty.

mod cache;
mod priority;
mod queue;
mod worker;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, oneshot};

use crate::model::card::Card;
use crate::model::{self, Footprint, Input, LoadError, LoadedModel, ModelInfo, Rows, Takes};
use crate::spec::ModelSource;
use cache::Cache;
use queue::{Job, Queue};
use worker::{OfModel, Overdue};

/// How an engine runs.
#[derive(Clone, Copy, Debug)]
pub struct EngineConfig {
    /// Threads, each with the model for itself.
    pub workers: usize,
    /// Most rows that wait, those of one submission aside.
    pub queue_rows: usize,
    /// Longest that the model may take over a batch.
    pub timeout: Option<Duration>,
    /// What answers may take that are kept; 0: none is.
    pub cache_bytes: u64,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            workers: 1,
            queue_rows: 65_536,
            timeout: None,
            cache_bytes: 0,
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
    footprint: Footprint,
    room: Arc<Semaphore>,
    queue_rows: usize,
    queue: Arc<Queue>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.queue.close();
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
        Self::start(model, source.engine)
    }

    /// Starts the threads of a model, named `model-<name>`.
    pub fn start(loaded: LoadedModel, config: EngineConfig) -> Result<Self, EngineError> {
        let LoadedModel { info, card, model } = loaded;
        let queue_rows = config.queue_rows.clamp(1, Semaphore::MAX_PERMITS >> 1);
        let inner = Inner {
            info: Arc::new(info),
            card,
            takes: model.takes(),
            footprint: model.footprint(),
            room: Arc::new(Semaphore::new(queue_rows)),
            queue_rows,
            queue: Arc::default(),
        };
        let name = &inner.info.name;
        let cache_bytes = config.cache_bytes;
        let of_model = Arc::new(OfModel {
            name: name.clone(),
            queue: Arc::clone(&inner.queue),
            timeout: config.timeout,
            overdue: Overdue::new(name),
            cache: (cache_bytes > 0).then(|| Cache::new(name, cache_bytes)),
        });
        for _ in 0..config.workers.max(1) {
            worker::start(&of_model, &*model).map_err(|source| EngineError::Thread {
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

    /// What the model takes in memory.
    pub fn footprint(&self) -> Footprint {
        self.inner.footprint
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
        self.inner.queue.push(job);
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
