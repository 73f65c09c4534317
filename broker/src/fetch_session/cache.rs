//! Which fetch sessions there are. Pure: time and random numbers are passed in.
//!
//! - At most `max_sessions` sessions with at most `max_partitions` partitions altogether.
//! - Where no slot is free, a new session takes that of one which has been idle for longer than
//!   `eviction_ms`; or else that of the smallest one which is older than `eviction_ms`, if the new
//!   one has more partitions. Otherwise there is no session, and the client sends full fetches.
//! - An id is above zero, random, and no two sessions have the same.

use std::collections::{BTreeSet, HashMap};

/// Sessions by id; `S` is a cheap handle.
#[derive(Debug)]
pub struct Cache<S> {
    max_sessions: usize,
    max_partitions: usize,
    eviction_ms: i64,
    sessions: HashMap<i32, Entry<S>>,
    /// (last used, id)
    by_last_use: BTreeSet<(i64, i32)>,
    /// (partitions, id) of those old enough to be evicted by a larger one.
    evictable: BTreeSet<(usize, i32)>,
    partitions: usize,
    evictions: u64,
}

#[derive(Debug)]
struct Entry<S> {
    session: S,
    created_ms: i64,
    last_used_ms: i64,
    partitions: usize,
}

impl<S: Clone> Cache<S> {
    /// An empty one.
    pub fn new(max_sessions: usize, max_partitions: usize, eviction_ms: i64) -> Self {
        Self {
            max_sessions,
            max_partitions,
            eviction_ms,
            sessions: HashMap::new(),
            by_last_use: BTreeSet::new(),
            evictable: BTreeSet::new(),
            partitions: 0,
            evictions: 0,
        }
    }

    /// Keeps a session of that many partitions and returns its id; `None` where there is no room.
    pub fn open(
        &mut self,
        session: S,
        partitions: usize,
        now_ms: i64,
        mut random: impl FnMut() -> u32,
    ) -> Option<i32> {
        if !self.make_room(partitions, now_ms) {
            return None;
        }
        let id = loop {
            // Below the sign bit.
            let id = i32::try_from(random() >> 1).unwrap_or(0);
            if id != 0 && !self.sessions.contains_key(&id) {
                break id;
            }
        };
        let entry = Entry {
            session,
            created_ms: now_ms,
            last_used_ms: now_ms,
            partitions,
        };
        self.sessions.insert(id, entry);
        self.by_last_use.insert((now_ms, id));
        self.partitions += partitions;
        Some(id)
    }

    /// The session of that id.
    pub fn get(&self, id: i32) -> Option<S> {
        self.sessions.get(&id).map(|entry| entry.session.clone())
    }

    /// Notes that a session is used, and how many partitions it has now. False where there is no
    /// such session, or no longer: one that has outgrown the room is dropped.
    pub fn touch(&mut self, id: i32, partitions: usize, now_ms: i64) -> bool {
        let Some(entry) = self.sessions.get_mut(&id) else {
            return false;
        };
        if self.partitions - entry.partitions + partitions > self.max_partitions {
            self.evict(id);
            return false;
        }
        self.by_last_use.remove(&(entry.last_used_ms, id));
        self.by_last_use.insert((now_ms, id));
        entry.last_used_ms = now_ms;
        self.evictable.remove(&(entry.partitions, id));
        if now_ms.saturating_sub(entry.created_ms) > self.eviction_ms {
            self.evictable.insert((partitions, id));
        }
        self.partitions = self.partitions - entry.partitions + partitions;
        entry.partitions = partitions;
        true
    }

    /// Forgets a session.
    pub fn remove(&mut self, id: i32) -> Option<S> {
        let entry = self.sessions.remove(&id)?;
        self.by_last_use.remove(&(entry.last_used_ms, id));
        self.evictable.remove(&(entry.partitions, id));
        self.partitions -= entry.partitions;
        Some(entry.session)
    }

    /// How many sessions there are.
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// There are none.
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// The partitions of all sessions.
    pub fn partitions(&self) -> usize {
        self.partitions
    }

    /// How many sessions have had to go for others, or for having grown too large.
    pub fn evictions(&self) -> u64 {
        self.evictions
    }

    fn make_room(&mut self, partitions: usize, now_ms: i64) -> bool {
        if partitions > self.max_partitions {
            return false;
        }
        while self.partitions + partitions > self.max_partitions {
            if !self.evict_idle(now_ms) {
                return false;
            }
        }
        self.sessions.len() < self.max_sessions
            || self.evict_idle(now_ms)
            || self.evict_smaller(partitions)
    }

    fn evict_idle(&mut self, now_ms: i64) -> bool {
        match self.by_last_use.first() {
            Some((last_used_ms, id)) if now_ms.saturating_sub(*last_used_ms) > self.eviction_ms => {
                self.evict(*id);
                true
            }
            _ => false,
        }
    }

