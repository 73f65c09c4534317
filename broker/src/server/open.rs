//! Opens what a broker is made of, in the order in which one part needs the other, and closes it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use storage::LogDir;
use storage::disk::{Disk, RealDisk};
use storage::log_dir::LogDirConfig;
use storage::reserved_disk::ReservedDisk;
use tokio::sync::{Semaphore, watch};

use crate::Broker;
use crate::broker::Settings;
use crate::catalog::{CATALOG_TOPIC, Catalog, CatalogError, NewTopic, TopicKind};
use crate::cleaner_config::CleanerConfig;
use crate::clock::{Clock, SystemClock};
use crate::config::{Config, Problem};
use crate::coordinator_log::LogError;
use crate::fetch_session::FetchSessions;
use crate::group::offsets_topic::OFFSETS_TOPIC;
use crate::group::{GroupCoordinator, GroupError};
use crate::memory_budget::Budgets;
use crate::model_topics::{self, Registry, Setup};
use crate::producer_ids::ProducerIds;
use crate::transaction::{Limits, Parts, TransactionCoordinator};

/// What is written on a full disk, too: deletions of topics, and of groups' offsets with them.
const ESSENTIAL_TOPICS: &[&str] = &[CATALOG_TOPIC, OFFSETS_TOPIC];

