//! Topic configs: their names, types, ranges, defaults and documentation, as Kafka 4 has them, and
//! the typed form that the logs obey.
//!
//! A value comes from the topic, else from what was set on the running broker, else from the
//! broker's file, else from the table here. Every
//! config of the table is accepted, kept and described; those that this release does not act on
//! say so in their documentation.

use std::collections::BTreeMap;
use std::sync::Arc;

use storage::LogConfig;
use storage::batch::Compression;
use storage::config::{CompressionType, TimestampType};
use storage::partition_log::Durability;

use super::{CatalogError, TopicConfig};

mod defaults;
mod table;

pub use defaults::TopicDefaults;
pub use table::TOPIC_CONFIGS;

/// Kafka's test-only override of `segment.bytes` without its lower bound. Accepted, not described.
const INTERNAL_SEGMENT_BYTES: &str = "internal.segment.bytes";

/// The smallest offset index that a segment is given, bytes: room for a few entries of both
/// indexes, so that a segment can always take a batch.
const MIN_SEGMENT_INDEX_BYTES: u32 = 64;

/// The `compression.gzip.level` that leaves it to gzip.
const GZIP_OWN_LEVEL: i32 = -1;

/// The longest value: a list may repeat itself.
const MAX_VALUE_BYTES: usize = 4096;

const NOT_ACTED_ON: &str = " Kept and shown; this release does not act on it.";

/// What values a config takes. Bounds are inclusive.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ConfigKind {
    /// `true` or `false`, in any case.
    Boolean,
    /// A 32-bit integer.
    Int {
        /// The smallest value.
        min: i32,
        /// The largest value.
        max: i32,
    },
    /// A 32-bit integer between bounds, or this one beside them.
    IntOr {
        /// The smallest value.
        min: i32,
        /// The largest value.
        max: i32,
        /// What is taken too.
        or: i32,
    },
    /// A 64-bit integer.
    Long {
        /// The smallest value.
        min: i64,
    },
    /// A number.
    Double {
        /// The smallest value.
        min: f64,
        /// The largest value.
        max: f64,
    },
    /// One of these words.
    Choice(&'static [&'static str]),
    /// Any of these words, comma-separated.
    List(&'static [&'static str]),
    /// Replicas, comma-separated: `partition:broker` each, or `*` for all.
    ReplicaList,
    /// `true` or `false`, of which this broker can only do `false`.
    NotServed,
}

impl ConfigKind {
    /// Takes several values, comma-separated.
    pub fn is_list(&self) -> bool {
        matches!(self, Self::List(_) | Self::ReplicaList)
    }

    /// Says what is wrong with `value`.
    pub(crate) fn check(&self, value: &str) -> Result<(), String> {
        if value.len() > MAX_VALUE_BYTES {
            return Err(format!("must not be longer than {MAX_VALUE_BYTES} bytes"));
        }
        match *self {
            Self::Boolean => parse_boolean(value).map(|_| ()),
            Self::Int { min, max } => match value.parse::<i32>() {
                Ok(number) if number < min => Err(format!("must be at least {min}")),
                Ok(number) if number > max => Err(format!("must be at most {max}")),
                Ok(_) => Ok(()),
                Err(_) => Err("must be a 32-bit integer".to_owned()),
            },
            Self::IntOr { min, max, or } => match value.parse::<i32>() {
                Ok(number) if (min..=max).contains(&number) || number == or => Ok(()),
                Ok(_) => Err(format!("must be between {min} and {max}, or {or}")),
                Err(_) => Err("must be a 32-bit integer".to_owned()),
            },
            Self::Long { min } => match value.parse::<i64>() {
                Ok(number) if number < min => Err(format!("must be at least {min}")),
                Ok(_) => Ok(()),
                Err(_) => Err("must be a 64-bit integer".to_owned()),
            },
            Self::Double { min, max } => match value.parse::<f64>() {
                Ok(number) if (min..=max).contains(&number) => Ok(()),
                Ok(_) if max == f64::MAX => Err(format!("must be a number of at least {min}")),
                Ok(_) => Err(format!("must be between {min} and {max}")),
                Err(_) => Err("must be a number".to_owned()),
            },
            Self::Choice(words) if words.contains(&value) => Ok(()),
            Self::Choice(words) => Err(format!("must be one of {}", words.join(", "))),
            Self::List(words) => match list(value).find(|word| !words.contains(word)) {
                None => Ok(()),
                Some(word) => Err(format!("{word:?} is not one of {}", words.join(", "))),
            },
            Self::ReplicaList => match list(value).find(|word| !is_replica(word)) {
                Some(word) if value.trim() != "*" => {
                    Err(format!("{word:?} is not of the form partition:broker"))
                }
                _ => Ok(()),
            },
            Self::NotServed => match parse_boolean(value) {
                Ok(true) => Err("is not served by this broker".to_owned()),
                checked => checked.map(|_| ()),
            },
        }
    }
}

