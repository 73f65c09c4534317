//! What topics do not keep, through the real binary with librdkafka: configs are altered while it
//! runs, records go, and what is left stays through stops and kills.

use std::collections::BTreeMap;
use std::fs;

use rdkafka::TopicPartitionList;
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::json;
use tests::{Milena, PATIENCE, eventually};

/// Checks ten times a second; files go at once.
const LOG: &str = "[log]\nretention_check_interval_ms = 100\nfile_delete_delay_ms = 0\n";
const SMALL: (&str, &str) = ("internal.segment.bytes", "1000");
const IN: &str = "[[topic]]\nname = \"in\"\npartitions = 1\n\
                  configs = { \"internal.segment.bytes\" = 1000 }\n";

/// One batch for each value.
fn produce(milena: &Milena, topic: &str, values: std::ops::Range<i64>) {
    let producer: BaseProducer = milena.client_with(&[("acks", "all"), ("linger.ms", "0")]);
    for value in values {
        let payload = json!({ "a": value }).to_string();
        producer
            .send(BaseRecord::<str, str>::to(topic).payload(&payload))
            .map_err(|(error, _)| error)
            .expect("queued");
        producer.flush(PATIENCE).expect("delivered");
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}

/// These are the topic's configs from now on, and no others.
fn alter(milena: &Milena, topic: &str, configs: &[(&str, &str)]) {
    let admin: AdminClient<DefaultClientContext> = milena.client_with(&[]);
    let mut wanted = AlterConfig::new(ResourceSpecifier::Topic(topic));
    for (name, value) in configs {
        wanted = wanted.set(name, value);
    }
    let altered = runtime().block_on(admin.alter_configs(&[wanted], &AdminOptions::new()));
    altered.expect("an answer").remove(0).expect("altered");
}

fn watermarks(milena: &Milena, topic: &str) -> (i64, i64) {
    let consumer: BaseConsumer = milena.client_with(&[("group.id", "unused")]);
    consumer
        .fetch_watermarks(topic, 0, PATIENCE)
        .expect("watermarks")
}

/// Waits until the topic begins at or after `least`, and returns where.
fn start_from(milena: &Milena, topic: &str, least: i64) -> i64 {
    eventually(&format!("'{topic}' begins at {least}"), || {
        let (start, _) = watermarks(milena, topic);
        (start >= least).then_some(start)
    })
}

/// The values from where the topic begins to where it ends.
fn values(milena: &Milena, topic: &str) -> Vec<i64> {
    let (start, end) = watermarks(milena, topic);
    if start == end {
        return Vec::new();
    }
    let read = milena.read_topic_from(topic, &BTreeMap::from([(0, start)]));
    let value =
        |bytes: &[u8]| serde_json::from_slice::<serde_json::Value>(bytes).ok()?["a"].as_i64();
    read[&0]
        .iter()
        .map(|record| record.value.as_deref().and_then(value).expect("its value"))
        .collect()
}

/// The bytes of the `.log` files of partition 0.
fn log_bytes(milena: &Milena, topic: &str) -> u64 {
    let folder = fs::read_dir(milena.data_dir().join(format!("{topic}-0"))).expect("its folder");
    folder
        .map(|entry| entry.expect("its folder").path())
        .filter(|path| path.extension().is_some_and(|suffix| suffix == "log"))
        .map(|path| fs::metadata(path).map_or(0, |file| file.len()))
        .sum()
}

#[test]
fn a_topic_keeps_what_its_size_says_from_the_next_check_on() {
    let mut milena = Milena::start(&format!("{LOG}{IN}"));
    produce(&milena, "in", 0..60);
    let before = log_bytes(&milena, "in");
    assert_eq!(watermarks(&milena, "in"), (0, 60));

    alter(&milena, "in", &[SMALL, ("retention.bytes", "2500")]);
    let start = start_from(&milena, "in", 1);
    eventually("the files are gone", || {
        (log_bytes(&milena, "in") < 3_500).then_some(())
    });
    let kept = log_bytes(&milena, "in");
    assert!((2_500..before).contains(&kept), "{kept} of {before}");
    for round in ["running", "killed", "stopped"] {
        match round {
            "killed" => milena.kill(),
            "stopped" => assert!(milena.stop().success()),
            _ => {}
        }
        if round != "running" {
            milena.restart();
        }
        assert_eq!(watermarks(&milena, "in"), (start, 60), "{round}");
        let expected: Vec<i64> = (start..60).collect();
        assert_eq!(values(&milena, "in"), expected, "{round}");
    }
    produce(&milena, "in", 60..90);
    assert!(start_from(&milena, "in", start + 1) < 90);
    let size = "milena_retention_deleted_segments_total{reason=\"size\"}";
    assert!(milena.metric(size) >= 1.0);
    assert!(milena.metric("milena_retention_deleted_bytes_total{reason=\"size\"}") > 500.0);
    let log = milena.log();
    let line = log
        .lines()
        .find(|line| line.contains("old segments deleted"));
    let line = line.unwrap_or_else(|| panic!("nothing is said of it"));
    for part in ["in", "size", "log_start_offset", "segments", "bytes"] {
        assert!(line.contains(part), "{line}");
    }
}

#[test]
fn a_topic_keeps_what_its_age_says_from_the_next_check_on() {
    let mut milena = Milena::start(&format!("{LOG}{IN}"));
    produce(&milena, "in", 0..20);
    alter(&milena, "in", &[SMALL, ("retention.ms", "1")]);
    // The newest segment too, whatever is in it.
    assert_eq!(start_from(&milena, "in", 20), 20);
    milena.kill();
    milena.restart();
    assert_eq!(watermarks(&milena, "in"), (20, 20));
    alter(&milena, "in", &[SMALL, ("retention.ms", "-1")]);
    produce(&milena, "in", 20..30);

    let early: BaseConsumer = milena.client_with(&[
        ("group.id", "early"),
        ("auto.offset.reset", "earliest"),
        ("enable.auto.commit", "false"),
    ]);
    let strict: BaseConsumer = milena.client_with(&[
        ("group.id", "strict"),
        ("auto.offset.reset", "error"),
        ("enable.auto.commit", "false"),
    ]);
    // Both stand where records were once.
    let mut assigned = TopicPartitionList::new();
    assigned
        .add_partition_offset("in", 0, rdkafka::Offset::Offset(3))
        .expect("an offset");
    early.assign(&assigned).expect("assigned");
    strict.assign(&assigned).expect("assigned");
    let first = eventually("a record", || early.poll(PATIENCE)?.ok());
    assert_eq!(first.offset(), 20);
    eventually("an error", || match strict.poll(PATIENCE)? {
        Err(KafkaError::MessageConsumption(
            RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange,
        )) => Some(()),
        // It has not reached the broker yet, say.
        Err(_) => None,
        Ok(record) => panic!("read on at {}", record.offset()),
    });
    assert_eq!(values(&milena, "in"), (20..30).collect::<Vec<_>>());
}

#[test]
fn files_stay_for_their_delay_and_no_stop_waits_for_it() {
    let mut milena = Milena::start(&format!("{LOG}{IN}"));
    produce(&milena, "in", 0..30);
    let hour = ("file.delete.delay.ms", "3600000");
    let before = log_bytes(&milena, "in");
    alter(&milena, "in", &[SMALL, hour, ("retention.bytes", "0")]);
    assert_eq!(start_from(&milena, "in", 30), 30);
    assert_eq!(log_bytes(&milena, "in"), before);
    assert!(milena.stop().success());
    assert_eq!(log_bytes(&milena, "in"), before);
    milena.restart();
    assert_eq!(log_bytes(&milena, "in"), 0, "a start removes them");
    assert_eq!(watermarks(&milena, "in"), (30, 30));

    // A deleted topic's too.
    let second = ("file.delete.delay.ms", "1000");
    alter(&milena, "in", &[SMALL, second]);
    produce(&milena, "in", 30..40);
    let folders = |milena: &Milena| {
        let entries = fs::read_dir(milena.data_dir()).expect("the data folder");
        let names = entries.map(|entry| entry.expect("the data folder").file_name());
        let mut names: Vec<_> = names.filter_map(|name| name.into_string().ok()).collect();
        names.retain(|name| name.starts_with("in-0"));
        names
    };
    let admin: AdminClient<DefaultClientContext> = milena.client_with(&[]);
    let deleted = runtime().block_on(admin.delete_topics(&["in"], &AdminOptions::new()));
    assert!(deleted.expect("an answer").iter().all(Result::is_ok));
    let left = folders(&milena);
    assert!(
        left.iter().all(|name| name.ends_with("-delete")),
        "{left:?}"
    );
    eventually("the folder is gone", || {
        folders(&milena).is_empty().then_some(())
    });
}

#[test]
fn a_model_topic_goes_on_behind_inputs_that_were_too_old_to_be_kept() {
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
        "{LOG}{IN}\
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
    let sources = |milena: &Milena, from: i64, end: i64| -> Vec<i64> {
        eventually(&format!("{end} outputs"), || {
            (milena.ends("out").get(&0) == Some(&end)).then_some(())
        });
        let outputs = milena.read_topic_from("out", &BTreeMap::from([(0, from)]));
        let source = |header: Option<&str>| header.and_then(|offset| offset.parse().ok());
        outputs[&0]
            .iter()
            .map(|output| source(output.header("milena.source.offset")).expect("its source"))
            .collect()
    };
    produce(&milena, "in", 0..5);
    assert_eq!(sources(&milena, 0, 5), (0..5).collect::<Vec<_>>());

    // Records that come and go while nobody scores them.
    assert!(milena.stop().success());
    milena.set_config(without);
    milena.restart();
    produce(&milena, "in", 5..25);
    alter(&milena, "in", &[SMALL, ("retention.bytes", "400")]);
    let start = start_from(&milena, "in", 6);
    assert!(start < 25, "some are left");
    milena.kill();
    milena.set_config(with);
    milena.restart();
    let expected: Vec<i64> = (0..5).chain(start..25).collect();
    let end = expected.len() as i64;
    assert_eq!(sources(&milena, 0, end), expected);
    let missed = "milena_model_topic_missed_records_total{topic=\"out\"}";
    assert_eq!(milena.metric(missed), (start - 5) as f64);
    assert!(
        milena
            .log()
            .contains("records are gone that were not processed")
    );

    // What it has written goes as well, and it goes on.
    alter(&milena, "out", &[("retention.ms", "1")]);
    assert_eq!(start_from(&milena, "out", end), end);
    alter(&milena, "out", &[("retention.ms", "-1")]);
    let next = watermarks(&milena, "in").1;
    produce(&milena, "in", 25..28);
    let expected: Vec<i64> = (next..next + 3).collect();
    assert_eq!(sources(&milena, end, end + 3), expected);
}
