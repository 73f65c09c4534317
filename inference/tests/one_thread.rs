//! A model runs on the thread that calls it, however large the batch. Alone in its file, since it counts the
//! threads of the process.

#![cfg(target_os = "linux")]

use std::path::Path;

use candle_core::{Device, Tensor};
use inference::model::card::Activation;
use inference::model::text::{TextModel, TextTask, Tokens};
use inference::model::{Mlp, Model, Rows};

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").unwrap().count()
}

#[test]
fn starts_no_threads_of_its_own() {
    let layer = |outputs: usize, inputs: usize| {
        let weight = Tensor::full(0.01f32, (outputs, inputs), &Device::Cpu).unwrap();
        (weight, Tensor::full(0.5f32, outputs, &Device::Cpu).unwrap())
    };
    let before = threads();
    for activation in [Activation::Relu, Activation::Gelu, Activation::Sigmoid] {
        let layers = [layer(256, 16), layer(128, 256), layer(2, 128)];
        let mut model = Mlp::new(&layers, activation).unwrap();
        let rows = Rows::from_values(16, vec![0.25; 16 * 20_000]).unwrap();
        let logits = model.infer(&rows.into()).unwrap();
        assert_eq!(logits.len(), 20_000);
        assert!((logits.row(0)[0] - logits.row(19_999)[1]).abs() < 1e-4);
        assert_eq!(threads(), before, "{activation:?}");
    }
    for name in ["bert", "modernbert"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/text");
        let model = TextModel::read(&folder.join(name), TextTask::Classify, &Device::Cpu).unwrap();
        let mut tokens = Tokens::default();
        (0..200).for_each(|_| tokens.push(&[5; 60]));
        assert_eq!(model.forward(&tokens).unwrap().len(), 200);
        assert_eq!(threads(), before, "{name}");
    }
}
