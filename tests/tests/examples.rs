//! The examples under `config/examples` give what their READMEs say: the records there are produced to the example's
//! own model topic, and what comes out is compared.

use std::collections::BTreeMap;

use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::Value;
use tests::{Milena, PATIENCE, eventually, repository};

/// Scores are written with all their digits, which another processor may round differently.
const TOLERANCE: f64 = 1e-3;

/// An example's folder.
struct Example {
    readme: String,
    /// Its topics and models, with the model's folder as a whole path.
    config: String,
}

impl Example {
    fn read(name: &str, model: &str) -> Self {
        let folder = repository().join("config/examples").join(name);
        let read = |file: &str| {
            let path = folder.join(file);
            std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
        };
        let config = read("milena.toml");
        let (_, topics) = config.split_once("\n[[topic]]").expect("a topic");
        let source = format!("source = {model:?}");
        assert!(topics.contains("source = \"model\""), "{topics}");
        Self {
            readme: read("README.md"),
            config: format!("[[topic]]{topics}").replace("source = \"model\"", &source),
        }
    }

    /// What it produces, by key: the lines `key|{…}`.
    fn records(&self) -> BTreeMap<&str, &str> {
        let lines = self.readme.lines();
        let records: BTreeMap<&str, &str> = lines
            .filter_map(|line| line.split_once('|'))
            .filter(|(key, value)| !key.contains(' ') && value.starts_with('{'))
            .collect();
        assert!(!records.is_empty());
        records
    }

    /// Serves it, produces records, and gives the values of what comes out by key.
    fn run(
        &self,
        input: &str,
        output: &str,
        records: &BTreeMap<&str, &str>,
    ) -> BTreeMap<String, Value> {
        let milena = Milena::start(&self.config);
        let producer: BaseProducer = milena.client_with(&[("acks", "all")]);
        for (key, value) in records {
            let record = BaseRecord::to(input).key(*key).payload(*value);
            producer.send(record).map_err(|(e, _)| e).expect("queued");
        }
        producer.flush(PATIENCE).expect("delivered");
        eventually("all records have come out", || {
            let ends = milena.ends(output);
            (ends.values().sum::<i64>() == records.len() as i64).then_some(())
        });
        let outputs = milena.read_topic(output).into_values().flatten();
        outputs
            .map(|output| {
                let key = String::from_utf8(output.key.expect("a key")).expect("UTF-8");
                let value = output.value.expect("a value");
                (key, serde_json::from_slice(&value).expect("JSON"))
            })
            .collect()
    }
}

#[test]
fn sentiments_are_those_of_the_readme() {
    let model = repository().join("config/examples/sentiment/model");
    let example = Example::read("sentiment", model.to_str().expect("UTF-8"));
    let outputs = example.run("reviews", "reviews.sentiment", &example.records());
    let said: BTreeMap<&str, Value> = example
        .readme
        .lines()
        .filter_map(|line| line.split_once(" {\"label\""))
        .map(|(key, rest)| {
            let value = format!("{{\"label\"{rest}");
            (key, serde_json::from_str(&value).expect("JSON"))
        })
        .collect();
    assert_eq!(said.len(), outputs.len());
    for (key, said) in said {
        let output = &outputs[key];
        assert_eq!(output["label"], said["label"], "{key}");
        let difference =
            output["score"].as_f64().expect("a score") - said["score"].as_f64().expect("a score");
        assert!(difference.abs() < TOLERANCE, "{key}: {output}");
    }
}

#[test]
fn the_transaction_of_the_readme_is_scored_as_it_says() {
    let model = repository().join("config/examples/fraud/model");
    let example = Example::read("fraud", model.to_str().expect("UTF-8"));
    let blocks = example.readme.split("```json\n").skip(1);
    let blocks: Vec<&str> = blocks
        .map(|rest| rest.split_once("```").expect("an end").0)
        .collect();
    let [transaction, said] = blocks[..] else {
        panic!("{} blocks of JSON", blocks.len());
    };
    let said: Value = serde_json::from_str(said).expect("JSON");
    let customer = said["customer_id"].as_str().expect("a customer");
    let outputs = example.run(
        "transactions",
        "transactions.scored",
        &BTreeMap::from([(customer, transaction)]),
    );
    let output = &outputs[customer];
    for field in ["tx_id", "customer_id", "features"] {
        assert_eq!(output[field], said[field], "{output}");
    }
    let score = |of: &Value| of["score"].as_f64().expect("a score");
    assert!(
        (score(output) / score(&said) - 1.0).abs() < TOLERANCE,
        "{output}"
    );
}

#[test]
#[ignore = "MiniLM's weights have to be there: MILENA_MINILM=$(tests/minilm/fetch)"]
fn the_nearest_tickets_are_those_of_the_readme() {
    let model = std::env::var("MILENA_MINILM").expect("MILENA_MINILM, the folder of the weights");
    let example = Example::read("embeddings", &model);
    let outputs = example.run("tickets", "tickets.embedded", &example.records());
    let embeddings: BTreeMap<&str, Vec<f64>> = outputs
        .iter()
        .map(|(key, value)| {
            let numbers = value["embedding"].as_array().expect("an embedding");
            let numbers = numbers.iter().map(|n| n.as_f64().expect("a number"));
            (key.as_str(), numbers.collect())
        })
        .collect();
    let cosine = |a: &str, b: &str| -> f64 {
        let pairs = embeddings[a].iter().zip(&embeddings[b]);
        pairs.map(|(a, b)| a * b).sum()
    };
    for key in embeddings.keys() {
        let others = embeddings.keys().filter(|other| *other != key);
        let nearest = others.max_by(|a, b| cosine(key, a).total_cmp(&cosine(key, b)));
        let nearest = nearest.expect("another one");
        let line = format!("{key} {nearest} {:.3}", cosine(key, nearest));
        let is_said = example.readme.lines().any(|said| said == line);
        assert!(is_said, "the README has no line {line:?}");
    }
}
