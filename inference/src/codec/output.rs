//! Logits to what a derived record says.
//!
//! | task | JSON | raw |
//! |---|---|---|
//! | anomaly | `{"score":0.42,"anomaly":true}`, without `anomaly` where the card has no threshold | the score |
//! | classify | `{"label":"fraud","score":0.97,"scores":{"ok":0.03,"fraud":0.97}}` | the scores, in the labels' order |
//! | embed | `{"embedding":[0.1,-0.2]}` | the numbers |
//! | regress | `{"value":1.5}`, a list where the model has several outputs | the values |
//!
//! Scores of labels are probabilities: by softmax, or by sigmoid where the model has one output; `score` is the
//! label's. An anomaly's is 0 or more, and `anomaly` says whether it has reached the threshold.
//! Raw is little-endian f32.

use bytes::{BufMut, BytesMut};

use crate::model::card::{Card, ModelTask};
use crate::spec::Codec;

/// Turns logits into a record's value.
#[derive(Clone, Debug)]
pub struct OutputEncoder {
    codec: Codec,
    task: ModelTask,
    /// As JSON texts.
    labels: Vec<Vec<u8>>,
    threshold: Option<f32>,
    scores: Vec<f32>,
}

impl OutputEncoder {
    /// For a model.
    pub fn new(card: &Card, codec: Codec) -> Self {
        let json = |label: &String| serde_json::Value::from(label.as_str()).to_string();
        Self {
            codec,
            task: card.task(),
            labels: card
                .labels()
                .iter()
                .map(|label| json(label).into_bytes())
                .collect(),
            threshold: card.threshold().map(|threshold| threshold as f32),
            scores: Vec::new(),
        }
    }

    /// Appends the value that a row of finite logits gives.
    pub fn encode(&mut self, logits: &[f32], out: &mut BytesMut) {
        self.scores.clear();
        match self.task {
            ModelTask::Classify => probabilities(logits, &mut self.scores),
            _ => self.scores.extend_from_slice(logits),
        }
        match (self.codec, self.task) {
            (Codec::Raw, _) => self.scores.iter().for_each(|score| out.put_f32_le(*score)),
            (_, ModelTask::Anomaly) => self.anomaly(out),
            (_, ModelTask::Regress) => values(&self.scores, out),
            (_, ModelTask::Embed) => {
                out.put_slice(b"{\"embedding\":");
                list(&self.scores, out);
                out.put_slice(b"}");
            }
            (_, ModelTask::Classify) => self.classes(out),
        }
    }

    fn anomaly(&self, out: &mut BytesMut) {
        let score = self.scores.first().copied().unwrap_or_default();
        out.put_slice(b"{\"score\":");
        number(score, out);
        if let Some(threshold) = self.threshold {
            out.put_slice(b",\"anomaly\":");
            out.put_slice(if score >= threshold {
                b"true"
            } else {
                b"false"
            });
        }
        out.put_slice(b"}");
    }

    fn classes(&self, out: &mut BytesMut) {
        let scored = || self.labels.iter().zip(&self.scores);
        // The last of equals: 0.5 is enough for the positive one of two.
        let best = scored().reduce(|best, next| if best.1 > next.1 { best } else { next });
        out.put_slice(b"{");
        if let Some((label, score)) = best {
            out.put_slice(b"\"label\":");
            out.put_slice(label);
            out.put_slice(b",\"score\":");
            number(*score, out);
            out.put_slice(b",");
        }
        out.put_slice(b"\"scores\":{");
        for (index, (label, score)) in scored().enumerate() {
            if index > 0 {
                out.put_slice(b",");
            }
            out.put_slice(label);
            out.put_slice(b":");
            number(*score, out);
        }
        out.put_slice(b"}}");
    }
}

fn values(values: &[f32], out: &mut BytesMut) {
    out.put_slice(b"{\"value\":");
    match values {
        [value] => number(*value, out),
        values => list(values, out),
    }
    out.put_slice(b"}");
}

fn list(values: &[f32], out: &mut BytesMut) {
    out.put_slice(b"[");
    for (index, value) in values.iter().enumerate() {
        if index > 0 {
            out.put_slice(b",");
        }
        number(*value, out);
    }
    out.put_slice(b"]");
}

/// The shortest text that reads as the same f32.
fn number(value: f32, out: &mut BytesMut) {
    // Neither a finite f32 nor a growing buffer can fail.
    let _ = serde_json::to_writer(out.writer(), &value);
}

