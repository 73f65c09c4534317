//! The coordinator of every transactional id.
//!
//! Each id has one lock, held for a step of its machine, the append that makes the step last, and, for a
//! batch of the transaction, the append of that; nothing is awaited under it. A step that has to wait
//! for the end of a transaction waits here, for at most [`LONGEST_WAIT`], where Kafka would have the
//! client ask again.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use kafka_protocol::ResponseError;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use super::STATE_TOPIC;
use super::machine::{Init, Initialized, Phase, Producer, Refusal, TopicPartition, Transaction};
use super::records::{State, TransactionVersion, encode_key};
use crate::catalog::Catalog;
use crate::clock::Clock;
use crate::coordinator_log::fields::MAX_STRING_BYTES;
use crate::coordinator_log::{self, LogError, Place, Record, Written};
use crate::group::GroupCoordinator;
use crate::producer_ids::ProducerIds;

/// How long a request waits for the end of a transaction; then it is CONCURRENT_TRANSACTIONS. Far below
/// clients' request timeouts.
pub const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// What is configured.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// `transaction.state.log.num.partitions`.
    pub state_log_partitions: i32,
    /// `transaction.max.timeout.ms`.
    pub max_timeout_ms: i32,
    /// `transactional.id.expiration.ms`.
    pub expiration_ms: i64,
    /// `transaction.abort.timed.out.transaction.cleanup.interval.ms`.
    pub time_out_interval: Duration,
    /// `transaction.remove.expired.transaction.cleanup.interval.ms`.
    pub expiration_interval: Duration,
}

/// One transactional id.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) machine: Transaction,
    /// It has expired, and is out of the map.
    pub(super) is_gone: bool,
    /// The newest record that is about a transaction which is open.
    added: Option<Written>,
    /// Told when a transaction has ended.
    pub(super) ended: Arc<Notify>,
}

impl Slot {
    pub(super) fn new(machine: Transaction) -> Self {
        Self {
            machine,
            is_gone: false,
            added: None,
            ended: Arc::default(),
        }
    }
}

/// What is done in a transaction, and the record that names its partition, where that is not on the
/// device yet: wait for it before anything is acknowledged.
#[derive(Debug)]
pub struct InTransaction<T> {
    /// What was done.
    pub done: T,
    /// Not on the device yet.
    pub added: Option<Written>,
}

/// A partition that a producer writes to in its transaction.
#[derive(Clone, Debug)]
pub struct Write<'a> {
    /// Whose transaction.
    pub transactional_id: &'a str,
    /// Who.
    pub producer: Producer,
    /// Where.
    pub partition: TopicPartition,
    /// What it goes by: with version 2 writing adds the partition.
    pub version: TransactionVersion,
}

/// The coordinator of every transactional id.
#[derive(Debug)]
pub struct TransactionCoordinator {
    pub(super) catalog: Arc<Catalog>,
    pub(super) groups: Arc<GroupCoordinator>,
    pub(super) clock: Arc<dyn Clock>,
    producer_ids: Arc<ProducerIds>,
    pub(super) limits: Limits,
    /// Grows with every start that may have lost something.
    pub(super) coordinator_epoch: i32,
    pub(super) ids: RwLock<HashMap<String, Arc<Mutex<Slot>>>>,
    /// Transactions that are open.
    pub(super) open: AtomicUsize,
}

pub(super) fn lock(slot: &Mutex<Slot>) -> MutexGuard<'_, Slot> {
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A storage failure was said where it happened; what came of it is said here.
pub(super) fn log_failure(transactional_id: &str, error: &LogError, what: &'static str) {
    match error.is_said() {
        true => tracing::debug!(transactional_id, %error, "{what}"),
        false => tracing::error!(transactional_id, %error, "{what}"),
    }
}

impl TransactionCoordinator {
    pub(super) fn new(
        catalog: Arc<Catalog>,
        groups: Arc<GroupCoordinator>,
        producer_ids: Arc<ProducerIds>,
        clock: Arc<dyn Clock>,
        limits: Limits,
        coordinator_epoch: i32,
        ids: HashMap<String, Arc<Mutex<Slot>>>,
    ) -> Self {
        let is_open = |slot: &&Arc<Mutex<Slot>>| lock(slot).machine.stored.state == State::Ongoing;
        let open = ids.values().filter(is_open).count();
        Self {
            catalog,
            groups,
            clock,
            producer_ids,
            limits,
            coordinator_epoch,
            ids: RwLock::new(ids),
            open: AtomicUsize::new(open),
        }
    }

    /// Creates `__transaction_state` where it does not exist.
    pub async fn ensure_state_topic(&self) -> Result<(), LogError> {
        let partitions = self.limits.state_log_partitions;
        coordinator_log::ensure(&self.catalog, STATE_TOPIC, partitions).await?;
        Ok(())
    }

