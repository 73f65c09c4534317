//! What a record comes to, and when two of them are the same.

use std::collections::BTreeMap;

use anyhow::{Context, bail, ensure};
use serde::Deserialize;

/// How far apart scores of the same record may be.
const TOLERANCE: f64 = 1e-5;

/// The value of a scored record, as Milena's classifiers write it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Output {
    /// The likeliest label.
    pub label: String,
    /// Its score.
    pub score: f64,
    /// By label.
    pub scores: BTreeMap<String, f64>,
}

impl Output {
    /// Reads it.
    pub fn parse(value: &[u8]) -> anyhow::Result<Self> {
        serde_json::from_slice(value)
            .with_context(|| format!("the output {}", String::from_utf8_lossy(value)))
    }

    /// An error where the other one says something else.
    pub fn compare(&self, other: &Self) -> anyhow::Result<()> {
        let close = |a: f64, b: f64| (a - b).abs() <= TOLERANCE;
        ensure!(
            close(self.score, other.score),
            "score {} is not {}",
            other.score,
            self.score
        );
        // Where both labels are as likely, either may be named.
        if self.label != other.label && !close(self.score, 0.5) {
            bail!("label {} is not {}", other.label, self.label);
        }
        ensure!(
            self.scores.keys().eq(other.scores.keys()),
            "the labels are others"
        );
        for (label, score) in &self.scores {
            let found = other.scores[label];
            ensure!(
                close(*score, found),
                "the score {found} of {label} is not {score}"
            );
        }
        Ok(())
    }
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
}
