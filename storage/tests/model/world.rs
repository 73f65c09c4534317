//! A data folder on a faulty disk with an ordinary and a derived partition, and the model of each.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use faulty_disk::{FaultyDisk, Keep, Random, Tree, write_tree};
use storage::batch::header::Batch;
use storage::clock::Clock;
use storage::log_dir::{LogDirConfig, OpenLog};
use storage::partition_log::{Durability, ReadLimit, Visibility};
use storage::{Error, LogConfig, LogDir, PartitionLog};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use uuid::Uuid;

use crate::Beginning;
use crate::batches;
use crate::check::{self, Outcome, ensure};
use crate::compaction;
use crate::model::{Model, Stored, Tri};
use crate::transactions::Coordinator;

/// How often a start may be cut short in a row.
const MOST_CRASHES_AT_START: u64 = 3;

pub struct World {
    pub random: Random,
    pub clock: Arc<AtomicI64>,
    pub config: LogConfig,
    pub disk: FaultyDisk,
    /// Calls may fail.
    pub troubled: bool,
    pub ordinary: Model,
    pub derived: Model,
    /// The derived partition was published since the start.
    pub readable: bool,
    /// The next batch's number.
    pub number: u64,
    pub trace: Option<Vec<String>>,
    /// Logs are compacted.
    pub compacting: bool,
    /// There are transactions.
    pub transacting: bool,
    pub coordinator: Coordinator,
    runtime: Runtime,
    folder: TempDir,
    starts: u64,
    open: Option<Open>,
}

#[derive(Clone)]
pub struct Open {
    pub dir: Arc<LogDir>,
    pub ordinary: Arc<PartitionLog>,
    pub derived: Arc<PartitionLog>,
}

impl World {
    pub fn new(beginning: Beginning, traced: bool) -> Self {
        let Beginning {
            mut random,
            compacting,
            transacting,
        } = beginning;
        // In memory, where there is such a folder.
        let shared = PathBuf::from("/dev/shm");
        let place = if shared.is_dir() {
            shared
        } else {
            std::env::temp_dir()
        };
        let folder = tempfile::tempdir_in(place).expect("a folder");
        let seed = random.clone().next();
        let mut config = batches::config(&mut random);
        if compacting {
            batches::compaction(&mut config, &mut Random::new(seed));
        }
        Self {
            disk: FaultyDisk::over(&folder.path().join("0")),
            random,
            clock: Arc::new(AtomicI64::new(1_700_000_000_000)),
            config,
            troubled: false,
            ordinary: Model::default(),
            derived: Model::default(),
            readable: false,
            number: 0,
            trace: traced.then(Vec::new),
            compacting,
            transacting,
            coordinator: Coordinator::default(),
            runtime: tokio::runtime::Builder::new_current_thread()
                .build()
                .expect("a runtime"),
            folder,
            starts: 0,
            open: None,
        }
    }