/// In f64, since `1 - p` of a f32 has no digits left where it matters.
fn probabilities(logits: &[f32], scores: &mut Vec<f32>) {
    if let [logit] = logits {
        let logit = f64::from(*logit);
        let of = |logit: f64| (1.0 / (1.0 + (-logit).exp())) as f32;
        scores.extend([of(-logit), of(logit)]);
        return;
    }
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let exp = |logit: &f32| (f64::from(*logit) - f64::from(most)).exp();
    let sum: f64 = logits.iter().map(exp).sum();
    scores.extend(logits.iter().map(|logit| (exp(logit) / sum) as f32));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::card::ModelCard;

    fn encode(task: &str, labels: &str, output: usize, codec: Codec, logits: &[f32]) -> Vec<u8> {
        let card = format!(
            r#"{{"model_type":"linear","task":"{task}","labels":{labels},"inputs":[{{"path":"$.x"}}],"output":{output}}}"#
        );
        let card = Card::Tabular(ModelCard::parse(card.as_bytes()).unwrap());
        let mut out = BytesMut::new();
        OutputEncoder::new(&card, codec).encode(logits, &mut out);
        out.to_vec()
    }

    fn json(task: &str, labels: &str, output: usize, logits: &[f32]) -> String {
        String::from_utf8(encode(task, labels, output, Codec::Json, logits)).unwrap()
    }

    #[test]
    fn scores_by_sigmoid() {
        let labels = r#"["ok","fraud"]"#;
        assert_eq!(
            json("classify", labels, 1, &[0.0]),
            r#"{"label":"fraud","score":0.5,"scores":{"ok":0.5,"fraud":0.5}}"#
        );
        assert_eq!(
            json("classify", labels, 1, &[-3.0]),
            r#"{"label":"ok","score":0.95257413,"scores":{"ok":0.95257413,"fraud":0.047425874}}"#
        );
        assert_eq!(
            json("classify", labels, 1, &[-200.0]),
            r#"{"label":"ok","score":1.0,"scores":{"ok":1.0,"fraud":0.0}}"#
        );
    }

    #[test]
    fn scores_by_softmax_and_escapes_labels() {
        assert_eq!(
            json(
                "classify",
                r#"["a","\"b\"","c"]"#,
                3,
                &[0.0, 2f32.ln(), 0.0]
            ),
            r#"{"label":"\"b\"","score":0.5,"scores":{"a":0.25,"\"b\"":0.5,"c":0.25}}"#
        );
        let huge = json("classify", r#"["a","b"]"#, 2, &[3e38, -3e38]);
        assert!(huge.contains(r#""label":"a","score":1.0"#), "{huge}");
    }

    #[test]
    fn says_what_has_reached_the_threshold() {
        let encode = |threshold: &str, codec, score: f32| {
            let card = format!(
                r#"{{"model_type":"mlp","task":"anomaly","inputs":[{{"path":"$.x"}}],"hidden":[1],
                "activation":"relu",{threshold}"output":1}}"#
            );
            let card = Card::Tabular(ModelCard::parse(card.as_bytes()).unwrap());
            let mut out = BytesMut::new();
            OutputEncoder::new(&card, codec).encode(&[score], &mut out);
            out.to_vec()
        };
        let threshold = r#""threshold":0.42,"#;
        for (score, expected) in [
            // 0.42 is 0.41999999 in f32: the threshold is rounded as the score is.
            (0.42, r#"{"score":0.42,"anomaly":true}"#),
            (0.419, r#"{"score":0.419,"anomaly":false}"#),
        ] {
            assert_eq!(encode(threshold, Codec::Json, score), expected.as_bytes());
        }
        assert_eq!(encode("", Codec::Json, 0.42), br#"{"score":0.42}"#);
        assert_eq!(encode(threshold, Codec::Raw, 0.42), 0.42f32.to_le_bytes());
    }

    #[test]
    fn gives_values_and_raw() {
        assert_eq!(json("regress", "[]", 1, &[1.5]), r#"{"value":1.5}"#);
        assert_eq!(
            json("regress", "[]", 2, &[1.5, -0.1]),
            r#"{"value":[1.5,-0.1]}"#
        );
        assert_eq!(
            encode("regress", "[]", 1, Codec::Raw, &[1.5]),
            1.5f32.to_le_bytes()
        );
        let scores = encode("classify", r#"["a","b"]"#, 1, Codec::Raw, &[0.0]);
        assert_eq!(
            scores,
            [0.5f32.to_le_bytes(), 0.5f32.to_le_bytes()].concat()
        );
    }
}
