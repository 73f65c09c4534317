//! The records of `__transaction_state`, as Kafka's coordinator writes them.
//!
//! The key is version int16 (0) · transactional id string. The value, version 1, is: producer id int64 ·
//! epoch int16 · timeout int32, ms · status int8 ([`State`]) · array of topics, each with its name and
//! an array of partitions int32 · last update int64 and start int64, ms · and as tagged fields the previous
//! producer id (0), the next one (1) and the client's transaction version int16 (2). Version 0 has no
//! varint lengths and no tagged fields. A null value removes the id. Source: Kafka's
//! `TransactionLogKey.json` and `TransactionLogValue.json`.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{BufMut, Bytes, BytesMut};

use crate::coordinator_log::fields::{Reader, RecordError, put_string, put_varint};

const KEY_VERSION: i16 = 0;
const VALUE_VERSION: i16 = 1;
const PREVIOUS_PRODUCER_ID_TAG: u32 = 0;
const NEXT_PRODUCER_ID_TAG: u32 = 1;
const CLIENT_TRANSACTION_VERSION_TAG: u32 = 2;
/// No producer id.
const NONE: i64 = -1;

/// What a transactional id is at. Kafka's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// A producer has introduced itself, and has begun nothing.
    Empty = 0,
    /// A transaction is open.
    Ongoing = 1,
    /// It will be committed whatever happens.
    PrepareCommit = 2,
    /// It will be aborted whatever happens.
    PrepareAbort = 3,
    /// The last one was committed.
    CompleteCommit = 4,
    /// The last one was aborted.
    CompleteAbort = 5,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Empty,
        Self::Ongoing,
        Self::PrepareCommit,
        Self::PrepareAbort,
        Self::CompleteCommit,
        Self::CompleteAbort,
    ];

    /// As Kafka's tools show it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::Ongoing => "Ongoing",
            Self::PrepareCommit => "PrepareCommit",
            Self::PrepareAbort => "PrepareAbort",
            Self::CompleteCommit => "CompleteCommit",
            Self::CompleteAbort => "CompleteAbort",
        }
    }
}

/// `transaction.version`, as the client goes by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TransactionVersion {
    /// Partitions are added before they are written to; the epoch stays from transaction to transaction.
    V0 = 0,
    /// The same; the coordinator's records are flexible.
    V1 = 1,
    /// Partitions are added by writing to them; each end raises the epoch (KIP-890).
    V2 = 2,
}

impl TransactionVersion {
    /// Each end raises the epoch.
    pub fn raises_epoch(self) -> bool {
        self >= Self::V2
    }
}

/// What is written of a transactional id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransactionalIdState {
    /// The producer that has the id.
    pub producer_id: i64,
    /// The one that had it before; -1 where there was none.
    pub previous_producer_id: i64,
    /// The one that has it after the transaction's end; -1 where it stays.
    pub next_producer_id: i64,
    /// The producer's epoch; -1 where none was given yet.
    pub producer_epoch: i16,
    /// How long a transaction may be open, milliseconds.
    pub timeout_ms: i32,
    /// What it is at.
    pub state: State,
    /// The partitions of the transaction.
    pub partitions: BTreeSet<(String, i32)>,
    /// Milliseconds since the epoch.
    pub last_update_ms: i64,
    /// When the last transaction was begun, milliseconds since the epoch; -1 where none was.
    pub start_ms: i64,
    /// What the client went by at the last step.
    pub version: TransactionVersion,
}

/// The key's bytes.
pub fn encode_key(transactional_id: &str) -> Result<Bytes, RecordError> {
    let mut out = BytesMut::new();
    out.put_i16(KEY_VERSION);
    put_string(&mut out, transactional_id)?;
    Ok(out.freeze())
}

/// The transactional id that a key names; `None` for a kind that is not known.
pub fn decode_key(bytes: &[u8]) -> Result<Option<String>, RecordError> {
    let mut reader = Reader::new(bytes);
    match reader.i16("key version")? {
        KEY_VERSION => reader.string("transactionalId").map(Some),
        _ => Ok(None),
    }
}

impl TransactionalIdState {
    /// The value's bytes.
    pub fn encode(&self) -> Result<Bytes, RecordError> {
        let mut topics: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
        for (topic, partition) in &self.partitions {
            topics.entry(topic).or_default().push(*partition);
        }
        let mut out = BytesMut::new();
        out.put_i16(VALUE_VERSION);
        out.put_i64(self.producer_id);
        out.put_i16(self.producer_epoch);
        out.put_i32(self.timeout_ms);
        out.put_i8(self.state as i8);
        // As in Kafka, null where there was no transaction.
        match self.state {
            State::Empty => put_varint(&mut out, 0),
            _ => put_varint(&mut out, topics.len() as u32 + 1),
        }
        for (topic, partitions) in topics {
            put_varint(&mut out, topic.len() as u32 + 1);
            out.put_slice(topic.as_bytes());
            put_varint(&mut out, partitions.len() as u32 + 1);
            partitions.iter().for_each(|it| out.put_i32(*it));
            put_varint(&mut out, 0);
        }
        out.put_i64(self.last_update_ms);
        out.put_i64(self.start_ms);
        self.encode_tagged(&mut out);
        Ok(out.freeze())
    }

