//! What a partition's writer, readers and syncs share, and group commit.
//!
//! Whoever needs durability registers a waiter. A log with waiters is in the queue of the sync
//! threads once; while its `fdatasync` runs, further waiters gather for the next. A sync raises
//! `synced_offset` to the log end that it saw *before* it began, and wakes whom that satisfies.
//!
//! A log is queued, too, when its topic says how much or how long may stay unsynced (`flush`).
//!
//! A failed sync is final: the kernel may have dropped the pages that it could not write, so a
//! second sync that succeeds would prove nothing. Where the system has no handle left to open a
//! file with, no sync was tried, and waiters wait until there is one.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant};

use tokio::sync::{oneshot, watch};

use super::files::{KeptFiles, OpenLogs};
use super::flush::{Alarm, Alarms, Flush};
use super::{Offsets, Visibility};
use crate::Offset;
use crate::clock::Clock;
use crate::disk::{self, Disk};
use crate::error::{Error, Result};
use crate::segment::Segment;

/// A partition's segments, oldest first, never empty.
pub(crate) type Segments = Arc<[Arc<Segment>]>;

/// The lock, whoever panicked with it: what it guards is consistent between any two statements.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How long a sync waits for the system to have a handle for its file again.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// Why something is not on the device.
enum Unsynced {
    /// A file, or the folder, could not be opened: everything is as it was.
    NotTried(Error),
    /// The sync failed, and that is final.
    Failed(Error),
}

fn unsynced(call: &'static str, path: &Path, error: &std::io::Error) -> Unsynced {
    let failed = Error::io(call, path, error);
    if disk::is_out_of_handles(error) {
        Unsynced::NotTried(failed)
    } else {
        Unsynced::Failed(failed)
    }
}

/// The shared part of one partition's log.
#[derive(Debug)]
pub(crate) struct Shared {
    pub topic: String,
    pub partition: i32,
    pub dir: PathBuf,
    pub disk: Arc<dyn Disk>,
    pub clock: Clock,
    pub visibility: Visibility,
    pub offsets: watch::Sender<Offsets>,
    /// A derived log has been published once; an ordinary one is readable from the start.
    pub readable: AtomicBool,
    segments: RwLock<Segments>,
    /// Files were created or removed since the folder was last synced.
    pub dir_dirty: AtomicBool,
    pub(super) commit: Mutex<Commit>,
    /// Held while a sync runs: one at a time.
    turn: Mutex<()>,
    failure: OnceLock<String>,
    closed: AtomicBool,
    deleted: AtomicBool,
    pub(super) queue: Arc<SyncQueue>,
    pub(super) files: KeptFiles,
}

#[derive(Debug, Default)]
pub(super) struct Commit {
    waiters: Vec<Waiter>,
    /// In the queue, or a sync thread is at it.
    pub scheduled: bool,
    /// The last turn of a sync thread found no handle to open a file with.
    held_up: bool,
    /// What is synced though nobody waits for it.
    pub flush: Flush,
    /// How often the log's end was cut off. What a sync saw before a cut says nothing about what
    /// was appended after it.
    cuts: u64,
}

#[derive(Debug)]
struct Waiter {
    end: Offset,
    wake: oneshot::Sender<Result<()>>,
}

/// What [`Shared`] is made of.
pub(crate) struct Opened {
    pub topic: String,
    pub partition: i32,
    pub dir: PathBuf,
    pub disk: Arc<dyn Disk>,
    pub clock: Clock,
    pub visibility: Visibility,
    pub offsets: Offsets,
    pub segments: Vec<Arc<Segment>>,
    pub dir_dirty: bool,
    pub queue: Arc<SyncQueue>,
}

/// Tells each segment where the one behind it begins.
fn tell_next(segments: &[Arc<Segment>]) {
    for (index, segment) in segments.iter().enumerate() {
        segment.set_next_base(segments.get(index + 1).map(|next| next.base_offset()));
    }
}

