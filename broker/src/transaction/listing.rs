//! What administrators see of transactions (KIP-664).

use std::collections::BTreeMap;

use super::coordinator::{TransactionCoordinator, lock};
use super::records::{State, TransactionalIdState};

/// One transactional id in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The id.
    pub transactional_id: String,
    /// The producer that has it.
    pub producer_id: i64,
    /// What it is at.
    pub state: State,
    /// Since its last transaction was begun, milliseconds; since the epoch where none ever was, as in
    /// Kafka.
    pub since_start_ms: i64,
}

impl TransactionCoordinator {
    /// Every transactional id, in their order.
    pub fn list(&self) -> Vec<Listed> {
        let now_ms = self.clock.now_ms();
        // Not with the map's lock, which whoever removes an id takes with the id's.
        let listed = self.every_id().into_iter().map(|(id, slot)| {
            let slot = lock(&slot);
            let stored = &slot.machine.stored;
            let listed = Listed {
                transactional_id: id.clone(),
                producer_id: stored.producer_id,
                state: stored.state,
                since_start_ms: now_ms.saturating_sub(stored.start_ms),
            };
            (id.clone(), listed)
        });
        let listed: BTreeMap<_, _> = listed.collect();
        listed.into_values().collect()
    }

    /// What is known of one; `None` where there is none.
    pub fn describe(&self, transactional_id: &str) -> Option<TransactionalIdState> {
        let slot = self.slot(transactional_id)?;
        let slot = lock(&slot);
        (!slot.is_gone).then(|| slot.machine.stored.clone())
    }
}
