//! Producer snapshots on disk, and bringing the producers' state back from one.
//!
//! A snapshot `<20 digits>.snapshot` holds the state before the offset that it is named by. One is
//! written at every roll, at every checkpoint and at a clean stop; the newest two are kept, and the
//! newest at or below the recovery point. Those of a roll are not synced: a damaged one is found out by
//! its CRC and passed over for an older one, or for a walk over the headers of the whole log.
//!
//! The walk finds the transactions that were aborted, too. After an unclean stop their indexes are
//! trusted below the recovery point only, so the walk begins there at the latest.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use crate::Offset;
use crate::batch::{Batch, ControlRecord, TransactionResult, header, layout};
use crate::checkpoint;
use crate::disk::{self, Disk};
use crate::error::{Error, Result};
use crate::producer_state::{AbortedTransaction, ProducerState};
use crate::segment::{BatchReader, Follows, SNAPSHOT_SUFFIX, Segment, file_name, parse_file_name};

/// How many snapshots stay.
const KEPT: usize = 2;
/// After an unclean stop, how much log before the snapshot is looked at again: a snapshot has only
/// the last batch of each producer, and clients may repeat any of the last five.
const LOOK_BACK_BYTES: u64 = 4 << 20;
/// How long clients may repeat a batch, generously: their delivery timeouts are 2 to 5 minutes.
const LOOK_BACK_MS: i64 = 15 * 60 * 1000;

/// The snapshots in one partition's folder.
#[derive(Debug)]
pub(crate) struct Snapshots {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    recovery_point: AtomicI64,
}

/// What producers are restored for, and from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Restore<'a> {
    /// The log's.
    pub segments: &'a [Arc<Segment>],
    /// Where the state is wanted.
    pub end: Offset,
    /// The time.
    pub now_ms: i64,
    /// The last stop was unclean, and this was its recovery point.
    pub unclean_from: Option<Offset>,
}

impl Snapshots {
    /// Those in `dir`.
    pub fn new(disk: Arc<dyn Disk>, dir: PathBuf, recovery_point: Offset) -> Self {
        Self {
            disk,
            dir,
            recovery_point: AtomicI64::new(recovery_point),
        }
    }

    /// Writes the state before `offset` to the page cache.
    pub fn write(&self, offset: Offset, producers: &ProducerState) -> Result<()> {
        let path = self.path(offset);
        let file = self
            .disk
            .open(&path, true)
            .map_err(|error| Error::io("open", &path, &error))?;
        let written = file
            .set_len(0)
            .and_then(|()| disk::write_all_at(file.as_ref(), &[&producers.encode_snapshot()], 0));
        if let Err(error) = written {
            // Part of one is no use; if it stays, its CRC tells.
            let _ = self.disk.remove_file(&path);
            return Err(Error::io("write", &path, &error));
        }
        self.prune()
    }

    /// Writes the state before `offset` to the device.
    pub fn write_durably(&self, offset: Offset, snapshot: &[u8]) -> Result<()> {
        checkpoint::write_file(self.disk.as_ref(), &self.path(offset), snapshot)?;
        self.recovery_point.store(offset, Ordering::Relaxed);
        self.prune()
    }

    /// Removes what says something about offsets above `end`; true where there was something. The
    /// caller syncs the folder then: one that comes back would speak of another history.
    pub fn remove_above(&self, end: Offset) -> Result<bool> {
        let mut offsets = self.offsets()?;
        offsets.retain(|offset| *offset > end);
        self.remove(offsets.iter())?;
        Ok(!offsets.is_empty())
    }

    /// The state before an offset, from a sound snapshot and the headers behind it. After an unclean
    /// stop some log before the snapshot is walked too, for the last batches of each producer.
    /// `aborted` is told of the transactions that are aborted in what is walked behind the snapshot.
    pub fn restore(
        &self,
        what: Restore<'_>,
        mut aborted: impl FnMut(&Segment, &AbortedTransaction) -> Result<()>,
    ) -> Result<ProducerState> {
        let Restore { segments, end, .. } = what;
        let newest = what.unclean_from.unwrap_or(end).min(end);
        let (mut producers, from) = self.begin(segments, newest)?;
        let recent = |last: i64| what.now_ms.saturating_sub(last) < LOOK_BACK_MS;
        if what.unclean_from.is_some() && producers.last_append_ms().is_some_and(recent) {
            let mut earlier = ProducerState::new();
            let walk = Walk {
                segments,
                from: look_back(segments, from)?,
                end: from,
                now_ms: what.now_ms,
            };
            walk.replay(&mut earlier, |_, _| Ok(()))?;
            producers.take_batches(earlier);
        }
        let walk = Walk {
            segments,
            from,
            end,
            now_ms: what.now_ms,
        };
        walk.replay(&mut producers, &mut aborted)?;
        if newest < end {
            // All that a producer has appended may be deleted.
            producers.add_missing(self.begin(segments, end)?.0);
        }
        Ok(producers)
    }