impl Shared {
    pub fn new(opened: Opened) -> Self {
        tell_next(&opened.segments);
        Self {
            topic: opened.topic,
            partition: opened.partition,
            dir: opened.dir,
            disk: opened.disk,
            clock: opened.clock,
            visibility: opened.visibility,
            offsets: watch::Sender::new(opened.offsets),
            readable: AtomicBool::new(opened.visibility == Visibility::Ordinary),
            segments: RwLock::new(opened.segments.into()),
            dir_dirty: AtomicBool::new(opened.dir_dirty),
            commit: Mutex::default(),
            turn: Mutex::default(),
            failure: OnceLock::new(),
            closed: AtomicBool::new(false),
            deleted: AtomicBool::new(false),
            queue: opened.queue,
            files: KeptFiles::default(),
        }
    }

    /// The offsets now.
    pub fn offsets(&self) -> Offsets {
        *self.offsets.borrow()
    }

    /// Changes offsets that readers do not wait for: they are not woken.
    pub fn change_unseen(&self, change: impl FnOnce(&mut Offsets)) {
        self.offsets.send_if_modified(|offsets| {
            change(offsets);
            false
        });
    }

    /// The segments now. Take the offsets first: then what they name is in here.
    pub fn segments(&self) -> Segments {
        Arc::clone(&self.segments.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Writer only.
    pub fn set_segments(&self, segments: Vec<Arc<Segment>>) {
        tell_next(&segments);
        *self
            .segments
            .write()
            .unwrap_or_else(PoisonError::into_inner) = segments.into();
    }

    /// Names of files are not on the device yet.
    pub fn is_dir_dirty(&self) -> bool {
        self.dir_dirty.load(Ordering::Acquire)
    }

    /// Refuses writes to a log that is closed or read-only.
    pub fn check_writable(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::Closed);
        }
        self.check_synced()
    }

    /// Refuses appends where the disk is known to be full.
    pub fn check_room(&self) -> Result<()> {
        let room = self.disk.room_for(&self.dir);
        room.map_err(|error| Error::io("write", &self.dir, &error))
    }

    /// Refuses anything on a log that was deleted.
    pub fn check_exists(&self) -> Result<()> {
        if self.deleted.load(Ordering::Acquire) {
            Err(Error::Closed)
        } else {
            Ok(())
        }
    }

    /// Refuses to go on with a log that is read-only.
    pub fn check_synced(&self) -> Result<()> {
        match self.failure.get() {
            Some(failure) => Err(Error::ReadOnly(failure.clone())),
            None => Ok(()),
        }
    }

    /// Why the log is read-only, where it is.
    pub fn failure(&self) -> Option<&str> {
        self.failure.get().map(String::as_str)
    }

    /// No more appends.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    /// No more of anything: waiters fail, watchers wake to see it.
    pub fn delete(&self) {
        self.close();
        self.deleted.store(true, Ordering::Release);
        self.fail_waiters(&Error::Closed);
        self.offsets.send_modify(|_| {});
    }

    fn fail_waiters(&self, error: &Error) {
        let waiters = std::mem::take(&mut lock(&self.commit).waiters);
        for waiter in waiters {
            // Its future may be gone already.
            let _ = waiter.wake.send(Err(error.clone()));
        }
    }

    /// Makes the log read-only for ever.
    pub fn fail(&self, error: &Error) -> Error {
        let message = error.to_string();
        let failure = self.failure.get_or_init(|| {
            tracing::error!(
                topic = self.topic,
                partition = self.partition,
                error = message,
                "partition is read-only from now on"
            );
            message
        });
        let failed = Error::ReadOnly(failure.clone());
        self.fail_waiters(&failed);
        failed
    }

    /// Resolved when everything below `end` is on the device.
    pub fn register(
        self: &Arc<Self>,
        end: Offset,
    ) -> Result<Option<oneshot::Receiver<Result<()>>>> {
        if self.offsets().synced_offset >= end {
            return Ok(None);
        }
        let receiver = {
            let mut commit = lock(&self.commit);
            let offsets = self.offsets();
            if offsets.synced_offset >= end {
                return Ok(None);
            }
            self.check_exists()?;
            self.check_synced()?;
            if offsets.log_end_offset < end {
                return Err(Error::OffsetOutOfRange {
                    offset: end,
                    start: offsets.log_start_offset,
                    end: offsets.log_end_offset,
                });
            }
            let (wake, receiver) = oneshot::channel();
            commit.waiters.push(Waiter { end, wake });
            if std::mem::replace(&mut commit.scheduled, true) {
                return Ok(Some(receiver));
            }
            receiver
        };
        self.queue.push(Arc::clone(self));
        Ok(Some(receiver))
    }

