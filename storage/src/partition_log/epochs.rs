//! Leader epochs, in Kafka's `leader-epoch-checkpoint`: for each epoch the first offset under it.
//!
//! A partition starts at epoch 0. An unclean stop may have lost what consumers had read already, so
//! the start after it begins a new epoch at the log's end; it is written, durably, before the first
//! append under it. Epochs and their offsets strictly increase.

use crate::Offset;
use crate::checkpoint::EpochEntry;

/// The leader epochs of one partition. The last one is that of appends, and there always is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LeaderEpochs {
    entries: Vec<EpochEntry>,
    /// The entries differ from the file's.
    unwritten: bool,
}

impl LeaderEpochs {
    /// Of a log whose file says `entries`; without any, epoch 0 began at `log_start_offset`.
    pub fn new(entries: &[EpochEntry], log_start_offset: Offset) -> Self {
        let mut epochs = Self {
            entries: Vec::with_capacity(entries.len()),
            unwritten: false,
        };
        for entry in entries {
            epochs.assign(entry.leader_epoch, entry.start_offset);
        }
        epochs.unwritten = epochs.entries.is_empty();
        if epochs.entries.is_empty() {
            epochs.entries.push(EpochEntry {
                leader_epoch: 0,
                start_offset: log_start_offset,
            });
        }
        epochs
    }

    /// The epoch of appends.
    pub fn current(&self) -> i32 {
        self.entries.last().map_or(0, |entry| entry.leader_epoch)
    }

    /// Epoch `epoch` starts at `start`, if it is newer than all; as in Kafka, epochs that would
    /// start there or later never were.
    pub fn assign(&mut self, epoch: i32, start: Offset) {
        if self
            .entries
            .last()
            .is_some_and(|newest| epoch <= newest.leader_epoch)
            || epoch < 0
        {
            return;
        }
        self.entries.retain(|other| other.start_offset < start);
        self.entries.push(EpochEntry {
            leader_epoch: epoch,
            start_offset: start,
        });
        self.unwritten = true;
    }

    /// A new epoch at `end`.
    pub fn bump(&mut self, end: Offset) {
        self.assign(self.current().saturating_add(1), end);
    }

    /// The log ends at `end` now, and goes on under the same epoch.
    pub fn truncate(&mut self, end: Offset) {
        let current = self.current();
        let before = self.entries.len();
        let moved = self
            .entries
            .last()
            .is_some_and(|entry| entry.start_offset > end);
        self.entries.retain(|entry| entry.start_offset <= end);
        if moved {
            self.entries.retain(|entry| entry.start_offset < end);
            self.entries.push(EpochEntry {
                leader_epoch: current,
                start_offset: end,
            });
        }
        self.unwritten |= moved || self.entries.len() != before;
    }

    /// Whether the file has to be written before the next append.
    pub fn unwritten(&self) -> bool {
        self.unwritten
    }

    /// The file says the same.
    pub fn set_written(&mut self) {
        self.unwritten = false;
    }

    /// Epochs and their first offsets.
    pub fn entries(&self) -> &[EpochEntry] {
        &self.entries
    }

    /// As Kafka's `LeaderEpochFileCache.endOffsetFor`: where the records of the largest epoch `<=
    /// requested` end.
    pub fn end_offset_for(&self, requested: i32, log_end_offset: Offset) -> Option<(i32, Offset)> {
        if requested < 0 {
            return None;
        }
        if requested == self.current() {
            return Some((requested, log_end_offset));
        }
        let higher = self
            .entries
            .partition_point(|entry| entry.leader_epoch <= requested);
        let end = self.entries.get(higher)?.start_offset;
        let floor = higher
            .checked_sub(1)
            .and_then(|index| self.entries.get(index));
        Some((floor.map_or(requested, |entry| entry.leader_epoch), end))
    }
}
