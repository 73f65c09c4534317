//! What one request holds of the broker's memory, from its first byte to its answer.
//!
//! A connection has [`UNCOUNTED_REQUEST_BYTES`] for its requests without asking: heartbeats, commits,
//! metadata and fetches of some partitions are never held up by the budget. What is larger is
//! counted: the frame while it arrives, what it becomes when it is decoded before that happens.

use std::sync::Arc;

use super::progress::Progress;
use super::{UNCOUNTED_REQUEST_BYTES, UNCOUNTED_RESPONSE_BYTES};
use crate::memory_budget::{Budgets, Charge};

/// What a request is taken to hold besides its bytes: its place in the queue, its future.
const REQUEST_BYTES: usize = 1024;
/// What an element of an array is taken to hold, decoded, with its part of the answer.
const ELEMENT_BYTES: usize = 256;

/// What a request holds until it is answered.
#[derive(Default)]
pub(super) struct Held {
    pub(super) charge: Option<Charge>,
    uncounted: usize,
}

impl Held {
    /// The request is answered.
    pub(super) fn release(self, progress: &Progress) {
        progress.release_uncounted(self.uncounted);
        if let Some(charge) = self.charge {
            progress.release(charge.bytes());
        }
    }
}

/// Counts what a request holds.
pub struct RequestMemory<'a> {
    budgets: &'a Arc<Budgets>,
    progress: &'a Progress,
    held: Held,
    frame_bytes: usize,
}

impl<'a> RequestMemory<'a> {
    /// Of a request whose frame is complete; `charge` is what was counted for it.
    pub(super) fn new(
        budgets: &'a Arc<Budgets>,
        progress: &'a Progress,
        frame_bytes: usize,
        charge: Option<Charge>,
    ) -> Self {
        Self {
            budgets,
            progress,
            held: Held {
                charge,
                uncounted: 0,
            },
            frame_bytes,
        }
    }

    /// Counts a request of so many elements before they are decoded, and waits until there is
    /// memory for it.
    pub async fn decoded(&mut self, elements: usize) {
        let mut bytes = REQUEST_BYTES + elements.saturating_mul(ELEMENT_BYTES);
        if self.held.charge.is_none() {
            bytes += self.frame_bytes;
        }
        if self.progress.hold_uncounted(bytes, UNCOUNTED_REQUEST_BYTES) {
            self.held.uncounted += bytes;
            return;
        }
        let charge = self
            .held
            .charge
            .get_or_insert_with(|| Charge::none(&self.budgets.requests));
        let request_bytes = self.frame_bytes.saturating_add(bytes);
        if !charge.try_add(bytes, request_bytes) {
            let waiting = charge.add(bytes, request_bytes);
            self.progress.waiting_for_memory(waiting).await;
        }
        self.progress.hold(bytes);
    }

    /// Waits until responses that were not taken leave room for another one. Who has some of them
    /// leaves the other half to who has none.
    pub async fn room_for_response(&self) {
        let has_some = self.progress.untaken_bytes() > UNCOUNTED_RESPONSE_BYTES;
        let responses = &self.budgets.responses;
        if has_some || responses.is_exhausted() {
            let room = Box::pin(responses.room(has_some));
            self.progress.waiting_for_memory(room).await;
        }
    }

    pub(super) fn into_held(self) -> Held {
        self.held
    }
}
