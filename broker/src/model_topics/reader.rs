//! Reading a model topic's inputs: whole batches from the log to records, in turn over partitions.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures_util::future::select_all;
use inference::stream_log::{Error, Event, Header, InputRecord, Positions, Task};
use storage::batch::{self, Batch};
use storage::partition_log::{Fetched, Offsets, Read};
use storage::producer_state::AbortedTransaction;
use storage::{Offset, PartitionLog};
use tokio::sync::{Notify, watch};

use super::embedded::{READ_LIMIT, Topics};

/// The largest decompressed batch that is opened.
pub(super) const MAX_BATCH_BYTES: usize = 64 << 20;
/// No further batch is opened where those of one read have come to this much in memory: compressed
/// ones may be a thousand times larger than what is read of them.
const MAX_OPENED_BYTES: usize = 1 << 20;
/// A batch whose records come to more than this in memory is given in parts: in a compressed batch a
/// record of a byte may take two hundred.
const MAX_SPLIT_BYTES: usize = 16 << 20;

#[derive(Debug)]
struct Cursor {
    task: Task,
    input: usize,
    topic: Arc<str>,
    log: Arc<PartitionLog>,
    /// `None` until the task is restored.
    next: Option<Offset>,
    paused: bool,
}

/// Cursors over every (task, input).
#[derive(Debug)]
pub(super) struct Reader {
    state: Mutex<State>,
    /// A cursor was moved, resumed or added.
    changed: Notify,
    /// By cursor; the newest cursors may have none yet. One poll at a time.
    watches: tokio::sync::Mutex<Vec<watch::Receiver<Offsets>>>,
}

#[derive(Debug, Default)]
struct State {
    /// How many there are.
    tasks: i32,
    unannounced: Vec<Task>,
    cursors: Vec<Cursor>,
    /// Reads begin here next time, so that no partition starves.
    first: usize,
}

struct Wanted {
    cursor: usize,
    task: Task,
    input: usize,
    topic: Arc<str>,
    log: Arc<PartitionLog>,
    next: Offset,
}

impl Reader {
    pub(super) fn new(topics: &Topics) -> Self {
        let reader = Self {
            state: Mutex::default(),
            changed: Notify::new(),
            watches: tokio::sync::Mutex::default(),
        };
        reader.grow(topics);
        reader
    }

    /// Adds the partitions of the inputs that are not there yet: each is a task to announce.
    pub(super) fn grow(&self, topics: &Topics) {
        let mut state = self.state();
        for partition in state.tasks..topics.tasks() {
            let task = Task { partition };
            state.unannounced.push(task);
            for (input, topic) in topics.inputs.iter().enumerate() {
                if let Some(log) = topic.partitions.get(partition as usize) {
                    state.cursors.push(Cursor {
                        task,
                        input,
                        topic: topic.name.as_str().into(),
                        log: log.clone(),
                        next: None,
                        paused: false,
                    });
                }
            }
        }
        state.tasks = state.tasks.max(topics.tasks());
        drop(state);
        self.changed.notify_one();
    }

    pub(super) fn seek(&self, task: Task, positions: &Positions) {
        for cursor in self
            .state()
            .cursors
            .iter_mut()
            .filter(|cursor| cursor.task == task)
        {
            cursor.next = positions.get(&cursor.input).copied();
        }
        self.changed.notify_one();
    }

    pub(super) fn pause(&self, task: Task, paused: bool) {
        for cursor in self
            .state()
            .cursors
            .iter_mut()
            .filter(|cursor| cursor.task == task)
        {
            cursor.paused = paused;
        }
        self.changed.notify_one();
    }