    fn evict_smaller(&mut self, partitions: usize) -> bool {
        match self.evictable.first() {
            Some((smallest, id)) if *smallest < partitions => {
                self.evict(*id);
                true
            }
            _ => false,
        }
    }

    fn evict(&mut self, id: i32) {
        self.remove(id);
        self.evictions += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVICTION_MS: i64 = 120_000;

    fn numbers() -> impl FnMut() -> u32 {
        let mut next = 0;
        move || {
            next += 2;
            next
        }
    }

    fn cache(max_sessions: usize) -> Cache<char> {
        Cache::new(max_sessions, 1000, EVICTION_MS)
    }

    #[test]
    fn an_id_is_above_zero_and_not_taken() {
        let mut cache = cache(3);
        let mut drawn = [0, 1, 8, 9, 8, u32::MAX].into_iter();
        let mut random = || drawn.next().unwrap();
        assert_eq!(cache.open('a', 1, 0, &mut random), Some(4));
        assert_eq!(cache.open('b', 1, 0, &mut random), Some(i32::MAX));
        assert_eq!((cache.get(4), cache.get(i32::MAX)), (Some('a'), Some('b')));
        assert_eq!(cache.get(0), None);
    }

    #[test]
    fn a_full_cache_declines_while_its_sessions_are_young_or_in_use() {
        let mut cache = cache(2);
        let mut random = numbers();
        let a = cache.open('a', 1, 0, &mut random).unwrap();
        let b = cache.open('b', 1, 0, &mut random).unwrap();
        assert_eq!(cache.open('c', 100, EVICTION_MS, &mut random), None);
        assert!(cache.touch(a, 1, EVICTION_MS));
        assert!(cache.touch(b, 1, EVICTION_MS));
        // Used a moment ago, and not older than a session may expect to become.
        assert_eq!(cache.open('c', 100, EVICTION_MS + 1, &mut random), None);
        assert_eq!((cache.len(), cache.evictions()), (2, 0));
    }

    #[test]
    fn an_idle_session_gives_way_to_any_other() {
        let mut cache = cache(2);
        let mut random = numbers();
        let a = cache.open('a', 500, 0, &mut random).unwrap();
        let b = cache.open('b', 1, 1, &mut random).unwrap();
        assert!(cache.touch(a, 500, 2));
        let now = EVICTION_MS + 2;
        let c = cache.open('c', 1, now, &mut random).unwrap();
        assert_eq!((cache.get(b), cache.get(a)), (None, Some('a')));
        assert_eq!(cache.open('d', 1, now, &mut random), None, "a is not idle");
        assert_eq!(cache.get(c), Some('c'));
        assert_eq!((cache.partitions(), cache.evictions()), (501, 1));
    }

    #[test]
    fn a_larger_session_takes_the_place_of_the_smallest_old_one() {
        let mut cache = cache(3);
        let mut random = numbers();
        let a = cache.open('a', 20, 0, &mut random).unwrap();
        let b = cache.open('b', 10, 0, &mut random).unwrap();
        let now = EVICTION_MS + 1;
        assert!(cache.touch(a, 20, now) && cache.touch(b, 10, now));
        let young = cache.open('y', 1, now, &mut random).unwrap();
        assert_eq!(cache.open('c', 10, now, &mut random), None, "not larger");
        assert!(cache.open('c', 11, now, &mut random).is_some());
        assert_eq!((cache.get(b), cache.get(young)), (None, Some('y')));
        // A session that has grown is compared by what it has now.
        assert!(cache.touch(a, 5, now));
        assert!(cache.open('d', 6, now, &mut random).is_some());
        assert_eq!(cache.get(a), None);
    }

    #[test]
    fn partitions_are_bounded_over_all_sessions() {
        let mut cache = Cache::new(10, 100, EVICTION_MS);
        let mut random = numbers();
        assert_eq!(cache.open('x', 101, 0, &mut random), None);
        let a = cache.open('a', 60, 0, &mut random).unwrap();
        assert_eq!(cache.open('b', 41, 1, &mut random), None);
        let b = cache.open('b', 40, 1, &mut random).unwrap();
        assert!(!cache.touch(b, 41, 2), "it has outgrown the room");
        assert_eq!((cache.get(b), cache.partitions()), (None, 60));
        assert!(cache.touch(a, 100, 3));
        assert_eq!(cache.open('c', 1, 4, &mut random), None);
        assert!(cache.open('c', 1, EVICTION_MS + 4, &mut random).is_some());
        assert_eq!((cache.get(a), cache.partitions()), (None, 1));
    }

    #[test]
    fn no_slots_mean_no_sessions() {
        let mut cache = cache(0);
        assert_eq!(cache.open('a', 1, i64::MAX, numbers()), None);
        assert!(cache.is_empty());
        assert!(!cache.touch(1, 1, 0));
        assert_eq!(cache.remove(1), None);
    }
}