    /// Blocking. Puts everything appended so far on the device, and returns the end of that.
    /// [`Error::Io`] where a file could not be opened for it: then nothing has failed, and waiters
    /// wait on.
    pub fn sync(self: &Arc<Self>) -> Result<Offset> {
        let _turn = lock(&self.turn);
        self.check_exists()?;
        self.check_synced()?;
        let (before, cuts, began) = {
            let commit = lock(&self.commit);
            (self.offsets(), commit.cuts, Instant::now())
        };
        let end = before.log_end_offset;
        if let Err(unsynced) = self.sync_files(before.synced_offset, end) {
            return Err(match unsynced {
                Unsynced::NotTried(error) => error,
                Unsynced::Failed(error) => self.fail(&error),
            });
        }
        let (satisfied, alarm) = {
            let mut commit = lock(&self.commit);
            if commit.cuts != cuts {
                return Ok(self.offsets().synced_offset);
            }
            if before.synced_offset < end {
                self.change_unseen(|offsets| offsets.synced_offset = end);
            }
            let is_all = self.offsets().log_end_offset <= end;
            commit.flush.synced(began, is_all);
            let (satisfied, waiting) = std::mem::take(&mut commit.waiters)
                .into_iter()
                .partition(|waiter| waiter.end <= end);
            commit.waiters = waiting;
            let satisfied: Vec<Waiter> = satisfied;
            (satisfied, commit.flush.alarm_to_set())
        };
        self.set_alarm(alarm);
        for waiter in satisfied {
            let _ = waiter.wake.send(Ok(()));
        }
        Ok(end)
    }

    /// Runs `action` while no sync does.
    pub fn between_syncs<T>(&self, action: impl FnOnce() -> T) -> T {
        let _turn = lock(&self.turn);
        action()
    }

    fn sync_files(&self, synced: Offset, end: Offset) -> Result<(), Unsynced> {
        let segments = self.segments();
        for (index, segment) in segments.iter().enumerate() {
            let follows = segments.get(index + 1);
            let next = follows.map_or(end, |next| next.base_offset());
            let has_more = segment.base_offset() < end && next > synced;
            if has_more || segment.was_cut() {
                self.sync_segment(segment)?;
                if follows.is_some() {
                    segment.close_files();
                }
            }
        }
        // Files before names: a name that is durable leads to bytes that are.
        if self.dir_dirty.swap(false, Ordering::AcqRel) {
            self.sync_dir().inspect_err(|unsynced| {
                if matches!(unsynced, Unsynced::NotTried(_)) {
                    self.dir_dirty.store(true, Ordering::Release);
                }
            })?;
        }
        Ok(())
    }

    fn sync_segment(&self, segment: &Segment) -> Result<(), Unsynced> {
        // Before: what is cut off from now on is for the next sync.
        let was_cut = segment.was_cut();
        segment.set_was_cut(false);
        segment.sync_log().map_err(|(call, error)| {
            if was_cut {
                segment.set_was_cut(true);
            }
            unsynced(call, segment.path(), &error)
        })
    }

    /// Blocking. Puts a segment's batches on the device once more, in a turn of its own.
    pub(super) fn sync_again(&self, segment: &Segment) -> Result<()> {
        let _turn = lock(&self.turn);
        self.sync_segment(segment)
            .map_err(|unsynced| match unsynced {
                Unsynced::NotTried(error) => error,
                Unsynced::Failed(error) => self.fail(&error),
            })
    }

    /// The name of the folder itself was put on the device before the log was opened.
    fn sync_dir(&self) -> Result<(), Unsynced> {
        self.disk
            .sync_dir(&self.dir)
            .map_err(|error| unsynced("sync", &self.dir, &error))
    }

