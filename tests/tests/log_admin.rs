//! What becomes of a log behind its readers' backs: records deleted by an admin, or lost with the
//! power. Through the real binary, with librdkafka.

use std::fs::OpenOptions;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};
use serde_json::json;
use tests::{Milena, PATIENCE, eventually};

/// One batch for each value.
fn produce(milena: &Milena, topic: &str, values: std::ops::Range<i64>) {
    let producer: BaseProducer = milena.client_with(&[("acks", "all")]);
    for value in values {
        let payload = json!({ "a": value }).to_string();
        producer
            .send(BaseRecord::<str, str>::to(topic).payload(&payload))
            .map_err(|(error, _)| error)
            .expect("queued");
        producer.flush(PATIENCE).expect("delivered");
    }
}

/// Deletes the records of partition 0 below `offset`; returns where it begins then.
fn delete_records(milena: &Milena, topic: &str, offset: Offset) -> Result<Offset, KafkaError> {
    let admin: AdminClient<DefaultClientContext> = milena.client_with(&[]);
    let mut wanted = TopicPartitionList::new();
    wanted.add_partition_offset(topic, 0, offset)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let deleted = runtime.block_on(admin.delete_records(&wanted, &AdminOptions::new()))?;
    let elements = deleted.elements();
    let partition = elements.first().expect("an answer");
    partition.error()?;
    Ok(partition.offset())
}

fn watermarks(milena: &Milena, topic: &str) -> (i64, i64) {
    let consumer: BaseConsumer = milena.client_with(&[("group.id", "unused")]);
    consumer
        .fetch_watermarks(topic, 0, PATIENCE)
        .expect("watermarks")
}

/// The offsets of what a consumer reads from the beginning.
fn offsets(milena: &Milena, topic: &str) -> Vec<i64> {
    let from = [(0, watermarks(milena, topic).0)].into();
    let read = milena.read_topic_from(topic, &from);
    read[&0].iter().map(|record| record.offset).collect()
}

#[test]
fn deleted_records_stay_deleted_after_kills_and_restarts() {
    let mut milena = Milena::start("[[topic]]\nname = \"t\"\npartitions = 1\n");
    produce(&milena, "t", 0..20);
    let deleted = delete_records(&milena, "t", Offset::Offset(7));
    assert_eq!(deleted, Ok(Offset::Offset(7)));
    for round in ["running", "killed", "stopped"] {
        match round {
            "killed" => milena.kill(),
            "stopped" => assert!(milena.stop().success()),
            _ => {}
        }
        if round != "running" {
            milena.restart();
        }
        assert_eq!(watermarks(&milena, "t"), (7, 20), "{round}");
        assert_eq!(
            offsets(&milena, "t"),
            (7..20).collect::<Vec<_>>(),
            "{round}"
        );
        let refused = delete_records(&milena, "t", Offset::Offset(21));
        let out_of_range = KafkaError::OffsetFetch(RDKafkaErrorCode::OffsetOutOfRange);
        assert_eq!(refused, Err(out_of_range), "{round}");
    }
    assert_eq!(
        delete_records(&milena, "t", Offset::End),
        Ok(Offset::Offset(20))
    );
    milena.kill();
    milena.restart();
    assert_eq!(watermarks(&milena, "t"), (20, 20));
    produce(&milena, "t", 20..25);
    assert_eq!(offsets(&milena, "t"), (20..25).collect::<Vec<_>>());
}

#[test]
fn a_consumer_below_deleted_records_goes_on_behind_them() {
    let milena = Milena::start("[[topic]]\nname = \"t\"\npartitions = 1\n");
    produce(&milena, "t", 0..20);
    let consumer: BaseConsumer = milena.client_with(&[
        ("group.id", "g"),
        ("auto.offset.reset", "earliest"),
        ("enable.auto.commit", "false"),
    ]);
    let mut assigned = TopicPartitionList::new();
    assigned
        .add_partition_offset("t", 0, Offset::Offset(3))
        .expect("an offset");
    delete_records(&milena, "t", Offset::Offset(12)).expect("deleted");
    consumer.assign(&assigned).expect("assigned");
    let first = consumer
        .poll(PATIENCE)
        .expect("a record")
        .expect("no error");
    assert_eq!(first.offset(), 12);
}

