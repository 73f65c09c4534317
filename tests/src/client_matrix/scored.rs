//! What a model topic is there for, from each language: transactions in, scores out.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::Setup;
use super::client::{Client, ConsumerOptions};
use super::record::Record;
use super::reference;
use super::report::{Case, Outcome};

/// The input of the model topic.
pub const INPUT: &str = "transactions";
/// Its output, which clients can only read.
pub const OUTPUT: &str = "transactions.scored";

const TRANSACTIONS: usize = 300;

/// Every transaction that the client sends comes back to it scored, once.
pub fn run(setup: &Setup, client: &Client) -> Case {
    if !reference::has_topic(&setup.bootstrap, OUTPUT)? {
        return Ok(Outcome::Lacking("the broker runs no model topic"));
    }
    let group = setup.name(client, "scores");
    let sent: Vec<Record> = (0..TRANSACTIONS)
        .map(|n| transaction(&format!("{group}-{n}"), n))
        .collect();
    client.produce(&setup.bootstrap, INPUT, "lz4", &sent)?;
    let consumer = client.consumer(&setup.bootstrap, OUTPUT, &group, ConsumerOptions::default())?;
    consumer.wait_for("a score of each transaction", |said| {
        let own = said
            .read
            .iter()
            .filter(|read| is_of(&group, read.key.as_deref()));
        (own.count() >= sent.len()).then_some(())
    })?;
    let mut scores: BTreeMap<String, f64> = BTreeMap::new();
    for read in consumer.stop()?.read {
        if !is_of(&group, read.key.as_deref()) {
            continue; // another client's
        }
        let (Some(key), Some(value)) = (read.key, read.value) else {
            return Err(format!(
                "offset {} of partition {} has no value",
                read.offset, read.partition
            ));
        };
        let value: Value =
            serde_json::from_str(&value).map_err(|e| format!("'{value}' is no JSON: {e}"))?;
        let score = value
            .get("score")
            .and_then(Value::as_f64)
            .filter(|score| (0.0..=1.0).contains(score));
        let score = score.ok_or_else(|| format!("'{value}' has no score"))?;
        if scores.insert(key.clone(), score).is_some() {
            return Err(format!("{key} was scored twice"));
        }
    }
    match sent
        .iter()
        .find(|s| s.key.as_ref().is_none_or(|key| !scores.contains_key(key)))
    {
        None => Ok(Outcome::Passed),
        Some(missing) => Err(format!("{:?} has no score", missing.key)),
    }
}

fn is_of(group: &str, key: Option<&str>) -> bool {
    key.is_some_and(|key| {
        key.strip_prefix(group)
            .is_some_and(|rest| rest.starts_with('-'))
    })
}

fn transaction(id: &str, n: usize) -> Record {
    let value = json!({
        "tx_id": id,
        "customer_id": format!("c-{}", n % 100),
        "ts": 1_763_625_600_000_u64 + n as u64,
        "amount": 5 + n,
        "currency": "EUR",
        "merchant": {"category": "groceries", "country": "CZ"},
        "card_present": n % 3 == 1,
        "hour": n % 24,
        "country": "CZ",
        "n_last_hour": n % 4,
        "amount_vs_mean": 1.0,
        "account_age_days": 400,
        "distance_km": 3.5,
    });
    Record {
        key: Some(id.to_owned()),
        value: Some(value.to_string()),
        ..Record::default()
    }
}