    pub fn note(&mut self, what: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(what());
        }
    }

    pub fn now_ms(&self) -> i64 {
        self.clock.load(Ordering::Relaxed)
    }

    pub fn open(&self) -> Open {
        self.open.clone().expect("is open")
    }

    pub fn wait(&self, log: &PartitionLog, end: i64) -> Result<(), Error> {
        self.runtime.block_on(log.wait(end, Durability::Disk))
    }

    /// A call has failed, which it may where there is trouble.
    pub fn excuse(&self, what: &str, error: &Error) -> Outcome {
        let excused = self.troubled || self.disk.has_crashed();
        ensure(excused, || format!("{what}: {error}"))
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join(self.starts.to_string())
    }

    /// Starts on what is there.
    fn try_open(&self) -> Result<Open, Error> {
        let config = LogDirConfig {
            path: self.root(),
            node_id: 0,
            sync_threads: 1,
            // One after the other, so that a history is the same every time.
            recovery_threads: 1,
        };
        let clock = Arc::clone(&self.clock);
        let clock = Clock::new(move || clock.load(Ordering::Relaxed));
        let dir = LogDir::open_with_clock(config, Arc::new(self.disk.clone()), clock)?;
        let log = |topic: &str, id, visibility| OpenLog {
            topic: topic.to_owned(),
            topic_id: Uuid::from_u128(id),
            partition: 0,
            config: Arc::new(self.config.clone()),
            visibility,
        };
        let mut logs = dir.open_logs(vec![
            log("events", 1, Visibility::Ordinary),
            log("scored", 2, Visibility::Derived),
        ])?;
        let derived = logs.pop().expect("two logs");
        let ordinary = logs.pop().expect("two logs");
        Ok(Open {
            dir: Arc::new(dir),
            ordinary,
            derived,
        })
    }

    /// The first start, on an empty disk.
    pub fn begin(&mut self) -> Outcome {
        let open = self
            .try_open()
            .map_err(|error| format!("the first start: {error}"))?;
        open.derived.publish(0).map_err(|error| error.to_string())?;
        self.readable = true;
        if self.compacting {
            // Until there is a recovery point, a start can't tell what a power cut has taken out of the
            // midst of a log from what compaction has.
            open.dir.checkpoint().map_err(|error| error.to_string())?;
        }
        self.open = Some(open);
        Ok(())
    }

    /// A clean stop and a start.
    pub fn stop(&mut self) -> Outcome {
        let Open {
            dir,
            ordinary,
            derived,
        } = self.open();
        let stopped = dir.shutdown();
        self.note(|| format!("stop: {stopped:?}"));
        let clean = match stopped {
            Ok(()) => true,
            Err(error) => {
                // What has failed before may only show now.
                let failed =
                    self.ordinary.read_only != Tri::No || self.derived.read_only != Tri::No;
                if !failed {
                    self.excuse("stop", &error)?;
                }
                false
            }
        };
        let late = ordinary.append(&batches::batch(&mut self.random, 0, 0, None, true).bytes);
        ensure(late.is_err(), || "an append after the stop".to_owned())?;
        drop((dir, ordinary, derived));
        if clean {
            self.ordinary.durable = self.ordinary.end;
        }
        // A clean stop is one whatever happens to the power then.
        let keep = if clean { self.keep() } else { Keep::All };
        self.restart(keep, clean, 0)
    }

    fn keep(&mut self) -> Keep {
        match self.random.below(4) {
            0 => Keep::All,
            1 => Keep::None,
            _ => Keep::Some(self.random.next()),
        }
    }

    /// Down, by a kill or a power cut, and up again.
    pub fn crash(&mut self) -> Outcome {
        let keep = self.keep();
        let again = if self.random.one_in(3) {
            MOST_CRASHES_AT_START
        } else {
            0
        };
        self.restart(keep, false, again)
    }

    /// As [`World::crash`], and the start is left alone.
    pub fn crash_once(&mut self) -> Outcome {
        let keep = self.keep();
        self.restart(keep, false, 0)
    }

    /// Starts on what a crash leaves; that start may be cut short `again` times.
    fn restart(&mut self, keep: Keep, clean: bool, again: u64) -> Outcome {
        self.open = None;
        let was_compacting = !(self.ordinary.passes.is_empty() && self.derived.passes.is_empty());
        if was_compacting && self.random.one_in(3) {
            // The policy was changed while it went on.
            self.config.compact = false;
        }
        let tree = self.disk.image().tree(keep);
        self.move_to(&tree);
        let soon = (again > 0).then(|| self.random.below(40));
        if let Some(changes) = soon {
            self.disk.crash_after(changes + 1);
        }
        self.note(|| format!("start, {keep:?} was kept, down again after {soon:?} changes"));
        match self.try_open() {
            Ok(open) => {
                if self.disk.has_crashed() {
                    drop(open);
                    let keep = self.keep();
                    return self.restart(keep, false, again - 1);
                }
                ensure(!clean || open.dir.was_clean(), || {
                    "the stop was clean".to_owned()
                })?;
                let outcome = self.started(open);
                if outcome.is_err() && self.disk.has_crashed() {
                    let keep = self.keep();
                    return self.restart(keep, false, again.saturating_sub(1));
                }
                outcome
            }
            Err(error) => {
                self.note(|| format!("start: {error}"));
                ensure(self.disk.has_crashed(), || format!("start: {error}"))?;
                let keep = self.keep();
                self.restart(keep, false, again - 1)
            }
        }
    }

    /// Puts what a crash has left on a disk of its own.
    fn move_to(&mut self, tree: &Tree) {
        let before = self.root();
        self.starts += 1;
        write_tree(tree, &self.root()).expect("writes");
        std::fs::remove_dir_all(before).expect("removes");
        self.disk = FaultyDisk::over(&self.root());
        self.troubled = false;
    }

    /// The logs are open again: they have to have what they promised, and the model follows them.
    fn started(&mut self, open: Open) -> Outcome {
        let clean = open.dir.was_clean();
        follow_ordinary(&open.ordinary, &mut self.ordinary, clean)
            .map_err(|what| format!("after a start: {what}"))?;
        if clean {
            let end = open.dir.clean_high_watermark("scored", 0);
            let expected = self.derived.high_watermark;
            // Where nobody has published anything, nothing is known.
            ensure(end.is_none() || end == Some(expected), || {
                format!("clean end {end:?}, not {expected}")
            })?;
        }
        self.readable = false;
        self.open = Some(open);
        self.derived.restarted();
        self.catch_up()
    }

    /// As the changelog of a model topic would: cuts off what is beyond the recorded end, and publishes.
    fn catch_up(&mut self) -> Outcome {
        let Open { derived, .. } = self.open();
        let model = &mut self.derived;
        let offsets = derived.offsets();
        let (start, end, recorded) = (
            offsets.log_start_offset,
            offsets.log_end_offset,
            model.recorded,
        );
        ensure(
            (model.log_start..=model.maybe_start).contains(&start),
            || {
                format!(
                    "derived begins at {start}, not at {}..={}",
                    model.log_start, model.maybe_start
                )
            },
        )?;
        ensure(end >= recorded, || {
            format!("derived ends at {end}, {recorded} was recorded")
        })?;
        let caught_up = derived
            .discard_to(recorded)
            .and_then(|_| derived.publish(recorded));
        if let Err(error) = caught_up {
            // It has gone down again, or will.
            return ensure(self.disk.has_crashed(), || format!("catching up: {error}"));
        }
        self.readable = true;
        let found = check::batches_of(&derived, ReadLimit::HighWatermark)?;
        compaction::follow_start(model, &found, recorded, start)
            .map_err(|what| format!("derived: {what}"))?;
        model.truncate(recorded);
        model.delete(start);
        model.maybe_start = start;
        model.epoch = derived.leader_epoch();
        ensure(found.len() == model.batches.len(), || {
            format!(
                "{} derived batches below {recorded}, not {}",
                found.len(),
                model.batches.len()
            )
        })?;
        for (found, expected) in found.iter().zip(&model.batches) {
            ensure(*found == expected.bytes, || {
                format!("derived: another batch at {}", expected.base)
            })?;
        }
        model.publish(recorded)
    }
}

