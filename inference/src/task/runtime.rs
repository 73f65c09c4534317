//! The loop of a model topic.

mod assigning;
mod following;

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use indexmap::IndexMap;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinError;
use tokio::time::MissedTickBehavior;

use super::commit::{Backoff, Committing};
use super::measure::{self, Measures};
use super::outputs::{OutputMaker, Partitions};
use super::prepare::{self, Answered, Answers, Part, Polled, submit};
use super::rekey::Origins;
use super::work::{Work, lock};
use super::{MAX_WAITING_BYTES, POLL_BYTES, Shared, State};
use crate::engine::Engine;
use crate::model::Takes;
use crate::spec::ModelTopicSpec;
use crate::stream_log::{
    CommitError, Error, Event, InputRecord, Output, OutputTopic, Positions, StreamLog, Task,
};

/// Polls that may be decoded, or have their rows with the engine, at a time.
const MAX_INFERRING: usize = 6;
/// A poll of this size is decoded on a thread of its own: there is a backlog, and the next poll need not
/// wait. A smaller one is not worth the way there.
const DECODE_APART_BYTES: usize = 64 << 10;
/// How often it is looked for what is new in tables.
const TABLE_INTERVAL: Duration = Duration::from_millis(20);
/// How often lag is measured.
const LAG_INTERVAL: Duration = Duration::from_secs(1);

/// A task's work that is ready and not in a commit yet.
#[derive(Default)]
pub(super) struct TaskWork {
    /// Goes up whenever work is dropped.
    pub(super) generation: u64,
    pub(super) outputs: Vec<Output>,
    /// The newest value of each key of state that changes.
    pub(super) state: IndexMap<Bytes, Option<Bytes>, foldhash::quality::RandomState>,
    /// The number of the last of these changes.
    pub(super) changed: u64,
    pub(super) positions: Positions,
    /// How many records the positions moved over.
    pub(super) records: u64,
    /// The timestamp of the last of them.
    pub(super) last_ms: Option<i64>,
}

/// A poll that is decoded, or has rows with the engine.
struct Inferring {
    /// Of its records that are not answered.
    bytes: usize,
    /// How many these are.
    records: usize,
    answers: mpsc::UnboundedReceiver<Inference>,
}

/// Some of a poll's records, or why there will be no more of them.
type Inference = Result<Answered, String>;

pub(super) struct Runtime<L> {
    pub(super) spec: Arc<ModelTopicSpec>,
    /// None where records only go on to where their keys are.
    engine: Option<Engine>,
    pub(super) log: Arc<L>,
    pub(super) shared: Arc<Shared>,
    pub(super) stop: watch::Receiver<bool>,
    pub(super) work: Arc<Work>,
    /// Where repartitioned records come from.
    origins: Option<Origins>,
    maker: OutputMaker,
    pub(super) measures: Measures,
    pub(super) tasks: BTreeMap<Task, TaskWork>,
    next_generation: u64,
    inferring: VecDeque<Inferring>,
    /// Ends when all polls so far have their rows with the engine.
    turn: Option<oneshot::Receiver<()>>,
    pub(super) committing: Option<Committing>,
    /// Of outputs that are ready and not in a commit yet.
    pub(super) ready_bytes: usize,
    poll_backoff: Backoff,
    poll_after: Option<tokio::time::Instant>,
    /// Set where it has to halt once what is ready is committed.
    halting: Option<String>,
    /// How far tables are read, by table.
    tables: Vec<BTreeMap<i32, i64>>,
    /// Whether what a clean stop has left was looked for.
    resumed: Option<bool>,
}

/// What a [`Runtime`] is made of.
pub(super) struct Parts<L> {
    pub(super) spec: Arc<ModelTopicSpec>,
    pub(super) engine: Option<Engine>,
    pub(super) log: Arc<L>,
    pub(super) shared: Arc<Shared>,
    pub(super) stop: watch::Receiver<bool>,
    pub(super) work: Arc<Work>,
    pub(super) origins: Option<Origins>,
    pub(super) maker: OutputMaker,
}

