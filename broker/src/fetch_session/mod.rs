//! Fetch sessions (KIP-227): what a client asked for is remembered, so that its next fetch names
//! only what changed and is answered only with what changed.
//!
//! - [`cache`] decides which sessions there are, [`partitions`] what a session asks and has been
//!   told; both are pure. [`watches`] wakes a waiting fetch.
//! - A session's epoch is 1 after the full fetch that opened it and goes up with each request, from
//!   `i32::MAX` to 1. A request with another epoch, such as one sent again after its answer was
//!   lost, is refused, and the client begins anew with a full fetch: positions are the client's, so
//!   nothing is lost.
//! - All sessions together have at most [`MAX_PARTITIONS`] partitions, of some 600 bytes each. One
//!   that does not fit is declined with session id 0, and one that outgrows the room is closed.
//! - No session holds a log: a deleted topic's files are not kept for sessions that nobody uses.

pub mod cache;
pub mod partitions;
pub mod watches;

use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use kafka_protocol::ResponseError;
use storage::partition_log::ReadLimit;
use tokio::sync::oneshot;
use uuid::Uuid;

use crate::clock::Clock;
use cache::Cache;
use partitions::{Asked, Partitions, TopicKey};
use watches::Watches;

/// The most partitions of all sessions.
pub const MAX_PARTITIONS: usize = 100_000;

/// The session id of a fetch that is in none.
pub const NO_SESSION: i32 = 0;
/// The epoch of a full fetch that wants a session.
pub const INITIAL_EPOCH: i32 = 0;
/// The epoch of a full fetch that wants none.
pub const FINAL_EPOCH: i32 = -1;

/// What the fetches of one client have in common; also of a client that has no session, for as
/// long as its fetch lasts.
#[derive(Debug, Default)]
pub struct Session {
    /// [`NO_SESSION`] until it is in the cache.
    pub id: i32,
    /// The epoch that the next request must have.
    pub epoch: i32,
    /// What is asked for.
    pub partitions: Partitions,
    /// Who waits for it to move.
    pub watches: Watches,
    uses_topic_ids: bool,
    /// The last request's version and read limit: with others, everything has to be looked at.
    terms: Option<(i16, Option<ReadLimit>)>,
    /// Dropped when another request takes the session over.
    current: Option<oneshot::Sender<Infallible>>,
}

/// A session, shared by the cache and the fetch under way. Never locked while the cache is.
pub type SharedSession = Arc<Mutex<Session>>;

/// Resolves when another request has taken the session over.
pub type TakenOver = oneshot::Receiver<Infallible>;

impl Session {
    /// A new one, in no cache.
    pub fn new(uses_topic_ids: bool) -> Self {
        Self {
            uses_topic_ids,
            ..Self::default()
        }
    }

    /// A request begins, with these terms. A request before it that still waits is woken.
    pub fn begin(&mut self, api_version: i16, limit: Option<ReadLimit>) -> TakenOver {
        let terms = Some((api_version, limit));
        if self.terms != terms {
            self.terms = terms;
            self.partitions.make_all_due();
        }
        for slot in self.watches.moved() {
            self.partitions.make_due(slot);
        }
        let (current, taken_over) = oneshot::channel();
        self.current = Some(current);
        taken_over
    }

    /// Forgets a partition.
    pub fn forget(&mut self, topic: &TopicKey, index: i32) {
        if let Some(slot) = self.partitions.forget(topic, index) {
            self.watches.disarm(slot);
        }
    }

    fn check(&self, epoch: i32, uses_topic_ids: bool) -> Result<(), ResponseError> {
        if self.epoch != epoch {
            Err(ResponseError::InvalidFetchSessionEpoch)
        } else if self.uses_topic_ids != uses_topic_ids {
            Err(ResponseError::FetchSessionTopicIdError)
        } else {
            Ok(())
        }
    }
}

/// The epoch after another.
pub fn next_epoch(epoch: i32) -> i32 {
    match epoch {
        i32::MAX => 1,
        epoch => epoch + 1,
    }
}

/// The lock, whoever panicked with it: what it guards is consistent between any two statements.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a request changes in its session.
#[derive(Debug, Default)]
pub struct Changes {
    /// Asked for, in order.
    pub asked: Vec<(TopicKey, i32, Asked)>,
    /// No longer wanted.
    pub forgotten: Vec<(TopicKey, i32)>,
}

