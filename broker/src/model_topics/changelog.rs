//! What a model topic's changelog holds, byte by byte.
//!
//! `<model topic>.changelog` has one partition and is compacted. One commit is one record batch in
//! it, so a commit is whole or absent, whatever happens. Three kinds of records, all big-endian:
//!
//! | kind | key | value |
//! |---|---|---|
//! | 0, position | version `i16` = 0, kind `i8`, task `i32`, input topic id 16 bytes | version `i16` = 0, next offset `i64` |
//! | 1, output end | version `i16` = 0, kind `i8`, partition `i32`, output topic id 16 bytes | version `i16` = 0, end offset `i64` |
//! | 2, state | version `i16` = 0, kind `i8`, task `i32`, the state's key | the state's value; null deletes |
//!
//! Each has its own key, so that compaction keeps the newest of each. Before a record that names an
//! offset is written here, everything below that offset in the named partition is on the device.

use std::collections::HashMap;

use bytes::{Buf, BufMut, Bytes};
use storage::batch::{self, BatchBuilder, Compression};
use storage::partition_log::{Read, ReadLimit};
use storage::{Offset, PartitionLog};
use uuid::Uuid;

const VERSION: i16 = 0;
const POSITION: i8 = 0;
const OUTPUT_END: i8 = 1;
const STATE: i8 = 2;

/// The largest decompressed batch that a replay opens. The changelog is written uncompressed.
const MAX_BATCH_BYTES: usize = 256 << 20;
const READ_BYTES: usize = 1 << 20;

/// A topic's id and one of its partitions.
pub(super) type TopicPartitionId = (Uuid, i32);

/// What a changelog says is committed, state aside.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Committed {
    /// Next offset by input topic and task.
    pub positions: HashMap<TopicPartitionId, Offset>,
    /// End by output topic and partition.
    pub ends: HashMap<TopicPartitionId, Offset>,
    /// There are state records.
    pub has_state: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Entry<'a> {
    Position(TopicPartitionId, Offset),
    OutputEnd(TopicPartitionId, Offset),
    State {
        task: i32,
        key: &'a [u8],
        value: Option<&'a [u8]>,
    },
}

/// Why a changelog can't be replayed.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReplayError {
    #[error(transparent)]
    Storage(#[from] storage::Error),
    #[error("record at offset {offset}: {reason}")]
    Record { offset: Offset, reason: String },
}

/// The batch of one commit.
#[derive(Debug)]
pub(super) struct CommitBatch {
    batch: BatchBuilder,
    timestamp_ms: i64,
}

impl CommitBatch {
    pub(super) fn new(timestamp_ms: i64) -> Self {
        Self {
            batch: BatchBuilder::new(Compression::None),
            timestamp_ms,
        }
    }

    pub(super) fn position(&mut self, input: Uuid, task: i32, next: Offset) {
        self.offset_record(POSITION, input, task, next);
    }

    pub(super) fn output_end(&mut self, output: Uuid, partition: i32, end: Offset) {
        self.offset_record(OUTPUT_END, output, partition, end);
    }

    pub(super) fn state(&mut self, task: i32, key: &[u8], value: Option<&[u8]>) {
        let mut bytes = Vec::with_capacity(7 + key.len());
        bytes.put_i16(VERSION);
        bytes.put_i8(STATE);
        bytes.put_i32(task);
        bytes.put_slice(key);
        self.batch.push(self.timestamp_ms, Some(&bytes), value, &[]);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.batch.is_empty()
    }

    /// Not of an empty one.
    pub(super) fn build(self) -> Bytes {
        self.batch.build()
    }

    fn offset_record(&mut self, kind: i8, topic: Uuid, partition: i32, offset: Offset) {
        let mut key = Vec::with_capacity(23);
        key.put_i16(VERSION);
        key.put_i8(kind);
        key.put_i32(partition);
        key.put_slice(topic.as_bytes());
        let mut value = Vec::with_capacity(10);
        value.put_i16(VERSION);
        value.put_i64(offset);
        self.batch
            .push(self.timestamp_ms, Some(&key), Some(&value), &[]);
    }
}

/// Blocking. Reads a whole changelog for what is committed, state aside.
pub(super) fn replay(log: &PartitionLog) -> Result<Committed, ReplayError> {
    let mut committed = Committed::default();
    each(log, |record| {
        match decode(record.key.as_deref(), record.value.as_deref())? {
            Entry::Position(key, next) => {
                committed.positions.insert(key, next);
            }
            Entry::OutputEnd(key, end) => {
                committed.ends.insert(key, end);
            }
            Entry::State { .. } => committed.has_state = true,
        }
        Ok(())
    })?;
    Ok(committed)
}

/// Blocking. Reads a whole changelog; `state` gets every change of state, in order: its offset, its task, its key and its
/// value.
pub(super) fn replay_state(
    log: &PartitionLog,
    mut state: impl FnMut(Offset, i32, Bytes, Option<Bytes>),
) -> Result<(), ReplayError> {
    each(log, |record| {
        if let Entry::State { task, key, .. } =
            decode(record.key.as_deref(), record.value.as_deref())?
            && let Some(whole) = &record.key
        {
            let key = whole.slice_ref(key);
            state(record.offset, task, key, record.value);
        }
        Ok(())
    })
}

fn each(
    log: &PartitionLog,
    mut take: impl FnMut(batch::Record) -> Result<(), String>,
) -> Result<(), ReplayError> {
    let mut offset = log.offsets().log_start_offset;
    loop {
        let fetched = match log.read(offset, READ_BYTES, true, ReadLimit::LogEnd)? {
            Read::Warm(fetched) => fetched,
            Read::Cold(cold) => cold.load()?,
        };
        if fetched.records.is_empty() {
            return Ok(());
        }
        let mut rest = fetched.records;
        while !rest.is_empty() {
            let header = batch::Batch::parse(&rest)?;
            offset = header.last_offset() + 1;
            let (size, control) = (header.size_in_bytes(), header.is_control());
            let bytes = rest.split_to(size);
            if control {
                continue;
            }
            for record in batch::records::decode(&bytes, MAX_BATCH_BYTES)? {
                let at = record.offset;
                take(record).map_err(|reason| ReplayError::Record { offset: at, reason })?;
            }
        }
    }
}

fn decode<'a>(key: Option<&'a [u8]>, value: Option<&'a [u8]>) -> Result<Entry<'a>, String> {
    let mut key = key.ok_or("no key")?;
    if key.len() < 7 {
        return Err(format!("key of {} bytes is too short", key.len()));
    }
    let (version, kind, number) = (key.get_i16(), key.get_i8(), key.get_i32());
    if version != VERSION {
        return Err(format!("key version {version} is unknown"));
    }
    if kind == STATE {
        return Ok(Entry::State {
            task: number,
            key,
            value,
        });
    }
    if kind != POSITION && kind != OUTPUT_END {
        return Err(format!("record kind {kind} is unknown"));
    }
    let topic = Uuid::from_slice(key).map_err(|_| format!("topic id of {} bytes", key.len()))?;
    let mut value = value.ok_or("no value")?;
    if value.len() != 10 {
        return Err(format!("value of {} bytes, expected 10", value.len()));
    }
    let (version, offset) = (value.get_i16(), value.get_i64());
    if version != VERSION {
        return Err(format!("value version {version} is unknown"));
    }
    if offset < 0 {
        return Err(format!("offset {offset} is negative"));
    }
    match kind {
        POSITION => Ok(Entry::Position((topic, number), offset)),
        _ => Ok(Entry::OutputEnd((topic, number), offset)),
    }
}
