//! Turns on output partitions: who may have staged records above a high watermark.
//!
//! At most one commit holds a partition's turn, so what lies above its high watermark is always one
//! unfinished commit. Turns are taken in (topic id, partition) order by everybody, so that two
//! commits never wait for each other.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OwnedMutexGuard;

use super::changelog::TopicPartitionId;

/// The turns of every output partition of the broker.
#[derive(Debug, Default)]
pub(super) struct Turns {
    partitions: Mutex<HashMap<TopicPartitionId, Arc<tokio::sync::Mutex<()>>>>,
}

impl Turns {
    /// Waits for all of them, first come first served. Dropping the guards ends the turns.
    pub(super) async fn take(
        &self,
        partitions: BTreeSet<TopicPartitionId>,
    ) -> Vec<OwnedMutexGuard<()>> {
        let mut guards = Vec::with_capacity(partitions.len());
        for partition in partitions {
            let turn = {
                let mut all = self
                    .partitions
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner);
                all.entry(partition).or_default().clone()
            };
            guards.push(turn.lock_owned().await);
        }
        guards
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use uuid::Uuid;

    use super::*;

    #[tokio::test]
    async fn overlapping_commits_take_turns_without_deadlock() {
        let turns = Arc::new(Turns::default());
        let ids: Vec<TopicPartitionId> = (0..4).map(|n| (Uuid::from_u128(n), n as i32)).collect();
        let work = (0..200usize).map(|n| {
            let turns = turns.clone();
            let wanted = BTreeSet::from([ids[n % 4], ids[(n * 7 + 1) % 4], ids[(n / 3) % 4]]);
            tokio::spawn(async move {
                let _guards = turns.take(wanted).await;
                tokio::task::yield_now().await;
            })
        });
        let all = futures_util::future::join_all(work.collect::<Vec<_>>());
        let done = tokio::time::timeout(Duration::from_secs(20), all)
            .await
            .expect("no deadlock");
        assert!(done.iter().all(Result::is_ok));
    }

    #[tokio::test]
    async fn a_turn_excludes_others_until_dropped() {
        let turns = Turns::default();
        let id = BTreeSet::from([(Uuid::from_u128(1), 0)]);
        let first = turns.take(id.clone()).await;
        let blocked = tokio::time::timeout(Duration::from_millis(20), turns.take(id.clone())).await;
        assert!(blocked.is_err());
        drop(first);
        assert_eq!(turns.take(id).await.len(), 1);
    }
}
