//! Trains the quickstart's fraud model and writes its folder:
//!
//! ```text
//! cargo run --release -p broker --example train_fraud [-- FOLDER]
//! ```
//!
//! Rows are made as the broker makes them: each transaction is written as JSON, and the example's features are made of it
//! and of what its customer did before. Fraud is rare, so all of it is taken and one in [`LEGITIMATE_ONE_IN`] of the rest;
//! the last bias is then moved by the difference of the log-odds, so that a score of 0.9 means nine in ten at the feed's
//! rate (King and Zeng 2001, prior correction).

use std::collections::HashMap;
use std::error::Error;
use std::path::PathBuf;

use broker::quickstart::auc::{auc, best_single_column};
use broker::quickstart::random::Random;
use broker::quickstart::rows::RowMaker;
use broker::quickstart::tracker::ALERT_SCORE;
use broker::quickstart::transactions::{self, CATEGORIES, COUNTRIES, FRAUD_RATE};
use candle_core::{Device, Tensor, Var};
use candle_nn::{AdamW, Optimizer, ParamsAdamW};
use inference::model::card::{Activation, InputSpec, ModelCard, ModelTask, ModelType, Transform};
use inference::model::{CARD_FILE, LoadOptions, Rows, WEIGHTS_FILE, load};
use serde_json::json;

const TRAINING_SEED: u64 = 1;
const HELD_OUT_SEED: u64 = 2;
const TRAINING_RECORDS: u64 = 1_200_000;
const HELD_OUT_RECORDS: u64 = 400_000;
const LEGITIMATE_ONE_IN: u64 = 8;
/// Inputs that are of the transaction alone: those before the features.
const OWN_INPUTS: usize = 6;

const HIDDEN: [usize; 2] = [32, 16];
const EPOCHS: usize = 12;
const BATCH: usize = 512;
const LEARNING_RATE: f64 = 4e-3;

fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::args().nth(1).map_or_else(
        || {
            PathBuf::from(concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/../config/examples/fraud/model"
            ))
        },
        PathBuf::from,
    );
    let mut card = unscaled_card()?;
    let training = Set::generate(&card, TRAINING_SEED, TRAINING_RECORDS, LEGITIMATE_ONE_IN)?;
    scale(&mut card, &training.rows)?;
    let training = Set::generate(&card, TRAINING_SEED, TRAINING_RECORDS, LEGITIMATE_ONE_IN)?;
    let layers = train(&training)?;

    std::fs::create_dir_all(&folder)?;
    candle_core::safetensors::save(&named(&layers)?, folder.join(WEIGHTS_FILE))?;
    write_card(&card, &folder)?;

    let held_out = Set::generate(&card, HELD_OUT_SEED, HELD_OUT_RECORDS, 1)?;
    let scores = held_out.scores(&folder)?;
    let area = auc(&scores, &held_out.fraud).ok_or("the held-out set has one class only")?;
    let (column, single) = best_single_column(
        held_out.rows.values(),
        held_out.rows.width(),
        &held_out.fraud,
    )
    .ok_or("the held-out set has one class only")?;
    let best_input = column_name(&card, column);
    let (precision, recall) = at_alert_score(&scores, &held_out.fraud);
    // The same way of training, without what the customer did before.
    let own = train(&training.own(&card))?;
    let blind = forward_all(&own, &held_out.own(&card))?;
    let blind = auc(&blind, &held_out.fraud).ok_or("the held-out set has one class only")?;
    println!(
        "held-out AUC {area:.4}, without features {blind:.4}; best single input {best_input}: {single:.4}"
    );
    println!("alerts: precision {precision:.3}, recall {recall:.3}");

    card.metadata = json!({
        "trained_by": "cargo run --release -p broker --example train_fraud",
        "training_records": TRAINING_RECORDS,
        "held_out_records": HELD_OUT_RECORDS,
        "held_out_auc": round(area),
        "held_out_auc_without_features": round(blind),
        "best_single_input": best_input,
        "best_single_input_auc": round(single),
        "alert_precision": round(precision),
        "alert_recall": round(recall),
    })
    .as_object()
    .cloned();
    write_card(&card, &folder)?;
    println!("written to {}", folder.display());
    Ok(())
}

fn write_card(card: &ModelCard, folder: &std::path::Path) -> Result<(), Box<dyn Error>> {
    let mut json = serde_json::to_string_pretty(card)?;
    json.push('\n');
    Ok(std::fs::write(folder.join(CARD_FILE), json)?)
}

