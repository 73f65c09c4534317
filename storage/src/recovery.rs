//! Opening one partition's folder: what a start reads, and what it repairs.
//!
//! After a **clean** stop no log data is read, but for headers. Per partition: the folder's list;
//! the sizes of all files; of the newest segment the last entry of each index, and the batch headers
//! from that entry to the end (about one `index.interval.bytes`); the producer snapshot; the leader
//! epochs; `partition.metadata`.
//!
//! After an **unclean** stop, in addition, everything from the recovery point on: each batch's header
//! and CRC. The first that is damaged ends the log: it and all that follows is cut off, and a
//! warning says where. The indexes of what was scanned are rebuilt; the producers' state is brought
//! back from the newest sound snapshot and the headers behind it; a new leader epoch begins with the
//! first append.
//!
//! Below the recovery point, and after a clean stop altogether, files are trusted. An index that is
//! missing, or whose size or last entry is impossible, is rebuilt from its segment at any start;
//! should batches turn out to be damaged there, which no crash does, the partition is not opened: to
//! cut off what was on the device is for a human to decide.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::checkpoint;
use crate::clock::Clock;
use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::log_dir::OpenLog;
use crate::partition_log::{
    Checkpointed, LeaderEpochs, Offsets, Opened, PartitionLog, Snapshots, SyncQueue, Visibility,
    Writer,
};
use crate::segment::{
    INDEX_SUFFIX, LOG_SUFFIX, Scan, Scanned, Segment, SegmentWriter, TIME_INDEX_SUFFIX, Tail,
    parse_file_name,
};
use crate::{LogConfig, Offset};

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
}

/// What the files of a partition came to.
struct Recovered {
    segments: Vec<Arc<Segment>>,
    tail: Tail,
    end: Offset,
    /// Leader epochs seen while scanning.
    epochs: Vec<(i32, Offset)>,
    /// Files were removed.
    removed: bool,
}

