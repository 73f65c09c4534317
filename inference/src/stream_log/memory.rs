//! A log in memory, for tests and for trying things out: the same promises, and faults on demand.
//!
//! A [`MemoryTopics`] holds what a disk would; a [`MemoryLog`] is one runtime's handle. Dropping the handle
//! and opening another is a crash: what was committed is there, nothing else. Opening another fences the
//! one before.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;

use super::{
    Commit, CommitError, Error, Event, Header, InputEnd, InputRecord, Output, OutputTopic,
    Positions, StateSink, StreamLog, TableRecord, Task,
};
use crate::spec::Start;

/// What a record weighs beside its bytes.
const RECORD_OVERHEAD_BYTES: usize = 64;

/// What the next commit does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommitFault {
    /// Nothing, and says so.
    Retry,
    /// Nothing, and does not know.
    UnknownNotDone,
    /// All of it, and does not know.
    UnknownDone,
    /// Nothing, ever again.
    Fatal,
}

/// A record to append to an input.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct NewRecord {
    /// Milliseconds since the epoch.
    pub timestamp_ms: i64,
    /// May be null.
    pub key: Option<Bytes>,
    /// May be null.
    pub value: Option<Bytes>,
    /// In order.
    pub headers: Vec<Header>,
}

#[derive(Debug, Default)]
struct InputPartition {
    log_start_offset: i64,
    /// From offset 0; `None` is an offset that readers never see, as a control record's.
    records: Vec<Option<NewRecord>>,
}

impl InputPartition {
    fn end(&self) -> i64 {
        self.records.len() as i64
    }
}

#[derive(Debug, Default)]
struct TaskState {
    positions: Positions,
    state: BTreeMap<Bytes, Bytes>,
}

#[derive(Debug)]
struct Disk {
    /// By input, by partition.
    inputs: Vec<Vec<InputPartition>>,
    outputs: BTreeMap<(OutputTopic, i32), Vec<Output>>,
    tasks: BTreeMap<Task, TaskState>,
    tables: BTreeMap<String, Vec<TableRecord>>,
    faults: VecDeque<CommitFault>,
    fenced: BTreeSet<Task>,
    /// Of the newest handle.
    epoch: u64,
    commits: u64,
}

/// The topics of one model topic.
#[derive(Clone, Debug)]
pub struct MemoryTopics {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    names: Arc<[String]>,
    partitions: i32,
    start: Start,
    disk: Mutex<Disk>,
    changed: Notify,
}

