//! What a connection is at, and when it has to end.
//!
//! The halves of a connection note here what they do; [`Progress::watch`] looks at it now and then.
//! With `patience`, which is 30 seconds or `connections.max.idle.ms` where that is less, a
//! connection is closed when
//!
//! - nothing moved for `connections.max.idle.ms`, and neither a response nor memory is
//!   being waited for;
//! - a request that began to arrive is not complete after `patience` and a second more for each
//!   [`LEAST_BYTES_PER_S`] of it;
//! - responses of more than [`UNTAKEN_BYTES`], records not counted, are not taken within the same time;
//! - a memory budget is used up, and the connection holds some of it and has not got on for
//!   [`PRESSED_PATIENCE`] (where it waits for memory itself: `patience`) and a second more for each
//!   [`LEAST_PRESSED_BYTES_PER_S`] that it holds; or a part of its request holds some of it, and no
//!   more of it came for [`PRESSED_SILENCE`].
//!
//! A connection that is quiet and holds nothing comes to rest: the reader gives its buffers back.
//!
//! Everything here belongs to one task; the atomics are what lets its two halves share it.

use std::future::{Future, poll_fn};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::task::{Poll, ready};
use std::time::Duration;

use tokio::time::Instant;

use super::{Closed, Limits};
use crate::memory_budget::Budgets;

/// How long a request may arrive or a response be taken, if `connections.max.idle.ms` is not less ...
const PATIENCE: Duration = Duration::from_secs(30);
/// ... with a second more for each so many bytes.
pub const LEAST_BYTES_PER_S: usize = 64 * 1024;
/// The same where others wait for the memory.
pub const PRESSED_PATIENCE: Duration = Duration::from_secs(5);
/// How long a half-sent request may be silent where others wait for the memory.
pub const PRESSED_SILENCE: Duration = Duration::from_secs(2);
/// The same where others wait for the memory.
pub const LEAST_PRESSED_BYTES_PER_S: usize = 1024 * 1024;
/// What a client may leave untaken for longer than patience: a consumer that is busy with records
/// reads nothing.
pub const UNTAKEN_BYTES: usize = 64 * 1024;
/// How often a connection that is not at rest is looked at, at most.
const TICK: Duration = Duration::from_millis(2500);

const NEVER: u64 = u64::MAX;

pub(super) struct Progress {
    begin: Instant,
    /// The last byte in or out.
    moved_ms: AtomicU64,
    /// A response is not ready yet: a quiet connection is not an idle one.
    awaits_response: AtomicBool,
    /// When the request that is arriving began to.
    arriving_since_ms: AtomicU64,
    arriving_bytes: AtomicUsize,
    /// The broker is what holds the request up.
    waits_for_memory: AtomicBool,
    /// What requests hold of the budget, and since when none of them got on.
    held_bytes: AtomicUsize,
    held_since_ms: AtomicU64,
    /// What requests hold that is not counted in the budget.
    uncounted_bytes: AtomicUsize,
    /// What responses hold, and since when nothing of it was taken.
    untaken_bytes: AtomicUsize,
    untaken_since_ms: AtomicU64,
    at_rest: AtomicBool,
    /// It was at rest until now.
    woke: AtomicBool,
    stopping: AtomicBool,
}

impl Progress {
    pub(super) fn new() -> Self {
        Self {
            begin: Instant::now(),
            moved_ms: AtomicU64::new(0),
            awaits_response: AtomicBool::new(false),
            arriving_since_ms: AtomicU64::new(NEVER),
            arriving_bytes: AtomicUsize::new(0),
            waits_for_memory: AtomicBool::new(false),
            held_bytes: AtomicUsize::new(0),
            held_since_ms: AtomicU64::new(0),
            uncounted_bytes: AtomicUsize::new(0),
            untaken_bytes: AtomicUsize::new(0),
            untaken_since_ms: AtomicU64::new(0),
            at_rest: AtomicBool::new(false),
            woke: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
        }
    }

    fn now_ms(&self) -> u64 {
        self.begin.elapsed().as_millis() as u64
    }

