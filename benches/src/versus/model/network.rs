//! The model that all arms run: a perceptron 32-64-64-1 with ReLU that classifies by a sigmoid, with
//! seeded weights, as a Milena model folder. Each input is scaled by a mean and a deviation.

use std::fs;
use std::path::Path;

use anyhow::Context;
use serde_json::json;
use tests::random::Random;

/// Numbers of a record that it looks at.
pub const INPUTS: usize = 32;
/// Widths of the layers, the input's first.
const WIDTHS: [usize; 4] = [INPUTS, 64, 64, 1];
/// What it tells apart; the second is the positive one.
pub const LABELS: [&str; 2] = ["ok", "fraud"];

const SEED: u64 = 32_641;

/// Writes the model's folder.
pub fn write(folder: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(folder).context("the model's folder")?;
    let input = |n: usize| json!({ "path": format!("$.f{n:02}"), "mean": 0.1, "std": 1.25 });
    let card = json!({
        "model_type": "mlp",
        "task": "classify",
        "labels": LABELS,
        "inputs": (0..INPUTS).map(input).collect::<Vec<_>>(),
        "hidden": &WIDTHS[1..3],
        "activation": "relu",
        "output": 1,
    });
    let mut random = Random::new(SEED);
    // Uniform within a bound that keeps the layers' outputs about as wide as their inputs.
    let mut uniform = |count: usize, bound: f64| -> Vec<f32> {
        let mut one = || random.below(1 << 32) as f64 / f64::from(u32::MAX) * 2.0 - 1.0;
        (0..count).map(|_| (one() * bound) as f32).collect()
    };
    let mut tensors: Vec<(String, Vec<usize>, Vec<f32>)> = Vec::new();
    for (n, pair) in WIDTHS.windows(2).enumerate() {
        let (inputs, outputs) = (pair[0], pair[1]);
        let weight = uniform(outputs * inputs, (6.0 / inputs as f64).sqrt());
        tensors.push((format!("layers.{n}.weight"), vec![outputs, inputs], weight));
        tensors.push((
            format!("layers.{n}.bias"),
            vec![outputs],
            uniform(outputs, 0.1),
        ));
    }
    let tensors: Vec<(&str, &[usize], &[f32])> = tensors
        .iter()
        .map(|(name, shape, values)| (name.as_str(), shape.as_slice(), values.as_slice()))
        .collect();
    tests::write_model(folder, &card, &tensors);
    Ok(())
}
