//! A data folder with a registry that runs over it.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use faulty_disk::FaultyDisk;
use inference::spec::{ModelSpec, ModelTopicSpec, Spanned};
use storage::batch::{BatchBuilder, Compression, Record};
use storage::log_dir::LogDirConfig;
use storage::partition_log::{Durability, ReadLimit};
use storage::{LogConfig, LogDir};

use super::super::crash_points::compact_all;
use super::super::world::records;
use super::payments::{self, Payment, Scored};
use crate::catalog::{Catalog, NewTopic, TopicDefaults, TopicKind};
use crate::clock::SystemClock;
use crate::model_topics::{Registry, Setup};

const CONFIG: &str = r#"
[[model]]
name = "m"
source = "m"

[[model_topic]]
name = "scored"
input = "payments"
model = "m"
key = "$.customer"
output = { template = { customer = "$in.customer", n = "$f.n", sum = "$f.sum", v = "$out.value" } }
feature = [
  { name = "n", agg = "count" },
  { name = "sum", agg = "sum", path = "$.amount" },
  { name = "recent", agg = "count", window = { sliding = "10s", slice = "1s", grace = "1h" } },
]
rule = [{ when = "$f.n >= 3", produce = "alerts" }]

[[model_topic]]
name = "checked"
input = "scored"
model = "m"
output = { template = { customer = "$in.customer", n = "$f.m", sum = "$in.sum", v = "$out.value" } }
feature = [{ name = "m", agg = "count" }]
"#;

/// How many outputs of each topic and partition consumers have seen.
pub(super) type Seen = BTreeMap<(&'static str, i32), Vec<Option<Bytes>>>;

#[derive(serde::Deserialize)]
struct Config {
    model: Vec<Spanned<ModelSpec>>,
    model_topic: Vec<Spanned<ModelTopicSpec>>,
}

pub(super) struct House {
    log_dir: Arc<LogDir>,
    catalog: Arc<Catalog>,
    registry: Registry,
}

/// A folder with a model, `amount + 10 n`, as an exporter writes it.
fn models() -> &'static Path {
    static MODELS: OnceLock<tempfile::TempDir> = OnceLock::new();
    let folder = MODELS.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let card = r#"{"model_type": "linear", "task": "regress", "output": 1, "inputs": [
            {"name": "amount", "path": "$.amount", "default": 0}, {"name": "n", "path": "$.n", "default": 0}]}"#;
        let header = r#"{"layers.0.weight":{"dtype":"F32","shape":[1,2],"data_offsets":[0,8]},"layers.0.bias":{"dtype":"F32","shape":[1],"data_offsets":[8,12]}}"#;
        let mut weights = (header.len() as u64).to_le_bytes().to_vec();
        weights.extend(header.bytes());
        weights.extend([1f32, 10.0, 0.0].into_iter().flat_map(f32::to_le_bytes));
        std::fs::create_dir(folder.path().join("m")).unwrap();
        std::fs::write(folder.path().join("m/config.json"), card).unwrap();
        std::fs::write(folder.path().join("m/model.safetensors"), weights).unwrap();
        folder
    });
    folder.path()
}

impl House {
    /// As a start does.
    pub(super) async fn open(folder: &Path, disk: &FaultyDisk) -> Self {
        let config = LogDirConfig {
            path: folder.to_owned(),
            node_id: 0,
            sync_threads: 2,
            recovery_threads: 2,
        };
        let log_dir = Arc::new(LogDir::open(config, Arc::new(disk.clone())).unwrap());
        let clock = Arc::new(SystemClock);
        let catalog = Catalog::open(log_dir.clone(), TopicDefaults::default(), clock.clone());
        let catalog = Arc::new(catalog.await.unwrap());
        if catalog.topic("payments").is_none() {
            let topic = NewTopic {
                name: "payments".to_owned(),
                partitions: 2,
                configs: BTreeMap::new(),
                kind: TopicKind::Ordinary,
            };
            catalog.create_topic(topic).await.unwrap();
        }
        let config: Config = toml::from_str(CONFIG).unwrap();
        let registry = Registry::start(Setup {
            catalog: catalog.clone(),
            log_dir: log_dir.clone(),
            models: config.model,
            model_topics: config.model_topic,
            base_dir: models().to_owned(),
            num_partitions: 2,
            event_times: Default::default(),
            rebuild_state: Vec::new(),
            clock,
        });
        let house = Self {
            registry: registry.await.unwrap(),
            log_dir,
            catalog,
        };
        house.small_changelogs();
        house
    }

    /// So that there is something to compact.
    fn small_changelogs(&self) {
        let config = Arc::new(LogConfig {
            segment_bytes: 4000,
            index_interval_bytes: 500,
            compact: true,
            delete: false,
            min_cleanable_dirty_ratio: 0.0,
            ..LogConfig::default()
        });
        for topic in ["scored", "scored.repartition", "checked"] {
            let changelog = self.log(&format!("{topic}.changelog"), 0);
            changelog.set_config(Arc::clone(&config));
        }
    }

    /// As a clean stop does.
    pub(super) async fn close(self) {
        self.registry.stop().await;
        self.log_dir.shutdown().unwrap();
    }

    fn log(&self, topic: &str, partition: i32) -> Arc<storage::PartitionLog> {
        self.catalog.topic(topic).unwrap().partitions[partition as usize].clone()
    }

