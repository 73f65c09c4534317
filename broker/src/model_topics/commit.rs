//! The exactly-once commit.
//!
//! 1. Take the turns of all output partitions; stage the outputs above their high watermarks.
//! 2. Sync inputs up to the new positions, and outputs, in parallel.
//! 3. Write one batch to the changelog (positions, output ends, state) and sync it.
//! 4. Publish: raise the outputs' high watermarks; end the turns.
//!
//! The commit is decided by step 3 alone: a crash before it leaves a hidden tail that the next
//! start cuts off, a crash after it leaves outputs that the next start publishes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, PoisonError};

use bytes::Bytes;
use futures_util::future::{BoxFuture, try_join_all};
use inference::stream_log::{Commit, CommitError, Header, Headers, Output, Task};
use storage::batch::{BatchBuilder, Compression, EncodedHeaders};
use storage::partition_log::Durability;
use storage::{Offset, PartitionLog};

use super::changelog::{CommitBatch, TopicPartitionId};
use super::embedded::{CommittedPositions, Topics, TopicsNow, partition};
use super::turns::Turns;
use crate::clock::Clock;

/// A batch of outputs is closed when it has grown to this size.
const BATCH_BYTES: usize = 512 << 10;
/// Room for the record that closes a batch.
const SPARE_BYTES: usize = 4 << 10;

/// Commits for one model topic, one at a time.
#[derive(Debug)]
pub(super) struct Committer {
    topics: TopicsNow,
    turns: Arc<Turns>,
    positions: CommittedPositions,
    wrote_state: AtomicBool,
    /// Why nothing is committed any more: what the changelog holds, only the next start finds out.
    ended: OnceLock<String>,
    clock: Arc<dyn Clock>,
}

/// The batches of each output partition.
type OutputBatches = BTreeMap<TopicPartitionId, (Arc<PartitionLog>, Vec<Bytes>)>;

struct Staged {
    id: TopicPartitionId,
    log: Arc<PartitionLog>,
    end: Offset,
}

impl Committer {
    pub(super) fn new(
        topics: TopicsNow,
        turns: Arc<Turns>,
        positions: CommittedPositions,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            topics,
            turns,
            positions,
            wrote_state: AtomicBool::new(false),
            ended: OnceLock::new(),
            clock,
        }
    }

    /// State was committed since the start.
    pub(super) fn has_written_state(&self) -> bool {
        self.wrote_state.load(Ordering::Acquire)
    }

    pub(super) async fn commit(&self, commits: &[Commit]) -> Result<(), CommitError> {
        let topics = self.topics.get();
        let batches = output_batches(&topics, commits)?;
        let _turns = self
            .turns
            .take(batches.keys().copied().collect::<BTreeSet<_>>())
            .await;
        // Before the tail that such a commit has left would be cut off.
        if let Some(reason) = self.ended.get() {
            return Err(CommitError::Fatal(reason.clone()));
        }
        let staged = stage(batches)?;

        if let Err(error) = sync(&topics, commits, &staged).await {
            discard(&staged);
            return Err(error);
        }
        self.write_changelog(&topics, commits, &staged).await?;

        for output in &staged {
            output
                .log
                .publish(output.end)
                .map_err(|e| CommitError::Fatal(format!("publish up to {}: {e}", output.end)))?;
        }
        let mut positions = self
            .positions
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for (task, input, next) in moved(commits) {
            if let Some(topic) = topics.inputs.get(input) {
                positions.insert((topic.id, task.partition), next);
            }
        }
        Ok(())
    }

    async fn write_changelog(
        &self,
        topics: &Topics,
        commits: &[Commit],
        staged: &[Staged],
    ) -> Result<(), CommitError> {
        let mut batch = CommitBatch::new(self.clock.now_ms());
        for commit in commits {
            for (key, value) in &commit.state {
                batch.state(commit.task.partition, key, value.as_deref());
                self.wrote_state.store(true, Ordering::Release);
            }
        }
        for (task, input, next) in moved(commits) {
            if let Some(topic) = topics.inputs.get(input) {
                batch.position(topic.id, task.partition, next);
            }
        }
        for output in staged {
            batch.output_end(output.id.0, output.id.1, output.end);
        }
        if batch.is_empty() {
            return Ok(());
        }
        let changelog = &topics.changelog;
        let written = match changelog.append_internal(&batch.build()) {
            Ok(written) => written,
            // It could not be cut back, so that the next start may find the batch there.
            Err(error @ storage::Error::ReadOnly(_)) => return Err(self.end(&error)),
            Err(error) => {
                discard(staged);
                return Err(refused("changelog", &error));
            }
        };
        // From here on the outcome is the disk's: a changelog that can't be synced is read-only,
        // and only a restart finds out what it holds.
        let synced = changelog.wait(written.end, Durability::Disk).await;
        synced.map_err(|error| self.end(&error))
    }

    /// What was staged stays hidden: the next start cuts it off or publishes it.
    fn end(&self, error: &storage::Error) -> CommitError {
        let reason = self.ended.get_or_init(|| format!("changelog: {error}"));
        CommitError::Fatal(reason.clone())
    }
}