/// What is left has to be a prefix of what was appended, as long as what was durable at least.
fn follow_ordinary(log: &PartitionLog, model: &mut Model, clean: bool) -> Outcome {
    let offsets = log.offsets();
    let (start, end) = (offsets.log_start_offset, offsets.log_end_offset);
    ensure(
        (model.log_start..=model.maybe_start).contains(&start),
        || {
            format!(
                "begins at {start}, not at {}..={}",
                model.log_start, model.maybe_start
            )
        },
    )?;
    ensure(end >= model.durable.max(start), || {
        format!("ends at {end}, {} were durable", model.durable)
    })?;
    model.delete(start);
    model.maybe_start = start;
    let found = check::batches_of(log, ReadLimit::LogEnd)?;
    compaction::follow_start(model, &found, end, start)?;
    let mut expected = model.batches.iter();
    let mut left = Vec::new();
    for bytes in &found {
        let view = Batch::parse(bytes).map_err(|error| error.to_string())?;
        match expected.next() {
            Some(stored) => ensure(stored.bytes == *bytes, || {
                format!(
                    "another batch at {}..{}, of epoch {}",
                    view.base_offset(),
                    view.next_offset(),
                    view.partition_leader_epoch()
                )
            })?,
            None => {
                let mut failed = model.failed.iter();
                let Some(stored) = failed.find(|stored| check::same_records(&stored.bytes, bytes))
                else {
                    return Err(format!(
                        "a batch at {} that nobody has appended",
                        view.base_offset()
                    ));
                };
                left.push(Stored {
                    bytes: bytes.clone(),
                    ..stored.clone()
                });
            }
        }
    }
    let lost = end < model.end;
    model.truncate(end.min(model.end));
    // Of what has failed only what directly follows.
    let failed = std::mem::take(&mut model.failed);
    for stored in left {
        ensure(stored.base == model.end, || {
            format!("a failed batch at {}", stored.base)
        })?;
        Model::push(model, stored, true)?;
    }
    drop(failed);
    model.restarted();
    let epoch = log.leader_epoch();
    let newest = model.seen.keys().map(|(epoch, _)| *epoch).max();
    ensure(
        epoch >= model.epoch && (clean || Some(epoch) > newest),
        || {
            format!(
                "epoch {epoch} after {} and {newest:?}, clean: {clean}, records lost: {lost}",
                model.epoch
            )
        },
    )?;
    model.epoch = epoch;
    model.end = end;
    model.high_watermark = end;
    model.durable = end;
    Ok(())
}

/// What failed to be appended may be there after a crash all the same.
pub fn may_be_left(model: &mut Model, batches: Vec<Stored>) {
    if batches.first().is_some_and(|first| first.base == model.end) {
        model.failed.extend(batches);
    }
}
