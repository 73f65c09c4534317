//! The records of `__consumer_offsets`, as Kafka's coordinator writes them.
//!
//! Every key and every value starts with an int16, big-endian. In a key it is the kind of record:
//!
//! | key | fields | value |
//! |---|---|---|
//! | 0, 1 | group, topic: string; partition: int32 | `OffsetCommitValue`, versions 0 to 4 |
//! | 2 | group: string | `GroupMetadataValue`, versions 0 to 4 |
//!
//! A null value (a tombstone) removes what its key names. Strings have an int16 length and byte
//! strings an int32 length, -1 for null; from version 4 on both have an unsigned varint of the
//! length plus one, and every structure ends with tagged fields. Keys of other kinds belong to
//! groups that are not served here: they are left alone.
//!
//! Written are `OffsetCommitValue` version 4, which carries the topic's id (version 1 where a
//! commit has its own expiry, which only that one can carry), and `GroupMetadataValue` version 3:
//! the same as Kafka writes.
//! Source: Kafka's `OffsetCommitKey.json`, `OffsetCommitValue.json`, `GroupMetadataKey.json`,
//! `GroupMetadataValue.json`.

use bytes::{BufMut, Bytes, BytesMut};
use uuid::Uuid;

/// The longest string that these records can hold, bytes.
pub const MAX_STRING_BYTES: usize = i16::MAX as usize;

const OFFSET_COMMIT_KEY_VERSION: i16 = 1;
const GROUP_METADATA_KEY_VERSION: i16 = 2;
const OFFSET_COMMIT_VALUE_VERSION: i16 = 4;
/// The only version with an expiry.
const OFFSET_COMMIT_VALUE_VERSION_WITH_EXPIRY: i16 = 1;
const GROUP_METADATA_VALUE_VERSION: i16 = 3;
/// The first version with varint lengths and tagged fields, of both values.
const FIRST_FLEXIBLE_VERSION: i16 = 4;
/// Tag of `OffsetCommitValue.topicId`.
const TOPIC_ID_TAG: u32 = 0;

/// Why bytes are not one of these records, or a record can't be written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The bytes end before the record does.
    #[error("{field} is cut off")]
    CutOff {
        /// The field that could not be read.
        field: &'static str,
    },
    /// A version that is not known.
    #[error("{record} has version {version}")]
    UnknownVersion {
        /// The kind of record.
        record: &'static str,
        /// What it says.
        version: i16,
    },
    /// A string that is not UTF-8, is null where it must not be, or the like.
    #[error("{field} is not valid")]
    Invalid {
        /// The field.
        field: &'static str,
    },
    /// A string that is too long to be written.
    #[error("a string of {bytes} bytes is longer than {MAX_STRING_BYTES}")]
    StringTooLong {
        /// Its length.
        bytes: usize,
    },
}

/// What a record is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// A committed offset.
    Offset {
        /// The group.
        group: String,
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
    },
    /// A group's generation and members.
    Group {
        /// The group.
        group: String,
    },
}

/// A committed offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetCommitValue {
    /// The next offset that the group reads.
    pub offset: i64,
    /// Of the last record consumed; -1 where the client did not say.
    pub leader_epoch: i32,
    /// The client's own words.
    pub metadata: String,
    /// Milliseconds since the epoch.
    pub commit_timestamp_ms: i64,
    /// Milliseconds since the epoch, where the commit has its own expiry.
    pub expire_timestamp_ms: Option<i64>,
    /// The topic's id, where the record has one.
    pub topic_id: Option<Uuid>,
}

/// A group's generation and members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupMetadataValue {
    /// Such as `consumer`; empty for a group that never had members.
    pub protocol_type: String,
    /// The generation.
    pub generation: i32,
    /// The protocol chosen for it.
    pub protocol: Option<String>,
    /// The leader's member id.
    pub leader: Option<String>,
    /// When the group came to its state, milliseconds since the epoch; -1 unknown.
    pub current_state_timestamp_ms: i64,
    /// Its members.
    pub members: Vec<MemberMetadata>,
}