    /// As [`Snapshots::restore`] at a start, before there are readers: makes the indexes of aborted
    /// transactions say what the log does.
    pub fn restore_at_start(&self, what: Restore<'_>) -> Result<ProducerState> {
        // The walk that brings the state back finds those behind.
        let from = match what.unclean_from {
            None => what.end,
            Some(point) => self.begin(what.segments, point.min(what.end))?.1,
        };
        let kept = kept_aborted(what, from)?;
        let mut found: BTreeMap<Offset, Vec<AbortedTransaction>> = BTreeMap::new();
        let mut note = |segment: &Segment, aborted: &AbortedTransaction| {
            let found = found.entry(segment.base_offset()).or_default();
            found.push(*aborted);
            Ok(())
        };
        let producers = match (&kept, what.unclean_from) {
            (Some(_), Some(_)) => self.restore(what, note)?,
            // They have all there are, whatever is walked for the state.
            (Some(_), None) => return self.restore(what, |_, _| Ok(())),
            (None, _) => {
                let dir = self.dir.display();
                tracing::warn!(%dir, "rebuilding a damaged index of aborted transactions");
                let walk = Walk {
                    segments: what.segments,
                    from: 0,
                    end: what.end,
                    now_ms: what.now_ms,
                };
                walk.replay(&mut ProducerState::new(), &mut note)?;
                self.restore(what, |_, _| Ok(()))?
            }
        };
        for (at, segment) in what.segments.iter().enumerate() {
            let found = found.remove(&segment.base_offset()).unwrap_or_default();
            let keep = kept.as_ref().and_then(|kept| kept.get(at));
            let keep = keep.copied().unwrap_or_default();
            // The next start takes what is below the recovery point for granted.
            let point = what.unclean_from.unwrap_or(Offset::MAX);
            segment.replace_aborted(keep, &found, segment.base_offset() < point)?;
        }
        Ok(producers)
    }

    /// Where a walk begins that brings the state back, from a snapshot at or below `end`, and the state
    /// there.
    fn begin(&self, segments: &[Arc<Segment>], end: Offset) -> Result<(ProducerState, Offset)> {
        let start = segments.first().map_or(0, |segment| segment.base_offset());
        let newest = self.newest(end)?;
        // What came after an older one is deleted: transactions may have ended there, and producers have
        // gone on.
        let newest = newest.filter(|(_, offset)| *offset >= start);
        Ok(newest.unwrap_or((ProducerState::new(), start)))
    }

    /// The newest sound snapshot at or below `end`.
    fn newest(&self, end: Offset) -> Result<Option<(ProducerState, Offset)>> {
        for offset in self
            .offsets()?
            .into_iter()
            .rev()
            .filter(|offset| *offset <= end)
        {
            let path = self.path(offset);
            let Some(bytes) = checkpoint::read_file(self.disk.as_ref(), &path)? else {
                continue;
            };
            match ProducerState::decode_snapshot(&path, &bytes) {
                Ok(producers) => return Ok(Some((producers, offset))),
                Err(error) => tracing::warn!(%error, "passed over a damaged producer snapshot"),
            }
        }
        Ok(None)
    }

    fn prune(&self) -> Result<()> {
        let offsets = self.offsets()?;
        let old = offsets.len().saturating_sub(KEPT);
        let recovery_point = self.recovery_point.load(Ordering::Relaxed);
        let needed = offsets.partition_point(|offset| *offset <= recovery_point);
        let needed = needed.checked_sub(1).and_then(|at| offsets.get(at));
        let old = offsets.iter().take(old);
        self.remove(old.filter(|offset| Some(*offset) != needed))
    }

    fn remove<'a>(&self, offsets: impl Iterator<Item = &'a Offset>) -> Result<()> {
        for offset in offsets {
            let path = self.path(*offset);
            match self.disk.remove_file(&path) {
                Ok(()) => {}
                // A roll and a checkpoint may both prune.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(Error::io("remove", &path, &error)),
            }
        }
        Ok(())
    }

    /// The offsets that there are snapshots for, ascending.
    fn offsets(&self) -> Result<Vec<Offset>> {
        let paths = self
            .disk
            .list(&self.dir)
            .map_err(|error| Error::io("list", &self.dir, &error))?;
        let mut offsets: Vec<Offset> = paths
            .iter()
            .filter_map(|path| parse_file_name(path))
            .filter(|(_, suffix)| *suffix == SNAPSHOT_SUFFIX)
            .map(|(offset, _)| offset)
            .collect();
        offsets.sort_unstable();
        Ok(offsets)
    }

    fn path(&self, offset: Offset) -> PathBuf {
        self.dir.join(file_name(offset, SNAPSHOT_SUFFIX))
    }
}

