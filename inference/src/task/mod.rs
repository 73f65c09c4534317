//! The runtime of a model topic: records in, outputs and positions out, committed together.
//!
//! Each model topic has one OS thread, `topic-<name>`, which serves all its tasks:
//!
//! ```text
//! poll -> decode -> (engine) -> outputs wait -> commit
//! ```
//!
//! - Where there is a backlog, polls are decoded on up to [`DECODERS`] threads beside it, so that a model
//!   topic is not as slow as one processor can parse.
//! - One commit is in flight at a time; the next records are polled, decoded and inferred meanwhile, and
//!   all that is ready then goes into the next commit, so that commits grow with the load.
//! - A poll is answered, and goes into a commit, piece by piece, as the model's batches are: what a slow model has
//!   done is not held back, nor lost with the process, for what it has not.
//! - Outputs are in the order of their inputs, per input partition. Each record gives exactly one: its
//!   prediction, a tombstone where its value is null, or a dead letter; unless its error is skipped.
//! - What is in memory is bounded ([`MAX_WAITING_BYTES`]): beyond it nothing is polled.
//! - A commit of unknown outcome, and a task that is another's, drop all work of their tasks that is not
//!   committed; reading goes on from what the log restores.
//! - What can't be got over halts the model topic, and it alone: an `error` in the log, the gauge
//!   `milena_model_topic_halted`, and [`State::Halted`]. Its positions stay, so that a restart goes on.

mod commit;
mod fit;
mod lineage;
mod measure;
mod outputs;
mod prepare;
mod runtime;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{oneshot, watch};

pub use fit::check_fit;

use crate::codec::{CodecError, Decoder};
use crate::engine::Engine;
use crate::spec::ModelTopicSpec;
use crate::stream_log::{InputEnd, StreamLog, Task};

/// Most bytes of records and outputs that wait for their commit, about.
pub const MAX_WAITING_BYTES: usize = 32 << 20;
/// What one poll asks for, in bytes: reading it, and making its outputs, takes a fraction of a millisecond
/// each, in which nothing else of the model topic moves.
pub const POLL_BYTES: usize = 256 << 10;
/// Most threads that decode the records of a model topic. They end when there was no backlog for a while.
pub const DECODERS: usize = 2;

/// Whether a model topic runs.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum State {
    /// It does.
    #[default]
    Running,
    /// It does not, until a restart.
    Halted {
        /// Why.
        reason: String,
    },
}

/// How a model topic is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Whether it runs.
    pub state: State,
    /// Records by partition that are in its inputs and not committed.
    pub lag: BTreeMap<i32, i64>,
}

/// What the thread and its handle share.
#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    committed: Mutex<BTreeMap<(Task, usize), i64>>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn committed(&self) -> MutexGuard<'_, BTreeMap<(Task, usize), i64>> {
        self.committed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Of the tasks that were restored.
    fn lag(&self, ends: &[InputEnd]) -> BTreeMap<i32, i64> {
        let committed = self.committed();
        let mut lag = BTreeMap::new();
        for end in ends {
            if let Some(position) = committed.get(&(end.task, end.input)) {
                *lag.entry(end.task.partition).or_default() += (end.end - position).max(0);
            }
        }
        lag
    }
}

/// A model topic that runs. Dropping it stops the model topic without waiting.
pub struct Running {
    name: String,
    shared: Arc<Shared>,
    ends: Box<dyn Fn() -> Vec<InputEnd> + Send + Sync>,
    stop: watch::Sender<bool>,
    ended: oneshot::Receiver<()>,
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Running")
            .field("name", &self.name)
            .field("state", &self.shared.state)
            .finish_non_exhaustive()
    }
}

impl Running {
    /// The derived topic's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How it is doing.
    pub fn status(&self) -> Status {
        Status {
            state: self.shared.state().clone(),
            lag: self.shared.lag(&(self.ends)()),
        }
    }

    /// Stops it: the commit in flight is waited for, work beyond it is dropped, to be done again.
    pub async fn stop(self) {
        let _ = self.stop.send(true);
        // An error says that the thread is gone, too.
        let _ = self.ended.await;
    }
}

/// Why a model topic does not start.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// It does not fit its model.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// There is no thread for it.
    #[error("thread: {0}")]
    Thread(#[from] std::io::Error),
}

/// Starts a model topic on its own thread.
pub fn spawn<L: StreamLog>(
    spec: Arc<ModelTopicSpec>,
    engine: Engine,
    log: L,
) -> Result<Running, SpawnError> {
    let decoder = Decoder::new(engine.card(), spec.codec.r#in, spec.text.as_ref())?;
    let name = spec.name().to_owned();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .max_blocking_threads(DECODERS)
        .thread_name(format!("decode-{name}"))
        .build()?;
    let shared = Arc::new(Shared::default());
    let log = Arc::new(log);
    let (stop, stopping) = watch::channel(false);
    let (end, ended) = oneshot::channel();
    let ends = {
        let log = Arc::clone(&log);
        Box::new(move || log.ends())
    };
    let running = Running {
        name: name.clone(),
        shared: Arc::clone(&shared),
        ends,
        stop,
        ended,
    };
    std::thread::Builder::new()
        .name(format!("topic-{name}"))
        .spawn(move || {
            let topic =
                runtime::Runtime::new(spec, engine, log, Arc::clone(&shared), stopping, decoder);
            let outcome = catch_unwind(AssertUnwindSafe(|| runtime.block_on(topic.run())));
            if outcome.is_err() {
                runtime::halt(&name, &shared, "its thread panicked".to_owned());
            }
            drop(runtime);
            let _ = end.send(());
        })?;
    Ok(running)
}
