//! From a data folder to a catalog: replay, tidy the folders up, open every partition.

use std::collections::HashMap;
use std::sync::{Arc, RwLock};

use storage::log_dir::OpenLog;
use storage::partition_log::{Durability, Visibility};
use storage::{LogConfig, LogDir, PartitionLog};
use uuid::Uuid;

use super::broker_config::Observer;
use super::records::{self, Replayed, TopicRecord};
use super::{
    CATALOG_TOPIC, CatalogError, ChangeState, Inner, Topic, TopicDefaults, Topics, alter, blocking,
    open_logs,
};
use crate::clock::Clock;

/// The same in every data folder.
const CATALOG_TOPIC_ID: Uuid = Uuid::from_bytes(*b"milena-catalog-0");

/// Small enough to be compacted often, large enough for tens of thousands of topics.
const CATALOG_SEGMENT_BYTES: u64 = 16 << 20;

pub(super) async fn open(
    log_dir: Arc<LogDir>,
    defaults: TopicDefaults,
    clock: Arc<dyn Clock>,
) -> Result<Inner, CatalogError> {
    let folder = Arc::clone(&log_dir);
    let (log, replayed) = blocking(move || replay_catalog(&folder)).await?;
    // What is acted on from here must not be lost in a later power cut.
    log.wait(log.offsets().log_end_offset, Durability::Disk)
        .await?;

    let next_producer_id = replayed.next_producer_id;
    let folder = Arc::clone(&log_dir);
    let topics = blocking(move || {
        tidy_folders(&folder, &replayed)?;
        open_topics(&folder, replayed, &defaults)
    })
    .await?;
    tracing::info!(
        topics = topics.by_name.len(),
        next_producer_id,
        "catalog replayed"
    );
    Ok(Inner {
        log_dir,
        log,
        clock,
        topics: RwLock::new(topics),
        observer: Observer::default(),
        change: tokio::sync::Mutex::new(ChangeState { next_producer_id }),
    })
}

fn replay_catalog(log_dir: &LogDir) -> Result<(Arc<PartitionLog>, Replayed), CatalogError> {
    let config = LogConfig {
        segment_bytes: CATALOG_SEGMENT_BYTES,
        compact: true,
        delete: false,
        ..LogConfig::default()
    };
    let opened = log_dir.open_logs(vec![OpenLog {
        topic: CATALOG_TOPIC.to_owned(),
        topic_id: CATALOG_TOPIC_ID,
        partition: 0,
        config: Arc::new(config),
        visibility: Visibility::Ordinary,
    }])?;
    let log = opened
        .into_iter()
        .next()
        .ok_or_else(|| unusable(CATALOG_TOPIC, "was not opened"))?;
    let replayed = records::replay(&log)?;
    Ok((log, replayed))
}

/// Removes the folders of deleted topics. A folder that the catalog never knew is left alone: if
/// it is the catalog that lost something, the records must not go with it.
fn tidy_folders(log_dir: &LogDir, replayed: &Replayed) -> Result<(), CatalogError> {
    let mut folders = log_dir.on_disk()?;
    folders.retain(|(topic, _, _)| topic != CATALOG_TOPIC);
    if let Some((topic, partition, _)) = folders.first()
        && replayed.is_empty
    {
        return Err(CatalogError::Missing {
            path: log_dir.path().to_owned(),
            folders: folders.len(),
            example: format!("{topic}-{partition}"),
        });
    }
    for (topic, partition, id) in folders {
        let is_dead = replayed.dead_names.contains(&topic)
            || id.is_some_and(|id| replayed.dead_ids.contains(&id));
        if is_dead {
            tracing::warn!(topic, partition, "removing the folder of a deleted topic");
            log_dir.delete_log(&topic, partition)?;
        } else if !is_known(replayed.topics.get(&topic), partition) {
            tracing::warn!(
                topic,
                partition,
                "the catalog does not know this partition's folder; it is left alone"
            );
            log_dir.leave_alone(&topic, partition)?;
        }
    }
    Ok(())
}

fn is_known(topic: Option<&TopicRecord>, partition: i32) -> bool {
    topic.is_some_and(|topic| partition < topic.partitions)
}

fn open_topics(
    log_dir: &LogDir,
    replayed: Replayed,
    defaults: &TopicDefaults,
) -> Result<Topics, CatalogError> {
    let defaults = defaults
        .with_dynamic(&replayed.broker_configs)
        .map_err(|error| unusable(CATALOG_TOPIC, &format!("broker configs: {error}")))?;
    let mut typed = HashMap::with_capacity(replayed.topics.len());
    let mut logs = Vec::new();
    for (name, record) in &replayed.topics {
        let config = alter::typed(&record.kind, &record.configs, &defaults)
            .map_err(|error| unusable(name, &error.to_string()))?;
        logs.extend(open_logs(name, record, &config));
        typed.insert(name.clone(), config);
    }
    let mut opened = log_dir.open_logs(logs)?.into_iter();
    let mut topics = Topics {
        broker: replayed.broker_configs,
        defaults: Arc::new(defaults),
        ..Topics::default()
    };
    for (name, record) in replayed.topics {
        let TopicRecord {
            id,
            kind,
            partitions,
            configs,
        } = record;
        let count = usize::try_from(partitions).unwrap_or(0);
        let partitions: Vec<_> = opened.by_ref().take(count).collect();
        let config = typed
            .remove(&name)
            .filter(|_| partitions.len() == count && count > 0);
        let config = config.ok_or_else(|| unusable(&name, "its partitions were not opened"))?;
        topics.insert(Arc::new(Topic {
            name,
            id,
            kind,
            configs,
            config,
            partitions,
        }));
    }
    Ok(topics)
}

fn unusable(name: &str, reason: &str) -> CatalogError {
    CatalogError::Unusable {
        name: name.to_owned(),
        reason: reason.to_owned(),
    }
}
