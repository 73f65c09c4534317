//! Idempotence: what one partition remembers of each producer that appends to it.
//!
//! Guarantees (KIP-98, as Kafka's `ProducerStateManager` has them):
//!
//! - of each producer the newest epoch and the last [`BATCHES_KEPT`] batches of that epoch are
//!   known; a batch with the very sequences of a kept one is a duplicate;
//! - any other batch must follow the last one, where the sequence 2^31 - 1 is followed by 0; so a
//!   duplicate of an older batch is out of order too;
//! - an older epoch is refused, and a newer one begins at sequence 0;
//! - of an unknown producer any first sequence is accepted;
//! - a producer is forgotten only by [`ProducerState::remove_expired`], and never before the
//!   given time has passed since its last append. The broker's clock at the append counts, not the
//!   records' timestamps: a producer that copies old records is not an old producer.
//!
//! Everything is pure: the time comes in as an argument, and a snapshot is bytes. The partition's
//! writer checks, appends and updates under one lock, so that nothing comes between.
//!
//! A snapshot is Kafka's `.snapshot` file: version int16 (1) · CRC-32C of what follows, uint32 ·
//! count int32 · and per producer id int64 · epoch int16 · last sequence int32 · last offset
//! int64 · offset delta int32 · timestamp int64 · coordinator epoch int32 · first offset of the
//! open transaction int64 (-1: none). It has only the last batch of each producer.

mod last_record;

use std::collections::HashMap;
use std::path::Path;

use crate::Offset;
use crate::batch::Batch;
use crate::batch::header::add_to_sequence;
use crate::error::{Error, Result};
pub(crate) use last_record::LastRecord;

/// How many batches are kept per producer: clients have no more in flight.
pub const BATCHES_KEPT: usize = 5;

const SNAPSHOT_VERSION: i16 = 1;
const SNAPSHOT_CRC: usize = 2;
const SNAPSHOT_CRC_COVERS_FROM: usize = 6;
const SNAPSHOT_ENTRIES: usize = 10;
const SNAPSHOT_ENTRY_SIZE: usize = 46;
/// In a header and a snapshot: no epoch, no sequence, no offset.
const NONE: i64 = -1;

/// What to do with a producer's batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Append it, then [`ProducerState::update`].
    New,
    /// It is in the log already: answer as the first append was answered, once that is as durable
    /// as this one asks for.
    Duplicate {
        /// The first append's first offset.
        base_offset: Offset,
        /// The first append's last offset.
        last_offset: Offset,
        /// The broker's clock at the first append, milliseconds since the epoch.
        append_time_ms: i64,
    },
}

/// One batch that a producer has appended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Appended {
    last_sequence: i32,
    last_offset: Offset,
    /// `last_offset` less the first offset, and the same of the sequences.
    offset_delta: i32,
    append_time_ms: i64,
}

impl Appended {
    fn base_sequence(&self) -> i32 {
        add_to_sequence(self.last_sequence, self.offset_delta.saturating_neg())
    }

    fn base_offset(&self) -> Offset {
        self.last_offset
            .saturating_sub(i64::from(self.offset_delta))
    }
}

/// One producer.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Producer {
    epoch: i16,
    last_append_ms: i64,
    /// The first `kept` are of this epoch, oldest first.
    batches: [Appended; BATCHES_KEPT],
    kept: usize,
    /// Carried from snapshot to snapshot.
    coordinator_epoch: i32,
    current_txn_first_offset: Option<Offset>,
}

impl Producer {
    fn new(epoch: i16, last_append_ms: i64) -> Self {
        Self {
            epoch,
            last_append_ms,
            batches: [Appended::default(); BATCHES_KEPT],
            kept: 0,
            coordinator_epoch: NONE as i32,
            current_txn_first_offset: None,
        }
    }

    fn last(&self) -> Option<&Appended> {
        self.batches[..self.kept].last()
    }

    fn last_sequence(&self) -> i32 {
        self.last().map_or(NONE as i32, |last| last.last_sequence)
    }

    fn duplicate_of(&self, first_sequence: i32, last_sequence: i32) -> Option<&Appended> {
        self.batches[..self.kept].iter().find(|kept| {
            kept.base_sequence() == first_sequence && kept.last_sequence == last_sequence
        })
    }

    fn keep(&mut self, batch: Appended) {
        if self.kept == BATCHES_KEPT {
            self.batches.rotate_left(1);
            self.kept -= 1;
        }
        self.batches[self.kept] = batch;
        self.kept += 1;
    }
}

/// What is known of one producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ActiveProducer {
    /// The producer.
    pub producer_id: i64,
    /// Its newest epoch.
    pub epoch: i16,
    /// The last sequence that it has appended; -1 where none is known.
    pub last_sequence: i32,
    /// The broker's clock at its last append, milliseconds since the epoch.
    pub last_append_ms: i64,
    /// Of the coordinator that ended its last transaction; -1 where there was none.
    pub coordinator_epoch: i32,
    /// Where its open transaction begins.
    pub current_txn_first_offset: Option<Offset>,
}

