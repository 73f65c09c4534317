//! Model topics through the real binary: scores, lineage, dead letters, restarts.

use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, FutureProducer, FutureRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};
use serde_json::{Value, json};
use tests::{Milena, PATIENCE, Received, eventually};

/// A linear regressor `2 a + 3 b + 1` over two fields, written as a user would export it.
fn linear_model(dir: &std::path::Path) {
    let card = json!({
        "model_type": "linear", "task": "regress", "output": 1,
        "inputs": [{ "path": "$.a" }, { "path": "$.nested.b", "default": 0.0 }],
    });
    tests::write_model(
        dir,
        &card,
        &[
            ("layers.0.weight", &[1, 2], &[2.0, 3.0]),
            ("layers.0.bias", &[1], &[1.0]),
        ],
    );
}

fn config(model: &std::path::Path) -> String {
    format!(
        "[[topic]]\nname = \"in\"\npartitions = 3\n\
         [[model]]\nname = \"m\"\nsource = {model:?}\n\
         [[model_topic]]\nname = \"out\"\ninput = \"in\"\nmodel = \"m\"\n"
    )
}

fn produce(
    milena: &Milena,
    topic: &str,
    partition: i32,
    records: &[(Option<&str>, Option<&[u8]>)],
) {
    let producer: BaseProducer = milena.client_with(&[("acks", "all")]);
    for (key, value) in records {
        let mut record = BaseRecord::<str, [u8]>::to(topic).partition(partition);
        record.key = *key;
        record.payload = *value;
        producer.send(record).map_err(|(e, _)| e).expect("queued");
    }
    producer.flush(PATIENCE).expect("delivered");
}

fn wait_for(milena: &Milena, topic: &str, partition: i32, end: i64) -> Vec<Received> {
    eventually(&format!("{topic} reaches {end}"), || {
        (milena.ends(topic).get(&partition).copied() >= Some(end)).then_some(())
    });
    milena
        .read_topic(topic)
        .remove(&partition)
        .unwrap_or_default()
}

fn value(record: &Received) -> Value {
    serde_json::from_slice(record.value.as_deref().expect("a value")).expect("JSON")
}

