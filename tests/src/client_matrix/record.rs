//! A record as the client programs take and give it: one line of JSON, texts only.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// What is written, and what is expected back.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Record {
    /// Where it is written; the client chooses where there is none.
    pub partition: Option<i32>,
    /// Milliseconds since the epoch; the time of sending where there is none.
    pub timestamp_ms: Option<i64>,
    /// Its key.
    pub key: Option<String>,
    /// Its value.
    pub value: Option<String>,
    /// By name; their order is not looked at.
    pub headers: BTreeMap<String, Option<String>>,
}

impl Record {
    /// A record for a given partition.
    pub fn new(partition: i32, key: &str, value: String) -> Self {
        Self {
            partition: Some(partition),
            key: Some(key.to_owned()),
            value: Some(value),
            ..Self::default()
        }
    }

    /// The producer programs' input line, without its end.
    pub fn to_line(&self) -> String {
        let mut line = json!({"key": self.key, "value": self.value});
        if let Some(partition) = self.partition {
            line["partition"] = json!(partition);
        }
        if let Some(timestamp_ms) = self.timestamp_ms {
            line["timestamp"] = json!(timestamp_ms);
        }
        if !self.headers.is_empty() {
            line["headers"] = json!(self.headers);
        }
        line.to_string()
    }

    /// The same in key, value and headers, and in partition and time where this says one.
    pub fn is_read_as(&self, read: &Read) -> bool {
        self.key == read.key
            && self.value == read.value
            && self.headers == read.headers
            && self.partition.is_none_or(|p| p == read.partition)
            && self.timestamp_ms.is_none_or(|t| t == read.timestamp_ms)
    }
}

/// A record as a consumer gave it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Read {
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// Milliseconds since the epoch.
    pub timestamp_ms: i64,
    /// Its key.
    pub key: Option<String>,
    /// Its value.
    pub value: Option<String>,
    /// By name.
    pub headers: BTreeMap<String, Option<String>>,
}

/// What a program says on a line of its output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Partitions came to a consumer: all that it has, or with a cooperative assignor what is new.
    Assigned(Vec<i32>),
    /// Partitions were taken from it.
    Revoked(Vec<i32>),
    /// A record was read.
    Read(Read),
    /// A record was written: its partition and offset.
    Written(i32, i64),
    /// A transaction ended: whether it was committed.
    Ended(bool),
}

impl Event {
    /// A line as the contract of the client programs has it.
    pub fn from_line(line: &str) -> Option<Self> {
        let line: Value = serde_json::from_str(line).ok()?;
        if let Some(event) = line.get("event") {
            let partitions = line
                .get("partitions")?
                .as_array()?
                .iter()
                .map(partition)
                .collect::<Option<_>>()?;
            return match event.as_str()? {
                "assigned" => Some(Self::Assigned(partitions)),
                "revoked" => Some(Self::Revoked(partitions)),
                _ => None,
            };
        }
        if let Some(how) = line.get("transaction") {
            return match how.as_str()? {
                "committed" => Some(Self::Ended(true)),
                "aborted" => Some(Self::Ended(false)),
                _ => None,
            };
        }
        let (at, offset) = (
            partition(line.get("partition")?)?,
            line.get("offset")?.as_i64()?,
        );
        let Some(timestamp) = line.get("timestamp") else {
            return Some(Self::Written(at, offset));
        };
        let headers = match line.get("headers") {
            None => BTreeMap::new(),
            Some(headers) => headers
                .as_object()?
                .iter()
                .map(|(name, value)| Some((name.clone(), text(value)?)))
                .collect::<Option<_>>()?,
        };
        Some(Self::Read(Read {
            partition: at,
            offset,
            timestamp_ms: timestamp.as_i64()?,
            key: text(line.get("key")?)?,
            value: text(line.get("value")?)?,
            headers,
        }))
    }
}

fn partition(value: &Value) -> Option<i32> {
    value.as_i64().and_then(|p| i32::try_from(p).ok())
}

/// A text or null; anything else is no such thing.
pub(super) fn text(value: &Value) -> Option<Option<String>> {
    match value {
        Value::Null => Some(None),
        Value::String(text) => Some(Some(text.clone())),
        _ => None,
    }
}