    /// Those that are not as they are by default.
    fn encode_tagged(&self, out: &mut BytesMut) {
        let ids = [
            (PREVIOUS_PRODUCER_ID_TAG, self.previous_producer_id),
            (NEXT_PRODUCER_ID_TAG, self.next_producer_id),
        ];
        let ids = ids.into_iter().filter(|(_, id)| *id != NONE);
        let has_version = self.version != TransactionVersion::V0;
        let count = ids.clone().count() + usize::from(has_version);
        put_varint(out, count as u32);
        for (tag, id) in ids {
            put_varint(out, tag);
            put_varint(out, size_of::<i64>() as u32);
            out.put_i64(id);
        }
        if has_version {
            put_varint(out, CLIENT_TRANSACTION_VERSION_TAG);
            put_varint(out, size_of::<i16>() as u32);
            out.put_i16(self.version as i16);
        }
    }

    /// Reads a value of any version.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let mut reader = Reader::new(bytes);
        reader.version("TransactionLogValue", VALUE_VERSION)?;
        let producer_id = reader.i64("producerId")?;
        let producer_epoch = reader.i16("producerEpoch")?;
        let timeout_ms = reader.i32("transactionTimeoutMs")?;
        let status = reader.i8("transactionStatus")?;
        let states = State::ALL.into_iter();
        let state = states.clone().find(|state| *state as i8 == status);
        let state = state.ok_or(RecordError::Invalid {
            field: "transactionStatus",
        })?;
        let mut partitions = BTreeSet::new();
        for _ in 0..reader.nullable_count("transactionPartitions")?.unwrap_or(0) {
            let topic = reader.string("topic")?;
            for _ in 0..reader.count("partitionIds")? {
                partitions.insert((topic.clone(), reader.i32("partitionId")?));
            }
            if reader.is_flexible() {
                reader.tagged_fields(|_, _| ())?;
            }
        }
        let mut state = Self {
            producer_id,
            previous_producer_id: NONE,
            next_producer_id: NONE,
            producer_epoch,
            timeout_ms,
            state,
            partitions,
            last_update_ms: reader.i64("transactionLastUpdateTimestampMs")?,
            start_ms: reader.i64("transactionStartTimestampMs")?,
            version: TransactionVersion::V0,
        };
        if reader.is_flexible() {
            let id = |field: &[u8]| field.try_into().map_or(NONE, i64::from_be_bytes);
            reader.tagged_fields(|tag, field| match tag {
                PREVIOUS_PRODUCER_ID_TAG => state.previous_producer_id = id(field),
                NEXT_PRODUCER_ID_TAG => state.next_producer_id = id(field),
                CLIENT_TRANSACTION_VERSION_TAG => {
                    state.version = match field.try_into().map(i16::from_be_bytes) {
                        Ok(0) => TransactionVersion::V0,
                        Ok(1) => TransactionVersion::V1,
                        _ => TransactionVersion::V2,
                    };
                }
                _ => {}
            })?;
        }
        Ok(state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> TransactionalIdState {
        TransactionalIdState {
            producer_id: 4_000,
            previous_producer_id: NONE,
            next_producer_id: NONE,
            producer_epoch: 3,
            timeout_ms: 60_000,
            state: State::Ongoing,
            partitions: BTreeSet::from([("a".into(), 0), ("a".into(), 2), ("b".into(), 1)]),
            last_update_ms: 1_700_000_000_001,
            start_ms: 1_700_000_000_000,
            version: TransactionVersion::V2,
        }
    }

    #[test]
    fn states_come_back() {
        let every = [
            state(),
            TransactionalIdState {
                state: State::CompleteCommit,
                previous_producer_id: 7,
                next_producer_id: 9,
                partitions: BTreeSet::new(),
                version: TransactionVersion::V0,
                ..state()
            },
        ];
        for state in every {
            let bytes = state.encode().unwrap();
            assert_eq!(TransactionalIdState::decode(&bytes).unwrap(), state);
            for cut in 0..bytes.len() {
                assert!(
                    TransactionalIdState::decode(&bytes[..cut]).is_err(),
                    "{cut}"
                );
            }
        }
        let key = encode_key("payments").unwrap();
        assert_eq!(decode_key(&key).unwrap(), Some("payments".to_owned()));
    }

    /// By hand from the schema.
    #[test]
    fn the_bytes_are_kafkas() {
        let mut expected = BytesMut::new();
        expected.put_i16(1);
        expected.put_i64(4_000);
        expected.put_i16(3);
        expected.put_i32(60_000);
        expected.put_i8(1);
        expected.put_slice(&[3, 2, b'a', 3, 0, 0, 0, 0, 0, 0, 0, 2, 0]);
        expected.put_slice(&[2, b'b', 2, 0, 0, 0, 1, 0]);
        expected.put_i64(1_700_000_000_001);
        expected.put_i64(1_700_000_000_000);
        expected.put_slice(&[1, 2, 2, 0, 2]);
        assert_eq!(state().encode().unwrap(), expected.freeze());
    }

    #[test]
    fn version_0_is_read() {
        let mut bytes = BytesMut::new();
        bytes.put_i16(0);
        bytes.put_i64(4_000);
        bytes.put_i16(3);
        bytes.put_i32(60_000);
        bytes.put_i8(1);
        bytes.put_i32(1);
        bytes.put_i16(1);
        bytes.put_slice(b"a");
        bytes.put_i32(1);
        bytes.put_i32(2);
        bytes.put_i64(2);
        bytes.put_i64(1);
        let state = TransactionalIdState::decode(&bytes).unwrap();
        assert_eq!(state.partitions, BTreeSet::from([("a".into(), 2)]));
        assert_eq!((state.last_update_ms, state.start_ms), (2, 1));
        assert_eq!(state.version, TransactionVersion::V0);
    }
}