    /// Writer only. The log ends at `end` now; whoever waits for more waits for nothing.
    pub fn cut(&self, end: Offset) {
        let mut commit = lock(&self.commit);
        commit.cuts += 1;
        commit.flush.wanted = commit.flush.wanted.min(end);
        let start = self.offsets().log_start_offset;
        self.change_unseen(|offsets| {
            offsets.log_end_offset = end;
            offsets.synced_offset = offsets.synced_offset.min(end);
        });
        let (lost, waiting) = std::mem::take(&mut commit.waiters)
            .into_iter()
            .partition(|waiter| waiter.end > end);
        commit.waiters = waiting;
        let lost: Vec<Waiter> = lost;
        for waiter in lost {
            let error = Error::OffsetOutOfRange {
                offset: waiter.end,
                start,
                end,
            };
            let _ = waiter.wake.send(Err(error));
        }
    }

    /// One turn of a sync thread. True where waiters have gathered for another, or as much was
    /// appended.
    fn commit_once(self: &Arc<Self>) -> bool {
        // A failure has told the waiters, and is logged where it happened.
        let (out_of_handles, failed) = match self.sync() {
            Err(error @ Error::Io { .. }) => (Some(error), false),
            result => (None, result.is_err()),
        };
        let held_up = out_of_handles.is_some();
        let was_held_up = std::mem::replace(&mut lock(&self.commit).held_up, held_up);
        if let Some(error) = out_of_handles {
            if !was_held_up {
                let (topic, partition) = (&self.topic, self.partition);
                tracing::error!(topic, partition, %error, "syncs wait until a file can be opened");
            }
            std::thread::sleep(RETRY_AFTER);
        }
        let mut commit = lock(&self.commit);
        if failed {
            commit.flush.wanted = 0;
        }
        let is_wanted = commit.flush.wanted > self.offsets().synced_offset;
        commit.scheduled = is_wanted || !commit.waiters.is_empty();
        commit.scheduled
    }
}

/// Logs that have waiters, and the threads that sync them.
#[derive(Debug, Default)]
pub(crate) struct SyncQueue {
    state: Mutex<Queued>,
    pushed: Condvar,
    /// Logs that keep files open.
    pub(super) open_logs: OpenLogs,
}

#[derive(Debug, Default)]
struct Queued {
    logs: VecDeque<Arc<Shared>>,
    alarms: Alarms,
    stopped: bool,
}

impl SyncQueue {
    pub(super) fn push(&self, log: Arc<Shared>) {
        let mut state = lock(&self.state);
        if state.stopped {
            drop(state);
            log.fail_waiters(&Error::Closed);
            return;
        }
        state.logs.push_back(log);
        self.pushed.notify_one();
    }

    /// Has a thread look at a log at some time.
    pub(super) fn set_alarm(&self, alarm: Alarm) {
        let mut state = lock(&self.state);
        if !state.stopped && state.alarms.set(alarm) {
            self.pushed.notify_one();
        }
    }

    /// The next log to sync. Sleeps until there is one, or until an alarm rings.
    fn pop(&self) -> Option<Arc<Shared>> {
        let mut state = lock(&self.state);
        loop {
            let next = state.alarms.next();
            let now = next.map(|_| Instant::now());
            if let Some(alarm) = now.and_then(|now| state.alarms.take(now)) {
                drop(state);
                if let Some(log) = alarm.log.upgrade()
                    && log.rings(alarm.at)
                {
                    return Some(log);
                }
                state = lock(&self.state);
                continue;
            }
            if let Some(log) = state.logs.pop_front() {
                return Some(log);
            }
            if state.stopped {
                return None;
            }
            state = match next.zip(now) {
                None => self
                    .pushed
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner),
                Some((next, now)) => {
                    self.pushed
                        .wait_timeout(state, next.saturating_duration_since(now))
                        .unwrap_or_else(PoisonError::into_inner)
                        .0
                }
            };
        }
    }

    /// Syncs logs until [`SyncQueue::stop`], and what is queued then.
    pub fn run(&self) {
        while let Some(log) = self.pop() {
            if log.commit_once() {
                self.push(log);
            }
        }
    }

    /// Lets the threads end once the queue is empty.
    pub fn stop(&self) {
        let mut state = lock(&self.state);
        state.stopped = true;
        state.alarms.clear();
        self.pushed.notify_all();
    }
}
