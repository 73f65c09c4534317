//! A catalog that was compacted says what it said before. It has large segments, so that they are
//! closed by their age here.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

use broker::catalog::broker_config::BrokerScope;
use broker::catalog::{
    Catalog, ConfigChange, ConfigOperation, ConfigTarget, NewTopic, TopicDefaults, TopicKind,
};
use broker::clock::Clock;
use storage::LogDir;
use storage::compaction::{CompactionStats, Compactor, CompactorConfig, Throttle};
use storage::disk::RealDisk;
use storage::log_dir::LogDirConfig;

const BEGIN_MS: i64 = 1_700_000_000_000;
/// Longer than a segment of the catalog is written, and than a tombstone is kept.
const EIGHT_DAYS_MS: i64 = 8 * 24 * 60 * 60 * 1000;

#[derive(Clone, Debug, Default)]
struct Time(Arc<AtomicI64>);

impl Time {
    fn pass(&self, ms: i64) {
        self.0.fetch_add(ms, Ordering::Relaxed);
    }
}

impl Clock for Time {
    fn now_ms(&self) -> i64 {
        BEGIN_MS + self.0.load(Ordering::Relaxed)
    }

    fn instant(&self) -> Instant {
        Instant::now()
    }
}

struct World {
    log_dir: Arc<LogDir>,
    catalog: Catalog,
    time: Time,
}

impl World {
    async fn open(path: &Path, time: &Time) -> Self {
        let log_dir = open_log_dir(path, time);
        let (defaults, clock) = (TopicDefaults::default(), Arc::new(time.clone()));
        let catalog = Catalog::open(Arc::clone(&log_dir), defaults, clock).await;
        Self {
            log_dir,
            catalog: catalog.unwrap(),
            time: time.clone(),
        }
    }

    async fn create(&self, name: &str) {
        let new = NewTopic {
            name: name.to_owned(),
            partitions: 1,
            configs: BTreeMap::new(),
            kind: TopicKind::Ordinary,
        };
        self.catalog.create_topic(new).await.unwrap();
    }

    /// Changes that supersede each other.
    async fn change(&self, round: i64) {
        for value in 1..=20 {
            let value = (round * 100 + value).to_string();
            let set = |key: &str| {
                let set = ConfigOperation::Set(value.clone());
                ConfigChange::Each(BTreeMap::from([(key.to_owned(), set)]))
            };
            let topic = ConfigTarget::Topic("kept".to_owned());
            let altered = self.catalog.alter_configs(topic, set("segment.ms"), false);
            altered.await.unwrap();
            let cluster = ConfigTarget::Broker(BrokerScope::Cluster);
            let altered = self
                .catalog
                .alter_configs(cluster, set("max.connections"), false);
            altered.await.unwrap();
        }
        self.catalog.next_producer_id_block(1000).await.unwrap();
    }

    /// Closes the catalog's segment and compacts it.
    async fn compact(&self, round: i64) -> CompactionStats {
        self.time.pass(EIGHT_DAYS_MS);
        self.change(round).await;
        let log_dir = Arc::clone(&self.log_dir);
        let work = move || {
            let (throttle, stop) = (Throttle::new(None), AtomicBool::new(false));
            let config = CompactorConfig::default();
            let mut compactor = Compactor::new(config, throttle.into(), stop.into());
            let pass = log_dir.compact_next(&mut compactor).expect("a pass");
            assert_eq!(pass.log.topic(), "__milena_catalog");
            pass.outcome.unwrap()
        };
        tokio::task::spawn_blocking(work).await.unwrap()
    }

    /// What the catalog says, as text.
    async fn says(&self) -> String {
        let topics = self.catalog.topics();
        let topics: Vec<_> = topics
            .iter()
            .map(|topic| (&topic.name, topic.id, &topic.kind, &topic.configs))
            .collect();
        format!("{topics:?} {:?}", self.catalog.broker_configs())
    }
}

fn open_log_dir(path: &Path, time: &Time) -> Arc<LogDir> {
    let config = LogDirConfig {
        path: path.to_owned(),
        node_id: 0,
        sync_threads: 2,
        recovery_threads: 2,
    };
    // A change whose caller went away may hold the folder a moment longer than the catalog.
    for _ in 0..500 {
        let now = time.clone();
        let clock = storage::clock::Clock::new(move || now.now_ms());
        match LogDir::open_with_clock(config.clone(), Arc::new(RealDisk), clock) {
            Err(storage::Error::Locked(_)) => std::thread::sleep(Duration::from_millis(10)),
            opened => return Arc::new(opened.unwrap()),
        }
    }
    panic!("{} stays locked", path.display());
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for file in std::fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_catalog_that_was_compacted_says_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let copies = tempfile::tempdir().unwrap();
    let time = Time::default();
    let mut world = World::open(folder.path(), &time).await;
    for name in ["kept", "gone", "again"] {
        world.create(name).await;
    }
    let gone = folder.path().join("gone-0");
    copy_folder(&gone, &copies.path().join("gone-0"));
    world.change(0).await;
    for name in ["gone", "again"] {
        world.catalog.delete_topic(name).await.unwrap();
    }
    world.create("again").await;

    let mut tombstones = Vec::new();
    for round in 1..=4 {
        let stats = world.compact(round).await;
        assert!(stats.records_kept < stats.records_read / 2, "{stats:?}");
        // Each topic that is there, the broker's configs and the producer ids; and what is deleted.
        tombstones.push(stats.records_kept - 4);
        let before = world.says().await;
        if round % 2 == 0 {
            let log_dir = Arc::clone(&world.log_dir);
            let stop = move || log_dir.shutdown();
            tokio::task::spawn_blocking(stop).await.unwrap().unwrap();
        }
        drop(world);
        if round == 1 {
            // As if its removal had failed: the record with its id is compacted away.
            copy_folder(&copies.path().join("gone-0"), &gone);
        }
        world = World::open(folder.path(), &time).await;
        assert_eq!(world.says().await, before);
        assert!(!gone.exists(), "{round}");
        let block = world.catalog.next_producer_id_block(1).await.unwrap();
        assert_eq!(block.start, (round + 1) * 1000 + round - 1);
    }
    assert_eq!(tombstones.first(), Some(&1), "{tombstones:?}");
    assert_eq!(tombstones.last(), Some(&0), "{tombstones:?}");
}
