//! From what a crash left to readable derived partitions.
//!
//! Syncs and replays every changelog, discards each output partition's hidden tail beyond its highest
//! recorded end, and publishes the rest. Changelogs of model topics that are no longer in the
//! config are replayed as well: their outputs stay readable, and an unfinished tail stays hidden.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use futures_util::future::{join_all, try_join_all};
use storage::partition_log::Durability;
use storage::{Offset, PartitionLog};
use tokio::task::JoinError;

use super::changelog::{self, Committed, TopicPartitionId};
use super::repartition_of;
use crate::catalog::{Topic, TopicKind};

/// Why derived partitions could not be made readable.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    /// The changelog itself can't be read.
    #[error("changelog '{topic}': {reason}")]
    Changelog {
        /// The changelog's topic.
        topic: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The changelog can't be put on the device, so that a power cut might take it back.
    #[error("changelog '{topic}': {error}")]
    Sync {
        /// The changelog's topic.
        topic: String,
        /// What failed.
        error: storage::Error,
    },
    /// An output partition failed.
    #[error("topic '{topic}' partition {partition}: {error}")]
    Output {
        /// The output topic.
        topic: String,
        /// Its partition.
        partition: i32,
        /// What failed.
        error: storage::Error,
    },
    /// The device lost data that it had reported as synced.
    #[error(
        "topic '{topic}' partition {partition} ends at {end}, below its committed end {committed}: \
         the device lost synced data"
    )]
    LostData {
        /// The output topic.
        topic: String,
        /// Its partition.
        partition: i32,
        /// Where its log ends.
        end: Offset,
        /// Where the changelog says that it ends.
        committed: Offset,
    },
}

/// What a replay of all changelogs came to, by model topic.
#[derive(Debug, Default)]
pub(super) struct Recovered {
    pub committed: BTreeMap<String, Committed>,
    /// These can't go on; the others can.
    pub failed: BTreeMap<String, RecoveryError>,
}

/// Replays every changelog, cuts every output partition back to its committed end and publishes
/// it. `topics` is the whole catalog. The outputs of a changelog that can't be read, or not be put
/// on the device, stay unreadable.
pub(super) async fn recover(topics: Vec<Arc<Topic>>) -> Result<Recovered, JoinError> {
    let failed = sync_changelogs(&topics).await;
    tokio::task::spawn_blocking(move || publish_all(&topics, failed)).await
}

/// A killed process may have left a commit in the page cache alone. What is published because of
/// it must not be taken back by a power cut later.
async fn sync_changelogs(topics: &[Arc<Topic>]) -> BTreeMap<String, RecoveryError> {
    let syncs = topics.iter().filter_map(|topic| {
        let TopicKind::Changelog { model_topic } = &topic.kind else {
            return None;
        };
        let waits: Vec<_> = topic
            .partitions
            .iter()
            .map(|log| log.wait(log.offsets().log_end_offset, Durability::Disk))
            .collect();
        Some(async move {
            let topic = topic.name.clone();
            let error = try_join_all(waits).await.err()?;
            Some((model_topic.clone(), RecoveryError::Sync { topic, error }))
        })
    });
    join_all(syncs).await.into_iter().flatten().collect()
}

/// Blocking. Those in `failed` are left as they are.
fn publish_all(topics: &[Arc<Topic>], failed: BTreeMap<String, RecoveryError>) -> Recovered {
    let mut recovered = Recovered {
        committed: BTreeMap::new(),
        failed,
    };
    let mut ends: HashMap<TopicPartitionId, Offset> = HashMap::new();
    for topic in topics {
        let TopicKind::Changelog { model_topic } = &topic.kind else {
            continue;
        };
        if recovered.failed.contains_key(model_topic) {
            continue;
        }
        match replay(topic) {
            Ok(committed) => {
                for (&id, &end) in &committed.ends {
                    let highest = ends.entry(id).or_insert(end);
                    *highest = end.max(*highest);
                }
                recovered.committed.insert(model_topic.clone(), committed);
            }
            Err(error) => {
                recovered.failed.insert(model_topic.clone(), error);
            }
        }
    }
    for topic in topics {
        let (TopicKind::Derived { model_topic }
        | TopicKind::DeadLetter { model_topic }
        | TopicKind::Alert { model_topic }) = &topic.kind
        else {
            continue;
        };
        // What brings its records to their keys writes dead letters, too.
        let repartition = repartition_of(model_topic);
        let writers = [model_topic, &repartition];
        if writers
            .iter()
            .any(|writer| recovered.failed.contains_key(*writer))
        {
            continue;
        }
        for (partition, log) in (0..).zip(&topic.partitions) {
            let end = ends.get(&(topic.id, partition)).copied();
            if let Err(error) = publish_committed(topic, partition, log, end) {
                recovered.failed.insert(model_topic.clone(), error);
            }
        }
    }
    recovered
}

fn replay(topic: &Topic) -> Result<Committed, RecoveryError> {
    let mut committed = Committed::default();
    for log in &topic.partitions {
        let found = changelog::replay(log).map_err(|e| RecoveryError::Changelog {
            topic: topic.name.clone(),
            reason: e.to_string(),
        })?;
        committed.positions.extend(found.positions);
        committed.ends.extend(found.ends);
        committed.has_state |= found.has_state;
    }
    Ok(committed)
}

fn publish_committed(
    topic: &Topic,
    partition: i32,
    log: &PartitionLog,
    end: Option<Offset>,
) -> Result<(), RecoveryError> {
    let offsets = log.offsets();
    let committed = end
        .unwrap_or(offsets.log_start_offset)
        .max(offsets.log_start_offset);
    let failed = |error| RecoveryError::Output {
        topic: topic.name.clone(),
        partition,
        error,
    };
    if offsets.log_end_offset < committed {
        log.publish(offsets.log_end_offset).map_err(failed)?;
        return Err(RecoveryError::LostData {
            topic: topic.name.clone(),
            partition,
            end: offsets.log_end_offset,
            committed,
        });
    }
    if offsets.log_end_offset > committed {
        let records = log.discard_to(committed).map_err(failed)?;
        metrics::counter!("milena_model_topic_discarded_records_total", "topic" => topic.name.clone())
            .increment(records.max(0) as u64);
        tracing::info!(
            topic = topic.name,
            partition,
            from = committed,
            to = offsets.log_end_offset,
            records,
            "discarded hidden output tail of an unfinished commit"
        );
    }
    log.publish(committed).map_err(failed)
}
