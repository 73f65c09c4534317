//! What compaction has to leave in a log so that its producers can be learnt from it.

use std::collections::HashMap;

use super::ProducerState;
use crate::Offset;

/// The last of one producer, whose batch has to stay: its header at least.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LastRecord {
    /// Its last record's offset, for the last sequence; `None` where only a marker is known.
    pub last_data_offset: Option<Offset>,
    /// Its epoch, which a marker may have raised.
    pub producer_epoch: i16,
}

impl ProducerState {
    /// The last of each producer, by id.
    pub(crate) fn last_records(&self) -> HashMap<i64, LastRecord> {
        let last = |producer: &super::Producer| LastRecord {
            last_data_offset: producer.last().map(|batch| batch.last_offset),
            producer_epoch: producer.epoch,
        };
        let producers = self.producers.iter();
        producers
            .map(|(id, producer)| (*id, last(producer)))
            .collect()
    }
}