impl Shared {
    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MemoryTopics {
    /// Empty topics, all of the same partition count.
    pub fn new(inputs: &[&str], partitions: i32, start: Start) -> Self {
        let of_input = |_| {
            (0..partitions)
                .map(|_| InputPartition::default())
                .collect::<Vec<_>>()
        };
        Self {
            shared: Arc::new(Shared {
                names: inputs.iter().map(|&name| name.to_owned()).collect(),
                partitions,
                start,
                disk: Mutex::new(Disk {
                    inputs: inputs.iter().map(of_input).collect(),
                    outputs: BTreeMap::new(),
                    tasks: BTreeMap::new(),
                    tables: BTreeMap::new(),
                    faults: VecDeque::new(),
                    fenced: BTreeSet::new(),
                    epoch: 0,
                    commits: 0,
                }),
                changed: Notify::new(),
            }),
        }
    }

    /// A handle; the one before is fenced.
    pub fn open(&self) -> MemoryLog {
        let mut disk = self.shared.disk();
        disk.epoch += 1;
        MemoryLog {
            shared: Arc::clone(&self.shared),
            epoch: disk.epoch,
            assigned: AtomicBool::new(false),
            reading: Mutex::new(Reading::default()),
        }
    }

    /// Appends to an input; `false` where there is no such partition.
    pub fn append(&self, input: usize, partition: i32, records: Vec<NewRecord>) -> bool {
        self.extend(input, partition, records.into_iter().map(Some))
    }

    /// Takes offsets that readers never see, as control records and aborted data do.
    pub fn append_invisible(&self, input: usize, partition: i32, count: usize) -> bool {
        self.extend(input, partition, std::iter::repeat_n(None, count))
    }

    fn extend(
        &self,
        input: usize,
        partition: i32,
        records: impl Iterator<Item = Option<NewRecord>>,
    ) -> bool {
        let found = match at(&mut self.shared.disk().inputs, input, partition) {
            Some(log) => {
                log.records.extend(records);
                true
            }
            None => false,
        };
        self.shared.changed.notify_waiters();
        found
    }

    /// Appends to a table of one partition.
    pub fn append_table(&self, table: &str, record: TableRecord) {
        let mut disk = self.shared.disk();
        disk.tables
            .entry(table.to_owned())
            .or_default()
            .push(record);
    }

    /// The committed state of a task.
    pub fn state(&self, task: Task) -> BTreeMap<Bytes, Bytes> {
        let disk = self.shared.disk();
        let state = disk.tasks.get(&task);
        state.map(|state| state.state.clone()).unwrap_or_default()
    }

    /// Deletes an input's records below an offset.
    pub fn delete_records(&self, input: usize, partition: i32, before: i64) {
        if let Some(log) = at(&mut self.shared.disk().inputs, input, partition) {
            log.log_start_offset = before.clamp(log.log_start_offset, log.end());
        }
        self.shared.changed.notify_waiters();
    }

    /// What consumers see of an output, from its first record on.
    pub fn outputs(&self, topic: OutputTopic, partition: i32) -> Vec<Output> {
        let disk = self.shared.disk();
        disk.outputs
            .get(&(topic, partition))
            .cloned()
            .unwrap_or_default()
    }

    /// The committed positions of a task.
    pub fn positions(&self, task: Task) -> Positions {
        let disk = self.shared.disk();
        disk.tasks
            .get(&task)
            .map(|state| state.positions.clone())
            .unwrap_or_default()
    }

    /// How many commits took effect.
    pub fn commits(&self) -> u64 {
        self.shared.disk().commits
    }

    /// Makes a task another's: no commit with it is taken any more.
    pub fn fence(&self, task: Task) {
        self.shared.disk().fenced.insert(task);
    }

    /// Lets a coming commit fail; several do so in turn.
    pub fn fail_commit(&self, fault: CommitFault) {
        self.shared.disk().faults.push_back(fault);
    }
}

fn at(
    inputs: &mut [Vec<InputPartition>],
    input: usize,
    partition: i32,
) -> Option<&mut InputPartition> {
    inputs
        .get_mut(input)?
        .get_mut(usize::try_from(partition).ok()?)
}

/// How far a handle has read.
#[derive(Debug, Default)]
struct Reading {
    positions: BTreeMap<(Task, usize), i64>,
    paused: BTreeSet<Task>,
    /// Which task comes first in the next poll, so that none starves.
    turn: usize,
}

/// One runtime's handle.
#[derive(Debug)]
pub struct MemoryLog {
    shared: Arc<Shared>,
    epoch: u64,
    assigned: AtomicBool,
    reading: Mutex<Reading>,
}

impl MemoryLog {
    fn reading(&self) -> MutexGuard<'_, Reading> {
        self.reading.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tasks(&self) -> impl Iterator<Item = Task> + use<> {
        (0..self.shared.partitions).map(|partition| Task { partition })
    }

