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

use crate::coordinator_log::fields::{
    MAX_STRING_BYTES, Reader, RecordError, put_nullable_string, put_string, put_varint,
};

const OFFSET_COMMIT_KEY_VERSION: i16 = 1;
const GROUP_METADATA_KEY_VERSION: i16 = 2;
const OFFSET_COMMIT_VALUE_VERSION: i16 = 4;
/// The only version with an expiry.
const OFFSET_COMMIT_VALUE_VERSION_WITH_EXPIRY: i16 = 1;
const GROUP_METADATA_VALUE_VERSION: i16 = 3;
/// The newest version of both values, and the first with varint lengths and tagged fields.
const FIRST_FLEXIBLE_VERSION: i16 = 4;
/// Tag of `OffsetCommitValue.topicId`.
const TOPIC_ID_TAG: u32 = 0;

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
        let mut reader = Reader::new(bytes);
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
        let mut reader = Reader::new(bytes);
        let version = reader.version("OffsetCommitValue", FIRST_FLEXIBLE_VERSION)?;
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
        if reader.is_flexible() {
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
        let mut reader = Reader::new(bytes);
        let version = reader.version("GroupMetadataValue", FIRST_FLEXIBLE_VERSION)?;
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
        if reader.is_flexible() {
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
        if reader.is_flexible() {
            reader.tagged_fields(|_, _| ())?;
        }
        Ok(member)
    }
}

#[cfg(test)]
mod tests;
