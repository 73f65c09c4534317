//! What is remembered of one key: cells, each a slice of a pane, one after another in one allocation.
//!
//! A cell is: pane `u32`, slice `i64`, length `u32`, that many bytes; big-endian. These are also the bytes of a key in the
//! store on the disk.

/// What a pane knows of one slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell<'a> {
    /// The pane's id.
    pub pane: u32,
    /// Which slice; what that means is the pane's.
    pub slice: i64,
    /// What is known.
    pub value: &'a [u8],
}

const HEADER: usize = 16;

/// The cells of a key, in no order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cells(Vec<u8>);

impl Cells {
    /// From the bytes that [`Cells::as_bytes`] gave; `None` where they are not whole cells.
    pub fn from_bytes(bytes: Vec<u8>) -> Option<Self> {
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            (_, rest) = first(rest)?;
        }
        Some(Self(bytes))
    }

    /// All of them.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What they take in memory.
    pub fn capacity(&self) -> usize {
        self.0.capacity()
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = Cell<'_>> {
        let mut rest = self.0.as_slice();
        std::iter::from_fn(move || {
            let (cell, after) = first(rest)?;
            rest = after;
            Some(cell)
        })
    }

    /// Those of a pane.
    pub fn of(&self, pane: u32) -> impl Iterator<Item = Cell<'_>> {
        self.iter().filter(move |cell| cell.pane == pane)
    }

    /// What a slice of a pane has.
    pub fn get(&self, pane: u32, slice: i64) -> Option<&[u8]> {
        let at = self.find(pane, slice)?;
        first(self.0.get(at..)?).map(|(cell, _)| cell.value)
    }

    /// Gives a slice of a pane a value in place of the one that it may have.
    pub fn set(&mut self, pane: u32, slice: i64, value: &[u8]) {
        if let Some(at) = self.find(pane, slice) {
            let from = at + HEADER;
            let length = self.get_length(at);
            if let Some(place) = self.0.get_mut(from..from + length)
                && length == value.len()
            {
                place.copy_from_slice(value);
                return;
            }
            self.0.drain(at..from + length);
        }
        // Mostly there will be as many again, or none.
        self.0.reserve_exact(HEADER + value.len());
        self.0.extend_from_slice(&pane.to_be_bytes());
        self.0.extend_from_slice(&slice.to_be_bytes());
        self.0
            .extend_from_slice(&(value.len() as u32).to_be_bytes());
        self.0.extend_from_slice(value);
    }

    /// Takes a slice of a pane away; whether there was one.
    pub fn remove(&mut self, pane: u32, slice: i64) -> bool {
        let Some(at) = self.find(pane, slice) else {
            return false;
        };
        let length = self.get_length(at);
        self.0.drain(at..at + HEADER + length);
        true
    }

    fn find(&self, pane: u32, slice: i64) -> Option<usize> {
        let mut at = 0;
        while let Some((cell, _)) = self.0.get(at..).and_then(first) {
            if cell.pane == pane && cell.slice == slice {
                return Some(at);
            }
            at += HEADER + cell.value.len();
        }
        None
    }

    fn get_length(&self, at: usize) -> usize {
        let cell = self.0.get(at..).and_then(first);
        cell.map_or(0, |(cell, _)| cell.value.len())
    }
}

fn first(bytes: &[u8]) -> Option<(Cell<'_>, &[u8])> {
    let (pane, rest) = bytes.split_first_chunk()?;
    let (slice, rest) = rest.split_first_chunk()?;
    let (length, rest) = rest.split_first_chunk()?;
    let (value, rest) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
    let cell = Cell {
        pane: u32::from_be_bytes(*pane),
        slice: i64::from_be_bytes(*slice),
        value,
    };
    Some((cell, rest))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::random::Random;

    fn sorted(cells: &Cells) -> BTreeMap<(u32, i64), Vec<u8>> {
        let all = cells.iter();
        all.map(|cell| ((cell.pane, cell.slice), cell.value.to_vec()))
            .collect()
    }

    #[test]
    fn cells_hold_what_a_map_would() {
        let mut random = Random(1);
        for _ in 0..200 {
            let (mut cells, mut map) = (Cells::default(), BTreeMap::new());
            for _ in 0..60 {
                let pane = *random.one_of(&[1, 2, u32::MAX]);
                let slice = *random.one_of(&[i64::MIN, -1, 0, 1, 2, i64::MAX]);
                if random.below(3) == 0 {
                    let was_there = map.remove(&(pane, slice)).is_some();
                    assert_eq!(cells.remove(pane, slice), was_there);
                } else {
                    let value = vec![random.next() as u8; random.below(5)];
                    cells.set(pane, slice, &value);
                    map.insert((pane, slice), value);
                }
                let found = map.get(&(pane, slice)).map(Vec::as_slice);
                assert_eq!(cells.get(pane, slice), found);
                assert_eq!(
                    cells.of(pane).count(),
                    map.range((pane, i64::MIN)..=(pane, i64::MAX)).count()
                );
                assert_eq!(cells.is_empty(), map.is_empty());
            }
            assert_eq!(sorted(&cells), map);
            let read = Cells::from_bytes(cells.as_bytes().to_vec());
            assert_eq!(read.as_ref(), Some(&cells));
        }
    }

    #[test]
    fn bytes_that_are_not_whole_cells_are_refused() {
        let mut cells = Cells::default();
        let mut ends = vec![0];
        for value in [&b"abc"[..], b"", b"defgh"] {
            cells.set(7, ends.len() as i64, value);
            ends.push(cells.as_bytes().len());
        }
        for length in 0..=cells.as_bytes().len() {
            let read = Cells::from_bytes(cells.as_bytes()[..length].to_vec());
            assert_eq!(read.is_some(), ends.contains(&length), "{length} bytes");
        }
        let mut claims_more = cells.as_bytes().to_vec();
        claims_more[12..16].fill(0xff);
        assert_eq!(Cells::from_bytes(claims_more), None);
    }
}