/// One topic config.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TopicConfigDef {
    /// Its name on a topic.
    pub name: &'static str,
    /// The name under which the broker's default for it is set and described, if there is one.
    pub broker_name: Option<&'static str>,
    /// What it takes.
    pub kind: ConfigKind,
    /// Its value where neither the topic nor the broker's file sets one.
    pub default: &'static str,
    /// As Kafka describes it: where nobody sets the broker's default, it follows from another
    /// config (such as log.retention.hours), and is null under its own name.
    pub follows: bool,
    meaning: &'static str,
    acted_on: bool,
}

impl TopicConfigDef {
    /// What it means, and whether this release acts on it.
    pub fn documentation(&self) -> String {
        let mut text = self.meaning.to_owned();
        if !self.acted_on {
            text.push_str(NOT_ACTED_ON);
        }
        text
    }

    /// The config of that name.
    pub fn find(name: &str) -> Option<&'static Self> {
        TOPIC_CONFIGS
            .binary_search_by(|def| def.name.cmp(name))
            .ok()
            .and_then(|at| TOPIC_CONFIGS.get(at))
    }

    /// The config whose default has that name on the broker.
    pub fn find_by_broker_name(name: &str) -> Option<&'static Self> {
        TOPIC_CONFIGS
            .iter()
            .find(|def| def.broker_name == Some(name))
    }

    const fn new(
        name: &'static str,
        broker_name: &'static str,
        kind: ConfigKind,
        default: &'static str,
        meaning: &'static str,
    ) -> Self {
        Self {
            name,
            broker_name: Some(broker_name),
            kind,
            default,
            follows: false,
            meaning,
            acted_on: true,
        }
    }

    /// It is set on topics alone.
    const fn of_topics_alone(mut self) -> Self {
        self.broker_name = None;
        self
    }

    const fn follows(mut self) -> Self {
        self.follows = true;
        self
    }

    const fn not_acted_on(mut self) -> Self {
        self.acted_on = false;
        self
    }
}

/// Where a config's value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigSource {
    /// Set on the topic.
    Topic,
    /// Set on the running broker, for this node.
    DynamicBroker,
    /// Set on the running broker, as the cluster's default.
    DynamicDefaultBroker,
    /// Set in the broker's file.
    BrokerFile,
    /// Set nowhere.
    Default,
}

/// The value that a topic with `explicit` configs has, and where it comes from.
pub fn effective<'a>(
    def: &'static TopicConfigDef,
    explicit: &'a BTreeMap<String, String>,
    defaults: &'a TopicDefaults,
) -> (&'a str, ConfigSource) {
    if let Some(value) = explicit.get(def.name) {
        (value, ConfigSource::Topic)
    } else {
        let default = (def.default, ConfigSource::Default);
        defaults.places(def.name).next().unwrap_or(default)
    }
}