#[test]
fn every_record_gets_its_output_with_key_time_and_lineage() {
    let model = tempfile::tempdir().expect("a folder");
    linear_model(model.path());
    let milena = Milena::start(&config(model.path()));
    produce(
        &milena,
        "in",
        1,
        &[
            (
                Some("k1"),
                Some(br#"{"a": 1, "nested": {"b": 2}, "more": [1, {"x": null}]}"#),
            ),
            (None, Some(br#"{"a": -1.5}"#)),
            (Some("gone"), None),
        ],
    );
    let inputs = milena.read_topic("in").remove(&1).expect("partition 1");
    let outputs = wait_for(&milena, "out", 1, 3);

    assert_eq!(value(&outputs[0]), json!({ "value": 9.0 }));
    assert_eq!(value(&outputs[1]), json!({ "value": -2.0 }));
    assert_eq!(outputs[2].value, None, "a tombstone is passed on");
    for (n, (input, output)) in inputs.iter().zip(&outputs).enumerate() {
        assert_eq!(output.key, input.key);
        assert_eq!(output.timestamp_ms, input.timestamp_ms);
        assert_eq!(output.header("milena.source.topic"), Some("in"));
        assert_eq!(output.header("milena.source.partition"), Some("1"));
        assert_eq!(
            output.header("milena.source.offset"),
            Some(n.to_string().as_str())
        );
        assert_eq!(output.header("milena.model"), Some("m"));
        assert_eq!(output.header("milena.model.sha256").map(str::len), Some(64));
        assert_eq!(
            output.header("milena.config.sha256").map(str::len),
            Some(64)
        );
    }
    assert!(milena.read_topic("out.dlq").values().all(Vec::is_empty));
}

#[test]
fn bad_records_go_to_the_dead_letter_topic_with_stage_and_reason() {
    let model = tempfile::tempdir().expect("a folder");
    linear_model(model.path());
    let milena = Milena::start(&config(model.path()));
    let bad: [(&[u8], &str); 6] = [
        (b"not json", "json"),
        (br#"{"nested": {"b": 1}}"#, "$.a"),
        (br#"{"a": "one"}"#, "$.a"),
        (br#"{"a": NaN}"#, ""),
        (br#"{"a": 1e999}"#, ""),
        (b"", ""),
    ];
    let mut records = vec![(None, Some(&br#"{"a": 1}"#[..]))];
    records.extend(bad.iter().map(|(bytes, _)| (Some("bad"), Some(*bytes))));
    records.push((None, Some(br#"{"a": 2}"#)));
    produce(&milena, "in", 0, &records);

    let letters = wait_for(&milena, "out.dlq", 0, bad.len() as i64);
    assert_eq!(letters.len(), bad.len());
    for (n, (letter, (bytes, reason))) in letters.iter().zip(bad).enumerate() {
        assert_eq!(letter.value.as_deref(), Some(bytes), "the original bytes");
        assert_eq!(letter.key.as_deref(), Some(&b"bad"[..]));
        assert_eq!(letter.header("stage"), Some("decode"));
        let found = letter.header("reason").expect("a reason");
        assert!(
            !found.is_empty() && found.to_lowercase().contains(reason),
            "{found:?} names {reason:?}"
        );
        assert_eq!(
            letter.header("source"),
            Some(format!("in/0/{}", n + 1).as_str())
        );
    }
    let outputs = wait_for(&milena, "out", 0, 2);
    assert_eq!(
        outputs.iter().map(value).collect::<Vec<_>>(),
        [json!({ "value": 3.0 }), json!({ "value": 5.0 })]
    );
}

#[test]
fn only_the_model_topic_writes_derived_topics() {
    let model = tempfile::tempdir().expect("a folder");
    linear_model(model.path());
    let milena = Milena::start(&config(model.path()));
    for topic in ["out", "out.dlq", "out.changelog"] {
        let error = produce_error(&milena, topic);
        assert!(
            matches!(
                error,
                RDKafkaErrorCode::TopicAuthorizationFailed
                    | RDKafkaErrorCode::PolicyViolation
                    | RDKafkaErrorCode::InvalidTopic
            ),
            "{topic}: {error:?}"
        );
        assert!(
            milena.ends(topic).values().all(|&end| end == 0),
            "{topic} is untouched"
        );
    }
}

fn produce_error(milena: &Milena, topic: &str) -> RDKafkaErrorCode {
    let producer: FutureProducer =
        milena.client_with(&[("acks", "all"), ("message.timeout.ms", "10000")]);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let sent = runtime.block_on(
        producer.send(
            FutureRecord::<str, str>::to(topic)
                .payload("x")
                .key("k")
                .partition(0),
            Duration::from_secs(10),
        ),
    );
    match sent {
        Err((KafkaError::MessageProduction(code), _)) => code,
        other => panic!("produce to {topic}: {other:?}"),
    }
}

#[test]
fn it_goes_on_where_it_was_after_a_clean_stop_and_after_a_kill() {
    let model = tempfile::tempdir().expect("a folder");
    linear_model(model.path());
    let mut milena = Milena::start(&config(model.path()));
    let record = (None, Some(&br#"{"a": 1}"#[..]));
    produce(&milena, "in", 2, &vec![record; 500]);
    wait_for(&milena, "out", 2, 500);
    assert!(milena.stop().success(), "{}", milena.log());
    milena.restart();
    produce(&milena, "in", 2, &vec![record; 500]);
    wait_for(&milena, "out", 2, 1_000);
    milena.kill();
    milena.restart();
    produce(&milena, "in", 2, &vec![record; 500]);
    let outputs = wait_for(&milena, "out", 2, 1_500);
    let sources: Vec<i64> = outputs
        .iter()
        .map(|o| {
            o.header("milena.source.offset")
                .expect("lineage")
                .parse()
                .expect("an offset")
        })
        .collect();
    assert_eq!(
        sources,
        (0..1_500).collect::<Vec<_>>(),
        "each input once, in order"
    );
}

#[test]
fn start_latest_skips_what_was_there_and_survives_a_kill_before_its_first_commit() {
    let model = tempfile::tempdir().expect("a folder");
    linear_model(model.path());
    let mut milena = Milena::start("[[topic]]\nname = \"in\"\npartitions = 3\n");
    let record = (None, Some(&br#"{"a": 1}"#[..]));
    produce(&milena, "in", 0, &vec![record; 100]);
    assert!(milena.stop().success());

    let broker = milena
        .config()
        .split("[[topic]]")
        .next()
        .unwrap_or_default()
        .to_owned();
    milena.set_config(format!(
        "{broker}{}start = \"latest\"\n",
        config(model.path())
    ));
    milena.restart();
    eventually("its position is committed", || {
        (position(&milena, 0) == Some(100)).then_some(())
    });
    milena.kill();
    milena.restart();
    produce(&milena, "in", 0, &vec![record; 10]);
    let outputs = wait_for(&milena, "out", 0, 10);
    assert_eq!(
        outputs
            .first()
            .and_then(|o| o.header("milena.source.offset")),
        Some("100")
    );
    assert_eq!(outputs.len(), 10);
}

#[test]
fn model_topics_chain() {
    let model = tempfile::tempdir().expect("a folder");
    linear_model(model.path());
    let second = tempfile::tempdir().expect("a folder");
    tests::write_model(
        second.path(),
        &json!({ "model_type": "linear", "task": "regress", "output": 1, "inputs": [{ "path": "$.value" }] }),
        &[
            ("layers.0.weight", &[1, 1], &[10.0]),
            ("layers.0.bias", &[1], &[0.5]),
        ],
    );
    let milena = Milena::start(&format!(
        "{}[[model]]\nname = \"m2\"\nsource = {:?}\n\
         [[model_topic]]\nname = \"out2\"\ninput = \"out\"\nmodel = \"m2\"\n",
        config(model.path()),
        second.path(),
    ));
    produce(
        &milena,
        "in",
        0,
        &[
            (Some("k"), Some(br#"{"a": 1}"#)),
            (None, Some(br#"{"a": 2}"#)),
        ],
    );
    let outputs = wait_for(&milena, "out2", 0, 2);
    let values: Vec<Value> = outputs.iter().map(value).collect();
    assert_eq!(values, [json!({ "value": 30.5 }), json!({ "value": 50.5 })]);
}

fn grow(milena: &Milena, partitions: &[(&str, usize)]) -> Vec<Result<String, RDKafkaErrorCode>> {
    let admin: AdminClient<DefaultClientContext> = milena.client_with(&[]);
    let grown: Vec<_> = partitions
        .iter()
        .map(|(topic, count)| NewPartitions::new(topic, *count))
        .collect();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let results = runtime.block_on(admin.create_partitions(&grown, &AdminOptions::new()));
    let results = results.expect("an answer").into_iter();
    results
        .map(|result| result.map_err(|(_, code)| code))
        .collect()
}

#[test]
fn an_input_gets_more_partitions_while_model_topics_run_and_everything_in_them_is_scored() {
    let model = tempfile::tempdir().expect("a folder");
    linear_model(model.path());
    for start in ["earliest", "latest"] {
        let chained = format!(
            "{}start = {start:?}\n[[model_topic]]\nname = \"out2\"\ninput = \"out.dlq\"\n\
             model = \"m\"\n",
            config(model.path())
        );
        let mut milena = Milena::start(&chained);
        let record = (None, Some(&br#"{"a": 1}"#[..]));
        eventually("it has begun", || {
            produce(&milena, "in", 0, &[record]);
            (milena.ends("out").get(&0).copied() >= Some(1)).then_some(())
        });
        let names = |n: usize| vec![Ok("in".to_owned()); n];
        assert_eq!(grow(&milena, &[("in", 5)]), names(1), "{start}");
        let counts =
            ["in", "out", "out.dlq", "out2", "out2.dlq"].map(|topic| milena.ends(topic).len());
        assert_eq!(counts, [5; 5], "outputs grow with their input");

        // One record for the model, one for the dead letters, which the second model topic reads.
        produce(&milena, "in", 4, &[record, (None, Some(b"not json"))]);
        assert_eq!(wait_for(&milena, "out", 4, 1).len(), 1, "{start}");
        assert_eq!(wait_for(&milena, "out.dlq", 4, 1).len(), 1, "{start}");
        assert_eq!(wait_for(&milena, "out2.dlq", 4, 1).len(), 1, "{start}");

        // Killed right after the answer, with records in a partition that no commit has named.
        assert_eq!(grow(&milena, &[("in", 6)]), names(1), "{start}");
        produce(&milena, "in", 5, &[record, record, record]);
        milena.kill();
        milena.restart();
        assert_eq!(milena.ends("in").len(), 6);
        assert_eq!(wait_for(&milena, "out", 5, 3).len(), 3, "{start}");
        assert_eq!(wait_for(&milena, "out", 4, 1).len(), 1, "{start}");

        let refused = RDKafkaErrorCode::PolicyViolation;
        assert_eq!(grow(&milena, &[("out", 9)]), [Err(refused)]);
    }
}

#[test]
fn several_inputs_get_more_partitions_in_one_request() {
    let model = tempfile::tempdir().expect("a folder");
    linear_model(model.path());
    let two = config(model.path()).replace("input = \"in\"", "input = [\"in\", \"in2\"]");
    let milena = Milena::start(&format!("[[topic]]\nname = \"in2\"\npartitions = 3\n{two}"));
    let refused = RDKafkaErrorCode::PolicyViolation;
    assert_eq!(grow(&milena, &[("in", 4)]), [Err(refused)]);
    assert_eq!(milena.ends("in").len(), 3);
    let grown = grow(&milena, &[("in", 4), ("in2", 4)]);
    assert_eq!(grown, [Ok("in".to_owned()), Ok("in2".to_owned())]);
    let record = (None, Some(&br#"{"a": 1}"#[..]));
    produce(&milena, "in", 3, &[record]);
    produce(&milena, "in2", 3, &[record]);
    assert_eq!(wait_for(&milena, "out", 3, 2).len(), 2);
}

#[test]
fn outputs_catch_up_with_an_input_that_grew_without_their_model_topic() {
    let model = tempfile::tempdir().expect("a folder");
    linear_model(model.path());
    let mut milena = Milena::start(&config(model.path()));
    let whole = milena.config().to_owned();
    assert!(milena.stop().success());
    let broker = whole.split("[[topic]]").next().unwrap_or_default();
    milena.set_config(broker.to_owned());
    milena.restart();
    assert_eq!(grow(&milena, &[("in", 4)]), [Ok("in".to_owned())]);
    assert_eq!(milena.ends("out").len(), 3);
    produce(&milena, "in", 3, &[(None, Some(br#"{"a": 1}"#))]);
    assert!(milena.stop().success());
    milena.set_config(whole);
    milena.restart();
    assert_eq!(wait_for(&milena, "out", 3, 1).len(), 1);
}

#[test]
fn the_topics_of_a_model_topic_can_be_deleted_once_it_has_left_the_config() {
    let model = tempfile::tempdir().expect("a folder");
    linear_model(model.path());
    let mut milena = Milena::start(&config(model.path()));
    let delete = |milena: &Milena, topic: &str| {
        let admin: AdminClient<DefaultClientContext> = milena.client_with(&[]);
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let deleted = runtime.block_on(admin.delete_topics(&[topic], &AdminOptions::new()));
        let deleted = deleted.expect("an answer").remove(0);
        deleted.map(|_| ()).map_err(|(_, code)| code)
    };
    let refused = Err(RDKafkaErrorCode::PolicyViolation);
    for topic in ["out", "out.dlq", "out.changelog"] {
        assert_eq!(delete(&milena, topic), refused, "{topic}");
    }
    assert!(milena.stop().success());
    let broker = milena
        .config()
        .split("[[topic]]")
        .next()
        .unwrap_or_default();
    milena.set_config(broker.to_owned());
    milena.restart();
    // It says how much of the outputs is committed.
    assert_eq!(delete(&milena, "out.changelog"), refused);
    for topic in ["out", "out.dlq", "out.changelog"] {
        assert_eq!(delete(&milena, topic), Ok(()), "{topic}");
    }
    milena.kill();
    milena.restart();
    assert_eq!(
        delete(&milena, "out"),
        Err(RDKafkaErrorCode::UnknownTopicOrPartition)
    );
}

#[test]
fn a_topic_stays_derived_without_its_model_topic() {
    let model = tempfile::tempdir().expect("a folder");
    linear_model(model.path());
    let mut milena = Milena::start(&config(model.path()));
    produce(&milena, "in", 0, &[(None, Some(br#"{"a": 1}"#))]);
    wait_for(&milena, "out", 0, 1);
    milena.kill();
    let broker = milena
        .config()
        .split("[[topic]]")
        .next()
        .unwrap_or_default()
        .to_owned();
    milena.set_config(broker);
    milena.restart();
    assert_eq!(wait_for(&milena, "out", 0, 1).len(), 1, "still readable");
    produce_error(&milena, "out");
}

#[test]
fn positions_are_a_consumer_group() {
    let model = tempfile::tempdir().expect("a folder");
    linear_model(model.path());
    let milena = Milena::start(&config(model.path()));
    produce(
        &milena,
        "in",
        1,
        &[(None, Some(br#"{"a": 1}"#)), (None, Some(br#"{"a": 2}"#))],
    );
    wait_for(&milena, "out", 1, 2);
    eventually("the position is shown", || {
        (position(&milena, 1) == Some(2)).then_some(())
    });
}

/// The position of model topic `out` in a partition of `in`, as a lag tool reads it.
fn position(milena: &Milena, partition: i32) -> Option<i64> {
    let consumer: BaseConsumer = milena.client_with(&[("group.id", "milena.out")]);
    let mut wanted = TopicPartitionList::new();
    wanted.add_partition("in", partition);
    let committed = consumer
        .committed_offsets(wanted, PATIENCE)
        .expect("the group's offsets");
    match committed.elements().first()?.offset() {
        Offset::Offset(offset) => Some(offset),
        _ => None,
    }
}
