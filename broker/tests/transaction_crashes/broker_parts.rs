//! What of a broker transactions need, over a disk that a test has.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use broker::catalog::{Catalog, NewTopic, Topic, TopicDefaults, TopicKind};
use broker::clock::SystemClock;
use broker::config::Config;
use broker::group::GroupCoordinator;
use broker::producer_ids::ProducerIds;
use broker::transaction::{self, Limits, TransactionCoordinator};
use faulty_disk::FaultyDisk;
use storage::LogDir;
use storage::log_dir::LogDirConfig;
use tempfile::TempDir;

/// The topic that transactions write to, and how many partitions it has.
pub const TOPIC: &str = "t";
pub const PARTITIONS: i32 = 2;

pub struct Parts {
    pub catalog: Arc<Catalog>,
    pub groups: Arc<GroupCoordinator>,
    pub transactions: Arc<TransactionCoordinator>,
    _log_dir: Arc<LogDir>,
}

/// A folder in memory, where the system has one: hundreds of images are written.
pub fn scratch() -> TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap())
}

impl Parts {
    /// As a start does; creates the topic where it is missing.
    pub async fn open(folder: &Path, disk: FaultyDisk) -> Self {
        let config = LogDirConfig {
            path: folder.to_owned(),
            node_id: 0,
            sync_threads: 2,
            recovery_threads: 1,
        };
        let log_dir = Arc::new(LogDir::open(config, Arc::new(disk)).unwrap());
        let clock = Arc::new(SystemClock);
        let catalog = Catalog::open(log_dir.clone(), TopicDefaults::default(), clock.clone());
        let catalog = Arc::new(catalog.await.unwrap());
        if catalog.topic(TOPIC).is_none() {
            let new = NewTopic {
                name: TOPIC.to_owned(),
                partitions: PARTITIONS,
                configs: Default::default(),
                kind: TopicKind::Ordinary,
            };
            catalog.create_topic(new).await.unwrap();
        }
        let mut config = Config::default();
        config.group.offsets_topic_num_partitions = 1;
        let settings = config.settings();
        let groups = GroupCoordinator::open(catalog.clone(), &settings, clock.clone());
        let groups = groups.await.unwrap();
        let transactions = TransactionCoordinator::open(transaction::Parts {
            catalog: catalog.clone(),
            groups: groups.clone(),
            producer_ids: Arc::new(ProducerIds::new(catalog.clone())),
            clock,
            limits: Limits {
                state_log_partitions: 1,
                max_timeout_ms: 60_000,
                expiration_ms: i64::MAX,
                time_out_interval: Duration::from_millis(2),
                expiration_interval: Duration::from_secs(3600),
            },
        });
        Self {
            transactions: transactions.await.unwrap(),
            catalog,
            groups,
            _log_dir: log_dir,
        }
    }

    pub fn topic(&self) -> Arc<Topic> {
        self.catalog.topic(TOPIC).expect("it was created")
    }
}
