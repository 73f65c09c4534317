//! Idempotence and transactions: what one partition remembers of each producer that appends to it.
//!
//! Guarantees (KIP-98, as Kafka's `ProducerStateManager` has them):
//!
//! - of each producer the newest epoch and the last [`BATCHES_KEPT`] batches of that epoch are
//!   known; a batch with the very sequences of a kept one is a duplicate;
//! - any other batch must follow the last one, where the sequence 2^31 - 1 is followed by 0; so a
//!   duplicate of an older batch is out of order too;
//! - an older epoch is refused, and a newer one begins at sequence 0;
//! - of an unknown producer any first sequence is accepted;
//! - a producer is forgotten only by [`ProducerState::remove_expired`], and never before the
//!   given time has passed since its last append. The broker's clock at the append counts, not the
//!   records' timestamps: a producer that copies old records is not an old producer;
//! - a producer's transaction is open from its first transactional batch to the marker that ends it.
//!   Meanwhile the producer's other batches are refused, and it is not forgotten. A batch of a
//!   transaction that has ended is no duplicate: it would be acknowledged, and not be there. A marker is refused
//!   where its epoch, or that of the coordinator which sends it, is older than one that was seen; its
//!   epoch counts as the producer's from then on (KIP-890).
//!
//! Everything is pure: the time comes in as an argument, and a snapshot (`snapshot.rs`) is bytes. The partition's
//! writer checks, appends and updates under one lock, so that nothing comes between.

mod last_record;
mod snapshot;

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};

use crate::Offset;
use crate::batch::header::add_to_sequence;
use crate::batch::{Batch, ControlRecord, EndMarker, TransactionResult};
use crate::error::{Error, Result};
pub(crate) use last_record::LastRecord;

/// How many batches are kept per producer: clients have no more in flight.
pub const BATCHES_KEPT: usize = 5;

/// In a header and a snapshot: no epoch, no sequence, no offset.
const NONE: i64 = -1;

/// What to do with a producer's batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Append it, then [`ProducerState::update`].
    New,
    /// It is in the log already: answer as the first append was answered, once that is as durable
    /// as this one asks for.
    Duplicate {
        /// The first append's first offset.
        base_offset: Offset,
        /// The first append's last offset.
        last_offset: Offset,
        /// The broker's clock at the first append, milliseconds since the epoch.
        append_time_ms: i64,
    },
}

/// One batch that a producer has appended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Appended {
    last_sequence: i32,
    last_offset: Offset,
    /// `last_offset` less the first offset, and the same of the sequences.
    offset_delta: i32,
    append_time_ms: i64,
}

impl Appended {
    fn base_sequence(&self) -> i32 {
        add_to_sequence(self.last_sequence, self.offset_delta.saturating_neg())
    }

    fn base_offset(&self) -> Offset {
        self.last_offset
            .saturating_sub(i64::from(self.offset_delta))
    }
}

/// A transaction that has ended.
struct Ended {
    /// Where it begins.
    offset: Offset,
    is_aborted: bool,
}

/// One producer.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Producer {
    epoch: i16,
    last_append_ms: i64,
    /// The first `kept` are of this epoch, oldest first.
    batches: [Appended; BATCHES_KEPT],
    kept: usize,
    /// Of the newest marker; -1 where none was seen.
    coordinator_epoch: i32,
    current_txn_first_offset: Option<Offset>,
    /// Where the newest batch is, of those seen since the snapshot, that was a marker or of another epoch
    /// than the one before.
    last_change: Option<Offset>,
}

impl Producer {
    fn new(epoch: i16, last_append_ms: i64) -> Self {
        Self {
            epoch,
            last_append_ms,
            batches: [Appended::default(); BATCHES_KEPT],
            kept: 0,
            coordinator_epoch: NONE as i32,
            current_txn_first_offset: None,
            last_change: None,
        }
    }

