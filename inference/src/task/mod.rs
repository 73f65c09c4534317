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
mod rekey;
mod rules;
mod runtime;
mod table;
mod work;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{oneshot, watch};

pub use fit::check_fit;
pub use rekey::{HEADER as ORIGIN_HEADER, Origins, source};

use crate::codec::{CodecError, Decoder, OutputEncoder};
use crate::engine::Engine;
use crate::feature::plan::{FeatureValue, KeyPicker, Plan, PlanError};
use crate::spec::{Codec, DEFAULT_STATE_BYTES, EventTimeSpec, ModelTopicSpec};
use crate::state::{Definition, StateError, Store};
use crate::stream_log::{InputEnd, OutputTopic, StreamLog, Task};
use lineage::Lineage;
use outputs::OutputMaker;
use rules::Writer;
use table::TableSet;
use work::{Planned, Work};

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
    /// By task, the timestamp of the last record that was committed.
    committed_ms: Mutex<BTreeMap<Task, i64>>,
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

    fn committed_ms(&self) -> MutexGuard<'_, BTreeMap<Task, i64>> {
        self.committed_ms
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// How old the last record is that was committed, of the task that is furthest behind; 0 where none is.
    fn lag_seconds(&self, lag: &BTreeMap<i32, i64>, now_ms: i64) -> f64 {
        let committed_ms = self.committed_ms();
        let behind = committed_ms
            .iter()
            .filter(|(task, _)| lag.get(&task.partition).is_some_and(|lag| *lag > 0));
        let oldest = behind.map(|(_, committed_ms)| *committed_ms).min();
        oldest.map_or(0.0, |oldest| {
            now_ms.saturating_sub(oldest).max(0) as f64 / 1000.0
        })
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
    work: Arc<Work>,
}

/// What is remembered of a key.
#[derive(Clone, Debug, PartialEq)]
pub struct KeyState {
    /// The task that has it.
    pub partition: i32,
    /// The highest event time that the task has seen.
    pub as_of_ms: i64,
    /// Its stream time, which sources that are behind hold back; `None` before all have given a record.
    pub stream_ms: Option<i64>,
    /// Whether all of it is committed: consumers see the outputs of every record in it.
    pub is_committed: bool,
    /// What the windows that end then hold, by feature.
    pub features: Vec<(String, FeatureValue)>,
}

/// What a model topic says of a key.
#[derive(Clone, Debug, PartialEq)]
pub enum Remembered {
    /// It is not known yet: the state is being restored, or could not be.
    Restoring,
    /// Nothing.
    Nothing,
    /// This.
    Key(KeyState),
}

/// Asks a model topic that runs for its state.
#[derive(Clone, Debug)]
pub struct StateReader(Arc<Work>);

impl StateReader {
    /// What is remembered of a key. It may be on the disk.
    pub fn get(&self, key: &[u8]) -> Result<Remembered, StateError> {
        let Some(planned) = self.0.planned() else {
            return Ok(Remembered::Nothing);
        };
        let Some(store) = &planned.store else {
            return Ok(Remembered::Nothing);
        };
        let mut store = work::lock(store);
        if !store.is_ready() {
            return Ok(Remembered::Restoring);
        }
        let tasks: Vec<Task> = store.tasks().collect();
        for task in tasks {
            let Some((state, spill)) = store.look(task) else {
                continue;
            };
            let Some((cells, is_committed)) = state.get(spill, key)? else {
                continue;
            };
            let stream_ms = state.clock().stream_ms();
            let as_of_ms = state.clock().highest_ms().unwrap_or(stream_ms);
            let features = planned.plan.look(&cells, as_of_ms).into_iter();
            return Ok(Remembered::Key(KeyState {
                partition: task.partition,
                as_of_ms,
                stream_ms: (stream_ms != i64::MIN).then_some(stream_ms),
                is_committed,
                features: features
                    .map(|(name, value)| (name.to_owned(), value))
                    .collect(),
            }));
        }
        Ok(Remembered::Nothing)
    }
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