    /// Bytes came or went.
    pub(super) fn moved(&self) {
        self.moved_ms.store(self.now_ms(), Relaxed);
        if self.at_rest.load(Relaxed) {
            self.at_rest.store(false, Relaxed);
            self.woke.store(true, Relaxed);
        }
    }

    /// A response is waited for, or not any more.
    pub(super) fn awaits_response(&self, awaits: bool) {
        self.awaits_response.store(awaits, Relaxed);
        self.moved();
    }

    /// A part of a request of `bytes` is here.
    pub(super) fn arriving(&self, bytes: usize) {
        self.arriving_bytes.store(bytes, Relaxed);
        if self.arriving_since_ms.load(Relaxed) == NEVER {
            self.arriving_since_ms.store(self.now_ms(), Relaxed);
        }
    }

    /// The request is complete.
    pub(super) fn arrived(&self) {
        self.arriving_since_ms.store(NEVER, Relaxed);
    }

    /// Marks the time in which `waiting` waits for memory.
    pub(super) async fn waiting_for_memory<T>(&self, waiting: impl Future<Output = T>) -> T {
        self.waits_for_memory.store(true, Relaxed);
        let done = waiting.await;
        self.waits_for_memory.store(false, Relaxed);
        done
    }

    /// A request holds `bytes` more of the budget.
    pub(super) fn hold(&self, bytes: usize) {
        let held = self.held_bytes.load(Relaxed);
        if held == 0 {
            self.held_since_ms.store(self.now_ms(), Relaxed);
        }
        self.held_bytes.store(held + bytes, Relaxed);
    }

    /// A request that held `bytes` is answered, or holds less.
    pub(super) fn release(&self, bytes: usize) {
        if bytes > 0 {
            let held = self.held_bytes.load(Relaxed);
            self.held_bytes.store(held.saturating_sub(bytes), Relaxed);
            self.held_since_ms.store(self.now_ms(), Relaxed);
        }
    }

    /// Takes `bytes` without a budget, if that does not come to more than `most`.
    pub(super) fn hold_uncounted(&self, bytes: usize, most: usize) -> bool {
        let held = self.uncounted_bytes.load(Relaxed) + bytes;
        if held > most {
            return false;
        }
        self.uncounted_bytes.store(held, Relaxed);
        true
    }

    pub(super) fn release_uncounted(&self, bytes: usize) {
        let held = self.uncounted_bytes.load(Relaxed);
        self.uncounted_bytes
            .store(held.saturating_sub(bytes), Relaxed);
    }

    /// A response of `bytes` is ready. Returns how many are.
    pub(super) fn answered(&self, bytes: usize) -> usize {
        let untaken = self.untaken_bytes.load(Relaxed);
        if untaken == 0 {
            self.untaken_since_ms.store(self.now_ms(), Relaxed);
        }
        self.untaken_bytes.store(untaken + bytes, Relaxed);
        untaken + bytes
    }

    /// The client took responses of `bytes`.
    pub(super) fn taken(&self, bytes: usize) {
        let untaken = self.untaken_bytes.load(Relaxed).saturating_sub(bytes);
        self.untaken_bytes.store(untaken, Relaxed);
        if untaken > 0 {
            self.untaken_since_ms.store(self.now_ms(), Relaxed);
        }
    }

    /// Bytes of responses that the client has not taken.
    pub(super) fn untaken_bytes(&self) -> usize {
        self.untaken_bytes.load(Relaxed)
    }

    /// Nothing happens: what is kept for the next request can go.
    pub(super) fn is_at_rest(&self) -> bool {
        self.at_rest.load(Relaxed)
    }

