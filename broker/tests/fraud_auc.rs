//! The committed fraud model does what its card and README say, on transactions that nobody has seen.
//!
//! The way is the broker's: JSON bytes, the example's features of them and of what customers did before, logits, scores.

use std::path::{Path, PathBuf};

use broker::quickstart::auc::{auc, best_single_column};
use broker::quickstart::rows::RowMaker;
use broker::quickstart::transactions::{self, FRAUD_RATE};
use inference::model::{LoadOptions, load};

/// Neither the trainer's seeds nor the feed's.
const FRESH_SEED: u64 = 77;
const FRESH_RECORDS: u64 = 150_000;
/// Three standard errors of an AUC near 0.98 with some 2,250 positives, which come in episodes of three or four, are below
/// this.
const TOLERANCE: f64 = 0.012;
const SINGLE_INPUT_CEILING: f64 = 0.82;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/examples/fraud")
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
    let written = figure("held_out_auc");
    let (blind, single) = (
        figure("held_out_auc_without_features"),
        figure("best_single_input_auc"),
    );

    let mut maker = RowMaker::new(card).unwrap();
    let mut fraud = Vec::new();
    for index in 0..FRESH_RECORDS {
        let labelled = transactions::transaction(FRESH_SEED, index, FRAUD_RATE);
        maker.add(&labelled.transaction).unwrap();
        fraud.push(labelled.fraud);
    }
    let rows = maker.take();
    let logits = loaded.model.infer(&rows.clone().into()).unwrap();
    let area = auc(logits.values(), &fraud).unwrap();
    let (_, found_single) = best_single_column(rows.values(), rows.width(), &fraud).unwrap();

    assert!(
        (area - written).abs() <= TOLERANCE,
        "AUC {area:.4} on fresh transactions, {written} in the card"
    );
    // Which one is best, and how good, depends on how much is known of the customers yet.
    assert!(
        found_single <= SINGLE_INPUT_CEILING,
        "one input alone reaches {found_single:.4}"
    );
    // What customers did before is what tells.
    assert!(
        1.0 - area < 0.6 * (1.0 - blind),
        "{area:.4} is not clearly above {blind:.4}, which does without features"
    );

    let readme = std::fs::read_to_string(folder().join("README.md")).unwrap();
    for figure in [written, blind, single] {
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
        let labelled = transactions::transaction(FRESH_SEED, index, 0.5);
        let record = serde_json::to_value(&labelled.transaction).unwrap();
        let expected = [
            "account_age_days",
            "amount",
            "card_present",
            "country",
            "currency",
            "customer_id",
            "hour",
            "merchant",
            "ts",
            "tx_id",
        ];
        assert_eq!(fields(&record), expected);
        assert_eq!(fields(&record["merchant"]), ["category", "country"]);
    }
}