/// `cleanup.policy` contains `delete`: what is old goes, and records may be deleted.
pub fn deletes_old_records(explicit: &BTreeMap<String, String>, defaults: &TopicDefaults) -> bool {
    let values = Values { explicit, defaults };
    values.has_policy("delete").unwrap_or(false)
}

/// Checks names and values, and trims the values.
pub(super) fn checked(
    configs: BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>, CatalogError> {
    configs
        .into_iter()
        .map(|(key, value)| {
            let trimmed = value.trim();
            let kind = match TopicConfigDef::find(&key) {
                Some(def) => def.kind,
                None if key == INTERNAL_SEGMENT_BYTES => ConfigKind::Int {
                    min: 1,
                    max: i32::MAX,
                },
                None => return Err(invalid(&key, trimmed, "unknown topic config")),
            };
            match kind.check(trimmed) {
                Ok(()) => Ok((key, trimmed.to_owned())),
                Err(reason) => Err(invalid(&key, trimmed, &reason)),
            }
        })
        .collect()
}

/// What must hold between the configs of a topic that is created.
pub(super) fn check_new_configs(
    explicit: &BTreeMap<String, String>,
    defaults: &TopicDefaults,
) -> Result<(), CatalogError> {
    let values = Values { explicit, defaults };
    let minimum = values.number::<i64>("min.compaction.lag.ms")?;
    let maximum = values.number::<i64>("max.compaction.lag.ms")?;
    if values.has_policy("compact")? && minimum > maximum {
        return Err(invalid(
            "min.compaction.lag.ms",
            &minimum.to_string(),
            &format!("must not be above max.compaction.lag.ms, which is {maximum}"),
        ));
    }
    Ok(())
}

impl TopicConfig {
    /// The typed form of a topic's configs over the broker's defaults.
    pub fn from_configs(
        explicit: &BTreeMap<String, String>,
        defaults: &TopicDefaults,
    ) -> Result<Self, CatalogError> {
        let values = Values { explicit, defaults };
        let segment_bytes = match explicit.get(INTERNAL_SEGMENT_BYTES) {
            Some(value) => parse(INTERNAL_SEGMENT_BYTES, value)?,
            None => values.number("segment.bytes")?,
        };
        let segment_index_bytes: u32 = values.number("segment.index.bytes")?;
        let log = LogConfig {
            segment_bytes,
            segment_ms: values.number("segment.ms")?,
            segment_jitter_ms: values.number("segment.jitter.ms")?,
            segment_index_bytes: segment_index_bytes.max(MIN_SEGMENT_INDEX_BYTES),
            index_interval_bytes: values.number("index.interval.bytes")?,
            max_message_bytes: values.number("max.message.bytes")?,
            compression: values.compression()?,
            message_timestamp_type: values.timestamp_type()?,
            message_timestamp_before_max_ms: values.number("message.timestamp.before.max.ms")?,
            message_timestamp_after_max_ms: values.number("message.timestamp.after.max.ms")?,
            preallocate: values.boolean("preallocate")?,
            flush_messages: values.number("flush.messages")?,
            flush_ms: values.number("flush.ms")?,
            compact: values.has_policy("compact")?,
            min_cleanable_dirty_ratio: values.number("min.cleanable.dirty.ratio")?,
            min_compaction_lag_ms: values.number("min.compaction.lag.ms")?,
            max_compaction_lag_ms: values.number("max.compaction.lag.ms")?,
            delete_retention_ms: values.number("delete.retention.ms")?,
            delete: values.has_policy("delete")?,
            retention_ms: values.number("retention.ms")?,
            retention_bytes: values.number("retention.bytes")?,
            file_delete_delay_ms: values.number("file.delete.delay.ms")?,
            producer_id_expiration_ms: defaults.producer_id_expiration_ms(),
        };
        Ok(Self {
            log: Arc::new(log),
            durability_all: values.durability("milena.acks.all.durability")?,
            durability_one: values.durability("milena.acks.one.durability")?,
        })
    }
}

struct Values<'a> {
    explicit: &'a BTreeMap<String, String>,
    defaults: &'a TopicDefaults,
}

