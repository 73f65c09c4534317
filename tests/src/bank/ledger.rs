//! What the tellers were told of their transfers.

use std::sync::{Mutex, PoisonError};

use super::book::Book;

/// What has to become of a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Told {
    /// Its commit was answered: it is there.
    Committed,
    /// Its abort was answered: it is not there.
    Aborted,
    /// Its producer was gone, and a new one of the same id took its place: it is not there.
    Abandoned,
    /// It was to be committed by a producer that was replaced, and could not be: it is not there.
    Fenced,
    /// Nothing: it is there as a whole or not at all.
    Nothing,
}

/// One transfer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub transfer: u64,
    pub book: Book,
    pub told: Told,
}

/// Written by the tellers, read by the checker.
#[derive(Default)]
pub(super) struct Ledger {
    entries: Mutex<Vec<Entry>>,
    /// What must not happen, and did.
    faults: Mutex<Vec<String>>,
}

impl Ledger {
    pub(super) fn note(&self, entry: Entry) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.push(entry);
    }

    pub(super) fn fault(&self, what: String) {
        let mut faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        faults.push(what);
    }

    /// What was noted since the last call.
    pub(super) fn take(&self) -> Result<Vec<Entry>, String> {
        let faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(first) = faults.first() {
            return Err(first.clone());
        }
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(std::mem::take(&mut *entries))
    }
}