/// A member of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberMetadata {
    /// The id that the coordinator gave it.
    pub member_id: String,
    /// A static member's own name.
    pub group_instance_id: Option<String>,
    /// The client's name for itself.
    pub client_id: String,
    /// The address it joined from.
    pub client_host: String,
    /// Milliseconds.
    pub rebalance_timeout_ms: i32,
    /// Milliseconds.
    pub session_timeout_ms: i32,
    /// What it said under the chosen protocol.
    pub subscription: Bytes,
    /// What the leader gave it.
    pub assignment: Bytes,
}

impl Key {
    /// The key's bytes.
    pub fn encode(&self) -> Result<Bytes, RecordError> {
        let mut out = BytesMut::new();
        match self {
            Self::Offset {
                group,
                topic,
                partition,
            } => {
                out.put_i16(OFFSET_COMMIT_KEY_VERSION);
                put_string(&mut out, group)?;
                put_string(&mut out, topic)?;
                out.put_i32(*partition);
            }
            Self::Group { group } => {
                out.put_i16(GROUP_METADATA_KEY_VERSION);
                put_string(&mut out, group)?;
            }
        }
        Ok(out.freeze())
    }

    /// Reads a key. `None` for a kind that belongs to groups that are not served here.
    pub fn decode(bytes: &[u8]) -> Result<Option<Self>, RecordError> {
        let mut reader = Reader {
            bytes,
            flexible: false,
        };
        let key = match reader.i16("key version")? {
            0 | OFFSET_COMMIT_KEY_VERSION => Self::Offset {
                group: reader.string("group")?,
                topic: reader.string("topic")?,
                partition: reader.i32("partition")?,
            },
            GROUP_METADATA_KEY_VERSION => Self::Group {
                group: reader.string("group")?,
            },
            _ => return Ok(None),
        };
        Ok(Some(key))
    }
}

impl OffsetCommitValue {
    /// The value's bytes.
    pub fn encode(&self) -> Result<Bytes, RecordError> {
        let mut out = BytesMut::new();
        if let Some(expire_timestamp_ms) = self.expire_timestamp_ms {
            out.put_i16(OFFSET_COMMIT_VALUE_VERSION_WITH_EXPIRY);
            out.put_i64(self.offset);
            put_string(&mut out, &self.metadata)?;
            out.put_i64(self.commit_timestamp_ms);
            out.put_i64(expire_timestamp_ms);
            return Ok(out.freeze());
        }
        if self.metadata.len() > MAX_STRING_BYTES {
            return Err(RecordError::StringTooLong {
                bytes: self.metadata.len(),
            });
        }
        out.put_i16(OFFSET_COMMIT_VALUE_VERSION);
        out.put_i64(self.offset);
        out.put_i32(self.leader_epoch);
        put_varint(&mut out, self.metadata.len() as u32 + 1);
        out.put_slice(self.metadata.as_bytes());
        out.put_i64(self.commit_timestamp_ms);
        match self.topic_id.filter(|id| !id.is_nil()) {
            Some(id) => {
                put_varint(&mut out, 1);
                put_varint(&mut out, TOPIC_ID_TAG);
                put_varint(&mut out, id.as_bytes().len() as u32);
                out.put_slice(id.as_bytes());
            }
            None => put_varint(&mut out, 0),
        }
        Ok(out.freeze())
    }

