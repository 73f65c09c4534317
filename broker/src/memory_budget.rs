//! What requests and responses may hold of the broker's memory, over all connections.
//!
//! - A [`Budget`] counts bytes. Who wants more than is left waits ([`Charge::add`]), so that reading
//!   stops and the socket pushes back.
//! - Nobody waits for ever: when a budget is used up, one charge of each lane at a time may go beyond
//!   it, and goes to its end. Requests that hold each other up by each having half of what they need
//!   are let through one by one. And the connections that hold memory without getting on are
//!   closed while others wait ([`Budget::is_exhausted`]; `connection::progress` has the bounds).
//! - Requests of more than [`LARGE_BYTES`] are a lane of their own, and have three quarters of the
//!   budget: however many of them are stuck, smaller ones have the rest.
//!
//! So a budget's charges are at most its limit, the largest request, and [`LARGE_BYTES`]. A
//! charge costs two atomic operations.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// A request is large from this size on.
pub const LARGE_BYTES: usize = 1024 * 1024;

/// The budgets of one broker.
#[derive(Debug)]
pub struct Budgets {
    /// `queued.max.request.bytes`: requests that have arrived, partly or wholly, and are not answered.
    pub requests: Arc<Budget>,
    /// `milena.queued.max.response.bytes`: responses that were not taken yet. Records are not
    /// counted: they are slices of the log's memory maps.
    pub responses: Arc<Budget>,
}

impl Budgets {
    /// Of so many bytes each.
    pub fn new(requests: usize, responses: usize) -> Arc<Self> {
        Arc::new(Self {
            requests: Budget::new(requests),
            responses: Budget::new(responses),
        })
    }
}

/// Bytes that may be held at the same time.
#[derive(Debug)]
pub struct Budget {
    limit: usize,
    used: AtomicUsize,
    waiting: AtomicUsize,
    small: Lane,
    large: Lane,
}

#[derive(Debug)]
struct Lane {
    freed: Notify,
    /// Who has it goes beyond the limit.
    overdraft: Arc<Semaphore>,
}

impl Lane {
    fn new() -> Self {
        Self {
            freed: Notify::new(),
            overdraft: Arc::new(Semaphore::new(1)),
        }
    }
}

impl Budget {
    /// Nothing is held yet.
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            limit,
            used: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            small: Lane::new(),
            large: Lane::new(),
        })
    }

    /// What is held now.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::SeqCst)
    }

    /// Somebody waits for memory, or more is held than there should be.
    pub fn is_exhausted(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0 || self.used() > self.limit
    }

    /// Waits until there is something left; with `a_lot`, half of it. It is not taken: what comes of
    /// it may go beyond the limit.
    pub async fn room(&self, a_lot: bool) {
        let (lane, limit) = if a_lot {
            (&self.large, self.limit / 2)
        } else {
            (&self.small, self.limit)
        };
        if self.used() < limit {
            return;
        }
        let _waiting = Waiting::new(self);
        loop {
            let mut freed = std::pin::pin!(lane.freed.notified());
            freed.as_mut().enable();
            if self.used() < limit {
                // There may be enough for the next one too.
                lane.freed.notify_one();
                return;
            }
            freed.await;
        }
    }

    fn lane(&self, request_bytes: usize) -> (&Lane, usize) {
        if request_bytes > LARGE_BYTES {
            (&self.large, self.limit / 4 * 3)
        } else {
            (&self.small, self.limit)
        }
    }

    fn try_take(&self, bytes: usize, limit: usize) -> bool {
        let take = |used: usize| Some(used.checked_add(bytes)?).filter(|used| *used <= limit);
        self.used
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, take)
            .is_ok()
    }

    fn take(&self, bytes: usize) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
    }

    fn give_back(&self, bytes: usize) {
        if bytes == 0 {
            return;
        }
        // Ordered before the look at who waits: who begins to wait after it sees these bytes free.
        self.used.fetch_sub(bytes, Ordering::SeqCst);
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.small.freed.notify_one();
            self.large.freed.notify_one();
        }
    }

    /// Takes `bytes`, waiting for them; with the overdraft where they go beyond the limit.
    async fn wait_for(&self, bytes: usize, request_bytes: usize) -> Option<OwnedSemaphorePermit> {
        let _waiting = Waiting::new(self);
        let (lane, limit) = self.lane(request_bytes);
        loop {
            let mut freed = std::pin::pin!(lane.freed.notified());
            freed.as_mut().enable();
            if self.try_take(bytes, limit) {
                // There may be enough for the next one too.
                lane.freed.notify_one();
                return None;
            }
            tokio::select! {
                biased;
                () = freed => {}
                permit = lane.overdraft.clone().acquire_owned() => {
                    self.take(bytes);
                    return permit.ok();
                }
            }
        }
    }
}

/// Counts who waits.
struct Waiting<'a>(&'a Budget);