    /// Cancel-safe: cursors move only together with the events that are returned.
    pub(super) async fn poll(&self, max_bytes: usize) -> Result<Vec<Event>, Error> {
        let mut watches = self.watches.lock().await;
        loop {
            let assigned = std::mem::take(&mut self.state().unannounced);
            if !assigned.is_empty() {
                return Ok(assigned.into_iter().map(Event::Assigned).collect());
            }
            let watched = watches.len();
            watches.extend(
                self.state()
                    .cursors
                    .iter()
                    .skip(watched)
                    .map(|cursor| cursor.log.watch()),
            );
            for watch in watches.iter_mut() {
                watch.mark_unchanged();
            }
            let events = self.read(max_bytes).await?;
            if !events.is_empty() {
                return Ok(events);
            }
            let appended = watches.iter_mut().map(|watch| Box::pin(watch.changed()));
            tokio::select! {
                (result, _, _) = select_all(appended) => {
                    result.map_err(|_| Error::Fatal("an input was closed".to_owned()))?;
                }
                () = self.changed.notified() => {}
            }
        }
    }

    async fn read(&self, max_bytes: usize) -> Result<Vec<Event>, Error> {
        let mut left = max_bytes;
        let mut events = Vec::new();
        let mut moved = Vec::new();
        for wanted in self.wanted() {
            if left == 0 && !events.is_empty() {
                break;
            }
            let read = match wanted
                .log
                .read(wanted.next, left, events.is_empty(), READ_LIMIT)
            {
                Ok(Read::Warm(fetched)) => Ok(fetched),
                Ok(Read::Cold(cold)) => tokio::task::spawn_blocking(move || cold.load())
                    .await
                    .map_err(|e| Error::Fatal(format!("read of '{}': {e}", wanted.topic)))?,
                Err(error) => Err(error),
            };
            let Some((next, read_bytes)) = interpret(&wanted, read, &mut events)? else {
                continue;
            };
            left = left.saturating_sub(read_bytes);
            moved.push((wanted.cursor, wanted.next, next));
        }
        let mut state = self.state();
        for (cursor, from, next) in moved {
            if let Some(cursor) = state.cursors.get_mut(cursor)
                && cursor.next == Some(from)
            {
                cursor.next = Some(next);
            }
        }
        Ok(events)
    }

