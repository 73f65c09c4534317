//! Moving the starts of logs up: because somebody deletes records, or because a log's configuration
//! does not keep them.

use std::sync::Arc;

use super::{Key, LogDir};
use crate::error::Result;
use crate::partition_log::{DeleteTo, Prepared, lock};
use crate::retention::Removal;
use crate::{Offset, PartitionLog};

/// What retention has taken from a log.
#[derive(Clone, Debug)]
pub struct Retained {
    /// The log.
    pub log: Arc<PartitionLog>,
    /// What went, by reason.
    pub removals: Vec<Removal>,
    /// Where the log begins now; or why nothing went.
    pub log_start_offset: Result<Offset>,
}

impl LogDir {
    /// Blocking. Deletes the records of open logs up to where each is told, and returns where each
    /// log begins then, or why nothing was deleted. What is returned is durable. Whole segments are
    /// removed; where a log begins inside of one, that one stays, and readers skip what is below.
    ///
    /// `OffsetOutOfRange` where an offset is negative or above the high watermark.
    pub fn delete_records(&self, wanted: &[(Arc<PartitionLog>, DeleteTo)]) -> Vec<Result<Offset>> {
        let prepared: Vec<Result<Prepared>> = wanted
            .iter()
            .map(|(log, to)| log.prepare_log_start(*to))
            .collect();
        let raised: Vec<(&PartitionLog, Offset)> = wanted
            .iter()
            .zip(&prepared)
            .filter_map(|((log, _), prepared)| {
                let prepared = prepared.as_ref().ok().filter(|prepared| prepared.changes)?;
                Some((log.as_ref(), prepared.log_start_offset))
            })
            .collect();
        // One write for all of them.
        let written = match raised.is_empty() {
            true => Ok(()),
            false => self.write_log_starts(&raised),
        };
        let starts = wanted.iter().zip(prepared).map(|((log, _), prepared)| {
            let prepared = prepared?;
            if prepared.changes {
                written.clone()?;
                self.raise_log_start(log, prepared.log_start_offset)?;
            }
            Ok(prepared.log_start_offset)
        });
        let starts = starts.collect();
        if wanted
            .iter()
            .any(|(log, _)| log.file_delete_delay_ms() == 0)
        {
            self.remove_due_files();
        }
        starts
    }

    /// Blocking. Takes from every open log what its configuration does not keep. Returns the logs
    /// that lost something, or could not.
    pub fn apply_retention(&self) -> Vec<Retained> {
        let logs: Vec<Arc<PartitionLog>> = lock(&self.logs).values().cloned().collect();
        let mut wanted = Vec::new();
        let mut retained = Vec::new();
        for log in logs {
            match log.choose_retention() {
                Ok(choice) => {
                    let Some(start) = choice.log_start_offset else {
                        continue;
                    };
                    wanted.push((Arc::clone(&log), DeleteTo::WholeSegments(start)));
                    retained.push(Retained {
                        log,
                        removals: choice.removals,
                        log_start_offset: Ok(start),
                    });
                }
                Err(error) => retained.push(Retained {
                    log,
                    removals: Vec::new(),
                    log_start_offset: Err(error),
                }),
            }
        }
        let mut starts = self.delete_records(&wanted).into_iter();
        retained.retain_mut(|retained| {
            let Ok(chosen) = retained.log_start_offset else {
                return true;
            };
            match starts.next() {
                // Records have come since, and it begins where it did.
                Some(Ok(start)) if start < chosen => false,
                Some(start) => {
                    retained.log_start_offset = start;
                    true
                }
                None => false,
            }
        });
        retained
    }

    /// Blocking. Removes files that are no log's any more, where they are due and nobody reads them.
    pub fn remove_due_files(&self) {
        self.removals
            .remove_due(self.clock.now_ms(), self.disk.as_ref());
    }

    /// Files are due to be removed.
    pub fn has_due_files(&self) -> bool {
        self.removals.is_due(self.clock.now_ms())
    }

    fn raise_log_start(&self, log: &Arc<PartitionLog>, start: Offset) -> Result<()> {
        let segments = log.raise_log_start(start)?;
        if !segments.is_empty() {
            let due_ms = self.due_ms(log.file_delete_delay_ms());
            self.removals.add_segments(log, segments, due_ms);
        }
        Ok(())
    }

    fn write_log_starts(&self, raised: &[(&PartitionLog, Offset)]) -> Result<()> {
        // A log that was deleted since has nothing to be noted; its raise will find out.
        let logs = lock(&self.logs);
        let starts: Vec<(Key, Offset)> = raised
            .iter()
            .map(|(log, start)| ((log.topic().to_owned(), log.partition()), *start))
            .filter(|(key, _)| logs.contains_key(key))
            .collect();
        let mut checkpoints = lock(&self.checkpoints);
        drop(logs);
        checkpoints.raise_log_starts(self.disk.as_ref(), self.path(), starts)
    }

    pub(super) fn due_ms(&self, delay_ms: u64) -> i64 {
        let delay_ms = i64::try_from(delay_ms).unwrap_or(i64::MAX);
        self.clock.now_ms().saturating_add(delay_ms)
    }
}
