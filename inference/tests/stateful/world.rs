//! A model topic on the log in memory, with a linear model of four inputs: amount + 10 n + 100 sum + 0 since, each of which
//! is 0 where there is no such feature.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use candle_core::{Device, Tensor};
use inference::engine::{Engine, EngineConfig};
use inference::model::{LoadOptions, load};
use inference::spec::{ModelTopicSpec, Start};
use inference::stream_log::memory::{MemoryTopics, NewRecord};
use inference::stream_log::{Output, OutputTopic, Task};
use inference::task::{Running, Surroundings, spawn_in};

pub(crate) type Record = NewRecord;

const CARD: &str = r#"{
  "model_type": "linear", "task": "regress", "output": 1,
  "inputs": [
    { "name": "amount", "path": "$.amount", "default": 0 }, { "name": "n", "path": "$.none", "default": 0 },
    { "name": "sum", "path": "$.none", "default": 0 }, { "name": "since", "path": "$.none", "default": 0 }
  ]
}"#;

pub(crate) struct World {
    pub(crate) topics: MemoryTopics,
    folder: tempfile::TempDir,
    partitions: i32,
    life: std::cell::Cell<u32>,
}

impl World {
    /// Leaves what runs to itself. It may still write to its state's folder, as a process that was killed can't: the next one
    /// gets another.
    pub(crate) fn crash(&self, running: Running) {
        drop(running);
        self.life.set(self.life.get() + 1);
    }

    pub(crate) fn new(partitions: i32) -> Self {
        Self {
            topics: MemoryTopics::new(&["payments"], partitions, Start::Earliest),
            folder: tempfile::tempdir().unwrap(),
            partitions,
            life: std::cell::Cell::new(0),
        }
    }

    /// Starts a model topic with more of its keys; whatever ran before is fenced, as by a crash.
    pub(crate) fn start(&self, more: &str) -> Running {
        let toml = format!("name = 'scored'\ninput = 'payments'\nmodel = 'm'\n{more}");
        let spec: ModelTopicSpec = toml::from_str(&toml).unwrap();
        let surroundings = Surroundings {
            state_folder: Some(self.folder.path().join(self.life.get().to_string())),
            ..Surroundings::default()
        };
        spawn_in(Arc::new(spec), engine(), self.topics.open(), surroundings).unwrap()
    }

    /// To partition 0.
    pub(crate) fn append(&self, records: Vec<Record>) {
        assert!(self.partitions > 0 && self.topics.append(0, 0, records));
    }

    /// The JSON of so many outputs, of which there must be no more.
    pub(crate) async fn outputs(&self, partition: i32, count: usize) -> Vec<serde_json::Value> {
        let found = || self.topics.outputs(OutputTopic::Derived, partition);
        until("the outputs", || found().len() >= count).await;
        let outputs = found();
        assert_eq!(outputs.len(), count);
        outputs.iter().map(json).collect()
    }

    pub(crate) async fn until_position(&self, partition: i32, position: i64) {
        let task = Task { partition };
        until("the position", || {
            self.topics.positions(task).get(&0) == Some(&position)
        })
        .await;
    }
}

fn engine() -> Engine {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("config.json"), CARD).unwrap();
    let weight = Tensor::new(&[[1f32, 10.0, 100.0, 0.0]], &Device::Cpu).unwrap();
    let bias = Tensor::new(&[0f32], &Device::Cpu).unwrap();
    let tensors = HashMap::from([("layers.0.weight", weight), ("layers.0.bias", bias)]);
    candle_core::safetensors::save(&tensors, folder.path().join("model.safetensors")).unwrap();
    let model = load("m", "1", folder.path(), &LoadOptions::default()).unwrap();
    Engine::start(model, EngineConfig::default()).unwrap()
}

pub(crate) fn record(timestamp_ms: i64, key: &str, value: &str) -> Record {
    NewRecord {
        timestamp_ms,
        key: Some(Bytes::copy_from_slice(key.as_bytes())),
        value: Some(Bytes::copy_from_slice(value.as_bytes())),
        headers: Vec::new(),
    }
}

pub(crate) fn null_value(timestamp_ms: i64, key: &str) -> Record {
    NewRecord {
        value: None,
        ..record(timestamp_ms, key, "")
    }
}

pub(crate) fn json(output: &Output) -> serde_json::Value {
    serde_json::from_slice(output.value.as_ref().unwrap()).unwrap()
}

pub(crate) fn header(output: &Output, key: &str) -> String {
    let found = output.headers.iter().find(|header| header.key == key);
    let value = found.and_then(|header| header.value.clone());
    String::from_utf8(value.unwrap_or_default().to_vec()).unwrap()
}

pub(crate) async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let waiting = async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    if tokio::time::timeout(Duration::from_secs(30), waiting)
        .await
        .is_err()
    {
        panic!("{what} did not come");
    }
}