    fn wanted(&self) -> Vec<Wanted> {
        let mut state = self.state();
        let count = state.cursors.len();
        let first = state.first;
        state.first = if count == 0 { 0 } else { (first + 1) % count };
        (0..count)
            .map(|n| (first + n) % count)
            .filter_map(|index| {
                let cursor = &state.cursors[index];
                let next = cursor.next.filter(|_| !cursor.paused)?;
                Some(Wanted {
                    cursor: index,
                    task: cursor.task,
                    input: cursor.input,
                    topic: cursor.topic.clone(),
                    log: cursor.log.clone(),
                    next,
                })
            })
            .collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Turns a read into events: the new position and the bytes it took, or `None` where there is
/// nothing to read.
fn interpret(
    wanted: &Wanted,
    read: Result<Fetched, storage::Error>,
    events: &mut Vec<Event>,
) -> Result<Option<(Offset, usize)>, Error> {
    let (task, input, topic) = (wanted.task, wanted.input, &wanted.topic);
    let partition = task.partition;
    match read {
        Ok(fetched) if fetched.records.is_empty() => Ok(None),
        Ok(fetched) => {
            let read_bytes = fetched.records.len();
            let (next, opened_bytes) = push_events(wanted, fetched, events)?;
            Ok(Some((next, read_bytes.max(opened_bytes))))
        }
        Err(storage::Error::NotReadable) => Ok(None),
        Err(storage::Error::OffsetOutOfRange { start, .. }) if wanted.next < start => {
            events.push(Event::Gap {
                task,
                input,
                from: wanted.next,
                to: start,
            });
            Ok(Some((start, 0)))
        }
        Err(error @ storage::Error::Damaged { to, .. }) => {
            // Nobody can bring these records back, and the ones behind them wait.
            let from = wanted.next;
            tracing::error!(topic = &**topic, partition, from, to, %error, "input records are lost");
            events.push(Event::Gap {
                task,
                input,
                from,
                to,
            });
            Ok(Some((to, 0)))
        }
        Err(error @ storage::Error::Io { .. }) => Err(Error::Retry(format!(
            "input '{topic}' partition {partition}: {error}"
        ))),
        Err(error) => Err(Error::Fatal(format!(
            "input '{topic}' partition {partition}: {error}"
        ))),
    }
}

/// Returns the new position, and what the batches have come to in memory, about.
fn push_events(
    wanted: &Wanted,
    fetched: Fetched,
    events: &mut Vec<Event>,
) -> Result<(Offset, usize), Error> {
    let Wanted { task, input, .. } = *wanted;
    let (mut bytes, aborted) = (fetched.records, fetched.aborted);
    let mut next = wanted.next;
    let mut records = Vec::new();
    let mut opened_bytes = 0;
    while !bytes.is_empty() && opened_bytes < MAX_OPENED_BYTES {
        let header = Batch::parse(&bytes).map_err(|error| {
            Error::Fatal(format!(
                "input '{}' at offset {next}: {error}",
                wanted.topic
            ))
        })?;
        let (size, end, passed_over) = (
            header.size_in_bytes(),
            header.last_offset() + 1,
            header.is_control() || is_aborted(&header, &aborted),
        );
        let batch = bytes.split_to(size);
        if !passed_over {
            let opened = batch::Opened::open(&batch, MAX_BATCH_BYTES);
            match opened.and_then(|opened| opened.check().map(|()| opened)) {
                Ok(opened) => {
                    let wanted = opened.records().map_while(Result::ok);
                    for record in wanted.filter(|record| record.offset >= next) {
                        // The rest another time: it is opened again then.
                        if opened_bytes >= MAX_SPLIT_BYTES {
                            let next = record.offset;
                            events.push(Event::Records {
                                task,
                                input,
                                records,
                                next,
                            });
                            return Ok((next, opened_bytes));
                        }
                        opened_bytes += weight(&record);
                        records.push(input_record(record));
                    }
                }
                Err(error) => {
                    // Compressed batches are stored unopened: one that can't be opened fails alone.
                    tracing::error!(
                        topic = &*wanted.topic, partition = task.partition, offset = next, %error,
                        "input batch can't be read and is passed over"
                    );
                    if !records.is_empty() {
                        let records = std::mem::take(&mut records);
                        events.push(Event::Records {
                            task,
                            input,
                            records,
                            next,
                        });
                    }
                    events.push(Event::Gap {
                        task,
                        input,
                        from: next,
                        to: end,
                    });
                }
            }
        }
        next = end;
    }
    if !records.is_empty()
        || !matches!(events.last(), Some(Event::Gap { to, task: t, input: i, .. }) if (*to, *t, *i) == (next, task, input))
    {
        events.push(Event::Records {
            task,
            input,
            records,
            next,
        });
    }
    Ok((next, opened_bytes))
}

/// A batch is part of a transaction that was aborted.
pub(super) fn is_aborted(batch: &Batch<'_>, aborted: &[AbortedTransaction]) -> bool {
    let (producer_id, offset) = (batch.producer_id(), batch.base_offset());
    batch.is_transactional()
        && aborted.iter().any(|transaction| {
            transaction.producer_id == producer_id
                && (transaction.first_offset..transaction.last_offset).contains(&offset)
        })
}

fn weight(record: &batch::Record) -> usize {
    let len = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
    let headers = record.headers.len() * size_of::<batch::Header>();
    size_of::<batch::Record>() + headers + len(&record.key) + len(&record.value)
}

fn input_record(record: batch::Record) -> InputRecord {
    InputRecord {
        offset: record.offset,
        timestamp_ms: record.timestamp,
        key: record.key,
        value: record.value,
        headers: record
            .headers
            .into_iter()
            .map(|header| Header {
                key: header.key,
                value: header.value,
            })
            .collect(),
    }
}
