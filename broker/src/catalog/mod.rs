//! Topics, partitions, configs and ids, kept in an internal compacted log and replayed at start.
//!
//! A change is on the device before it is visible, and there is one change at a time. To create a
//! topic: its record, then its folders. To delete one: its record, then its folders. So whatever
//! a crash leaves behind, the log says what to do with it: folders that are missing are created at
//! the next start, folders of deleted topics are removed, and nothing else is ever removed.
//!
//! Lookups take a read lock for as long as it takes to clone an `Arc`.

mod alter;
pub mod broker_config;
mod create;
mod error;
mod grow;
pub(crate) mod names;
mod open;
mod records;
pub mod topic_config;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use storage::log_dir::OpenLog;
use storage::partition_log::{DeleteTo, Durability, Visibility};
use storage::{LogDir, PartitionLog};
use uuid::Uuid;

use crate::clock::Clock;

pub use alter::{ConfigChange, ConfigOperation, ConfigTarget};
use broker_config::{BrokerConfigs, Observer};
pub use error::CatalogError;
pub use grow::Growth;
pub use names::{check_name, is_reserved};
use records::TopicRecord;
pub use topic_config::TopicDefaults;

/// The catalog's own log. Never listed.
pub const CATALOG_TOPIC: &str = "__milena_catalog";

/// The most partitions that one topic may have.
pub const MAX_PARTITIONS: i32 = 10_000;

/// What a topic is for, and so who may write to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum TopicKind {
    /// A client's.
    Ordinary,
    /// The broker's own, such as `__consumer_offsets`.
    Internal,
    /// A model topic's output.
    Derived {
        /// The model topic.
        model_topic: String,
    },
    /// A model topic's dead letters.
    DeadLetter {
        /// The model topic.
        model_topic: String,
    },
    /// What a model topic's rules produce.
    Alert {
        /// The model topic.
        model_topic: String,
    },
    /// A model topic's positions, ends and state.
    Changelog {
        /// The model topic.
        model_topic: String,
    },
}

impl TopicKind {
    /// As Metadata reports it.
    pub fn is_internal(&self) -> bool {
        matches!(self, Self::Internal | Self::Changelog { .. })
    }

    /// Clients may produce to it and delete it.
    pub fn is_writable_by_clients(&self) -> bool {
        matches!(self, Self::Ordinary)
    }

    /// Whose a topic is that clients may not write to.
    pub fn owner(&self) -> String {
        match self {
            Self::Ordinary => "its producers".to_owned(),
            Self::Internal => "the broker itself".to_owned(),
            Self::Derived { model_topic }
            | Self::DeadLetter { model_topic }
            | Self::Alert { model_topic }
            | Self::Changelog { model_topic } => format!("model topic '{model_topic}'"),
        }
    }

    /// Its high watermarks are raised by commits only.
    pub fn is_published(&self) -> bool {
        matches!(
            self,
            Self::Derived { .. } | Self::DeadLetter { .. } | Self::Alert { .. }
        )
    }
}

/// A topic's configuration, typed.
#[derive(Clone, Debug, PartialEq)]
pub struct TopicConfig {
    /// What its logs obey.
    pub log: Arc<storage::LogConfig>,
    /// What `acks=all` waits for.
    pub durability_all: Durability,
    /// What `acks=1` waits for.
    pub durability_one: Durability,
}

/// A topic and its partitions' logs.
#[derive(Clone, Debug)]
pub struct Topic {
    /// Its name.
    pub name: String,
    /// Its id; a topic created again has another.
    pub id: Uuid,
    /// What it is for.
    pub kind: TopicKind,
    /// The configs set on it, as written.
    pub configs: BTreeMap<String, String>,
    /// The same with defaults, typed.
    pub config: TopicConfig,
    /// By partition number.
    pub partitions: Vec<Arc<PartitionLog>>,
}

impl Topic {
    /// How many partitions it has.
    pub fn partition_count(&self) -> i32 {
        // Never more than MAX_PARTITIONS.
        i32::try_from(self.partitions.len()).unwrap_or(i32::MAX)
    }
}

/// A topic to create.
#[derive(Clone, Debug)]
pub struct NewTopic {
    /// Its name.
    pub name: String,
    /// How many partitions.
    pub partitions: i32,
    /// Configs to set on it.
    pub configs: BTreeMap<String, String>,
    /// What it is for.
    pub kind: TopicKind,
}