/// What happens next.
enum Turn {
    Stop,
    Committed(Result<Result<(), CommitError>, JoinError>),
    Inferred(Option<Inference>),
    Polled(Result<Vec<Event>, Error>),
    MeasureLag,
    PollAgain,
    FollowTables,
}

/// Why the loop ends.
enum End {
    Stopped,
    Halted(String),
}

impl<L: StreamLog> Runtime<L> {
    pub(super) fn new(parts: Parts<L>) -> Self {
        let Parts {
            spec,
            engine,
            log,
            shared,
            stop,
            work,
            origins,
            maker,
        } = parts;
        Self {
            measures: Measures::new(spec.name()),
            spec,
            engine,
            log,
            shared,
            stop,
            work,
            origins,
            maker,
            tables: Vec::new(),
            resumed: None,
            tasks: BTreeMap::new(),
            next_generation: 0,
            inferring: VecDeque::new(),
            turn: None,
            committing: None,
            ready_bytes: 0,
            poll_backoff: Backoff::new(),
            poll_after: None,
            halting: None,
        }
    }

    /// Runs until it is stopped, also where it halts before.
    pub(super) async fn run(mut self) {
        let topic = self.spec.name();
        match &self.engine {
            Some(engine) => {
                let info = engine.info();
                tracing::info!(
                    topic,
                    model = info.name,
                    version = info.version,
                    "model topic runs"
                );
            }
            None => tracing::info!(topic, "repartitioning runs"),
        }
        let end = match self.catch_up_with_tables().await {
            Ok(()) => self.work().await,
            Err(_) if self.is_stopped() => End::Stopped,
            Err(reason) => End::Halted(reason),
        };
        if matches!(end, End::Stopped) {
            self.leave_state().await;
        }
        self.inferring.clear();
        if let Some(committing) = self.committing.take() {
            // It may still succeed; what it comes to is in the log.
            let _ = committing.result.await;
        }
        if let End::Halted(reason) = end {
            halt(self.spec.name(), &self.shared, reason);
            self.measure_until_stopped().await;
        }
    }

