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
        let (TopicKind::Derived { model_topic } | TopicKind::DeadLetter { model_topic }) =
            &topic.kind
        else {
            continue;
        };
        if recovered.failed.contains_key(model_topic) {
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
        let found = changelog::replay(log, |_, _, _| {}).map_err(|e| RecoveryError::Changelog {
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use storage::LogDir;
    use storage::batch::{BatchBuilder, Compression};
    use storage::disk::RealDisk;
    use storage::log_dir::LogDirConfig;

    use super::super::changelog::CommitBatch;
    use super::*;
    use crate::catalog::{Catalog, NewTopic};
    use crate::clock::SystemClock;
    use crate::config::Config;

    async fn open(path: &Path) -> Catalog {
        let config = LogDirConfig {
            path: path.to_owned(),
            node_id: 0,
            sync_threads: 1,
            recovery_threads: 1,
        };
        let log_dir = LogDir::open(config, Arc::new(RealDisk)).expect("opens the folder");
        let defaults = Config::default().topic_defaults().expect("defaults");
        let catalog = Catalog::open(Arc::new(log_dir), defaults, Arc::new(SystemClock)).await;
        catalog.expect("opens the catalog")
    }

    async fn create(catalog: &Catalog, name: &str, kind: TopicKind) -> Arc<Topic> {
        let new = NewTopic {
            name: name.to_owned(),
            partitions: 1,
            configs: BTreeMap::new(),
            kind,
        };
        catalog.create_topic(new).await.expect("creates")
    }

    #[tokio::test]
    async fn what_is_published_is_committed_on_the_device() {
        let folder = tempfile::tempdir().expect("a folder");
        let model_topic = "scores".to_owned();
        {
            // Killed between the changelog's write and its sync.
            let catalog = open(folder.path()).await;
            let kind = TopicKind::Derived {
                model_topic: model_topic.clone(),
            };
            let derived = create(&catalog, "scores", kind).await;
            let kind = TopicKind::Changelog { model_topic };
            let changelog = create(&catalog, "scores.changelog", kind).await;
            let mut batch = BatchBuilder::new(Compression::None);
            batch.push(1, None, Some(b"output"), &[]);
            derived.partitions[0].stage(&batch.build()).expect("stages");
            let mut batch = CommitBatch::new(1);
            batch.output_end(derived.id, 0, 1);
            changelog.partitions[0]
                .append_internal(&batch.build())
                .expect("appends");
        }
        let catalog = open(folder.path()).await;
        let recovered = recover(catalog.topics()).await.expect("recovers");
        assert!(recovered.failed.is_empty(), "{:?}", recovered.failed);
        let offsets = |name| {
            let topic = catalog.topic(name).expect("is there");
            topic.partitions[0].offsets()
        };
        assert_eq!(offsets("scores").high_watermark, 1);
        assert_eq!(offsets("scores.changelog").synced_offset, 1);
    }
}