fn output_batches(topics: &Topics, commits: &[Commit]) -> Result<OutputBatches, CommitError> {
    let mut outputs: BTreeMap<TopicPartitionId, (Arc<PartitionLog>, Batches)> = BTreeMap::new();
    for output in commits.iter().flat_map(|commit| &commit.outputs) {
        let topic = topics.output(output.topic).ok_or_else(|| {
            CommitError::Fatal(format!("there is no topic for {:?} outputs", output.topic))
        })?;
        let log =
            partition(topic, output.partition).map_err(|e| CommitError::Fatal(e.to_string()))?;
        outputs
            .entry((topic.id, output.partition))
            .or_insert_with(|| (log.clone(), Batches::default()))
            .1
            .push(output);
    }
    Ok(outputs
        .into_iter()
        .map(|(id, (log, batches))| (id, (log, batches.finish())))
        .collect())
}

/// Everything below the offsets that the changelog is about to name.
async fn sync(topics: &Topics, commits: &[Commit], staged: &[Staged]) -> Result<(), CommitError> {
    let mut syncs: Vec<BoxFuture<'static, Result<(), CommitError>>> = Vec::new();
    for (task, input, next) in moved(commits) {
        let topic = topics
            .inputs
            .get(input)
            .ok_or_else(|| CommitError::Fatal(format!("there is no input {input}")))?;
        let log =
            partition(topic, task.partition).map_err(|e| CommitError::Fatal(e.to_string()))?;
        let what = format!("input '{}' partition {}", topic.name, task.partition);
        syncs.push(synced(log, next, what));
    }
    for output in staged {
        syncs.push(synced(
            &output.log,
            output.end,
            format!("output partition {}", output.id.1),
        ));
    }
    try_join_all(syncs).await.map(|_| ())
}

/// Record batches of one output partition, in order.
#[derive(Default)]
struct Batches {
    closed: Vec<Bytes>,
    open: Option<BatchBuilder>,
    /// What the last output shares with others, and its encoding.
    shared: (Arc<[Header]>, EncodedHeaders),
}

impl Batches {
    fn push(&mut self, output: &Output) {
        let batch = self.open.get_or_insert_with(|| {
            // After a full one there mostly comes another.
            let bytes = self.closed.last().map_or(0, |_| BATCH_BYTES + SPARE_BYTES);
            BatchBuilder::with_capacity(Compression::None, bytes)
        });
        let Headers { shared, own } = &output.headers;
        if !Arc::ptr_eq(shared, &self.shared.0) {
            let encoded = EncodedHeaders::new(shared.iter().map(key_and_value));
            self.shared = (Arc::clone(shared), encoded);
        }
        batch.push_with_headers(
            output.timestamp_ms,
            output.key.as_deref(),
            output.value.as_deref(),
            &self.shared.1,
            own.iter().map(key_and_value),
        );
        if batch.size_in_bytes() >= BATCH_BYTES {
            self.close();
        }
    }

    fn close(&mut self) {
        self.closed
            .extend(self.open.take().map(BatchBuilder::build));
    }

    fn finish(mut self) -> Vec<Bytes> {
        self.close();
        self.closed
    }
}

fn key_and_value(header: &Header) -> (&[u8], Option<&[u8]>) {
    (&header.key, header.value.as_deref())
}

fn stage(outputs: OutputBatches) -> Result<Vec<Staged>, CommitError> {
    let mut staged = Vec::with_capacity(outputs.len());
    for (id, (log, batches)) in outputs {
        let result = stage_in(&log, &batches);
        let end = *result.as_ref().unwrap_or(&log.offsets().high_watermark);
        // Also where only some of the batches were staged.
        staged.push(Staged { id, log, end });
        if let Err(error) = result {
            discard(&staged);
            return Err(refused(&format!("output partition {}", id.1), &error));
        }
    }
    Ok(staged)
}

/// Stages one partition's batches above its high watermark, and returns their end.
fn stage_in(log: &PartitionLog, batches: &[Bytes]) -> Result<Offset, storage::Error> {
    let mut end = log.offsets().high_watermark;
    if log.offsets().log_end_offset > end {
        // The tail of a failed commit that could not be cut off then.
        log.discard_to(end)?;
    }
    for batch in batches {
        end = log.stage(batch)?.end;
    }
    Ok(end)
}

/// Cuts off what a failed commit staged. A failure here is made good by the next `stage`.
fn discard(staged: &[Staged]) {
    for output in staged {
        let to = output.log.offsets().high_watermark;
        if let Err(error) = output.log.discard_to(to) {
            tracing::warn!(partition = output.id.1, offset = to, %error, "staged outputs stay hidden");
        }
    }
}

fn synced(
    log: &PartitionLog,
    end: Offset,
    what: String,
) -> BoxFuture<'static, Result<(), CommitError>> {
    let wait = log.wait(end, Durability::Disk);
    Box::pin(async move { wait.await.map_err(|e| refused(&what, &e)) })
}

/// A write that was refused changed nothing; whether it makes sense to try again is another matter.
fn refused(what: &str, error: &storage::Error) -> CommitError {
    match error {
        storage::Error::Io { .. } => CommitError::Retry(format!("{what}: {error}")),
        _ => CommitError::Fatal(format!("{what}: {error}")),
    }
}

fn moved(commits: &[Commit]) -> impl Iterator<Item = (Task, usize, Offset)> + '_ {
    commits.iter().flat_map(|commit| {
        commit
            .positions
            .iter()
            .map(|(&input, &next)| (commit.task, input, next))
    })
}
