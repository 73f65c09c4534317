//! From a changelog to the state of tasks, in one pass over it.
//!
//! The changelog is read and decoded on one thread, while the state is built on another.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use inference::stream_log::{Error, StatesSink, Task};
use storage::PartitionLog;
use tokio::sync::mpsc;

use super::changelog;

/// Changes that are passed on together, and how many such lots may wait.
const LOT: usize = 4096;
const LOTS: usize = 8;
/// How often it is said how far it is.
const PROGRESS: Duration = Duration::from_secs(2);

type Change = (Task, Bytes, Option<Bytes>);

/// Passes all changes of the state of some tasks on, in order.
pub(super) async fn state(
    model_topic: &str,
    log: &Arc<PartitionLog>,
    tasks: &[Task],
    states: &mut (dyn StatesSink + Send),
) -> Result<(), Error> {
    let wanted: BTreeSet<i32> = tasks.iter().map(|task| task.partition).collect();
    let (give, mut take) = mpsc::channel::<(i64, Vec<Change>)>(LOTS);
    let reader = Arc::clone(log);
    let replay = tokio::task::spawn_blocking(move || {
        let mut lot = Vec::with_capacity(LOT);
        let replayed = changelog::replay_state(&reader, |offset, task, key, value| {
            if wanted.contains(&task) {
                lot.push((Task { partition: task }, key, value));
            }
            if lot.len() >= LOT {
                let full = std::mem::replace(&mut lot, Vec::with_capacity(LOT));
                // Nobody takes it where restoring was given up.
                let _ = give.blocking_send((offset, full));
            }
        });
        let _ = give.blocking_send((i64::MAX, lot));
        replayed
    });
    let start = log.offsets().log_start_offset;
    let end = log.offsets().log_end_offset;
    let mut told = Instant::now();
    while let Some((offset, lot)) = take.recv().await {
        for (task, key, value) in &lot {
            states.put(*task, key, value.as_deref());
        }
        if told.elapsed() >= PROGRESS && offset < end {
            told = Instant::now();
            let percent = 100 * (offset - start) / (end - start).max(1);
            tracing::info!(topic = model_topic, percent, "restoring state");
        }
    }
    replay
        .await
        .map_err(|error| Error::Fatal(format!("changelog replay: {error}")))?
        .map_err(|error| Error::Fatal(format!("changelog: {error}")))
}
