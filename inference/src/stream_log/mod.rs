//! The seam between the runtime and whatever log it runs on.
//!
//! The runtime can't tell which implementation it has: the broker's own log, an in-memory one, or
//! later a Kafka cluster. All of them pass the same conformance suite.
//!
//! # What is promised
//!
//! - *Position*: the offset of the next input record that a task has not processed. What is below a
//!   *committed* position has had its outputs published; what is at or above it has not.
//! - [`StreamLog::commit`] is all or nothing across every [`Commit`] it is given: outputs, state and
//!   positions become visible together, or none does.
//! - Outputs of one output partition appear in the order of their commits, and within a commit in
//!   the order given.
//! - Records arrive per (task, input) in offset order, each once, from the committed position on.
//!   Aborted data and control records never arrive; `next` and [`Event::Gap`] step over them.
//! - One `poll` and one `commit` may be in flight at a time, together.

pub mod conformance;
mod headers;
pub mod memory;

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;

pub use headers::{Header, Headers};

/// One partition of the inputs of a model topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Task {
    /// The partition number that the task owns of every input.
    pub partition: i32,
}

/// A record read from an input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputRecord {
    /// Offset in its partition.
    pub offset: i64,
    /// Milliseconds since the epoch.
    pub timestamp_ms: i64,
    /// May be null.
    pub key: Option<Bytes>,
    /// May be null.
    pub value: Option<Bytes>,
    /// In order.
    pub headers: Vec<Header>,
}

/// Where an output goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum OutputTopic {
    /// The derived topic.
    Derived,
    /// The dead-letter topic.
    DeadLetter,
    /// A topic of rules, by its number among the model topic's.
    Alert(usize),
}

/// A record to publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// The topic.
    pub topic: OutputTopic,
    /// Its partition.
    pub partition: i32,
    /// Milliseconds since the epoch.
    pub timestamp_ms: i64,
    /// May be null.
    pub key: Option<Bytes>,
    /// Null passes a tombstone on.
    pub value: Option<Bytes>,
    /// In order.
    pub headers: Headers,
}

/// Next offset per input, by the input's index in the model topic's list.
pub type Positions = BTreeMap<usize, i64>;

/// Passes a task's state on, where it is wanted.
struct OfTask<'s> {
    task: Task,
    states: Option<&'s mut (dyn StatesSink + Send)>,
}

impl StateSink for OfTask<'_> {
    fn put(&mut self, key: &[u8], value: Option<&[u8]>) {
        if let Some(states) = &mut self.states {
            states.put(self.task, key, value);
        }
    }
}

/// What [`StreamLog::poll`] tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The task is this runtime's from now on: restore it before its first records.
    Assigned(Task),
    /// The task is another's from now on: forget it, uncommitted work with it.
    Revoked(Task),
    /// Records of one input, in offset order.
    Records {
        /// The task.
        task: Task,
        /// The input's index.
        input: usize,
        /// May be empty where only control records or aborted data were passed.
        records: Vec<InputRecord>,
        /// The position after them.
        next: i64,
    },
    /// Offsets `from..to` are gone (retention, deletion): the position moves to `to`.
    Gap {
        /// The task.
        task: Task,
        /// The input's index.
        input: usize,
        /// The first missing offset.
        from: i64,
        /// The first present offset.
        to: i64,
    },
}

/// What one task has done since its last commit.
#[derive(Clone, Debug)]
pub struct Commit {
    /// The task.
    pub task: Task,
    /// In input order.
    pub outputs: Vec<Output>,
    /// Changes to the task's state; `None` deletes.
    pub state: Vec<(Bytes, Option<Bytes>)>,
    /// The new positions of the inputs that moved.
    pub positions: Positions,
}

/// Why a commit did not succeed, by what the caller must do.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CommitError {
    /// Nothing happened; the same commit may be tried again.
    #[error("commit failed, nothing was written: {0}")]
    Retry(String),
    /// It may or may not have happened: restore the tasks before going on.
    #[error("commit has an unknown outcome: {0}")]
    Unknown(String),
    /// These tasks are another's now; nothing happened.
    #[error("fenced from {0:?}")]
    Fenced(Vec<Task>),
    /// This log can't be committed to any more.
    #[error("commit is impossible: {0}")]
    Fatal(String),
}

