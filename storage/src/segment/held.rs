//! The newest entries of an index, which are not in its file yet.
//!
//! A write costs about as much as a batch of a few KiB, so entries are gathered and written
//! [`MOST_HELD`] at a time, and at every checkpoint, roll and clean stop. Readers find them here
//! meanwhile. A crash loses them: nothing relies on an index above the recovery point, and below it all
//! are in the file, synced.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Entries that are gathered: memory of every log that was written to since its last checkpoint.
const MOST_HELD: usize = 64;

/// See the module's header.
#[derive(Debug)]
pub(super) struct Held<E> {
    state: Mutex<State<E>>,
    /// Held while the file is written or cut.
    file: Mutex<()>,
}

#[derive(Debug)]
struct State<E> {
    /// How many entries are in the file.
    in_file: u64,
    /// Those that follow.
    entries: Vec<E>,
    /// A write has failed, and may have left something in the file behind its entries.
    torn: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<E: Copy> Held<E> {
    /// None, behind the entries that are in the file.
    pub fn behind(in_file: u64) -> Self {
        Self {
            state: Mutex::new(State {
                in_file,
                entries: Vec::new(),
                torn: false,
            }),
            file: Mutex::new(()),
        }
    }

    /// Adds an entry. True where it is time to write.
    pub fn push(&self, entry: E) -> bool {
        let mut state = lock(&self.state);
        if state.entries.capacity() == 0 {
            state.entries.reserve_exact(MOST_HELD);
        }
        state.entries.push(entry);
        state.entries.len() >= MOST_HELD
    }

    /// The entry at `index`, where it is held.
    pub fn get(&self, index: u64) -> Option<E> {
        let state = lock(&self.state);
        let at = usize::try_from(index.checked_sub(state.in_file)?).ok()?;
        state.entries.get(at).copied()
    }

    /// How many entries are in the file, and those that follow from `from` on.
    pub fn from(&self, from: u64) -> (u64, Vec<E>) {
        let state = lock(&self.state);
        let skipped = usize::try_from(from.saturating_sub(state.in_file)).unwrap_or(usize::MAX);
        let held = state.entries.get(skipped..).unwrap_or_default();
        (state.in_file, held.to_vec())
    }

    /// Of the first `count` entries, how many are in the file, and those that follow.
    pub fn up_to(&self, count: u64) -> (u64, Vec<E>) {
        let state = lock(&self.state);
        let held = usize::try_from(count.saturating_sub(state.in_file)).unwrap_or(usize::MAX);
        let held = state.entries.get(..held).unwrap_or(&state.entries);
        (state.in_file.min(count), held.to_vec())
    }

    /// Has `write` put what is held into the file, behind so many entries. Not while the file is cut;
    /// readers and the writer go on meanwhile.
    pub fn write<T>(&self, write: impl FnOnce(u64, &[E]) -> Result<(), T>) -> Result<(), T> {
        let _file = lock(&self.file);
        let (in_file, entries) = self.from(0);
        if entries.is_empty() {
            return Ok(());
        }
        let written = write(in_file, &entries);
        let mut state = lock(&self.state);
        if let Err(error) = written {
            state.torn = true;
            return Err(error);
        }
        state.in_file = in_file + entries.len() as u64;
        state.entries.drain(..entries.len());
        Ok(())
    }

    /// Keeps no memory for entries that may come.
    pub fn shrink(&self) {
        lock(&self.state).entries.shrink_to_fit();
    }

    /// None is held.
    pub fn is_empty(&self) -> bool {
        lock(&self.state).entries.is_empty()
    }

    /// Keeps the first `count` of all, and has `cut` cut the file to so many entries where there may be
    /// more in it.
    pub fn truncate<T>(&self, count: u64, cut: impl FnOnce(u64) -> Result<(), T>) -> Result<(), T> {
        let _file = lock(&self.file);
        let (in_file, is_longer) = {
            let state = lock(&self.state);
            let in_file = state.in_file.min(count);
            (in_file, in_file < state.in_file || state.torn)
        };
        if is_longer {
            cut(in_file)?;
        }
        let mut state = lock(&self.state);
        (state.in_file, state.torn) = (in_file, false);
        let held = usize::try_from(count - in_file).unwrap_or(usize::MAX);
        state.entries.truncate(held);
        Ok(())
    }

    /// The file has `count` entries, and none is held.
    pub fn reset(&self, count: u64) {
        let mut state = lock(&self.state);
        (state.in_file, state.torn) = (count, false);
        state.entries = Vec::new();
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    /// Entries 0 to `in_file + held`, each its own number.
    fn held(in_file: u64, held: u64) -> Held<u64> {
        let entries = Held::behind(in_file);
        for entry in in_file..in_file + held {
            entries.push(entry);
        }
        entries
    }

    #[test]
    fn it_is_time_to_write_when_as_many_are_held_as_may_be() {
        let entries = Held::behind(7);
        for entry in 1..MOST_HELD {
            assert!(!entries.push(entry), "{entry}");
        }
        assert!(entries.push(MOST_HELD));
    }

    #[test]
    fn an_entry_is_held_until_it_is_in_the_file() {
        let entries = held(10, 3);
        assert_eq!(
            [9, 10, 12, 13].map(|at| entries.get(at)),
            [None, Some(10), Some(12), None]
        );
        assert_eq!(entries.up_to(12), (10, vec![10, 11]));
        assert_eq!(entries.up_to(4), (4, vec![]));
        assert_eq!(entries.from(11), (10, vec![11, 12]));
        assert_eq!(entries.from(20), (10, vec![]));
        let failed = entries.write(|_, _| Err("no room"));
        assert_eq!((failed, entries.get(12)), (Err("no room"), Some(12)));
        let mut file = Vec::new();
        let written = entries.write(|behind, new| {
            // The writer goes on meanwhile.
            entries.push(13);
            file.extend_from_slice(new);
            assert_eq!(behind, 10);
            Ok::<_, Infallible>(())
        });
        assert_eq!((written, file), (Ok(()), vec![10, 11, 12]));
        assert_eq!(entries.from(0), (13, vec![13]));
    }

    #[test]
    fn a_cut_takes_from_what_is_held_and_from_the_file() {
        for (count, torn, cut_file_to, left) in [
            (12, false, None, vec![10, 11]),
            (12, true, Some(10), vec![10, 11]),
            (10, false, None, vec![]),
            (3, false, Some(3), vec![]),
        ] {
            let entries = held(10, 3);
            if torn {
                assert_eq!(entries.write(|_, _| Err(())), Err(()));
            }
            let mut cut_to = None;
            let cut = |to| {
                cut_to = Some(to);
                Ok::<_, Infallible>(())
            };
            assert_eq!(entries.truncate(count, cut), Ok(()));
            assert_eq!(cut_to, cut_file_to, "{count}");
            assert_eq!(entries.from(0), (count.min(10), left), "{count}");
            let mut cut_again = None;
            let cut = |to| {
                cut_again = Some(to);
                Ok::<_, Infallible>(())
            };
            assert_eq!(entries.truncate(count, cut), Ok(()));
            assert_eq!(cut_again, None, "nothing is left to be cut");
        }
        let entries = held(10, 3);
        assert_eq!(entries.truncate(3, |_| Err("EIO")), Err("EIO"));
        assert_eq!(entries.from(0), (10, vec![10, 11, 12]));
    }
}