#[test]
fn a_model_topic_passes_over_inputs_that_were_deleted_before_they_were_scored() {
    let model = tempfile::tempdir().expect("a folder");
    let card = json!({
        "model_type": "linear", "task": "regress", "output": 1, "inputs": [{ "path": "$.a" }],
    });
    let weights: [(&str, &[usize], &[f32]); 2] = [
        ("layers.0.weight", &[1, 1], &[2.0]),
        ("layers.0.bias", &[1], &[0.0]),
    ];
    tests::write_model(model.path(), &card, &weights);
    let mut milena = Milena::start(&format!(
        "[[topic]]\nname = \"in\"\npartitions = 1\n\
         [[model]]\nname = \"m\"\nsource = {:?}\n\
         [[model_topic]]\nname = \"out\"\ninput = \"in\"\nmodel = \"m\"\n",
        model.path()
    ));
    let with = milena.config().to_owned();
    let without = with
        .split("[[model]]")
        .next()
        .unwrap_or_default()
        .to_owned();
    let scored = |milena: &Milena, end: i64| -> Vec<i64> {
        eventually(&format!("{end} outputs"), || {
            (milena.ends("out").get(&0) == Some(&end)).then_some(())
        });
        let outputs = milena.read_topic("out");
        let source = |header: Option<&str>| header.and_then(|offset| offset.parse().ok());
        outputs[&0]
            .iter()
            .map(|output| source(output.header("milena.source.offset")).expect("its source"))
            .collect()
    };
    produce(&milena, "in", 0..5);
    assert_eq!(scored(&milena, 5), (0..5).collect::<Vec<_>>());

    // Some that are not scored yet, then all of them.
    let mut expected: Vec<i64> = (0..5).collect();
    for (unscored, deleted) in [(5..15, 11), (20..30, 30)] {
        assert!(milena.stop().success());
        milena.set_config(without.clone());
        milena.restart();
        produce(&milena, "in", unscored.clone());
        let start = delete_records(&milena, "in", Offset::Offset(deleted));
        assert_eq!(start, Ok(Offset::Offset(deleted)));
        milena.kill();
        milena.set_config(with.clone());
        milena.restart();
        produce(&milena, "in", unscored.end..unscored.end + 5);
        expected.extend(deleted..unscored.end + 5);
        assert_eq!(scored(&milena, expected.len() as i64), expected);
    }
    // The outputs themselves may go, and the model topic goes on behind them.
    let end = expected.len() as i64;
    assert_eq!(
        delete_records(&milena, "out", Offset::End),
        Ok(Offset::Offset(end))
    );
    milena.kill();
    milena.restart();
    assert_eq!(watermarks(&milena, "out"), (end, end));
    produce(&milena, "in", 0..2);
    eventually("two more outputs", || {
        (watermarks(&milena, "out") == (end, end + 2)).then_some(())
    });
}

#[test]
fn a_consumer_detects_that_the_log_was_cut_off_below_its_position() {
    let mut milena = Milena::start("[[topic]]\nname = \"t\"\npartitions = 1\n");
    produce(&milena, "t", 0..10);
    let consumer: BaseConsumer = milena.client_with(&[
        ("group.id", "g"),
        ("auto.offset.reset", "error"),
        ("enable.auto.commit", "false"),
        ("topic.metadata.refresh.interval.ms", "500"),
    ]);
    let mut assigned = TopicPartitionList::new();
    assigned
        .add_partition_offset("t", 0, Offset::Offset(0))
        .expect("an offset");
    consumer.assign(&assigned).expect("assigned");
    for expected in 0..10 {
        let record = consumer
            .poll(PATIENCE)
            .expect("a record")
            .expect("no error");
        assert_eq!(record.offset(), expected);
    }

    // As if the power had taken half of it.
    milena.kill();
    let file = milena.data_dir().join("t-0/00000000000000000000.log");
    let file = OpenOptions::new().write(true).open(file).expect("the log");
    let half = file.metadata().expect("its size").len() / 2;
    file.set_len(half).expect("cut");
    milena.restart();
    let (_, end) = watermarks(&milena, "t");
    assert!((1..10).contains(&end), "{end}");
    // Other records where the consumer has read already.
    produce(&milena, "t", 100..120);

    let deadline = Instant::now() + PATIENCE;
    loop {
        assert!(
            Instant::now() < deadline,
            "the consumer has noticed nothing"
        );
        match consumer.poll(Duration::from_secs(1)) {
            // What it is to do about it, this client was not told. The offset itself is in range.
            Some(Err(KafkaError::MessageConsumption(
                RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::LogTruncation,
            ))) => return,
            Some(Ok(record)) => panic!("read on at offset {}", record.offset()),
            Some(Err(_)) | None => {}
        }
    }
}
