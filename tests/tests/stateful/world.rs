//! Payments of customers, spread over the partitions of their topic, and a model topic that counts them.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::OnceLock;

use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::{Value, json};
use tests::{Milena, PATIENCE, Received, eventually};

/// A model topic that is keyed by a field.
pub(crate) const KEYED: &str = "key = '$.customer'";

/// The config of a model topic `scored` over `payments`, with some keys of its own, and more after it.
pub(crate) fn config(keys: &str, more: &str) -> String {
    static MODEL: OnceLock<tempfile::TempDir> = OnceLock::new();
    let model = MODEL.get_or_init(|| {
        let folder = tempfile::tempdir().expect("a folder");
        let card = json!({
            "model_type": "linear", "task": "regress", "output": 1,
            "inputs": [{ "name": "amount", "path": "$.amount" }, { "name": "n", "path": "$.unused", "default": 0 }],
        });
        let tensors: [(&str, &[usize], &[f32]); 2] = [
            ("layers.0.weight", &[1, 2], &[1.0, 10.0]),
            ("layers.0.bias", &[1], &[0.0]),
        ];
        tests::write_model(folder.path(), &card, &tensors);
        folder
    });
    let model = model.path();
    format!(
        "[[topic]]\nname = 'payments'\npartitions = 3\nevent_time = {{ field = '$.ts', format = 'unix_ms' }}\n\
         [[model]]\nname = 'm'\nsource = {model:?}\n\
         [[model_topic]]\nname = 'scored'\ninput = 'payments'\nmodel = 'm'\n{keys}\n\
         output = {{ template = {{ id = '$in.id', customer = '$in.customer', v = '$out.value', f = '$f' }} }}\n\
         [[model_topic.feature]]\nname = 'n'\nagg = 'count'\n\
         [[model_topic.feature]]\nname = 'sum'\nagg = 'sum'\npath = '$.amount'\n\
         window = {{ sliding = '1m', slice = '10s', grace = '1h' }}\n{more}"
    )
}

/// Payments, in an order that is the same each time.
pub(crate) struct Payments {
    partitions: i32,
    all: Vec<(i32, String, Value)>,
}

impl Payments {
    pub(crate) fn new(partitions: i32, count: usize, customers: u64) -> Self {
        let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = || {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed
        };
        let all = (0..count).map(|id| {
            let partition = (random() % partitions as u64) as i32;
            let customer = format!("c-{}", random() % customers);
            let amount = (random() % 10_000) as f64 / 100.0;
            let value = json!({"id": id, "customer": customer, "amount": amount, "ts": 1_000_000 + 100 * id});
            (partition, customer, value)
        });
        Self {
            partitions,
            all: all.collect(),
        }
    }

    pub(crate) fn produce(&self, milena: &Milena, range: Range<usize>) {
        for partition in 0..self.partitions {
            let records: Vec<(String, String)> = self.all[range.clone()]
                .iter()
                .filter(|(of, _, _)| *of == partition)
                .map(|(_, _, value)| (format!("tx-{}", value["id"]), value.to_string()))
                .collect();
            let borrowed: Vec<_> = records
                .iter()
                .map(|(key, value)| (Some(key.as_str()), Some(value.as_str())))
                .collect();
            produce(milena, partition, &borrowed);
        }
    }

    /// Where they are: partition and offset, in order.
    pub(crate) fn sources(&self, range: Range<usize>) -> Vec<(i32, i64)> {
        let mut ends: BTreeMap<i32, i64> = BTreeMap::new();
        let mut sources = Vec::new();
        for (partition, _, _) in &self.all[range] {
            let end = ends.entry(*partition).or_default();
            sources.push((*partition, *end));
            *end += 1;
        }
        sources.sort_unstable();
        sources
    }

    /// By customer.
    pub(crate) fn counts(&self, range: Range<usize>) -> BTreeMap<String, u64> {
        let mut counts = BTreeMap::new();
        for (_, customer, _) in &self.all[range] {
            *counts.entry(customer.clone()).or_default() += 1;
        }
        counts
    }
}

/// Idempotent, so that what a kill cuts off is there once.
pub(crate) fn produce(milena: &Milena, partition: i32, records: &[(Option<&str>, Option<&str>)]) {
    let producer: BaseProducer =
        milena.client_with(&[("acks", "all"), ("enable.idempotence", "true")]);
    for (key, value) in records {
        let mut record = BaseRecord::<str, str>::to("payments").partition(partition);
        record.key = *key;
        record.payload = *value;
        producer.send(record).map_err(|(e, _)| e).expect("queued");
    }
    producer.flush(PATIENCE).expect("delivered");
}

/// An output.
#[derive(Debug)]
pub(crate) struct Scored {
    pub(crate) partition: i32,
    pub(crate) key: Option<String>,
    pub(crate) customer: String,
    pub(crate) value: Value,
    pub(crate) record: Received,
}

pub(crate) fn source(scored: &Scored) -> (i32, i64) {
    let number = |name: &str| {
        let text = scored.record.header(name).expect("a header");
        text.parse::<i64>().expect("a number")
    };
    assert_eq!(
        scored.record.header("milena.source.topic"),
        Some("payments")
    );
    (
        number("milena.source.partition") as i32,
        number("milena.source.offset"),
    )
}

/// So many outputs, and no more, partition after partition.
pub(crate) fn scored(milena: &Milena, count: usize) -> Vec<Scored> {
    eventually(&format!("{count} outputs"), || {
        let there: i64 = milena.ends("scored").values().sum();
        (there >= count as i64).then_some(())
    });
    let outputs = milena.read_topic("scored");
    let outputs: Vec<Scored> = outputs
        .into_iter()
        .flat_map(|(partition, records)| records.into_iter().map(move |record| (partition, record)))
        .map(|(partition, record)| {
            let value = record.value.as_deref().expect("a value");
            let value: Value = serde_json::from_slice(value).expect("JSON");
            let key = record
                .key
                .clone()
                .map(|key| String::from_utf8(key).expect("a text"));
            Scored {
                partition,
                key,
                customer: value["customer"].as_str().expect("a customer").to_owned(),
                value,
                record,
            }
        })
        .collect();
    assert_eq!(outputs.len(), count);
    outputs
}

/// What the model topic remembers of a customer, or the status.
pub(crate) fn state(milena: &Milena, customer: &str) -> Result<Value, u16> {
    match milena.get(&format!("/v1/state/scored/{customer}")) {
        (200, body) => Ok(serde_json::from_str(&body).expect("JSON")),
        (status, _) => Err(status),
    }
}
