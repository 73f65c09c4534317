//! A data folder with the topics of some model topics, which can be crashed and opened again, and
//! what a runtime does on it.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use faulty_disk::{Call, Failure, Fault, FaultyDisk, Keep, write_tree};
use inference::spec::ModelTopicSpec;
use inference::stream_log::{
    Commit, CommitError, Event, Headers, Output, OutputTopic, Positions, StateSink, StreamLog, Task,
};
use storage::batch::{self, BatchBuilder, Compression, Record};
use storage::log_dir::LogDirConfig;
use storage::partition_log::{Durability, Read, ReadLimit};
use storage::{LogDir, Offset, PartitionLog};
use tempfile::TempDir;
use tokio::runtime::Handle;

use super::super::changelog::CommitBatch;
use super::super::embedded::{EmbeddedLog, Topics};
use super::super::recovery::{self, Recovered};
use super::super::topics;
use super::super::turns::Turns;

use crate::catalog::{Catalog, Topic, TopicDefaults};
use crate::clock::{Clock, SystemClock};

pub(super) const PARTITIONS: i32 = 2;
pub(super) const SCORED: &str = "
    [[model_topic]]
    name = 'scored'
    input = 'transactions'
    model = 'fraud'
";

/// How the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Crash {
    /// `kill -9`: what was written is there.
    Kill,
    /// What was not synced is gone.
    PowerCut,
}

pub(super) const CRASHES: [Crash; 2] = [Crash::Kill, Crash::PowerCut];

pub(super) struct World {
    pub(super) disk: FaultyDisk,
    pub(super) specs: Vec<Arc<ModelTopicSpec>>,
    folder: TempDir,
    open: Option<Open>,
}

struct Open {
    log_dir: Arc<LogDir>,
    catalog: Catalog,
    topics: HashMap<String, Topics>,
    recovered: Recovered,
    turns: Arc<Turns>,
}

impl Drop for World {
    /// A test that fails must not wait for a sync that it holds.
    fn drop(&mut self) {
        self.disk.release();
    }
}

/// The model topics of a config.
pub(super) fn specs(toml: &str) -> Vec<Arc<ModelTopicSpec>> {
    #[derive(serde::Deserialize)]
    struct Config {
        model_topic: Vec<ModelTopicSpec>,
    }

    let config: Config = toml::from_str(toml).unwrap();
    config.model_topic.into_iter().map(Arc::new).collect()
}

impl World {
    /// `toml` has the model topics.
    pub(super) async fn new(toml: &str) -> Self {
        let mut world = Self::over(tempfile::tempdir().unwrap(), specs(toml));
        world.open().await;
        world
    }

    /// Not opened, over what is in `folder`.
    pub(super) fn over(folder: TempDir, specs: Vec<Arc<ModelTopicSpec>>) -> Self {
        Self {
            disk: FaultyDisk::over(folder.path()),
            specs,
            folder,
            open: None,
        }
    }

    /// As a start does.
    pub(super) async fn open(&mut self) {
        assert!(self.open.is_none(), "open already");
        let log_dir = self.open_log_dir().await;
        let clock = Arc::new(SystemClock);
        let catalog = Catalog::open(log_dir.clone(), TopicDefaults::default(), clock)
            .await
            .unwrap();
        let mut topics = HashMap::new();
        for spec in &self.specs {
            let found = topics::ensure(
                &crate::model_topics::jobs::Job::of(Arc::clone(spec))[0],
                &catalog,
                PARTITIONS,
            )
            .await
            .unwrap();
            topics.insert(spec.name().to_owned(), found);
        }
        let recovered = recovery::recover(catalog.topics()).await.unwrap();
        self.open = Some(Open {
            log_dir,
            catalog,
            topics,
            recovered,
            turns: Arc::default(),
        });
    }

