//! Topics that move under a model topic, and configs that its state does not fit.

use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};
use serde_json::json;
use tests::{Milena, eventually};

use super::world::{KEYED, Payments, Scored, config, produce, scored, source};

fn grow(milena: &Milena, topic: &str, partitions: usize) -> Result<(), RDKafkaErrorCode> {
    let admin: AdminClient<DefaultClientContext> = milena.client_with(&[]);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let asked = [NewPartitions::new(topic, partitions)];
    let results = runtime.block_on(admin.create_partitions(&asked, &AdminOptions::new()));
    let result = results.expect("an answer").remove(0);
    result.map(drop).map_err(|(_, code)| code)
}

fn halted(milena: &Milena, topic: &str) {
    let metric = format!("milena_model_topic_halted{{topic=\"{topic}\"}}");
    eventually(&format!("{topic} halts"), || {
        (milena.metric_if_there(&metric) == Some(1.0)).then_some(())
    });
}

#[test]
fn an_input_grows_where_keys_are_brought_together_and_only_there() {
    let milena = Milena::start(&config("", ""));
    let refused = grow(&milena, "payments", 5);
    assert_eq!(refused, Err(RDKafkaErrorCode::PolicyViolation));
    drop(milena);

    let milena = Milena::start(&config(KEYED, ""));
    let payments = Payments::new(3, 600, 10);
    payments.produce(&milena, 0..300);
    scored(&milena, 300);
    assert_eq!(grow(&milena, "payments", 5), Ok(()));
    let one = r#"{"id": 1, "customer": "c-1", "amount": 1, "ts": 1060000}"#;
    produce(&milena, 4, &[(Some("tx-1"), Some(one))]);
    payments.produce(&milena, 300..600);
    scored(&milena, 601);
    // State stays where it was, and so do the outputs.
    assert_eq!(milena.ends("scored").len(), 3);
}

#[test]
fn another_key_is_refused_and_says_what_to_do() {
    let mut milena = Milena::start(&config(KEYED, ""));
    Payments::new(3, 30, 10).produce(&milena, 0..30);
    scored(&milena, 30);
    milena.stop();
    let other = milena.config().replace("$.customer'", "$.id'");
    milena.set_config(other);
    milena.restart();
    halted(&milena, "scored");
    let log = milena.log();
    let expected = "the state was kept by the field $.customer, and the config says the field $.id";
    assert!(log.contains(expected), "{log}");
    // What is there can be read.
    assert_eq!(milena.ends("scored").values().sum::<i64>(), 30);
}

/// Also where the process is killed while it does so.
#[test]
fn state_is_built_anew_on_request_and_nothing_is_put_out_twice() {
    for keys in [KEYED, ""] {
        let payments = Payments::new(3, 3000, 20);
        let mut milena = Milena::start(&config(keys, ""));
        payments.produce(&milena, 0..2000);
        let bad = [(Some("b"), Some("not json"))];
        produce(&milena, 1, &bad);
        let before = scored(&milena, 2000);
        milena.stop();
        let more = "[[model_topic.feature]]\nname = 'most'\nagg = 'max'\npath = '$.amount'\n";
        let with_more = format!("{}{more}", milena.config());
        milena.set_config(with_more);
        milena.restart();
        halted(&milena, "scored");
        milena.kill();
        milena.set_arguments(&["--rebuild-state", "scored"]);
        milena.restart();
        milena.kill();
        // Of a rebuild that has begun nothing needs to be asked.
        milena.set_arguments(&[]);
        milena.restart();
        payments.produce(&milena, 2000..3000);
        let outputs = scored(&milena, 3000);
        let sources = |outputs: &[Scored]| -> Vec<_> { outputs.iter().map(source).collect() };
        let mut found = sources(&outputs);
        found.sort_unstable();
        found.dedup();
        assert_eq!(found.len(), 3000);
        assert!(sources(&before).iter().all(|source| found.contains(source)));
        if keys == KEYED {
            let mut last = std::collections::BTreeMap::new();
            for output in &outputs {
                let n = output.value["f"]["n"].as_f64().expect("a count");
                let counted = last.insert(output.customer.clone(), n).unwrap_or(0.0);
                assert_eq!(n, counted + 1.0, "{output:?}");
            }
            assert_eq!(last.len(), 20);
        }
        let letters: usize = milena.read_topic("scored.dlq").values().map(Vec::len).sum();
        assert_eq!(letters, 1);
    }
}