    /// A producer introduces itself; the answer is on the device. Whoever had the id is fenced, and its
    /// open transaction aborted.
    pub async fn init_producer_id(
        self: &Arc<Self>,
        transactional_id: &str,
        init: Init,
    ) -> Result<Producer, ResponseError> {
        if transactional_id.is_empty() || transactional_id.len() > MAX_STRING_BYTES {
            return Err(ResponseError::InvalidRequest);
        }
        if !(1..=self.limits.max_timeout_ms).contains(&init.timeout_ms) {
            return Err(ResponseError::InvalidTransactionTimeout);
        }
        if let Err(error) = self.ensure_state_topic().await {
            tracing::error!(transactional_id, %error, "a producer cannot be initialized");
            return Err(error.code());
        }
        let first_id = match self.slot(transactional_id) {
            Some(_) => None,
            None => Some(self.new_producer_id().await?),
        };
        let mut fresh = None;
        let step = |this: &Arc<Self>, fresh: Option<i64>| {
            let shared = match (this.slot(transactional_id), first_id) {
                (Some(slot), _) => slot,
                (None, Some(id)) => this.slot_or_new(transactional_id, id),
                // It has expired since it was looked for.
                (None, None) => return Err(Refusal::Concurrent),
            };
            let mut slot = lock(&shared);
            if slot.is_gone {
                return Err(Refusal::Concurrent);
            }
            match slot.machine.init(this.clock.now_ms(), init, fresh)? {
                Initialized::As(next) => {
                    let written = this.store(transactional_id, &mut slot, next)?;
                    Ok((slot.machine.producer(), written))
                }
                Initialized::AbortFirst(next) => {
                    let written = this.store(transactional_id, &mut slot, next)?;
                    this.carry_out(transactional_id, &shared, written, None);
                    Err(Refusal::Concurrent)
                }
            }
        };
        let deadline = Instant::now() + LONGEST_WAIT;
        let (producer, written) = loop {
            match self
                .when_free(transactional_id, deadline, |it| step(it, fresh))
                .await
            {
                Err(Refusal::NeedsProducerId) => fresh = Some(self.new_producer_id().await?),
                Err(refusal) => return Err(code(refusal)),
                Ok(initialized) => break initialized,
            }
        };
        written.wait().await.map_err(|error| {
            log_failure(
                transactional_id,
                &error,
                "a producer is not initialized durably",
            );
            error.code()
        })?;
        Ok(producer)
    }

    /// An id that was never given before.
    pub async fn new_producer_id(&self) -> Result<i64, ResponseError> {
        self.producer_ids.next().await.map_err(|error| {
            tracing::error!(%error, "no producer id could be reserved");
            // Clients try again later, without looking for a coordinator first.
            ResponseError::CoordinatorLoadInProgress
        })
    }

    /// Adds partitions to a producer's transaction, on the device when this returns.
    pub async fn add_partitions(
        self: &Arc<Self>,
        transactional_id: &str,
        producer: Producer,
        partitions: &[TopicPartition],
        version: TransactionVersion,
    ) -> Result<(), ResponseError> {
        check_id(transactional_id)?;
        let step = |this: &Arc<Self>| {
            let shared = this.known(transactional_id)?;
            let mut slot = lock(&shared);
            this.add(transactional_id, &mut slot, producer, partitions, version)
        };
        let deadline = Instant::now() + LONGEST_WAIT;
        let added = self.when_free(transactional_id, deadline, step).await;
        match added.map_err(code)? {
            None => Ok(()),
            Some(added) => added.wait().await.map_err(|error| {
                log_failure(transactional_id, &error, "a partition is not added durably");
                error.code()
            }),
        }
    }

    /// Whether a producer's transaction has these partitions: one result each.
    pub fn verify(
        &self,
        transactional_id: &str,
        producer: Producer,
        partitions: &[TopicPartition],
    ) -> Vec<Result<(), ResponseError>> {
        let slot =
            check_id(transactional_id).and_then(|()| self.known(transactional_id).map_err(code));
        let verify = |partition| match &slot {
            Ok(slot) => lock(slot).machine.verify(producer, partition).map_err(code),
            Err(error) => Err(*error),
        };
        partitions.iter().map(verify).collect()
    }

    /// Writes to a partition in a producer's transaction: `append` runs where the partition is part of it,
    /// and whatever ends the transaction comes after it.
    pub fn write<T>(
        &self,
        write: &Write<'_>,
        append: impl FnOnce() -> T,
    ) -> Result<InTransaction<T>, Refusal> {
        let transactional_id = write.transactional_id;
        let shared = self.known(transactional_id)?;
        let mut slot = lock(&shared);
        if write.version.raises_epoch() {
            let partitions = std::slice::from_ref(&write.partition);
            let (producer, version) = (write.producer, write.version);
            self.add(transactional_id, &mut slot, producer, partitions, version)?;
        } else {
            slot.machine.verify(write.producer, &write.partition)?;
        }
        let done = append();
        let added = slot.added.clone().filter(|added| !added.is_durable());
        Ok(InTransaction { done, added })
    }

    /// Whether no transaction of the id is being ended.
    pub fn is_free(&self, transactional_id: &str) -> Result<(), Refusal> {
        let shared = self.known(transactional_id)?;
        let is_free = lock(&shared).machine.phase == Phase::Idle;
        is_free.then_some(()).ok_or(Refusal::Concurrent)
    }

