//! What waits for a model, and how batches are put together of it.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::Inferred;
use crate::model::Input;

/// Rows that wait, and who waits for them.
pub(super) struct Job {
    pub(super) rows: Input,
    pub(super) max_records: usize,
    pub(super) max_tokens: usize,
    pub(super) submitted: Instant,
    pub(super) deadline: Instant,
    pub(super) answer: oneshot::Sender<Inferred>,
    /// Given back when the job is answered or dropped.
    pub(super) _room: OwnedSemaphorePermit,
}

#[derive(Default)]
pub(super) struct Queue {
    state: Mutex<QueueState>,
    changed: Condvar,
}

#[derive(Default)]
struct QueueState {
    jobs: VecDeque<Job>,
    closed: bool,
}

impl Queue {
    pub(super) fn push(&self, job: Job) {
        self.lock().jobs.push_back(job);
        self.changed.notify_one();
    }

    /// What waits is still done.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next batch, `None` when there will be none.
    pub(super) fn take(&self) -> Option<Vec<Job>> {
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
