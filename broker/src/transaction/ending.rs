//! The end of a transaction: from its data's sync to the last marker. See the module's header for the
//! order in which records reach the device.
//!
//! What is decided is carried out by a task of its own, whatever becomes of the client: where a marker
//! cannot be written, because the disk is full, it is tried again until it can.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use kafka_protocol::ResponseError;
use storage::batch::{EndMarker, TransactionResult};
use storage::partition_log::Durability;
use storage::{Error, Offset, PartitionLog};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::coordinator::{LONGEST_WAIT, Slot, TransactionCoordinator, code, lock, log_failure};
use super::machine::{End, Ending, Phase, Producer, Refusal, TopicPartition, Transaction};
use crate::coordinator_log::Written;
use crate::group::offsets_topic::OFFSETS_TOPIC;

/// How soon what could not be written is tried again.
const TRY_AGAIN: Duration = Duration::from_millis(500);

type Answer = oneshot::Sender<Result<Producer, ResponseError>>;

/// What a step of an end has come to.
enum Step {
    Done(Producer),
    /// The answer comes when it is decided.
    Begun(oneshot::Receiver<Result<Producer, ResponseError>>),
}

impl TransactionCoordinator {
    /// Ends a producer's transaction. It is decided, on the device, when this returns; its markers are
    /// under way. Returns who the producer is from now on.
    pub async fn end(
        self: &Arc<Self>,
        transactional_id: &str,
        end: End,
    ) -> Result<Producer, ResponseError> {
        super::coordinator::check_id(transactional_id)?;
        let deadline = Instant::now() + LONGEST_WAIT;
        let mut fresh = None;
        let step = loop {
            let step = |this: &Arc<Self>| this.begin_end(transactional_id, end, fresh);
            match self.when_free(transactional_id, deadline, step).await {
                Err(Refusal::NeedsProducerId) => fresh = Some(self.new_producer_id().await?),
                step => break step.map_err(code)?,
            }
        };
        match step {
            Step::Done(producer) => Ok(producer),
            Step::Begun(answer) => answer
                .await
                .unwrap_or(Err(ResponseError::CoordinatorNotAvailable)),
        }
    }

    fn begin_end(
        self: &Arc<Self>,
        transactional_id: &str,
        end: End,
        fresh: Option<i64>,
    ) -> Result<Step, Refusal> {
        let shared = self.known(transactional_id)?;
        let mut slot = lock(&shared);
        let written = match slot.machine.end(self.clock.now_ms(), end, fresh)? {
            Ending::Done(producer) => return Ok(Step::Done(producer)),
            Ending::SyncFirst(next) => {
                self.set(&mut slot, next);
                None
            }
            Ending::Decide(next) => Some(self.store(transactional_id, &mut slot, next)?),
        };
        drop(slot);
        let (sender, receiver) = oneshot::channel();
        match written {
            Some(written) => self.carry_out(transactional_id, &shared, written, Some(sender)),
            None => {
                let this = Arc::clone(self);
                let id = transactional_id.to_owned();
                tokio::spawn(async move { this.commit(id, shared, sender).await });
            }
        }
        Ok(Step::Begun(receiver))
    }

    /// Puts a commit's data on the device, and decides it.
    async fn commit(
        self: Arc<Self>,
        transactional_id: String,
        shared: Arc<Mutex<Slot>>,
        answer: Answer,
    ) {
        let partitions = lock(&shared).machine.stored.partitions.clone();
        let synced = self.sync(&partitions).await;
        let decided = {
            let mut slot = lock(&shared);
            let now_ms = self.clock.now_ms();
            let next = match &synced {
                Ok(()) => slot.machine.synced(now_ms),
                Err(error) => {
                    tracing::error!(
                        transactional_id, %error,
                        "a transaction's data is not on the disk: it is aborted instead of committed"
                    );
                    slot.machine.sync_failed(now_ms)
                }
            };
            let decided = self.store(&transactional_id, &mut slot, next);
            if decided.is_err() {
                let before = slot.machine.not_decided();
                self.set(&mut slot, before);
                slot.ended.notify_waiters();
            }
            decided
        };
        let sync_failed = synced.is_err();
        match decided {
            Err(refusal) => {
                let _ = answer.send(Err(code(refusal)));
            }
            Ok(written) if sync_failed => {
                self.carry_out(&transactional_id, &shared, written, None);
                // Who knows it aborts, and begins again.
                let _ = answer.send(Err(ResponseError::TransactionAbortable));
            }
            Ok(written) => self.carry_out(&transactional_id, &shared, written, Some(answer)),
        }
    }

