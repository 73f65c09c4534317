//! What is done on the disk that every crash point is taken from, and what it promises.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use inference::stream_log::Commit;
use storage::batch::{BatchBuilder, Compression};
use storage::partition_log::{DeleteTo, Durability};
use storage::{LogConfig, Offset};

use super::super::world::{Crash, PARTITIONS, Runner, World};
use super::state;
use crate::catalog::{NewTopic, TopicKind};

const TOPICS: [&str; 5] = [
    "transactions",
    "scored",
    "scored.dlq",
    "alerts",
    "alerts.dlq",
];
const PRODUCER: i64 = 7;

/// What somebody was told, and from when on it has to hold.
#[derive(Clone, Debug)]
pub(super) struct Promise {
    /// After so many system calls.
    pub(super) since: usize,
    pub(super) what: Promised,
}

#[derive(Clone, Debug)]
pub(super) enum Promised {
    /// Inputs below this offset are durable.
    Input { partition: i32, end: Offset },
    /// The log of an input begins here, or later.
    Start { partition: i32, start: Offset },
    /// Consumers have seen so many records.
    Seen {
        topic: &'static str,
        partition: i32,
        count: usize,
    },
    /// A topic is there, or is not.
    Topic { there: bool },
    /// What the compacted topic has below this offset is durable.
    State { end: Offset },
}

/// The script, and what it has promised so far.
pub(super) struct Script {
    pub(super) world: World,
    pub(super) promises: Vec<Promise>,
    scored: Option<Runner>,
    alerts: Option<Runner>,
}

impl Script {
    pub(super) fn new(world: World) -> Self {
        Self {
            world,
            promises: Vec::new(),
            scored: None,
            alerts: None,
        }
    }

    fn promise(&mut self, what: Promised) {
        let since = self.world.disk.recorded();
        self.promises.push(Promise { since, what });
    }

    async fn start(&mut self) {
        if !self.world.is_open() {
            self.world.open().await;
        }
        small_segments(&self.world);
        let mut scored = Runner::start(self.world.log("scored")).await;
        scored.place = crosswise;
        self.scored = Some(scored);
        self.alerts = Some(Runner::start(self.world.log("alerts")).await);
    }

    /// Several batches of an idempotent producer.
    async fn produce(&mut self, partition: i32, batches: usize, durable: bool) {
        let log = self.world.partition("transactions", partition);
        for size in 1..=batches {
            let end = log.offsets().log_end_offset;
            log.append(&produced(partition, end, size)).unwrap();
        }
        if durable {
            let end = log.offsets().log_end_offset;
            log.wait(end, Durability::Disk).await.unwrap();
            self.promise(Promised::Input { partition, end });
        }
    }

    /// Both tasks of a model topic read what there is and commit it together, or one by one.
    async fn commit(&mut self, model_topic: &'static str, together: bool) {
        let (runner, input) = match model_topic {
            "scored" => (self.scored.as_mut().unwrap(), "transactions"),
            _ => (self.alerts.as_mut().unwrap(), "scored"),
        };
        let mut commits: Vec<Commit> = Vec::new();
        for partition in 0..PARTITIONS {
            let end = self.world.partition(input, partition).offsets();
            commits.extend(
                runner
                    .read(partition, end.high_watermark)
                    .await
                    .iter()
                    .cloned(),
            );
        }
        if together {
            runner.commit(&Arc::from(commits)).await.unwrap();
        } else {
            for commit in commits {
                runner.commit(&Arc::from([commit])).await.unwrap();
            }
        }
        for partition in 0..PARTITIONS {
            let count = self.world.values(model_topic, partition).len();
            self.promise(Promised::Seen {
                topic: model_topic,
                partition,
                count,
            });
        }
    }

    fn delete(&mut self, partition: i32, start: Offset) {
        let log = self.world.partition("transactions", partition);
        let wanted = [(log, DeleteTo::Offset(start))];
        let deleted = self.world.log_dir().delete_records(&wanted);
        assert_eq!(deleted[0].as_ref().unwrap(), &start);
        self.promise(Promised::Start { partition, start });
    }

    fn checkpoint(&self) {
        self.world.log_dir().checkpoint().unwrap();
    }

