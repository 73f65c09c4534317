//! From a key to the newest offset that it was seen at, in memory of a fixed size.
//!
//! A slot is 24 bytes, whatever the key's length: a 128-bit hash of the key and its offset. The hash
//! stands for the key. That two of n keys have the same one is as likely as n² / 2^129: with the 5
//! million keys that 128 MiB hold about 4 in 10^26, far less than that a disk returns a wrong byte
//! and the CRC says it is right. It is SipHash with a random key for each pass, so that nobody who
//! chooses keys can choose two that collide, or many that crowd one place.
//!
//! Slots are probed one after the other from a place that the hash's first half says, so that a
//! look-up touches one cache line, seldom two. Memory is not touched before it is needed: the map
//! takes only as many of its slots as the keys of the pass can fill. It comes from the system and goes
//! back there at once: what an allocator kept of one map while the next is filled would be beyond
//! the bound.

use memmap2::{Advice, MmapMut};
use siphasher::sip128::SipHasher13;
use uuid::Uuid;

use crate::Offset;

/// The two halves of the key's hash, and the offset + 1: 0 is an empty slot.
type Slot = [u64; 3];

const EMPTY: Slot = [0; 3];
const SLOT_SIZE: usize = size_of::<Slot>();
/// One for a key, one that stays empty, where every probe ends.
const MIN_SLOTS: usize = 2;
/// What is cleared by hand; of more the memory is given back and taken anew, zeroed by the system.
const MAX_CLEARED_SLOTS: usize = (1 << 20) / SLOT_SIZE;
/// The latest offset of a map that has seen none.
const NONE: Offset = -1;

/// The newest offset of each key.
pub(crate) struct OffsetMap {
    slots: Slots,
    load_factor: f64,
    /// Of the slots, the ones that this pass uses: the first so many.
    used: usize,
    hasher: SipHasher13,
    len: usize,
    latest_offset: Offset,
}

impl OffsetMap {
    /// A map in at most `slots_bytes` of memory, of which none is touched yet. `load_factor` is the
    /// part of the slots that keys may take.
    pub fn new(slots_bytes: usize, load_factor: f64) -> Self {
        let slots = (slots_bytes / SLOT_SIZE).max(MIN_SLOTS);
        Self {
            slots: Slots::new(slots),
            // Below 1, so that a slot is empty; a number, whatever was asked for.
            load_factor: if load_factor.is_nan() {
                0.9
            } else {
                load_factor.clamp(0.01, 0.99)
            },
            used: slots,
            hasher: fresh_hasher(),
            len: 0,
            latest_offset: NONE,
        }
    }

    /// Forgets everything, for a pass that will put no more than `at_most_keys` keys. No more slots
    /// are used than those need, so that a small log touches little memory.
    pub fn clear_for(&mut self, at_most_keys: u64) {
        if self.used <= MAX_CLEARED_SLOTS {
            self.slots.all_mut()[..self.used].fill(EMPTY);
        } else if self.len > 0 {
            let slots = self.slots.all().len();
            // Given back first: there are never two of them.
            self.slots = Slots::Heap(Vec::new());
            self.slots = Slots::new(slots);
        }
        let needed = (at_most_keys as f64 / self.load_factor).ceil() as usize;
        self.used = needed
            .saturating_add(1)
            .clamp(MIN_SLOTS, self.slots.all().len());
        self.hasher = fresh_hasher();
        self.len = 0;
        self.latest_offset = NONE;
    }

    /// `key` was seen at `offset`, which is newer than all before. False where the map is full and
    /// `key` is not in it: then nothing has changed.
    pub fn put(&mut self, key: &[u8], offset: Offset) -> bool {
        let [high, low] = self.hash(key);
        let at = self.find(high, low);
        if self.slots.all()[at][2] == 0 {
            if self.len >= self.capacity() {
                return false;
            }
            self.len += 1;
        }
        self.slots.all_mut()[at] = [high, low, offset as u64 + 1];
        self.update_latest_offset(offset);
        true
    }

    /// The newest offset of `key`.
    pub fn get(&self, key: &[u8]) -> Option<Offset> {
        let [high, low] = self.hash(key);
        match self.slots.all()[self.find(high, low)] {
            [_, _, 0] => None,
            [_, _, above] => Some((above - 1) as Offset),
        }
    }

    /// Brings the slots of `keys` near, for look-ups that follow: memory answers several of these at a
    /// time, and of look-ups that each wait for the one before, one.
    pub fn warm<'k>(&self, keys: impl Iterator<Item = &'k [u8]>) {
        let mut touched = 0;
        for key in keys {
            let [high, _] = self.hash(key);
            touched ^= self.slots.all()[self.place(high)][2];
        }
        std::hint::black_box(touched);
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// How many keys this pass has room for; at least one.
    pub fn capacity(&self) -> usize {
        ((self.used as f64 * self.load_factor) as usize).clamp(1, self.used - 1)
    }

    /// The newest offset that was seen, with a key or without; -1 before the first.
    pub fn latest_offset(&self) -> Offset {
        self.latest_offset
    }

    /// Everything up to `offset` was seen.
    pub fn update_latest_offset(&mut self, offset: Offset) {
        self.latest_offset = self.latest_offset.max(offset);
    }

    fn hash(&self, key: &[u8]) -> [u64; 2] {
        let hash = self.hasher.hash(key);
        [hash.h1, hash.h2]
    }

    /// Where to look first. Spreads the hash's first half over the slots without a division.
    fn place(&self, high: u64) -> usize {
        ((u128::from(high) * self.used as u128) >> 64) as usize
    }

    /// Where the key with this hash is, or else the empty slot for it. There is always an empty one.
    fn find(&self, high: u64, low: u64) -> usize {
        let used = &self.slots.all()[..self.used];
        let mut at = self.place(high);
        loop {
            match used[at] {
                [_, _, 0] => return at,
                [first, second, _] if first == high && second == low => return at,
                _ => at = if at + 1 == used.len() { 0 } else { at + 1 },
            }
        }
    }
}

