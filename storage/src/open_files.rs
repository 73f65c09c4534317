//! How many files the logs of this process keep open, and how many maps of files there are: bounded,
//! whatever the number of partitions.
//!
//! The system's limits are a process's, and so are these counts. A file is *kept* open from its first
//! write on until what was written is on the device (`segment/map.rs`); beside those a thread has open
//! what it is reading at the moment. When [`max_kept`] files are kept, whoever is about to write to
//! another has logs that were not written to for a while synced and closed first
//! (`partition_log/files.rs`). Of maps [`max_kept_maps`] are kept, and unmapped in the same way
//! (`segment/maps.rs`).

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};

/// More are never kept open, whatever the system allows: enough for ten thousand partitions that are
/// all written to.
const MOST_KEPT: usize = 32_768;
/// Of the system's limit of open files, logs may keep one in so many.
const SHARE_OF_FILES: usize = 2;
/// Files of the segment that a log writes to.
pub const FILES_PER_LOG: usize = 3;

/// More maps are never kept: enough for all files of ten thousand partitions.
const MOST_MAPS: usize = 32_768;
/// Of the system's limit of maps, files may keep one in so many ...
const SHARE_OF_MAPS: usize = 2;
/// ... and, with those that somebody reads from, so many quarters.
const QUARTERS_OF_MAPS: usize = 3;
/// Linux's limit, where it does not say.
const USUAL_MAPS: usize = 65_530;

/// A list this long, and each that is twice as long, is looked through for what is gone.
const LOOKED_THROUGH: usize = 1024;

/// Files kept open now.
static KEPT: AtomicUsize = AtomicUsize::new(0);

/// How many files may be kept open. Decided at the first call, by the limit of open files then.
pub fn max_kept() -> usize {
    static MAX_KEPT: OnceLock<usize> = OnceLock::new();
    *MAX_KEPT.get_or_init(|| (limit_of_files() / SHARE_OF_FILES).min(MOST_KEPT))
}

/// How many are.
pub fn kept() -> usize {
    KEPT.load(Ordering::Relaxed)
}

/// Whether there is no room for the files of one more log.
pub(crate) fn is_full() -> bool {
    kept() + FILES_PER_LOG > max_kept()
}

/// How many maps of files may be kept. Decided at the first call.
pub fn max_kept_maps() -> usize {
    static MAX_KEPT: OnceLock<usize> = OnceLock::new();
    *MAX_KEPT.get_or_init(|| (limit_of_maps() / SHARE_OF_MAPS).min(MOST_MAPS))
}

/// How many there may be, with those that are not kept but read from.
pub(crate) fn max_maps() -> usize {
    static MAX: OnceLock<usize> = OnceLock::new();
    *MAX.get_or_init(|| limit_of_maps() / 4 * QUARTERS_OF_MAPS)
}

fn limit_of_maps() -> usize {
    let said = std::fs::read_to_string("/proc/sys/vm/max_map_count");
    let said = said.ok().and_then(|text| text.trim().parse().ok());
    said.unwrap_or(USUAL_MAPS)
}

/// Lists what keeps something. What is gone leaves the list, which never gets longer than twice what is
/// there, and a little.
pub(crate) fn list<T>(all: &mut VecDeque<Weak<T>>, one: &Arc<T>) {
    all.push_back(Arc::downgrade(one));
    if all.len() > LOOKED_THROUGH && all.len().is_power_of_two() {
        all.retain(|one| one.strong_count() > 0);
    }
}

pub(crate) fn opened() {
    KEPT.fetch_add(1, Ordering::Relaxed);
}

pub(crate) fn closed() {
    KEPT.fetch_sub(1, Ordering::Relaxed);
}

fn limit_of_files() -> usize {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` is a whole `rlimit`, and is only written during the call.
    match unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } {
        0 => usize::try_from(limit.rlim_cur).unwrap_or(usize::MAX),
        // It does not fail; were it to, this is what most systems give to every process.
        _ => 1024,
    }
}