/// The producers of one partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProducerState {
    producers: HashMap<i64, Producer>,
}

impl ProducerState {
    /// No producer is known.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many producers are known.
    pub fn len(&self) -> usize {
        self.producers.len()
    }

    /// No producer is known.
    pub fn is_empty(&self) -> bool {
        self.producers.is_empty()
    }

    /// Whether `batch`, as a client sent it, is to be appended. One without a producer always is.
    ///
    /// `StaleProducerEpoch` where a newer epoch has appended, `OutOfOrderSequence` where the batch
    /// neither follows the last one nor repeats one of the last five.
    pub fn check(&self, batch: &Batch<'_>) -> Result<Decision> {
        let (producer_id, epoch) = (batch.producer_id(), batch.producer_epoch());
        if producer_id < 0 {
            return Ok(Decision::New);
        }
        let Some(producer) = self.producers.get(&producer_id) else {
            return Ok(Decision::New);
        };
        if epoch < producer.epoch {
            let (newest, found) = (producer.epoch, epoch);
            return Err(Error::StaleProducerEpoch {
                producer_id,
                newest,
                found,
            });
        }
        // Nothing of a new epoch has been appended, so that its first sequence is 0.
        let mut last = NONE as i32;
        let first = batch.base_sequence();
        if epoch == producer.epoch {
            if let Some(earlier) = producer.duplicate_of(first, batch.last_sequence()) {
                return Ok(Decision::Duplicate {
                    base_offset: earlier.base_offset(),
                    last_offset: earlier.last_offset,
                    append_time_ms: earlier.append_time_ms,
                });
            }
            last = producer.last_sequence();
        }
        if first == add_to_sequence(last, 1) {
            Ok(Decision::New)
        } else {
            Err(Error::OutOfOrderSequence {
                producer_id,
                last,
                found: first,
            })
        }
    }

    /// Remembers that `batch` was appended at `base_offset`; `append_time_ms` is the broker's
    /// clock. To be called for every batch, in the order of the log, and while the log's tail is
    /// replayed too, where nothing was checked. Only its header is looked at, so that of a marker's
    /// coordinator epoch nothing is learnt.
    pub fn update(&mut self, batch: &Batch<'_>, base_offset: Offset, append_time_ms: i64) {
        if batch.producer_id() < 0 {
            return;
        }
        let epoch = batch.producer_epoch();
        let producer = self
            .producers
            .entry(batch.producer_id())
            .or_insert_with(|| Producer::new(epoch, append_time_ms));
        if producer.epoch != epoch {
            producer.epoch = epoch;
            producer.kept = 0;
        }
        producer.last_append_ms = append_time_ms;
        // A transaction's marker has a producer and, since KIP-890, the epoch that its next
        // transaction will have, but no sequence.
        if batch.is_control() {
            producer.current_txn_first_offset = None;
            return;
        }
        if batch.is_transactional() {
            producer.current_txn_first_offset.get_or_insert(base_offset);
        }
        let offset_delta = batch.last_offset_delta();
        producer.keep(Appended {
            last_sequence: batch.last_sequence(),
            last_offset: base_offset.saturating_add(i64::from(offset_delta)),
            offset_delta,
            append_time_ms,
        });
    }

    /// Forgets the producers whose last append was `producer_id_expiration_ms` ago or earlier, but
    /// none with an open transaction. Returns how many.
    pub fn remove_expired(&mut self, now_ms: i64, producer_id_expiration_ms: i64) -> usize {
        let before = self.producers.len();
        self.producers.retain(|_, producer| {
            producer.current_txn_first_offset.is_some()
                || now_ms.saturating_sub(producer.last_append_ms) < producer_id_expiration_ms
        });
        before - self.producers.len()
    }

    /// Every producer, by id.
    pub fn active(&self) -> Vec<ActiveProducer> {
        let mut active: Vec<_> = self
            .producers
            .iter()
            .map(|(producer_id, producer)| ActiveProducer {
                producer_id: *producer_id,
                epoch: producer.epoch,
                last_sequence: producer.last_sequence(),
                last_append_ms: producer.last_append_ms,
                coordinator_epoch: producer.coordinator_epoch,
                current_txn_first_offset: producer.current_txn_first_offset,
            })
            .collect();
        active.sort_unstable_by_key(|producer| producer.producer_id);
        active
    }

    /// When a producer last appended, milliseconds since the epoch; `None` where none is known.
    pub fn last_append_ms(&self) -> Option<i64> {
        self.producers
            .values()
            .map(|producer| producer.last_append_ms)
            .max()
    }

    /// The log was cut off at `end`: forgets the batches from there on. False where of some producer
    /// nothing is left that is known, though there may be earlier batches of it.
    pub fn cut(&mut self, end: Offset) -> bool {
        let mut known = true;
        for producer in self.producers.values_mut() {
            let before = producer.kept;
            let kept = producer.batches[..before].iter();
            producer.kept = kept.take_while(|batch| batch.last_offset < end).count();
            let transaction = producer.current_txn_first_offset;
            known &= producer.kept > 0 || before == 0;
            known &= transaction.is_none_or(|first| first < end);
        }
        known
    }

