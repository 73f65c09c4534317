//! The metrics of a model topic. Alone in its file, since a recorder is the process's.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use candle_core::{Device, Tensor};
use inference::engine::{Engine, EngineConfig};
use inference::model::{LoadOptions, load};
use inference::spec::{ModelTopicSpec, Start};
use inference::stream_log::memory::{CommitFault, MemoryTopics, NewRecord};
use recorder::Kept;

mod recorder;

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