impl<'a> Values<'a> {
    fn text(&self, name: &str) -> Result<&'a str, CatalogError> {
        let def =
            TopicConfigDef::find(name).ok_or_else(|| invalid(name, "", "unknown topic config"))?;
        Ok(effective(def, self.explicit, self.defaults).0)
    }

    fn number<T: std::str::FromStr>(&self, name: &str) -> Result<T, CatalogError> {
        parse(name, self.text(name)?)
    }

    fn boolean(&self, name: &str) -> Result<bool, CatalogError> {
        let value = self.text(name)?;
        parse_boolean(value).map_err(|reason| invalid(name, value, &reason))
    }

    fn has_policy(&self, policy: &str) -> Result<bool, CatalogError> {
        Ok(list(self.text("cleanup.policy")?).any(|word| word == policy))
    }

    fn compression(&self) -> Result<CompressionType, CatalogError> {
        let name = "compression.type";
        let (codec, level) = match self.text(name)? {
            "producer" => return Ok(CompressionType::Producer),
            "uncompressed" => (Compression::None, None),
            "gzip" => {
                let level: i32 = self.number("compression.gzip.level")?;
                (
                    Compression::Gzip,
                    (level != GZIP_OWN_LEVEL).then_some(level),
                )
            }
            "snappy" => (Compression::Snappy, None),
            "lz4" => (Compression::Lz4, None),
            "zstd" => {
                let level = self.number("compression.zstd.level")?;
                (Compression::Zstd, Some(level))
            }
            other => {
                return Err(invalid(
                    name,
                    other,
                    "must be one of gzip, lz4, producer, snappy, uncompressed, zstd",
                ));
            }
        };
        Ok(CompressionType::Codec { codec, level })
    }

    fn timestamp_type(&self) -> Result<TimestampType, CatalogError> {
        let name = "message.timestamp.type";
        match self.text(name)? {
            "CreateTime" => Ok(TimestampType::CreateTime),
            "LogAppendTime" => Ok(TimestampType::LogAppendTime),
            other => Err(invalid(
                name,
                other,
                "must be one of CreateTime, LogAppendTime",
            )),
        }
    }

    fn durability(&self, name: &str) -> Result<Durability, CatalogError> {
        match self.text(name)? {
            "disk" => Ok(Durability::Disk),
            "page_cache" => Ok(Durability::PageCache),
            other => Err(invalid(name, other, "must be one of disk, page_cache")),
        }
    }
}

fn parse<T: std::str::FromStr>(name: &str, value: &str) -> Result<T, CatalogError> {
    value
        .parse()
        .map_err(|_| invalid(name, value, "is out of range"))
}

fn parse_boolean(value: &str) -> Result<bool, String> {
    if value.eq_ignore_ascii_case("true") {
        Ok(true)
    } else if value.eq_ignore_ascii_case("false") {
        Ok(false)
    } else {
        Err("must be true or false".to_owned())
    }
}

pub(super) fn list(value: &str) -> impl Iterator<Item = &str> {
    value
        .split(',')
        .map(str::trim)
        .filter(|word| !word.is_empty())
}

fn is_replica(word: &str) -> bool {
    word.split_once(':').is_some_and(|(partition, broker)| {
        partition.parse::<u32>().is_ok() && broker.parse::<u32>().is_ok()
    })
}

