//! [`StreamLog`] on the broker's own log.
//!
//! Every partition of the inputs is a task of this process, so tasks are assigned once and never
//! revoked; partitions that are added later are tasks that are assigned later. Reading is in [`super::reader`]; the commit, which is the heart of it, in
//! [`super::commit`].

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use inference::spec::Start;
use inference::stream_log::{
    Commit, CommitError, Error, Event, InputEnd, OutputTopic, Positions, StateSink, StatesSink,
    StreamLog, TableRecord, Task,
};
use storage::partition_log::{Durability, ReadLimit};
use storage::{Offset, PartitionLog};
use tokio::runtime::Handle;
use uuid::Uuid;

use super::changelog::{CommitBatch, Committed, TopicPartitionId};
use super::commit::Committer;
use super::reader::Reader;
use super::{restore, tables};
use crate::catalog::Topic;
use crate::clock::Clock;

/// The topics of one model topic.
#[derive(Clone, Debug)]
pub(super) struct Topics {
    /// In the order of the config. All have the same number of partitions.
    pub inputs: Vec<Arc<Topic>>,
    pub derived: Arc<Topic>,
    /// `None` where nothing is sent to one.
    pub dead_letter: Option<Arc<Topic>>,
    /// Of its rules.
    pub alerts: Vec<Arc<Topic>>,
    /// That its features look up.
    pub tables: Vec<Arc<Topic>>,
    pub changelog: Arc<PartitionLog>,
    pub changelog_id: Uuid,
}

impl Topics {
    pub(super) fn output(&self, topic: OutputTopic) -> Option<&Topic> {
        match topic {
            OutputTopic::Derived => Some(&self.derived),
            OutputTopic::DeadLetter => self.dead_letter.as_deref(),
            OutputTopic::Alert(number) => self.alerts.get(number).map(AsRef::as_ref),
        }
    }

    /// Tasks of the model topic: as many as the inputs have partitions.
    pub(super) fn tasks(&self) -> i32 {
        self.inputs
            .first()
            .map_or(0, |input| input.partitions.len() as i32)
    }
}

/// The topics as they are now: replaced where they get more partitions. Outputs have at least as many
/// as the inputs, so that whoever has an input's partition has its outputs', too.
#[derive(Clone, Debug)]
pub(super) struct TopicsNow(Arc<RwLock<Arc<Topics>>>);

impl TopicsNow {
    fn new(topics: Topics) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(topics))))
    }

    pub(super) fn get(&self) -> Arc<Topics> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn set(&self, topics: Arc<Topics>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = topics;
    }
}

/// Tells a model topic that runs of more partitions.
#[derive(Clone, Debug)]
pub(super) struct Growing {
    topics: TopicsNow,
    reader: Arc<Reader>,
}

impl Growing {
    /// From now on the model topic has these topics, which are the same with more partitions.
    pub(super) fn grow(&self, topics: Topics) {
        let topics = Arc::new(topics);
        self.topics.set(Arc::clone(&topics));
        self.reader.grow(&topics);
    }

    /// The topics as they are now.
    pub(super) fn topics(&self) -> Arc<Topics> {
        self.topics.get()
    }
}

/// Committed positions, shared with those who show them.
pub(super) type CommittedPositions = Arc<Mutex<HashMap<TopicPartitionId, Offset>>>;

/// One model topic's view of the broker's log.
#[derive(Debug)]
pub(super) struct EmbeddedLog {
    topics: TopicsNow,
    names: Arc<[String]>,
    start: Start,
    has_state: bool,
    positions: CommittedPositions,
    reader: Arc<Reader>,
    committer: Arc<Committer>,
    /// Commits run here, so that a caller who goes away never leaves one half done.
    runtime: Handle,
    clock: Arc<dyn Clock>,
}

impl EmbeddedLog {
    /// `committed` is what the replay of the changelog found.
    pub(super) fn new(
        topics: Topics,
        start: Start,
        committed: Committed,
        turns: Arc<super::turns::Turns>,
        runtime: Handle,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let positions = Arc::new(Mutex::new(committed.positions));
        let names = topics.inputs.iter().map(|input| input.name.clone());
        let names = names.collect();
        let reader = Arc::new(Reader::new(&topics));
        let topics = TopicsNow::new(topics);
        Self {
            names,
            reader,
            committer: Arc::new(Committer::new(
                topics.clone(),
                turns,
                positions.clone(),
                clock.clone(),
            )),
            topics,
            start,
            has_state: committed.has_state,
            positions,
            runtime,
            clock,
        }
    }

    pub(super) fn positions(&self) -> CommittedPositions {
        self.positions.clone()
    }

    pub(super) fn growing(&self) -> Growing {
        Growing {
            topics: self.topics.clone(),
            reader: Arc::clone(&self.reader),
        }
    }

