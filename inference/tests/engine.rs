//! The batching queue: batches, what is bisected out of them, and how it ends.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use inference::engine::{BatchLimits, Engine, EngineConfig, EngineError};
use inference::model::card::{Card, ModelCard};
use inference::model::{
    Device, Footprint, InferError, Input, LoadedModel, Model, ModelInfo, Rows, Takes,
};

const CARD: &str =
    r#"{"model_type":"linear","task":"regress","inputs":[{"path":"$.x"}],"output":1}"#;
const FAILS: f32 = 666.0;
const PANICS: f32 = 667.0;
/// Until it is let go.
const HANGS: f32 = 668.0;

/// Doubles each number; fails on some; notes the sizes of its batches.
struct Double {
    sizes: Arc<Mutex<Vec<usize>>>,
    shut: Arc<AtomicBool>,
    let_go: Arc<AtomicBool>,
    replicas: Arc<AtomicUsize>,
}

impl Model for Double {
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
        let rows = batch.as_rows()?;
        self.sizes.lock().unwrap().push(rows.len());
        while self.shut.load(Ordering::Acquire) {
            std::thread::sleep(Duration::from_millis(1));
        }
        while rows.values().contains(&HANGS) && !self.let_go.load(Ordering::Acquire) {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(
            !rows.values().contains(&PANICS),
            "a number that I can't bear"
        );
        if rows.values().contains(&FAILS) {
            return Err(InferError("a number that fails".to_owned()));
        }
        let doubled = rows.values().iter().map(|value| value * 2.0).collect();
        Ok(Rows::from_values(1, doubled).unwrap_or(Rows::new(1)))
    }
    fn replica(&self) -> Box<dyn Model> {
        self.replicas.fetch_add(1, Ordering::Relaxed);
        Box::new(Self {
            sizes: Arc::clone(&self.sizes),
            shut: Arc::clone(&self.shut),
            let_go: Arc::clone(&self.let_go),
            replicas: Arc::clone(&self.replicas),
        })
    }
}

struct Fixture {
    engine: Engine,
    sizes: Arc<Mutex<Vec<usize>>>,
    shut: Arc<AtomicBool>,
    let_go: Arc<AtomicBool>,
    replicas: Arc<AtomicUsize>,
}

fn fixture(config: EngineConfig) -> Fixture {
    let (sizes, shut) = (
        Arc::<Mutex<Vec<usize>>>::default(),
        Arc::<AtomicBool>::default(),
    );
    let let_go = Arc::<AtomicBool>::default();
    let replicas = Arc::new(AtomicUsize::new(0));
    let model = LoadedModel {
        info: ModelInfo {
            name: "double".to_owned(),
            version: "1".to_owned(),
            sha256: "0".repeat(64),
        },
        card: Arc::new(Card::Tabular(ModelCard::parse(CARD.as_bytes()).unwrap())),
        model: Box::new(Double {
            sizes: Arc::clone(&sizes),
            shut: Arc::clone(&shut),
            let_go: Arc::clone(&let_go),
            replicas: Arc::clone(&replicas),
        }),
    };
    Fixture {
        engine: Engine::start(model, config).unwrap(),
        sizes,
        shut,
        let_go,
        replicas,
    }
}

const LIMITS: BatchLimits = BatchLimits {
    max_records: 64,
    max_tokens: usize::MAX,
    max_delay: Duration::ZERO,
};

fn rows(values: &[f32]) -> Rows {
    Rows::from_values(1, values.to_vec()).unwrap()
}

#[tokio::test]
async fn puts_together_what_waits() {
    let Fixture {
        engine,
        sizes,
        shut,
        ..
    } = fixture(EngineConfig::default());
    shut.store(true, Ordering::Release);
    let first = engine.submit(rows(&[1.0]), LIMITS).await.unwrap();
    while sizes.lock().unwrap().is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // The model is busy with the first: these wait, and share batches of at most 64.
    let mut waiting = Vec::new();
    for number in 0..10 {
        let values: Vec<f32> = (0..10).map(|i| (number * 10 + i) as f32).collect();
        waiting.push(engine.submit(rows(&values), LIMITS).await.unwrap());
    }
    shut.store(false, Ordering::Release);
    assert_eq!(first.wait().await.unwrap().logits.values(), [2.0]);
    for (number, pending) in waiting.into_iter().enumerate() {
        let inferred = pending.wait().await.unwrap();
        let expected: Vec<f32> = (0..10).map(|i| (number * 10 + i) as f32 * 2.0).collect();
        assert_eq!(inferred.logits.values(), expected);
        assert!(inferred.failed.is_empty());
    }
    assert_eq!(*sizes.lock().unwrap(), [1, 60, 40]);
}

