//! One transactional id: what its producer may do, and what comes next. Pure: no clock, no log, no
//! sockets; a step looks at the present state and gives the next one, which counts once it is written.
//!
//! ```text
//!           add                end (commit) · data on the device      markers on the device
//!  Empty ─────────► Ongoing ─────────────────────────► PrepareCommit ───────► CompleteCommit
//!                      │      end (abort), fence, timeout                            │
//!                      └─────────────────────────────► PrepareAbort ────────► CompleteAbort
//! ```
//!
//! From both Complete states another `add` leads to Ongoing. As Kafka's `TransactionMetadata` and
//! `TransactionCoordinator` have it, and clients rely on:
//!
//! - InitProducerId raises the epoch, so that whoever had the id before is fenced. Where a transaction is
//!   open it is aborted first, under an epoch that nobody is ever given; a producer that names its own
//!   id and epoch goes on with the next epoch (KIP-360), unless another was there since.
//! - Under transactions of version 2 (KIP-890) each end raises the epoch, and its markers have the new one:
//!   what is late of a transaction can neither join nor end the next. An answer that was lost is given
//!   again. An abort needs no transaction.
//! - Of the epochs of a producer id, 32,766 is the last that producers are given; then comes another id.
//! - A step that has to wait for another to be done is [`Refusal::Concurrent`].
//!
//! A commit has its transaction's data put on the device before it is decided ([`Phase::Syncing`]), whatever
//! durability the topics have: a transaction that is committed is there as a whole after a power cut.

use std::collections::BTreeSet;

use kafka_protocol::ResponseError;
use storage::batch::{EndMarker, TransactionResult};

use super::records::{State, TransactionVersion, TransactionalIdState};

/// No producer id, no epoch, no time.
pub const NONE: i16 = -1;
/// The last epoch that a producer is given. The one after it is for fencing it.
const LAST_EPOCH: i16 = i16::MAX - 1;

/// A topic's name and a partition.
pub type TopicPartition = (String, i32);

/// A producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Producer {
    /// Its id.
    pub id: i64,
    /// Its epoch.
    pub epoch: i16,
}

/// Why a step is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It is not allowed, and this is the answer.
    Error(ResponseError),
    /// The transaction is being ended: another time. Kafka answers CONCURRENT_TRANSACTIONS.
    Concurrent,
    /// Another producer id is needed for it.
    NeedsProducerId,
}

impl From<ResponseError> for Refusal {
    fn from(error: ResponseError) -> Self {
        Self::Error(error)
    }
}

/// How far the end of a transaction has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// None is under way.
    Idle,
    /// Its data is put on the device; nothing is decided.
    Syncing,
    /// It is decided, and its markers are to be written.
    Marking,
}

/// A producer that introduces itself.
#[derive(Clone, Copy, Debug)]
pub struct Init {
    /// `transaction.timeout.ms`.
    pub timeout_ms: i32,
    /// Who it was until now, where it goes on after an error.
    pub expected: Option<Producer>,
}

/// What becomes of an InitProducerId.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Initialized {
    /// The producer, once the next state is on the device.
    As(Transaction),
    /// A transaction is open: the next state aborts it, and then it is to be asked again.
    AbortFirst(Transaction),
}

/// How a producer ends its transaction.
#[derive(Clone, Copy, Debug)]
pub struct End {
    /// Who.
    pub producer: Producer,
    /// How.
    pub result: TransactionResult,
    /// By the version of the request.
    pub version: TransactionVersion,
}

/// What becomes of an EndTxn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It was done before: the answer is given again.
    Done(Producer),
    /// Its partitions are to be put on the device first; the next state, which is not written, waits for
    /// that: then [`Transaction::synced`].
    SyncFirst(Transaction),
    /// It is decided once the next state is on the device.
    Decide(Transaction),
}

/// One transactional id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// What is written of it.
    pub stored: TransactionalIdState,
    /// The epoch before the last step that has raised it for its own producer; -1 where another may have
    /// come since. Not written, as in Kafka.
    last_epoch: i16,
    /// How far an end has come.
    pub phase: Phase,
    /// What [`Phase::Syncing`] is for.
    version_of_end: TransactionVersion,
}

