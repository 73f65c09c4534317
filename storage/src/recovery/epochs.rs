//! A partition's leader epochs at a start.
//!
//! The file has no checksum, so its newest entries are compared with the log: the batch at an
//! entry's offset has its epoch, the one before an older one, and the newest batch has none that is
//! newer. A file that is lost, or says something else than the log, is made up for by the headers of
//! all batches, and a new epoch begins: clients may have heard of one that nothing was appended
//! under.

use std::path::Path;
use std::sync::Arc;

use super::Recovery;
use crate::Offset;
use crate::checkpoint::{self, EpochEntry};
use crate::error::{Error, Result};
use crate::partition_log::LeaderEpochs;
use crate::segment::{BatchHead, Segment};

/// Entries that are compared with the log at a start, from the newest on.
const COMPARED_ENTRIES: usize = 4;

/// What the epochs of a log are made of.
pub(super) struct History {
    /// What the file says; `None` where it says nothing that can be believed.
    pub known: Option<Vec<EpochEntry>>,
    /// Epochs and their first offsets, as a scan has met them.
    pub seen: Vec<(i32, Offset)>,
    pub log_start_offset: Offset,
    pub end: Offset,
    /// A new epoch begins at the end.
    pub begins_another: bool,
}

impl Recovery<'_> {
    /// What the file says of the log that ends at `end`; `None` where that can't be believed.
    pub(super) fn known_epochs(
        &self,
        dir: &Path,
        segments: &[Arc<Segment>],
        end: Offset,
    ) -> Result<Option<Vec<EpochEntry>>> {
        let is_empty = segments.iter().all(|segment| segment.size() == 0);
        let entries = match checkpoint::read_leader_epochs(self.disk.as_ref(), dir) {
            Ok(entries) => entries,
            Err(error @ Error::CorruptFile { .. }) => {
                tracing::warn!(%error, "leader epochs start over from what the log has");
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let wrong = match (entries.is_empty(), is_empty) {
            (true, true) => return Ok(Some(entries)),
            (true, false) => Some("there are none".to_owned()),
            (false, _) if self.was_compacted => None,
            (false, _) => wrong(&entries, segments, self.log_start_offset.unwrap_or(0), end)?,
        };
        let Some(reason) = wrong else {
            return Ok(Some(entries));
        };
        let dir = dir.display();
        tracing::warn!(%dir, reason, "leader epochs start over from what the log has");
        Ok(None)
    }

    /// Where the log begins, by its own checkpoint and by the first epoch, which moves with it.
    ///
    /// Where that checkpoint is lost, records that were deleted are not seen again. And after a
    /// clean stop both say the same: should the checkpoint have the log begin later, it is not
    /// believed, because what is below would be removed.
    pub(super) fn start_of(&self, dir: &Path) -> Result<Option<Offset>> {
        let entries = match checkpoint::read_leader_epochs(self.disk.as_ref(), dir) {
            // It says so where the epochs are looked at.
            Err(Error::CorruptFile { .. }) => Vec::new(),
            read => read?,
        };
        let first = entries.first().map(|entry| entry.start_offset);
        match (self.log_start_offset, first) {
            (None, Some(first)) if self.log_starts_lost => Ok(Some(first)),
            (Some(start), Some(first)) if self.clean && first < start => {
                let dir = dir.display();
                tracing::error!(
                    %dir,
                    log_start_offset = start,
                    first_epoch_starts_at = first,
                    "log-start-offset-checkpoint is not what was written at the last stop"
                );
                Ok(Some(first))
            }
            (start, _) => Ok(start),
        }
    }

    /// The epochs of a log.
    pub(super) fn epochs(
        &self,
        segments: &[Arc<Segment>],
        history: History,
    ) -> Result<LeaderEpochs> {
        let is_lost = history.known.is_none();
        let (known, seen) = match history.known {
            Some(known) => (known, history.seen),
            None => (Vec::new(), all(segments, history.end)?),
        };
        let mut epochs = LeaderEpochs::new(&known, history.log_start_offset);
        for (epoch, start) in seen {
            epochs.assign(epoch, start);
        }
        epochs.truncate(history.end);
        epochs.truncate_start(history.log_start_offset);
        if history.begins_another || is_lost {
            epochs.bump(history.end);
        }
        Ok(epochs)
    }
}

/// Where entries and log differ. What lies below `log_start_offset` has no entries any more.
fn wrong(
    entries: &[EpochEntry],
    segments: &[Arc<Segment>],
    log_start_offset: Offset,
    end: Offset,
) -> Result<Option<String>> {
    let start = segments.first().map_or(0, |first| first.base_offset());
    let within = start..end;
    let inside = || {
        entries
            .iter()
            .enumerate()
            .rev()
            .filter(|(_, e)| e.start_offset < end)
    };
    for (index, entry) in inside().take(COMPARED_ENTRIES) {
        let EpochEntry {
            leader_epoch,
            start_offset,
        } = *entry;
        let differs = |head: &BatchHead| {
            let (found, offset) = (head.leader_epoch, head.base_offset);
            Some(format!(
                "epoch {leader_epoch} at {start_offset}, the log has {found} at {offset}"
            ))
        };
        if within.contains(&start_offset)
            && let Some(head) = batch_at(segments, start_offset)?
            && head.leader_epoch != leader_epoch
        {
            return Ok(differs(&head));
        }
        // The first entry begins with the log.
        if index > 0
            && within.contains(&(start_offset - 1))
            && let Some(head) = batch_at(segments, start_offset - 1)?
            && head.leader_epoch >= leader_epoch
        {
            return Ok(differs(&head));
        }
    }
    if end <= log_start_offset {
        return Ok(None);
    }
    let newest = inside().next().map_or(-1, |(_, entry)| entry.leader_epoch);
    Ok(batch_at(segments, end - 1)?
        .filter(|head| head.leader_epoch > newest)
        .map(|head| {
            format!(
                "epoch {newest} is the last, the log has {}",
                head.leader_epoch
            )
        }))
}

/// The batch that has `offset`, unless it is lost or from before there were epochs.
fn batch_at(segments: &[Arc<Segment>], offset: Offset) -> Result<Option<BatchHead>> {
    let after = segments.partition_point(|segment| segment.base_offset() <= offset);
    let Some(segment) = after.checked_sub(1).and_then(|at| segments.get(at)) else {
        return Ok(None);
    };
    let found = segment.seek(offset)?;
    Ok(found
        .map(|(_, head)| head)
        .filter(|head| head.base_offset <= offset && head.leader_epoch >= 0))
}

/// Blocking. The epochs of all batches, and where each begins.
fn all(segments: &[Arc<Segment>], end: Offset) -> Result<Vec<(i32, Offset)>> {
    let mut epochs: Vec<(i32, Offset)> = Vec::new();
    for segment in segments
        .iter()
        .filter(|segment| segment.base_offset() < end)
    {
        for (epoch, start) in segment.epochs()? {
            if epochs.last().is_none_or(|(last, _)| *last < epoch) {
                epochs.push((epoch, start));
            }
        }
    }
    Ok(epochs)
}
