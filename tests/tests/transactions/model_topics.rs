//! Model topics whose inputs are written in transactions: of what is committed each record has its output,
//! of anything else none has.

use std::path::Path;

use rdkafka::producer::Producer;
use serde_json::{Value, json};
use tests::transaction::{self, Ended};
use tests::{Isolation, Milena, Received, eventually};

use super::{TransactionalProducer, nothing_open, producer, write, write_plainly};

/// A linear regressor `2 a + 1`.
fn linear_model(dir: &Path) {
    let card = json!({
        "model_type": "linear", "task": "regress", "output": 1,
        "inputs": [{ "path": "$.a" }],
    });
    tests::write_model(
        dir,
        &card,
        &[
            ("layers.0.weight", &[1, 1], &[2.0]),
            ("layers.0.bias", &[1], &[1.0]),
        ],
    );
}

fn start(model: &Path) -> Milena {
    linear_model(model);
    Milena::start(&format!(
        "[[topic]]\nname = \"in\"\npartitions = 2\n\
         [[model]]\nname = \"m\"\nsource = {model:?}\n\
         [[model_topic]]\nname = \"out\"\ninput = \"in\"\nmodel = \"m\"\n"
    ))
}

fn input(a: i32) -> String {
    format!("{{\"a\": {a}}}")
}

/// The output's `a` by its value, and the offset of its input.
fn output(record: &Received) -> (i64, i64) {
    let value: Value =
        serde_json::from_slice(record.value.as_deref().expect("a value")).expect("JSON");
    let value = value["value"].as_f64().expect("a number");
    let source = record.header("milena.source.offset").expect("lineage");
    (
        ((value - 1.0) / 2.0) as i64,
        source.parse().expect("an offset"),
    )
}

/// The outputs of partition 0, as soon as there are that many: `a`, and the input's offset.
fn outputs(milena: &Milena, count: usize) -> Vec<(i64, i64)> {
    eventually(&format!("{count} outputs"), || {
        (milena.ends("out")[&0] >= count as i64).then_some(())
    });
    let records = milena.read_topic("out").remove(&0).unwrap_or_default();
    records.iter().map(output).collect()
}

/// Waits until a record that was written after everything else has been through the model: on the other
/// partition, so that it does not wait for what is open on this one.
fn has_come_round(milena: &Milena, marks: i64) {
    write_plainly(milena, "in", 1, &input(0));
    eventually("the model has come round", || {
        (milena.ends("out")[&1] == marks).then_some(())
    });
}

fn transaction(producer: &TransactionalProducer, a: &[i32], commits: bool) {
    producer.begin_transaction().expect("begun");
    for a in a {
        write(producer, "in", 0, &input(*a));
    }
    if commits {
        assert_eq!(transaction::commit(producer), Ended::Committed);
    } else {
        assert_eq!(transaction::abort(producer), Ended::Aborted);
    }
}

#[test]
fn committed_inputs_have_their_outputs_and_open_ones_as_soon_as_they_are_committed() {
    let model = tempfile::tempdir().expect("a folder");
    let mut milena = start(model.path());
    let (quick, slow) = (producer(&milena, "quick"), producer(&milena, "slow"));
    transaction(&quick, &[1, 2], true); // offsets 0 and 1, a marker at 2
    transaction(&quick, &[3], false); // 3, 4
    write_plainly(&milena, "in", 0, &input(4)); // 5
    let first = [(1, 0), (2, 1), (4, 5)];
    assert_eq!(outputs(&milena, 3), first);

    slow.begin_transaction().expect("begun");
    write(&slow, "in", 0, &input(5)); // 6
    transaction(&quick, &[6], true); // 7, 8
    transaction(&quick, &[7], false); // 9, 10
    write_plainly(&milena, "in", 0, &input(8)); // 11
    has_come_round(&milena, 1);
    assert_eq!(outputs(&milena, 3), first, "what is open holds up the rest");
    // It stays open over a restart, and so does the model topic's place.
    milena.kill();
    milena.restart();
    has_come_round(&milena, 2);
    assert_eq!(outputs(&milena, 3), first, "it is open still");

    assert_eq!(transaction::commit(&slow), Ended::Committed);
    let mut expected = first.to_vec();
    expected.extend([(5, 6), (6, 7), (8, 11)]);
    assert_eq!(outputs(&milena, 6), expected);

    slow.begin_transaction().expect("begun");
    write(&slow, "in", 0, &input(9)); // 13, after slow's marker
    write_plainly(&milena, "in", 0, &input(10)); // 14
    has_come_round(&milena, 3);
    assert_eq!(outputs(&milena, 6), expected);
    assert_eq!(transaction::abort(&slow), Ended::Aborted);
    expected.push((10, 14));
    assert_eq!(outputs(&milena, 7), expected);

    assert!(milena.stop().success(), "{}", milena.log());
    milena.restart();
    has_come_round(&milena, 4);
    assert_eq!(outputs(&milena, 7), expected);
    // Nothing that was aborted went another way, either.
    assert!(milena.read_topic("out.dlq").values().all(Vec::is_empty));
    nothing_open(&milena, "in");
}

#[test]
fn outputs_are_whole_for_consumers_of_either_level() {
    const TRANSACTIONS: i32 = 60;
    let model = tempfile::tempdir().expect("a folder");
    let milena = start(model.path());
    let producer = producer(&milena, "t");
    let mut expected = Vec::new();
    for n in 0..TRANSACTIONS {
        let commits = n % 4 != 1;
        transaction(&producer, &[2 * n, 2 * n + 1], commits);
        if commits {
            expected.extend([i64::from(2 * n), i64::from(2 * n + 1)]);
        }
    }
    assert_eq!(outputs(&milena, expected.len()).len(), expected.len());
    for isolation in [Isolation::ReadCommitted, Isolation::ReadUncommitted] {
        let read = milena.read_topic_as(isolation, "out", &[].into());
        let found: Vec<i64> = read[&0].iter().map(|record| output(record).0).collect();
        assert_eq!(found, expected, "{isolation:?}");
    }
}
