//! The records of the catalog's log.
//!
//! Keys and values are JSON. One change is one batch, and so whole or absent.
//!
//! | key | value |
//! |---|---|
//! | `{"type":"topic","name":…}` | `{"id":…,"kind":{"type":…},"partitions":…,"configs":{…}}`, null when deleted |
//! | `{"type":"broker_configs","scope":"node"}` or `"cluster"` | `{"configs":{…}}`: what is set on the running broker |
//! | `{"type":"producer_ids"}` | `{"next":…}`: the first producer id that is not handed out yet |
//!
//! Each record says all there is to say of its key, and none depends on another key's: so the newest
//! of each, which is what compaction leaves, come to the same as all of them.
//!
//! A replay also learns which topics are dead: only the folders of those may be removed. Of a topic that
//! was deleted its tombstone says so by name for `delete.retention.ms`; its id is known only as long as
//! compaction has left an earlier record.

use std::collections::{BTreeMap, HashSet};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use storage::batch::{self, BatchBuilder, Compression, Record};
use storage::partition_log::{Read, ReadLimit};
use storage::{Offset, PartitionLog};
use uuid::Uuid;

use super::broker_config::{BrokerConfigs, BrokerScope};
use super::{CatalogError, TopicKind};

/// Bytes per read of the replay.
const READ_BYTES: usize = 1 << 20;
/// The largest batch that a replay opens. One batch is one change.
const MAX_BATCH_BYTES: usize = 64 << 20;
/// The largest change that is written: well within what a replay opens.
pub(super) const MAX_CHANGE_BYTES: usize = 32 << 20;

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Key {
    Topic { name: String },
    BrokerConfigs { scope: Scope },
    ProducerIds,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Scope {
    Node,
    Cluster,
}

impl From<BrokerScope> for Scope {
    fn from(scope: BrokerScope) -> Self {
        match scope {
            BrokerScope::Node => Self::Node,
            BrokerScope::Cluster => Self::Cluster,
        }
    }
}

impl From<Scope> for BrokerScope {
    fn from(scope: Scope) -> Self {
        match scope {
            Scope::Node => Self::Node,
            Scope::Cluster => Self::Cluster,
        }
    }
}

/// What the log keeps of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TopicRecord {
    pub id: Uuid,
    pub kind: TopicKind,
    pub partitions: i32,
    pub configs: BTreeMap<String, String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct TopicValue {
    id: String,
    kind: TopicKind,
    partitions: i32,
    #[serde(default)]
    configs: BTreeMap<String, String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct BrokerConfigsValue {
    configs: BTreeMap<String, String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct ProducerIdsValue {
    next: i64,
}

/// What the log says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Replayed {
    /// By name.
    pub topics: BTreeMap<String, TopicRecord>,
    /// Ids that topics had before they were deleted.
    pub dead_ids: HashSet<Uuid>,
    /// Names that were deleted and not created again: whatever was under them is dead.
    pub dead_names: HashSet<String>,
    /// What is set on the running broker.
    pub broker_configs: BrokerConfigs,
    /// The first producer id that is not handed out yet.
    pub next_producer_id: i64,
    /// There was no record at all.
    pub is_empty: bool,
}

/// The batch that creates, changes or, without a record, deletes a topic.
pub(super) fn topic_batch(
    timestamp_ms: i64,
    name: &str,
    record: Option<&TopicRecord>,
) -> Result<Bytes, CatalogError> {
    let mut batch = BatchBuilder::new(Compression::None);
    push_topic(&mut batch, timestamp_ms, name, record)?;
    Ok(batch.build())
}

/// The batch that changes several topics at once.
pub(super) fn topics_batch<'a>(
    timestamp_ms: i64,
    topics: impl Iterator<Item = (&'a str, &'a TopicRecord)>,
) -> Result<Bytes, CatalogError> {
    let mut batch = BatchBuilder::new(Compression::None);
    for (name, record) in topics {
        push_topic(&mut batch, timestamp_ms, name, Some(record))?;
    }
    Ok(batch.build())
}

fn push_topic(
    batch: &mut BatchBuilder,
    timestamp_ms: i64,
    name: &str,
    record: Option<&TopicRecord>,
) -> Result<(), CatalogError> {
    let key = Key::Topic {
        name: name.to_owned(),
    };
    let value = record.map(|record| TopicValue {
        id: record.id.to_string(),
        kind: record.kind.clone(),
        partitions: record.partitions,
        configs: record.configs.clone(),
    });
    push(batch, timestamp_ms, &key, value.as_ref())
}

/// The batch that sets what is set on the running broker for `scope`.
pub(super) fn broker_configs_batch(
    timestamp_ms: i64,
    scope: BrokerScope,
    configs: &BTreeMap<String, String>,
) -> Result<Bytes, CatalogError> {
    let key = Key::BrokerConfigs {
        scope: scope.into(),
    };
    let value = BrokerConfigsValue {
        configs: configs.clone(),
    };
    let mut batch = BatchBuilder::new(Compression::None);
    push(&mut batch, timestamp_ms, &key, Some(&value))?;
    Ok(batch.build())
}

/// The batch that reserves all producer ids below `next`.
pub(super) fn producer_ids_batch(timestamp_ms: i64, next: i64) -> Result<Bytes, CatalogError> {
    let mut batch = BatchBuilder::new(Compression::None);
    let value = ProducerIdsValue { next };
    push(&mut batch, timestamp_ms, &Key::ProducerIds, Some(&value))?;
    Ok(batch.build())
}

fn push<V: Serialize>(
    batch: &mut BatchBuilder,
    timestamp_ms: i64,
    key: &Key,
    value: Option<&V>,
) -> Result<(), CatalogError> {
    let json = |error: serde_json::Error| CatalogError::Encode(error.to_string());
    let key = serde_json::to_vec(key).map_err(json)?;
    let value = value.map(serde_json::to_vec).transpose().map_err(json)?;
    batch.push(timestamp_ms, Some(&key), value.as_deref(), &[]);
    Ok(())
}

/// Blocking. Reads the whole log.
pub(super) fn replay(log: &PartitionLog) -> Result<Replayed, CatalogError> {
    let mut replayed = Replayed {
        is_empty: true,
        ..Replayed::default()
    };
    let mut offset = log.offsets().log_start_offset;
    while offset < log.offsets().log_end_offset {
        let fetched = match log.read(offset, READ_BYTES, true, ReadLimit::LogEnd)? {
            Read::Warm(fetched) => fetched,
            Read::Cold(cold) => cold.load()?,
        };
        if fetched.records.is_empty() {
            // What stood between here and the end was compacted away. What is lost to damage is an
            // error of the read.
            break;
        }
        let next = apply_batches(&mut replayed, offset, &fetched.records)?;
        if next <= offset {
            return Err(CatalogError::Corrupt {
                offset,
                reason: "the read came back without the record".to_owned(),
            });
        }
        offset = next;
    }
    Ok(replayed)
}

/// Applies whole batches and returns the offset after them.
fn apply_batches(
    replayed: &mut Replayed,
    mut offset: Offset,
    records: &Bytes,
) -> Result<Offset, CatalogError> {
    let mut position = 0;
    for found in batch::header::batches(records) {
        let found = found?;
        let end = position + found.size_in_bytes();
        let next = found.last_offset() + 1;
        if !found.is_control() {
            for record in batch::records::decode(&records.slice(position..end), MAX_BATCH_BYTES)? {
                replayed
                    .apply(&record)
                    .map_err(|reason| CatalogError::Corrupt {
                        offset: record.offset,
                        reason,
                    })?;
            }
        }
        position = end;
        offset = next;
    }
    Ok(offset)
}

impl Replayed {
    fn apply(&mut self, record: &Record) -> Result<(), String> {
        self.is_empty = false;
        let key = record.key.as_ref().ok_or("it has no key")?;
        let key: Key = serde_json::from_slice(key).map_err(|e| format!("its key: {e}"))?;
        let invalid = |e: serde_json::Error| format!("its value: {e}");
        match (key, record.value.as_ref()) {
            (Key::Topic { name }, Some(value)) => {
                let value: TopicValue = serde_json::from_slice(value).map_err(invalid)?;
                let id = Uuid::parse_str(&value.id)
                    .map_err(|e| format!("its topic id {:?}: {e}", value.id))?;
                self.dead_names.remove(&name);
                self.dead_ids.remove(&id);
                let TopicValue {
                    kind,
                    partitions,
                    configs,
                    ..
                } = value;
                let topic = TopicRecord {
                    id,
                    kind,
                    partitions,
                    configs,
                };
                if let Some(earlier) = self.topics.insert(name, topic)
                    && earlier.id != id
                {
                    self.dead_ids.insert(earlier.id);
                }
            }
            (Key::Topic { name }, None) => {
                if let Some(earlier) = self.topics.remove(&name) {
                    self.dead_ids.insert(earlier.id);
                }
                self.dead_names.insert(name);
            }
            (Key::BrokerConfigs { scope }, Some(value)) => {
                let value: BrokerConfigsValue = serde_json::from_slice(value).map_err(invalid)?;
                self.broker_configs.set(scope.into(), value.configs);
            }
            (Key::BrokerConfigs { .. }, None) => {
                return Err("the broker configs have no value".to_owned());
            }
            (Key::ProducerIds, Some(value)) => {
                let value: ProducerIdsValue = serde_json::from_slice(value).map_err(invalid)?;
                self.next_producer_id = self.next_producer_id.max(value.next);
            }
            (Key::ProducerIds, None) => return Err("the producer ids have no value".to_owned()),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(key: &str, value: Option<&str>) -> Record {
        Record {
            offset: 7,
            timestamp: 0,
            key: Some(Bytes::copy_from_slice(key.as_bytes())),
            value: value.map(|v| Bytes::copy_from_slice(v.as_bytes())),
            headers: Vec::new(),
        }
    }

    const KEY: &str = r#"{"type":"topic","name":"a"}"#;
    const ONE: &str = r#"{"id":"00000000-0000-0000-0000-000000000001","kind":{"type":"ordinary"},"partitions":2,"configs":{"segment.ms":"5"}}"#;
    const TWO: &str = r#"{"id":"00000000-0000-0000-0000-000000000002","kind":{"type":"derived","model_topic":"m"},"partitions":1}"#;

    #[test]
    fn a_topic_that_is_created_again_leaves_a_dead_id() {
        let mut replayed = Replayed::default();
        replayed.apply(&record(KEY, Some(ONE))).unwrap();
        assert_eq!(replayed.topics["a"].configs["segment.ms"], "5");
        replayed.apply(&record(KEY, None)).unwrap();
        assert!(replayed.topics.is_empty() && replayed.dead_names.contains("a"));
        replayed.apply(&record(KEY, Some(TWO))).unwrap();
        assert_eq!(replayed.topics["a"].id, Uuid::from_u128(2));
        assert_eq!(
            replayed.topics["a"].kind,
            TopicKind::Derived {
                model_topic: "m".to_owned()
            }
        );
        assert_eq!(replayed.dead_ids, HashSet::from([Uuid::from_u128(1)]));
        assert!(replayed.dead_names.is_empty());
    }

    #[test]
    fn producer_ids_only_grow() {
        let mut replayed = Replayed::default();
        for next in ["2000", "1000"] {
            let value = format!(r#"{{"next":{next}}}"#);
            replayed
                .apply(&record(r#"{"type":"producer_ids"}"#, Some(&value)))
                .unwrap();
        }
        assert_eq!(replayed.next_producer_id, 2000);
    }

    #[test]
    fn a_record_that_is_not_understood_is_refused() {
        let mut replayed = Replayed::default();
        for (key, value) in [
            ("not json", Some(ONE)),
            (r#"{"type":"acl"}"#, Some(ONE)),
            (KEY, Some("{}")),
            (
                KEY,
                Some(r#"{"id":"x","kind":{"type":"ordinary"},"partitions":1}"#),
            ),
            (r#"{"type":"producer_ids"}"#, None),
        ] {
            assert!(
                replayed.apply(&record(key, value)).is_err(),
                "{key} {value:?}"
            );
        }
        assert!(replayed.topics.is_empty());
    }
}
