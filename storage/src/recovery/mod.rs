//! Opening one partition's folder: what a start reads, and what it repairs.
//!
//! After a **clean** stop no log data is read, but for headers. Per partition: the folder's list;
//! the sizes of all files; of the newest segment the last entry of each index, the batch headers
//! from that entry to the end (about one `index.interval.bytes`), and the header that the last time
//! index entry names; the producer snapshot; the leader epochs; `partition.metadata`.
//!
//! After an **unclean** stop, in addition, everything from the recovery point on: each batch's header
//! and CRC. The first that is damaged ends the log: it and all that follows is cut off, and a
//! warning says where. Where sound batches follow it, what is cut off is first kept, and that is an
//! error in the broker's log: the damaged segment's end as `<20 digits>.log.<position>.cut`, and
//! segments behind it renamed to `<20 digits>.log.0.cut`. No start touches these. The indexes of
//! what was scanned are rebuilt; the producers' state, and the index of aborted
//! transactions, are brought back from the newest sound snapshot at or below the recovery point and the
//! headers behind it; a new leader epoch begins with the first append.
//!
//! Below the recovery point, and after a clean stop altogether, files are trusted: damage there is
//! no crash's. What is met of it at a start, or later by a read, is reported and stepped over (see
//! `segment/damage.rs`); the partition opens, and what is sound is served. Where nothing sound
//! follows it the log ends there: what is cut off is kept, and a new leader epoch begins, because
//! the offsets behind have been given out.
//!
//! A segment that compaction was about to put in the place of others (`.log.swap`) gets there at any
//! start (see `partition_log/replace.rs`). Offsets may be missing in a log that is compacted, or was once.
//!
//! An index that is missing, or whose size or last entry is impossible, is rebuilt from its segment
//! at any start.

mod epochs;
mod folder;
mod segments;
mod swaps;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use self::epochs::History;
use crate::Offset;
use crate::checkpoint;
use crate::clock::Clock;
use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::log_dir::OpenLog;
use crate::partition_log::{
    Checkpointed, Offsets, Opened, PartitionLog, Restore, Snapshots, SyncQueue, Visibility, Writer,
};
use crate::segment::SegmentWriter;

/// How far the recovery of a data folder has come.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// Bytes of log scanned.
    pub scanned_bytes: AtomicU64,
    /// Partitions opened.
    pub opened_logs: AtomicUsize,
}

/// What opening a partition needs to know.
pub(crate) struct Recovery<'a> {
    pub disk: &'a Arc<dyn Disk>,
    pub clock: &'a Clock,
    pub queue: &'a Arc<SyncQueue>,
    pub progress: &'a Progress,
    /// The last stop was clean.
    pub clean: bool,
    /// From the data folder's checkpoint.
    pub recovery_point: Option<Offset>,
    /// From the data folder's checkpoint.
    pub log_start_offset: Option<Offset>,
    /// That checkpoint was lost, and says nothing of anybody.
    pub log_starts_lost: bool,
    /// Compaction has been at the log.
    pub was_compacted: bool,
}