    /// Nothing more is to be read.
    pub(super) fn stop(&self) {
        self.stopping.store(true, Relaxed);
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Relaxed)
    }

    /// Ends when the connection has to.
    pub(super) async fn watch(&self, limits: &Limits, budgets: &Budgets) -> Closed {
        let tick = (limits.max_idle / 8).clamp(Duration::from_millis(10), TICK);
        let mut sleep = std::pin::pin!(tokio::time::sleep(tick));
        poll_fn(|cx| {
            loop {
                if self.woke.load(Relaxed) {
                    self.woke.store(false, Relaxed);
                    sleep.as_mut().reset(Instant::now() + tick);
                }
                ready!(sleep.as_mut().poll(cx));
                let now_ms = self.now_ms();
                if let Some(closed) = self.verdict(now_ms, limits, budgets) {
                    return Poll::Ready(closed);
                }
                let quiet = self.quiet(now_ms);
                let mut wait = tick;
                if quiet >= tick && !self.is_busy() {
                    // Once more through the task: the reader lets its buffers go.
                    if !self.at_rest.swap(true, Relaxed) {
                        cx.waker().wake_by_ref();
                    }
                    wait = limits.max_idle.saturating_sub(quiet).max(tick);
                }
                sleep.as_mut().reset(Instant::now() + wait);
            }
        })
        .await
    }

    fn quiet(&self, now_ms: u64) -> Duration {
        Duration::from_millis(now_ms.saturating_sub(self.moved_ms.load(Relaxed)))
    }

    /// Something is held or under way that has a bound of its own.
    fn is_busy(&self) -> bool {
        self.arriving_since_ms.load(Relaxed) != NEVER
            || self.held_bytes.load(Relaxed) > 0
            || self.untaken_bytes() > 0
    }

    fn verdict(&self, now_ms: u64, limits: &Limits, budgets: &Budgets) -> Option<Closed> {
        let max_idle = limits.max_idle;
        let waits = self.awaits_response.load(Relaxed) || self.waits_for_memory.load(Relaxed);
        if self.quiet(now_ms) >= max_idle && !waits {
            return Some(Closed::Idle(max_idle));
        }
        let age = |since_ms: u64| Duration::from_millis(now_ms.saturating_sub(since_ms));
        let patience = PATIENCE.min(max_idle);
        let arriving_since_ms = self.arriving_since_ms.load(Relaxed);
        if arriving_since_ms != NEVER {
            let (bytes, after) = (self.arriving_bytes.load(Relaxed), age(arriving_since_ms));
            if after >= allowance(patience, bytes, LEAST_BYTES_PER_S) {
                return Some(Closed::Slow { bytes, after });
            }
        }
        let (bytes, after) = (
            self.untaken_bytes(),
            age(self.untaken_since_ms.load(Relaxed)),
        );
        if bytes > UNTAKEN_BYTES && after >= allowance(patience, bytes, LEAST_BYTES_PER_S) {
            return Some(Closed::NotTaken { bytes, after });
        }
        let pressed_patience = PRESSED_PATIENCE.min(max_idle);
        let pressed = |patience, bytes, after| {
            (bytes > 0 && after >= allowance(patience, bytes, LEAST_PRESSED_BYTES_PER_S))
                .then_some(Closed::Memory { bytes, after })
        };
        if budgets.responses.is_exhausted()
            && bytes > super::UNCOUNTED_RESPONSE_BYTES
            && let Some(closed) = pressed(pressed_patience, bytes, after)
        {
            return Some(closed);
        }
        if budgets.requests.is_exhausted() {
            let (bytes, after) = (
                self.held_bytes.load(Relaxed),
                age(self.held_since_ms.load(Relaxed)),
            );
            let waits = self.waits_for_memory.load(Relaxed);
            let is_silent = !waits
                && arriving_since_ms != NEVER
                && self.quiet(now_ms) >= PRESSED_SILENCE.min(max_idle);
            if is_silent && bytes > 0 {
                return Some(Closed::Memory { bytes, after });
            }
            let patience = if waits { patience } else { pressed_patience };
            return pressed(patience, bytes, after);
        }
        None
    }
}

/// How long `bytes` may take.
fn allowance(patience: Duration, bytes: usize, least_bytes_per_s: usize) -> Duration {
    patience + Duration::from_secs_f64(bytes as f64 / least_bytes_per_s as f64)
}
