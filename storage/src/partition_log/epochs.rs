//! Leader epochs, in Kafka's `leader-epoch-checkpoint`: for each epoch the first offset under it.
//!
//! A partition starts at epoch 0. An unclean stop may have lost what consumers had read already, so
//! the start after it begins a new epoch at the log's end; it is written, durably, before the first
//! append under it, or at the next clean stop: clients have heard of it. Epochs and their offsets
//! strictly increase.

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

    /// The log begins at `start` now. As in Kafka, the epoch that it lies in begins there, and
    /// earlier ones are forgotten.
    pub fn truncate_start(&mut self, start: Offset) {
        let begun = self
            .entries
            .partition_point(|entry| entry.start_offset <= start);
        let forgotten = begun.saturating_sub(1);
        self.entries.drain(..forgotten);
        self.unwritten |= forgotten > 0;
        if let Some(first) = self.entries.first_mut()
            && first.start_offset < start
        {
            first.start_offset = start;
            self.unwritten = true;
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(leader_epoch: i32, start_offset: Offset) -> EpochEntry {
        EpochEntry {
            leader_epoch,
            start_offset,
        }
    }

    #[test]
    fn ends_of_epochs_are_as_in_kafka() {
        let epochs = LeaderEpochs::new(&[entry(2, 10), entry(4, 20)], 0);
        let end = |requested| epochs.end_offset_for(requested, 30);
        assert_eq!(end(-1), None);
        assert_eq!(end(1), Some((1, 10)), "older than all");
        assert_eq!(end(2), Some((2, 20)));
        assert_eq!(end(3), Some((2, 20)), "unknown, in between");
        assert_eq!(end(4), Some((4, 30)));
        assert_eq!(end(5), None, "newer than all");
    }

    #[test]
    fn an_epoch_without_records_gives_way_to_the_next() {
        let mut epochs = LeaderEpochs::new(&[], 0);
        assert!(epochs.unwritten());
        epochs.set_written();
        epochs.bump(0);
        assert_eq!(epochs.entries(), [entry(1, 0)]);
        assert!(epochs.unwritten());
        epochs.assign(1, 7);
        assert_eq!(epochs.entries(), [entry(1, 0)], "an epoch begins once");
    }

    #[test]
    fn epochs_below_the_logs_start_are_forgotten() {
        let mut epochs = LeaderEpochs::new(&[entry(0, 5), entry(1, 10), entry(2, 20)], 5);
        epochs.set_written();
        epochs.truncate_start(5);
        epochs.truncate_start(3);
        assert!(!epochs.unwritten());
        epochs.truncate_start(12);
        assert_eq!(epochs.entries(), [entry(1, 12), entry(2, 20)]);
        assert!(epochs.unwritten());
        assert_eq!(epochs.end_offset_for(0, 30), Some((0, 12)), "as in Kafka");
        epochs.set_written();
        epochs.truncate_start(20);
        assert_eq!(epochs.entries(), [entry(2, 20)]);
        epochs.truncate_start(30);
        assert_eq!(epochs.entries(), [entry(2, 30)]);
    }

    #[test]
    fn a_cut_keeps_the_current_epoch() {
        let mut epochs = LeaderEpochs::new(&[entry(0, 0), entry(1, 10), entry(2, 20)], 0);
        epochs.set_written();
        epochs.truncate(25);
        assert!(!epochs.unwritten());
        epochs.truncate(20);
        assert_eq!(epochs.entries(), [entry(0, 0), entry(1, 10), entry(2, 20)]);
        epochs.truncate(10);
        assert_eq!(epochs.entries(), [entry(0, 0), entry(2, 10)]);
        assert!(epochs.unwritten());
    }
}