    /// Takes the producers of an older state that are unknown here.
    pub fn add_missing(&mut self, older: Self) {
        for (producer_id, producer) in older.producers {
            self.producers.entry(producer_id).or_insert(producer);
        }
    }

    /// The bytes of a snapshot file, in the order of the producer ids.
    pub fn encode_snapshot(&self) -> Vec<u8> {
        let mut producers: Vec<_> = self.producers.iter().collect();
        producers.sort_unstable_by_key(|(id, _)| **id);
        let size = SNAPSHOT_ENTRIES + producers.len() * SNAPSHOT_ENTRY_SIZE;
        let mut out = Vec::with_capacity(size);
        out.extend_from_slice(&SNAPSHOT_VERSION.to_be_bytes());
        out.extend_from_slice(&[0; SNAPSHOT_CRC_COVERS_FROM - SNAPSHOT_CRC]);
        // A count beyond int32 would need more than 100 GB of memory for the map.
        out.extend_from_slice(&(producers.len() as i32).to_be_bytes());
        for (id, producer) in producers {
            let last = producer.last();
            out.extend_from_slice(&id.to_be_bytes());
            out.extend_from_slice(&producer.epoch.to_be_bytes());
            out.extend_from_slice(&producer.last_sequence().to_be_bytes());
            out.extend_from_slice(&last.map_or(NONE, |last| last.last_offset).to_be_bytes());
            out.extend_from_slice(&last.map_or(0, |last| last.offset_delta).to_be_bytes());
            out.extend_from_slice(&producer.last_append_ms.to_be_bytes());
            out.extend_from_slice(&producer.coordinator_epoch.to_be_bytes());
            let transaction = producer.current_txn_first_offset.unwrap_or(NONE);
            out.extend_from_slice(&transaction.to_be_bytes());
        }
        let crc = crc32c::crc32c(&out[SNAPSHOT_CRC_COVERS_FROM..]);
        out[SNAPSHOT_CRC..SNAPSHOT_CRC_COVERS_FROM].copy_from_slice(&crc.to_be_bytes());
        out
    }

    /// What the snapshot file `path` holds, whose content is `bytes`: of each producer the last
    /// batch. `CorruptFile` where it is not a whole, intact snapshot.
    pub fn decode_snapshot(path: &Path, bytes: &[u8]) -> Result<Self> {
        Self::read_snapshot(bytes).map_err(|reason| Error::CorruptFile {
            path: path.to_owned(),
            reason,
        })
    }

    fn read_snapshot(bytes: &[u8]) -> Result<Self, String> {
        let mut fields = Fields(bytes);
        let version = i16::from_be_bytes(fields.next()?);
        if version != SNAPSHOT_VERSION {
            return Err(format!(
                "snapshot version {version} is not {SNAPSHOT_VERSION}"
            ));
        }
        let stored = u32::from_be_bytes(fields.next()?);
        let computed = crc32c::crc32c(fields.0);
        if stored != computed {
            return Err(format!(
                "snapshot crc is {stored:#010x}, of the bytes {computed:#010x}"
            ));
        }
        let count = i32::from_be_bytes(fields.next()?);
        let size = usize::try_from(count)
            .ok()
            .and_then(|n| n.checked_mul(SNAPSHOT_ENTRY_SIZE));
        if size != Some(fields.0.len()) {
            return Err(format!(
                "{count} snapshot entries in {} bytes",
                fields.0.len()
            ));
        }
        let mut producers = HashMap::with_capacity(fields.0.len() / SNAPSHOT_ENTRY_SIZE);
        while !fields.0.is_empty() {
            let (producer_id, producer) = fields.producer()?;
            producers.insert(producer_id, producer);
        }
        Ok(Self { producers })
    }
}

/// What was not read yet of a snapshot.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn next<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let (field, rest) = self.0.split_first_chunk().ok_or("snapshot is cut short")?;
        self.0 = rest;
        Ok(*field)
    }

    fn producer(&mut self) -> Result<(i64, Producer), String> {
        let producer_id = i64::from_be_bytes(self.next()?);
        let epoch = i16::from_be_bytes(self.next()?);
        let last_sequence = i32::from_be_bytes(self.next()?);
        let last_offset = i64::from_be_bytes(self.next()?);
        let offset_delta = i32::from_be_bytes(self.next()?);
        let append_time_ms = i64::from_be_bytes(self.next()?);
        let mut producer = Producer::new(epoch, append_time_ms);
        producer.coordinator_epoch = i32::from_be_bytes(self.next()?);
        let transaction = i64::from_be_bytes(self.next()?);
        producer.current_txn_first_offset = Some(transaction).filter(|offset| *offset >= 0);
        if last_offset >= 0 {
            producer.keep(Appended {
                last_sequence,
                last_offset,
                offset_delta,
                append_time_ms,
            });
        }
        Ok((producer_id, producer))
    }
}
