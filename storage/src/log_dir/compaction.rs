//! Compacting the log that needs it most.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use super::{Key, LogDir};
use crate::PartitionLog;
use crate::compaction::{Choice, CompactionStats, Compactor};
use crate::error::{Error, Result};
use crate::partition_log::lock;

/// How long a log is left alone after a pass has failed for a reason that may pass.
const RETRY_AFTER_MS: i64 = 60_000;

/// A pass over a log.
#[derive(Debug)]
pub struct Compacted {
    /// The log.
    pub log: Arc<PartitionLog>,
    /// What it has come to, or why it has not. What is damaged is not tried again until the process
    /// is restarted, anything else after a while.
    pub outcome: Result<CompactionStats>,
}

/// Logs that are not chosen.
#[derive(Debug, Default)]
pub(super) struct Passes {
    excluded: Mutex<BTreeMap<Key, Excluded>>,
}

#[derive(Clone, Debug)]
enum Excluded {
    /// Somebody is at it.
    Running,
    /// Nothing could be done, or a pass has failed for some reason.
    Until {
        retry_at_ms: i64,
        failure: Option<String>,
    },
}

impl LogDir {
    /// Blocking. Compacts the log that needs it most, of those that nobody is at. `None` where none
    /// needs it, or where `compactor` was told to stop.
    pub fn compact_next(&self, compactor: &mut Compactor) -> Option<Compacted> {
        loop {
            if compactor.is_stopped() || self.stopped.load(Ordering::Acquire) {
                return None;
            }
            let (key, log, choice) = self.most_in_need()?;
            let outcome = match choice {
                Ok(choice) => self.compact(&key, &log, choice, compactor),
                Err(error) => Err(error),
            };
            // Its files are not where they were.
            let outcome = outcome.or_else(|error| log.check_exists().and(Err(error)));
            self.release(key, &outcome);
            match outcome {
                // Deleted or changed meanwhile, or told to stop.
                Err(Error::Closed) => {}
                Ok(stats) if stats.end_offset <= stats.first_dirty_offset => {}
                outcome => return Some(Compacted { log, outcome }),
            }
        }
    }

    /// The partitions that are not compacted, with the reason why, until a time that is to come.
    pub fn uncleanable_partitions(&self) -> Vec<(String, i32, String)> {
        let now_ms = self.clock.now_ms();
        let excluded = lock(&self.passes.excluded);
        let failed = excluded.iter().filter_map(|(key, why)| match why {
            Excluded::Until {
                retry_at_ms,
                failure: Some(failure),
            } if *retry_at_ms > now_ms => Some((key.0.clone(), key.1, failure.clone())),
            _ => None,
        });
        failed.collect()
    }

    /// The log that needs compaction most, which is the caller's until it is released.
    fn most_in_need(&self) -> Option<(Key, Arc<PartitionLog>, Result<Choice>)> {
        let now_ms = self.clock.now_ms();
        let logs = self.open_now();
        let mut excluded = lock(&self.passes.excluded);
        excluded.retain(|_, why| match why {
            Excluded::Running => true,
            Excluded::Until { retry_at_ms, .. } => *retry_at_ms > now_ms,
        });
        let mut best: Option<(Key, Arc<PartitionLog>, Result<Choice>)> = None;
        for (key, log) in logs {
            if excluded.contains_key(&key) {
                continue;
            }
            let first_dirty = {
                let checkpoints = lock(&self.checkpoints);
                checkpoints.first_dirty_offsets.get(&key).copied()
            };
            let choice = match log.choose_compaction(first_dirty) {
                Ok(None) => continue,
                Ok(Some(choice)) => choice,
                Err(error) => {
                    best = Some((key, log, Err(error)));
                    break;
                }
            };
            let needs_more = match &best {
                Some((_, _, Ok(before))) => choice.cmp_need(before).is_gt(),
                _ => true,
            };
            if needs_more {
                best = Some((key, log, Ok(choice)));
            }
        }
        if let Some((key, _, _)) = &best {
            excluded.insert(key.clone(), Excluded::Running);
        }
        best
    }

    fn release(&self, key: Key, outcome: &Result<CompactionStats>) {
        let later = self.clock.now_ms().saturating_add(RETRY_AFTER_MS);
        let retry_at_ms = match outcome {
            // It begins with a transaction of which the end is not known, say.
            Ok(stats) if stats.end_offset <= stats.first_dirty_offset => Some(later),
            Ok(_) | Err(Error::Closed) => None,
            Err(Error::Io { .. }) => Some(later),
            Err(_) => Some(i64::MAX),
        };
        let mut excluded = lock(&self.passes.excluded);
        match retry_at_ms {
            None => excluded.remove(&key),
            Some(retry_at_ms) => excluded.insert(
                key,
                Excluded::Until {
                    retry_at_ms,
                    failure: outcome.as_ref().err().map(Error::to_string),
                },
            ),
        };
    }

    fn compact(
        &self,
        key: &Key,
        log: &Arc<PartitionLog>,
        mut choice: Choice,
        compactor: &mut Compactor,
    ) -> Result<CompactionStats> {
        // A start scans what lies above the recovery point, and takes missing offsets there for lost.
        let recovery_point = log.checkpoint()?;
        choice.end_offset = choice.end_offset.min(recovery_point);
        if choice.end_offset <= choice.first_dirty_offset {
            return Ok(CompactionStats {
                first_dirty_offset: choice.first_dirty_offset,
                end_offset: choice.first_dirty_offset,
                ..CompactionStats::default()
            });
        }
        self.note(key.clone(), log, recovery_point);
        self.write_checkpoints()?;
        // First: it also says that offsets may be missing.
        self.set_first_dirty(key, log, choice.first_dirty_offset)?;
        let due_ms = self.due_ms(log.file_delete_delay_ms());
        let stats = compactor.run(log, &choice, |replaced| {
            self.removals.add_segments(log, replaced, due_ms);
        });
        if log.file_delete_delay_ms() == 0 {
            self.remove_due_files();
        }
        let stats = stats?;
        self.set_first_dirty(key, log, stats.end_offset)?;
        Ok(stats)
    }

    fn set_first_dirty(
        &self,
        key: &Key,
        log: &Arc<PartitionLog>,
        offset: crate::Offset,
    ) -> Result<()> {
        // A log that was deleted since has nothing to be noted.
        let logs = lock(&self.logs);
        if !logs.get(key).is_some_and(|open| Arc::ptr_eq(open, log)) {
            return Err(Error::Closed);
        }
        let mut checkpoints = lock(&self.checkpoints);
        drop(logs);
        checkpoints.set_first_dirty(self.disk.as_ref(), self.path(), key, offset)
    }
}
