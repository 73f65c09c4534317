//! The two things that have to fit together: what a log's batches say of its transactions, by a walk over
//! all of them, and what a read_committed consumer makes of what a read gives it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use bytes::Bytes;
use storage::Offset;
use storage::batch::{Batch, batches, decode};
use storage::producer_state::AbortedTransaction;

const TYPE_ABORT: i16 = 0;
const TYPE_COMMIT: i16 = 1;

/// What becomes of a batch of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is part of no transaction.
    Plain,
    /// Its transaction has not ended.
    Open,
    /// Its transaction ends with the marker there.
    Ended { marker: Offset, is_abort: bool },
}

/// What the batches of a log say, as far as they were gone over.
#[derive(Clone, Debug, Default)]
pub struct Walk {
    /// Where each producer's open transaction begins.
    pub open: BTreeMap<i64, Offset>,
    /// In the order of their markers.
    pub aborted: Vec<AbortedTransaction>,
    /// The producers and the offsets of all markers that abort, whether there is something or not.
    pub abort_markers: BTreeSet<(i64, Offset)>,
    /// By the base offsets of the batches.
    pub fates: BTreeMap<Offset, Fate>,
    /// The batches of open transactions.
    undecided: BTreeMap<i64, Vec<Offset>>,
}

impl Walk {
    /// The next batch.
    pub fn note(&mut self, batch: &Batch<'_>) {
        let (producer_id, base) = (batch.producer_id(), batch.base_offset());
        if batch.is_control() {
            if let Some(is_abort) = ends(batch) {
                self.end(producer_id, base, is_abort);
            }
        } else if batch.is_transactional() {
            self.open.entry(producer_id).or_insert(base);
            self.undecided.entry(producer_id).or_default().push(base);
            self.fates.insert(base, Fate::Open);
        } else {
            self.fates.insert(base, Fate::Plain);
        }
    }

    fn end(&mut self, producer_id: i64, marker: Offset, is_abort: bool) {
        if is_abort {
            self.abort_markers.insert((producer_id, marker));
        }
        let decided = self.undecided.remove(&producer_id).unwrap_or_default();
        let fate = Fate::Ended { marker, is_abort };
        self.fates
            .extend(decided.into_iter().map(|base| (base, fate)));
        let first_offset = self.open.remove(&producer_id);
        if let Some(first_offset) = first_offset.filter(|_| is_abort) {
            self.aborted.push(AbortedTransaction {
                producer_id,
                first_offset,
                last_offset: marker,
                last_stable_offset: self.last_stable_offset(0..marker + 1),
            });
        }
    }

    /// Of a log with these offsets.
    pub fn last_stable_offset(&self, log: Range<Offset>) -> Offset {
        let first = self.open.values().min();
        first.map_or(log.end, |first| (*first).max(log.start))
    }

    /// The transactions that were aborted and have a batch or their marker in a part of the log.
    pub fn aborted_in(&self, part: Range<Offset>) -> Vec<AbortedTransaction> {
        let aborted = self.aborted.iter();
        let is_in = |aborted: &&AbortedTransaction| {
            aborted.first_offset < part.end && aborted.last_offset >= part.start
        };
        aborted.filter(is_in).copied().collect()
    }

    /// Where the batches begin that a read_committed consumer is to take, of a part of the log.
    pub fn committed_in(&self, part: Range<Offset>) -> Vec<Offset> {
        let fates = self.fates.range(part);
        let committed = fates.filter(|(_, fate)| match fate {
            Fate::Plain => true,
            Fate::Ended { is_abort, .. } => !is_abort,
            Fate::Open => false,
        });
        committed.map(|(base, _)| *base).collect()
    }
}

/// Whether a control batch ends its producer's transaction with an abort; `None` where it ends none.
fn ends(batch: &Batch<'_>) -> Option<bool> {
    let bytes = Bytes::copy_from_slice(batch.bytes());
    let records = decode(&bytes, bytes.len()).expect("decodes");
    // Compaction has emptied one of which there is nothing.
    let Some(record) = records.first() else {
        return Some(false);
    };
    let key = record.key.as_deref().expect("a control record has a key");
    match i16::from_be_bytes([key[2], key[3]]) {
        TYPE_ABORT => Some(true),
        TYPE_COMMIT => Some(false),
        _ => None,
    }
}

/// The batches that a consumer with `isolation.level=read_committed` takes of what it has fetched, as
/// Kafka's does.
pub fn committed<'a>(records: &'a [u8], aborted: &[AbortedTransaction]) -> Vec<Batch<'a>> {
    let mut begun = aborted.to_vec();
    begun.sort_by_key(|aborted| aborted.first_offset);
    let mut begun = begun.into_iter().peekable();
    let mut left_out = BTreeSet::new();
    let mut taken = Vec::new();
    for batch in batches(records) {
        let batch = batch.expect("a whole batch");
        let producer_id = batch.producer_id();
        while let Some(aborted) = begun.next_if(|next| next.first_offset <= batch.last_offset()) {
            left_out.insert(aborted.producer_id);
        }
        if batch.is_control() {
            if ends(&batch) == Some(true) {
                left_out.remove(&producer_id);
            }
        } else if !(batch.is_transactional() && left_out.contains(&producer_id)) {
            taken.push(batch);
        }
    }
    taken
}