    fn add(
        &self,
        transactional_id: &str,
        slot: &mut Slot,
        producer: Producer,
        partitions: &[TopicPartition],
        version: TransactionVersion,
    ) -> Result<Option<Written>, Refusal> {
        if slot.is_gone {
            return Err(ResponseError::InvalidProducerIdMapping.into());
        }
        let now_ms = self.clock.now_ms();
        if let Some(next) = slot.machine.add(now_ms, producer, partitions, version)? {
            slot.added = Some(self.store(transactional_id, slot, next)?);
        }
        Ok(slot.added.clone())
    }

    /// Takes `step`; again after the transaction's end where it has to wait for that.
    pub async fn when_free<T>(
        self: &Arc<Self>,
        transactional_id: &str,
        deadline: Instant,
        mut step: impl FnMut(&Arc<Self>) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        loop {
            let ended = self
                .slot(transactional_id)
                .map(|slot| lock(&slot).ended.clone());
            let mut told = std::pin::pin!(ended.as_ref().map(|ended| ended.notified()));
            if let Some(told) = told.as_mut().as_pin_mut() {
                // Before the step: what ends after it is not missed.
                told.enable();
            }
            match step(self) {
                Err(Refusal::Concurrent) => {}
                taken => return taken,
            }
            let Some(told) = told.as_mut().as_pin_mut() else {
                return Err(Refusal::Concurrent);
            };
            if timeout_at(deadline, told).await.is_err() {
                return Err(Refusal::Concurrent);
            }
        }
    }

    /// The id, where a producer has introduced itself under it.
    pub(super) fn known(&self, transactional_id: &str) -> Result<Arc<Mutex<Slot>>, Refusal> {
        self.slot(transactional_id)
            .ok_or(Refusal::Error(ResponseError::InvalidProducerIdMapping))
    }

    pub(super) fn slot(&self, transactional_id: &str) -> Option<Arc<Mutex<Slot>>> {
        let ids = self.ids.read().unwrap_or_else(PoisonError::into_inner);
        ids.get(transactional_id).cloned()
    }

    fn slot_or_new(&self, transactional_id: &str, producer_id: i64) -> Arc<Mutex<Slot>> {
        let mut ids = self.ids.write().unwrap_or_else(PoisonError::into_inner);
        let slot = ids.entry(transactional_id.to_owned()).or_insert_with(|| {
            let machine = Transaction::new(producer_id, self.clock.now_ms());
            Arc::new(Mutex::new(Slot::new(machine)))
        });
        Arc::clone(slot)
    }

    /// Appends `next`, which counts from now on. Nothing has changed where that fails.
    pub(super) fn store(
        &self,
        transactional_id: &str,
        slot: &mut Slot,
        next: Transaction,
    ) -> Result<Written, Refusal> {
        let written = self.append(transactional_id, Some(&next))?;
        self.set(slot, next);
        Ok(written)
    }

    /// What is appended, or need not be, counts.
    pub(super) fn set(&self, slot: &mut Slot, next: Transaction) {
        let is_open = |machine: &Transaction| machine.stored.state == State::Ongoing;
        match (is_open(&slot.machine), is_open(&next)) {
            (false, true) => self.open.fetch_add(1, Ordering::Relaxed),
            (true, false) => self.open.fetch_sub(1, Ordering::Relaxed),
            _ => 0,
        };
        slot.machine = next;
    }

    /// Appends what there is of an id; nothing removes it.
    pub(super) fn append(
        &self,
        transactional_id: &str,
        state: Option<&Transaction>,
    ) -> Result<Written, Refusal> {
        let record = || -> Result<Record, coordinator_log::fields::RecordError> {
            let value = state.map(|state| state.stored.encode()).transpose()?;
            Ok((encode_key(transactional_id)?, value))
        };
        let place = Place {
            topic: STATE_TOPIC,
            key: transactional_id,
            timestamp_ms: self.clock.now_ms(),
        };
        let record = record().map_err(|error| {
            tracing::error!(transactional_id, %error, "a transaction's state cannot be written");
            ResponseError::UnknownServerError
        })?;
        coordinator_log::append(&self.catalog, place, &[record]).map_err(|error| {
            log_failure(
                transactional_id,
                &error,
                "a transaction's state cannot be written",
            );
            Refusal::Error(error.code())
        })
    }
}

/// A request's transactional id.
pub(super) fn check_id(transactional_id: &str) -> Result<(), ResponseError> {
    match transactional_id.is_empty() {
        true => Err(ResponseError::InvalidRequest),
        false => Ok(()),
    }
}

/// What a client is told.
pub fn code(refusal: Refusal) -> ResponseError {
    match refusal {
        Refusal::Error(error) => error,
        Refusal::Concurrent => ResponseError::ConcurrentTransactions,
        // Asked for by the caller, who then tries again.
        Refusal::NeedsProducerId => ResponseError::CoordinatorNotAvailable,
    }
}