/// Why a read did not succeed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The same call may succeed later.
    #[error("{0}")]
    Retry(String),
    /// It never will.
    #[error("{0}")]
    Fatal(String),
}

/// Receives a task's committed state, in any order, each key once or with the last one valid.
pub trait StateSink {
    /// Sets (`Some`) or removes (`None`) a key.
    fn put(&mut self, key: &[u8], value: Option<&[u8]>);
}

/// Receives the committed state of several tasks, each task's in the order of its changes.
pub trait StatesSink {
    /// Sets (`Some`) or removes (`None`) a task's key.
    fn put(&mut self, task: Task, key: &[u8], value: Option<&[u8]>);
}

/// A record of a table: its key and its value, either of which may be null.
pub type TableRecord = (Option<Bytes>, Option<Bytes>);

/// How far the reading is, for lag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InputEnd {
    /// The task.
    pub task: Task,
    /// The input's index.
    pub input: usize,
    /// The end that read-committed readers see now.
    pub end: i64,
}

/// A log that a model topic reads from and commits to. See the module's promises.
pub trait StreamLog: Send + Sync + 'static {
    /// Waits for events: assignments first, then records. Resolves as soon as there is anything,
    /// with about `max_bytes` at most (at least one record where there is one). Cancel-safe: a
    /// dropped poll loses nothing.
    fn poll(&self, max_bytes: usize) -> impl Future<Output = Result<Vec<Event>, Error>> + Send;

    /// The committed state and positions of a task. Polling goes on from the positions returned.
    /// After a commit of unknown outcome it says what really happened.
    fn restore(
        &self,
        task: Task,
        sink: &mut (dyn StateSink + Send),
    ) -> impl Future<Output = Result<Positions, Error>> + Send;

    /// As [`StreamLog::restore`], of several tasks; without `states` only positions are wanted.
    fn restore_all(
        &self,
        tasks: &[Task],
        states: Option<&mut (dyn StatesSink + Send)>,
    ) -> impl Future<Output = Result<BTreeMap<Task, Positions>, Error>> + Send {
        async move {
            let mut all = BTreeMap::new();
            let Some(&first) = tasks.first() else {
                return Ok(all);
            };
            let mut sink = OfTask {
                task: first,
                states,
            };
            for &task in tasks {
                sink.task = task;
                all.insert(task, self.restore(task, &mut sink).await?);
            }
            Ok(all)
        }
    }

    /// Names the committed state, all tasks' together, as it is now: as long as the name is the same the state is.
    /// `None` where there is no telling.
    fn state_version(&self) -> Option<String> {
        None
    }

    /// What a table has behind positions by partition, which move over it; nothing once all is read. Records that are gone
    /// are passed over.
    fn read_table(
        &self,
        table: &str,
        positions: &mut BTreeMap<i32, i64>,
    ) -> impl Future<Output = Result<Vec<TableRecord>, Error>> + Send {
        let _ = positions;
        let error = Error::Fatal(format!("there is no table {table:?}"));
        async move { Err(error) }
    }

    /// Commits all or nothing; visible to consumers when `Ok`. Shared, so that what may have to be
    /// tried again is not copied.
    fn commit(
        &self,
        commits: Arc<[Commit]>,
    ) -> impl Future<Output = Result<(), CommitError>> + Send;

    /// Stops or resumes records of a task.
    fn pause(&self, task: Task, paused: bool);

    /// The partition count of an output, `None` where it does not exist.
    fn partitions(&self, topic: OutputTopic) -> Option<i32>;

    /// The inputs' ends, for lag.
    fn ends(&self) -> Vec<InputEnd>;

    /// The names of the inputs, for lineage.
    fn inputs(&self) -> Arc<[String]>;
}