    fn ready(&self, max_bytes: usize) -> Vec<Event> {
        if !self.assigned.swap(true, Ordering::AcqRel) {
            return self.tasks().map(Event::Assigned).collect();
        }
        let disk = self.shared.disk();
        let mut reading = self.reading();
        let mut room = max_bytes;
        let mut events = Vec::new();
        let sources: Vec<(Task, usize)> = reading.positions.keys().copied().collect();
        let turn = reading.turn.checked_rem(sources.len()).unwrap_or(0);
        reading.turn = turn + 1;
        for &(task, input) in sources.iter().cycle().skip(turn).take(sources.len()) {
            if reading.paused.contains(&task) || (room == 0 && !events.is_empty()) {
                continue;
            }
            let log = usize::try_from(task.partition)
                .ok()
                .and_then(|partition| disk.inputs.get(input)?.get(partition));
            if let (Some(log), Some(position)) = (log, reading.positions.get_mut(&(task, input))) {
                read(task, input, log, position, &mut room, &mut events);
            }
        }
        events
    }
}

/// Reads on from a position: a gap, or records until there is no more room.
fn read(
    task: Task,
    input: usize,
    log: &InputPartition,
    position: &mut i64,
    room: &mut usize,
    events: &mut Vec<Event>,
) {
    if *position < log.log_start_offset {
        events.push(Event::Gap {
            task,
            input,
            from: *position,
            to: log.log_start_offset,
        });
        *position = log.log_start_offset;
        return;
    }
    let from = *position;
    let mut records = Vec::new();
    for record in log.records.iter().skip(from as usize) {
        if *room == 0 && *position > from {
            break;
        }
        if let Some(record) = record {
            *room = room.saturating_sub(weight(record));
            records.push(InputRecord {
                offset: *position,
                timestamp_ms: record.timestamp_ms,
                key: record.key.clone(),
                value: record.value.clone(),
                headers: record.headers.clone(),
            });
        }
        *position += 1;
    }
    if *position > from {
        events.push(Event::Records {
            task,
            input,
            records,
            next: *position,
        });
    }
}

fn weight(record: &NewRecord) -> usize {
    let length = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
    RECORD_OVERHEAD_BYTES + length(&record.key) + length(&record.value)
}

impl StreamLog for MemoryLog {
    async fn poll(&self, max_bytes: usize) -> Result<Vec<Event>, Error> {
        loop {
            let changed = self.shared.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.shared.disk().epoch != self.epoch {
                return Err(Error::Fatal("another handle is open".to_owned()));
            }
            let events = self.ready(max_bytes);
            if !events.is_empty() {
                return Ok(events);
            }
            changed.await;
        }
    }

    async fn restore(
        &self,
        task: Task,
        sink: &mut (dyn StateSink + Send),
    ) -> Result<Positions, Error> {
        let mut disk = self.shared.disk();
        let disk = &mut *disk;
        let state = disk.tasks.entry(task).or_default();
        for (input, logs) in disk.inputs.iter().enumerate() {
            let log = usize::try_from(task.partition)
                .ok()
                .and_then(|partition| logs.get(partition))
                .ok_or_else(|| {
                    Error::Fatal(format!("input {input} has no partition {}", task.partition))
                })?;
            let start = match self.shared.start {
                Start::Earliest => log.log_start_offset,
                Start::Latest => log.end(),
            };
            state.positions.entry(input).or_insert(start);
        }
        for (key, value) in &state.state {
            sink.put(key, Some(value));
        }
        let mut reading = self.reading();
        for (&input, &position) in &state.positions {
            reading.positions.insert((task, input), position);
        }
        self.shared.changed.notify_waiters();
        Ok(state.positions.clone())
    }