    /// Puts all that is in these partitions on the device.
    async fn sync(&self, partitions: &BTreeSet<TopicPartition>) -> storage::Result<()> {
        let logs = partitions.iter().filter_map(|it| self.log(it));
        let waits = logs.map(|log| {
            let end = log.offsets().log_end_offset;
            log.wait(end, Durability::Disk)
        });
        for synced in join_all(waits.collect::<Vec<_>>()).await {
            match synced {
                // The topic was deleted.
                Ok(()) | Err(Error::Closed) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn log(&self, (topic, partition): &TopicPartition) -> Option<Arc<PartitionLog>> {
        let topic = self.catalog.topic(topic)?;
        let partition = usize::try_from(*partition).ok()?;
        topic.partitions.get(partition).cloned()
    }

    /// Carries out what is decided, by a task of its own. `answer` is told when the decision, `written`,
    /// is on the device.
    pub(super) fn carry_out(
        self: &Arc<Self>,
        transactional_id: &str,
        shared: &Arc<Mutex<Slot>>,
        written: Written,
        answer: Option<Answer>,
    ) {
        let (this, shared) = (Arc::clone(self), Arc::clone(shared));
        let transactional_id = transactional_id.to_owned();
        tokio::spawn(async move {
            if let Err(error) = written.wait().await {
                // Nobody knows: the next start finds out.
                log_failure(
                    &transactional_id,
                    &error,
                    "a transaction's end is not durable",
                );
                if let Some(answer) = answer {
                    let _ = answer.send(Err(error.code()));
                }
                return;
            }
            if let Some(answer) = answer {
                let producer = lock(&shared).machine.after_end();
                // Nobody waits where the connection is gone.
                let _ = answer.send(Ok(producer));
            }
            this.complete(&transactional_id, &shared).await;
        });
    }

    /// Writes the markers of what is decided, and that it is done.
    pub(super) async fn complete(
        self: &Arc<Self>,
        transactional_id: &str,
        shared: &Arc<Mutex<Slot>>,
    ) {
        let (marker, mut left) = {
            let slot = lock(shared);
            let marker = slot.machine.marker(self.coordinator_epoch);
            debug_assert_eq!(slot.machine.phase, Phase::Marking);
            (marker, slot.machine.stored.partitions.clone())
        };
        let Some(marker) = marker else { return };
        let mut is_said = false;
        while let Err(error) = self.mark(&marker, &mut left).await {
            // Closed: the broker stops.
            if !is_said && !matches!(error, Error::Closed) {
                tracing::error!(
                    transactional_id, %error,
                    "a transaction's end cannot be written to its partitions: it is tried again"
                );
            }
            is_said = true;
            tokio::time::sleep(TRY_AGAIN).await;
        }
        let next = lock(shared).machine.completed(self.clock.now_ms());
        while let Err(refusal) = self.write_complete(transactional_id, &next).await {
            tracing::debug!(
                transactional_id,
                ?refusal,
                "a transaction's end is tried again"
            );
            tokio::time::sleep(TRY_AGAIN).await;
        }
        let result = match marker.result {
            TransactionResult::Commit => "commit",
            TransactionResult::Abort => "abort",
        };
        metrics::counter!("milena_transactions_total", "result" => result).increment(1);
        let mut slot = lock(shared);
        self.set(&mut slot, next);
        slot.ended.notify_waiters();
    }

    async fn write_complete(
        &self,
        transactional_id: &str,
        next: &Transaction,
    ) -> Result<(), Refusal> {
        let written = self.append(transactional_id, Some(next))?;
        written
            .wait()
            .await
            .map_err(|error| Refusal::Error(error.code()))
    }

    /// Writes a marker to each partition that is `left`, all on the device when this returns. What is done is
    /// left no longer.
    async fn mark(
        self: &Arc<Self>,
        marker: &EndMarker,
        left: &mut BTreeSet<TopicPartition>,
    ) -> storage::Result<()> {
        let mut failed = None;
        let mut waits = Vec::new();
        for partition in left.iter() {
            match self.mark_one(marker, partition) {
                Ok(None) => waits.push((partition.clone(), None)),
                Ok(Some((log, end))) => {
                    let wait = log.wait(end, Durability::Disk);
                    waits.push((partition.clone(), Some(wait)));
                }
                Err(error) => failed = Some(error),
            }
        }
        let waits = waits.into_iter().map(|(partition, wait)| async move {
            let durable = match wait {
                Some(wait) => wait.await,
                None => Ok(()),
            };
            (partition, durable)
        });
        for (partition, durable) in join_all(waits).await {
            match durable {
                Ok(()) => drop(left.remove(&partition)),
                Err(Error::Closed) if self.log(&partition).is_none() => {
                    left.remove(&partition);
                }
                Err(error) => failed = Some(error),
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// Appends a marker; `None` where there is no such partition any more, or another producer of that id
    /// is there.
    pub(super) fn mark_one(
        self: &Arc<Self>,
        marker: &EndMarker,
        partition: &TopicPartition,
    ) -> storage::Result<Option<(Arc<PartitionLog>, Offset)>> {
        let Some(log) = self.log(partition) else {
            return Ok(None);
        };
        let appended = match log.append_marker(marker) {
            Ok(appended) => appended,
            // Or the broker stops, and the next start goes on.
            Err(Error::Closed) if self.log(partition).is_none() => return Ok(None),
            Err(error @ Error::StaleProducerEpoch { .. }) => {
                let (topic, partition) = partition;
                tracing::warn!(topic, partition, %error, "a transaction has ended there before");
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        if partition.0 == OFFSETS_TOPIC {
            let committed = marker.result == TransactionResult::Commit;
            self.groups
                .transaction_ended(partition.1, marker.producer_id, committed);
        }
        Ok(Some((log, appended.end)))
    }
}
