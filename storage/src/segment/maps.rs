//! Which maps of files are kept. A system has a limit of maps, and each takes page tables.
//!
//! Maps that are kept are in a list. Where there are as many as may be, whoever makes another goes round
//! it: a map that was looked through since the last time round, or that somebody reads from, is passed
//! over; any other is unmapped. What is read from at the moment is not kept by this list but by its
//! readers: of those there are more for a while, up to a bound that leaves the process what it needs
//! itself, and beyond it no file is mapped.
//!
//! A look through a map that is there takes its file's own lock and reads a flag.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};

use memmap2::MmapRaw;

use crate::open_files;
use crate::partition_log::lock;

/// Maps now, of the whole process, as the limit is.
static MAPS: AtomicUsize = AtomicUsize::new(0);
/// Files with a map that is kept, the one that was looked at longest ago first.
static KEPT: Mutex<VecDeque<Weak<MapSlot>>> = Mutex::new(VecDeque::new());

/// A map that counts.
#[derive(Debug)]
pub(super) struct Map(MmapRaw);

impl Map {
    fn new(raw: MmapRaw) -> Self {
        MAPS.fetch_add(1, Ordering::Relaxed);
        Self(raw)
    }

    pub fn raw(&self) -> &MmapRaw {
        &self.0
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        MAPS.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The place of a file's map.
#[derive(Debug, Default)]
pub(super) struct MapSlot {
    map: Mutex<Option<Arc<Map>>>,
    listed: AtomicBool,
    /// It was looked through since it was last passed over.
    recently: AtomicBool,
}

impl MapSlot {
    /// The map, if it has `len` bytes.
    pub fn of(&self, len: usize) -> Option<Arc<Map>> {
        let map = lock(&self.map);
        let map = map.as_ref().filter(|map| map.raw().len() >= len)?;
        if !self.recently.load(Ordering::Relaxed) {
            self.recently.store(true, Ordering::Relaxed);
        }
        Some(Arc::clone(map))
    }

    /// Unmaps the file, once nobody reads from it.
    pub fn empty(&self) {
        *lock(&self.map) = None;
    }

    /// A map of at least `len` bytes, made by `make` where there is none.
    pub fn fill(
        self: &Arc<Self>,
        len: usize,
        make: impl FnOnce() -> io::Result<MmapRaw>,
    ) -> io::Result<Arc<Map>> {
        make_room();
        if MAPS.load(Ordering::Relaxed) >= open_files::max_maps() {
            return Err(io::Error::from_raw_os_error(libc::ENOMEM));
        }
        let map = {
            let mut slot = lock(&self.map);
            match slot.as_ref().filter(|map| map.raw().len() >= len) {
                // Another reader was faster.
                Some(map) => Arc::clone(map),
                None => Arc::clone(slot.insert(Arc::new(Map::new(make()?)))),
            }
        };
        self.recently.store(true, Ordering::Relaxed);
        if !self.listed.swap(true, Ordering::AcqRel) {
            open_files::list(&mut lock(&KEPT), self);
        }
        Ok(map)
    }

    /// Unmaps the file where nobody reads from it; false where somebody does.
    fn give_up(&self) -> bool {
        let mut map = lock(&self.map);
        if map.as_ref().is_some_and(|map| Arc::strong_count(map) > 1) {
            return false;
        }
        *map = None;
        true
    }
}

/// Unmaps files until there is room for a map, or none can be unmapped.
fn make_room() {
    if MAPS.load(Ordering::Relaxed) < open_files::max_kept_maps() {
        return;
    }
    // Each is passed over once at most.
    let mut looks = 2 * lock(&KEPT).len();
    while looks > 0 && MAPS.load(Ordering::Relaxed) >= open_files::max_kept_maps() {
        looks -= 1;
        let Some(slot) = lock(&KEPT).pop_front() else {
            return;
        };
        // One that is gone has unmapped its file.
        let Some(slot) = slot.upgrade() else { continue };
        let recently = slot.recently.swap(false, Ordering::AcqRel);
        // First: whoever fills it from now on lists it again.
        slot.listed.store(false, Ordering::Release);
        if (recently || !slot.give_up()) && !slot.listed.swap(true, Ordering::AcqRel) {
            open_files::list(&mut lock(&KEPT), &slot);
        }
    }
}