/// An offset about [`LOOK_BACK_BYTES`] of log before `from`.
fn look_back(segments: &[Arc<Segment>], from: Offset) -> Result<Offset> {
    let mut bytes = LOOK_BACK_BYTES;
    let mut offset = from;
    for segment in segments
        .iter()
        .rev()
        .filter(|segment| segment.base_offset() < from)
    {
        let size = segment.position_of(from)?;
        if size > bytes {
            return segment.offset_before(size - bytes);
        }
        bytes -= size;
        offset = segment.base_offset();
    }
    Ok(offset)
}

/// How many entries of each index of aborted transactions have markers below `from`, which is where the
/// log ends or what is on the device; `None` where one is damaged.
fn kept_aborted(what: Restore<'_>, from: Offset) -> Result<Option<Vec<u64>>> {
    let mut kept = Vec::with_capacity(what.segments.len());
    for (at, segment) in what.segments.iter().enumerate() {
        let next = what.segments.get(at + 1);
        let end = next.map_or(what.end, |next| next.base_offset());
        let sound = segment.sound_aborted(from.min(end))?;
        let is_whole = match sound.follows {
            Follows::Nothing => true,
            // All of them should be below.
            _ if end <= from => false,
            Follows::Later => true,
            // A crash may have left that, if no entry that was on the device is missing.
            Follows::Garbage => {
                let walk = Walk {
                    segments: what.segments,
                    from: sound.last.map_or(segment.base_offset(), |last| last + 1),
                    end: from,
                    now_ms: what.now_ms,
                };
                !walk.meets_abort()?
            }
        };
        if !is_whole {
            return Ok(None);
        }
        kept.push(sound.count);
    }
    Ok(Some(kept))
}

/// The batches that a state is told of.
struct Walk<'a> {
    segments: &'a [Arc<Segment>],
    from: Offset,
    end: Offset,
    now_ms: i64,
}

impl Walk<'_> {
    fn replay(
        &self,
        producers: &mut ProducerState,
        mut aborted: impl FnMut(&Segment, &AbortedTransaction) -> Result<()>,
    ) -> Result<()> {
        self.each(|segment, batch| {
            let append_time_ms = match batch.timestamp_type() {
                header::TimestampType::LogAppendTime => batch.max_timestamp(),
                // Unknown. A producer may be kept for too long, but is never forgotten too early.
                header::TimestampType::CreateTime => self.now_ms,
            };
            match producers.update(batch, batch.base_offset(), append_time_ms) {
                Some(ended) => aborted(segment, &ended),
                None => Ok(()),
            }
        })
    }

    /// A transaction was aborted here, or what nobody knows of was.
    fn meets_abort(&self) -> Result<bool> {
        let mut meets = false;
        self.each(|_, batch| {
            meets |= batch.is_control()
                && match ControlRecord::of(batch) {
                    Ok(ControlRecord::End { result, .. }) => result == TransactionResult::Abort,
                    Ok(_) => false,
                    Err(_) => true,
                };
            Ok(())
        })?;
        Ok(meets)
    }

    /// Goes over the batches in their order. Of others than control batches the header alone is there.
    fn each(&self, mut each: impl FnMut(&Segment, &Batch<'_>) -> Result<()>) -> Result<()> {
        let (segments, from, end) = (self.segments, self.from, self.end);
        let after = segments.partition_point(|segment| segment.base_offset() <= from);
        for segment in segments.iter().skip(after.saturating_sub(1)) {
            if segment.base_offset() >= end {
                break;
            }
            let mut reader = BatchReader::heads(segment);
            let mut next = segment.seek(from)?;
            while let Some((position, head)) = next.filter(|(_, head)| head.base_offset < end) {
                let header = reader.head(position)?;
                let (_, header) = header.map_err(|reason| segment.corrupt(position, reason))?;
                let alone = header_alone(&header);
                let batch = Batch::parse(&alone)?;
                let records = match batch.is_control() {
                    true => reader.records(position, &head)?,
                    false => &[],
                };
                if records.is_empty() {
                    each(segment, &batch)?;
                } else {
                    each(segment, &Batch::parse(&[&header, records].concat())?)?;
                }
                next = segment.seek_from(&mut reader, position + head.size, head.next_offset())?;
            }
        }
        Ok(())
    }
}

/// A batch that has no records, of a header.
fn header_alone(header: &[u8; layout::RECORDS]) -> [u8; layout::RECORDS] {
    let mut header = *header;
    let length = (layout::RECORDS - layout::LOG_OVERHEAD) as i32;
    header[layout::BATCH_LENGTH..layout::PARTITION_LEADER_EPOCH]
        .copy_from_slice(&length.to_be_bytes());
    header
}
