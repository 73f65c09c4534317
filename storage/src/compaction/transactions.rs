//! Which transactions were aborted, and of which a marker is all that is left.
//!
//! Both are learnt from the log itself: a transaction's batches have its producer's id and the
//! transactional bit, and end with a control batch of the same producer, whose record (the marker)
//! says how. One walk over the log's batches, from its start to its end, finds for each aborted
//! transaction where it begins and ends ([`Transactions::learn`]). Of other batches than markers only the
//! header and the checksum are looked at. A log that never had a transaction needs no walk: who meets the first
//! transactional batch without one is told so, and asks for it.
//!
//! What has no marker is undecided. So is everything from a batch on that cannot be read in the walk,
//! since it may have been a marker. Nothing at or above [`Transactions::first_undecided`] may be
//! compacted.
//!
//! A marker is needed for as long as a batch of its transaction is there, emptied ones too. The pass
//! that goes over the log in order tells by the batches that it meets before the marker.

use std::collections::{HashMap, HashSet};

use crate::Offset;
use crate::batch::{Batch, ControlRecord, TransactionResult};
use crate::error::Result;

/// The transactions of one log.
#[derive(Debug, Default)]
pub(crate) struct Transactions {
    are_known: bool,
    /// Of each producer, in order: where a transaction that was aborted begins, and its marker.
    aborted: HashMap<i64, Vec<(Offset, Offset)>>,
    /// In the walk: where each producer's transaction without a marker begins.
    open: HashMap<i64, Offset>,
    /// From here on nothing was learnt.
    unreadable_from: Option<Offset>,
    /// In the pass: the producers whose transaction has a batch, and no marker so far.
    with_data: HashSet<i64>,
}

impl Transactions {
    /// The walk: the next batch of the log. From its start to its end, then [`Transactions::learnt`].
    pub fn learn(&mut self, batch: &Batch<'_>) {
        if self.unreadable_from.is_some() {
            return;
        }
        if batch.check_crc().is_err() {
            // Nothing of it is believed, not even that it is no marker.
            self.unreadable_from(batch.base_offset());
            return;
        }
        let producer_id = batch.producer_id();
        if !batch.is_control() {
            if batch.is_transactional() {
                self.open
                    .entry(producer_id)
                    .or_insert_with(|| batch.base_offset());
            }
            return;
        }
        match ControlRecord::of(batch) {
            Ok(ControlRecord::End {
                result: TransactionResult::Abort,
                ..
            }) => {
                if let Some(first) = self.open.remove(&producer_id) {
                    let aborted = self.aborted.entry(producer_id).or_default();
                    aborted.push((first, batch.base_offset()));
                }
            }
            Ok(ControlRecord::End { .. } | ControlRecord::Emptied) => {
                self.open.remove(&producer_id);
            }
            Ok(ControlRecord::Other) => {}
            Err(_) => self.unreadable_from(batch.base_offset()),
        }
    }

    /// The walk: what begins at `offset` cannot be read, and what follows tells nothing then.
    pub fn unreadable_from(&mut self, offset: Offset) {
        self.unreadable_from.get_or_insert(offset);
    }

    /// The walk is at the log's end.
    pub fn learnt(&mut self) {
        self.are_known = true;
    }

    /// The walk was made.
    pub fn are_known(&self) -> bool {
        self.are_known
    }

    /// The first offset that may belong to a transaction of which the end is not known.
    pub fn first_undecided(&self) -> Option<Offset> {
        self.open
            .values()
            .copied()
            .chain(self.unreadable_from)
            .min()
    }

    /// A data batch is part of a transaction that was aborted.
    pub fn is_aborted(&self, batch: &Batch<'_>) -> bool {
        let Some(aborted) = self.aborted.get(&batch.producer_id()) else {
            return false;
        };
        let offset = batch.base_offset();
        let begun = aborted.partition_point(|(first, _)| *first <= offset);
        let last = begun.checked_sub(1).and_then(|at| aborted.get(at));
        batch.is_transactional() && last.is_some_and(|(_, marker)| offset < *marker)
    }

    /// A pass over the log begins.
    pub fn begin_pass(&mut self) {
        self.with_data.clear();
    }

    /// The pass is at a data batch. Returns whether its transaction was aborted.
    pub fn pass_data(&mut self, batch: &Batch<'_>) -> bool {
        if batch.is_transactional() {
            self.with_data.insert(batch.producer_id());
        }
        self.is_aborted(batch)
    }

    /// The pass is at a control batch. Returns whether nothing is left that needs it.
    pub fn pass_control(&mut self, batch: &Batch<'_>) -> Result<bool> {
        Ok(match ControlRecord::of(batch)? {
            ControlRecord::End { .. } => !self.with_data.remove(&batch.producer_id()),
            ControlRecord::Other => false,
            ControlRecord::Emptied => true,
        })
    }
}

#[cfg(test)]
#[path = "transactions/tests.rs"]
mod tests;