fn invalid(key: &str, value: &str, reason: &str) -> CatalogError {
    CatalogError::InvalidConfig {
        key: key.to_owned(),
        value: value.to_owned(),
        reason: reason.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configs(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect()
    }

    #[test]
    fn the_table_is_sorted_and_its_defaults_are_legal() {
        assert!(TOPIC_CONFIGS.is_sorted_by(|a, b| a.name < b.name));
        for def in TOPIC_CONFIGS {
            assert_eq!(def.kind.check(def.default), Ok(()), "{}", def.name);
            assert!(TopicConfigDef::find(def.name).is_some());
        }
    }

    #[test]
    fn the_tables_defaults_are_the_logs_defaults() {
        let config =
            TopicConfig::from_configs(&BTreeMap::new(), &TopicDefaults::default()).unwrap();
        assert_eq!(*config.log, LogConfig::default());
        assert_eq!(config.durability_all, Durability::Disk);
        assert_eq!(config.durability_one, Durability::PageCache);
    }

    #[test]
    fn values_are_checked_as_kafka_checks_them() {
        let accepted = [
            ("segment.bytes", "1048576"),
            ("segment.bytes", " 2097152 "),
            ("internal.segment.bytes", "1000"),
            ("retention.ms", "-1"),
            ("retention.bytes", "-5"),
            ("cleanup.policy", "compact, delete"),
            ("cleanup.policy", ""),
            ("preallocate", "TRUE"),
            ("min.cleanable.dirty.ratio", "1"),
            ("compression.type", "zstd"),
            ("message.timestamp.type", "LogAppendTime"),
            ("milena.acks.all.durability", "page_cache"),
        ];
        for (key, value) in accepted {
            assert!(checked(configs(&[(key, value)])).is_ok(), "{key} = {value}");
        }
        let refused = [
            ("segment.bytes", "1048575", "at least 1048576"),
            ("segment.bytes", "2147483648", "32-bit"),
            ("segment.ms", "0", "at least 1"),
            ("retention.ms", "-2", "at least -1"),
            ("retention.ms", "a week", "64-bit"),
            ("cleanup.policy", "compact,shred", "\"shred\""),
            ("preallocate", "yes", "true or false"),
            ("min.cleanable.dirty.ratio", "1.01", "between 0 and 1"),
            ("min.cleanable.dirty.ratio", "NaN", "between 0 and 1"),
            ("compression.type", "brotli", "one of gzip"),
            ("compression.lz4.level", "18", "at most 17"),
            ("compression.gzip.level", "0", "between 1 and 9, or -1"),
            ("message.timestamp.type", "createtime", "one of CreateTime"),
            ("milena.acks.one.durability", "tape", "one of disk"),
            ("no.such.config", "1", "unknown topic config"),
        ];
        for (key, value, reason) in refused {
            let error = checked(configs(&[(key, value)])).unwrap_err().to_string();
            assert!(
                error.contains(key) && error.contains(reason),
                "{key} = {value}: {error}"
            );
        }
    }

    #[test]
    fn a_topic_goes_before_the_brokers_file_and_that_before_the_default() {
        let defaults = TopicDefaults::new(configs(&[
            ("segment.ms", "7"),
            ("cleanup.policy", "compact"),
        ]))
        .unwrap();
        let explicit = configs(&[("segment.ms", "9"), ("internal.segment.bytes", "4000")]);
        let config = TopicConfig::from_configs(&explicit, &defaults).unwrap();
        assert_eq!(config.log.segment_ms, 9);
        assert_eq!(config.log.segment_bytes, 4000);
        assert!(config.log.compact);

        let source = |name| effective(TopicConfigDef::find(name).unwrap(), &explicit, &defaults);
        assert_eq!(source("segment.ms"), ("9", ConfigSource::Topic));
        assert_eq!(
            source("cleanup.policy"),
            ("compact", ConfigSource::BrokerFile)
        );
        assert_eq!(source("retention.ms"), ("604800000", ConfigSource::Default));
    }

    #[test]
    fn compaction_lags_must_not_cross() {
        let crossed = configs(&[
            ("cleanup.policy", "compact"),
            ("min.compaction.lag.ms", "10"),
            ("max.compaction.lag.ms", "9"),
        ]);
        assert!(check_new_configs(&crossed, &TopicDefaults::default()).is_err());
        assert!(TopicDefaults::new(crossed).is_err());
    }
}
