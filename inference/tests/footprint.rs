//! What a model says it takes in memory is what it takes. Alone in its file, since an allocator is the process's.

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use candle_core::{Device, Tensor};
use inference::model::text::{Pooling, TextModel, TextTask, Tokens};
use inference::model::{Input, LargestBatch, LoadOptions, Model, Rows, load};

struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

// SAFETY: the system's allocator does it all.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        MOST.fetch_max(now, Ordering::Relaxed);
        // SAFETY: the caller's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What is there at most while it runs, beyond what is there before.
fn peak<T>(run: impl FnOnce() -> T) -> (T, usize) {
    let before = NOW.load(Ordering::Relaxed);
    MOST.store(before, Ordering::Relaxed);
    let result = run();
    (result, MOST.load(Ordering::Relaxed) - before)
}

const EMBED: TextTask = TextTask::Embed {
    pooling: Pooling::Mean,
    normalize: true,
};

/// The golden ModernBERT, for texts of up to 100,000 tokens: most of it are tables of rotations.
fn long_modernbert(folder: &Path) -> TextModel {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/text/modernbert");
    let config = std::fs::read_to_string(golden.join("config.json")).unwrap();
    let positions = "\"max_position_embeddings\": 64";
    assert!(config.contains(positions));
    let config = config.replace(positions, "\"max_position_embeddings\": 100000");
    std::fs::write(folder.join("config.json"), config).unwrap();
    std::fs::copy(
        golden.join("model.safetensors"),
        folder.join("model.safetensors"),
    )
    .unwrap();
    TextModel::read(folder, EMBED, &Device::Cpu).unwrap()
}

/// A BERT of zeros.
fn bert(folder: &Path) -> TextModel {
    let (width, middle, layers, vocabulary) = (256, 1024, 3, 5000);
    let config = format!(
        r#"{{"model_type":"bert","hidden_size":{width},"num_hidden_layers":{layers},"num_attention_heads":4,
        "intermediate_size":{middle},"hidden_act":"gelu","vocab_size":{vocabulary},
        "max_position_embeddings":512,"type_vocab_size":2,"layer_norm_eps":1e-12}}"#
    );
    std::fs::write(folder.join("config.json"), config).unwrap();
    let mut tensors = HashMap::new();
    let mut add = |name: String, shape: &[usize]| {
        let zeros = Tensor::zeros(shape, candle_core::DType::F32, &Device::Cpu).unwrap();
        tensors.insert(name, zeros);
    };
    for (name, rows) in [("word", vocabulary), ("position", 512), ("token_type", 2)] {
        add(
            format!("embeddings.{name}_embeddings.weight"),
            &[rows, width],
        );
    }
    let mut names = vec![("embeddings.LayerNorm".to_owned(), vec![width])];
    for layer in 0..layers {
        let of = |name: &str| format!("encoder.layer.{layer}.{name}");
        for name in ["query", "key", "value"] {
            names.push((of(&format!("attention.self.{name}")), vec![width, width]));
        }
        names.push((of("attention.output.dense"), vec![width, width]));
        names.push((of("attention.output.LayerNorm"), vec![width]));
        names.push((of("intermediate.dense"), vec![middle, width]));
        names.push((of("output.dense"), vec![width, middle]));
        names.push((of("output.LayerNorm"), vec![width]));
    }
    for (name, shape) in names {
        add(format!("{name}.weight"), &shape);
        add(format!("{name}.bias"), &shape[..1]);
    }
    candle_core::safetensors::save(&tensors, folder.join("model.safetensors")).unwrap();
    TextModel::read(folder, EMBED, &Device::Cpu).unwrap()
}

fn check(name: &str, model: &mut dyn Model, batch: &Input, largest: LargestBatch) {
    let (answers, taken) = peak(|| {
        // On a thread of its own, whose scratch memory counts.
        std::thread::scope(|scope| scope.spawn(|| model.infer(batch).unwrap()).join().unwrap())
    });
    assert_eq!(answers.len(), batch.len());
    let footprint = model.footprint();
    let said = (footprint.bytes(1, largest) - footprint.weights) as usize;
    assert!(taken <= said, "{name}: {taken} bytes, {said} said");
    // An engine also puts batches of rows together, and takes them apart.
    if let Input::Tokens(_) = batch {
        assert!(taken * 2 >= said, "{name}: {taken} bytes, {said} said");
    }
}

#[test]
fn models_take_what_they_say() {
    let folder = tempfile::tempdir().unwrap();
    for read in [long_modernbert, bert] {
        let model = read(folder.path());
        let now = NOW.load(Ordering::Relaxed);
        let weights = model.footprint().weights as usize;
        drop(model);
        let freed = now - NOW.load(Ordering::Relaxed);
        assert!(
            weights.abs_diff(freed) < weights / 50,
            "{freed} bytes of weights, {weights} said"
        );
    }

    let modern = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/text/modernbert");
    let modern = TextModel::read(&modern, EMBED, &Device::Cpu).unwrap();
    for (name, mut model) in [("bert", bert(folder.path())), ("modernbert", modern)] {
        let positions = model.config().positions;
        for (texts, longest) in [
            (400, 20),
            (64, 64),
            (4096 / 512.min(positions), 512.min(positions)),
        ] {
            let mut tokens = Tokens::default();
            (0..texts).for_each(|_| tokens.push(&vec![7; longest]));
            let largest = LargestBatch {
                records: texts,
                tokens: texts * longest,
                longest,
            };
            let name = format!("{texts} texts of {longest} tokens through {name}");
            check(&name, &mut model, &tokens.into(), largest);
        }
    }

    let fraud = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/models/fraud_by_row");
    let mut fraud = load("fraud", "1", &fraud, &LoadOptions::default())
        .unwrap()
        .model;
    let inference::model::Takes::Rows(width) = fraud.takes() else {
        panic!("texts");
    };
    let records = 60_000;
    let rows = Rows::from_values(width, vec![0.5; records * width]).unwrap();
    let largest = LargestBatch {
        records,
        tokens: 0,
        longest: 0,
    };
    check("rows", &mut *fraud, &rows.into(), largest);
}
