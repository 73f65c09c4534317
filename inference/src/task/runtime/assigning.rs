//! Taking tasks on, with their state, and leaving the state behind.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::{Backoff, Runtime, TaskWork};
use crate::state::{StateError, Store, rebuild};
use crate::stream_log::{Error, OutputTopic, Positions, StatesSink, StreamLog, Task};
use crate::task::rekey;
use crate::task::work::{Work, lock};

/// How long a stop waits for what is on its way, so that the state it leaves is one that was committed.
const DRAIN: Duration = Duration::from_secs(10);

impl<L: StreamLog> Runtime<L> {
    /// Takes tasks on, or anew: what is not committed of them is dropped.
    pub(in crate::task) async fn assign(&mut self, tasks: &[Task]) -> Result<(), String> {
        for &task in tasks {
            self.check_outputs(task)?;
            self.next_generation += 1;
            let work = TaskWork {
                generation: self.next_generation,
                ..TaskWork::default()
            };
            self.tasks.insert(task, work);
        }
        let mut backoff = Backoff::new();
        let positions = loop {
            let reason = match self.restore(tasks).await {
                Ok(positions) => break positions,
                Err(Error::Fatal(reason)) => return Err(format!("restoring failed: {reason}")),
                Err(Error::Retry(reason)) => reason,
            };
            let wait = backoff.next();
            tracing::warn!(
                topic = self.spec.name(),
                ?tasks,
                reason,
                retry_in_ms = wait.as_millis() as u64,
                "restoring is tried again"
            );
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                _ = self.stop.wait_for(|stop| *stop) => return Err("stopped".to_owned()),
            }
        };
        let mut committed = self.shared.committed();
        for (task, positions) in &positions {
            for (&input, &position) in positions {
                committed.insert((*task, input), position);
            }
            tracing::info!(
                topic = self.spec.name(),
                partition = task.partition,
                ?positions,
                "restored a task"
            );
        }
        Ok(())
    }

    fn check_outputs(&self, task: Task) -> Result<(), String> {
        // Where records go to where their keys are, outputs may have other partitions than inputs.
        if self.engine.is_none() {
            return Ok(());
        }
        let dead_letter = self.spec.dead_letter_topic();
        let alerts = self.spec.alert_topics();
        let needed = std::iter::once((OutputTopic::Derived, self.spec.name()))
            .chain(
                dead_letter
                    .iter()
                    .map(|name| (OutputTopic::DeadLetter, name.as_str())),
            )
            .chain(
                (0..)
                    .map(OutputTopic::Alert)
                    .zip(alerts.iter().map(String::as_str)),
            );
        for (topic, name) in needed {
            let partitions = self.log.partitions(topic).unwrap_or(0);
            if partitions <= task.partition {
                return Err(format!(
                    "topic {name:?} has {partitions} partitions, and none for partition {} of its inputs",
                    task.partition
                ));
            }
        }
        Ok(())
    }

    async fn restore(&mut self, tasks: &[Task]) -> Result<BTreeMap<Task, Positions>, Error> {
        if let Work::Rekey { replayed, .. } = &*self.work {
            let mut sink = Replayed(replayed);
            return self.log.restore_all(tasks, Some(&mut sink)).await;
        }
        let Some(store) = self.work.store().cloned() else {
            return self.log.restore_all(tasks, None).await;
        };
        let started = Instant::now();
        let fatal = |error: StateError| Error::Fatal(error.to_string());
        // What a clean stop has left holds for the first assignment alone.
        let resumed = match self.resumed {
            None => {
                let version = self.log.state_version();
                lock(&store).resume(version.as_deref()).map_err(fatal)?
            }
            Some(_) => false,
        };
        self.resumed = Some(resumed);
        for &task in tasks {
            let generation = self.tasks.get(&task).map_or(0, |work| work.generation);
            lock(&store)
                .begin(task, generation, resumed)
                .map_err(fatal)?;
        }
        let positions = match resumed {
            true => self.log.restore_all(tasks, None).await?,
            false => {
                let mut sink = Restoring {
                    store: Arc::clone(&store),
                    entries: 0,
                    failed: None,
                };
                let positions = self.log.restore_all(tasks, Some(&mut sink)).await?;
                if let Some(error) = sink.failed {
                    return Err(fatal(error));
                }
                positions
            }
        };
        let mut store = lock(&store);
        let now = Instant::now();
        for &task in tasks {
            store.check(task).map_err(fatal)?;
            let change = store.define(task);
            if let Some(work) = self.tasks.get_mut(&task) {
                work.state.extend(change);
                if let Some(state) = store.task(task, work.generation) {
                    self.expect_sources(task, state.clock(), now);
                }
            }
        }
        store.fit().map_err(fatal)?;
        store.ready();
        let seconds = started.elapsed().as_secs_f64();
        self.measures.restore.set(seconds);
        self.measures.features.state(&store);
        tracing::info!(
            topic = self.spec.name(),
            tasks = tasks.len(),
            resumed,
            keys_in_memory = store.keys_in_memory(),
            seconds,
            "restored state"
        );
        Ok(positions)
    }

    /// The partitions whose records a task will get.
    fn expect_sources(&self, task: Task, clock: &mut crate::state::clock::Clock, now: Instant) {
        match &self.origins {
            None => {
                for input in 0..self.log.inputs().len() {
                    clock.expect(rekey::source(input, task.partition), now);
                }
            }
            Some(origins) => {
                for (input, partitions) in (origins.partitions)().into_iter().enumerate() {
                    for partition in 0..partitions {
                        clock.expect(rekey::source(input, partition), now);
                    }
                }
            }
        }
    }

    /// At a stop: commits what is on its way, and leaves the state as it is then for the next start.
    pub(super) async fn leave_state(&mut self) {
        let Some(store) = self.work.store().cloned() else {
            return;
        };
        if self.halting.is_some() {
            return;
        }
        let drained = tokio::time::timeout(DRAIN, self.drain()).await;
        if !matches!(drained, Ok(Ok(()))) {
            tracing::info!(
                topic = self.spec.name(),
                "the state is rebuilt at the next start"
            );
            return;
        }
        let Some(version) = self.log.state_version() else {
            return;
        };
        let saved = lock(&store).save(&version);
        if let Err(error) = saved {
            tracing::warn!(topic = self.spec.name(), %error, "the state is rebuilt at the next start");
        }
    }

    async fn drain(&mut self) -> Result<(), String> {
        loop {
            self.begin_commit();
            if let Some(committing) = &mut self.committing {
                let result = (&mut committing.result).await;
                self.end_commit(result).await?;
            } else if let Some(first) = self.inferring.front_mut() {
                let inference = first.answers.recv().await;
                self.take_answers(inference)?;
                if self.halting.is_some() {
                    return Err("halting".to_owned());
                }
            } else {
                return Ok(());
            }
        }
    }
}

/// Takes what a repartitioning has to know of a rebuild.
struct Replayed<'w>(&'w Mutex<BTreeMap<(Task, i64), i64>>);

impl StatesSink for Replayed<'_> {
    fn put(&mut self, task: Task, key: &[u8], value: Option<&[u8]>) {
        if let Some((source, end)) = rebuild::replayed(key, value) {
            let mut replayed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            match end {
                Some(end) => replayed.insert((task, source), end),
                None => replayed.remove(&(task, source)),
            };
        }
    }
}

/// Puts what the log tells into the store.
struct Restoring {
    store: Arc<Mutex<Store>>,
    entries: u64,
    failed: Option<StateError>,
}

/// Entries between two looks at what memory they take.
const ENTRIES_PER_LOOK: u64 = 4096;

impl StatesSink for Restoring {
    fn put(&mut self, task: Task, key: &[u8], value: Option<&[u8]>) {
        if self.failed.is_some() {
            return;
        }
        let mut store = lock(&self.store);
        self.entries += 1;
        let put = store.restore(task, key, value);
        let fits = match self.entries.is_multiple_of(ENTRIES_PER_LOOK) {
            true => store.fit(),
            false => Ok(()),
        };
        self.failed = put.and(fits).err();
    }
}