    /// Several batches for the compacted topic.
    async fn put(&mut self, batches: usize) {
        let log = state::log(&self.world).unwrap();
        for size in 1..=batches {
            let end = log.offsets().log_end_offset;
            log.append(&state::produced(end, size)).unwrap();
        }
        let end = log.offsets().log_end_offset;
        log.wait(end, Durability::Disk).await.unwrap();
        self.promise(Promised::State { end });
    }

    /// Compacts whatever is due; that has to be something.
    fn compact(&self) {
        let compacted = state::compact(&self.world);
        assert!(compacted.contains("state"), "{compacted:?}");
    }

    async fn stop(&mut self) {
        (self.scored, self.alerts) = (None, None);
        self.world.log_dir().shutdown().unwrap();
        self.world.end(Crash::Kill);
    }

    pub(super) async fn run(&mut self) {
        self.start().await;
        self.produce(0, 3, true).await;
        self.produce(1, 4, true).await;
        self.commit("scored", false).await;
        self.checkpoint();
        self.produce(0, 5, false).await;
        self.commit("alerts", true).await;
        self.commit("scored", true).await;
        self.create_other().await;
        state::create(&self.world).await;
        small_segments(&self.world);
        self.promise(Promised::State { end: 0 });
        self.put(5).await;
        self.compact();
        self.produce(1, 5, true).await;
        self.checkpoint();
        self.delete(0, 9);
        self.produce(0, 4, true).await;
        self.commit("scored", false).await;
        self.commit("alerts", false).await;
        self.put(5).await;
        self.compact();
        self.stop().await;
        self.start().await;
        self.produce(0, 2, false).await;
        self.produce(1, 3, true).await;
        self.delete_other().await;
        self.delete(1, 20);
        self.commit("scored", true).await;
        self.produce(1, 1, false).await;
        self.put(4).await;
        self.commit("alerts", true).await;
        self.compact();
    }

    async fn create_other(&mut self) {
        let topic = NewTopic {
            name: "other".to_owned(),
            partitions: 1,
            configs: BTreeMap::new(),
            kind: TopicKind::Ordinary,
        };
        let created = self.world.catalog().create_topic(topic).await.unwrap();
        created.partitions[0].append(&produced(0, 0, 3)).unwrap();
        self.promise(Promised::Topic { there: true });
    }

    async fn delete_other(&mut self) {
        // From now on nobody is promised either.
        for promise in &mut self.promises {
            if let Promised::Topic { there: true } = promise.what {
                promise.what = Promised::Start {
                    partition: 0,
                    start: 0,
                };
            }
        }
        self.world.catalog().delete_topic("other").await.unwrap();
        self.promise(Promised::Topic { there: false });
    }
}

/// Segments of a few batches.
pub(super) fn small_segments(world: &World) {
    let config = LogConfig {
        segment_bytes: 700,
        index_interval_bytes: 150,
        ..LogConfig::default()
    };
    let compacted = Arc::new(LogConfig {
        compact: true,
        delete: false,
        min_cleanable_dirty_ratio: 0.0,
        ..config.clone()
    });
    let config = Arc::new(config);
    for topic in TOPICS {
        for partition in &world.topic(topic).partitions {
            partition.set_config(Arc::clone(&config));
        }
    }
    for model_topic in ["scored", "alerts"] {
        world
            .topics(model_topic)
            .changelog
            .set_config(Arc::clone(&compacted));
    }
    if let Some(state) = state::log(world) {
        // A tombstone goes with the second compaction, and files with the records.
        state.set_config(Arc::new(LogConfig {
            segment_bytes: 300,
            delete_retention_ms: 0,
            file_delete_delay_ms: 0,
            ..LogConfig::clone(&compacted)
        }));
    }
}

/// An output's partition depends on the input's number, not on where it comes from.
pub(super) fn crosswise(_: i32, value: &[u8]) -> i32 {
    i32::from(value.last().is_some_and(|digit| digit % 2 == 1))
}

pub(super) fn input(partition: i32, offset: Offset) -> String {
    format!("{partition}:{offset}")
}

/// One batch of the producer whose sequences are its offsets; a record's timestamp is its offset.
pub(super) fn produced(partition: i32, base: Offset, count: usize) -> Bytes {
    let mut batch =
        BatchBuilder::new(Compression::None).producer(PRODUCER, 0, i32::try_from(base).unwrap());
    for offset in base..base + count as Offset {
        let value = input(partition, offset);
        batch.push(offset, Some(b"key"), Some(value.as_bytes()), &[]);
    }
    batch.build()
}