impl<'a> Waiting<'a> {
    fn new(budget: &'a Budget) -> Self {
        budget.waiting.fetch_add(1, Ordering::SeqCst);
        Self(budget)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Bytes held of a budget; given back when it is dropped.
#[derive(Debug)]
pub struct Charge {
    budget: Arc<Budget>,
    bytes: usize,
    overdraft: Option<OwnedSemaphorePermit>,
}

impl Charge {
    /// Nothing yet.
    pub fn none(budget: &Arc<Budget>) -> Self {
        Self::taken(budget, 0)
    }

    fn taken(budget: &Arc<Budget>, bytes: usize) -> Self {
        Self {
            budget: Arc::clone(budget),
            bytes,
            overdraft: None,
        }
    }

    /// `bytes` at once, beyond the limit if need be: they exist already.
    pub fn of_what_exists(budget: &Arc<Budget>, bytes: usize) -> Self {
        budget.take(bytes);
        Self::taken(budget, bytes)
    }

    /// `bytes`, if that leaves half of the budget free.
    pub fn of_spare(budget: &Arc<Budget>, bytes: usize) -> Option<Self> {
        budget
            .try_take(bytes, budget.limit / 2)
            .then(|| Self::taken(budget, bytes))
    }

    /// The bytes held.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether `bytes` more can be had without waiting; they are taken then.
    pub fn try_add(&mut self, bytes: usize, request_bytes: usize) -> bool {
        let (_, limit) = self.budget.lane(request_bytes);
        if self.overdraft.is_some() {
            self.budget.take(bytes);
        } else if !self.budget.try_take(bytes, limit) {
            return false;
        }
        self.bytes += bytes;
        true
    }

    /// Holds `bytes` more, for a request of `request_bytes`, as soon as they can be had.
    pub async fn add(&mut self, bytes: usize, request_bytes: usize) {
        if !self.try_add(bytes, request_bytes) {
            // On the heap, where it is needed: every connection's future would be larger by it.
            self.overdraft = Box::pin(self.budget.wait_for(bytes, request_bytes)).await;
            self.bytes += bytes;
        }
    }

    /// Gives `bytes` of it back.
    pub fn give_back(&mut self, bytes: usize) {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        self.budget.give_back(bytes);
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.budget.give_back(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    const LIMIT: usize = 8 * LARGE_BYTES;

    #[tokio::test]
    async fn who_wants_more_than_is_left_waits_until_it_is_given_back() {
        let budget = Budget::new(1000);
        // Takes the overdraft out of the way.
        let _overdraft = budget.small.overdraft.clone().acquire_owned().await;
        let mut first = Charge::none(&budget);
        first.add(700, 700).await;
        let mut second = Charge::none(&budget);
        assert!(second.add(400, 400).now_or_never().is_none());
        assert!(!budget.is_exhausted(), "who gave up does not wait");
        let (mut third, mut fourth) = (Charge::none(&budget), Charge::none(&budget));
        let waiting = async {
            tokio::join!(second.add(400, 400), third.add(300, 300), async {
                assert!(budget.is_exhausted());
                first.give_back(300);
                assert_eq!(first.bytes(), 400);
                tokio::task::yield_now().await;
                first.give_back(400);
            })
        };
        waiting.await;
        assert_eq!(budget.used(), 700);
        assert!(!budget.is_exhausted());
        assert!(fourth.add(301, 301).now_or_never().is_none());
        assert!(fourth.try_add(300, 300));
        drop((first, second, third, fourth));
        assert_eq!(budget.used(), 0);
    }

    #[tokio::test]
    async fn halves_of_large_requests_do_not_hold_each_other_up() {
        let budget = Budget::new(LIMIT);
        let part = 3 * LARGE_BYTES;
        let requests = (0..20).map(|_| async {
            let mut charge = Charge::none(&budget);
            for _ in 0..3 {
                charge.add(part, 3 * part).await;
                assert!(budget.used() <= LIMIT + 3 * part, "{}", budget.used());
                tokio::task::yield_now().await;
            }
        });
        futures_util::future::join_all(requests).await;
        assert_eq!(budget.used(), 0);
    }

    #[tokio::test]
    async fn large_requests_leave_something_to_small_ones() {
        let budget = Budget::new(LIMIT);
        let mut stuck: Vec<Charge> = (0..8).map(|_| Charge::none(&budget)).collect();
        let size = LARGE_BYTES + 1;
        let had = stuck
            .iter_mut()
            .filter_map(|charge| charge.add(size, size).now_or_never())
            .count();
        // Three quarters hold five of them; the overdraft is a sixth one's.
        assert_eq!(had, 6);
        let mut small = Charge::none(&budget);
        assert!(small.add(LARGE_BYTES, LARGE_BYTES).now_or_never().is_some());
    }

    #[tokio::test]
    async fn what_exists_is_counted_and_room_is_waited_for() {
        let budget = Budget::new(1000);
        budget.room(false).await;
        let response = Charge::of_what_exists(&budget, 5000);
        assert!(budget.is_exhausted());
        assert!(budget.room(false).now_or_never().is_none());
        assert!(Charge::of_spare(&budget, 1).is_none());
        tokio::join!(budget.room(false), budget.room(true), async {
            drop(response);
        });
        let half = Charge::of_what_exists(&budget, 500);
        assert!(budget.room(true).now_or_never().is_none());
        assert!(budget.room(false).now_or_never().is_some());
        drop(half);
        assert!(Charge::of_spare(&budget, 501).is_none());
        assert_eq!(
            Charge::of_spare(&budget, 500).map(|it| it.bytes()),
            Some(500)
        );
    }
}
