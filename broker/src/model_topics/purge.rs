//! Repartition topics keep what is not read yet: now and then, what is below the committed positions goes.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use storage::partition_log::DeleteTo;

use super::embedded::{CommittedPositions, Growing};
use crate::catalog::Catalog;

/// How often; Kafka Streams' `repartition.purge.interval.ms`.
const INTERVAL: Duration = Duration::from_secs(30);

/// Until it is dropped.
pub(super) async fn run(catalog: Arc<Catalog>, readers: Vec<(Growing, CommittedPositions)>) {
    let mut turns = tokio::time::interval(INTERVAL);
    loop {
        turns.tick().await;
        let wanted = wanted(&readers);
        let catalog = Arc::clone(&catalog);
        let deleted = tokio::task::spawn_blocking(move || {
            for result in catalog.delete_records(&wanted) {
                if let Err(error) = result {
                    tracing::warn!(%error, "records that were brought to their keys stay for now");
                }
            }
        });
        if deleted.await.is_err() {
            return;
        }
    }
}

fn wanted(
    readers: &[(Growing, CommittedPositions)],
) -> Vec<(Arc<storage::PartitionLog>, DeleteTo)> {
    let mut wanted = Vec::new();
    for (topics, positions) in readers {
        let topics = topics.topics();
        let positions = positions.lock().unwrap_or_else(PoisonError::into_inner);
        for topic in &topics.inputs {
            for (partition, log) in (0..).zip(&topic.partitions) {
                if let Some(&next) = positions.get(&(topic.id, partition))
                    && next > log.offsets().log_start_offset
                {
                    wanted.push((Arc::clone(log), DeleteTo::Offset(next)));
                }
            }
        }
    }
    wanted
}
