//! `flush.messages` and `flush.ms`: what is appended is synced though nobody waits for it.
//!
//! - After `flush.messages` records that are not on the device, the log is put in the queue of the
//!   sync threads, as if somebody waited; [`Appended::flushes`] tells who appended, who may wait.
//! - With `flush.ms`, the first append after a sync sets an alarm; a log has one at a time. A sync
//!   thread that sleeps until the earliest alarm of all logs looks whether what was appended then is
//!   still not on the device, and syncs it. So a log that nothing is appended to costs nothing, and
//!   one that is synced anyway one look per `flush.ms`.
//!
//! [`Appended::flushes`]: super::Appended::flushes

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::sync::{Commit, Shared, lock};
use crate::config::NEVER;
use crate::{LogConfig, Offset};

/// What a log is to be synced for besides its waiters.
#[derive(Debug, Default)]
pub(super) struct Flush {
    /// Everything below is to be synced as soon as a thread is free.
    pub wanted: Offset,
    /// `flush.ms`, where it is set.
    interval: Option<Duration>,
    /// What is not on the device was appended then or later; `None` where everything is.
    oldest: Option<Instant>,
    /// When a sync thread looks next.
    alarm: Option<Instant>,
}

impl Flush {
    /// Everything that was appended before `began` is on the device; what was later, where
    /// `is_all` is not set, is not.
    pub fn synced(&mut self, began: Instant, is_all: bool) {
        self.oldest = self.oldest.filter(|_| !is_all).map(|at| at.max(began));
    }

    /// When the alarm has to be set to, if it is not set in time.
    pub fn alarm_to_set(&mut self) -> Option<Instant> {
        // An interval that no clock gets to the end of is none.
        let due = self.oldest?.checked_add(self.interval?)?;
        if self.alarm.is_some_and(|set| set <= due) {
            return None;
        }
        self.alarm = Some(due);
        self.alarm
    }

    fn obey(&mut self, config: &LogConfig) {
        let is_set = config.flush_ms != NEVER;
        self.interval = is_set.then(|| Duration::from_millis(config.flush_ms));
    }
}

impl Shared {
    /// Something was appended. True where that made it `flush.messages`, so that it is being synced.
    pub(super) fn flush_after_append(self: &Arc<Self>, config: &LogConfig) -> bool {
        if config.flush_messages == NEVER && config.flush_ms == NEVER {
            return false;
        }
        let (scheduled, alarm, flushes) = {
            let mut commit = lock(&self.commit);
            let offsets = self.offsets();
            let unsynced = offsets.log_end_offset - offsets.synced_offset;
            if unsynced <= 0 {
                return false;
            }
            let flushes = u64::try_from(unsynced).is_ok_and(|n| n >= config.flush_messages);
            let scheduled = flushes && self.want_sync(&mut commit);
            commit.flush.obey(config);
            if config.flush_ms != NEVER {
                commit.flush.oldest.get_or_insert_with(Instant::now);
            }
            (scheduled, commit.flush.alarm_to_set(), flushes)
        };
        if scheduled {
            self.queue.push(Arc::clone(self));
        }
        self.set_alarm(alarm);
        flushes
    }

    /// Another configuration holds from now on.
    pub(super) fn set_flush_config(&self, config: &LogConfig) {
        lock(&self.commit).flush.obey(config);
    }

    /// Outside of the lock: has a sync thread look at this log `at` that time.
    pub(super) fn set_alarm(self: &Arc<Self>, at: Option<Instant>) {
        if let Some(at) = at {
            self.queue.set_alarm(Alarm {
                at,
                log: Arc::downgrade(self),
            });
        }
    }

    /// An alarm rings that was set to `at`. True where the caller has to sync the log.
    pub(super) fn rings(self: &Arc<Self>, at: Instant) -> bool {
        let (sync, alarm) = {
            let mut commit = lock(&self.commit);
            if commit.flush.alarm != Some(at) {
                // An earlier one was set since, and has rung.
                return false;
            }
            commit.flush.alarm = None;
            match commit.flush.alarm_to_set() {
                Some(due) if due > Instant::now() => (false, Some(due)),
                Some(_) => {
                    // What is appended from here on is another alarm's affair.
                    (commit.flush.alarm, commit.flush.oldest) = (None, None);
                    (self.want_sync(&mut commit), None)
                }
                None => (false, None),
            }
        };
        self.set_alarm(alarm);
        sync
    }

    /// Everything appended so far is to be synced. True where the caller has to see to it.
    fn want_sync(&self, commit: &mut Commit) -> bool {
        commit.flush.wanted = self.offsets().log_end_offset;
        !std::mem::replace(&mut commit.scheduled, true)
    }
}

/// A log, and when to look at it.
#[derive(Debug)]
pub(super) struct Alarm {
    pub at: Instant,
    /// A log that was closed or deleted is not kept for it.
    pub log: Weak<Shared>,
}

impl PartialEq for Alarm {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
    }
}

impl Eq for Alarm {}

impl PartialOrd for Alarm {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Alarm {
    fn cmp(&self, other: &Self) -> Ordering {
        self.at.cmp(&other.at)
    }
}

/// The alarms of all logs, the earliest first.
#[derive(Debug, Default)]
pub(super) struct Alarms(BinaryHeap<Reverse<Alarm>>);

impl Alarms {
    /// True where it is the earliest now.
    pub fn set(&mut self, alarm: Alarm) -> bool {
        let is_earliest = self.next().is_none_or(|next| alarm.at < next);
        self.0.push(Reverse(alarm));
        is_earliest
    }

    /// When the earliest one rings.
    pub fn next(&self) -> Option<Instant> {
        self.0.peek().map(|Reverse(alarm)| alarm.at)
    }

    /// One that rings by `now`.
    pub fn take(&mut self, now: Instant) -> Option<Alarm> {
        if self.next()? > now {
            return None;
        }
        self.0.pop().map(|Reverse(alarm)| alarm)
    }

    /// None rings any more.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}