    /// A transactional batch is of a transaction that has ended: whoever repeats it, because there was no
    /// answer, means the one that is open.
    fn has_ended(&self, batch: &Appended) -> bool {
        self.current_txn_first_offset
            .is_none_or(|first| batch.last_offset < first)
    }

    fn active(&self, producer_id: i64) -> ActiveProducer {
        ActiveProducer {
            producer_id,
            epoch: self.epoch,
            last_sequence: self.last_sequence(),
            last_append_ms: self.last_append_ms,
            coordinator_epoch: self.coordinator_epoch,
            current_txn_first_offset: self.current_txn_first_offset,
        }
    }

    fn check_epoch(&self, producer_id: i64, found: i16) -> Result<()> {
        let newest = self.epoch;
        if found >= newest {
            return Ok(());
        }
        Err(Error::StaleProducerEpoch {
            producer_id,
            newest,
            found,
        })
    }

    /// Takes in a control batch; where the transaction begins that it has ended. One that cannot be
    /// read ends none.
    fn ends_with(&mut self, batch: &Batch<'_>) -> Option<Ended> {
        let result = match ControlRecord::of(batch).ok()? {
            ControlRecord::End {
                result,
                coordinator_epoch,
            } => {
                self.coordinator_epoch = coordinator_epoch.unwrap_or(self.coordinator_epoch);
                Some(result)
            }
            ControlRecord::Emptied => None,
            ControlRecord::Other => return None,
        };
        let offset = self.current_txn_first_offset.take()?;
        let is_aborted = result == Some(TransactionResult::Abort);
        Some(Ended { offset, is_aborted })
    }

    fn last(&self) -> Option<&Appended> {
        self.batches[..self.kept].last()
    }

    fn last_sequence(&self) -> i32 {
        self.last().map_or(NONE as i32, |last| last.last_sequence)
    }

    fn duplicate_of(&self, first_sequence: i32, last_sequence: i32) -> Option<&Appended> {
        self.batches[..self.kept].iter().find(|kept| {
            kept.base_sequence() == first_sequence && kept.last_sequence == last_sequence
        })
    }

    fn keep(&mut self, batch: Appended) {
        if self.kept == BATCHES_KEPT {
            self.batches.rotate_left(1);
            self.kept -= 1;
        }
        self.batches[self.kept] = batch;
        self.kept += 1;
    }
}

/// What is known of one producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ActiveProducer {
    /// The producer.
    pub producer_id: i64,
    /// Its newest epoch.
    pub epoch: i16,
    /// The last sequence that it has appended; -1 where none is known.
    pub last_sequence: i32,
    /// The broker's clock at its last append, milliseconds since the epoch.
    pub last_append_ms: i64,
    /// Of the coordinator that ended its last transaction; -1 where there was none.
    pub coordinator_epoch: i32,
    /// Where its open transaction begins.
    pub current_txn_first_offset: Option<Offset>,
}

/// A transaction that was aborted, in one partition. What a read_committed reader needs to leave it
/// out: the producer's batches from the first offset on are not for it, until the producer's marker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AbortedTransaction {
    /// The producer.
    pub producer_id: i64,
    /// Where its transaction begins.
    pub first_offset: Offset,
    /// Where its marker is.
    pub last_offset: Offset,
    /// Behind the marker, what was stable then: transactions that were aborted later begin there, or
    /// behind.
    pub last_stable_offset: Offset,
}

/// The producers of one partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProducerState {
    producers: HashMap<i64, Producer>,
    /// Where each open transaction begins, and its producer.
    open: BTreeSet<(Offset, i64)>,
}

impl ProducerState {
    /// No producer is known.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many producers are known.
    pub fn len(&self) -> usize {
        self.producers.len()
    }

    /// No producer is known.
    pub fn is_empty(&self) -> bool {
        self.producers.is_empty()
    }