    async fn work(&mut self) -> End {
        let mut lag = tokio::time::interval(LAG_INTERVAL);
        lag.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut tables = tokio::time::interval(TABLE_INTERVAL);
        tables.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.begin_commit();
            if let (Some(reason), None) = (&self.halting, &self.committing) {
                return End::Halted(reason.clone());
            }
            let turn = self.next_turn(&mut lag, &mut tables).await;
            let outcome = match turn {
                Turn::Stop => return End::Stopped,
                Turn::Committed(result) => self.end_commit(result).await,
                Turn::Inferred(result) => self.take_answers(result),
                Turn::Polled(result) => self.take_events(result).await,
                Turn::PollAgain => {
                    self.poll_after = None;
                    Ok(())
                }
                Turn::MeasureLag => {
                    self.measure_lag();
                    Ok(())
                }
                Turn::FollowTables => self.follow_tables().await,
            };
            if let Err(reason) = outcome {
                return match self.is_stopped() {
                    true => End::Stopped,
                    false => End::Halted(reason),
                };
            }
        }
    }

    /// Also where the handle is gone.
    fn is_stopped(&self) -> bool {
        *self.stop.borrow() || self.stop.has_changed().is_err()
    }

    async fn next_turn(
        &mut self,
        lag: &mut tokio::time::Interval,
        tables: &mut tokio::time::Interval,
    ) -> Turn {
        let has_tables = !self.tables.is_empty();
        let may_poll = self.halting.is_none()
            && self.inferring.len() < MAX_INFERRING
            && self.waiting_bytes() < MAX_WAITING_BYTES;
        let committed = self.committing.as_mut().map(|commit| &mut commit.result);
        let inferring = self.inferring.front_mut();
        let log = &self.log;
        let poll_after = self.poll_after;
        tokio::select! {
            biased;
            _ = self.stop.wait_for(|stop| *stop) => Turn::Stop,
            Some(result) = maybe(committed) => Turn::Committed(result),
            inference = async {
                match inferring {
                    Some(first) => first.answers.recv().await,
                    None => std::future::pending().await,
                }
            } => Turn::Inferred(inference),
            _ = lag.tick() => Turn::MeasureLag,
            _ = tables.tick(), if has_tables => Turn::FollowTables,
            () = async {
                match poll_after {
                    Some(instant) => tokio::time::sleep_until(instant).await,
                    None => std::future::pending().await,
                }
            } => Turn::PollAgain,
            events = log.poll(POLL_BYTES), if may_poll && poll_after.is_none() => Turn::Polled(events),
        }
    }

    /// Of everything that is in memory.
    fn waiting_bytes(&self) -> usize {
        let inferring: usize = self.inferring.iter().map(|inferring| inferring.bytes).sum();
        let committing = self.committing.as_ref().map_or(0, |commit| commit.bytes);
        self.ready_bytes + inferring + committing
    }

    async fn take_events(&mut self, events: Result<Vec<Event>, Error>) -> Result<(), String> {
        let events = match events {
            Ok(events) => events,
            Err(Error::Fatal(reason)) => return Err(format!("reading failed: {reason}")),
            Err(Error::Retry(reason)) => {
                let wait = self.poll_backoff.next();
                let topic = self.spec.name();
                let retry_in_ms = wait.as_millis() as u64;
                tracing::warn!(topic, reason, retry_in_ms, "reading is tried again");
                self.poll_after = Some(tokio::time::Instant::now() + wait);
                return Ok(());
            }
        };
        self.poll_backoff = Backoff::new();
        let takes = self.engine.as_ref().map_or(Takes::Rows(0), Engine::takes);
        let mut polled = Polled::new(takes);
        let assigned = events.iter().filter_map(|event| match event {
            Event::Assigned(task) => Some(*task),
            _ => None,
        });
        let assigned: Vec<Task> = assigned.collect();
        if !assigned.is_empty() {
            self.assign(&assigned).await?;
        }
        for event in events {
            match event {
                Event::Assigned(_) => {}
                Event::Revoked(task) => self.forget(task),
                Event::Gap {
                    task,
                    input,
                    from,
                    to,
                } => {
                    tracing::warn!(
                        topic = self.spec.name(),
                        partition = task.partition,
                        input,
                        from,
                        to,
                        "records are gone that were not processed"
                    );
                    let missed = u64::try_from(to.saturating_sub(from)).unwrap_or(0);
                    self.measures.missed_records.increment(missed);
                    self.take_records(&mut polled, task, input, Vec::new(), to);
                }
                Event::Records {
                    task,
                    input,
                    records,
                    next,
                } => self.take_records(&mut polled, task, input, records, next),
            }
        }
        if !polled.parts.is_empty() {
            self.begin_inference(polled);
        }
        Ok(())
    }

    fn take_records(
        &self,
        polled: &mut Polled,
        task: Task,
        input: usize,
        records: Vec<InputRecord>,
        next: i64,
    ) {
        if let Some(work) = self.tasks.get(&task) {
            let part = Part {
                task,
                generation: work.generation,
                input,
                records: Vec::new(),
                next,
            };
            polled.push(part, records);
        }
    }

    fn begin_inference(&mut self, polled: Polled) {
        let limits = self.spec.batch_limits();
        let (engine, bytes) = (self.engine.clone(), polled.bytes);
        let records = polled.parts.iter().map(|(_, records)| records.len()).sum();
        let (work, seconds) = (Arc::clone(&self.work), self.measures.decode.clone());
        let (features, measures) = (Arc::clone(&self.work), self.measures.features.clone());
        let decode = move || {
            let started = Instant::now();
            let prepared = polled.decode(&work);
            seconds.record(started.elapsed().as_secs_f64());
            prepared
        };
        let (tell, answers) = mpsc::unbounded_channel();
        let (turn, ended) = oneshot::channel::<()>();
        let before = self.turn.replace(ended);
        tokio::spawn(async move {
            let done = async {
                let prepared = match bytes {
                    DECODE_APART_BYTES.. => tokio::task::spawn_blocking(decode)
                        .await
                        .map_err(|error| format!("decoding failed: {error}"))?,
                    _ => decode(),
                };
                // The next poll may be decoded before, and must not get the model before.
                if let Some(before) = before {
                    let _ = before.await;
                }
                // In the order of the polls, as what is remembered of keys needs it.
                let prepared = match features.planned() {
                    Some(planned) => planned
                        .make(prepared, &measures)
                        .map_err(|e| e.to_string())?,
                    None => prepared,
                };
                let failed = |error| format!("inference failed: {error}");
                let submitted = submit(engine.as_ref(), prepared, limits)
                    .await
                    .map_err(failed)?;
                drop(turn);
                // Nobody may want to know any more.
                let tell = |answered| drop(tell.send(Ok(answered)));
                prepare::answers(submitted, tell).await.map_err(failed)
            };
            if let Err(reason) = done.await {
                let _ = tell.send(Err(reason));
            }
        });
        self.inferring.push_back(Inferring {
            bytes,
            records,
            answers,
        });
    }

    /// Makes outputs of the oldest records that are with the engine.
    fn take_answers(&mut self, inference: Option<Inference>) -> Result<(), String> {
        let Some(inferring) = self.inferring.front_mut() else {
            return Ok(());
        };
        let answered = inference.ok_or("inference failed: its task is gone")??;
        let records: usize = answered.parts.iter().map(|part| part.records.len()).sum();
        let bytes = match answered.is_last {
            true => inferring.bytes,
            false => inferring.bytes * records / inferring.records.max(1),
        };
        inferring.bytes -= bytes;
        inferring.records -= records;
        if answered.is_last {
            self.inferring.pop_front();
        }
        if let Some(inferred) = &answered.inferred {
            self.measures.queue.record(inferred.queued.as_secs_f64());
            self.measures.infer.record(inferred.inferring.as_secs_f64());
        }
        let mut answers = Answers::new(answered.inferred);
        self.ready_bytes += bytes;
        let partitions = Partitions {
            derived: self.log.partitions(OutputTopic::Derived).unwrap_or(0),
            dead_letter: self.log.partitions(OutputTopic::DeadLetter).unwrap_or(0),
        };
        for part in answered.parts {
            let (task, input, generation) = (part.task, part.input, part.generation);
            let records = part.records.len() as u64;
            let last_ms = part.records.last().map(|item| item.record.timestamp_ms);
            // Also where its task is gone: its rows have answers, which must not go to the next part.
            let finished = self
                .maker
                .make(part, &mut answers, partitions, &self.measures);
            let Some(work) = self.tasks.get_mut(&task) else {
                continue;
            };
            if work.generation != generation {
                continue;
            }
            work.outputs.extend(finished.outputs);
            work.state.extend(finished.changes);
            work.changed = work.changed.max(finished.changed);
            work.positions.insert(input, finished.next);
            work.records += records;
            work.last_ms = last_ms.or(work.last_ms);
            if finished.halt.is_some() {
                self.halting = finished.halt;
                self.inferring.clear();
                break;
            }
        }
        Ok(())
    }

    pub(super) fn forget(&mut self, task: Task) {
        self.tasks.remove(&task);
        if let Some(store) = self.work.store() {
            lock(store).forget(task);
        }
        self.shared.committed().retain(|(of, _), _| *of != task);
    }

    fn measure_lag(&mut self) {
        let lag = self.shared.lag(&self.log.ends());
        self.measures.lag(&lag);
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let now_ms = now.map_or(0, |now| now.as_millis() as i64);
        self.measures
            .lag_seconds
            .set(self.shared.lag_seconds(&lag, now_ms));
    }

    async fn measure_until_stopped(&mut self) {
        let mut lag = tokio::time::interval(LAG_INTERVAL);
        loop {
            tokio::select! {
                _ = self.stop.wait_for(|stop| *stop) => return,
                _ = lag.tick() => {}
            }
            self.measure_lag();
        }
    }
}

/// Resolves to what the future gives, or to `None` where there is none.
async fn maybe<F: Future + Unpin>(future: Option<F>) -> Option<F::Output> {
    match future {
        Some(future) => Some(future.await),
        None => None,
    }
}

/// Says that a model topic does not run any more.
pub(super) fn halt(topic: &str, shared: &Shared, reason: String) {
    tracing::error!(topic, reason, "model topic is halted");
    measure::halted(topic, true);
    *shared.state() = State::Halted { reason };
}
