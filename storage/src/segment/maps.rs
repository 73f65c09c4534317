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
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};

use memmap2::MmapRaw;

use crate::open_files;
use crate::partition_log::lock;

/// Those of the whole process, as the system's limit is.
static MAPS: Maps = Maps::new(|| (open_files::max_kept_maps(), open_files::max_maps()));

/// Maps that count together.
#[derive(Debug)]
struct Maps {
    /// How many there are.
    count: AtomicUsize,
    /// Files with a map that is kept, the one that was looked at longest ago first.
    kept: Mutex<VecDeque<Weak<MapSlot>>>,
    /// How many may be kept, and how many there may be.
    limits: fn() -> (usize, usize),
}

/// A map that counts.
#[derive(Debug)]
pub(super) struct Map {
    raw: MmapRaw,
    of: &'static Maps,
    /// How far the device was asked for what a reader will need.
    asked_to: AtomicUsize,
}

impl Map {
    fn new(raw: MmapRaw, of: &'static Maps) -> Self {
        of.count.fetch_add(1, Ordering::Relaxed);
        Self {
            raw,
            of,
            asked_to: AtomicUsize::new(0),
        }
    }

    /// What of `ahead`, which begins where a reader is, the device is to be asked for now: what it was not
    /// asked for before, a quarter of `ahead` at least. Readers at several places may make it ask again.
    pub fn to_ask(&self, ahead: Range<usize>) -> Range<usize> {
        let asked_to = self.asked_to.load(Ordering::Relaxed);
        let from = match ahead.contains(&asked_to) {
            true => asked_to,
            false => ahead.start,
        };
        if ahead.end.saturating_sub(from) < ahead.len() / 4 {
            return ahead.end..ahead.end;
        }
        self.asked_to.store(ahead.end, Ordering::Relaxed);
        from..ahead.end
    }

    pub fn raw(&self) -> &MmapRaw {
        &self.raw
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        self.of.count.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The place of a file's map.
#[derive(Debug, Default)]
pub(super) struct MapSlot {
    map: Mutex<Option<Arc<Map>>>,
    listed: AtomicBool,
    /// It was looked through again since it was made, or last passed over.
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
        self.fill_among(&MAPS, len, make)
    }

    fn fill_among(
        self: &Arc<Self>,
        maps: &'static Maps,
        len: usize,
        make: impl FnOnce() -> io::Result<MmapRaw>,
    ) -> io::Result<Arc<Map>> {
        maps.make_room()?;
        let map = {
            let mut slot = lock(&self.map);
            match slot.as_ref().filter(|map| map.raw().len() >= len) {
                // Another reader was faster.
                Some(map) => Arc::clone(map),
                None => Arc::clone(slot.insert(Arc::new(Map::new(make()?, maps)))),
            }
        };
        // Most are looked through once.
        self.recently.store(false, Ordering::Relaxed);
        maps.list(self);
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

impl Maps {
    const fn new(limits: fn() -> (usize, usize)) -> Self {
        Self {
            count: AtomicUsize::new(0),
            kept: Mutex::new(VecDeque::new()),
            limits,
        }
    }

    fn list(&self, slot: &Arc<MapSlot>) {
        if !slot.listed.swap(true, Ordering::AcqRel) {
            open_files::list(&mut lock(&self.kept), slot);
        }
    }

    /// Unmaps files until there is room for a map that is kept, or none can be unmapped. Fails where
    /// there may not be another.
    fn make_room(&self) -> io::Result<()> {
        let (max_kept, max) = (self.limits)();
        let is_full = || self.count.load(Ordering::Relaxed) >= max_kept;
        if !is_full() {
            return Ok(());
        }
        // Each is passed over once at most.
        let mut looks = 2 * lock(&self.kept).len();
        while looks > 0 && is_full() {
            looks -= 1;
            let Some(slot) = lock(&self.kept).pop_front() else {
                break;
            };
            // One that is gone has unmapped its file.
            let Some(slot) = slot.upgrade() else { continue };
            let recently = slot.recently.swap(false, Ordering::AcqRel);
            // First: whoever fills it from now on lists it again.
            slot.listed.store(false, Ordering::Release);
            if recently || !slot.give_up() {
                self.list(&slot);
            }
        }
        match self.count.load(Ordering::Relaxed) < max {
            true => Ok(()),
            false => Err(io::Error::from_raw_os_error(libc::ENOMEM)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map_of(file: &std::fs::File) -> io::Result<MmapRaw> {
        memmap2::MmapOptions::new().len(10).map_raw_read_only(file)
    }

    #[test]
    fn a_reader_that_goes_on_asks_for_everything_once() {
        static ALL: Maps = Maps::new(|| (4, 6));
        let file = tempfile::tempfile().expect("a file");
        file.set_len(10).expect("ten bytes");
        let map = Map::new(map_of(&file).expect("a map"), &ALL);
        assert_eq!(map.to_ask(10..90), 10..90);
        assert_eq!(map.to_ask(20..100), 100..100, "too little to ask for");
        assert_eq!(map.to_ask(30..110), 90..110);
        assert_eq!(map.to_ask(0..80), 0..80, "from the start again");
        assert_eq!(map.to_ask(200..280), 200..280, "somewhere else");
    }

    #[test]
    fn so_many_maps_are_kept_and_those_that_are_looked_through() {
        static FEW: Maps = Maps::new(|| (4, 6));
        let file = tempfile::tempfile().expect("a file");
        file.set_len(10).expect("ten bytes");
        let slots: Vec<Arc<MapSlot>> = (0..50).map(|_| Arc::default()).collect();
        let fill = |slot: &Arc<MapSlot>| slot.fill_among(&FEW, 10, || map_of(&file));
        for slot in &slots {
            drop(fill(slot).expect("a map"));
            assert!(FEW.count.load(Ordering::Relaxed) <= 4);
            // Each time somebody looks through the first one.
            assert!(slots[0].of(10).is_some(), "it stays");
        }
        let kept = slots.iter().filter(|slot| slot.of(10).is_some()).count();
        assert_eq!(kept, 4);

        // What is read from is not unmapped, and does not keep others from being read, up to a bound.
        let read: Vec<_> = slots
            .iter()
            .take(6)
            .map(|s| fill(s).expect("a map"))
            .collect();
        assert_eq!(FEW.count.load(Ordering::Relaxed), 6);
        let error = fill(&slots[6]).expect_err("no more maps");
        assert_eq!(error.raw_os_error(), Some(libc::ENOMEM));
        drop(read);
        drop(fill(&slots[6]).expect("a map"));
        assert!(FEW.count.load(Ordering::Relaxed) <= 4);
        drop(slots);
        assert_eq!(
            FEW.count.load(Ordering::Relaxed),
            0,
            "they go with their files"
        );
    }
}