impl Transaction {
    /// An id that is new, for which `producer_id` was reserved.
    pub fn new(producer_id: i64, now_ms: i64) -> Self {
        Self::restore(TransactionalIdState {
            producer_id,
            previous_producer_id: i64::from(NONE),
            next_producer_id: i64::from(NONE),
            producer_epoch: NONE,
            timeout_ms: 0,
            state: State::Empty,
            partitions: BTreeSet::new(),
            last_update_ms: now_ms,
            start_ms: i64::from(NONE),
            version: TransactionVersion::V0,
        })
    }

    /// As it was written last.
    pub fn restore(stored: TransactionalIdState) -> Self {
        let phase = match stored.state {
            State::PrepareCommit | State::PrepareAbort => Phase::Marking,
            _ => Phase::Idle,
        };
        Self {
            version_of_end: stored.version,
            stored,
            last_epoch: NONE,
            phase,
        }
    }

    /// Who may go on with it.
    pub fn producer(&self) -> Producer {
        Producer {
            id: self.stored.producer_id,
            epoch: self.stored.producer_epoch,
        }
    }

    /// A producer introduces itself. `fresh` is a producer id that was reserved, where it is needed.
    pub fn init(
        &self,
        now_ms: i64,
        init: Init,
        fresh: Option<i64>,
    ) -> Result<Initialized, Refusal> {
        let stored = &self.stored;
        if self.phase != Phase::Idle {
            return Err(Refusal::Concurrent);
        }
        if init.expected.is_some_and(|expected| !self.may_be(expected)) {
            return Err(ResponseError::ProducerFenced.into());
        }
        if stored.state == State::Ongoing {
            return Ok(Initialized::AbortFirst(self.fenced(now_ms)));
        }
        let expected = init.expected.map(|producer| producer.epoch);
        let mut next = self.clone();
        let is_exhausted = stored.producer_epoch >= LAST_EPOCH;
        if is_exhausted && expected.is_none_or(|epoch| epoch == stored.producer_epoch) {
            next.stored.previous_producer_id = stored.producer_id;
            next.stored.producer_id = fresh.ok_or(Refusal::NeedsProducerId)?;
            next.stored.producer_epoch = 0;
            next.last_epoch = expected.map_or(NONE, |_| stored.producer_epoch);
        } else {
            (next.stored.producer_epoch, next.last_epoch) = self.raised(expected)?;
            next.stored.previous_producer_id = stored.producer_id;
        }
        next.stored.state = State::Empty;
        next.stored.timeout_ms = init.timeout_ms;
        next.stored.partitions.clear();
        next.stored.start_ms = i64::from(NONE);
        next.stored.last_update_ms = now_ms;
        next.stored.version = TransactionVersion::V0;
        Ok(Initialized::As(next))
    }

    /// A producer that says who it was may be the one that has this id: its epoch is looked at later.
    fn may_be(&self, expected: Producer) -> bool {
        let stored = &self.stored;
        let is_retry_after_last = expected.id == stored.previous_producer_id
            && expected.epoch >= LAST_EPOCH
            && stored.previous_producer_id != i64::from(NONE);
        stored.producer_epoch == NONE || expected.id == stored.producer_id || is_retry_after_last
    }

    /// The next epoch, and the one before it.
    fn raised(&self, expected: Option<i16>) -> Result<(i16, i16), Refusal> {
        let epoch = self.stored.producer_epoch;
        match expected {
            // Whoever was there before is fenced from now on, and does not get on by asking.
            None => Ok((epoch.saturating_add(1), NONE)),
            Some(expected) if epoch == NONE || expected == epoch => {
                Ok((epoch.saturating_add(1), epoch))
            }
            // Its last answer was lost.
            Some(expected) if expected == self.last_epoch && expected != NONE => {
                Ok((epoch, self.last_epoch))
            }
            Some(_) => Err(ResponseError::ProducerFenced.into()),
        }
    }

    /// Adds partitions to the open transaction, or begins one. `None` where there is nothing to write.
    pub fn add(
        &self,
        now_ms: i64,
        producer: Producer,
        partitions: &[TopicPartition],
        version: TransactionVersion,
    ) -> Result<Option<Self>, Refusal> {
        self.check_producer(producer)?;
        let stored = &self.stored;
        let is_open = stored.state == State::Ongoing;
        if is_open && partitions.iter().all(|it| stored.partitions.contains(it)) {
            return Ok(None);
        }
        let mut next = self.clone();
        next.stored.partitions.extend(partitions.iter().cloned());
        if !is_open {
            next.stored.start_ms = now_ms;
        }
        next.stored.state = State::Ongoing;
        next.stored.last_update_ms = now_ms;
        next.stored.version = version;
        Ok(Some(next))
    }

