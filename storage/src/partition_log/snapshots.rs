//! Producer snapshots on disk, and bringing the producers' state back from one.
//!
//! A snapshot `<20 digits>.snapshot` holds the state before the offset that it is named by. One is
//! written at every roll, at every checkpoint and at a clean stop; the newest two are kept. Those of
//! a roll are not synced: a damaged one is found out by its CRC and passed over for an older one,
//! or for a walk over the headers of the whole log.

use std::path::PathBuf;
use std::sync::Arc;

use crate::Offset;
use crate::batch::{Batch, header, layout};
use crate::checkpoint;
use crate::disk::{self, Disk};
use crate::error::{Error, Result};
use crate::producer_state::ProducerState;
use crate::segment::{BatchReader, SNAPSHOT_SUFFIX, Segment, file_name, parse_file_name};

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
}

impl Snapshots {
    /// Those in `dir`.
    pub fn new(disk: Arc<dyn Disk>, dir: PathBuf) -> Self {
        Self { disk, dir }
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

    /// The state before `end`, from the newest sound snapshot and the headers behind it. After an
    /// unclean stop (`unclean_at_ms` is the time now) some log before the snapshot is walked too.
    pub fn restore(
        &self,
        segments: &[Arc<Segment>],
        end: Offset,
        now_ms: i64,
        unclean: bool,
    ) -> Result<ProducerState> {
        let start = segments.first().map_or(0, |segment| segment.base_offset());
        let (snapshot, snapshot_offset) = self.newest(end)?.unwrap_or_default();
        let mut from = snapshot_offset.max(start);
        let recent = |last: i64| now_ms.saturating_sub(last) < LOOK_BACK_MS;
        if unclean && snapshot.last_append_ms().is_some_and(recent) {
            from = look_back(segments, from)?;
        }
        if from >= snapshot_offset {
            let mut producers = snapshot;
            replay(segments, from, end, now_ms, &mut producers)?;
            return Ok(producers);
        }
        let mut producers = ProducerState::new();
        replay(segments, from, end, now_ms, &mut producers)?;
        producers.add_missing(snapshot);
        Ok(producers)
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
        self.remove(offsets.iter().take(old))
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

/// Tells `producers` of the batches from `from` up to `end`.
fn replay(
    segments: &[Arc<Segment>],
    from: Offset,
    end: Offset,
    now_ms: i64,
    producers: &mut ProducerState,
) -> Result<()> {
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
            note(producers, &header, now_ms)?;
            next = segment.seek_from(&mut reader, position + head.size, head.next_offset())?;
        }
    }
    Ok(())
}

fn note(producers: &mut ProducerState, header: &[u8; layout::RECORDS], now_ms: i64) -> Result<()> {
    // The state needs the header's fields only, so the records are left out.
    let mut header = *header;
    let length = (layout::RECORDS - layout::LOG_OVERHEAD) as i32;
    header[layout::BATCH_LENGTH..layout::PARTITION_LEADER_EPOCH]
        .copy_from_slice(&length.to_be_bytes());
    let batch = Batch::parse(&header)?;
    let append_time_ms = match batch.timestamp_type() {
        header::TimestampType::LogAppendTime => batch.max_timestamp(),
        // Unknown. A producer may be kept for too long, but is never forgotten too early.
        header::TimestampType::CreateTime => now_ms,
    };
    producers.update(&batch, batch.base_offset(), append_time_ms);
    Ok(())
}
