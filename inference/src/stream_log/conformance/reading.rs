//! Promises about reading.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

use super::super::{Event, Header, OutputTopic, StreamLog, Task};
use super::reader::{
    MAX_BYTES, Reader, commit, commit_all, in_time, records, silent, task, values,
};
use super::{Harness, INPUTS, PARTITIONS};

/// Assignments come first, and no record of a task before its restore.
pub async fn assigns_before_it_delivers<H: Harness>(mut harness: H) {
    harness.append(0, 0, records(0..3)).await;
    harness.append(0, 1, records(0..3)).await;
    let log = harness.open().await;
    let mut assigned = 0;
    while assigned < PARTITIONS {
        for event in in_time(log.poll(MAX_BYTES)).await.expect("poll") {
            assert!(matches!(event, Event::Assigned(_)), "{event:?} came first");
            assigned += 1;
        }
    }
    silent(&log).await;
    let mut reader = Reader::default();
    reader.restore(&log, task(1)).await;
    reader.read_to(&log, 1, 0, 3, MAX_BYTES).await;
    assert_eq!(reader.values(1, 0), values(0..3));
    silent(&log).await;
}

/// Every record of every input and partition comes once, in order, as it was appended.
pub async fn delivers_in_order_and_once<H: Harness>(mut harness: H) {
    let mut odd = records(0..4);
    odd[1].key = None;
    odd[2].value = None;
    odd[3].headers = vec![
        Header {
            key: Bytes::from_static(b"a"),
            value: Some(Bytes::from_static(b"1")),
        },
        Header {
            key: Bytes::from_static(b"a"),
            value: None,
        },
    ];
    harness.append(0, 0, odd.clone()).await;
    harness.append(0, 1, records(0..50)).await;
    harness.append(1, 0, records(100..150)).await;
    harness.append(1, 0, records(150..200)).await;
    let log = harness.open().await;
    let mut reader = Reader::start(&log).await;
    for (partition, input, end) in [(0, 0, 4), (1, 0, 50), (0, 1, 100)] {
        reader.read_to(&log, partition, input, end, MAX_BYTES).await;
    }
    silent(&log).await;
    assert_eq!(reader.values(1, 0), values(0..50));
    assert_eq!(reader.values(0, 1), values(100..200));
    let read = reader.read.get(&(task(0), 0)).expect("records");
    for (offset, (read, appended)) in read.iter().zip(&odd).enumerate() {
        assert_eq!(read.offset, offset as i64);
        assert_eq!(read.timestamp_ms, appended.timestamp_ms);
        assert_eq!(read.key, appended.key);
        assert_eq!(read.value, appended.value);
        assert_eq!(read.headers, appended.headers);
    }
    assert_eq!(read.len(), odd.len());
}

/// A poll that waits resolves when a record comes.
pub async fn wakes_a_waiting_poll<H: Harness>(mut harness: H) {
    let log = harness.open().await;
    let mut reader = Reader::start(&log).await;
    for number in 0..5 {
        let later = async {
            tokio::time::sleep(Duration::from_millis(10)).await;
            harness.append(1, 1, records(number..number + 1)).await;
        };
        let end = number as i64 + 1;
        tokio::join!(reader.read_to(&log, 1, 1, end, MAX_BYTES), later);
    }
    assert_eq!(reader.values(1, 1), values(0..5));
}

/// A poll gives at least a record, however few bytes it may give.
pub async fn delivers_at_any_size<H: Harness>(mut harness: H) {
    for batch in 0..10 {
        harness
            .append(0, 0, records(batch * 10..batch * 10 + 10))
            .await;
    }
    let log = harness.open().await;
    let mut reader = Reader::start(&log).await;
    reader.read_to(&log, 0, 0, 10, 0).await;
    reader.read_to(&log, 0, 0, 30, 1).await;
    reader.read_to(&log, 0, 0, 60, 500).await;
    reader.read_to(&log, 0, 0, 100, MAX_BYTES).await;
    assert_eq!(reader.values(0, 0), values(0..100));
}

/// A dropped poll loses nothing, and tells nothing twice.
pub async fn loses_nothing_with_a_cancelled_poll<H: Harness>(mut harness: H) {
    let log = harness.open().await;
    let mut reader = Reader::start(&log).await;
    for number in 0..100 {
        harness.append(0, 0, records(number..number + 1)).await;
        let patience = Duration::from_micros(number as u64 * 20);
        if let Ok(events) = tokio::time::timeout(patience, log.poll(MAX_BYTES)).await {
            reader.take(events.expect("poll"));
        }
        // Polled once and dropped, at whatever it was waiting for.
        tokio::select! {
            biased;
            events = log.poll(MAX_BYTES) => reader.take(events.expect("poll")),
            () = std::future::ready(()) => {}
        }
    }
    reader.read_to(&log, 0, 0, 100, MAX_BYTES).await;
    assert_eq!(reader.values(0, 0), values(0..100));
}