    /// Reads a value of any version.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let mut reader = Reader {
            bytes,
            flexible: false,
        };
        let version = reader.version("OffsetCommitValue")?;
        let offset = reader.i64("offset")?;
        let leader_epoch = if version >= 3 {
            reader.i32("leaderEpoch")?
        } else {
            -1
        };
        let metadata = reader.string("metadata")?;
        let commit_timestamp_ms = reader.i64("commitTimestamp")?;
        let expire_timestamp_ms = if version == 1 {
            Some(reader.i64("expireTimestamp")?)
        } else {
            None
        };
        let mut topic_id = None;
        if reader.flexible {
            reader.tagged_fields(|tag, field| {
                if tag == TOPIC_ID_TAG {
                    topic_id = Uuid::from_slice(field).ok().filter(|id| !id.is_nil());
                }
            })?;
        }
        Ok(Self {
            offset,
            leader_epoch,
            metadata,
            commit_timestamp_ms,
            expire_timestamp_ms: expire_timestamp_ms.filter(|ms| *ms >= 0),
            topic_id,
        })
    }
}

impl GroupMetadataValue {
    /// The value's bytes.
    pub fn encode(&self) -> Result<Bytes, RecordError> {
        let mut out = BytesMut::new();
        out.put_i16(GROUP_METADATA_VALUE_VERSION);
        put_string(&mut out, &self.protocol_type)?;
        out.put_i32(self.generation);
        put_nullable_string(&mut out, self.protocol.as_deref())?;
        put_nullable_string(&mut out, self.leader.as_deref())?;
        out.put_i64(self.current_state_timestamp_ms);
        out.put_i32(self.members.len() as i32);
        for member in &self.members {
            put_string(&mut out, &member.member_id)?;
            put_nullable_string(&mut out, member.group_instance_id.as_deref())?;
            put_string(&mut out, &member.client_id)?;
            put_string(&mut out, &member.client_host)?;
            out.put_i32(member.rebalance_timeout_ms);
            out.put_i32(member.session_timeout_ms);
            for bytes in [&member.subscription, &member.assignment] {
                out.put_i32(bytes.len() as i32);
                out.put_slice(bytes);
            }
        }
        Ok(out.freeze())
    }

    /// Reads a value of any version.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let mut reader = Reader {
            bytes,
            flexible: false,
        };
        let version = reader.version("GroupMetadataValue")?;
        let protocol_type = reader.string("protocolType")?;
        let generation = reader.i32("generation")?;
        let protocol = reader.nullable_string("protocol")?;
        let leader = reader.nullable_string("leader")?;
        let current_state_timestamp_ms = if version >= 2 {
            reader.i64("currentStateTimestamp")?
        } else {
            -1
        };
        let count = reader.count("members")?;
        let mut members = Vec::new();
        for _ in 0..count {
            members.push(MemberMetadata::decode(&mut reader, version)?);
        }
        if reader.flexible {
            reader.tagged_fields(|_, _| ())?;
        }
        Ok(Self {
            protocol_type,
            generation,
            protocol,
            leader,
            current_state_timestamp_ms,
            members,
        })
    }
}

impl MemberMetadata {
    fn decode(reader: &mut Reader<'_>, version: i16) -> Result<Self, RecordError> {
        let member_id = reader.string("memberId")?;
        let group_instance_id = if version >= 3 {
            reader.nullable_string("groupInstanceId")?
        } else {
            None
        };
        let client_id = reader.string("clientId")?;
        let client_host = reader.string("clientHost")?;
        let rebalance_timeout_ms = if version >= 1 {
            Some(reader.i32("rebalanceTimeout")?)
        } else {
            None
        };
        let session_timeout_ms = reader.i32("sessionTimeout")?;
        let member = Self {
            member_id,
            group_instance_id,
            client_id,
            client_host,
            rebalance_timeout_ms: rebalance_timeout_ms.unwrap_or(session_timeout_ms),
            session_timeout_ms,
            subscription: reader.bytes("subscription")?,
            assignment: reader.bytes("assignment")?,
        };
        if reader.flexible {
            reader.tagged_fields(|_, _| ())?;
        }
        Ok(member)
    }
}

fn put_string(out: &mut BytesMut, string: &str) -> Result<(), RecordError> {
    let length = i16::try_from(string.len()).map_err(|_| RecordError::StringTooLong {
        bytes: string.len(),
    })?;
    out.put_i16(length);
    out.put_slice(string.as_bytes());
    Ok(())
}

