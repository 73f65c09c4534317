//! Model topics that remember, through the real binary: keys from all partitions brought together, restarts, queries, and
//! topics that move under them.

mod moves;
mod world;

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tests::{Milena, eventually};

use world::{KEYED, Payments, config, scored, state};

#[test]
fn keys_from_all_partitions_are_brought_together() {
    let payments = Payments::new(3, 2000, 50);
    let milena = Milena::start(&config(KEYED, ""));
    payments.produce(&milena, 0..2000);
    let outputs = scored(&milena, 2000);

    // Each input once, under its own key, wherever it came from.
    let mut sources: Vec<_> = outputs.iter().map(world::source).collect();
    sources.sort_unstable();
    sources.dedup();
    assert_eq!(sources.len(), 2000);
    assert_eq!(sources, payments.sources(0..2000));
    // Of each customer the counts go from 1 up, in the order of its outputs, and all are in one partition.
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    let mut partitions: BTreeMap<String, i32> = BTreeMap::new();
    for output in &outputs {
        let count = counts.entry(output.customer.clone()).or_default();
        *count += 1;
        assert_eq!(output.value["f"]["n"], json!(*count as f64), "{output:?}");
        let partition = partitions
            .entry(output.customer.clone())
            .or_insert(output.partition);
        assert_eq!(*partition, output.partition);
        // The producer's key, not the state's.
        assert_eq!(
            output.key.as_deref(),
            Some(format!("tx-{}", output.value["id"]).as_str())
        );
    }
    assert_eq!(counts, payments.counts(0..2000));
    let spread: std::collections::BTreeSet<_> = partitions.values().collect();
    assert_eq!(spread.len(), 3);
}

#[test]
fn state_outlives_kills_and_stops() {
    let payments = Payments::new(3, 4000, 100);
    let mut milena = Milena::start(&config(KEYED, ""));
    payments.produce(&milena, 0..1000);
    scored(&milena, 1000);
    milena.stop();
    milena.restart();
    eventually("its state is there", || state(&milena, "c-1").ok());
    let log = milena.log();
    assert!(log.contains("resumed=true"), "{log}");
    payments.produce(&milena, 1000..2000);
    milena.kill();
    milena.restart();
    payments.produce(&milena, 2000..3000);
    scored(&milena, 3000);
    milena.kill();
    milena.restart();
    payments.produce(&milena, 3000..4000);
    let outputs = scored(&milena, 4000);
    let mut last: BTreeMap<String, f64> = BTreeMap::new();
    for output in &outputs {
        let n = output.value["f"]["n"].as_f64().expect("a count");
        let before = last.insert(output.customer.clone(), n).unwrap_or(0.0);
        assert_eq!(n, before + 1.0, "{output:?}");
    }
    let counts: BTreeMap<_, _> = last.into_iter().map(|(key, n)| (key, n as u64)).collect();
    assert_eq!(counts, payments.counts(0..4000));
}

#[test]
fn state_is_told_over_http() {
    let payments = Payments::new(3, 300, 10);
    let milena = Milena::start(&config(KEYED, ""));
    payments.produce(&milena, 0..300);
    scored(&milena, 300);
    let counts = payments.counts(0..300);
    for (customer, count) in &counts {
        let state = eventually("all is committed", || {
            let state = state(&milena, customer).expect("its state");
            (state["committed"] == json!(true)).then_some(state)
        });
        assert_eq!(state["model_topic"], json!("scored"));
        assert_eq!(state["key"], json!(customer));
        assert_eq!(state["features"]["n"], json!(*count as f64));
    }
    for (path, reason) in [
        (
            "/v1/state/scored/nobody",
            "model topic \"scored\" remembers nothing of \"nobody\"",
        ),
        ("/v1/state/other/c-1", "there is no model topic \"other\""),
    ] {
        let (status, body) = milena.get(path);
        let body: Value = serde_json::from_str(&body).expect("JSON");
        assert_eq!((status, &body["error"]), (404, &json!(reason)));
    }
    let keys = milena.metric("milena_model_topic_state_keys{topic=\"scored\"}");
    assert_eq!(keys, counts.len() as f64);
    assert!(
        milena.metric("milena_model_topic_state_bytes{topic=\"scored\",where=\"memory\"}") > 0.0
    );
    assert!(milena.metric("milena_model_topic_features_seconds_count{topic=\"scored\"}") > 0.0);
}

#[test]
fn what_has_no_key_is_a_dead_letter() {
    let milena = Milena::start(&config(KEYED, ""));
    world::produce(
        &milena,
        1,
        &[
            (
                Some("a"),
                Some(r#"{"id": 1, "customer": null, "amount": 1, "ts": 1}"#),
            ),
            (Some("b"), Some("not json")),
            (
                Some("c"),
                Some(r#"{"id": 2, "customer": 1.5, "amount": 1, "ts": 1}"#),
            ),
            (
                Some("d"),
                Some(r#"{"id": 3, "customer": "c-1", "amount": 1, "ts": 2}"#),
            ),
            (
                Some("e"),
                Some(r#"{"id": 4, "customer": "c-1", "amount": "much", "ts": 3}"#),
            ),
        ],
    );
    scored(&milena, 1);
    let letters = eventually("the dead letters", || {
        let letters: Vec<_> = milena
            .read_topic("scored.dlq")
            .into_values()
            .flatten()
            .collect();
        (letters.len() == 4).then_some(letters)
    });
    let mut told: Vec<_> = letters
        .iter()
        .map(|letter| {
            let text = |name| letter.header(name).expect("a header").to_owned();
            (text("source"), text("stage"), text("reason"))
        })
        .collect();
    told.sort();
    let [null, bad, fraction, much] = told.as_slice() else {
        panic!("{told:?}");
    };
    assert_eq!(
        (null.0.as_str(), null.1.as_str()),
        ("payments/1/0", "features")
    );
    assert_eq!(null.2, "the key of its state is null");
    assert_eq!((bad.0.as_str(), bad.1.as_str()), ("payments/1/1", "decode"));
    assert!(
        fraction.2.contains("a key is a text or a whole number"),
        "{fraction:?}"
    );
    // Behind the repartition topic, it is the original's place and key that count.
    assert_eq!(
        (much.0.as_str(), much.1.as_str()),
        ("payments/1/4", "features")
    );
    let much = letters
        .iter()
        .find(|letter| letter.header("source") == Some("payments/1/4"));
    assert_eq!(
        much.and_then(|letter| letter.key.as_deref()),
        Some(&b"e"[..])
    );
    assert!(much.is_some_and(|letter| letter.header("milena.origin").is_none()));
}

#[test]
fn rules_produce_alerts_once() {
    let payments = Payments::new(3, 1000, 20);
    let rule = "[[model_topic.rule]]\nwhen = '$f.n >= 10'\nproduce = 'alerts'\n";
    let mut milena = Milena::start(&config(KEYED, rule));
    payments.produce(&milena, 0..500);
    milena.kill();
    milena.restart();
    payments.produce(&milena, 500..1000);
    let outputs = scored(&milena, 1000);
    let mut expected: Vec<_> = outputs
        .iter()
        .filter(|output| output.value["f"]["n"].as_f64() >= Some(10.0))
        .map(|output| output.value.clone())
        .collect();
    let mut alerts: Vec<Value> = milena
        .read_topic("alerts")
        .into_values()
        .flatten()
        .map(|alert| serde_json::from_slice(&alert.value.expect("a value")).expect("JSON"))
        .collect();
    let order = |value: &Value| value["id"].as_i64();
    expected.sort_by_key(order);
    alerts.sort_by_key(order);
    assert_eq!(alerts, expected);
}