    /// Asks for its state; `None` where it has none.
    pub fn state(&self) -> Option<StateReader> {
        self.work.store()?;
        Some(StateReader(Arc::clone(&self.work)))
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
    /// Its features do not.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// There is no thread for it.
    #[error("thread: {0}")]
    Thread(#[from] std::io::Error),
}

/// What a model topic needs to know of the world around it.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// Where event times are, by original input; without one, a record's timestamp is its.
    pub event_times: Vec<Option<EventTimeSpec>>,
    /// Where the records of a repartition topic come from, where it reads one.
    pub origins: Option<Origins>,
    /// Where state goes that memory has no room for; without one all of it stays in memory.
    pub state_folder: Option<PathBuf>,
}

/// Starts a model topic on its own thread, with nothing special around it.
pub fn spawn<L: StreamLog>(
    spec: Arc<ModelTopicSpec>,
    engine: Engine,
    log: L,
) -> Result<Running, SpawnError> {
    spawn_in(spec, engine, log, Surroundings::default())
}

/// Starts a model topic on its own thread.
pub fn spawn_in<L: StreamLog>(
    spec: Arc<ModelTopicSpec>,
    engine: Engine,
    log: L,
    surroundings: Surroundings,
) -> Result<Running, SpawnError> {
    let plan = Plan::new(&spec, engine.card(), &surroundings.event_times)?;
    let inputs = match &surroundings.origins {
        Some(origins) => Arc::clone(&origins.inputs),
        None => log.inputs(),
    };
    let lineage = Lineage::new(&spec, Some(&engine), &inputs);
    let encoder = OutputEncoder::new(engine.card(), spec.codec.out);
    let (work, writer) = match plan {
        None => {
            let decoder = Decoder::new(engine.card(), spec.codec.r#in, spec.text.as_ref())?;
            (Work::Plain(decoder), None)
        }
        Some(plan) => {
            let plan = Arc::new(plan);
            let json = OutputEncoder::new(engine.card(), Codec::Json);
            let writer = Writer::new(&spec, Arc::clone(&plan), json);
            let work = Planned {
                panes: plan.panes().cloned().collect(),
                store: plan
                    .is_stateful()
                    .then(|| store(&spec, &plan, &log, &surroundings)),
                tables: Arc::new(TableSet::new(&plan)),
                is_repartitioned: surroundings.origins.is_some(),
                keeps_seen: writer.is_some(),
                plan,
            };
            (Work::Planned(Box::new(work)), writer)
        }
    };
    let maker = OutputMaker::new(lineage, Some(encoder), writer, spec.on_error.clone());
    start(spec, Some(engine), log, work, surroundings.origins, maker)
}

/// Starts the repartitioning of a model topic's inputs on its own thread. `spec` is that of the repartition topic: its name,
/// and the model topic's inputs and key.
pub fn spawn_rekey<L: StreamLog>(spec: Arc<ModelTopicSpec>, log: L) -> Result<Running, SpawnError> {
    let key = spec.key.clone().ok_or(CodecError {
        key: "key",
        reason: "is needed to repartition".to_owned(),
    })?;
    let lineage = Lineage::new(&spec, None, &log.inputs());
    let maker = OutputMaker::new(lineage, None, None, spec.on_error.clone());
    let work = Work::Rekey {
        picker: KeyPicker::new(key),
        replayed: Mutex::default(),
    };
    start(spec, None, log, work, None, maker)
}

fn store<L: StreamLog>(
    spec: &ModelTopicSpec,
    plan: &Plan,
    log: &L,
    surroundings: &Surroundings,
) -> Arc<Mutex<Store>> {
    let definition = Definition::new(
        spec.key.as_ref().map(|key| key.as_str().to_owned()),
        log.partitions(OutputTopic::Derived).unwrap_or(0),
        plan.panes_and_fields(),
    );
    let max_bytes = spec.state.max_bytes.as_ref().map(|bytes| *bytes.get_ref());
    Arc::new(Mutex::new(Store::new(
        definition,
        spec.idle_timeout,
        max_bytes.unwrap_or(DEFAULT_STATE_BYTES),
        surroundings.state_folder.clone(),
    )))
}

fn start<L: StreamLog>(
    spec: Arc<ModelTopicSpec>,
    engine: Option<Engine>,
    log: L,
    work: Work,
    origins: Option<Origins>,
    maker: OutputMaker,
) -> Result<Running, SpawnError> {
    let name = spec.name().to_owned();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .max_blocking_threads(DECODERS)
        .thread_name(format!("decode-{name}"))
        .build()?;
    let shared = Arc::new(Shared::default());
    let (log, work) = (Arc::new(log), Arc::new(work));
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
        work: Arc::clone(&work),
    };
    std::thread::Builder::new()
        .name(format!("topic-{name}"))
        .spawn(move || {
            let topic = runtime::Runtime::new(runtime::Parts {
                spec,
                engine,
                log,
                shared: Arc::clone(&shared),
                stop: stopping,
                work,
                origins,
                maker,
            });
            let outcome = catch_unwind(AssertUnwindSafe(|| runtime.block_on(topic.run())));
            if outcome.is_err() {
                runtime::halt(&name, &shared, "its thread panicked".to_owned());
            }
            drop(runtime);
            let _ = end.send(());
        })?;
    Ok(running)
}
