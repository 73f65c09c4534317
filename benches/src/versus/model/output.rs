//! What a record comes to, and when two of them are the same.

use std::collections::BTreeMap;

use anyhow::{Context, bail, ensure};
use serde::Deserialize;

/// How far apart scores of the same record may be.
const TOLERANCE: f64 = 1e-5;
/// How much in one direction embeddings of the same record must point.
const LEAST_COSINE: f64 = 0.9999;

/// The value of a scored record, as Milena writes it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
pub enum Output {
    /// A classifier's.
    Class {
        /// The likeliest label.
        label: String,
        /// Its score.
        score: f64,
        /// By label.
        scores: BTreeMap<String, f64>,
    },
    /// An encoder's.
    Embedding {
        /// Its numbers.
        embedding: Vec<f64>,
    },
}

impl Output {
    /// Reads it.
    pub fn parse(value: &[u8]) -> anyhow::Result<Self> {
        serde_json::from_slice(value)
            .with_context(|| format!("the output {}", String::from_utf8_lossy(value)))
    }

    /// An error where the other one says something else.
    pub fn compare(&self, other: &Self) -> anyhow::Result<()> {
        match (self, other) {
            (
                Self::Class {
                    label,
                    score,
                    scores,
                },
                Self::Class {
                    label: other_label,
                    score: other_score,
                    scores: other_scores,
                },
            ) => {
                ensure!(
                    close(*score, *other_score),
                    "score {other_score} is not {score}"
                );
                // Where both labels are as likely, either may be named.
                if label != other_label && !close(*score, 0.5) {
                    bail!("label {other_label} is not {label}");
                }
                compare_scores(scores, other_scores)
            }
            (Self::Embedding { embedding }, Self::Embedding { embedding: other }) => {
                ensure!(
                    embedding.len() == other.len(),
                    "{} numbers are not {}",
                    other.len(),
                    embedding.len()
                );
                let cosine = cosine(embedding, other);
                ensure!(
                    cosine >= LEAST_COSINE,
                    "the embedding's cosine with what it must be is {cosine}"
                );
                Ok(())
            }
            _ => bail!("{other:?} is an output of another kind than {self:?}"),
        }
    }
}

fn compare_scores(
    scores: &BTreeMap<String, f64>,
    others: &BTreeMap<String, f64>,
) -> anyhow::Result<()> {
    ensure!(scores.keys().eq(others.keys()), "the labels are others");
    for (label, score) in scores {
        let found = others[label];
        ensure!(
            close(*score, found),
            "the score {found} of {label} is not {score}"
        );
    }
    Ok(())
}

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() <= TOLERANCE
}

fn cosine(a: &[f64], b: &[f64]) -> f64 {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(json: &str) -> Output {
        Output::parse(json.as_bytes()).unwrap()
    }

    #[test]
    fn scores_may_differ_in_their_last_digits_only() {
        let one = output(r#"{"label":"a","score":0.7,"scores":{"a":0.7,"b":0.3}}"#);
        let near = output(r#"{"label":"a","score":0.700001,"scores":{"a":0.700001,"b":0.3}}"#);
        let far = output(r#"{"label":"a","score":0.7001,"scores":{"a":0.7001,"b":0.2999}}"#);
        let label = output(r#"{"label":"b","score":0.7,"scores":{"a":0.7,"b":0.3}}"#);
        one.compare(&near).unwrap();
        one.compare(&far).unwrap_err();
        one.compare(&label).unwrap_err();
        Output::parse(br#"{"label":"a","score":1.0}"#).unwrap_err();
    }

    #[test]
    fn embeddings_point_the_same_way() {
        let one = output(r#"{"embedding":[0.6,0.8]}"#);
        let near = output(r#"{"embedding":[0.6001,0.7999]}"#);
        let far = output(r#"{"embedding":[0.8,0.6]}"#);
        let shorter = output(r#"{"embedding":[1.0]}"#);
        one.compare(&near).unwrap();
        for other in [far, shorter, output(r#"{"embedding":[0.0,0.0]}"#)] {
            one.compare(&other).unwrap_err();
        }
    }
}
