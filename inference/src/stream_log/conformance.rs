//! What every [`StreamLog`] is held to: one suite, run by each implementation's own tests.
//!
//! An implementation provides a [`Harness`]: a model topic with [`INPUTS`] inputs and outputs of
//! [`PARTITIONS`] partitions, into which records can be appended, whose outputs can be read as a consumer
//! reads them, and which can be crashed and opened again. Then, in its tests,
//!
//! ```ignore
//! inference::stream_log_conformance!(MyHarness::create);
//! ```
//!
//! makes one test of each function here; `MyHarness::create` is an `async fn(Start) -> MyHarness`. The
//! functions panic where a promise is broken.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use bytes::Bytes;

use super::memory::{CommitFault, NewRecord};
use super::{
    Commit, CommitError, Event, Header, InputRecord, Output, OutputTopic, Positions, StateSink,
    StreamLog, Task,
};

/// Inputs of the model topic under test.
pub const INPUTS: usize = 2;
/// Partitions of its inputs and of both its outputs.
pub const PARTITIONS: i32 = 2;
/// How long something may take that has to come.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long something is waited for that must not come.
const SILENCE: Duration = Duration::from_millis(150);
const MAX_BYTES: usize = 1 << 20;

/// A log under test, and the world around it.
pub trait Harness: Send {
    /// The implementation.
    type Log: StreamLog;

    /// Opens the log, for the first time or after a [`Self::crash`].
    fn open(&mut self) -> impl Future<Output = Self::Log> + Send;

    /// Ends the log without letting it finish anything.
    fn crash(&mut self, log: Self::Log) -> impl Future<Output = ()> + Send;

    /// Appends to an input as a producer does.
    fn append(
        &mut self,
        input: usize,
        partition: i32,
        records: Vec<NewRecord>,
    ) -> impl Future<Output = ()> + Send;

    /// Deletes an input's records below an offset, wholly where batches allow it.
    fn delete_records(
        &mut self,
        input: usize,
        partition: i32,
        before: i64,
    ) -> impl Future<Output = ()> + Send;

    /// All that a consumer sees of an output.
    fn outputs(
        &mut self,
        topic: OutputTopic,
        partition: i32,
    ) -> impl Future<Output = Vec<Output>> + Send;

    /// Lets the next commit fail; `false` where that can't be done, and the test is left out.
    fn fail_next_commit(&mut self, fault: CommitFault) -> bool;
}

/// One test for each promise, of a harness made by `$create`, an `async fn(Start) -> impl Harness`.
#[macro_export]
macro_rules! stream_log_conformance {
    ($create:expr) => {
        $crate::stream_log_conformance! { $create;
            Earliest: assigns_before_it_delivers,
            Earliest: delivers_in_order_and_once,
            Earliest: wakes_a_waiting_poll,
            Earliest: delivers_at_any_size,
            Earliest: loses_nothing_with_a_cancelled_poll,
            Earliest: publishes_in_the_order_of_commits,
            Earliest: commits_many_outputs,
            Earliest: commits_tasks_together,
            Earliest: restores_state_and_positions,
            Earliest: goes_on_from_the_committed_position,
            Earliest: polls_and_commits_together,
            Earliest: did_nothing_where_it_says_retry,
            Earliest: knows_after_restore_what_was_not_done,
            Earliest: knows_after_restore_what_was_done,
            Earliest: tells_a_gap,
            Earliest: keeps_a_paused_task_silent,
            Earliest: knows_its_surroundings,
            Latest: starts_at_the_latest,
        }
    };
    ($create:expr; $($start:ident: $test:ident,)*) => {
        $(
            #[tokio::test]
            async fn $test() {
                let harness = $create($crate::spec::Start::$start).await;
                $crate::stream_log::conformance::$test(harness).await;
            }
        )*
    };
}

fn task(partition: i32) -> Task {
    Task { partition }
}

fn record(number: usize) -> NewRecord {
    NewRecord {
        timestamp_ms: 1_700_000_000_000 + number as i64,
        key: Some(Bytes::from(format!("key {number}"))),
        value: Some(Bytes::from(format!("value {number}"))),
        headers: Vec::new(),
    }
}

fn records(numbers: std::ops::Range<usize>) -> Vec<NewRecord> {
    numbers.map(record).collect()
}

fn output(topic: OutputTopic, partition: i32, text: &str) -> Output {
    Output {
        topic,
        partition,
        timestamp_ms: 1_700_000_000_000,
        key: Some(Bytes::from(format!("key of {text}"))),
        value: Some(Bytes::from(text.to_owned())),
        headers: vec![Header {
            key: Bytes::from_static(b"name"),
            value: Some(Bytes::from(text.to_owned())),
        }],
    }
}

fn commit(partition: i32, outputs: Vec<Output>, positions: &[(usize, i64)]) -> Commit {
    Commit {
        task: task(partition),
        outputs,
        state: Vec::new(),
        positions: positions.iter().copied().collect(),
    }
}

async fn commit_all<L: StreamLog>(log: &L, commits: Vec<Commit>) -> Result<(), CommitError> {
    in_time(log.commit(commits.into())).await
}