/// The inputs, without mean and standard deviation.
fn unscaled_card() -> Result<ModelCard, Box<dyn Error>> {
    let number = |name: &str, transform: Option<Transform>| {
        Ok::<InputSpec, Box<dyn Error>>(InputSpec {
            transform,
            ..InputSpec::number(format!("$.{name}").parse()?)
        })
    };
    let one_of = |path: &str, texts: &[&str]| {
        Ok::<InputSpec, Box<dyn Error>>(InputSpec {
            one_of: Some(texts.iter().map(|text| text.to_string()).collect()),
            ..InputSpec::number(path.parse()?)
        })
    };
    let feature = |name: &str, transform: Option<Transform>| InputSpec {
        transform,
        ..InputSpec::feature(name)
    };
    let log = Some(Transform::Log1p);
    Ok(ModelCard {
        model_type: ModelType::Mlp,
        task: ModelTask::Classify,
        labels: vec!["ok".into(), "fraud".into()],
        inputs: vec![
            number("amount", log)?,
            number("account_age_days", log)?,
            number("hour", None)?,
            number("card_present", None)?,
            one_of("$.merchant.category", &CATEGORIES)?,
            one_of("$.merchant.country", &COUNTRIES)?,
            feature("n_5m", log),
            feature("n_1h", log),
            feature("spent_1h", log),
            feature("max_1d", log),
            feature("mean_amount", log),
            feature("countries_1h", None),
            feature("categories_1h", None),
            feature("since_last", log),
        ],
        hidden: HIDDEN.to_vec(),
        activation: Some(Activation::Relu),
        output: 1,
        threshold: None,
        metadata: None,
    })
}

/// Sets each number's mean and standard deviation to those of the rows.
fn scale(card: &mut ModelCard, rows: &Rows) -> Result<(), Box<dyn Error>> {
    let mut column = 0;
    for input in &mut card.inputs {
        if input.one_of.is_none() {
            let values: Vec<f64> = (0..rows.len())
                .map(|row| f64::from(rows.row(row)[column]))
                .collect();
            let count = values.len() as f64;
            let mean = values.iter().sum::<f64>() / count;
            let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / count;
            input.mean = Some(round(mean));
            input.std = Some(round(variance.sqrt()));
        }
        column += input.width();
    }
    Ok(card.check()?)
}

fn column_name(card: &ModelCard, column: usize) -> String {
    let mut rest = column;
    for input in &card.inputs {
        match &input.one_of {
            Some(texts) if rest < texts.len() => {
                return format!("{} = {}", input.label(), texts[rest]);
            }
            None if rest == 0 => return input.label().to_owned(),
            _ => rest -= input.width(),
        }
    }
    format!("column {column}")
}

/// Rows and the truth about them.
struct Set {
    rows: Rows,
    fraud: Vec<bool>,
}

impl Set {
    /// All fraud, and one in so many of the rest.
    fn generate(
        card: &ModelCard,
        seed: u64,
        records: u64,
        legitimate_one_in: u64,
    ) -> Result<Set, Box<dyn Error>> {
        let mut maker = RowMaker::new(card)?;
        let mut rows = Rows::new(card.width());
        let mut fraud = Vec::new();
        for index in 0..records {
            let labelled = transactions::transaction(seed, index, FRAUD_RATE);
            maker.add(&labelled.transaction)?;
            let row = maker.take();
            if labelled.fraud || index % legitimate_one_in == 0 {
                rows.append(&row);
                fraud.push(labelled.fraud);
            }
        }
        Ok(Set { rows, fraud })
    }

    /// Without what customers did before: the first columns of each row.
    fn own(&self, card: &ModelCard) -> Set {
        let own = card.inputs.iter().take(OWN_INPUTS);
        let width = own.map(InputSpec::width).sum();
        let mut rows = Rows::new(width);
        for row in 0..self.rows.len() {
            let row = self.rows.row(row);
            rows.values_mut().extend(row.iter().take(width));
        }
        Set {
            rows,
            fraud: self.fraud.clone(),
        }
    }

    fn fraud_rate(&self) -> f64 {
        let fraud = self.fraud.iter().filter(|&&fraud| fraud).count();
        fraud as f64 / self.fraud.len() as f64
    }

    /// By the model in the folder, as the broker runs it.
    fn scores(&self, folder: &std::path::Path) -> Result<Vec<f32>, Box<dyn Error>> {
        let mut loaded = load("fraud", "1", folder, &LoadOptions::default())?;
        let logits = loaded.model.infer(&self.rows.clone().into())?;
        Ok(logits
            .values()
            .iter()
            .map(|&logit| sigmoid(logit))
            .collect())
    }
}

/// Weight and bias of each layer.
type Layers = Vec<(Var, Var)>;