    /// Whether `batch`, as a client sent it, is to be appended. One without a producer always is.
    ///
    /// `StaleProducerEpoch` where a newer epoch has appended, `OutOfOrderSequence` where the batch
    /// neither follows the last one nor repeats one of the last five.
    pub fn check(&self, batch: &Batch<'_>) -> Result<Decision> {
        let (producer_id, epoch) = (batch.producer_id(), batch.producer_epoch());
        if producer_id < 0 {
            return Ok(Decision::New);
        }
        let Some(producer) = self.producers.get(&producer_id) else {
            return Ok(Decision::New);
        };
        producer.check_epoch(producer_id, epoch)?;
        // Nothing of a new epoch has been appended, so that its first sequence is 0.
        let mut last = NONE as i32;
        let first = batch.base_sequence();
        if epoch == producer.epoch {
            if let Some(earlier) = producer.duplicate_of(first, batch.last_sequence())
                && !(batch.is_transactional() && producer.has_ended(earlier))
            {
                return Ok(Decision::Duplicate {
                    base_offset: earlier.base_offset(),
                    last_offset: earlier.last_offset,
                    append_time_ms: earlier.append_time_ms,
                });
            }
            last = producer.last_sequence();
        }
        if first != add_to_sequence(last, 1) {
            return Err(Error::OutOfOrderSequence {
                producer_id,
                last,
                found: first,
            });
        }
        match producer.current_txn_first_offset {
            Some(first_offset) if !batch.is_transactional() => Err(Error::TransactionIsOpen {
                producer_id,
                first_offset,
            }),
            _ => Ok(Decision::New),
        }
    }

    /// Whether a transaction's batch of the broker's own may be appended, which has no sequence: a
    /// commit of offsets.
    pub fn check_unsequenced(&self, batch: &Batch<'_>) -> Result<()> {
        let producer_id = batch.producer_id();
        match self.producers.get(&producer_id) {
            Some(producer) => producer.check_epoch(producer_id, batch.producer_epoch()),
            None => Ok(()),
        }
    }

    /// Whether a transaction may be ended so.
    pub fn check_marker(&self, marker: &EndMarker) -> Result<()> {
        let producer_id = marker.producer_id;
        let Some(producer) = self.producers.get(&producer_id) else {
            return Ok(());
        };
        producer.check_epoch(producer_id, marker.producer_epoch)?;
        let (newest, found) = (producer.coordinator_epoch, marker.coordinator_epoch);
        if found < newest {
            return Err(Error::StaleCoordinatorEpoch {
                producer_id,
                newest,
                found,
            });
        }
        Ok(())
    }

    /// Remembers that `batch` was appended at `base_offset`; `append_time_ms` is the broker's
    /// clock. To be called for every batch, in the order of the log, and while the log's tail is
    /// replayed too, where nothing was checked. Of others than control batches only the header is
    /// looked at. Returns the transaction that it has aborted, where it has.
    pub fn update(
        &mut self,
        batch: &Batch<'_>,
        base_offset: Offset,
        append_time_ms: i64,
    ) -> Option<AbortedTransaction> {
        let producer_id = batch.producer_id();
        if producer_id < 0 {
            return None;
        }
        let epoch = batch.producer_epoch();
        let producer = self
            .producers
            .entry(producer_id)
            .or_insert_with(|| Producer::new(epoch, append_time_ms));
        if producer.epoch != epoch {
            producer.epoch = epoch;
            producer.kept = 0;
            producer.last_change = Some(base_offset);
        }
        producer.last_append_ms = append_time_ms;
        // A transaction's marker has a producer and, since KIP-890, the epoch that its next
        // transaction will have, but no sequence.
        if batch.is_control() {
            producer.last_change = Some(base_offset);
            let ended = producer.ends_with(batch)?;
            self.open.remove(&(ended.offset, producer_id));
            let next = base_offset.saturating_add(1);
            return ended.is_aborted.then(|| AbortedTransaction {
                producer_id,
                first_offset: ended.offset,
                last_offset: base_offset,
                last_stable_offset: self.first_open_transaction().unwrap_or(next),
            });
        }
        if batch.is_transactional() && producer.current_txn_first_offset.is_none() {
            producer.current_txn_first_offset = Some(base_offset);
            self.open.insert((base_offset, producer_id));
        }
        // The broker's own batches have none.
        if batch.base_sequence() < 0 {
            return None;
        }
        let offset_delta = batch.last_offset_delta();
        producer.keep(Appended {
            last_sequence: batch.last_sequence(),
            last_offset: base_offset.saturating_add(i64::from(offset_delta)),
            offset_delta,
            append_time_ms,
        });
        None
    }