/// Every session.
pub struct FetchSessions {
    cache: Mutex<Cache<SharedSession>>,
    clock: Arc<dyn Clock>,
    began: Instant,
    open: metrics::Gauge,
    partitions: metrics::Gauge,
    evictions: metrics::Counter,
    reads: metrics::Counter,
}

impl FetchSessions {
    /// None yet.
    pub fn new(max_sessions: usize, eviction_ms: u64, clock: Arc<dyn Clock>) -> Self {
        let eviction_ms = i64::try_from(eviction_ms).unwrap_or(i64::MAX);
        Self {
            cache: Mutex::new(Cache::new(max_sessions, MAX_PARTITIONS, eviction_ms)),
            began: clock.instant(),
            clock,
            open: metrics::gauge!("milena_fetch_sessions"),
            partitions: metrics::gauge!("milena_fetch_session_partitions"),
            evictions: metrics::counter!("milena_fetch_session_evictions_total"),
            reads: metrics::counter!("milena_fetch_partitions_read_total"),
        }
    }

    /// Closes a session, where there is one of that id.
    pub fn close(&self, id: i32) {
        if id == NO_SESSION {
            return;
        }
        let closed = self.in_cache(|cache, _| cache.remove(id));
        if let Some(session) = closed {
            lock(&session).current = None;
        }
    }

    /// The session that an incremental request goes on with, with its changes made, at its next
    /// epoch. One that is left without partitions is closed, and no longer has an id.
    pub fn go_on(
        &self,
        id: i32,
        epoch: i32,
        uses_topic_ids: bool,
        changes: Changes,
    ) -> Result<SharedSession, ResponseError> {
        let not_found = ResponseError::FetchSessionIdNotFound;
        let shared = lock(&self.cache).get(id).ok_or(not_found)?;
        let partitions = {
            let mut session = lock(&shared);
            session.check(epoch, uses_topic_ids)?;
            session.epoch = next_epoch(epoch);
            for (topic, index, asked) in changes.asked {
                session.partitions.ask(&topic, index, asked);
            }
            for (topic, index) in changes.forgotten {
                session.forget(&topic, index);
            }
            session.partitions.len()
        };
        if partitions == 0 {
            self.in_cache(|cache, _| cache.remove(id));
            lock(&shared).id = NO_SESSION;
        } else if !self.in_cache(|cache, now_ms| cache.touch(id, partitions, now_ms)) {
            return Err(not_found);
        }
        Ok(shared)
    }

    /// Keeps the session of a full fetch for the requests that follow, where there is room, and
    /// returns its id; [`NO_SESSION`] otherwise.
    pub fn open(&self, shared: &SharedSession) -> i32 {
        let partitions = lock(shared).partitions.len();
        let opened = self
            .in_cache(|cache, now_ms| cache.open(Arc::clone(shared), partitions, now_ms, random));
        let id = opened.unwrap_or(NO_SESSION);
        let mut session = lock(shared);
        session.id = id;
        session.epoch = next_epoch(INITIAL_EPOCH);
        id
    }

    /// Counts how many partitions a fetch has looked at.
    pub fn count_reads(&self, reads: u64) {
        self.reads.increment(reads);
    }

    fn in_cache<T>(&self, act: impl FnOnce(&mut Cache<SharedSession>, i64) -> T) -> T {
        let now = self.clock.instant().saturating_duration_since(self.began);
        let now_ms = i64::try_from(now.as_millis()).unwrap_or(i64::MAX);
        let mut cache = lock(&self.cache);
        let done = act(&mut cache, now_ms);
        self.open.set(cache.len() as f64);
        self.partitions.set(cache.partitions() as f64);
        self.evictions.absolute(cache.evictions());
        done
    }
}

impl std::fmt::Debug for FetchSessions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FetchSessions")
            .field("cache", &self.cache)
            .finish_non_exhaustive()
    }
}