    /// Durably.
    pub(super) async fn produce(&self, partition: i32, offsets: Range<i64>) {
        let mut batch = BatchBuilder::new(Compression::None);
        for offset in offsets {
            let value = payments::json((partition, offset));
            let key = format!("{partition}-{offset}");
            batch.push(
                1_700_000_000_000 + offset,
                Some(key.as_bytes()),
                Some(value.as_bytes()),
                &[],
            );
        }
        let log = self.log("payments", partition);
        let end = log.append(&batch.build()).unwrap().last_offset + 1;
        log.wait(end, Durability::Disk).await.unwrap();
    }

    pub(super) fn ends(&self) -> BTreeMap<i32, i64> {
        let end = |partition| self.log("payments", partition).offsets().log_end_offset;
        (0..2)
            .map(|partition| (partition, end(partition)))
            .collect()
    }

    /// Waits until everything up to these ends has gone all the way.
    pub(super) async fn caught_up(&self, ends: &BTreeMap<i32, i64>) {
        let count = |topic: &str| -> i64 {
            let end = |partition| self.log(topic, partition).offsets().high_watermark;
            (0..2).map(end).sum()
        };
        let all: i64 = ends.values().sum();
        let waiting = async {
            while count("scored") + count("scored.dlq") < all || count("checked") < count("scored")
            {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        if tokio::time::timeout(Duration::from_secs(30), waiting)
            .await
            .is_err()
        {
            let counts = ["scored", "scored.dlq", "checked", "scored.repartition"].map(count);
            panic!("of {all} payments there are {counts:?}");
        }
    }

    fn published(&self, topic: &str) -> Vec<(i32, Record)> {
        let of = |partition| {
            let records = records(&self.log(topic, partition), ReadLimit::HighWatermark).unwrap();
            records.into_iter().map(move |record| (partition, record))
        };
        (0..2).flat_map(of).collect()
    }

    pub(super) fn seen(&self) -> Seen {
        let mut seen = Seen::new();
        for topic in ["scored", "scored.dlq", "alerts", "checked"] {
            for (partition, record) in self.published(topic) {
                seen.entry((topic, partition))
                    .or_default()
                    .push(record.value);
            }
        }
        seen
    }

    /// What was seen is there still, in its order.
    pub(super) fn check_seen(&self, before: &Seen) {
        let now = self.seen();
        for (place, values) in before {
            let found = now.get(place).map(Vec::as_slice).unwrap_or_default();
            assert!(found.starts_with(values), "{place:?}: {found:?}");
        }
    }

    pub(super) fn outputs(&self, topic: &str) -> Vec<Scored> {
        let outputs = self.published(topic).into_iter();
        outputs
            .map(|(partition, record)| {
                let value = record.value.as_deref().unwrap();
                let json: serde_json::Value = serde_json::from_slice(value).unwrap();
                Scored {
                    source: source(&record),
                    at: (partition, record.offset),
                    customer: json["customer"].as_str().unwrap().to_owned(),
                    n: json["n"].as_f64().unwrap(),
                    sum: json["sum"].as_f64().unwrap(),
                    value: String::from_utf8(value.to_vec()).unwrap(),
                }
            })
            .collect()
    }

    /// Where dead letters came from.
    pub(super) fn dead(&self) -> Vec<Payment> {
        let letters = self.published("scored.dlq").into_iter();
        letters
            .map(|(_, record)| {
                let source = header(&record, "source");
                let mut parts = source.rsplit('/');
                let offset = parts.next().unwrap().parse().unwrap();
                (parts.next().unwrap().parse().unwrap(), offset)
            })
            .collect()
    }

    /// Once it has caught up.
    pub(super) fn check(&self, ends: &BTreeMap<i32, i64>) {
        let outputs = self.outputs("scored");
        if let Err(wrong) = payments::check(ends, &outputs, &self.dead()) {
            panic!("{wrong}");
        }
        let values = |outputs: &[Scored]| -> Vec<(i32, String)> {
            outputs
                .iter()
                .map(|output| (output.at.0, output.value.clone()))
                .collect()
        };
        let expected: Vec<Scored> = outputs
            .iter()
            .filter(|output| output.n >= 3.0)
            .cloned()
            .collect();
        assert_eq!(values(&self.outputs("alerts")), values(&expected), "alerts");
        // The second model topic keeps its state by the records' keys, each of which comes once.
        let checked = self.outputs("checked");
        let sources: Vec<Payment> = checked.iter().map(|output| output.source).collect();
        let places: Vec<Payment> = outputs.iter().map(|output| output.at).collect();
        assert_eq!(sources, places, "checked");
        for (output, of) in checked.iter().zip(&outputs) {
            assert_eq!(
                (output.n, output.sum),
                (1.0, of.sum),
                "{output:?} of {of:?}"
            );
        }
    }

    /// Compacts what there is to compact, changelogs among it.
    pub(super) fn compact(&self) {
        let compacted = compact_all(&self.log_dir);
        assert!(compacted.contains("scored.changelog"), "{compacted:?}");
    }
}

fn header(record: &Record, name: &str) -> String {
    let mut headers = record.headers.iter();
    let found = headers.find(|header| header.key == name.as_bytes());
    let value = found.and_then(|header| header.value.clone());
    String::from_utf8(value.unwrap_or_default().to_vec()).unwrap()
}

fn source(record: &Record) -> Payment {
    let number = |name| header(record, name).parse::<i64>().unwrap();
    (
        number("milena.source.partition") as i32,
        number("milena.source.offset"),
    )
}
