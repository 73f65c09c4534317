//! Promises about committing and restoring.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::super::memory::CommitFault;
use super::super::{Commit, CommitError, Headers, Output, OutputTopic, Positions};
use super::Harness;
use super::reader::{MAX_BYTES, Reader, commit, commit_all, output, records, task, values};

/// Outputs are there when a commit is `Ok`, in the order of commits and in the order given.
pub async fn publishes_in_the_order_of_commits<H: Harness>(mut harness: H) {
    harness.append(0, 0, records(0..10)).await;
    let log = harness.open().await;
    let mut reader = Reader::start(&log).await;
    reader.read_to(&log, 0, 0, 10, MAX_BYTES).await;
    let mut nulls = output(OutputTopic::Derived, 0, "c");
    nulls.key = None;
    nulls.value = None;
    nulls.headers = Headers::default();
    let first = vec![
        output(OutputTopic::Derived, 0, "a"),
        output(OutputTopic::DeadLetter, 0, "b"),
        nulls,
        output(OutputTopic::Derived, 1, "d"),
    ];
    let second = vec![
        output(OutputTopic::Derived, 0, "e"),
        output(OutputTopic::DeadLetter, 0, "f"),
    ];
    assert_eq!(harness.outputs(OutputTopic::Derived, 0).await, []);
    let all = [first.clone(), second.clone()].concat();
    for (outputs, position) in [(first, 4), (second, 6)] {
        commit_all(&log, vec![commit(0, outputs, &[(0, position)])])
            .await
            .expect("commit");
        // Nothing else is visible than what was committed so far.
        let seen = harness.outputs(OutputTopic::Derived, 0).await.len();
        assert_eq!(seen, if position == 4 { 2 } else { 3 });
    }
    for (topic, partition) in [
        (OutputTopic::Derived, 0),
        (OutputTopic::Derived, 1),
        (OutputTopic::DeadLetter, 0),
        (OutputTopic::DeadLetter, 1),
    ] {
        let expected: Vec<Output> = all
            .iter()
            .filter(|output| (output.topic, output.partition) == (topic, partition))
            .cloned()
            .collect();
        assert_eq!(harness.outputs(topic, partition).await, expected);
    }
    // A commit may have nothing but a position.
    commit_all(&log, vec![commit(0, Vec::new(), &[(0, 10)])])
        .await
        .expect("commit");
}

/// A commit may be large.
pub async fn commits_many_outputs<H: Harness>(mut harness: H) {
    harness.append(0, 0, records(0..1)).await;
    let log = harness.open().await;
    let mut reader = Reader::start(&log).await;
    reader.read_to(&log, 0, 0, 1, MAX_BYTES).await;
    let outputs: Vec<Output> = (0..20_000)
        .map(|number| output(OutputTopic::Derived, 0, &format!("{number:0100}")))
        .collect();
    commit_all(&log, vec![commit(0, outputs.clone(), &[(0, 1)])])
        .await
        .expect("commit");
    let seen = harness.outputs(OutputTopic::Derived, 0).await;
    assert_eq!(seen.len(), outputs.len());
    assert!(seen == outputs, "the outputs differ");
}

/// All tasks of a commit are committed, also where the log crashes right after.
pub async fn commits_tasks_together<H: Harness>(mut harness: H) {
    harness.append(0, 0, records(0..5)).await;
    harness.append(1, 1, records(0..5)).await;
    let log = harness.open().await;
    let mut reader = Reader::start(&log).await;
    reader.read_to(&log, 0, 0, 5, MAX_BYTES).await;
    reader.read_to(&log, 1, 1, 5, MAX_BYTES).await;
    let commits = vec![
        commit(0, vec![output(OutputTopic::Derived, 0, "a")], &[(0, 3)]),
        commit(1, vec![output(OutputTopic::Derived, 1, "b")], &[(1, 4)]),
    ];
    commit_all(&log, commits).await.expect("commit");
    harness.crash(log).await;
    let log = harness.open().await;
    let reader = Reader::start(&log).await;
    assert_eq!((reader.position(0, 0), reader.position(0, 1)), (3, 0));
    assert_eq!((reader.position(1, 0), reader.position(1, 1)), (0, 4));
    for (partition, text) in [(0, "a"), (1, "b")] {
        assert_eq!(
            harness.outputs(OutputTopic::Derived, partition).await,
            [output(OutputTopic::Derived, partition, text)]
        );
    }
}