fn put_nullable_string(out: &mut BytesMut, string: Option<&str>) -> Result<(), RecordError> {
    match string {
        Some(string) => put_string(out, string),
        None => {
            out.put_i16(-1);
            Ok(())
        }
    }
}

fn put_varint(out: &mut BytesMut, mut value: u32) {
    while value >= 0x80 {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

/// Takes fields off the front. Never reads past the end, never allocates more than is there.
struct Reader<'a> {
    bytes: &'a [u8],
    flexible: bool,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize, field: &'static str) -> Result<&'a [u8], RecordError> {
        let (taken, rest) = self
            .bytes
            .split_at_checked(count)
            .ok_or(RecordError::CutOff { field })?;
        self.bytes = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], RecordError> {
        let (taken, rest) = self
            .bytes
            .split_first_chunk::<N>()
            .ok_or(RecordError::CutOff { field })?;
        self.bytes = rest;
        Ok(*taken)
    }

    fn i16(&mut self, field: &'static str) -> Result<i16, RecordError> {
        self.array(field).map(i16::from_be_bytes)
    }

    fn i32(&mut self, field: &'static str) -> Result<i32, RecordError> {
        self.array(field).map(i32::from_be_bytes)
    }

    fn i64(&mut self, field: &'static str) -> Result<i64, RecordError> {
        self.array(field).map(i64::from_be_bytes)
    }

    /// A value's version, 0 to 4; the fields after it are read as it says.
    fn version(&mut self, record: &'static str) -> Result<i16, RecordError> {
        let version = self.i16(record)?;
        if !(0..=FIRST_FLEXIBLE_VERSION).contains(&version) {
            return Err(RecordError::UnknownVersion { record, version });
        }
        self.flexible = version >= FIRST_FLEXIBLE_VERSION;
        Ok(version)
    }

    fn varint(&mut self, field: &'static str) -> Result<u32, RecordError> {
        let mut value = 0u32;
        for shift in (0..35).step_by(7) {
            let [byte] = self.array(field)?;
            value |= u32::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(RecordError::Invalid { field })
    }

    /// `None` for a null.
    fn length(&mut self, field: &'static str, wide: bool) -> Result<Option<usize>, RecordError> {
        let length = if self.flexible {
            i64::from(self.varint(field)?) - 1
        } else if wide {
            i64::from(self.i32(field)?)
        } else {
            i64::from(self.i16(field)?)
        };
        match length {
            -1 => Ok(None),
            length => usize::try_from(length)
                .map(Some)
                .map_err(|_| RecordError::Invalid { field }),
        }
    }

    fn nullable_string(&mut self, field: &'static str) -> Result<Option<String>, RecordError> {
        let Some(length) = self.length(field, false)? else {
            return Ok(None);
        };
        let bytes = self.take(length, field)?;
        let string = std::str::from_utf8(bytes).map_err(|_| RecordError::Invalid { field })?;
        Ok(Some(string.to_owned()))
    }

    fn string(&mut self, field: &'static str) -> Result<String, RecordError> {
        self.nullable_string(field)?
            .ok_or(RecordError::Invalid { field })
    }

    fn bytes(&mut self, field: &'static str) -> Result<Bytes, RecordError> {
        let Some(length) = self.length(field, true)? else {
            return Ok(Bytes::new());
        };
        self.take(length, field).map(Bytes::copy_from_slice)
    }

    /// An array's length.
    fn count(&mut self, field: &'static str) -> Result<usize, RecordError> {
        self.length(field, true)?
            .ok_or(RecordError::Invalid { field })
    }

    fn tagged_fields(&mut self, mut each: impl FnMut(u32, &[u8])) -> Result<(), RecordError> {
        const FIELD: &str = "tagged fields";
        for _ in 0..self.varint(FIELD)? {
            let tag = self.varint(FIELD)?;
            let size = self.varint(FIELD)?;
            each(tag, self.take(size as usize, FIELD)?);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