/// The catalog.
#[derive(Debug)]
pub struct Catalog {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    log_dir: Arc<LogDir>,
    /// The catalog's own.
    log: Arc<PartitionLog>,
    clock: Arc<dyn Clock>,
    topics: RwLock<Topics>,
    /// Told of the broker's configs, within the change.
    observer: Observer,
    /// Held for the whole of a change.
    change: tokio::sync::Mutex<ChangeState>,
}

#[derive(Debug, Default)]
struct Topics {
    by_name: HashMap<String, Arc<Topic>>,
    by_id: HashMap<Uuid, Arc<Topic>>,
    /// What was set on the running broker.
    broker: BrokerConfigs,
    /// The broker's file's, with `broker` above them.
    defaults: Arc<TopicDefaults>,
}

#[derive(Debug)]
struct ChangeState {
    next_producer_id: i64,
}

impl Topics {
    fn insert(&mut self, topic: Arc<Topic>) {
        self.by_id.insert(topic.id, Arc::clone(&topic));
        self.by_name.insert(topic.name.clone(), topic);
    }

    fn remove(&mut self, topic: &Topic) {
        self.by_id.remove(&topic.id);
        self.by_name.remove(&topic.name);
    }
}

impl Catalog {
    /// Replays the catalog's log and opens every partition, in parallel.
    ///
    /// Partitions of published kinds ([`TopicKind::is_published`]) are opened as derived ones.
    /// Refuses a data folder that has partitions but no catalog.
    pub async fn open(
        log_dir: Arc<LogDir>,
        defaults: TopicDefaults,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, CatalogError> {
        let inner = Arc::new(open::open(log_dir, defaults, clock).await?);
        Ok(Self { inner })
    }

    /// The topic of that name.
    pub fn topic(&self, name: &str) -> Option<Arc<Topic>> {
        self.inner.read(|topics| topics.by_name.get(name).cloned())
    }

    /// The topic of that id.
    pub fn topic_by_id(&self, id: Uuid) -> Option<Arc<Topic>> {
        self.inner.read(|topics| topics.by_id.get(&id).cloned())
    }

    /// All topics, by name.
    pub fn topics(&self) -> Vec<Arc<Topic>> {
        let mut all: Vec<_> = self
            .inner
            .read(|topics| topics.by_name.values().cloned().collect());
        all.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// What the broker sets for topics that do not say.
    pub fn defaults(&self) -> Arc<TopicDefaults> {
        self.inner.read(|topics| Arc::clone(&topics.defaults))
    }

    /// What was set on the running broker.
    pub fn broker_configs(&self) -> BrokerConfigs {
        self.inner.read(|topics| topics.broker.clone())
    }

    /// The data folder.
    pub fn data_folder(&self) -> &Path {
        self.inner.log_dir.path()
    }

    /// Refuses what takes room where the disk is known to be full.
    pub fn check_room(&self) -> storage::Result<()> {
        self.inner.log_dir.check_room()
    }

    /// The partitions that are read-only until a restart, the catalog's own log among them.
    pub fn read_only_partitions(&self) -> Vec<(String, i32)> {
        self.inner.log_dir.read_only_partitions()
    }

    /// The partitions whose last compaction failed, with the reason, until it is tried again.
    pub fn uncleanable_partitions(&self) -> Vec<(String, i32, String)> {
        self.inner.log_dir.uncleanable_partitions()
    }

    /// Blocking. Deletes records of partitions up to where each is told; see
    /// [`LogDir::delete_records`].
    pub fn delete_records(
        &self,
        wanted: &[(Arc<PartitionLog>, DeleteTo)],
    ) -> Vec<storage::Result<storage::Offset>> {
        self.inner.log_dir.delete_records(wanted)
    }

    /// Has `observer` told what is set on the running broker: now, and in every change before it is
    /// answered. There is one observer, the first.
    pub async fn observe_broker_configs(
        &self,
        observer: impl Fn(&BrokerConfigs) + Send + Sync + 'static,
    ) {
        let _change = self.inner.change.lock().await;
        self.inner.observer.set(observer);
        self.inner.observer.tell(&self.broker_configs());
    }

    /// Creates a topic; it is durable when this returns. The change goes on where the caller
    /// stops waiting for it.
    pub async fn create_topic(&self, topic: NewTopic) -> Result<Arc<Topic>, CatalogError> {
        let created = self.create_topics(vec![topic]).await.pop();
        created.unwrap_or(Err(CatalogError::Stopping))
    }

    /// As [`Catalog::create_topic`] for several topics, which share the waits for the disk. Each is
    /// answered for itself, in order; where the disk fails, all of them do.
    pub async fn create_topics(
        &self,
        topics: Vec<NewTopic>,
    ) -> Vec<Result<Arc<Topic>, CatalogError>> {
        let inner = Arc::clone(&self.inner);
        let count = topics.len();
        detached(async move { Ok(inner.create_all(topics).await) })
            .await
            .unwrap_or_else(|error| vec![Err(error); count])
    }

    /// The topic of that name, which is created with `partitions` where there is none. Any number
    /// of callers at the same time get the same topic.
    pub async fn auto_create(
        &self,
        name: &str,
        partitions: i32,
    ) -> Result<Arc<Topic>, CatalogError> {
        if let Some(topic) = self.topic(name) {
            return Ok(topic);
        }
        let new = NewTopic {
            name: name.to_owned(),
            partitions,
            configs: BTreeMap::new(),
            kind: TopicKind::Ordinary,
        };
        match self.create_topic(new).await {
            Err(CatalogError::TopicExists(name)) => {
                self.topic(&name).ok_or(CatalogError::UnknownTopic(name))
            }
            created => created,
        }
    }

    /// What [`Catalog::create_topic`] would refuse.
    pub fn check_new_topic(&self, topic: &NewTopic) -> Result<(), CatalogError> {
        self.inner.check(topic).map(|_| ())
    }

    /// Gives topics more partitions: all of them or none. They are durable when this returns.
    pub async fn grow(&self, growths: Vec<Growth>) -> Result<Vec<Arc<Topic>>, CatalogError> {
        let inner = Arc::clone(&self.inner);
        detached(async move { inner.grow(growths).await }).await
    }

    /// What [`Catalog::grow`] would refuse.
    pub fn check_growth(&self, growth: &Growth) -> Result<Arc<Topic>, CatalogError> {
        self.inner.check_growth(growth)
    }

    /// Changes configs; they are durable and in force when this returns. With `validate_only`
    /// nothing is changed, and what would be refused is.
    pub async fn alter_configs(
        &self,
        target: ConfigTarget,
        change: ConfigChange,
        validate_only: bool,
    ) -> Result<(), CatalogError> {
        let inner = Arc::clone(&self.inner);
        detached(async move { inner.alter(target, change, validate_only).await }).await
    }

    /// Deletes a topic and its files. Reads and writes under way fail with
    /// [`storage::Error::Closed`].
    pub async fn delete_topic(&self, name: &str) -> Result<(), CatalogError> {
        let inner = Arc::clone(&self.inner);
        let name = name.to_owned();
        detached(async move { inner.delete(name).await }).await
    }

    /// Reserves `size` (at least 1) producer ids, durably. No id is ever given twice.
    pub async fn next_producer_id_block(
        &self,
        size: i64,
    ) -> Result<std::ops::Range<i64>, CatalogError> {
        let inner = Arc::clone(&self.inner);
        detached(async move { inner.reserve_producer_ids(size.max(1)).await }).await
    }
}

impl Inner {
    fn read<R>(&self, look: impl FnOnce(&Topics) -> R) -> R {
        look(&self.topics.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn write(&self, change: impl FnOnce(&mut Topics)) {
        change(&mut self.topics.write().unwrap_or_else(PoisonError::into_inner));
    }

    /// Checks a new topic and returns it with its configs trimmed, and those typed.
    fn check(&self, new: &NewTopic) -> Result<(NewTopic, TopicConfig), CatalogError> {
        check_name(&new.name)?;
        if new.name == CATALOG_TOPIC || (new.kind == TopicKind::Ordinary && is_reserved(&new.name))
        {
            let reason = "it is reserved for the broker".to_owned();
            return Err(CatalogError::InvalidName(new.name.clone(), reason));
        }
        if self.read(|topics| topics.by_name.contains_key(&new.name)) {
            return Err(CatalogError::TopicExists(new.name.clone()));
        }
        if !(1..=MAX_PARTITIONS).contains(&new.partitions) {
            return Err(CatalogError::InvalidPartitions(
                new.name.clone(),
                new.partitions,
            ));
        }
        let defaults = self.read(|topics| Arc::clone(&topics.defaults));
        let defaults = defaults.for_kind(&new.kind);
        let configs = topic_config::checked(new.configs.clone())?;
        topic_config::check_new_configs(&configs, &defaults)?;
        let config = TopicConfig::from_configs(&configs, &defaults)?;
        Ok((
            NewTopic {
                configs,
                ..new.clone()
            },
            config,
        ))
    }

    /// Refuses folders that an earlier life of the data folder left: undoing a failed creation
    /// must only ever remove what the creation made.
    async fn check_folders(&self, logs: &[OpenLog]) -> Result<(), CatalogError> {
        let folders: Vec<_> = logs
            .iter()
            .map(|log| {
                self.log_dir
                    .path()
                    .join(format!("{}-{}", log.topic, log.partition))
            })
            .collect();
        blocking(
            move || match folders.into_iter().find(|folder| folder.exists()) {
                Some(folder) => Err(CatalogError::FolderInTheWay(folder)),
                None => Ok(()),
            },
        )
        .await
    }

    async fn delete(&self, name: String) -> Result<(), CatalogError> {
        let _change = self.change.lock().await;
        let topic = self
            .read(|topics| topics.by_name.get(&name).cloned())
            .ok_or_else(|| CatalogError::UnknownTopic(name.clone()))?;
        self.log_change(records::topic_batch(self.clock.now_ms(), &name, None)?)
            .await?;
        self.write(|topics| topics.remove(&topic));
        tracing::info!(topic = name, id = %topic.id, "topic deleted");
        self.delete_folders(name, 0..topic.partition_count()).await;
        Ok(())
    }

    /// The partitions are gone from the catalog already, so a folder of a deleted topic that can't
    /// be removed now is removed at the next start.
    async fn delete_folders(&self, name: String, partitions: std::ops::Range<i32>) {
        let log_dir = Arc::clone(&self.log_dir);
        let removed = blocking(move || {
            for (partition, error) in log_dir.delete_logs(&name, partitions) {
                tracing::warn!(
                    topic = name,
                    partition,
                    %error,
                    "a deleted partition's folder is left until the next start"
                );
            }
            Ok(())
        });
        if let Err(error) = removed.await {
            tracing::warn!(%error, "a deleted topic's folders are left until the next start");
        }
    }

    async fn reserve_producer_ids(&self, size: i64) -> Result<std::ops::Range<i64>, CatalogError> {
        let mut change = self.change.lock().await;
        let start = change.next_producer_id;
        let end = start
            .checked_add(size)
            .ok_or(CatalogError::ProducerIdsExhausted)?;
        self.log_change(records::producer_ids_batch(self.clock.now_ms(), end)?)
            .await?;
        change.next_producer_id = end;
        Ok(start..end)
    }

    /// Returns when the change is on the device.
    async fn log_change(&self, batch: Bytes) -> Result<(), CatalogError> {
        if batch.len() > records::MAX_CHANGE_BYTES {
            return Err(CatalogError::TooLarge(batch.len()));
        }
        let offsets = self.log.append_internal(&batch)?;
        Ok(self.log.wait(offsets.end, Durability::Disk).await?)
    }
}

/// The logs of a topic's partitions, in order.
fn open_logs(name: &str, record: &TopicRecord, config: &TopicConfig) -> Vec<OpenLog> {
    let visibility = if record.kind.is_published() {
        Visibility::Derived
    } else {
        Visibility::Ordinary
    };
    (0..record.partitions)
        .map(|partition| OpenLog {
            topic: name.to_owned(),
            topic_id: record.id,
            partition,
            config: Arc::clone(&config.log),
            visibility,
        })
        .collect()
}

/// A random id whose text, in Kafka's base64, does not begin with a dash: command lines would take
/// it for an option.
fn new_topic_id() -> Uuid {
    const DASH: u8 = 62;
    loop {
        let id = Uuid::new_v4();
        if id.as_bytes()[0] >> 2 != DASH {
            return id;
        }
    }
}

/// Runs a change to its end even where its caller goes away in the middle: a logged change must
/// become visible.
///
/// It is begun at once, so that a caller's future has no room for the change: every connection's
/// would be larger by it.
fn detached<T: Send + 'static>(
    change: impl Future<Output = Result<T, CatalogError>> + Send + 'static,
) -> impl Future<Output = Result<T, CatalogError>> + Send {
    let change = tokio::spawn(change);
    async { change.await.unwrap_or_else(|error| Err(cut_short(&error))) }
}

/// Runs what waits for the disk on a thread that may.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, CatalogError> + Send + 'static,
) -> Result<T, CatalogError> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(cut_short(&error)))
}

fn cut_short(error: &tokio::task::JoinError) -> CatalogError {
    if error.is_panic() {
        tracing::error!(%error, "a change of the catalog was cut short");
    }
    CatalogError::Stopping
}
