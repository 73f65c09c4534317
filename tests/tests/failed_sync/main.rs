//! A sync fails in the real process, as a device that breaks makes it fail: that partition is
//! read-only and says so, the others go on, and after a restart nothing that was acknowledged is
//! gone.
//!
//! The failure is made by `fail_sync.c`, which the C compiler turns into a library that stands in
//! front of the system's.

use std::fs;
use std::path::Path;
use std::process::Command;

use broker::quickstart::transactions::{FRAUD_RATE, transaction};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{FutureProducer, FutureRecord};
use tests::{Milena, PATIENCE, eventually};

/// Compiles the library into `dir`.
fn library(dir: &Path) -> String {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/failed_sync/fail_sync.c");
    let library = dir.join("fail_sync.so");
    let compiled = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-o"])
        .arg(&library)
        .arg(source)
        .arg("-ldl")
        .status()
        .expect("a C compiler");
    assert!(compiled.success(), "cc: {compiled}");
    library.display().to_string()
}

struct Load {
    runtime: tokio::runtime::Runtime,
    producer: FutureProducer,
}

impl Load {
    fn new(milena: &Milena) -> Self {
        Self {
            runtime: tokio::runtime::Runtime::new().expect("a runtime"),
            // Each answer as it comes: librdkafka would try a storage error again for minutes.
            producer: milena.client_with(&[("acks", "all"), ("retries", "0")]),
        }
    }

    fn send(&self, topic: &str, partition: i32, payload: &str) -> Result<i64, RDKafkaErrorCode> {
        let record = FutureRecord::<(), str>::to(topic)
            .partition(partition)
            .payload(payload);
        match self.runtime.block_on(self.producer.send(record, PATIENCE)) {
            Ok(delivery) => Ok(delivery.offset),
            Err((KafkaError::MessageProduction(code), _)) => Err(code),
            Err((error, _)) => panic!("{topic}-{partition}: {error}"),
        }
    }
}

fn scored(id: u64) -> String {
    let mut transaction = transaction(1, id, FRAUD_RATE).transaction;
    transaction.tx_id = id.to_string();
    serde_json::to_string(&transaction).expect("JSON")
}

fn lines(milena: &Milena, text: &str) -> usize {
    milena
        .log()
        .lines()
        .filter(|line| line.contains(text))
        .count()
}

#[test]
fn a_failed_sync_makes_one_partition_read_only_until_a_restart() {
    let tools = tempfile::tempdir().expect("a folder");
    let control = tools.path().join("control");
    let library = library(tools.path());
    let model = tests::repository().join("tests/models/fraud_by_row");
    let mut milena = Milena::prepare(
        "checkpoint_interval_ms = 100",
        &format!(
            "[[topic]]\nname = \"orders\"\npartitions = 2\n\
             [[topic]]\nname = \"visits\"\npartitions = 1\n\
             [[topic]]\nname = \"transactions\"\npartitions = 1\n\
             [[model]]\nname = \"fraud\"\nsource = {model:?}\n\
             [[model_topic]]\nname = \"transactions.scored\"\ninput = \"transactions\"\n\
             model = \"fraud\"\n"
        ),
    );
    let control_path = control.display().to_string();
    milena.set_environment(&[("LD_PRELOAD", &library), ("FAIL_SYNC", &control_path)]);
    milena.restart();
    let load = Load::new(&milena);
    let partitions = [("orders", 0), ("orders", 1), ("visits", 0)];
    for (topic, partition) in partitions {
        assert_eq!(load.send(topic, partition, "before"), Ok(0));
    }
    assert_eq!(milena.metric("milena_read_only_partitions"), 0.0);

    fs::write(&control, "orders-0/").expect("the control file");
    let storage_error = Err(RDKafkaErrorCode::KafkaStorageError);
    assert_eq!(load.send("orders", 0, "not synced"), storage_error);
    // The device would work again: who trusts it now would trust what it has dropped.
    fs::write(&control, "").expect("the control file");
    for _ in 0..5 {
        assert_eq!(load.send("orders", 0, "too late"), storage_error);
    }
    assert_eq!(load.send("orders", 1, "the others go on"), Ok(1));
    assert_eq!(load.send("visits", 0, "the others go on"), Ok(1));
    assert_eq!(milena.metric("milena_read_only_partitions"), 1.0);
    let metric = "milena_partition_read_only{topic=\"orders\",partition=\"0\"}";
    assert_eq!(milena.metric(metric), 1.0);
    assert_eq!(lines(&milena, "partition is read-only from now on"), 1);
    // Consumers go on, up to the same high watermark as before.
    assert_eq!(milena.ends("orders")[&0], 2);
    assert_eq!(milena.read_topic("orders")[&0].len(), 2);

    // A model topic whose changelog can't be synced halts; its input can still be written.
    for id in 0..10 {
        assert_eq!(load.send("transactions", 0, &scored(id)), Ok(id as i64));
    }
    eventually("the first outputs", || {
        (milena.ends("transactions.scored")[&0] == 10).then_some(())
    });
    let halted = "milena_model_topic_halted{topic=\"transactions.scored\"}";
    assert_eq!(milena.metric(halted), 0.0);
    fs::write(&control, "transactions.scored.changelog-0/").expect("the control file");
    for id in 10..20 {
        assert_eq!(load.send("transactions", 0, &scored(id)), Ok(id as i64));
    }
    eventually("the model topic halts", || {
        (milena.metric(halted) == 1.0).then_some(())
    });
    assert_eq!(lines(&milena, "model topic is halted"), 1);
    assert_eq!(milena.metric("milena_read_only_partitions"), 2.0);
    assert_eq!(milena.ends("transactions.scored")[&0], 10);
    assert_eq!(
        lines(&milena, "checkpoint failed"),
        0,
        "said once is enough"
    );
    drop(load);

    // It can't vouch for what it has not synced, so it does not stop cleanly.
    assert!(!milena.stop().success());
    milena.set_environment(&[]);
    milena.restart();
    let load = Load::new(&milena);
    assert_eq!(milena.metric("milena_read_only_partitions"), 0.0);
    let offset = load
        .send("orders", 0, "after")
        .expect("it is writable again");
    assert!((1..=2).contains(&offset), "{offset}");
    let orders = &milena.read_topic("orders")[&0];
    assert_eq!(orders[0].value.as_deref(), Some(&b"before"[..]));
    assert_eq!(milena.read_topic("visits")[&0].len(), 2);
    eventually("every input has its output", || {
        (milena.ends("transactions.scored")[&0] == 20).then_some(())
    });
    for (n, output) in milena.read_topic("transactions.scored")[&0]
        .iter()
        .enumerate()
    {
        assert_eq!(output.header("milena.source.offset"), Some(&*n.to_string()));
    }
}
