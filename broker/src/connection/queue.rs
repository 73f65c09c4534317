//! The outcomes of one connection's requests, in order, on their way from its reader to its writer.
//!
//! Both are halves of one future: the writer is polled whenever the reader was, so it needs nobody to
//! wake it; only a reader that waits for room does.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use super::request_memory::Held;
use super::{IN_FLIGHT, MAX_UNTAKEN_BYTES};
use crate::connection::progress::Progress;
use crate::memory_budget::Charge;
use crate::router::Outcome;

/// One request's.
pub(super) struct Queued {
    pub(super) outcome: Outcome,
    /// What the request holds until it is answered.
    pub(super) request: Held,
    /// What the response holds until it is taken.
    pub(super) response: Option<Charge>,
}

#[derive(Default)]
pub(super) struct Queue {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    items: VecDeque<Queued>,
    closed: bool,
    reader: Option<Waker>,
}

impl Queue {
    fn state(&self) -> MutexGuard<'_, State> {
        // Never contended: one task.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until one more request may be handled.
    pub(super) async fn room(&self, progress: &Progress) {
        poll_fn(|cx| {
            let mut state = self.state();
            if state.items.len() < IN_FLIGHT && progress.untaken_bytes() <= MAX_UNTAKEN_BYTES {
                Poll::Ready(())
            } else {
                state.reader = Some(cx.waker().clone());
                Poll::Pending
            }
        })
        .await;
    }

    pub(super) fn push(&self, queued: Queued) {
        self.state().items.push_back(queued);
    }

    /// Nothing more is pushed.
    pub(super) fn close(&self) {
        self.state().closed = true;
    }

    pub(super) fn try_pop(&self) -> Option<Queued> {
        self.state().items.pop_front()
    }

    /// The next one; `None` once the queue is closed and empty.
    pub(super) async fn pop(&self) -> Option<Queued> {
        poll_fn(|_| {
            let mut state = self.state();
            match state.items.pop_front() {
                Some(queued) => Poll::Ready(Some(queued)),
                None if state.closed => Poll::Ready(None),
                None => Poll::Pending,
            }
        })
        .await
    }

    /// There may be room again.
    pub(super) fn wake_reader(&self) {
        if let Some(reader) = self.state().reader.take() {
            reader.wake();
        }
    }

    /// Gives back what a burst has grown.
    pub(super) fn shrink(&self) {
        let mut state = self.state();
        if state.items.is_empty() {
            state.items = VecDeque::new();
        }
    }
}
