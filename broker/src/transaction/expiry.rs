//! Transactions that are open for too long are aborted; ids that nobody uses are forgotten.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::coordinator::{Slot, TransactionCoordinator, lock, log_failure};

impl TransactionCoordinator {
    pub(super) fn every_id(&self) -> Vec<(String, Arc<Mutex<Slot>>)> {
        let ids = self.ids.read().unwrap_or_else(PoisonError::into_inner);
        let every = ids.iter().map(|(id, slot)| (id.clone(), Arc::clone(slot)));
        every.collect()
    }

    /// Aborts the transactions whose timeout has passed.
    pub(super) fn abort_timed_out(self: &Arc<Self>) {
        if self.open.load(Ordering::Relaxed) == 0 {
            return;
        }
        for (transactional_id, shared) in self.every_id() {
            let mut slot = lock(&shared);
            let Some(next) = slot.machine.timed_out(self.clock.now_ms()) else {
                continue;
            };
            let timeout_ms = slot.machine.stored.timeout_ms;
            // A failure is logged; it is tried again.
            if let Ok(written) = self.store(&transactional_id, &mut slot, next) {
                tracing::info!(transactional_id, timeout_ms, "a transaction has timed out");
                metrics::counter!("milena_transactions_timed_out_total").increment(1);
                self.carry_out(&transactional_id, &shared, written, None);
            }
        }
    }

    /// Forgets the ids that have expired, each on the device before the next.
    pub(super) async fn remove_expired(self: &Arc<Self>) {
        for (transactional_id, shared) in self.every_id() {
            let written = {
                let mut slot = lock(&shared);
                let (now_ms, after_ms) = (self.clock.now_ms(), self.limits.expiration_ms);
                if slot.is_gone || !slot.machine.is_expired(now_ms, after_ms) {
                    continue;
                }
                // A failure is logged; it is tried again.
                let Ok(written) = self.append(&transactional_id, None) else {
                    continue;
                };
                slot.is_gone = true;
                let mut ids = self.ids.write().unwrap_or_else(PoisonError::into_inner);
                ids.remove(&transactional_id);
                written
            };
            tracing::info!(transactional_id, "a transactional id has expired");
            if let Err(error) = written.wait().await {
                log_failure(&transactional_id, &error, "an expiry is not durable");
            }
        }
    }
}

/// Looks for both, each at its interval, until the coordinator is gone.
pub(super) fn spawn(coordinator: &Arc<TransactionCoordinator>) {
    let limits = coordinator.limits;
    let weak = Arc::downgrade(coordinator);
    tokio::spawn(time_out(Weak::clone(&weak), limits.time_out_interval));
    tokio::spawn(expire(weak, limits.expiration_interval));
}

async fn time_out(coordinator: Weak<TransactionCoordinator>, interval: std::time::Duration) {
    loop {
        tokio::time::sleep(interval).await;
        match coordinator.upgrade() {
            Some(coordinator) => coordinator.abort_timed_out(),
            None => return,
        }
    }
}

async fn expire(coordinator: Weak<TransactionCoordinator>, interval: std::time::Duration) {
    loop {
        tokio::time::sleep(interval).await;
        match coordinator.upgrade() {
            Some(coordinator) => coordinator.remove_expired().await,
            None => return,
        }
    }
}