#[test]
fn an_input_that_is_deleted_halts_what_reads_it_and_one_of_its_name_is_read_from_its_start() {
    let mut milena = Milena::start(&config("", ""));
    let one =
        |id: usize| json!({"id": id, "customer": "c", "amount": 1, "ts": 1000 + id}).to_string();
    produce(
        &milena,
        0,
        &[(Some("c"), Some(&one(0))), (Some("c"), Some(&one(1)))],
    );
    scored(&milena, 2);
    let admin: AdminClient<DefaultClientContext> = milena.client_with(&[]);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let deleted = runtime.block_on(admin.delete_topics(&["payments"], &AdminOptions::new()));
    assert_eq!(deleted.expect("an answer"), [Ok("payments".to_owned())]);
    halted(&milena, "scored");
    milena.stop();
    // It is created anew by the start.
    milena.restart();
    produce(&milena, 0, &[(Some("c"), Some(&one(2)))]);
    let outputs = scored(&milena, 3);
    assert_eq!(outputs[2].record.header("milena.source.offset"), Some("0"));
    // What is remembered of keys goes on.
    assert_eq!(outputs[2].value["f"]["n"], json!(3.0));
}

#[test]
fn an_output_is_not_deleted_under_its_model_topic() {
    let milena = Milena::start(&config(KEYED, ""));
    let admin: AdminClient<DefaultClientContext> = milena.client_with(&[]);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    for topic in [
        "scored",
        "scored.repartition",
        "scored.changelog",
        "scored.dlq",
    ] {
        let deleted = runtime.block_on(admin.delete_topics(&[topic], &AdminOptions::new()));
        let deleted = deleted.expect("an answer").remove(0);
        assert!(deleted.is_err(), "{topic}");
    }
}

#[test]
fn records_that_are_gone_before_they_are_read_are_passed_over_and_counted() {
    let mut milena = Milena::start(&config("", ""));
    let one =
        |id: usize| json!({"id": id, "customer": "c", "amount": 1, "ts": 1000 + id}).to_string();
    produce(&milena, 0, &[(Some("c"), Some(&one(0)))]);
    scored(&milena, 1);
    milena.stop();
    let with = milena.config().to_owned();
    let without = with
        .split("[[model]]")
        .next()
        .expect("the topic")
        .to_owned();
    milena.set_config(without);
    milena.restart();
    for id in 1..10 {
        produce(&milena, 0, &[(Some("c"), Some(&one(id)))]);
    }
    let admin: AdminClient<DefaultClientContext> = milena.client_with(&[]);
    let mut before = TopicPartitionList::new();
    before
        .add_partition_offset("payments", 0, Offset::Offset(6))
        .expect("an offset");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let deleted = runtime.block_on(admin.delete_records(&before, &AdminOptions::new()));
    deleted.expect("deleted");
    milena.stop();
    milena.set_config(with);
    milena.restart();
    let outputs = scored(&milena, 5);
    let ids: Vec<_> = outputs
        .iter()
        .map(|output| output.value["id"].clone())
        .collect();
    assert_eq!(ids, [0, 6, 7, 8, 9].map(|id| json!(id)));
    // They are not in the count: what was gone was never seen.
    assert_eq!(outputs[4].value["f"]["n"], json!(5.0));
    let missed = milena.metric("milena_model_topic_missed_records_total{topic=\"scored\"}");
    assert_eq!(missed, 5.0);
}