/// The last value of each key, deleted ones left out, each task its own; before and after a crash.
pub async fn restores_state_and_positions<H: Harness>(mut harness: H) {
    harness.append(0, 0, records(0..10)).await;
    harness.append(1, 0, records(0..10)).await;
    harness.append(0, 1, records(0..10)).await;
    let log = harness.open().await;
    let mut reader = Reader::start(&log).await;
    for (partition, input) in [(0, 0), (0, 1), (1, 0)] {
        reader.read_to(&log, partition, input, 10, MAX_BYTES).await;
    }
    let change =
        |key: &'static str, value: Option<&'static str>| (Bytes::from(key), value.map(Bytes::from));
    let steps = [
        (
            0,
            vec![change("a", Some("1")), change("b", Some("2"))],
            (0, 2),
        ),
        (0, vec![change("a", None), change("c", Some("3"))], (1, 7)),
        (1, vec![change("a", Some("other"))], (0, 1)),
        (
            0,
            vec![change("b", Some("4")), change("none", None)],
            (0, 5),
        ),
    ];
    for (partition, state, (input, position)) in steps {
        let commit = Commit {
            task: task(partition),
            outputs: Vec::new(),
            state,
            positions: Positions::from([(input, position)]),
        };
        commit_all(&log, vec![commit]).await.expect("commit");
    }
    let expected = |pairs: &[(&str, &str)]| -> BTreeMap<Vec<u8>, Vec<u8>> {
        pairs
            .iter()
            .map(|(key, value)| (key.as_bytes().to_vec(), value.as_bytes().to_vec()))
            .collect()
    };
    let mut log = log;
    for round in 0..3 {
        if round > 0 {
            harness.crash(log).await;
            log = harness.open().await;
        }
        let mut reader = match round {
            0 => Reader::default(),
            _ => Reader::start(&log).await,
        };
        let state = reader.restore(&log, task(0)).await;
        assert_eq!(
            state.0,
            expected(&[("b", "4"), ("c", "3")]),
            "round {round}"
        );
        let state = reader.restore(&log, task(1)).await;
        assert_eq!(state.0, expected(&[("a", "other")]), "round {round}");
        assert_eq!((reader.position(0, 0), reader.position(0, 1)), (5, 7));
        assert_eq!((reader.position(1, 0), reader.position(1, 1)), (1, 0));
    }
}

/// After a crash, what was read but not committed is read again, and nothing else.
pub async fn goes_on_from_the_committed_position<H: Harness>(mut harness: H) {
    let mut committed = 0;
    for round in 0..4i64 {
        let from = round as usize * 10;
        harness.append(0, 0, records(from..from + 10)).await;
        let log = harness.open().await;
        let mut reader = Reader::start(&log).await;
        assert_eq!(reader.position(0, 0), committed);
        reader
            .read_to(&log, 0, 0, (round + 1) * 10, MAX_BYTES)
            .await;
        assert_eq!(reader.values(0, 0), values(committed as usize..from + 10));
        let next = round * 10 + 7;
        let outputs = (committed..next)
            .map(|offset| output(OutputTopic::Derived, 0, &offset.to_string()))
            .collect();
        commit_all(&log, vec![commit(0, outputs, &[(0, next)])])
            .await
            .expect("commit");
        committed = next;
        harness.crash(log).await;
    }
    let _log = harness.open().await;
    let expected: Vec<Output> = (0..committed)
        .map(|offset| output(OutputTopic::Derived, 0, &offset.to_string()))
        .collect();
    assert_eq!(harness.outputs(OutputTopic::Derived, 0).await, expected);
}