    async fn commit(&self, commits: Arc<[Commit]>) -> Result<(), CommitError> {
        // A commit takes a turn of the scheduler, as a real one does.
        tokio::task::yield_now().await;
        let mut disk = self.shared.disk();
        if disk.epoch != self.epoch {
            let tasks = commits.iter().map(|commit| commit.task).collect();
            return Err(CommitError::Fenced(tasks));
        }
        let fenced: Vec<Task> = commits
            .iter()
            .map(|commit| commit.task)
            .filter(|task| disk.fenced.contains(task))
            .collect();
        if !fenced.is_empty() {
            return Err(CommitError::Fenced(fenced));
        }
        let fault = disk.faults.pop_front();
        match fault {
            Some(CommitFault::Retry) => return Err(CommitError::Retry("injected".to_owned())),
            Some(CommitFault::UnknownNotDone) => {
                return Err(CommitError::Unknown("injected".to_owned()));
            }
            Some(CommitFault::Fatal) => {
                disk.faults.push_front(CommitFault::Fatal);
                return Err(CommitError::Fatal("injected".to_owned()));
            }
            Some(CommitFault::UnknownDone) | None => {}
        }
        for commit in commits.iter() {
            check(&disk, commit, self.shared.partitions)?;
        }
        for commit in commits.iter() {
            apply(&mut disk, commit);
        }
        disk.commits += 1;
        match fault {
            Some(_) => Err(CommitError::Unknown("injected".to_owned())),
            None => Ok(()),
        }
    }

    fn state_version(&self) -> Option<String> {
        Some(self.shared.disk().commits.to_string())
    }

    async fn read_table(
        &self,
        table: &str,
        positions: &mut BTreeMap<i32, i64>,
    ) -> Result<Vec<TableRecord>, Error> {
        let disk = self.shared.disk();
        let position = positions.entry(0).or_default();
        let Some(records) = disk.tables.get(table) else {
            return Ok(Vec::new());
        };
        let new = records.get(*position as usize..).unwrap_or_default();
        *position = records.len() as i64;
        Ok(new.to_vec())
    }

    fn pause(&self, task: Task, paused: bool) {
        let mut reading = self.reading();
        if paused {
            reading.paused.insert(task);
        } else {
            reading.paused.remove(&task);
        }
        self.shared.changed.notify_waiters();
    }

    fn partitions(&self, _topic: OutputTopic) -> Option<i32> {
        Some(self.shared.partitions)
    }

    fn ends(&self) -> Vec<InputEnd> {
        let disk = self.shared.disk();
        self.tasks()
            .flat_map(|task| {
                let ends = disk
                    .inputs
                    .iter()
                    .enumerate()
                    .filter_map(move |(input, logs)| {
                        let log = logs.get(usize::try_from(task.partition).ok()?)?;
                        let end = log.end();
                        Some(InputEnd { task, input, end })
                    });
                ends.collect::<Vec<_>>()
            })
            .collect()
    }

    fn inputs(&self) -> Arc<[String]> {
        Arc::clone(&self.shared.names)
    }
}

/// A runtime that goes back, or past what there is, is wrong: no commit of it is taken.
fn check(disk: &Disk, commit: &Commit, partitions: i32) -> Result<(), CommitError> {
    let committed = disk.tasks.get(&commit.task);
    for (input, position) in &commit.positions {
        let before = committed.and_then(|state| state.positions.get(input));
        let end = usize::try_from(commit.task.partition)
            .ok()
            .and_then(|partition| disk.inputs.get(*input)?.get(partition))
            .map(InputPartition::end);
        let forward = before.is_some_and(|before| before <= position);
        if !forward || end.is_none_or(|end| *position > end) {
            return Err(CommitError::Fatal(format!(
                "position {position} of input {input} in {:?} is not between {before:?} and {end:?}",
                commit.task
            )));
        }
    }
    for output in &commit.outputs {
        if !(0..partitions).contains(&output.partition) {
            return Err(CommitError::Fatal(format!(
                "there is no partition {} of {:?}",
                output.partition, output.topic
            )));
        }
    }
    Ok(())
}

fn apply(disk: &mut Disk, commit: &Commit) {
    for output in &commit.outputs {
        let key = (output.topic, output.partition);
        disk.outputs.entry(key).or_default().push(output.clone());
    }
    let state = disk.tasks.entry(commit.task).or_default();
    state.positions.extend(&commit.positions);
    for (key, value) in &commit.state {
        match value {
            Some(value) => state.state.insert(key.clone(), value.clone()),
            None => state.state.remove(key),
        };
    }
}