#[tokio::test]
async fn waits_no_longer_than_asked() {
    let Fixture { engine, sizes, .. } = fixture(EngineConfig::default());
    let limits = BatchLimits {
        max_records: 3,
        max_tokens: usize::MAX,
        max_delay: Duration::from_millis(300),
    };
    let started = Instant::now();
    let first = engine.submit(rows(&[1.0]), limits).await.unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await;
    let second = engine.submit(rows(&[2.0, 3.0]), limits).await.unwrap();
    first.wait().await.unwrap();
    second.wait().await.unwrap();
    assert!(
        started.elapsed() < Duration::from_millis(250),
        "a full batch waited"
    );
    let started = Instant::now();
    let alone = engine.submit(rows(&[1.0]), limits).await.unwrap();
    alone.wait().await.unwrap();
    assert!(started.elapsed() >= Duration::from_millis(300));
    assert_eq!(*sizes.lock().unwrap(), [3, 1]);
}

#[tokio::test]
async fn bisects_failures_and_panics_out_of_a_batch() {
    let Fixture {
        engine,
        shut,
        replicas,
        ..
    } = fixture(EngineConfig::default());
    shut.store(true, Ordering::Release);
    let blocker = engine.submit(rows(&[0.0]), LIMITS).await.unwrap();
    let good = engine.submit(rows(&[1.0, 2.0]), LIMITS).await.unwrap();
    let bad = engine
        .submit(rows(&[3.0, FAILS, 4.0, PANICS, 5.0, f32::MAX]), LIMITS)
        .await
        .unwrap();
    shut.store(false, Ordering::Release);
    blocker.wait().await.unwrap();
    let good = good.wait().await.unwrap();
    assert_eq!(good.logits.values(), [2.0, 4.0]);
    assert!(good.failed.is_empty(), "{:?}", good.failed);
    let bad = bad.wait().await.unwrap();
    assert_eq!(bad.logits.values(), [6.0, 0.0, 8.0, 0.0, 10.0, 0.0]);
    let failed: Vec<(usize, &str)> = bad
        .failed
        .iter()
        .map(|failed| (failed.row, failed.reason.as_str()))
        .collect();
    assert_eq!(
        failed,
        [
            (1, "a number that fails"),
            (3, "the model panicked: a number that I can't bear"),
            (5, "the model gives inf"),
        ]
    );
    assert!(
        replicas.load(Ordering::Relaxed) > 2,
        "it went on after a panic as it was"
    );
}

#[tokio::test]
async fn makes_submitters_wait_for_room() {
    let Fixture { engine, shut, .. } = fixture(EngineConfig {
        queue_rows: 10,
        ..EngineConfig::default()
    });
    shut.store(true, Ordering::Release);
    let first = engine.submit(rows(&[1.0; 10]), LIMITS).await.unwrap();
    let second = engine.submit(rows(&[1.0; 1]), LIMITS);
    tokio::pin!(second);
    let early = tokio::time::timeout(Duration::from_millis(50), &mut second).await;
    assert!(early.is_err(), "a full queue took more");
    shut.store(false, Ordering::Release);
    first.wait().await.unwrap();
    second.await.unwrap().wait().await.unwrap();
    // More than there is room for goes alone.
    let large = engine.submit(rows(&[1.0; 50]), LIMITS).await.unwrap();
    assert_eq!(large.wait().await.unwrap().logits.len(), 50);
}

#[tokio::test]
async fn runs_on_several_workers_and_ends_with_its_last_handle() {
    let Fixture { engine, sizes, .. } = fixture(EngineConfig {
        workers: 3,
        ..EngineConfig::default()
    });
    let mut pending = Vec::new();
    for number in 0..200 {
        let other = engine.clone();
        pending.push(other.submit(rows(&[number as f32]), LIMITS).await.unwrap());
    }
    drop(engine);
    for (number, pending) in pending.into_iter().enumerate() {
        assert_eq!(
            pending.wait().await.unwrap().logits.values(),
            [number as f32 * 2.0]
        );
    }
    // The threads let go of the model.
    let ended = async {
        while Arc::strong_count(&sizes) > 1 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), ended)
        .await
        .unwrap();
}