    fn committed(&self, id: TopicPartitionId) -> Option<Offset> {
        self.positions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&id)
            .copied()
    }

    /// Where a task begins that has never committed. `latest` is about what was in an input before
    /// the model topic first saw it: a partition that was added later is read from its start.
    async fn first_position(&self, task: Task, topic: &Topic) -> Result<Offset, Error> {
        let log = partition(topic, task.partition)?;
        if self.start == Start::Latest && !self.has_begun(topic) {
            self.begin_at_latest(topic).await?;
        }
        // Of all partitions that there were.
        let begun = self.committed((topic.id, task.partition));
        Ok(begun.unwrap_or_else(|| log.offsets().log_start_offset))
    }

    fn has_begun(&self, topic: &Topic) -> bool {
        let positions = self
            .positions
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        positions.keys().any(|(id, _)| *id == topic.id)
    }

    /// The ends of all partitions are written down before they are used, and at once: otherwise a
    /// crash before the first commit would skip what arrived in between.
    async fn begin_at_latest(&self, topic: &Topic) -> Result<(), Error> {
        let mut ends = Vec::with_capacity(topic.partitions.len());
        for (partition, log) in (0..).zip(&topic.partitions) {
            let offsets = log.offsets();
            // An input that is not published yet has no end that means anything.
            log.read(offsets.log_start_offset, 0, false, READ_LIMIT)
                .map_err(|error| match error {
                    storage::Error::NotReadable => {
                        Error::Retry(format!("input '{}': {error}", topic.name))
                    }
                    error => fatal(topic, &error),
                })?;
            let next = log.offsets().last_stable_offset;
            ends.push((partition, next, log.wait(next, Durability::Disk)));
        }
        let mut batch = CommitBatch::new(self.clock.now_ms());
        let mut positions = Vec::with_capacity(ends.len());
        for (partition, next, synced) in ends {
            synced.await.map_err(|e| fatal(topic, &e))?;
            batch.position(topic.id, partition, next);
            positions.push(((topic.id, partition), next));
        }
        let changelog = &self.topics.get().changelog;
        let end = changelog
            .append_internal(&batch.build())
            .map_err(|e| Error::Retry(format!("changelog: {e}")))?
            .end;
        changelog
            .wait(end, Durability::Disk)
            .await
            .map_err(|e| Error::Fatal(format!("changelog: {e}")))?;
        self.positions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend(positions);
        Ok(())
    }

    async fn positions_of(&self, task: Task) -> Result<Positions, Error> {
        let mut positions = Positions::new();
        for (input, topic) in self.topics.get().inputs.iter().enumerate() {
            let next = match self.committed((topic.id, task.partition)) {
                Some(next) => next,
                None => self.first_position(task, topic).await?,
            };
            positions.insert(input, next);
        }
        self.reader.seek(task, &positions);
        Ok(positions)
    }
}

/// Passes the state of one task on.
struct OfTask<'s> {
    task: Task,
    sink: &'s mut (dyn StateSink + Send),
}

impl StatesSink for OfTask<'_> {
    fn put(&mut self, task: Task, key: &[u8], value: Option<&[u8]>) {
        if task == self.task {
            self.sink.put(key, value);
        }
    }
}

impl StreamLog for EmbeddedLog {
    async fn poll(&self, max_bytes: usize) -> Result<Vec<Event>, Error> {
        self.reader.poll(max_bytes).await
    }

    async fn restore(
        &self,
        task: Task,
        sink: &mut (dyn StateSink + Send),
    ) -> Result<Positions, Error> {
        let mut sink = OfTask { task, sink };
        let mut all = self.restore_all(&[task], Some(&mut sink)).await?;
        Ok(all.remove(&task).unwrap_or_default())
    }

    async fn restore_all(
        &self,
        tasks: &[Task],
        states: Option<&mut (dyn StatesSink + Send)>,
    ) -> Result<BTreeMap<Task, Positions>, Error> {
        let has_state = self.has_state || self.committer.has_written_state();
        if let (true, Some(states)) = (has_state, states) {
            let topics = self.topics.get();
            restore::state(&topics.derived.name, &topics.changelog, tasks, states).await?;
        }
        let mut all = BTreeMap::new();
        for &task in tasks {
            all.insert(task, self.positions_of(task).await?);
        }
        Ok(all)
    }

    fn state_version(&self) -> Option<String> {
        let topics = self.topics.get();
        let end = topics.changelog.offsets().log_end_offset;
        Some(format!("{}:{end}", topics.changelog_id))
    }

    async fn read_table(
        &self,
        table: &str,
        positions: &mut BTreeMap<i32, i64>,
    ) -> Result<Vec<TableRecord>, Error> {
        let topics = self.topics.get();
        let topic = topics.tables.iter().find(|topic| topic.name == table);
        let topic = topic.ok_or_else(|| Error::Fatal(format!("there is no table {table:?}")))?;
        tables::read(topic, positions).await
    }

    async fn commit(&self, commits: Arc<[Commit]>) -> Result<(), CommitError> {
        let committer = self.committer.clone();
        self.runtime
            .spawn(async move { committer.commit(&commits).await })
            .await
            .unwrap_or_else(|e| Err(CommitError::Fatal(format!("commit did not finish: {e}"))))
    }

    fn pause(&self, task: Task, paused: bool) {
        self.reader.pause(task, paused);
    }

    fn partitions(&self, topic: OutputTopic) -> Option<i32> {
        self.topics.get().output(topic).map(Topic::partition_count)
    }

    fn ends(&self) -> Vec<InputEnd> {
        let mut ends = Vec::new();
        for (input, topic) in self.topics.get().inputs.iter().enumerate() {
            for (partition, log) in (0..).zip(&topic.partitions) {
                let end = log.offsets().last_stable_offset;
                ends.push(InputEnd {
                    task: Task { partition },
                    input,
                    end,
                });
            }
        }
        ends
    }

    fn inputs(&self) -> Arc<[String]> {
        self.names.clone()
    }
}

/// What read-committed readers may see.
pub(super) const READ_LIMIT: ReadLimit = ReadLimit::LastStableOffset;

pub(super) fn partition(topic: &Topic, partition: i32) -> Result<&Arc<PartitionLog>, Error> {
    usize::try_from(partition)
        .ok()
        .and_then(|index| topic.partitions.get(index))
        .ok_or_else(|| {
            Error::Fatal(format!(
                "topic '{}' has no partition {partition}",
                topic.name
            ))
        })
}

fn fatal(topic: &Topic, error: &storage::Error) -> Error {
    Error::Fatal(format!("input '{}': {error}", topic.name))
}