    async fn open_log_dir(&self) -> Arc<LogDir> {
        let config = LogDirConfig {
            path: self.folder.path().to_owned(),
            node_id: 0,
            sync_threads: 4,
            recovery_threads: 2,
        };
        // Whoever was dropped last may still be letting go.
        for _ in 0..500 {
            match LogDir::open(config.clone(), Arc::new(self.disk.clone())) {
                Err(storage::Error::Locked(_)) => {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                opened => return Arc::new(opened.unwrap()),
            }
        }
        panic!("the data folder stays locked");
    }

    /// Ends the process, as far as there is one. The logs that were handed out must be gone.
    pub(super) fn end(&mut self, crash: Crash) {
        let open = self.open.take().expect("open");
        let log_dir = Arc::downgrade(&open.log_dir);
        drop(open);
        assert_eq!(log_dir.strong_count(), 0, "somebody still has the folder");
        self.disk.heal();
        if crash == Crash::PowerCut {
            let left = self.disk.image().tree(Keep::None);
            std::fs::remove_dir_all(self.folder.path()).unwrap();
            write_tree(&left, self.folder.path()).unwrap();
            self.disk = FaultyDisk::over(self.folder.path());
        }
    }

    pub(super) async fn crash(&mut self, crash: Crash) {
        self.end(crash);
        self.open().await;
    }

    pub(super) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    pub(super) fn disk_path(&self) -> &std::path::Path {
        self.folder.path()
    }

    fn opened(&self) -> &Open {
        self.open.as_ref().expect("open")
    }

    pub(super) fn recovered(&self) -> &Recovered {
        &self.opened().recovered
    }

    pub(super) fn topics(&self, model_topic: &str) -> &Topics {
        &self.opened().topics[model_topic]
    }

    pub(super) fn log_dir(&self) -> &Arc<LogDir> {
        &self.opened().log_dir
    }

    pub(super) fn catalog(&self) -> &Catalog {
        &self.opened().catalog
    }

    pub(super) fn topic(&self, name: &str) -> Arc<Topic> {
        self.opened().catalog.topic(name).expect(name)
    }

    pub(super) fn partition(&self, topic: &str, partition: i32) -> Arc<PartitionLog> {
        self.topic(topic).partitions[partition as usize].clone()
    }

    /// The log of a model topic that is in the config and was recovered.
    pub(super) fn log(&self, model_topic: &str) -> EmbeddedLog {
        let open = self.opened();
        let failed = open.recovered.failed.get(model_topic);
        assert!(failed.is_none(), "{failed:?}");
        let spec = self.specs.iter().find(|spec| spec.name() == model_topic);
        let committed = open.recovered.committed.get(model_topic);
        EmbeddedLog::new(
            open.topics[model_topic].clone(),
            spec.expect(model_topic).start,
            committed.cloned().unwrap_or_default(),
            open.turns.clone(),
            Handle::current(),
            Arc::new(SystemClock),
        )
    }

    /// Appends `value <number>`s as a producer with acks=1 does.
    pub(super) fn append(&self, topic: &str, partition: i32, numbers: Range<usize>) {
        let mut batch = BatchBuilder::new(Compression::None);
        for number in numbers {
            batch.push(1_700_000_000_000, None, Some(value(number).as_bytes()), &[]);
        }
        self.partition(topic, partition)
            .append(&batch.build())
            .unwrap();
    }

    /// The same with acks=all.
    pub(super) async fn append_synced(&self, topic: &str, partition: i32, numbers: Range<usize>) {
        self.append(topic, partition, numbers);
        synced(&self.partition(topic, partition)).await;
    }

    /// The values that a consumer sees.
    pub(super) fn values(&self, topic: &str, partition: i32) -> Vec<String> {
        records(&self.partition(topic, partition), ReadLimit::HighWatermark)
            .unwrap()
            .into_iter()
            .map(|record| String::from_utf8(record.value.unwrap().to_vec()).unwrap())
            .collect()
    }

    /// Stages a commit's derived outputs of one partition, and nothing else.
    pub(super) async fn stage(&self, model_topic: &str, commit: &Commit) -> Offset {
        let mut batch = BatchBuilder::new(Compression::None);
        for output in &commit.outputs {
            let value = output.value.as_deref();
            batch.push(output.timestamp_ms, output.key.as_deref(), value, &[]);
        }
        let log = self.partition(model_topic, commit.task.partition);
        let end = log.stage(&batch.build()).unwrap().end;
        log.wait(end, Durability::Disk).await.unwrap();
        end
    }

    /// Writes a commit's positions and output end to the changelog, and does not sync it.
    pub(super) fn write_changelog(&self, model_topic: &str, commit: &Commit, end: Offset) {
        let topics = self.topics(model_topic);
        let mut batch = CommitBatch::new(SystemClock.now_ms());
        let partition = commit.task.partition;
        for (&input, &next) in &commit.positions {
            batch.position(topics.inputs[input].id, partition, next);
        }
        batch.output_end(topics.derived.id, partition, end);
        topics.changelog.append_internal(&batch.build()).unwrap();
    }
}

/// Such calls on files of that folder and suffix fail; a write has written half by then.
pub(super) fn failing(call: Call, folder: &str, suffix: &str) -> Fault {
    let failure = match call {
        Call::Write => Failure::Torn(libc::ENOSPC),
        _ => Failure::Errno(libc::EIO),
    };
    Fault::new(call, failure).in_folder(folder).on(suffix)
}

pub(super) fn value(number: usize) -> String {
    format!("value {number}")
}

pub(super) fn scored(numbers: Range<usize>) -> Vec<String> {
    numbers
        .map(|number| format!("scored {}", value(number)))
        .collect()
}

pub(super) async fn synced(log: &PartitionLog) {
    let end = log.offsets().log_end_offset;
    log.wait(end, Durability::Disk).await.unwrap();
}

/// Everything up to `limit`.
pub(super) fn records(log: &PartitionLog, limit: ReadLimit) -> Result<Vec<Record>, storage::Error> {
    let mut records: Vec<Record> = Vec::new();
    let mut offset = log.offsets().log_start_offset;
    loop {
        let fetched = match log.read(offset, 1 << 20, true, limit)? {
            Read::Warm(fetched) => fetched,
            Read::Cold(cold) => cold.load()?,
        };
        let mut rest = fetched.records;
        if rest.is_empty() {
            return Ok(records);
        }
        while !rest.is_empty() {
            let header = batch::Batch::parse(&rest)?;
            offset = header.last_offset() + 1;
            let size = header.size_in_bytes();
            records.extend(batch::records::decode(&rest.split_to(size), 64 << 20)?);
        }
    }
}

/// Reads input 0 and scores it.
pub(super) struct Runner {
    pub(super) log: EmbeddedLog,
    pub(super) positions: BTreeMap<i32, Offset>,
    /// The output's partition, of a task's and a value.
    pub(super) place: fn(i32, &[u8]) -> i32,
    outputs: BTreeMap<i32, Vec<Output>>,
}

pub(super) struct NoState;

impl StateSink for NoState {
    fn put(&mut self, _key: &[u8], _value: Option<&[u8]>) {}
}

impl Runner {
    pub(super) async fn start(log: EmbeddedLog) -> Self {
        let assigned = log.poll(1).await.unwrap();
        let mut positions = BTreeMap::new();
        for event in assigned {
            let Event::Assigned(task) = event else {
                panic!("{event:?} before an assignment");
            };
            let restored: Positions = log.restore(task, &mut NoState).await.unwrap();
            positions.insert(task.partition, restored[&0]);
        }
        assert_eq!(positions.len() as i32, PARTITIONS);
        Self {
            log,
            positions,
            place: |partition, _| partition,
            outputs: BTreeMap::new(),
        }
    }

