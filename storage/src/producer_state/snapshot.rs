//! The file that brings the producers' state back at a start.
//!
//! Kafka's `.snapshot` file: version int16 (1) · CRC-32C of what follows, uint32 ·
//! count int32 · and per producer id int64 · epoch int16 · last sequence int32 · last offset
//! int64 · offset delta int32 · timestamp int64 · coordinator epoch int32 · first offset of the
//! open transaction int64 (-1: none). It has only the last batch of each producer.

use std::collections::HashMap;
use std::path::Path;

use super::{Appended, NONE, Producer, ProducerState};
use crate::error::{Error, Result};

const SNAPSHOT_VERSION: i16 = 1;
const SNAPSHOT_CRC: usize = 2;
const SNAPSHOT_CRC_COVERS_FROM: usize = 6;
const SNAPSHOT_ENTRIES: usize = 10;
const SNAPSHOT_ENTRY_SIZE: usize = 46;

impl ProducerState {
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
        // At the end: a file that is no broker's may name a producer twice.
        let open = producers
            .iter()
            .filter_map(|(id, producer): (&i64, &Producer)| {
                Some((producer.current_txn_first_offset?, *id))
            });
        let open = open.collect();
        Ok(Self { producers, open })
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