    /// Where the first transaction begins that has not ended.
    pub fn first_open_transaction(&self) -> Option<Offset> {
        self.open.first().map(|(first, _)| *first)
    }

    /// Forgets the producers whose last append was `producer_id_expiration_ms` ago or earlier, but
    /// none with an open transaction. Returns how many.
    pub fn remove_expired(&mut self, now_ms: i64, producer_id_expiration_ms: i64) -> usize {
        let before = self.producers.len();
        self.producers.retain(|_, producer| {
            producer.current_txn_first_offset.is_some()
                || now_ms.saturating_sub(producer.last_append_ms) < producer_id_expiration_ms
        });
        before - self.producers.len()
    }

    /// Every producer, by id.
    pub fn active(&self) -> Vec<ActiveProducer> {
        let producers = self.producers.iter();
        let mut active: Vec<_> = producers.map(|(id, it)| it.active(*id)).collect();
        active.sort_unstable_by_key(|producer| producer.producer_id);
        active
    }

    /// The producers that have a transaction open, in the order in which those were begun.
    pub fn with_open_transaction(&self) -> Vec<ActiveProducer> {
        let open = self.open.iter();
        open.filter_map(|(_, id)| self.producers.get(id).map(|it| it.active(*id)))
            .collect()
    }

    /// When a producer last appended, milliseconds since the epoch; `None` where none is known.
    pub fn last_append_ms(&self) -> Option<i64> {
        self.producers
            .values()
            .map(|producer| producer.last_append_ms)
            .max()
    }

    /// The log was cut off at `end`: forgets the batches from there on. False where of some producer
    /// nothing is left that is known, though there may be earlier batches of it.
    pub fn cut(&mut self, end: Offset) -> bool {
        let mut known = true;
        for producer in self.producers.values_mut() {
            let before = producer.kept;
            let kept = producer.batches[..before].iter();
            producer.kept = kept.take_while(|batch| batch.last_offset < end).count();
            let transaction = producer.current_txn_first_offset;
            known &= producer.kept > 0 || before == 0;
            known &= transaction.is_none_or(|first| first < end);
            // What a marker has ended is open again, and the epoch is what it was.
            known &= producer.last_change.is_none_or(|change| change < end);
        }
        known
    }

    /// Takes the producers of another state that are unknown here.
    pub fn add_missing(&mut self, other: Self) {
        for (producer_id, producer) in other.producers {
            let transaction = producer.current_txn_first_offset;
            if let Entry::Vacant(entry) = self.producers.entry(producer_id) {
                entry.insert(producer);
                self.open
                    .extend(transaction.map(|first| (first, producer_id)));
            }
        }
    }

    /// Takes, of producers whose last batch alone is known, those before it from a state that has seen
    /// them.
    pub fn take_batches(&mut self, seen: Self) {
        for (producer_id, seen) in seen.producers {
            let Some(producer) = self.producers.get_mut(&producer_id) else {
                continue;
            };
            let last = |producer: &Producer| {
                let last = producer.last()?;
                Some((last.last_offset, last.last_sequence))
            };
            if producer.epoch == seen.epoch && last(producer) == last(&seen) {
                (producer.batches, producer.kept) = (seen.batches, seen.kept);
            }
        }
    }
}
