//! What a start finds of transactions, and resumes.
//!
//! 1. `__transaction_state` is put on the device, so that nothing is done for the sake of a record that a
//!    power cut may still take, and read.
//! 2. A transaction that is open in a partition and that no record names there is aborted in it, before
//!    clients can connect: its producer was never told that it was written.
//! 3. What was decided is carried out, while clients connect. Open transactions go on, or time out.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

use storage::batch::{EndMarker, TransactionResult, records};
use storage::partition_log::Durability;

use super::coordinator::{Slot, TransactionCoordinator, lock};
use super::machine::{Phase, Transaction};
use super::records::{State, TransactionalIdState, decode_key};
use super::{Limits, STATE_TOPIC, expiry};
use crate::catalog::{Catalog, Topic, TopicKind};
use crate::clock::Clock;
use crate::coordinator_log::{self, LogError, MAX_DECOMPRESSED_BYTES};
use crate::group::GroupCoordinator;
use crate::producer_ids::ProducerIds;

/// What the coordinator is made of.
#[derive(Debug)]
pub struct Parts {
    /// Topics.
    pub catalog: Arc<Catalog>,
    /// Groups, whose pending offsets are read.
    pub groups: Arc<GroupCoordinator>,
    /// Ids for producers.
    pub producer_ids: Arc<ProducerIds>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// What is configured.
    pub limits: Limits,
}

impl TransactionCoordinator {
    /// Reads every transactional id. To be called before clients can connect. Needs a tokio runtime with
    /// timers.
    pub async fn open(parts: Parts) -> Result<Arc<Self>, LogError> {
        let (mut states, mut coordinator_epoch) = (HashMap::new(), 0);
        if let Some(topic) = parts.catalog.topic(STATE_TOPIC) {
            sync(&topic).await?;
            let epochs = topic.partitions.iter().map(|log| log.leader_epoch());
            coordinator_epoch = epochs.max().unwrap_or(0);
            states = tokio::task::spawn_blocking(move || replay(&topic))
                .await
                .map_err(|_| LogError::Stopping)??;
        }
        let ids = states.into_iter().map(|(id, state)| {
            let slot = Slot::new(Transaction::restore(state));
            (id, Arc::new(Mutex::new(slot)))
        });
        let ids: HashMap<String, Arc<Mutex<Slot>>> = ids.collect();
        let coordinator = Arc::new(Self::new(
            parts.catalog,
            parts.groups,
            parts.producer_ids,
            parts.clock,
            parts.limits,
            coordinator_epoch,
            ids.clone(),
        ));
        coordinator.abort_unknown(&ids);
        let mut decided = 0;
        for (id, slot) in ids {
            if lock(&slot).machine.phase == Phase::Marking {
                decided += 1;
                let coordinator = Arc::clone(&coordinator);
                tokio::spawn(async move { coordinator.complete(&id, &slot).await });
            }
        }
        let transactional_ids = coordinator.ids.read().map_or(0, |ids| ids.len());
        if transactional_ids > 0 {
            let open = coordinator.open.load(std::sync::atomic::Ordering::Relaxed);
            tracing::info!(transactional_ids, open, decided, "transactions loaded");
        }
        expiry::spawn(&coordinator);
        Ok(coordinator)
    }

    /// Aborts what is open in a partition and has no record.
    fn abort_unknown(self: &Arc<Self>, ids: &HashMap<String, Arc<Mutex<Slot>>>) {
        let mut known = HashSet::new();
        for slot in ids.values() {
            let slot = lock(slot);
            let stored = &slot.machine.stored;
            let is_open = matches!(
                stored.state,
                State::Ongoing | State::PrepareCommit | State::PrepareAbort
            );
            if is_open {
                let partitions = stored.partitions.iter().cloned();
                known.extend(partitions.map(|partition| (stored.producer_id, partition)));
            }
        }
        let topics = self.catalog.topics();
        let may_have =
            |topic: &&Arc<Topic>| matches!(topic.kind, TopicKind::Ordinary | TopicKind::Internal);
        for topic in topics.iter().filter(may_have) {
            for (partition, log) in (0..).zip(topic.partitions.iter()) {
                for producer in log.open_transactions() {
                    let partition = (topic.name.clone(), partition);
                    let of = (producer.producer_id, partition);
                    if known.contains(&of) {
                        continue;
                    }
                    let (topic, partition) = (&topic.name, of.1.1);
                    let producer_id = producer.producer_id;
                    let first_offset = producer.current_txn_first_offset;
                    let marker = EndMarker {
                        producer_id,
                        producer_epoch: producer.epoch,
                        coordinator_epoch: self.coordinator_epoch.max(producer.coordinator_epoch),
                        result: TransactionResult::Abort,
                    };
                    match self.mark_one(&marker, &of.1) {
                        Ok(_) => tracing::warn!(
                            topic,
                            partition,
                            producer_id,
                            first_offset,
                            "aborted a transaction that was never acknowledged"
                        ),
                        Err(error) => tracing::error!(
                            topic, partition, producer_id, first_offset, %error,
                            "an unknown transaction stays open: readers of what is committed stop there"
                        ),
                    }
                }
            }
        }
    }
}

/// Puts the topic on the device.
async fn sync(topic: &Topic) -> Result<(), LogError> {
    for log in &topic.partitions {
        let end = log.offsets().log_end_offset;
        let synced = log.wait(end, Durability::Disk).await;
        synced.map_err(|error| LogError::Write {
            topic: STATE_TOPIC,
            error,
        })?;
    }
    Ok(())
}

/// Blocking. The newest state of each id.
fn replay(topic: &Topic) -> Result<HashMap<String, TransactionalIdState>, LogError> {
    let mut states = HashMap::new();
    coordinator_log::replay(topic, |_, batch, bytes| {
        if batch.is_control() {
            return Ok(());
        }
        for record in records::decode(&bytes, MAX_DECOMPRESSED_BYTES)? {
            let Some(key) = record.key else { continue };
            let state = record.value.as_deref().map(TransactionalIdState::decode);
            match (decode_key(&key), state.transpose()) {
                (Ok(Some(id)), Ok(Some(state))) => drop(states.insert(id, state)),
                (Ok(Some(id)), Ok(None)) => drop(states.remove(&id)),
                (Ok(None), Ok(_)) => {}
                (Err(error), _) | (_, Err(error)) => {
                    let offset = record.offset;
                    tracing::warn!(offset, %error, "a record of {STATE_TOPIC} is skipped");
                }
            }
        }
        Ok(())
    })?;
    Ok(states)
}