/// Empty at first.
enum Slots {
    Heap(Vec<Slot>),
    /// Anonymous memory of its own, of a whole number of slots.
    Mapped(MmapMut),
}

impl Slots {
    fn new(count: usize) -> Self {
        let mapped = match count > MAX_CLEARED_SLOTS {
            true => MmapMut::map_anon(count.saturating_mul(SLOT_SIZE)).ok(),
            false => None,
        };
        // Keys are all over it: with small pages most look-ups would wait for the page tables, too. A
        // system that has no others does without.
        if let Some(map) = &mapped {
            let _ = map.advise(Advice::HugePage);
        }
        match mapped {
            Some(map) => Self::Mapped(map),
            None => Self::Heap(vec![EMPTY; count]),
        }
    }

    fn all(&self) -> &[Slot] {
        match self {
            Self::Heap(slots) => slots,
            Self::Mapped(map) => {
                let count = map.len() / SLOT_SIZE;
                // SAFETY: the map begins at a page and has room for `count` slots, of which any bits
                // are valid; nobody else has it, and it lives as long as what is returned.
                unsafe { std::slice::from_raw_parts(map.as_ptr().cast(), count) }
            }
        }
    }

    fn all_mut(&mut self) -> &mut [Slot] {
        match self {
            Self::Heap(slots) => slots,
            Self::Mapped(map) => {
                let count = map.len() / SLOT_SIZE;
                // SAFETY: as above, and borrowed for writing.
                unsafe { std::slice::from_raw_parts_mut(map.as_mut_ptr().cast(), count) }
            }
        }
    }
}

fn fresh_hasher() -> SipHasher13 {
    // 122 bits of the system's randomness.
    SipHasher13::new_with_key(Uuid::new_v4().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn key(number: u64) -> Vec<u8> {
        format!("key-{number}").into_bytes()
    }

    #[test]
    fn the_newest_offset_of_a_key_is_found_and_no_other_key_is() {
        let mut map = OffsetMap::new(1 << 20, 0.9);
        map.clear_for(10_000);
        let mut expected = HashMap::new();
        for offset in 0..20_000u64 {
            let number = offset.wrapping_mul(2_654_435_761) % 9_000;
            assert!(map.put(&key(number), offset as Offset));
            expected.insert(number, offset as Offset);
        }
        assert_eq!(map.len(), expected.len());
        assert_eq!(map.latest_offset(), 19_999);
        for number in 0..12_000 {
            assert_eq!(map.get(&key(number)), expected.get(&number).copied());
        }
        assert_eq!(map.get(b""), None);
        assert!(map.put(b"", 20_000));
        assert_eq!(map.get(b""), Some(20_000));
    }

    #[test]
    fn a_full_map_takes_the_keys_that_it_has_and_no_new_ones() {
        let mut map = OffsetMap::new(24 * 100, 0.5);
        assert_eq!(map.capacity(), 50);
        for number in 0..50 {
            assert!(map.put(&key(number), number as Offset));
        }
        assert!(!map.put(&key(50), 50));
        assert_eq!((map.len(), map.latest_offset()), (50, 49));
        assert_eq!(map.get(&key(50)), None);
        assert!(map.put(&key(7), 51));
        assert_eq!(map.get(&key(7)), Some(51));
        assert_eq!((map.len(), map.latest_offset()), (50, 51));
    }

    #[test]
    fn a_pass_finds_nothing_of_the_one_before_and_uses_no_more_than_it_needs() {
        let slots = 4 * MAX_CLEARED_SLOTS;
        let mut map = OffsetMap::new(slots * SLOT_SIZE, 0.9);
        // From large to large, from large to small, from small to small, from small to large.
        for keys in [slots as u64, 100_000, 10, 10, 0, u64::MAX] {
            map.clear_for(keys);
            assert_eq!((map.len(), map.latest_offset()), (0, NONE));
            assert!((0..200_000).all(|number| map.get(&key(number)).is_none()));
            let room = map.capacity() as u64;
            assert!(room >= keys.min(map.slots.all().len() as u64 * 9 / 10).max(1));
            assert!(map.used <= (keys.saturating_mul(10) / 9).saturating_add(2) as usize);
            for number in 0..room.min(200_000) {
                assert!(map.put(&key(number), 0), "key {number} of {room}");
            }
        }
    }

    #[test]
    fn the_smallest_map_holds_a_key() {
        for load_factor in [0.0, 0.9, 1.0, 7.0, f64::NAN] {
            let mut map = OffsetMap::new(0, load_factor);
            map.clear_for(1_000);
            assert_eq!(map.capacity(), 1);
            assert!(map.put(b"a", 0));
            assert!(!map.put(b"b", 1));
            assert_eq!((map.get(b"a"), map.get(b"b")), (Some(0), None));
        }
    }

    #[test]
    fn each_pass_hashes_with_a_key_of_its_own() {
        let mut map = OffsetMap::new(1 << 10, 0.9);
        let first = map.hash(b"key");
        map.clear_for(1);
        assert_ne!(map.hash(b"key"), first);
    }

    #[test]
    fn offsets_are_remembered_without_a_record_too() {
        let mut map = OffsetMap::new(1 << 10, 0.9);
        map.update_latest_offset(7);
        map.update_latest_offset(3);
        assert_eq!((map.latest_offset(), map.len()), (7, 0));
        assert!(map.put(b"a", 12));
        assert_eq!(map.latest_offset(), 12);
    }
}