/// Records that are gone are told as a gap, and reading goes on behind it.
pub async fn tells_a_gap<H: Harness>(mut harness: H) {
    for batch in 0..4 {
        harness
            .append(0, 0, records(batch * 5..batch * 5 + 5))
            .await;
    }
    let log = harness.open().await;
    let mut reader = Reader::start(&log).await;
    reader.read_to(&log, 0, 0, 5, 1).await;
    commit_all(&log, vec![commit(0, Vec::new(), &[(0, 2)])])
        .await
        .expect("commit");
    harness.crash(log).await;
    harness.delete_records(0, 0, 10).await;
    let log = harness.open().await;
    let mut reader = Reader::start(&log).await;
    assert_eq!(reader.position(0, 0), 2, "the position stays as committed");
    reader.read_to(&log, 0, 0, 20, MAX_BYTES).await;
    assert_eq!(reader.gaps, [(task(0), 0, 2, 10)]);
    assert_eq!(reader.values(0, 0), values(10..20));
    commit_all(&log, vec![commit(0, Vec::new(), &[(0, 20)])])
        .await
        .expect("commit");
}

/// A paused task gives nothing, the others go on; resumed, it goes on where it was.
pub async fn keeps_a_paused_task_silent<H: Harness>(mut harness: H) {
    let log = harness.open().await;
    let mut reader = Reader::start(&log).await;
    harness.append(0, 0, records(0..5)).await;
    reader.read_to(&log, 0, 0, 5, MAX_BYTES).await;
    log.pause(task(0), true);
    harness.append(0, 0, records(5..10)).await;
    harness.append(0, 1, records(0..5)).await;
    reader.read_to(&log, 1, 0, 5, MAX_BYTES).await;
    silent(&log).await;
    assert_eq!(reader.position(0, 0), 5);
    let resume = async {
        tokio::time::sleep(Duration::from_millis(10)).await;
        log.pause(task(0), false);
    };
    tokio::join!(reader.read_to(&log, 0, 0, 10, MAX_BYTES), resume);
    assert_eq!(reader.values(0, 0), values(0..10));
}

/// Names, partition counts and ends.
pub async fn knows_its_surroundings<H: Harness>(mut harness: H) {
    harness.append(0, 1, records(0..7)).await;
    harness.append(1, 0, records(0..3)).await;
    let log = harness.open().await;
    let mut reader = Reader::start(&log).await;
    reader.read_to(&log, 1, 0, 7, MAX_BYTES).await;
    let names = log.inputs();
    assert_eq!(names.len(), INPUTS);
    assert_ne!(names.first(), names.get(1));
    for topic in [OutputTopic::Derived, OutputTopic::DeadLetter] {
        assert_eq!(log.partitions(topic), Some(PARTITIONS));
    }
    let ends: BTreeMap<(Task, usize), i64> = log
        .ends()
        .into_iter()
        .map(|end| ((end.task, end.input), end.end))
        .collect();
    let expected = BTreeMap::from([
        ((task(0), 0), 0),
        ((task(0), 1), 3),
        ((task(1), 0), 7),
        ((task(1), 1), 0),
    ]);
    assert_eq!(ends, expected);
}

/// Started at the latest, it leaves out what was there, and nothing that comes: not even after a crash
/// before its first commit.
pub async fn starts_at_the_latest<H: Harness>(mut harness: H) {
    harness.append(0, 0, records(0..5)).await;
    let log = harness.open().await;
    let reader = Reader::start(&log).await;
    assert_eq!((reader.position(0, 0), reader.position(1, 1)), (5, 0));
    harness.append(0, 0, records(5..8)).await;
    harness.append(1, 1, records(0..2)).await;
    harness.crash(log).await;
    harness.append(0, 0, records(8..10)).await;
    let log = harness.open().await;
    let mut reader = Reader::start(&log).await;
    reader.read_to(&log, 0, 0, 10, MAX_BYTES).await;
    reader.read_to(&log, 1, 1, 2, MAX_BYTES).await;
    assert_eq!(reader.values(0, 0), values(5..10));
    assert_eq!(reader.values(1, 1), values(0..2));
}
