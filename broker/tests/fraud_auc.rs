//! The committed fraud model does what its card and README say, on transactions that nobody has seen.
//!
//! The way is the broker's: JSON bytes, decoded to the model's inputs, logits, scores.

use std::path::{Path, PathBuf};

use broker::quickstart::auc::{auc, best_single_column};
use broker::quickstart::transactions::{self, FRAUD_RATE};
use inference::codec::JsonDecoder;
use inference::feature::Features;
use inference::model::{LoadOptions, Rows, load};

/// Neither the trainer's seeds nor the feed's.
const FRESH_SEED: u64 = 77;
const FRESH_RECORDS: u64 = 150_000;
/// Three standard errors of an AUC near 0.985 with some 2,250 positives are below this.
const TOLERANCE: f64 = 0.006;
const SINGLE_INPUT_CEILING: f64 = 0.80;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/fraud")
}

#[test]
fn committed_weights_reach_the_auc_that_is_written_down() {
    let mut loaded = load(
        "fraud",
        "1",
        &folder().join("model"),
        &LoadOptions::default(),
    )
    .unwrap();
    let card = loaded.card.tabular().unwrap();
    let figure = |name: &str| card.metadata.as_ref().unwrap()[name].as_f64().unwrap();
    let (written, written_single) = (figure("held_out_auc"), figure("best_single_input_auc"));

    let decoder = JsonDecoder::new(Features::new(&card.inputs)).unwrap();
    let mut rows = Rows::new(decoder.width());
    let mut fraud = Vec::new();
    for index in 0..FRESH_RECORDS {
        let labelled = transactions::transaction(FRESH_SEED, index, FRAUD_RATE, 0);
        let json = serde_json::to_vec(&labelled.transaction).unwrap();
        decoder.decode(&json, rows.values_mut()).unwrap();
        fraud.push(labelled.fraud);
    }
    let logits = loaded.model.infer(&rows.clone().into()).unwrap();
    let area = auc(logits.values(), &fraud).unwrap();
    let (_, single) = best_single_column(rows.values(), rows.width(), &fraud).unwrap();

    assert!(
        (area - written).abs() <= TOLERANCE,
        "AUC {area:.4} on fresh transactions, {written} in the card"
    );
    assert!(
        single <= SINGLE_INPUT_CEILING,
        "one input alone reaches {single:.4}"
    );
    assert!(
        (single - written_single).abs() <= 2.0 * TOLERANCE,
        "the best single input reaches {single:.4}, {written_single} in the card"
    );
    assert!(
        area > single + 0.1,
        "{area:.4} is not clearly above {single:.4}"
    );

    let readme = std::fs::read_to_string(folder().join("README.md")).unwrap();
    for figure in [written, written_single] {
        assert!(
            readme.contains(&format!("{figure:.4}")),
            "README.md does not say {figure:.4}"
        );
    }
}

#[test]
fn the_record_has_these_fields_and_no_label() {
    let fields = |value: &serde_json::Value| -> Vec<String> {
        value.as_object().unwrap().keys().cloned().collect()
    };
    for index in 0..200 {
        let labelled = transactions::transaction(FRESH_SEED, index, 0.5, 0);
        let record = serde_json::to_value(&labelled.transaction).unwrap();
        let expected = [
            "account_age_days",
            "amount",
            "amount_vs_mean",
            "card_present",
            "country",
            "currency",
            "customer_id",
            "distance_km",
            "hour",
            "merchant",
            "n_last_hour",
            "ts",
            "tx_id",
        ];
        assert_eq!(fields(&record), expected);
        assert_eq!(fields(&record["merchant"]), ["category", "country"]);
    }
}
