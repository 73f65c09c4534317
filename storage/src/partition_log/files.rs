//! Which logs keep files open, and closing those that were not written to for a while.
//!
//! A log that keeps files is in a list. Where no more files may be kept ([`crate::open_files`]), whoever
//! is about to write goes round the list: a log that was written to since the last time round is passed
//! over once; of any other everything is synced, and its files are closed. So the bound holds but for
//! what each thread that writes opens at the moment, and what a device refuses to sync.
//!
//! With room nothing is locked or written in an append: it reads three flags.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};

use super::sync::{Shared, lock};
use crate::open_files;

/// What a log knows of itself.
#[derive(Debug, Default)]
pub(super) struct KeptFiles {
    /// It is in the list.
    listed: AtomicBool,
    /// It was written to again since it was listed, or last passed over.
    recently: AtomicBool,
}

/// The list, the one that was looked at longest ago first.
#[derive(Debug, Default)]
pub(super) struct OpenLogs(Mutex<VecDeque<Weak<Shared>>>);

impl Shared {
    /// Before files are written to. May block on syncs of other logs where no more files may be kept
    /// open.
    pub(super) fn is_written_to(self: &Arc<Self>) {
        let KeptFiles { listed, recently } = &self.files;
        if !listed.load(Ordering::Acquire) {
            self.list();
        } else if !recently.load(Ordering::Relaxed) {
            recently.store(true, Ordering::Relaxed);
        }
        if open_files::is_full() {
            self.queue.open_logs.make_room();
        }
    }

    /// It may keep files open.
    fn list(self: &Arc<Self>) {
        let listed = &self.files.listed;
        if !listed.load(Ordering::Acquire) && !listed.swap(true, Ordering::AcqRel) {
            open_files::list(&mut lock(&self.queue.open_logs.0), self);
        }
    }

    /// Closes the files that are on the device, and lists the log where others stay open.
    pub(super) fn close_synced_files(self: &Arc<Self>) {
        let mut keeps = false;
        for segment in self.segments().iter() {
            segment.close_files();
            keeps |= segment.keeps_files();
        }
        if keeps {
            self.list();
            if open_files::is_full() {
                self.queue.open_logs.make_room();
            }
        }
    }

    /// Blocking. Syncs what the log keeps open, and closes it.
    fn sync_and_close_files(self: &Arc<Self>) {
        let keeps = |shared: &Self| shared.segments().iter().any(|s| s.keeps_files());
        if !keeps(self) {
            return;
        }
        let synced = self.sync();
        if self.failure().is_some() || self.check_exists().is_err() {
            // Nothing more is written, and whoever has to know of it does.
            self.segments().iter().for_each(|s| s.give_up_files());
            return;
        }
        if synced.is_err() {
            return;
        }
        for segment in self.segments().iter().filter(|s| s.keeps_files()) {
            let indexes = segment.sync_indexes();
            // A cut, or room that was given back, leaves the log's file behind a sync of all batches.
            if let Err(error) = indexes.and_then(|()| self.sync_again(segment)) {
                let (topic, partition) = (&self.topic, self.partition);
                tracing::warn!(topic, partition, %error, "files stay open that can't be synced");
            }
            segment.close_files();
        }
    }
}

impl OpenLogs {
    /// Blocking. Closes files until there is room for those of one more log, or none can be closed.
    fn make_room(&self) {
        // Each is passed over once at most.
        let mut looks = 2 * lock(&self.0).len();
        while looks > 0 && open_files::is_full() {
            looks -= 1;
            let Some(log) = lock(&self.0).pop_front() else {
                return;
            };
            // One that is gone has closed its files.
            let Some(log) = log.upgrade() else { continue };
            if log.files.recently.swap(false, Ordering::AcqRel) {
                lock(&self.0).push_back(Arc::downgrade(&log));
                continue;
            }
            // First: whoever writes to it from now on lists it again.
            log.files.listed.store(false, Ordering::Release);
            log.sync_and_close_files();
            if log.segments().iter().any(|segment| segment.keeps_files()) {
                log.list();
            }
        }
    }
}