    /// Reads up to `end` and returns what there is to commit then.
    pub(super) async fn read(&mut self, partition: i32, end: Offset) -> Arc<[Commit]> {
        while self.positions[&partition] < end {
            let poll = tokio::time::timeout(Duration::from_secs(20), self.log.poll(1 << 20));
            for event in poll.await.expect("records in time").unwrap() {
                let Event::Records {
                    task,
                    input: 0,
                    records,
                    next,
                } = event
                else {
                    panic!("{event:?} was not expected");
                };
                self.positions.insert(task.partition, next);
                let outputs = self.outputs.entry(task.partition).or_default();
                outputs.extend(records.into_iter().map(|record| {
                    let value = record.value.as_deref().unwrap_or_default();
                    let partition = (self.place)(task.partition, value);
                    let value = [b"scored ", value].concat();
                    output(OutputTopic::Derived, partition, Bytes::from(value))
                }));
            }
        }
        Arc::from([Commit {
            task: Task { partition },
            outputs: self.outputs.remove(&partition).unwrap_or_default(),
            state: Vec::new(),
            positions: Positions::from([(0, self.positions[&partition])]),
        }])
    }

    /// Reads up to `end` and commits it.
    pub(super) async fn run(&mut self, partition: i32, end: Offset) -> Result<(), CommitError> {
        let commits = self.read(partition, end).await;
        self.commit(&commits).await
    }

    pub(super) async fn commit(&self, commits: &Arc<[Commit]>) -> Result<(), CommitError> {
        tokio::time::timeout(Duration::from_secs(20), self.log.commit(commits.clone()))
            .await
            .expect("a commit in time")
    }
}

pub(super) fn output(topic: OutputTopic, partition: i32, value: Bytes) -> Output {
    Output {
        topic,
        partition,
        timestamp_ms: 1_700_000_000_000,
        key: None,
        value: Some(value),
        headers: Headers::default(),
    }
}
