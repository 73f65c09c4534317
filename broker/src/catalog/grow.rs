//! More partitions for topics that exist.
//!
//! All topics of one growth grow together or not at all: their records are one batch of the
//! catalog's log. Records first, then folders, so that a start after a crash opens, and so creates,
//! what is missing.

use std::sync::Arc;

use super::records::{self, TopicRecord};
use super::{CatalogError, Inner, MAX_PARTITIONS, Topic, blocking, open_logs};

/// A topic that gets more partitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Growth {
    /// Its name.
    pub topic: String,
    /// How many it will have.
    pub partitions: i32,
}

impl Inner {
    /// Checks a growth and returns the topic that it is about.
    pub(super) fn check_growth(&self, growth: &Growth) -> Result<Arc<Topic>, CatalogError> {
        let Growth { topic, partitions } = growth;
        let found = self
            .read(|topics| topics.by_name.get(topic).cloned())
            .ok_or_else(|| CatalogError::UnknownTopic(topic.clone()))?;
        let current = found.partition_count();
        if *partitions <= current {
            return Err(CatalogError::NotAnIncrease {
                topic: topic.clone(),
                current,
                asked: *partitions,
            });
        }
        if *partitions > MAX_PARTITIONS {
            return Err(CatalogError::InvalidPartitions(topic.clone(), *partitions));
        }
        Ok(found)
    }

    pub(super) async fn grow(&self, growths: Vec<Growth>) -> Result<Vec<Arc<Topic>>, CatalogError> {
        let _change = self.change.lock().await;
        let mut growing = Vec::with_capacity(growths.len());
        let mut logs = Vec::new();
        for growth in &growths {
            let topic = self.check_growth(growth)?;
            let record = record(&topic, growth.partitions);
            let new = open_logs(&topic.name, &record, &topic.config);
            logs.extend(new.into_iter().skip(topic.partitions.len()));
            growing.push((topic, record));
        }
        self.check_folders(&logs).await?;
        self.log_dir.check_room()?;
        let now_ms = self.clock.now_ms();
        let grown = growing.iter().map(|(topic, record)| (&*topic.name, record));
        self.log_change(records::topics_batch(now_ms, grown)?)
            .await?;

        let log_dir = Arc::clone(&self.log_dir);
        let opened = blocking(move || {
            let opened = log_dir.open_logs(logs)?;
            for log in &opened {
                // Nothing is hidden in a new partition; a derived one is readable once that is said.
                if log.visibility() == storage::partition_log::Visibility::Derived {
                    log.publish(log.offsets().log_start_offset)?;
                }
            }
            Ok(opened)
        });
        let mut opened = match opened.await {
            Ok(opened) => opened.into_iter(),
            Err(error) => {
                self.undo_growth(&growing).await;
                return Err(error);
            }
        };
        let mut topics = Vec::with_capacity(growing.len());
        for (topic, record) in growing {
            let mut grown = (*topic).clone();
            let added = usize::try_from(record.partitions)
                .unwrap_or(0)
                .saturating_sub(grown.partitions.len());
            grown.partitions.extend(opened.by_ref().take(added));
            tracing::info!(
                topic = grown.name,
                from = topic.partitions.len(),
                to = grown.partitions.len(),
                "topic has more partitions"
            );
            topics.push(Arc::new(grown));
        }
        self.write(|all| topics.iter().cloned().for_each(|topic| all.insert(topic)));
        Ok(topics)
    }

    async fn undo_growth(&self, growing: &[(Arc<Topic>, TopicRecord)]) {
        let before: Vec<_> = growing
            .iter()
            .map(|(topic, _)| (topic, record(topic, topic.partition_count())))
            .collect();
        let batch = records::topics_batch(
            self.clock.now_ms(),
            before.iter().map(|(topic, record)| (&*topic.name, record)),
        );
        let undone = match batch {
            Ok(batch) => self.log_change(batch).await,
            Err(error) => Err(error),
        };
        if let Err(error) = undone {
            tracing::error!(
                %error,
                "partitions whose creation failed stay in the catalog; they appear at the next start"
            );
            return;
        }
        for (topic, record) in growing {
            let new = topic.partition_count()..record.partitions;
            self.delete_folders(topic.name.clone(), new).await;
        }
    }
}

fn record(topic: &Topic, partitions: i32) -> TopicRecord {
    TopicRecord {
        id: topic.id,
        kind: topic.kind.clone(),
        partitions,
        configs: topic.configs.clone(),
    }
}
