//! The loop of a model topic.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinError;
use tokio::time::MissedTickBehavior;

use super::commit::{Backoff, Committing};
use super::lineage::Lineage;
use super::measure::{self, Measures};
use super::outputs::OutputMaker;
use super::prepare::{self, Answered, Answers, Part, Polled, submit};
use super::{MAX_WAITING_BYTES, POLL_BYTES, Shared, State};
use crate::codec::{Decoder, OutputEncoder};
use crate::engine::Engine;
use crate::spec::ModelTopicSpec;
use crate::stream_log::{
    CommitError, Error, Event, InputRecord, Output, OutputTopic, Positions, StateSink, StreamLog,
    Task,
};

/// Polls that may be decoded, or have their rows with the engine, at a time.
const MAX_INFERRING: usize = 6;
/// A poll of this size is decoded on a thread of its own: there is a backlog, and the next poll need not
/// wait. A smaller one is not worth the way there.
const DECODE_APART_BYTES: usize = 64 << 10;
/// How often lag is measured.
const LAG_INTERVAL: Duration = Duration::from_secs(1);

/// A task's work that is ready and not in a commit yet.
#[derive(Default)]
pub(super) struct TaskWork {
    /// Goes up whenever work is dropped.
    pub(super) generation: u64,
    pub(super) outputs: Vec<Output>,
    pub(super) positions: Positions,
    /// How many records the positions moved over.
    pub(super) records: u64,
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
    engine: Engine,
    pub(super) log: Arc<L>,
    pub(super) shared: Arc<Shared>,
    pub(super) stop: watch::Receiver<bool>,
    decoder: Arc<Decoder>,
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
}

/// What happens next.
enum Turn {
    Stop,
    Committed(Result<Result<(), CommitError>, JoinError>),
    Inferred(Option<Inference>),
    Polled(Result<Vec<Event>, Error>),
    MeasureLag,
    PollAgain,
}

/// Why the loop ends.
enum End {
    Stopped,
    Halted(String),
}

impl<L: StreamLog> Runtime<L> {
    pub(super) fn new(
        spec: Arc<ModelTopicSpec>,
        engine: Engine,
        log: Arc<L>,
        shared: Arc<Shared>,
        stop: watch::Receiver<bool>,
        decoder: Decoder,
    ) -> Self {
        let lineage = Lineage::new(&spec, &engine, &log.inputs());
        let encoder = OutputEncoder::new(engine.card(), spec.codec.out);
        Self {
            decoder: Arc::new(decoder),
            maker: OutputMaker::new(lineage, encoder, spec.on_error.clone()),
            measures: Measures::new(spec.name()),
            spec,
            engine,
            log,
            shared,
            stop,
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
        tracing::info!(
            topic = self.spec.name(),
            model = self.engine.info().name,
            version = self.engine.info().version,
            "model topic runs"
        );
        let end = self.work().await;
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
        loop {
            self.begin_commit();
            if let (Some(reason), None) = (&self.halting, &self.committing) {
                return End::Halted(reason.clone());
            }
            let turn = self.next_turn(&mut lag).await;
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

    async fn next_turn(&mut self, lag: &mut tokio::time::Interval) -> Turn {
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
        let mut polled = Polled::new(self.engine.takes());
        for event in events {
            match event {
                Event::Assigned(task) => self.assign(task).await?,
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
        let (decoder, seconds) = (Arc::clone(&self.decoder), self.measures.decode.clone());
        let decode = move || {
            let started = Instant::now();
            let prepared = polled.decode(&decoder);
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
                let failed = |error| format!("inference failed: {error}");
                let submitted = submit(&engine, prepared, limits).await.map_err(failed)?;
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
        for part in answered.parts {
            let (task, input, generation) = (part.task, part.input, part.generation);
            let records = part.records.len() as u64;
            // Also where its task is gone: its rows have answers, which must not go to the next part.
            let finished = self.maker.make(part, &mut answers, &self.measures);
            let Some(work) = self.tasks.get_mut(&task) else {
                continue;
            };
            if work.generation != generation {
                continue;
            }
            work.outputs.extend(finished.outputs);
            work.positions.insert(input, finished.next);
            work.records += records;
            if finished.halt.is_some() {
                self.halting = finished.halt;
                self.inferring.clear();
                break;
            }
        }
        Ok(())
    }

    /// Takes a task on, or anew: what is not committed of it is dropped.
    pub(super) async fn assign(&mut self, task: Task) -> Result<(), String> {
        for topic in [OutputTopic::Derived, OutputTopic::DeadLetter] {
            let needed = topic == OutputTopic::Derived || self.spec.dead_letter_topic().is_some();
            let partitions = self.log.partitions(topic).unwrap_or(0);
            if needed && partitions <= task.partition {
                return Err(format!(
                    "the {} topic has {partitions} partitions, and none for partition {} of its inputs",
                    match topic {
                        OutputTopic::Derived => "derived",
                        OutputTopic::DeadLetter => "dead-letter",
                    },
                    task.partition
                ));
            }
        }
        self.next_generation += 1;
        let work = TaskWork {
            generation: self.next_generation,
            ..TaskWork::default()
        };
        self.tasks.insert(task, work);
        let positions = self.restore(task).await?;
        let mut committed = self.shared.committed();
        for (&input, &position) in &positions {
            committed.insert((task, input), position);
        }
        tracing::info!(
            topic = self.spec.name(),
            partition = task.partition,
            ?positions,
            "restored a task"
        );
        Ok(())
    }

    /// Tries until it is known, or nobody wants to know any more.
    async fn restore(&mut self, task: Task) -> Result<Positions, String> {
        let mut backoff = Backoff::new();
        loop {
            let reason = match self.log.restore(task, &mut NoState).await {
                Ok(positions) => return Ok(positions),
                Err(Error::Fatal(reason)) => return Err(format!("restoring failed: {reason}")),
                Err(Error::Retry(reason)) => reason,
            };
            let wait = backoff.next();
            tracing::warn!(
                topic = self.spec.name(),
                partition = task.partition,
                reason,
                retry_in_ms = wait.as_millis() as u64,
                "restoring is tried again"
            );
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                _ = self.stop.wait_for(|stop| *stop) => return Err("stopped".to_owned()),
            }
        }
    }

    pub(super) fn forget(&mut self, task: Task) {
        self.tasks.remove(&task);
        self.shared.committed().retain(|(of, _), _| *of != task);
    }

    fn measure_lag(&mut self) {
        let lag = self.shared.lag(&self.log.ends());
        self.measures.lag(&lag);
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

/// A stateless model topic has none.
struct NoState;

impl StateSink for NoState {
    fn put(&mut self, _key: &[u8], _value: Option<&[u8]>) {}
}

/// Says that a model topic does not run any more.
pub(super) fn halt(topic: &str, shared: &Shared, reason: String) {
    tracing::error!(topic, reason, "model topic is halted");
    measure::halted(topic, true);
    *shared.state() = State::Halted { reason };
}