impl Recovery<'_> {
    /// Opens the partition in `dir`, which exists. `created` says that it was made just now.
    pub fn open(&self, dir: PathBuf, log: OpenLog, created: bool) -> Result<PartitionLog> {
        let now_ms = self.clock.now_ms();
        let snapshots = Snapshots::new(Arc::clone(self.disk), dir.clone());
        let bases = self.tidy(&dir)?;
        // After a crash nobody knows whether the files' names are on the device, as their bytes.
        let mut dir_dirty = created || !self.clean;
        let unclean = !self.clean && !created && !bases.is_empty();

        let (writer, segments, seen) = match self.recovered(&dir, &bases, &log.config)? {
            None => {
                dir_dirty = true;
                let base = self.log_start_offset.unwrap_or(0);
                let active = SegmentWriter::create(self.disk, &dir, base, &log.config, now_ms)?;
                let segments = vec![Arc::clone(active.segment())];
                let producers = snapshots.restore(&segments, base, now_ms, false)?;
                let writer = Writer {
                    active,
                    end: base,
                    producers,
                };
                (writer, segments, Vec::new())
            }
            Some(recovered) => {
                dir_dirty |= recovered.removed;
                snapshots.remove_above(recovered.end)?;
                let producers =
                    snapshots.restore(&recovered.segments, recovered.end, now_ms, unclean)?;
                let last = recovered.segments.last().ok_or(Error::Closed)?;
                let active = SegmentWriter::over(Arc::clone(last), recovered.tail, now_ms);
                let writer = Writer {
                    active,
                    end: recovered.end,
                    producers,
                };
                (writer, recovered.segments, recovered.epochs)
            }
        };

        let first = segments.first().map_or(0, |segment| segment.base_offset());
        let log_start_offset = self
            .log_start_offset
            .unwrap_or(first)
            .clamp(first, writer.end);
        let mut epochs = self.epochs(&dir, log_start_offset, writer.end, &seen, unclean)?;
        if created && epochs.unwritten() {
            // Here rather than with the first append, which has somebody waiting.
            checkpoint::write_leader_epochs(self.disk.as_ref(), &dir, epochs.entries())?;
            epochs.set_written();
        }
        let recovery_point = self.recovery_point.unwrap_or(0);
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
        let offsets = Offsets {
            log_start_offset,
            synced_offset,
            last_stable_offset: visible,
            high_watermark: visible,
            log_end_offset: writer.end,
        };
        let checkpointed = Checkpointed {
            recovery_point: match log.visibility {
                Visibility::Ordinary => synced_offset,
                // What lies above may be cut off, and must not be trusted when it has come again.
                Visibility::Derived => recovery_point,
            },
            has_snapshot: self.clean && !created && recovery_point == writer.end,
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

    /// Removes what a crash left half-made, and returns the base offsets of the segments, ascending.
    fn tidy(&self, dir: &Path) -> Result<Vec<Offset>> {
        let paths = self
            .disk
            .list(dir)
            .map_err(|error| Error::io("list", dir, &error))?;
        let mut bases: Vec<Offset> = paths
            .iter()
            .filter_map(|path| parse_file_name(path))
            .filter(|(_, suffix)| *suffix == LOG_SUFFIX)
            .map(|(base, _)| base)
            .collect();
        bases.sort_unstable();
        for path in &paths {
            let name = path
                .file_name()
                .and_then(|name| name.to_str())
                .unwrap_or_default();
            let temporary = [".tmp", ".deleted", ".cleaned", ".swap"]
                .iter()
                .any(|suffix| name.ends_with(suffix));
            let orphan = parse_file_name(path).is_some_and(|(base, suffix)| {
                [INDEX_SUFFIX, TIME_INDEX_SUFFIX].contains(&suffix)
                    && bases.binary_search(&base).is_err()
            });
            if temporary || orphan {
                tracing::warn!(file = %path.display(), "removed a leftover file");
                self.remove(path)?;
            }
        }
        Ok(bases)
    }

    fn remove(&self, path: &Path) -> Result<()> {
        self.disk
            .remove_file(path)
            .map_err(|error| Error::io("remove", path, &error))
    }

    /// What the segments have come to, without those whose records are all deleted. `None` where
    /// no record is left, and the log begins afresh where it is to start.
    fn recovered(
        &self,
        dir: &Path,
        bases: &[Offset],
        config: &LogConfig,
    ) -> Result<Option<Recovered>> {
        let start = self.log_start_offset.unwrap_or(0);
        // First: a crash in the middle of their removal may have left a gap.
        let deleted = bases
            .partition_point(|base| *base <= start)
            .saturating_sub(1);
        let (deleted, bases) = bases.split_at(deleted);
        self.remove_from(dir, deleted, "its records were deleted")?;
        if bases.is_empty() {
            return Ok(None);
        }
        let mut recovered = self.recover(dir, bases, config)?;
        recovered.removed |= !deleted.is_empty();
        if recovered.end < start {
            // Deleted records alone are left, and what followed them is lost. Their offsets are
            // not given again.
            let reason = format!("the log ends at {}, below its start {start}", recovered.end);
            self.remove_from(dir, bases, &reason)?;
            return Ok(None);
        }
        Ok(Some(recovered))
    }

    /// Opens the segments, scans those that need it, and cuts off what is damaged.
    fn recover(&self, dir: &Path, bases: &[Offset], config: &LogConfig) -> Result<Recovered> {
        let mut recovered = Recovered {
            segments: Vec::with_capacity(bases.len()),
            tail: Tail::EMPTY,
            end: bases.first().copied().unwrap_or(0),
            epochs: Vec::new(),
            removed: false,
        };
        let trusted = if self.clean {
            Offset::MAX
        } else {
            self.recovery_point.unwrap_or(0)
        };
        for (index, base) in bases.iter().enumerate() {
            let next_base = bases.get(index + 1).copied();
            // The end of the segment before is only known where it was looked at.
            let known_end = index > 0 && *base > trusted;
            if known_end && *base != recovered.end {
                let found = format!("segment {base} does not follow offset {}", recovered.end);
                self.remove_from(dir, &bases[index..], &found)?;
                recovered.removed = true;
                break;
            }
            let (segment, sound) =
                Segment::open(self.disk, dir, *base, next_base.is_none(), config)?;
            let segment = Arc::new(segment);
            let damage = match next_base {
                Some(next) if sound && next < trusted => {
                    recovered.end = next;
                    None
                }
                _ => self.look_at(&segment, sound, trusted, next_base, config, &mut recovered)?,
            };
            recovered.segments.push(segment);
            if let Some(damage) = damage {
                if next_base.is_some() {
                    self.remove_from(dir, &bases[index + 1..], &damage)?;
                    recovered.removed = true;
                }
                break;
            }
        }
        Ok(recovered)
    }

    /// Finds the end of a segment, from the headers alone where that may be trusted, and cuts off
    /// what is damaged. Returns what the damage was.
    fn look_at(
        &self,
        segment: &Segment,
        sound: bool,
        trusted: Offset,
        next_base: Option<Offset>,
        config: &LogConfig,
        recovered: &mut Recovered,
    ) -> Result<Option<String>> {
        if self.clean && sound {
            match segment.load_tail()? {
                Ok((tail, end)) => {
                    (recovered.tail, recovered.end) = (tail, end);
                    return Ok(None);
                }
                Err(reason) => tracing::warn!(
                    file = %segment.path().display(),
                    reason,
                    "rebuilding the indexes of a segment"
                ),
            }
        }
        let interval = u64::from(config.index_interval_bytes);
        let whole = Scan {
            position: 0,
            next_offset: segment.base_offset(),
            tail: Tail::EMPTY,
            check_crc: next_base.is_none_or(|next| next > trusted) && !self.clean,
            index_interval_bytes: interval,
        };
        let (scan, keep) = match sound && !self.clean {
            true => segment
                .resume_at(trusted, interval)?
                .unwrap_or((whole, (0, 0))),
            false => (whole, (0, 0)),
        };
        let progress = |bytes| {
            self.progress
                .scanned_bytes
                .fetch_add(bytes, Ordering::Relaxed);
        };
        let mut scanned = segment.scan(&scan, progress)?;
        if let Some(damage) = scanned
            .damage
            .as_ref()
            .filter(|_| scanned.next_offset < trusted)
        {
            return Err(segment.corrupt(
                scanned.end_position,
                format!(
                    "{damage}, in what was on the device at the last checkpoint; to have the log \
                     cut off there, remove recovery-point-offset-checkpoint and \
                     .kafka_cleanshutdown from the data folder"
                ),
            ));
        }
        segment.repair(&mut scanned, keep, next_base.is_some())?;
        if !sound || self.clean {
            // Nobody will scan this segment again.
            segment.sync_indexes()?;
        }
        recovered.epochs.append(&mut scanned.epochs);
        (recovered.tail, recovered.end) = (scanned.tail, scanned.next_offset);
        self.cut(segment, &scanned)
    }

    fn cut(&self, segment: &Segment, scanned: &Scanned) -> Result<Option<String>> {
        let Some(damage) = &scanned.damage else {
            return Ok(None);
        };
        let cut_bytes = segment.size() - scanned.end_position;
        tracing::warn!(
            file = %segment.path().display(),
            position = scanned.end_position,
            next_offset = scanned.next_offset,
            cut_bytes,
            reason = damage,
            "cut off the damaged end of a log"
        );
        segment.cut_log(scanned.end_position)?;
        Ok(Some(damage.clone()))
    }

    /// Removes segments before the start, or behind the end, of the log.
    fn remove_from(&self, dir: &Path, bases: &[Offset], reason: &str) -> Result<()> {
        // The newest first, so that a crash leaves no gap.
        for base in bases.iter().rev() {
            for suffix in [LOG_SUFFIX, INDEX_SUFFIX, TIME_INDEX_SUFFIX] {
                let path = dir.join(crate::segment::file_name(*base, suffix));
                match self.disk.remove_file(&path) {
                    Ok(()) => {
                        tracing::warn!(file = %path.display(), reason, "removed a file of no use to the log");
                    }
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                    Err(error) => return Err(Error::io("remove", &path, &error)),
                }
            }
        }
        Ok(())
    }

    fn epochs(
        &self,
        dir: &Path,
        log_start_offset: Offset,
        end: Offset,
        seen: &[(i32, Offset)],
        unclean: bool,
    ) -> Result<LeaderEpochs> {
        let entries = match checkpoint::read_leader_epochs(self.disk.as_ref(), dir) {
            Ok(entries) => entries,
            Err(error @ Error::CorruptFile { .. }) => {
                tracing::warn!(%error, "leader epochs start over from what the log has");
                Vec::new()
            }
            Err(error) => return Err(error),
        };
        let mut epochs = LeaderEpochs::new(&entries, log_start_offset);
        for (epoch, start) in seen {
            epochs.assign(*epoch, *start);
        }
        epochs.truncate(end);
        epochs.truncate_start(log_start_offset);
        if unclean {
            epochs.bump(end);
        }
        Ok(epochs)
    }
}