#[derive(Default)]
struct State(BTreeMap<Vec<u8>, Vec<u8>>);

impl StateSink for State {
    fn put(&mut self, key: &[u8], value: Option<&[u8]>) {
        match value {
            Some(value) => self.0.insert(key.to_vec(), value.to_vec()),
            None => self.0.remove(key),
        };
    }
}

async fn in_time<T>(future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("it did not come within {PATIENCE:?}"),
    }
}

/// What a runtime keeps of what it is told, with the promises checked on the way.
#[derive(Default)]
struct Reader {
    positions: BTreeMap<(Task, usize), i64>,
    read: BTreeMap<(Task, usize), Vec<InputRecord>>,
    gaps: Vec<(Task, usize, i64, i64)>,
}

impl Reader {
    /// Waits for all assignments and restores every task.
    async fn start<L: StreamLog>(log: &L) -> Self {
        let mut reader = Self::default();
        let mut assigned = Vec::new();
        while assigned.len() < PARTITIONS as usize {
            let events = in_time(log.poll(MAX_BYTES)).await.expect("poll");
            for event in events {
                match event {
                    Event::Assigned(task) => assigned.push(task),
                    other => panic!("{other:?} came before a restore"),
                }
            }
        }
        assigned.sort();
        let all: Vec<Task> = (0..PARTITIONS).map(task).collect();
        assert_eq!(assigned, all, "the tasks are the partitions");
        for task in all {
            reader.restore(log, task).await;
        }
        reader
    }

    async fn restore<L: StreamLog>(&mut self, log: &L, task: Task) -> State {
        let mut state = State::default();
        let positions = in_time(log.restore(task, &mut state))
            .await
            .expect("restore");
        let inputs: Vec<usize> = positions.keys().copied().collect();
        assert_eq!(
            inputs,
            (0..INPUTS).collect::<Vec<_>>(),
            "restore gives a position for each input"
        );
        for (input, position) in positions {
            self.positions.insert((task, input), position);
            self.read.insert((task, input), Vec::new());
        }
        state
    }

    fn take(&mut self, events: Vec<Event>) {
        for event in events {
            match event {
                Event::Records {
                    task,
                    input,
                    records,
                    next,
                } => self.take_records(task, input, records, next),
                Event::Gap {
                    task,
                    input,
                    from,
                    to,
                } => {
                    let position = self.positions.insert((task, input), to);
                    assert_eq!(position, Some(from), "a gap begins at the position");
                    assert!(from < to, "a gap from {from} to {to}");
                    self.gaps.push((task, input, from, to));
                }
                other => panic!("{other:?} was not expected"),
            }
        }
    }

    fn take_records(&mut self, task: Task, input: usize, records: Vec<InputRecord>, next: i64) {
        let position = self
            .positions
            .get_mut(&(task, input))
            .expect("records of a restored task");
        for record in &records {
            assert!(
                record.offset >= *position && record.offset < next,
                "offset {} is not in {position}..{next}",
                record.offset
            );
            *position = record.offset + 1;
        }
        assert!(*position <= next, "next {next} is behind {position}");
        *position = next;
        self.read.entry((task, input)).or_default().extend(records);
    }

    /// Polls until a position is reached.
    async fn read_to<L: StreamLog>(
        &mut self,
        log: &L,
        partition: i32,
        input: usize,
        position: i64,
        max_bytes: usize,
    ) {
        while self.position(partition, input) < position {
            let events = in_time(log.poll(max_bytes)).await.expect("poll");
            assert!(!events.is_empty(), "a poll without events");
            self.take(events);
        }
    }

    fn position(&self, partition: i32, input: usize) -> i64 {
        *self
            .positions
            .get(&(task(partition), input))
            .expect("a restored task")
    }

    fn values(&self, partition: i32, input: usize) -> Vec<String> {
        let read = self.read.get(&(task(partition), input));
        read.into_iter()
            .flatten()
            .map(|record| match &record.value {
                Some(value) => String::from_utf8_lossy(value).into_owned(),
                None => "null".to_owned(),
            })
            .collect()
    }
}

fn values(numbers: std::ops::Range<usize>) -> Vec<String> {
    numbers.map(|number| format!("value {number}")).collect()
}

async fn silent<L: StreamLog>(log: &L) {
    if let Ok(events) = tokio::time::timeout(SILENCE, log.poll(MAX_BYTES)).await {
        panic!("{events:?} came where nothing was to come");
    }
}

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

/// Outputs are there when a commit is `Ok`, in the order of commits and in the order given.
pub async fn publishes_in_the_order_of_commits<H: Harness>(mut harness: H) {
    harness.append(0, 0, records(0..10)).await;
    let log = harness.open().await;
    let mut reader = Reader::start(&log).await;
    reader.read_to(&log, 0, 0, 10, MAX_BYTES).await;
    let mut nulls = output(OutputTopic::Derived, 0, "c");
    nulls.key = None;
    nulls.value = None;
    nulls.headers.clear();
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
