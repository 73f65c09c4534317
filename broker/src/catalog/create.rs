//! New topics.
//!
//! Records first, then folders; topics that are created together share both waits.

use std::sync::Arc;

use super::records::{self, TopicRecord};
use super::{CatalogError, Inner, NewTopic, Topic, TopicConfig, blocking, new_topic_id, open_logs};

/// Topics of one change: its record stays small enough to be replayed whatever their configs are.
const TOPICS_PER_CHANGE: usize = 100;

/// A topic on its way.
struct Creation {
    /// Its place among those that were asked for.
    place: usize,
    name: String,
    record: TopicRecord,
    config: TopicConfig,
}

impl Inner {
    /// Answers for each, in order.
    pub(super) async fn create_all(
        &self,
        topics: Vec<NewTopic>,
    ) -> Vec<Result<Arc<Topic>, CatalogError>> {
        let mut results = Vec::with_capacity(topics.len());
        let mut topics = topics.into_iter();
        loop {
            let some: Vec<_> = topics.by_ref().take(TOPICS_PER_CHANGE).collect();
            if some.is_empty() {
                return results;
            }
            results.extend(self.create_some(some).await);
        }
    }

    async fn create_some(&self, topics: Vec<NewTopic>) -> Vec<Result<Arc<Topic>, CatalogError>> {
        let _change = self.change.lock().await;
        let mut results = Vec::with_capacity(topics.len());
        let mut creations: Vec<Creation> = Vec::with_capacity(topics.len());
        for (place, new) in topics.into_iter().enumerate() {
            let is_twice = creations.iter().any(|other| other.name == new.name);
            let prepared = match self.prepare(place, &new).await {
                Ok(_) if is_twice => Err(CatalogError::TopicExists(new.name)),
                prepared => prepared,
            };
            match prepared {
                Ok(creation) => {
                    creations.push(creation);
                    // Taken back unless it comes to be.
                    results.push(Err(CatalogError::Stopping));
                }
                Err(error) => results.push(Err(error)),
            }
        }
        let places: Vec<usize> = creations.iter().map(|creation| creation.place).collect();
        let made = match creations.is_empty() {
            true => Ok(Vec::new()),
            false => self.make(creations).await,
        };
        for (n, place) in places.into_iter().enumerate() {
            if let Some(result) = results.get_mut(place) {
                *result = match &made {
                    Ok(made) => made.get(n).cloned().ok_or(CatalogError::Stopping),
                    Err(error) => Err(error.clone()),
                };
            }
        }
        results
    }

    async fn prepare(&self, place: usize, new: &NewTopic) -> Result<Creation, CatalogError> {
        let (new, config) = self.check(new)?;
        let creation = Creation {
            place,
            record: TopicRecord {
                id: new_topic_id(),
                kind: new.kind,
                partitions: new.partitions,
                configs: new.configs,
            },
            name: new.name,
            config,
        };
        self.check_folders(&creation.logs()).await?;
        Ok(creation)
    }

    /// All of them, or none.
    async fn make(&self, creations: Vec<Creation>) -> Result<Vec<Arc<Topic>>, CatalogError> {
        self.log_dir.check_room()?;
        let records = creations.iter().map(|new| (&*new.name, &new.record));
        let batch = records::topics_batch(self.clock.now_ms(), records)?;
        self.log_change(batch).await?;
        let logs = creations.iter().flat_map(Creation::logs).collect();
        let log_dir = Arc::clone(&self.log_dir);
        let opened = blocking(move || Ok(log_dir.open_logs(logs)?)).await;
        let mut opened = match opened {
            Ok(opened) => opened.into_iter(),
            Err(error) => {
                self.undo(&creations).await;
                return Err(error);
            }
        };
        let mut made = Vec::with_capacity(creations.len());
        for Creation {
            name,
            record,
            config,
            ..
        } in creations
        {
            let count = usize::try_from(record.partitions).unwrap_or(0);
            let topic = Arc::new(Topic {
                name,
                id: record.id,
                kind: record.kind,
                configs: record.configs,
                config,
                partitions: opened.by_ref().take(count).collect(),
            });
            tracing::info!(
                topic = topic.name,
                id = %topic.id,
                partitions = topic.partitions.len(),
                kind = ?topic.kind,
                "topic created"
            );
            made.push(topic);
        }
        self.write(|topics| made.iter().cloned().for_each(|topic| topics.insert(topic)));
        Ok(made)
    }

    async fn undo(&self, creations: &[Creation]) {
        for Creation { name, record, .. } in creations {
            let undone = match records::topic_batch(self.clock.now_ms(), name, None) {
                Ok(batch) => self.log_change(batch).await,
                Err(error) => Err(error),
            };
            match undone {
                Ok(()) => {
                    self.delete_folders(name.clone(), 0..record.partitions)
                        .await;
                }
                Err(error) => tracing::error!(
                    topic = name,
                    %error,
                    "a topic whose creation failed stays in the catalog; it appears at the next start"
                ),
            }
        }
    }
}

impl Creation {
    fn logs(&self) -> Vec<storage::log_dir::OpenLog> {
        open_logs(&self.name, &self.record, &self.config)
    }
}
