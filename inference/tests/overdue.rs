//! A model that never returns is told of, and keeps nobody else from going on. Alone in its file, since a
//! recorder is the process's.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use inference::engine::{BatchLimits, Engine, EngineConfig};
use inference::model::card::{Card, ModelCard};
use inference::model::{
    Device, Footprint, InferError, Input, LoadedModel, Model, ModelInfo, Rows, Takes,
};
use recorder::Kept;

mod recorder;

const CARD: &str =
    r#"{"model_type":"linear","task":"regress","inputs":[{"path":"$.x"}],"output":1}"#;

/// Gives back what it is given, once it is let go.
struct Waits(Arc<AtomicBool>);

impl Model for Waits {
    fn takes(&self) -> Takes {
        Takes::Rows(1)
    }
    fn output_width(&self) -> usize {
        1
    }
    fn device(&self) -> Device {
        Device::Cpu
    }
    fn footprint(&self) -> Footprint {
        Footprint::default()
    }
    fn infer(&mut self, batch: &Input) -> Result<Rows, InferError> {
        while !self.0.load(Ordering::Acquire) {
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(batch.as_rows()?.clone())
    }
    fn replica(&self) -> Box<dyn Model> {
        Box::new(Self(Arc::clone(&self.0)))
    }
}

fn engine(name: &str, let_go: &Arc<AtomicBool>) -> Engine {
    let model = LoadedModel {
        info: ModelInfo {
            name: name.to_owned(),
            version: "1".to_owned(),
            sha256: "0".repeat(64),
        },
        card: Arc::new(Card::Tabular(ModelCard::parse(CARD.as_bytes()).unwrap())),
        model: Box::new(Waits(Arc::clone(let_go))),
    };
    let config = EngineConfig {
        timeout: Some(Duration::from_millis(5)),
        ..EngineConfig::default()
    };
    Engine::start(model, config).unwrap()
}

const LIMITS: BatchLimits = BatchLimits {
    max_records: 1,
    max_tokens: usize::MAX,
    max_delay: Duration::ZERO,
};

fn row(value: f32) -> Rows {
    Rows::from_values(1, vec![value]).unwrap()
}

#[tokio::test]
async fn a_model_that_never_returns_is_told_of() {
    let kept = Kept::default();
    metrics::set_global_recorder(kept.clone()).ok().unwrap();
    let overdue = |model: &str| {
        let name = format!("milena_model_overdue_passes{{model={model}}}");
        f64::from_bits(kept.get(&name))
    };
    let patience = Duration::from_secs(20);
    let let_go = Arc::<AtomicBool>::default();
    let stuck = engine("stuck", &let_go);
    let well = engine("well", &Arc::new(AtomicBool::new(true)));
    let mut pending = Vec::new();
    for number in 0..20 {
        pending.push(stuck.submit(row(number as f32), LIMITS).await.unwrap());
    }
    // Sixteen threads are left alone; what comes then waits, for as long as it takes.
    let mut pending = pending.into_iter();
    for pending in pending.by_ref().take(16) {
        let inferred = tokio::time::timeout(patience, pending.wait())
            .await
            .unwrap()
            .unwrap();
        assert_eq!(inferred.failed[0].reason, "the model took longer than 5ms");
    }
    let told = async {
        while overdue("stuck") < 17.0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(patience, told).await.unwrap();
    let mut waiting: Vec<_> = pending.collect();
    let first = &mut Box::pin(waiting.remove(0).wait());
    assert!(
        tokio::time::timeout(Duration::from_millis(300), &mut *first)
            .await
            .is_err()
    );
    let answer = well.submit(row(7.0), LIMITS).await.unwrap().wait();
    let answer = tokio::time::timeout(patience, answer)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(answer.logits.values(), [7.0]);
    assert_eq!(overdue("well"), 0.0);
    // Once the model returns, all goes on.
    let_go.store(true, Ordering::Release);
    let inferred = tokio::time::timeout(patience, first)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(inferred.logits.len(), 1);
    for pending in waiting {
        tokio::time::timeout(patience, pending.wait())
            .await
            .unwrap()
            .unwrap();
    }
    let over = async {
        while overdue("stuck") > 0.0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(patience, over).await.unwrap();
}
