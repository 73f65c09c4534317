//! The commit of a model topic: all that is ready at once, one in flight, tried again as long as nothing
//! happened.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::{JoinError, JoinHandle};

use super::runtime::Runtime;
use super::work::lock;
use crate::stream_log::{Commit, CommitError, StreamLog, Task};

/// The first wait before trying again; each is twice the one before.
const FIRST_BACKOFF: Duration = Duration::from_millis(10);
/// The longest.
const MAX_BACKOFF: Duration = Duration::from_secs(5);

/// Waits that double.
pub(super) struct Backoff(Duration);

impl Backoff {
    pub(super) fn new() -> Self {
        Self(FIRST_BACKOFF)
    }

    /// The next wait.
    pub(super) fn next(&mut self) -> Duration {
        let wait = self.0;
        self.0 = (self.0 * 2).min(MAX_BACKOFF);
        wait
    }
}

/// Commits, again and again while that makes sense and nobody stops it.
pub(super) async fn commit<L: StreamLog>(
    topic: String,
    log: Arc<L>,
    commits: Arc<[Commit]>,
    mut stop: watch::Receiver<bool>,
) -> Result<(), CommitError> {
    let mut backoff = Backoff::new();
    loop {
        let result = log.commit(Arc::clone(&commits)).await;
        let Err(CommitError::Retry(reason)) = result else {
            return result;
        };
        let wait = backoff.next();
        tracing::warn!(
            topic,
            reason,
            retry_in_ms = wait.as_millis() as u64,
            "commit is tried again"
        );
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            _ = stop.wait_for(|stop| *stop) => return Err(CommitError::Retry(reason)),
        }
    }
}

/// A commit in flight.
pub(super) struct Committing {
    pub(super) commits: Arc<[Commit]>,
    /// By task, when it was begun.
    pub(super) generations: BTreeMap<Task, u64>,
    /// By task, the number of the last change of state that is in it.
    pub(super) changed: BTreeMap<Task, u64>,
    pub(super) records: u64,
    pub(super) last_ms: BTreeMap<Task, i64>,
    pub(super) bytes: usize,
    pub(super) started: Instant,
    pub(super) result: JoinHandle<Result<(), CommitError>>,
}

impl<L: StreamLog> Runtime<L> {
    /// Commits all that is ready, unless a commit is in flight.
    pub(super) fn begin_commit(&mut self) {
        if self.committing.is_some() {
            return;
        }
        let mut commits = Vec::new();
        let mut generations = BTreeMap::new();
        let mut changed = BTreeMap::new();
        let mut last_ms = BTreeMap::new();
        let mut records = 0;
        for (&task, work) in &mut self.tasks {
            if work.positions.is_empty() {
                continue;
            }
            records += std::mem::take(&mut work.records);
            generations.insert(task, work.generation);
            changed.insert(task, work.changed);
            last_ms.extend(work.last_ms.take().map(|last_ms| (task, last_ms)));
            commits.push(Commit {
                task,
                outputs: std::mem::take(&mut work.outputs),
                state: std::mem::take(&mut work.state).into_iter().collect(),
                positions: std::mem::take(&mut work.positions),
            });
        }
        let bytes = std::mem::take(&mut self.ready_bytes);
        if commits.is_empty() {
            return;
        }
        let commits: Arc<[Commit]> = commits.into();
        let result = tokio::spawn(commit(
            self.spec.name().to_owned(),
            Arc::clone(&self.log),
            Arc::clone(&commits),
            self.stop.clone(),
        ));
        self.committing = Some(Committing {
            commits,
            generations,
            changed,
            records,
            last_ms,
            bytes,
            started: Instant::now(),
            result,
        });
    }

    pub(super) async fn end_commit(
        &mut self,
        result: Result<Result<(), CommitError>, JoinError>,
    ) -> Result<(), String> {
        let Some(committing) = self.committing.take() else {
            return Ok(());
        };
        let result = result.map_err(|error| format!("the commit failed: {error}"))?;
        match result {
            Ok(()) => {
                let elapsed = committing.started.elapsed();
                self.measures.commit.record(elapsed.as_secs_f64());
                self.measures.records.increment(committing.records);
                self.state_committed(&committing);
                self.shared.committed_ms().extend(&committing.last_ms);
                let mut committed = self.shared.committed();
                for commit in committing.commits.iter() {
                    for (&input, &position) in &commit.positions {
                        committed.insert((commit.task, input), position);
                    }
                }
                Ok(())
            }
            Err(CommitError::Unknown(reason)) => {
                let topic = self.spec.name();
                tracing::warn!(topic, reason, "a commit's outcome is unknown, restoring");
                // A task that was revoked, or assigned anew, meanwhile is not concerned.
                let generations = committing.generations.iter();
                let same = generations.filter(|(task, of)| self.generation(**task) == Some(**of));
                let tasks: Vec<Task> = same.map(|(&task, _)| task).collect();
                self.assign(&tasks).await
            }
            Err(CommitError::Fenced(tasks)) => {
                for &task in &tasks {
                    let partition = task.partition;
                    tracing::warn!(
                        topic = self.spec.name(),
                        partition,
                        "the task is another's now"
                    );
                    self.forget(task);
                }
                self.put_back(&committing, &tasks);
                Ok(())
            }
            Err(error @ (CommitError::Fatal(_) | CommitError::Retry(_))) => Err(error.to_string()),
        }
    }

    /// What was committed of the state may leave the memory.
    fn state_committed(&self, committing: &Committing) {
        let Some(store) = self.work.store() else {
            return;
        };
        let mut store = lock(store);
        for (&task, &changed) in &committing.changed {
            let generation = committing.generations.get(&task).copied().unwrap_or(0);
            if let Some(state) = store.task(task, generation) {
                state.committed(changed);
            }
        }
        self.measures.features.state(&store);
    }

    fn generation(&self, task: Task) -> Option<u64> {
        self.tasks.get(&task).map(|work| work.generation)
    }

    /// Makes ready again what was in a commit that did not happen, but for some tasks.
    fn put_back(&mut self, committing: &Committing, but: &[Task]) {
        for commit in committing.commits.iter() {
            let Some(work) = self.tasks.get_mut(&commit.task) else {
                continue;
            };
            if but.contains(&commit.task)
                || committing.generations.get(&commit.task) != Some(&work.generation)
            {
                continue;
            }
            let newer = std::mem::replace(&mut work.outputs, commit.outputs.clone());
            work.outputs.extend(newer);
            for (key, value) in &commit.state {
                work.state
                    .entry(key.clone())
                    .or_insert_with(|| value.clone());
            }
            let changed = committing.changed.get(&commit.task).copied();
            work.changed = work.changed.max(changed.unwrap_or(0));
            for (&input, &position) in &commit.positions {
                work.positions.entry(input).or_insert(position);
            }
        }
        self.ready_bytes += committing.bytes;
    }
}
