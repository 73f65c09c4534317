//! What the suite appends, and a reader that checks the promises on the way.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;

use super::super::memory::NewRecord;
use super::super::{
    Commit, CommitError, Event, Header, Headers, InputRecord, Output, OutputTopic, StateSink,
    StreamLog, Task,
};
use super::{INPUTS, PARTITIONS};

/// How long something may take that has to come.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long something is waited for that must not come.
const SILENCE: Duration = Duration::from_millis(150);
pub(super) const MAX_BYTES: usize = 1 << 20;

pub(super) fn task(partition: i32) -> Task {
    Task { partition }
}

pub(super) fn record(number: usize) -> NewRecord {
    NewRecord {
        timestamp_ms: 1_700_000_000_000 + number as i64,
        key: Some(Bytes::from(format!("key {number}"))),
        value: Some(Bytes::from(format!("value {number}"))),
        headers: Vec::new(),
    }
}

pub(super) fn records(numbers: std::ops::Range<usize>) -> Vec<NewRecord> {
    numbers.map(record).collect()
}

/// Of all outputs.
static SHARED: LazyLock<Arc<[Header]>> =
    LazyLock::new(|| [header("model", "m"), header("version", "1")].into());

fn header(key: &'static str, value: &str) -> Header {
    Header {
        key: Bytes::from_static(key.as_bytes()),
        value: Some(Bytes::from(value.to_owned())),
    }
}

pub(super) fn output(topic: OutputTopic, partition: i32, text: &str) -> Output {
    Output {
        topic,
        partition,
        timestamp_ms: 1_700_000_000_000,
        key: Some(Bytes::from(format!("key of {text}"))),
        value: Some(Bytes::from(text.to_owned())),
        headers: Headers {
            shared: Arc::clone(&SHARED),
            own: vec![header("name", text)],
        },
    }
}

pub(super) fn commit(partition: i32, outputs: Vec<Output>, positions: &[(usize, i64)]) -> Commit {
    Commit {
        task: task(partition),
        outputs,
        state: Vec::new(),
        positions: positions.iter().copied().collect(),
    }
}

pub(super) async fn commit_all<L: StreamLog>(
    log: &L,
    commits: Vec<Commit>,
) -> Result<(), CommitError> {
    in_time(log.commit(commits.into())).await
}

#[derive(Default)]
pub(super) struct State(pub(super) BTreeMap<Vec<u8>, Vec<u8>>);

impl StateSink for State {
    fn put(&mut self, key: &[u8], value: Option<&[u8]>) {
        match value {
            Some(value) => self.0.insert(key.to_vec(), value.to_vec()),
            None => self.0.remove(key),
        };
    }
}

pub(super) async fn in_time<T>(future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("it did not come within {PATIENCE:?}"),
    }
}

/// What a runtime keeps of what it is told, with the promises checked on the way.
#[derive(Default)]
pub(super) struct Reader {
    pub(super) positions: BTreeMap<(Task, usize), i64>,
    pub(super) read: BTreeMap<(Task, usize), Vec<InputRecord>>,
    pub(super) gaps: Vec<(Task, usize, i64, i64)>,
}

impl Reader {
    /// Waits for all assignments and restores every task.
    pub(super) async fn start<L: StreamLog>(log: &L) -> Self {
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

    pub(super) async fn restore<L: StreamLog>(&mut self, log: &L, task: Task) -> State {
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

    pub(super) fn take(&mut self, events: Vec<Event>) {
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

    pub(super) fn take_records(
        &mut self,
        task: Task,
        input: usize,
        records: Vec<InputRecord>,
        next: i64,
    ) {
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
    pub(super) async fn read_to<L: StreamLog>(
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

    pub(super) fn position(&self, partition: i32, input: usize) -> i64 {
        *self
            .positions
            .get(&(task(partition), input))
            .expect("a restored task")
    }

    pub(super) fn values(&self, partition: i32, input: usize) -> Vec<String> {
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

pub(super) fn values(numbers: std::ops::Range<usize>) -> Vec<String> {
    numbers.map(|number| format!("value {number}")).collect()
}

pub(super) async fn silent<L: StreamLog>(log: &L) {
    if let Ok(events) = tokio::time::timeout(SILENCE, log.poll(MAX_BYTES)).await {
        panic!("{events:?} came where nothing was to come");
    }
}
