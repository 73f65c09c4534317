//! Building the state of model topics anew, as somebody has asked: `milena serve --rebuild-state NAME`.
//!
//! It is done to the changelogs, before anything runs; [`inference::state::rebuild`] says what is written. Each step is on
//! the device before the next one; a start that finds the mark of the first goes through all of them again, asked or not.

use std::collections::BTreeMap;
use std::sync::Arc;

use inference::state::Change;
use inference::state::rebuild::{self, Entries};
use inference::stream_log::Task;
use inference::task::source;
use storage::PartitionLog;
use storage::partition_log::Durability;

use super::StartError;
use super::changelog::{self, CommitBatch, Committed};
use super::embedded::Topics;
use super::jobs::{Job, Role, repartition_of};
use super::recovery::Recovered;
use crate::clock::Clock;

/// Changes of a batch.
const BATCH: usize = 4096;

/// Of the jobs that keep state, those whose model topic is named in `asked`, and those that a crash has left half done.
pub(super) async fn run(
    jobs: &[Job],
    topics: &BTreeMap<String, Topics>,
    recovered: &mut Recovered,
    asked: &[String],
    clock: &dyn Clock,
) -> Result<(), StartError> {
    for name in asked {
        let mut jobs = jobs.iter();
        if !jobs.any(|job| job.spec.name() == name && keeps_state(job)) {
            let reason =
                "it has no state to rebuild: there is no such model topic, or it remembers nothing";
            return Err(StartError::new(name, reason.to_owned()));
        }
    }
    for job in jobs.iter().filter(|job| keeps_state(job)) {
        let name = job.spec.name();
        if recovered.failed.contains_key(name) {
            continue;
        }
        let is_asked = asked.iter().any(|asked| asked == name);
        rebuild(job, topics, recovered, is_asked, clock)
            .await
            .map_err(|reason| StartError::new(name, format!("rebuilding its state: {reason}")))?;
    }
    Ok(())
}

fn keeps_state(job: &Job) -> bool {
    !job.repartitions() && job.spec.is_stateful()
}

async fn rebuild(
    job: &Job,
    topics: &BTreeMap<String, Topics>,
    recovered: &mut Recovered,
    is_asked: bool,
    clock: &dyn Clock,
) -> Result<(), String> {
    let name = job.spec.name();
    let Some(own) = topics.get(name) else {
        return Ok(());
    };
    let committed = recovered.committed.entry(name.to_owned()).or_default();
    if !is_asked && !committed.has_state {
        return Ok(());
    }
    let entries = entries(&own.changelog).await?;
    if !is_asked && !entries.has_begun() {
        return Ok(());
    }
    let mut ends = entries.sources();
    if job.role == Role::Whole {
        for (&place, &next) in &positions(own, committed) {
            let end = ends.entry(place).or_insert(next);
            *end = next.max(*end);
        }
    }
    tracing::info!(
        model_topic = name,
        "the state is built anew from the inputs"
    );
    write(own, Entries::begin(&ends), clock).await?;
    write(own, entries.clear().collect(), clock).await?;
    if let Role::Repartitioned(_) = job.role {
        let between = repartition_of(name);
        if let Some(topics) = topics.get(&between) {
            let committed = recovered.committed.entry(between).or_default();
            repeat(topics, committed, clock).await?;
        }
    }
    // What is on its way is sent again; what is in an input is read again.
    let committed = recovered.committed.entry(name.to_owned()).or_default();
    let is_whole = job.role == Role::Whole;
    let next = |log: &PartitionLog| match is_whole {
        true => log.offsets().log_start_offset,
        false => log.offsets().high_watermark,
    };
    go_to(own, committed, next, vec![rebuild::end()], clock).await
}

/// Has a repartitioning read its inputs once more, and not give out dead letters again.
async fn repeat(
    topics: &Topics,
    committed: &mut Committed,
    clock: &dyn Clock,
) -> Result<(), String> {
    let mut ends = entries(&topics.changelog).await?.sources();
    for (place, next) in positions(topics, committed) {
        let end = ends.entry(place).or_insert(next);
        *end = next.max(*end);
    }
    // Its own mark says nothing to anybody: the one that counts is the model topic's.
    let changes = Entries::begin(&ends).into_iter().skip(1).collect();
    committed.has_state = true;
    go_to(
        topics,
        committed,
        |log| log.offsets().log_start_offset,
        changes,
        clock,
    )
    .await
}

/// The positions, as sources of tasks.
fn positions(topics: &Topics, committed: &Committed) -> BTreeMap<(Task, i64), i64> {
    let mut positions = BTreeMap::new();
    for (input, topic) in topics.inputs.iter().enumerate() {
        for (partition, _) in (0..).zip(&topic.partitions) {
            if let Some(next) = committed.positions.get(&(topic.id, partition)) {
                positions.insert((Task { partition }, source(input, partition)), *next);
            }
        }
    }
    positions
}

async fn entries(changelog: &Arc<PartitionLog>) -> Result<Entries, String> {
    let changelog = Arc::clone(changelog);
    let read = tokio::task::spawn_blocking(move || {
        let mut entries = Entries::default();
        let take = |_, task, key, value| entries.take(Task { partition: task }, key, value);
        changelog::replay_state(&changelog, take).map(|()| entries)
    });
    let read = read.await.map_err(|error| error.to_string())?;
    read.map_err(|error| error.to_string())
}

/// Moves the positions of all inputs, in one batch with some changes.
async fn go_to(
    topics: &Topics,
    committed: &mut Committed,
    next: impl Fn(&PartitionLog) -> i64,
    changes: Vec<(Task, Change)>,
    clock: &dyn Clock,
) -> Result<(), String> {
    let mut batch = CommitBatch::new(clock.now_ms());
    for (task, (key, value)) in changes {
        batch.state(task.partition, &key, value.as_deref());
    }
    for topic in &topics.inputs {
        for (partition, log) in (0..).zip(&topic.partitions) {
            let next = next(log);
            log.wait(next, Durability::Disk)
                .await
                .map_err(|error| error.to_string())?;
            batch.position(topic.id, partition, next);
            committed.positions.insert((topic.id, partition), next);
        }
    }
    append(topics, batch).await
}

async fn write(
    topics: &Topics,
    changes: Vec<(Task, Change)>,
    clock: &dyn Clock,
) -> Result<(), String> {
    for changes in changes.chunks(BATCH) {
        let mut batch = CommitBatch::new(clock.now_ms());
        for (task, (key, value)) in changes {
            batch.state(task.partition, key, value.as_deref());
        }
        append(topics, batch).await?;
    }
    Ok(())
}

async fn append(topics: &Topics, batch: CommitBatch) -> Result<(), String> {
    let written = topics.changelog.append_internal(&batch.build());
    let end = written.map_err(|error| error.to_string())?.end;
    let synced = topics.changelog.wait(end, Durability::Disk).await;
    synced.map_err(|error| error.to_string())
}