impl Recovery<'_> {
    /// Opens the partition in `dir`, which exists. `created` says that it was made just now.
    pub fn open(mut self, dir: PathBuf, log: OpenLog, created: bool) -> Result<PartitionLog> {
        let now_ms = self.clock.now_ms();
        let recovery_point = self.recovery_point.unwrap_or(0);
        let snapshots = Snapshots::new(Arc::clone(self.disk), dir.clone(), recovery_point);
        if log.config.compact && !self.clean && !created {
            self.sync_closed(&dir)?;
        }
        let bases = self.tidy(&dir)?;
        self.log_start_offset = self.start_of(&dir)?;
        // After a crash nobody knows whether the files' names are on the device, as their bytes.
        let mut dir_dirty = created || !self.clean;
        let unclean = !self.clean && !created && !bases.is_empty();

        self.was_compacted |= log.config.compact;
        let mut _looked_at = None;
        let (writer, segments, seen, lost) = match self.recovered(&dir, &bases, &log.config)? {
            None => {
                dir_dirty = true;
                let base = self.log_start_offset.unwrap_or(0);
                let active = SegmentWriter::create(self.disk, &dir, base, &log.config, now_ms)?;
                let segments = vec![Arc::clone(active.segment())];
                let producers = snapshots.restore_at_start(Restore {
                    segments: &segments,
                    end: base,
                    now_ms,
                    unclean_from: None,
                })?;
                let writer = Writer {
                    active,
                    end: base,
                    producers,
                };
                // The offsets of a log that is gone have been given out.
                let lost = self.recovery_point.is_some_and(|point| point > base);
                (writer, segments, Vec::new(), lost)
            }
            Some(recovered) => {
                _looked_at = recovered.looked_at;
                dir_dirty |= recovered.removed;
                if snapshots.remove_above(recovered.end)? {
                    self.disk
                        .sync_dir(&dir)
                        .map_err(|error| Error::io("sync", &dir, &error))?;
                }
                let producers = snapshots.restore_at_start(Restore {
                    segments: &recovered.segments,
                    end: recovered.end,
                    now_ms,
                    unclean_from: unclean.then_some(recovery_point),
                })?;
                let last = recovered.segments.last().ok_or(Error::Closed)?;
                let active = SegmentWriter::over(Arc::clone(last), recovered.tail, now_ms);
                let writer = Writer {
                    active,
                    end: recovered.end,
                    producers,
                };
                (writer, recovered.segments, recovered.epochs, recovered.lost)
            }
        };

        let first = segments.first().map_or(0, |segment| segment.base_offset());
        let known = self.known_epochs(&dir, &segments, writer.end)?;
        let log_start_offset = self
            .log_start_offset
            .unwrap_or(first)
            .clamp(first, writer.end);
        let lost = !created && (lost || recovery_point > writer.end);
        let history = History {
            known,
            seen,
            log_start_offset,
            end: writer.end,
            begins_another: unclean || lost,
        };
        let mut epochs = self.epochs(&segments, history)?;
        if created && epochs.unwritten() {
            // Here rather than with the first append, which has somebody waiting.
            checkpoint::write_leader_epochs(self.disk.as_ref(), &dir, epochs.entries())?;
            epochs.set_written();
        }
        if recovery_point > writer.end {
            tracing::error!(
                topic = log.topic,
                partition = log.partition,
                log_end_offset = writer.end,
                recovery_point,
                "the log ends before its recovery point: records that were synced are gone"
            );
        }
        let recovery_point = recovery_point.clamp(first, writer.end);
        let synced_offset = if unclean { recovery_point } else { writer.end };
        let visible = match log.visibility {
            Visibility::Ordinary => {
                segments.iter().for_each(|segment| segment.publish());
                writer.end
            }
            Visibility::Derived => log_start_offset,
        };
        // An open transaction's first records may have been deleted.
        let first_open = writer.producers.first_open_transaction();
        let stable = first_open.map_or(visible, |first| first.clamp(log_start_offset, visible));
        let offsets = Offsets {
            log_start_offset,
            synced_offset,
            last_stable_offset: stable,
            high_watermark: visible,
            log_end_offset: writer.end,
        };
        let checkpointed = Checkpointed {
            recovery_point: match log.visibility {
                Visibility::Ordinary => synced_offset,
                // What lies above may be cut off, and must not be trusted when it has come again.
                Visibility::Derived => recovery_point,
            },
            has_snapshot: self.clean && !created && !lost && recovery_point == writer.end,
        };
        let opened = Opened {
            topic: log.topic,
            partition: log.partition,
            dir,
            disk: Arc::clone(self.disk),
            clock: self.clock.clone(),
            visibility: log.visibility,
            offsets,
            segments,
            dir_dirty,
            queue: Arc::clone(self.queue),
        };
        self.progress.opened_logs.fetch_add(1, Ordering::Relaxed);
        Ok(PartitionLog::new(
            opened,
            log.config,
            writer,
            epochs,
            checkpointed,
        ))
    }
}