#[tokio::test]
async fn refuses_rows_of_another_width() {
    let Fixture { engine, .. } = fixture(EngineConfig::default());
    let rows = Rows::from_values(2, vec![1.0, 2.0]).unwrap();
    let error = engine.submit(rows, LIMITS).await.unwrap_err();
    assert!(matches!(
        error,
        EngineError::Form {
            expected: Takes::Rows(1),
            found: Takes::Rows(2),
            ..
        }
    ));
}

#[tokio::test]
async fn takes_a_batch_away_from_a_model_that_does_not_return() {
    let Fixture {
        engine,
        sizes,
        let_go,
        ..
    } = fixture(EngineConfig {
        timeout: Some(Duration::from_millis(30)),
        ..EngineConfig::default()
    });
    let mut values: Vec<f32> = (0..64).map(|number| number as f32).collect();
    values[37] = HANGS;
    let batch = engine.submit(rows(&values), LIMITS).await.unwrap();
    let after = engine.submit(rows(&[1.5]), LIMITS).await.unwrap();
    let inferred = batch.wait().await.unwrap();
    let failed: Vec<(usize, &str)> = inferred
        .failed
        .iter()
        .map(|failed| (failed.row, failed.reason.as_str()))
        .collect();
    assert_eq!(failed, [(37, "the model took longer than 30ms")]);
    for (row, value) in values.iter().enumerate().filter(|(row, _)| *row != 37) {
        assert_eq!(inferred.logits.row(row), [value * 2.0]);
    }
    assert_eq!(after.wait().await.unwrap().logits.values(), [3.0]);
    // The whole, and a half of each of its halves down to the record; the other halves are one pass each.
    assert_eq!(sizes.lock().unwrap().len(), 1 + 2 * 6 + 1);
    // What was left alone ends when the model returns.
    drop(engine);
    let_go.store(true, Ordering::Release);
    let ended = async {
        while Arc::strong_count(&sizes) > 1 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), ended)
        .await
        .unwrap();
}

#[tokio::test]
async fn asks_once_for_what_it_keeps() {
    let Fixture { engine, sizes, .. } = fixture(EngineConfig {
        cache_bytes: 1 << 20,
        ..EngineConfig::default()
    });
    let ask = async |values: &[f32]| {
        let pending = engine.submit(rows(values), LIMITS).await.unwrap();
        pending.wait().await.unwrap()
    };
    let first = ask(&[1.0, 2.0, 1.0, FAILS, 1.0]).await;
    assert_eq!(first.logits.values(), [2.0, 4.0, 2.0, 0.0, 2.0]);
    assert_eq!(first.failed.len(), 1);
    assert_eq!(first.failed[0].row, 3);
    let asked = sizes.lock().unwrap().clone();
    assert_eq!(asked.first(), Some(&3), "1, 2 and what fails");
    // All of it is known.
    assert_eq!(ask(&[2.0, 1.0]).await.logits.values(), [4.0, 2.0]);
    assert_eq!(*sizes.lock().unwrap(), asked);
    // What failed is not.
    let again = ask(&[FAILS, 5.0, FAILS, 2.0]).await;
    assert_eq!(again.logits.values(), [0.0, 10.0, 0.0, 4.0]);
    let failed: Vec<usize> = again.failed.iter().map(|failed| failed.row).collect();
    assert_eq!(failed, [0, 2]);
    assert_eq!(sizes.lock().unwrap()[asked.len()..], [2, 1, 1]);
}

#[tokio::test]
async fn keeps_no_more_than_it_may() {
    let Fixture { engine, sizes, .. } = fixture(EngineConfig {
        cache_bytes: 16 << 10,
        ..EngineConfig::default()
    });
    for number in 0..600 {
        let pending = engine.submit(rows(&[number as f32]), LIMITS).await.unwrap();
        pending.wait().await.unwrap();
    }
    let asked = sizes.lock().unwrap().len();
    assert_eq!(asked, 600);
    // Of 16 KiB with at least 128 bytes for each, at most 128 are still there.
    for number in 0..600 {
        let pending = engine.submit(rows(&[number as f32]), LIMITS).await.unwrap();
        assert_eq!(
            pending.wait().await.unwrap().logits.values(),
            [number as f32 * 2.0]
        );
    }
    let asked_again = sizes.lock().unwrap().len() - asked;
    assert!(asked_again >= 600 - 128, "{asked_again}");
}