    /// Whether a batch for a partition is part of the open transaction.
    pub fn verify(&self, producer: Producer, partition: &TopicPartition) -> Result<(), Refusal> {
        self.check_producer(producer)?;
        let stored = &self.stored;
        match stored.state == State::Ongoing && stored.partitions.contains(partition) {
            true => Ok(()),
            false => Err(ResponseError::TransactionAbortable.into()),
        }
    }

    fn check_producer(&self, producer: Producer) -> Result<(), Refusal> {
        if self.stored.producer_id != producer.id {
            return Err(ResponseError::InvalidProducerIdMapping.into());
        }
        if self.stored.producer_epoch != producer.epoch {
            // Under version 2 the epoch is raised before the last one's end is answered.
            return Err(ResponseError::ProducerFenced.into());
        }
        match self.phase {
            Phase::Idle => Ok(()),
            Phase::Syncing | Phase::Marking => Err(Refusal::Concurrent),
        }
    }

    /// A producer ends its transaction. `fresh` as in [`Transaction::init`].
    pub fn end(&self, now_ms: i64, end: End, fresh: Option<i64>) -> Result<Ending, Refusal> {
        let (stored, producer) = (&self.stored, end.producer);
        let by_v2 = stored.version.raises_epoch();
        let is_retry = by_v2 && self.is_retry(producer);
        let has_id = stored.producer_id == producer.id || is_retry;
        if !has_id {
            return Err(ResponseError::InvalidProducerIdMapping.into());
        }
        let is_current = self.producer() == producer;
        let is_valid = match stored.state {
            State::PrepareCommit
            | State::PrepareAbort
            | State::CompleteCommit
            | State::CompleteAbort
                if by_v2 =>
            {
                is_retry || is_current
            }
            _ => is_current,
        };
        if !is_valid {
            return Err(ResponseError::ProducerFenced.into());
        }
        let invalid = Err(ResponseError::InvalidTxnState.into());
        let commit = end.result == TransactionResult::Commit;
        match stored.state {
            State::Ongoing if self.phase != Phase::Idle => Err(Refusal::Concurrent),
            State::Ongoing => self.decide(now_ms, end, fresh),
            // Its next transaction's end: the answer to this one's has come before the markers.
            State::PrepareCommit | State::PrepareAbort if by_v2 && !is_retry => {
                Err(Refusal::Concurrent)
            }
            State::PrepareCommit | State::PrepareAbort => {
                match commit == (stored.state == State::PrepareCommit) {
                    true => Err(Refusal::Concurrent),
                    false => invalid,
                }
            }
            State::CompleteCommit | State::CompleteAbort if !by_v2 || is_retry || commit => {
                let is_same = commit == (stored.state == State::CompleteCommit);
                match is_same && (!by_v2 || is_retry) {
                    true if stored.producer_epoch == i16::MAX => {
                        Err(ResponseError::ProducerFenced.into())
                    }
                    true => Ok(Ending::Done(self.producer())),
                    false => invalid,
                }
            }
            // An abort of nothing raises the epoch too (KIP-890).
            State::CompleteCommit | State::CompleteAbort | State::Empty
                if !commit && end.version.raises_epoch() =>
            {
                self.decide(now_ms, end, fresh)
            }
            State::CompleteCommit | State::CompleteAbort | State::Empty => invalid,
        }
    }

    /// The answer to an end was lost: the epoch is the next one by now, or that of the next producer id.
    fn is_retry(&self, producer: Producer) -> bool {
        let stored = &self.stored;
        let raised = stored.producer_id == producer.id
            && producer.epoch.checked_add(1) == Some(stored.producer_epoch);
        let rotated = stored.previous_producer_id == producer.id
            && producer.epoch == LAST_EPOCH
            && stored.producer_epoch == 0;
        raised || rotated
    }

    fn decide(&self, now_ms: i64, end: End, fresh: Option<i64>) -> Result<Ending, Refusal> {
        let is_exhausted = self.stored.producer_epoch >= LAST_EPOCH;
        let mut next = self.clone();
        if end.version.raises_epoch() && is_exhausted {
            next.stored.next_producer_id = fresh.ok_or(Refusal::NeedsProducerId)?;
        }
        if end.result == TransactionResult::Commit {
            next.phase = Phase::Syncing;
            next.version_of_end = end.version;
            return Ok(Ending::SyncFirst(next));
        }
        Ok(Ending::Decide(next.decided(now_ms, end)))
    }

