//! What a record that makes a text model fail costs the others of its batch of 64: time.
//!
//! ```sh
//! cargo run --release -p benches --bin poison_record
//! ```
//!
//! MiniLM (whose weights are fetched) embeds 64 sentences of `tests/minilm/texts.txt` that wait together, as they
//! are, and with one among them that the model fails on only after it has done all of its work, the
//! dearest way; by turns. The time is until the other 63 have their answers. Prints a table of medians.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::ensure;
use benches::encoder::cases::real_texts;
use benches::statistics::{median, range, ratios};
use benches::versus::model::{kind::MAX_TOKENS, minilm};
use inference::engine::{BatchLimits, Engine, EngineConfig};
use inference::model::text::Tokens;
use inference::model::{
    self, Device, Footprint, InferError, Input, LoadOptions, LoadedModel, Model, Rows, Takes,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const TEXTS: usize = 64;
const ROUNDS: usize = 15;
/// `[MASK]`, which no sentence has.
const POISON: u32 = 103;

/// How a model fails on a text that ends with [`POISON`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fails {
    Error,
    Panic,
}

/// The model, but for that.
struct Poisonable {
    model: Box<dyn Model>,
    fails: Fails,
    passes: Arc<AtomicUsize>,
}

impl Model for Poisonable {
    fn takes(&self) -> Takes {
        self.model.takes()
    }
    fn output_width(&self) -> usize {
        self.model.output_width()
    }
    fn device(&self) -> Device {
        self.model.device()
    }
    fn footprint(&self) -> Footprint {
        self.model.footprint()
    }
    fn infer(&mut self, batch: &Input) -> Result<Rows, InferError> {
        self.passes.fetch_add(1, Ordering::Relaxed);
        let rows = self.model.infer(batch)?;
        let is_poisoned = matches!(batch, Input::Tokens(tokens) if tokens.ids().contains(&POISON));
        match self.fails {
            _ if !is_poisoned => Ok(rows),
            Fails::Error => Err(InferError("a text that I can't bear".to_owned())),
            Fails::Panic => panic!("a text that I can't bear"),
        }
    }
    fn replica(&self) -> Box<dyn Model> {
        Box::new(Self {
            model: self.model.replica(),
            fails: self.fails,
            passes: Arc::clone(&self.passes),
        })
    }
}

#[derive(Default)]
struct Measured {
    clean_ms: Vec<f64>,
    poisoned_ms: Vec<f64>,
    passes: Vec<f64>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    // Of the models' panics nothing needs to be said.
    std::panic::set_hook(Box::new(|_| {}));
    let folder = minilm::fetched()?;
    let texts = &real_texts(&folder)?[..TEXTS];
    let mut measured: BTreeMap<Fails, Measured> = BTreeMap::new();
    let mut engines = Vec::new();
    for fails in [Fails::Error, Fails::Panic] {
        let loaded = model::load("minilm", "1", &folder, &LoadOptions::default())?;
        let passes = Arc::<AtomicUsize>::default();
        let model = Poisonable {
            model: loaded.model,
            fails,
            passes: Arc::clone(&passes),
        };
        let loaded = LoadedModel {
            model: Box::new(model),
            ..loaded
        };
        engines.push((
            fails,
            Engine::start(loaded, EngineConfig::default())?,
            passes,
        ));
    }
    for round in 0..ROUNDS {
        for (fails, engine, passes) in &engines {
            let (clean_ms, _) = run(engine, passes, texts, None).await?;
            // Not always in the same place.
            let (poisoned_ms, count) = run(engine, passes, texts, Some(round * 17 % TEXTS)).await?;
            let measured = measured.entry(*fails).or_default();
            measured.clean_ms.push(clean_ms);
            measured.poisoned_ms.push(poisoned_ms);
            measured.passes.push(count as f64);
        }
    }
    println!(
        "| the model's failure | 64 texts, ms: median (min-max) | with one of them poisoned | ratio | passes |\n\
         |---|---|---|---|---|"
    );
    for (fails, measured) in &measured {
        let times = |values: &[f64]| {
            let (least, most) = range(values);
            format!("{:.0} ({least:.0}-{most:.0})", median(values))
        };
        let some = |values: &[f64]| values.iter().copied().map(Some).collect::<Vec<_>>();
        let ratios = ratios(&some(&measured.poisoned_ms), &some(&measured.clean_ms));
        println!(
            "| {} | {} | {} | {:.2} | {} |",
            format!("{fails:?}").to_lowercase(),
            times(&measured.clean_ms),
            times(&measured.poisoned_ms),
            median(&ratios),
            median(&measured.passes)
        );
    }
    Ok(())
}

/// How long a batch takes, in milliseconds, and in how many passes of the model.
async fn run(
    engine: &Engine,
    passes: &AtomicUsize,
    texts: &[Vec<u32>],
    poisoned: Option<usize>,
) -> anyhow::Result<(f64, usize)> {
    let mut tokens = Tokens::default();
    for (n, text) in texts.iter().enumerate() {
        let mut text = text.clone();
        if poisoned == Some(n)
            && let Some(last) = text.last_mut()
        {
            *last = POISON;
        }
        tokens.push(&text);
    }
    let limits = BatchLimits {
        max_records: TEXTS,
        max_tokens: TEXTS * MAX_TOKENS,
        max_delay: Duration::ZERO,
    };
    let before = passes.load(Ordering::Relaxed);
    let started = Instant::now();
    let inferred = engine.submit(tokens, limits).await?.wait().await?;
    let ms = started.elapsed().as_secs_f64() * 1e3;
    let failed: Vec<usize> = inferred.failed.iter().map(|failed| failed.row).collect();
    ensure!(
        failed == Vec::from_iter(poisoned),
        "{failed:?} failed, where {poisoned:?} should"
    );
    Ok((ms, passes.load(Ordering::Relaxed) - before))
}