fn random() -> u32 {
    // A version 4 UUID's last 62 bits are random.
    Uuid::new_v4().as_u128() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_wrap_from_the_largest_to_one() {
        assert_eq!(next_epoch(INITIAL_EPOCH), 1);
        assert_eq!(next_epoch(1), 2);
        assert_eq!(next_epoch(i32::MAX - 1), i32::MAX);
        assert_eq!(next_epoch(i32::MAX), 1);
    }

    fn sessions() -> FetchSessions {
        FetchSessions::new(10, 120_000, Arc::new(crate::clock::SystemClock))
    }

    fn changes(asked: &[i32], forgotten: &[i32]) -> Changes {
        let topic = TopicKey::Name("t".into());
        let what = Asked {
            fetch_offset: 0,
            current_leader_epoch: -1,
            last_fetched_epoch: -1,
            partition_max_bytes: 1,
        };
        Changes {
            asked: asked
                .iter()
                .map(|index| (topic.clone(), *index, what))
                .collect(),
            forgotten: forgotten
                .iter()
                .map(|index| (topic.clone(), *index))
                .collect(),
        }
    }

    fn opened(sessions: &FetchSessions, asked: &[i32]) -> (SharedSession, i32) {
        let mut session = Session::new(false);
        for (topic, index, asked) in changes(asked, &[]).asked {
            session.partitions.ask(&topic, index, asked);
        }
        let session = Arc::new(Mutex::new(session));
        let id = sessions.open(&session);
        (session, id)
    }

    #[test]
    fn a_request_sent_again_is_refused_by_its_epoch() {
        let sessions = sessions();
        let (session, id) = opened(&sessions, &[0, 1]);
        assert!(id > 0);
        assert!(sessions.go_on(id, 1, false, Changes::default()).is_ok());
        for epoch in [1, 3, i32::MAX, i32::MIN] {
            let refused = sessions.go_on(id, epoch, false, Changes::default());
            assert_eq!(
                refused.unwrap_err(),
                ResponseError::InvalidFetchSessionEpoch
            );
        }
        lock(&session).epoch = i32::MAX;
        assert!(
            sessions
                .go_on(id, i32::MAX, false, Changes::default())
                .is_ok()
        );
        assert!(sessions.go_on(id, 1, false, Changes::default()).is_ok());
    }

    #[test]
    fn a_session_is_used_with_names_or_ids_as_it_was_opened() {
        let sessions = sessions();
        let (_, id) = opened(&sessions, &[0]);
        let refused = sessions.go_on(id, 1, true, Changes::default());
        assert_eq!(
            refused.unwrap_err(),
            ResponseError::FetchSessionTopicIdError
        );
        assert!(sessions.go_on(id, 1, false, Changes::default()).is_ok());
    }

    #[test]
    fn a_session_without_partitions_is_closed() {
        let sessions = sessions();
        let (_, id) = opened(&sessions, &[0, 1]);
        let session = sessions.go_on(id, 1, false, changes(&[2], &[0])).unwrap();
        assert_eq!(lock(&session).partitions.len(), 2);
        let session = sessions
            .go_on(id, 2, false, changes(&[], &[1, 2, 7]))
            .unwrap();
        assert_eq!(lock(&session).id, NO_SESSION);
        let gone = sessions.go_on(id, 3, false, Changes::default());
        assert_eq!(gone.unwrap_err(), ResponseError::FetchSessionIdNotFound);
    }

    #[test]
    fn a_closed_session_is_not_found_and_whoever_waits_in_it_is_woken() {
        let sessions = sessions();
        let (session, id) = opened(&sessions, &[0]);
        let mut waiting = lock(&session).begin(12, None);
        assert!(
            waiting
                .try_recv()
                .is_err_and(|e| e == oneshot::error::TryRecvError::Empty)
        );
        sessions.close(id);
        assert!(
            waiting
                .try_recv()
                .is_err_and(|e| e == oneshot::error::TryRecvError::Closed)
        );
        let gone = sessions.go_on(id, 1, false, Changes::default());
        assert_eq!(gone.unwrap_err(), ResponseError::FetchSessionIdNotFound);
        sessions.close(id);
    }

    #[test]
    fn a_second_request_takes_the_session_over() {
        let (session, _) = opened(&sessions(), &[0]);
        let mut first = lock(&session).begin(12, None);
        let mut second = lock(&session).begin(12, None);
        assert!(
            first
                .try_recv()
                .is_err_and(|e| e == oneshot::error::TryRecvError::Closed)
        );
        assert!(
            second
                .try_recv()
                .is_err_and(|e| e == oneshot::error::TryRecvError::Empty)
        );
    }
}