    fn decided(mut self, now_ms: i64, end: End) -> Self {
        let stored = &mut self.stored;
        if end.version.raises_epoch() {
            self.last_epoch = stored.producer_epoch;
            stored.producer_epoch = stored.producer_epoch.saturating_add(1);
        }
        stored.state = match end.result {
            TransactionResult::Commit => State::PrepareCommit,
            TransactionResult::Abort => State::PrepareAbort,
        };
        if stored.start_ms < 0 {
            stored.start_ms = now_ms;
        }
        stored.last_update_ms = now_ms;
        stored.version = end.version;
        self.phase = Phase::Marking;
        self
    }

    /// The data of a commit is on the device: the state that decides it.
    pub fn synced(&self, now_ms: i64) -> Self {
        let end = End {
            producer: self.producer(),
            result: TransactionResult::Commit,
            version: self.version_of_end,
        };
        self.clone().decided(now_ms, end)
    }

    /// The data of a commit cannot be put on the device: the state that aborts it instead.
    pub fn sync_failed(&self, now_ms: i64) -> Self {
        let end = End {
            producer: self.producer(),
            result: TransactionResult::Abort,
            version: self.version_of_end,
        };
        self.clone().decided(now_ms, end)
    }

    /// A commit was not decided after all; all is as before it.
    pub fn not_decided(&self) -> Self {
        let mut next = self.clone();
        next.phase = Phase::Idle;
        next.stored.next_producer_id = i64::from(NONE);
        next
    }

    /// Whose answer an end gets that was decided: under version 2, who the producer is from now on.
    pub fn after_end(&self) -> Producer {
        match self.stored.next_producer_id {
            id if id >= 0 => Producer { id, epoch: 0 },
            _ => self.producer(),
        }
    }

    /// The markers of an end that was decided, for each partition.
    pub fn marker(&self, coordinator_epoch: i32) -> Option<EndMarker> {
        let result = match self.stored.state {
            State::PrepareCommit => TransactionResult::Commit,
            State::PrepareAbort => TransactionResult::Abort,
            _ => return None,
        };
        Some(EndMarker {
            producer_id: self.stored.producer_id,
            producer_epoch: self.stored.producer_epoch,
            coordinator_epoch,
            result,
        })
    }

    /// All markers are on the device.
    pub fn completed(&self, now_ms: i64) -> Self {
        let mut next = self.clone();
        let stored = &mut next.stored;
        stored.state = match stored.state {
            State::PrepareCommit => State::CompleteCommit,
            _ => State::CompleteAbort,
        };
        if stored.next_producer_id >= 0 {
            stored.previous_producer_id = stored.producer_id;
            stored.producer_id = stored.next_producer_id;
            next.last_epoch = stored.producer_epoch;
            stored.producer_epoch = 0;
            stored.next_producer_id = i64::from(NONE);
        }
        stored.partitions.clear();
        stored.last_update_ms = now_ms;
        next.phase = Phase::Idle;
        next
    }

    /// When the open transaction has been open for too long, milliseconds since the epoch.
    pub fn times_out_at_ms(&self) -> Option<i64> {
        let is_open = self.stored.state == State::Ongoing && self.phase == Phase::Idle;
        let timeout_ms = i64::from(self.stored.timeout_ms);
        is_open.then(|| self.stored.start_ms.saturating_add(timeout_ms))
    }

    /// The state that aborts the open transaction where it has been open for too long.
    pub fn timed_out(&self, now_ms: i64) -> Option<Self> {
        let at_ms = self.times_out_at_ms()?;
        (at_ms <= now_ms).then(|| self.fenced(now_ms))
    }

    /// Aborts the open transaction under the next epoch, which no producer is given.
    fn fenced(&self, now_ms: i64) -> Self {
        let mut next = self.clone();
        next.last_epoch = NONE;
        next.stored.producer_epoch = self.stored.producer_epoch.saturating_add(1);
        next.stored.state = State::PrepareAbort;
        next.stored.last_update_ms = now_ms;
        next.phase = Phase::Marking;
        next
    }

    /// Nobody has used the id for `expiration_ms`, and no transaction is open.
    pub fn is_expired(&self, now_ms: i64, expiration_ms: i64) -> bool {
        let may_go = matches!(
            self.stored.state,
            State::Empty | State::CompleteCommit | State::CompleteAbort
        );
        may_go && now_ms.saturating_sub(self.stored.last_update_ms) >= expiration_ms
    }
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
