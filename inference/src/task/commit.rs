//! The commit of a model topic: all that is ready at once, one in flight, tried again as long as nothing
//! happened.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::{JoinError, JoinHandle};

use super::runtime::Runtime;
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
    pub(super) records: u64,
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
        let mut records = 0;
        for (&task, work) in &mut self.tasks {
            if work.positions.is_empty() {
                continue;
            }
            records += std::mem::take(&mut work.records);
            generations.insert(task, work.generation);
            commits.push(Commit {
                task,
                outputs: std::mem::take(&mut work.outputs),
                state: Vec::new(),
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
            records,
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
                for (&task, &generation) in &committing.generations {
                    // A task that was revoked, or assigned anew, meanwhile is not concerned.
                    if self.generation(task) == Some(generation) {
                        self.assign(task).await?;
                    }
                }
                Ok(())
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
            for (&input, &position) in &commit.positions {
                work.positions.entry(input).or_insert(position);
            }
        }
        self.ready_bytes += committing.bytes;
    }
}