fn train(set: &Set) -> Result<Layers, Box<dyn Error>> {
    let device = Device::Cpu;
    let width = set.rows.width();
    let mut random = Random::new(TRAINING_SEED, u64::MAX);
    let layers = initial_layers(width, &mut random, &device)?;
    let vars = layers
        .iter()
        .flat_map(|(w, b)| [w.clone(), b.clone()])
        .collect();
    let mut optimizer = AdamW::new(
        vars,
        ParamsAdamW {
            lr: LEARNING_RATE,
            weight_decay: 1e-4,
            ..Default::default()
        },
    )?;
    let rows = Tensor::from_slice(set.rows.values(), (set.rows.len(), width), &device)?;
    let labels: Vec<f32> = set
        .fraud
        .iter()
        .map(|&fraud| f32::from(u8::from(fraud)))
        .collect();
    let labels = Tensor::from_vec(labels, (set.rows.len(), 1), &device)?;

    let mut order: Vec<u32> = (0..set.rows.len() as u32).collect();
    let batches = order.len() / BATCH;
    for epoch in 0..EPOCHS {
        shuffle(&mut order, &mut random);
        let mut total = 0.0;
        for (step, batch) in order.chunks_exact(BATCH).enumerate() {
            let done = (epoch * batches + step) as f64 / (EPOCHS * batches) as f64;
            optimizer.set_learning_rate(
                LEARNING_RATE * 0.5 * (1.0 + (std::f64::consts::PI * done).cos()),
            );
            let batch = Tensor::from_slice(batch, BATCH, &device)?;
            let logits = forward(&layers, &rows.index_select(&batch, 0)?)?;
            let loss = cross_entropy(&logits, &labels.index_select(&batch, 0)?)?;
            optimizer.backward_step(&loss)?;
            total += loss.to_scalar::<f32>()?;
        }
        println!("epoch {:2}: loss {:.5}", epoch + 1, total / batches as f32);
    }
    let odds = |rate: f64| (rate / (1.0 - rate)).ln();
    if let Some((_, bias)) = layers.last() {
        let moved = odds(FRAUD_RATE) - odds(set.fraud_rate());
        bias.set(&(bias.as_tensor() + moved)?)?;
    }
    Ok(layers)
}

/// He and others 2015: normal with a variance of 2 / inputs, biases 0. From our own generator, so that
/// the same program gives the same model.
fn initial_layers(
    width: usize,
    random: &mut Random,
    device: &Device,
) -> Result<Layers, Box<dyn Error>> {
    let mut inputs = width;
    let mut layers = Vec::new();
    for outputs in HIDDEN.into_iter().chain([1]) {
        let scale = (2.0 / inputs as f64).sqrt();
        let weight: Vec<f32> = (0..inputs * outputs)
            .map(|_| (random.normal() * scale) as f32)
            .collect();
        let weight = Var::from_vec(weight, (outputs, inputs), device)?;
        let bias = Var::from_vec(vec![0f32; outputs], outputs, device)?;
        layers.push((weight, bias));
        inputs = outputs;
    }
    Ok(layers)
}

fn forward(layers: &Layers, rows: &Tensor) -> candle_core::Result<Tensor> {
    let mut values = rows.clone();
    for (index, (weight, bias)) in layers.iter().enumerate() {
        values = values.matmul(&weight.t()?)?.broadcast_add(bias)?;
        if index + 1 < layers.len() {
            values = values.relu()?;
        }
    }
    Ok(values)
}

/// Logits of all rows.
fn forward_all(layers: &Layers, set: &Set) -> Result<Vec<f32>, Box<dyn Error>> {
    let shape = (set.rows.len(), set.rows.width());
    let rows = Tensor::from_slice(set.rows.values(), shape, &Device::Cpu)?;
    Ok(forward(layers, &rows)?.flatten_all()?.to_vec1()?)
}

/// max(x, 0) - x y + ln(1 + exp(-|x|)), which overflows nowhere.
fn cross_entropy(logits: &Tensor, labels: &Tensor) -> candle_core::Result<Tensor> {
    let tail = (logits.abs()?.neg()?.exp()? + 1.0)?.log()?;
    (logits.relu()? - (logits * labels)? + tail)?.mean_all()
}

fn shuffle(order: &mut [u32], random: &mut Random) {
    for last in (1..order.len()).rev() {
        order.swap(last, random.below(last as u64 + 1) as usize);
    }
}

fn named(layers: &Layers) -> candle_core::Result<HashMap<String, Tensor>> {
    let mut tensors = HashMap::new();
    for (index, (weight, bias)) in layers.iter().enumerate() {
        tensors.insert(
            format!("layers.{index}.weight"),
            weight.as_tensor().contiguous()?,
        );
        tensors.insert(
            format!("layers.{index}.bias"),
            bias.as_tensor().contiguous()?,
        );
    }
    Ok(tensors)
}

fn at_alert_score(scores: &[f32], fraud: &[bool]) -> (f64, f64) {
    let is_alert = |score: f32| f64::from(score) >= ALERT_SCORE;
    let alerts = scores.iter().filter(|&&score| is_alert(score)).count();
    let hits = scores
        .iter()
        .zip(fraud)
        .filter(|&(&score, &fraud)| fraud && is_alert(score))
        .count();
    let frauds = fraud.iter().filter(|&&fraud| fraud).count();
    (
        hits as f64 / alerts.max(1) as f64,
        hits as f64 / frauds.max(1) as f64,
    )
}

fn sigmoid(logit: f32) -> f32 {
    1.0 / (1.0 + (-logit).exp())
}

/// To four digits after the point.
fn round(value: f64) -> f64 {
    (value * 1e4).round() / 1e4
}