/// Why the data folder, or what is in it, can't be opened or closed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The log.
    #[error(transparent)]
    Storage(#[from] storage::Error),
    /// The catalog.
    #[error("catalog: {0}")]
    Catalog(CatalogError),
    /// A topic of the configuration can't be created.
    #[error("topic '{name}': {error}")]
    Topic {
        /// The topic.
        name: String,
        /// Why not.
        error: CatalogError,
    },
    /// The defaults for topics make no sense.
    #[error(transparent)]
    Defaults(#[from] Problem),
    /// Consumer groups.
    #[error("groups: {0}")]
    Groups(#[from] GroupError),
    /// Transactions.
    #[error("transactions: {0}")]
    Transactions(LogError),
    /// Model topics.
    #[error(transparent)]
    ModelTopics(#[from] model_topics::StartError),
    /// A thread of the server panicked.
    #[error("{0}")]
    Panicked(String),
}

/// The open parts.
pub(super) struct Opened {
    pub(super) log_dir: Arc<LogDir>,
    pub(super) disk: Arc<ReservedDisk>,
    pub(super) broker: Arc<Broker>,
    /// What compaction obeys, from now on.
    pub(super) cleaner: watch::Receiver<CleanerConfig>,
}

/// Opens everything; what was opened is closed again if a later part fails.
pub(super) async fn open(
    config: &Config,
    advertised: (String, u16),
    shutdown: watch::Receiver<bool>,
) -> Result<Opened, OpenError> {
    let folder = &config.broker.data_dir;
    let disk = ReservedDisk::new(Arc::new(RealDisk), folder, ESSENTIAL_TOPICS);
    let disk = Arc::new(disk);
    let log_dir = Arc::new(open_log_dir(config, &disk).await?);
    let (told, cleaner) = watch::channel(config.log.cleaner());
    match open_broker(config, advertised, shutdown, &log_dir, &disk, told).await {
        Ok(broker) => Ok(Opened {
            log_dir,
            disk,
            broker,
            cleaner,
        }),
        Err(error) => {
            if let Err(error) = close_log_dir(&log_dir).await {
                tracing::error!(%error, "closing the data folder failed");
            }
            Err(error)
        }
    }
}

async fn open_log_dir(config: &Config, disk: &Arc<ReservedDisk>) -> Result<LogDir, OpenError> {
    let broker = &config.broker;
    let log_dir = LogDirConfig {
        path: broker.data_dir.clone(),
        node_id: broker.node_id,
        sync_threads: broker.sync_threads,
        recovery_threads: broker.recovery_threads,
    };
    let disk = Arc::clone(disk);
    blocking(move || {
        let opened = LogDir::open(log_dir, Arc::clone(&disk) as Arc<dyn Disk>)?;
        if let Err(error) = disk.make_reserve() {
            tracing::warn!(%error, "there is no reserve for a full disk");
        }
        Ok(opened)
    })
    .await
}

async fn open_broker(
    config: &Config,
    advertised: (String, u16),
    shutdown: watch::Receiver<bool>,
    log_dir: &Arc<LogDir>,
    disk: &Arc<ReservedDisk>,
    cleaner: watch::Sender<CleanerConfig>,
) -> Result<Arc<Broker>, OpenError> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let defaults = config.topic_defaults()?;
    let catalog = Catalog::open(log_dir.clone(), defaults, clock.clone()).await;
    let catalog = Arc::new(catalog.map_err(OpenError::Catalog)?);
    create_topics(config, &catalog).await?;
    let model_topics = Registry::start(Setup {
        catalog: catalog.clone(),
        log_dir: log_dir.clone(),
        models: config.model.clone(),
        model_topics: config.model_topic.clone(),
        base_dir: config.base_dir.clone(),
        num_partitions: config.broker.num_partitions,
        event_times: config.event_times(),
        rebuild_state: config.rebuild_state.clone(),
        clock: clock.clone(),
    });
    let model_topics = Arc::new(model_topics.await?);
    let settings = config.settings();
    // After the model topics: offsets committed on derived topics are held against their ends.
    let groups = match GroupCoordinator::open(catalog.clone(), &settings, clock.clone()).await {
        Ok(groups) => groups,
        Err(error) => {
            model_topics.stop().await;
            return Err(error.into());
        }
    };
    groups.set_read_only_groups(model_topics.clone());
    let transactions = TransactionCoordinator::open(Parts {
        catalog: catalog.clone(),
        groups: groups.clone(),
        producer_ids: Arc::new(ProducerIds::new(catalog.clone())),
        clock: clock.clone(),
        limits: transaction_limits(&settings),
    });
    let transactions = match transactions.await {
        Ok(transactions) => transactions,
        Err(error) => {
            model_topics.stop().await;
            return Err(OpenError::Transactions(error));
        }
    };
    let fetch_sessions = FetchSessions::new(
        settings.max_incremental_fetch_session_cache_slots,
        settings.min_incremental_fetch_session_eviction_ms,
        clock.clone(),
    );
    let admission = config.admission()?;
    let (limits, file) = (admission.clone(), config.broker.clone());
    let cleaner_of_file = config.log.cleaner();
    let observed = catalog.observe_broker_configs(move |configs| {
        let max_connections = configs.number("max.connections");
        limits.set_max_connections(max_connections.unwrap_or(file.max_connections));
        let per_ip = configs.number("max.connections.per.ip");
        let per_ip_of_file = usize::try_from(file.max_connections_per_ip).unwrap_or(usize::MAX);
        limits.set_max_connections_per_ip(per_ip.unwrap_or(per_ip_of_file));
        cleaner.send_if_modified(|now| {
            let before = std::mem::replace(now, cleaner_of_file.with(configs));
            before != *now
        });
    });
    observed.await;
    Ok(Arc::new(Broker {
        admission,
        memory: Budgets::new(
            settings.queued_max_request_bytes,
            settings.queued_max_response_bytes,
        ),
        recompressing: Arc::new(Semaphore::new(settings.network_threads.max(1))),
        node_id: config.broker.node_id,
        advertised,
        cluster_id: log_dir.cluster_id().to_owned(),
        settings,
        groups,
        fetch_sessions,
        transactions,
        model_topics,
        catalog,
        disk: Arc::clone(disk),
        shutdown,
        clock,
    }))
}

fn transaction_limits(settings: &Settings) -> Limits {
    let expiration_ms = i64::try_from(settings.transactional_id_expiration_ms);
    Limits {
        state_log_partitions: settings.transaction_state_log_num_partitions,
        max_timeout_ms: settings.transaction_max_timeout_ms,
        expiration_ms: expiration_ms.unwrap_or(i64::MAX),
        time_out_interval: Duration::from_millis(
            settings.transaction_abort_timed_out_transaction_cleanup_interval_ms,
        ),
        expiration_interval: Duration::from_millis(
            settings.transaction_remove_expired_transaction_cleanup_interval_ms,
        ),
    }
}

/// Creates the topics of the configuration that do not exist.
async fn create_topics(config: &Config, catalog: &Catalog) -> Result<(), OpenError> {
    for topic in &config.topic {
        if catalog.topic(&topic.name).is_some() {
            continue;
        }
        let new = NewTopic {
            name: topic.name.clone(),
            partitions: topic.partitions.unwrap_or(config.broker.num_partitions),
            configs: topic.configs().into_iter().collect::<BTreeMap<_, _>>(),
            kind: TopicKind::Ordinary,
        };
        match catalog.create_topic(new).await {
            Ok(_) | Err(CatalogError::TopicExists(_)) => {}
            Err(error) => {
                return Err(OpenError::Topic {
                    name: topic.name.clone(),
                    error,
                });
            }
        }
    }
    Ok(())
}

/// Stops what writes, then syncs and closes every log.
pub(super) async fn close(broker: &Broker, log_dir: &Arc<LogDir>) -> Result<(), OpenError> {
    broker.model_topics.stop().await;
    close_log_dir(log_dir).await
}

async fn close_log_dir(log_dir: &Arc<LogDir>) -> Result<(), OpenError> {
    let log_dir = log_dir.clone();
    blocking(move || log_dir.shutdown()).await
}

/// Runs what waits for the disk where it holds up nothing else.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, storage::Error> + Send + 'static,
) -> Result<T, OpenError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => Ok(done?),
        Err(error) => Err(OpenError::Panicked(error.to_string())),
    }
}
