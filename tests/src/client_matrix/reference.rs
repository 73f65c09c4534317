//! The librdkafka inside the driver: it makes topics, and stands opposite to the client under test
//! where a case needs one side only.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::{ClientConfig, FromClientConfig};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use rdkafka::{Offset, TopicPartitionList};

use super::program::PATIENCE;
use super::record::{Read, Record};
use crate::Isolation;

fn client<T: FromClientConfig>(bootstrap: &str, settings: &[(&str, &str)]) -> Result<T, String> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap);
    for (key, value) in settings {
        config.set(*key, *value);
    }
    config.create().map_err(|e| e.to_string())
}

/// Makes a topic, and waits until it is known.
pub fn create_topic(bootstrap: &str, topic: &str, partitions: i32) -> Result<(), String> {
    let admin: AdminClient<DefaultClientContext> = client(bootstrap, &[])?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let new_topic = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
    let options = AdminOptions::new().operation_timeout(Some(PATIENCE));
    let created = runtime
        .map_err(|e| e.to_string())?
        .block_on(admin.create_topics([&new_topic], &options));
    for result in created.map_err(|e| e.to_string())? {
        result.map_err(|(topic, code)| format!("topic '{topic}' is not created: {code}"))?;
    }
    let deadline = Instant::now() + PATIENCE;
    loop {
        let metadata = admin
            .inner()
            .fetch_metadata(Some(topic), PATIENCE)
            .map_err(|e| e.to_string())?;
        let known = metadata.topics().iter().any(|t| {
            t.error().is_none()
                && t.partitions().iter().filter(|p| p.leader() >= 0).count() == partitions as usize
        });
        if known {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(format!("topic '{topic}' has no leaders"));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Whether there is such a topic.
pub fn has_topic(bootstrap: &str, topic: &str) -> Result<bool, String> {
    let consumer: BaseConsumer = client(bootstrap, &[("group.id", "unused")])?;
    let metadata = consumer
        .fetch_metadata(None, PATIENCE)
        .map_err(|e| e.to_string())?;
    Ok(metadata.topics().iter().any(|t| t.name() == topic))
}

/// Writes records.
pub struct Writer {
    producer: ThreadedProducer<DefaultProducerContext>,
    topic: String,
}

impl Writer {
    /// An idempotent producer.
    pub fn new(bootstrap: &str, topic: &str, codec: &str) -> Result<Self, String> {
        let settings = [
            ("enable.idempotence", "true"),
            ("compression.type", codec),
            ("linger.ms", "5"),
        ];
        Ok(Self {
            producer: client(bootstrap, &settings)?,
            topic: topic.to_owned(),
        })
    }

    /// Queues a record.
    pub fn send(&self, record: &Record) -> Result<(), String> {
        let mut to = BaseRecord::<str, str>::to(&self.topic);
        to.partition = record.partition;
        to.timestamp = record.timestamp_ms;
        to.key = record.key.as_deref();
        to.payload = record.value.as_deref();
        if !record.headers.is_empty() {
            to.headers = Some(record.headers.iter().fold(
                OwnedHeaders::new(),
                |headers, (key, value)| {
                    headers.insert(Header {
                        key,
                        value: value.as_deref(),
                    })
                },
            ));
        }
        self.producer.send(to).map_err(|(e, _)| e.to_string())
    }

    /// Waits until all are written.
    pub fn flush(&self) -> Result<(), String> {
        self.producer.flush(PATIENCE).map_err(|e| e.to_string())
    }
}

/// Writes records, and waits for them.
pub fn produce(
    bootstrap: &str,
    topic: &str,
    codec: &str,
    records: &[Record],
) -> Result<(), String> {
    let writer = Writer::new(bootstrap, topic, codec)?;
    for record in records {
        writer.send(record)?;
    }
    writer.flush()
}

/// The end of each partition.
pub fn ends(bootstrap: &str, topic: &str, partitions: i32) -> Result<BTreeMap<i32, i64>, String> {
    ends_as(Isolation::ReadCommitted, bootstrap, topic, partitions)
}

/// The last stable offset of each partition, or its high watermark.
pub fn ends_as(
    isolation: Isolation,
    bootstrap: &str,
    topic: &str,
    partitions: i32,
) -> Result<BTreeMap<i32, i64>, String> {
    let settings = [
        ("group.id", "unused"),
        ("isolation.level", isolation.name()),
    ];
    let consumer: BaseConsumer = client(bootstrap, &settings)?;
    (0..partitions)
        .map(|p| match consumer.fetch_watermarks(topic, p, PATIENCE) {
            Ok((_, end)) => Ok((p, end)),
            Err(e) => Err(format!("the ends of '{topic}': {e}")),
        })
        .collect()
}

/// The group's position in each partition, 0 where it has none.
pub fn committed(
    bootstrap: &str,
    group: &str,
    topic: &str,
    partitions: i32,
) -> Result<BTreeMap<i32, i64>, String> {
    let consumer: BaseConsumer = client(bootstrap, &[("group.id", group)])?;
    let mut asked = TopicPartitionList::new();
    asked.add_partition_range(topic, 0, partitions - 1);
    let committed = consumer
        .committed_offsets(asked, PATIENCE)
        .map_err(|e| e.to_string())?;
    let offset = |offset| match offset {
        Offset::Offset(offset) => offset,
        _ => 0,
    };
    Ok(committed
        .elements()
        .iter()
        .map(|e| (e.partition(), offset(e.offset())))
        .collect())
}

/// Every record up to the ends that the topic has now, as far as it is committed.
pub fn read(bootstrap: &str, topic: &str, partitions: i32) -> Result<Vec<Read>, String> {
    read_as(Isolation::ReadCommitted, bootstrap, topic, partitions)
}

/// Every record up to the ends that the topic has now, of transactions what the isolation level gives.
pub fn read_as(
    isolation: Isolation,
    bootstrap: &str,
    topic: &str,
    partitions: i32,
) -> Result<Vec<Read>, String> {
    let ends = ends_as(isolation, bootstrap, topic, partitions)?;
    let consumer: BaseConsumer = client(
        bootstrap,
        &[
            ("group.id", "unused"),
            ("fetch.wait.max.ms", "50"),
            ("isolation.level", isolation.name()),
            // Nothing else says that a log ends in records that are not given out.
            ("enable.partition.eof", "true"),
        ],
    )?;
    let mut open: BTreeSet<i32> = ends
        .iter()
        .filter(|(_, end)| **end > 0)
        .map(|(p, _)| *p)
        .collect();
    let mut assignment = TopicPartitionList::new();
    for &partition in &open {
        assignment
            .add_partition_offset(topic, partition, Offset::Beginning)
            .map_err(|e| e.to_string())?;
    }
    consumer.assign(&assignment).map_err(|e| e.to_string())?;
    let (mut read, deadline) = (Vec::new(), Instant::now() + PATIENCE);
    while !open.is_empty() {
        if Instant::now() > deadline {
            return Err(format!(
                "the driver's librdkafka read {} records of '{topic}', ends are {ends:?}",
                read.len()
            ));
        }
        let Some(message) = consumer.poll(Duration::from_millis(100)) else {
            continue;
        };
        let message = match message {
            Err(KafkaError::PartitionEOF(partition)) => {
                open.remove(&partition);
                continue;
            }
            message => message.map_err(|e| e.to_string())?,
        };
        if message.offset() + 1 >= ends[&message.partition()] {
            open.remove(&message.partition());
        }
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let headers = message.headers().into_iter().flat_map(|h| h.iter());
        read.push(Read {
            partition: message.partition(),
            offset: message.offset(),
            timestamp_ms: message.timestamp().to_millis().unwrap_or(-1),
            key: message.key().map(text),
            value: message.payload().map(text),
            headers: headers
                .map(|h| (h.key.to_owned(), h.value.map(text)))
                .collect(),
        });
    }
    Ok(read)
}