/// A commit does not wait for a poll that waits, nor a poll for a commit.
pub async fn polls_and_commits_together<H: Harness>(mut harness: H) {
    harness.append(0, 0, records(0..1)).await;
    let log = harness.open().await;
    let mut reader = Reader::start(&log).await;
    reader.read_to(&log, 0, 0, 1, MAX_BYTES).await;
    for number in 1..20usize {
        let end = number as i64;
        let work = async {
            let outputs = vec![output(OutputTopic::Derived, 0, &number.to_string())];
            commit_all(&log, vec![commit(0, outputs, &[(0, end)])])
                .await
                .expect("commit");
            harness.append(0, 0, records(number..number + 1)).await;
        };
        tokio::join!(reader.read_to(&log, 0, 0, end + 1, MAX_BYTES), work);
    }
    assert_eq!(reader.values(0, 0), values(0..20));
    assert_eq!(harness.outputs(OutputTopic::Derived, 0).await.len(), 19);
}

/// After `Retry` nothing is there, and the same commit may be given again.
pub async fn did_nothing_where_it_says_retry<H: Harness>(mut harness: H) {
    harness.append(0, 0, records(0..5)).await;
    let log = harness.open().await;
    let mut reader = Reader::start(&log).await;
    reader.read_to(&log, 0, 0, 5, MAX_BYTES).await;
    if !harness.fail_next_commit(CommitFault::Retry) {
        return;
    }
    let work = vec![commit(
        0,
        vec![output(OutputTopic::Derived, 0, "a")],
        &[(0, 5)],
    )];
    let error = commit_all(&log, work.clone()).await.expect_err("a fault");
    assert!(matches!(error, CommitError::Retry(_)), "{error}");
    assert_eq!(harness.outputs(OutputTopic::Derived, 0).await, []);
    commit_all(&log, work).await.expect("commit");
    assert_eq!(harness.outputs(OutputTopic::Derived, 0).await.len(), 1);
}

/// After `Unknown`, restore says that it was not done.
pub async fn knows_after_restore_what_was_not_done<H: Harness>(harness: H) {
    resolves_unknown(harness, CommitFault::UnknownNotDone).await;
}

/// After `Unknown`, restore says that it was done.
pub async fn knows_after_restore_what_was_done<H: Harness>(harness: H) {
    resolves_unknown(harness, CommitFault::UnknownDone).await;
}

async fn resolves_unknown<H: Harness>(mut harness: H, fault: CommitFault) {
    harness.append(0, 0, records(0..5)).await;
    let log = harness.open().await;
    let mut reader = Reader::start(&log).await;
    reader.read_to(&log, 0, 0, 5, MAX_BYTES).await;
    if !harness.fail_next_commit(fault) {
        return;
    }
    let work = |offsets: std::ops::Range<i64>| {
        let outputs = offsets
            .clone()
            .map(|offset| output(OutputTopic::Derived, 0, &offset.to_string()))
            .collect();
        vec![commit(0, outputs, &[(0, offsets.end)])]
    };
    let error = commit_all(&log, work(0..3)).await.expect_err("a fault");
    assert!(matches!(error, CommitError::Unknown(_)), "{error}");
    reader.restore(&log, task(0)).await;
    let position = reader.position(0, 0);
    match fault {
        CommitFault::UnknownDone => assert_eq!(position, 3),
        _ => assert_eq!(position, 0),
    }
    let seen = harness.outputs(OutputTopic::Derived, 0).await.len();
    assert_eq!(seen as i64, position, "outputs and position agree");
    // Reading goes on from there, and committing too.
    reader.read_to(&log, 0, 0, 5, MAX_BYTES).await;
    assert_eq!(reader.values(0, 0), values(position as usize..5));
    commit_all(&log, work(position..5)).await.expect("commit");
    let expected: Vec<Output> = (0..5)
        .map(|offset| output(OutputTopic::Derived, 0, &offset.to_string()))
        .collect();
    assert_eq!(harness.outputs(OutputTopic::Derived, 0).await, expected);
}
