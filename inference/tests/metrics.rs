//! The metrics of a model topic. Alone in its file, since a recorder is the process's.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use candle_core::{Device, Tensor};
use inference::engine::{Engine, EngineConfig};
use inference::model::{LoadOptions, load};
use inference::spec::{ModelTopicSpec, Start};
use inference::stream_log::memory::{CommitFault, MemoryTopics, NewRecord};
use metrics::{
    Counter, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit,
};

/// Counters and gauges by name and labels; histograms count their values.
#[derive(Default, Clone)]
struct Kept(Arc<Mutex<BTreeMap<String, Arc<AtomicU64>>>>);

struct Count(Arc<AtomicU64>);

impl HistogramFn for Count {
    fn record(&self, _value: f64) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Kept {
    fn cell(&self, key: &Key) -> Arc<AtomicU64> {
        let labels: Vec<String> = key
            .labels()
            .map(|label| format!("{}={}", label.key(), label.value()))
            .collect();
        let name = format!("{}{{{}}}", key.name(), labels.join(","));
        Arc::clone(self.0.lock().unwrap().entry(name).or_default())
    }

    /// 0 where there is none yet.
    fn get(&self, name: &str) -> u64 {
        let cells = self.0.lock().unwrap();
        cells
            .get(name)
            .map_or(0, |cell| cell.load(Ordering::Relaxed))
    }
}

impl Recorder for Kept {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.cell(key))
    }
    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.cell(key))
    }
    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(Arc::new(Count(self.cell(key))))
    }
}

#[tokio::test]
async fn says_how_a_model_topic_is_doing() {
    let kept = Kept::default();
    metrics::set_global_recorder(kept.clone()).ok().unwrap();

    let folder = tempfile::tempdir().unwrap();
    let card = r#"{"model_type":"linear","task":"regress","inputs":[{"path":"$.x"}],"output":1}"#;
    std::fs::write(folder.path().join("config.json"), card).unwrap();
    let tensors = HashMap::from([
        (
            "layers.0.weight",
            Tensor::new(&[[2f32]], &Device::Cpu).unwrap(),
        ),
        ("layers.0.bias", Tensor::new(&[0f32], &Device::Cpu).unwrap()),
    ]);
    candle_core::safetensors::save(&tensors, folder.path().join("model.safetensors")).unwrap();
    let model = load("double", "1", folder.path(), &LoadOptions::default()).unwrap();
    let engine = Engine::start(model, EngineConfig::default()).unwrap();
    let spec: ModelTopicSpec =
        toml::from_str("name = 't'\ninput = 'in'\nmodel = 'double'").unwrap();

    let topics = MemoryTopics::new(&["in"], 1, Start::Earliest);
    let append = |value: &'static str| {
        let value = Some(Bytes::from_static(value.as_bytes()));
        topics.append(
            0,
            0,
            vec![NewRecord {
                value,
                ..NewRecord::default()
            }],
        );
    };
    let running = inference::task::spawn(Arc::new(spec), engine, topics.open()).unwrap();
    for value in [r#"{"x":1}"#, "{}", r#"{"x":3e38}"#, "no", r#"{"x":2}"#] {
        append(value);
    }
    let patience = Duration::from_secs(20);
    let committed = async {
        while kept.get("milena_model_topic_records_total{topic=t}") < 5 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(patience, committed).await.unwrap();
    assert_eq!(
        kept.get("milena_model_topic_errors_total{topic=t,stage=decode}"),
        2
    );
    assert_eq!(
        kept.get("milena_model_topic_errors_total{topic=t,stage=infer}"),
        1
    );
    for name in [
        "milena_model_topic_decode_seconds{topic=t}",
        "milena_model_topic_queue_seconds{topic=t}",
        "milena_model_topic_infer_seconds{topic=t}",
        "milena_model_topic_commit_seconds{topic=t}",
        "milena_inference_batch_records{model=double}",
        "milena_model_load_seconds{model=double}",
    ] {
        assert!(kept.get(name) > 0, "{name}");
    }
    assert_eq!(
        kept.get("milena_model_topic_halted{topic=t}"),
        0f64.to_bits()
    );

    // Halted, it goes on saying how far behind it is.
    topics.fail_commit(CommitFault::Fatal);
    append(r#"{"x":1}"#);
    append(r#"{"x":1}"#);
    let behind = async {
        let lag = "milena_model_topic_lag_records{topic=t,partition=0}";
        while kept.get("milena_model_topic_halted{topic=t}") != 1f64.to_bits()
            || kept.get(lag) != 2f64.to_bits()
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(patience, behind).await.unwrap();
    running.stop().await;
}
