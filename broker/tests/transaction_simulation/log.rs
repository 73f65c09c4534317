//! A partition, and the coordinator's state: what is written, and how much of it is on the device.

use broker::transaction::records::TransactionalIdState;
use bytes::Bytes;
use storage::batch::{Batch, BatchBuilder, Compression, EndMarker};
use storage::producer_state::{AbortedTransaction, Decision, ProducerState};

use crate::message::Tag;

/// One batch.
#[derive(Clone, Debug)]
pub struct Entry {
    pub bytes: Bytes,
    /// `None` for a marker.
    pub tag: Option<Tag>,
    pub producer_id: i64,
}

/// A partition. Each batch has one record.
#[derive(Clone, Debug, Default)]
pub struct Log {
    pub entries: Vec<Entry>,
    pub producers: ProducerState,
    pub aborted: Vec<AbortedTransaction>,
    pub synced: usize,
}

/// A batch of a transaction; without a sequence it is an offset commit's.
pub fn batch(producer_id: i64, epoch: i16, sequence: Option<i32>) -> Bytes {
    let batch = BatchBuilder::new(Compression::None);
    let mut batch = batch
        .producer(producer_id, epoch, sequence.unwrap_or(-1))
        .transactional();
    batch.push(0, Some(b"k"), Some(b"v"), &[]);
    batch.build()
}

impl Log {
    /// Appends a batch that may be appended. Returns the end behind it.
    pub fn append(&mut self, bytes: Bytes, tag: Tag) -> Result<usize, storage::Error> {
        let batch = Batch::parse(&bytes)?;
        if batch.base_sequence() < 0 {
            self.producers.check_unsequenced(&batch)?;
        } else if let Decision::Duplicate { last_offset, .. } = self.producers.check(&batch)? {
            return Ok(last_offset as usize + 1);
        }
        self.push(bytes, Some(tag));
        Ok(self.entries.len())
    }

    /// Appends a marker, where it may be.
    pub fn mark(&mut self, marker: &EndMarker) -> Result<(), storage::Error> {
        self.producers.check_marker(marker)?;
        self.push(marker.batch(0), None);
        Ok(())
    }

    fn push(&mut self, bytes: Bytes, tag: Option<Tag>) {
        let offset = self.entries.len() as i64;
        let batch = Batch::parse(&bytes).expect("a batch of ours");
        let producer_id = batch.producer_id();
        let aborted = self.producers.update(&batch, offset, 0);
        self.aborted.extend(aborted);
        self.entries.push(Entry {
            bytes,
            tag,
            producer_id,
        });
    }

    /// The power is cut: of what is not on the device, `kept` entries are there all the same.
    pub fn cut(&mut self, kept: usize) {
        let entries = std::mem::take(&mut self.entries);
        let synced = self.synced;
        *self = Self::default();
        for entry in entries.into_iter().take(synced + kept) {
            self.push(entry.bytes, entry.tag);
        }
        self.synced = self.entries.len();
    }

    /// What a reader of what is committed gets, by the list of aborted transactions.
    pub fn committed(&self) -> Vec<Tag> {
        let end = self.producers.first_open_transaction();
        let end = end.map_or(self.entries.len(), |first| first as usize);
        let is_aborted = |offset: usize, entry: &Entry| {
            let offset = offset as i64;
            let mut aborted = self.aborted.iter();
            aborted.any(|it| {
                it.producer_id == entry.producer_id
                    && (it.first_offset..it.last_offset).contains(&offset)
            })
        };
        let entries = self.entries.iter().take(end).enumerate();
        let committed = entries.filter(|(offset, entry)| !is_aborted(*offset, entry));
        committed.filter_map(|(_, entry)| entry.tag).collect()
    }

    /// The batches of a producer that its next marker closes.
    pub fn open_tags(&self, producer_id: i64) -> Vec<Tag> {
        let open = self.producers.with_open_transaction();
        let Some(open) = open.iter().find(|it| it.producer_id == producer_id) else {
            return Vec::new();
        };
        let from = open.current_txn_first_offset.unwrap_or(0) as usize;
        let entries = self.entries[from..].iter();
        let of_producer = entries.filter(|entry| entry.producer_id == producer_id);
        of_producer.filter_map(|entry| entry.tag).collect()
    }
}

/// `__transaction_state`, as one partition: ids and their encoded states.
#[derive(Clone, Debug, Default)]
pub struct StateLog {
    pub entries: Vec<(usize, Bytes)>,
    pub synced: usize,
}

impl StateLog {
    pub fn append(&mut self, id: usize, state: &TransactionalIdState) -> usize {
        self.entries.push((id, state.encode().expect("is short")));
        self.entries.len()
    }

    pub fn cut(&mut self, kept: usize) {
        self.entries.truncate(self.synced + kept);
        self.synced = self.entries.len();
    }
}
