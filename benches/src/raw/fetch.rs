//! A consumer that throws away what comes.

use std::collections::BTreeMap;

use anyhow::{Context, ensure};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::{FetchRequest, TopicName};
use kafka_protocol::protocol::StrBytes;

use super::Connection;

/// The newest version that names topics by name.
const FETCH_VERSION: i16 = 12;
/// What a fetch may bring of one partition, as librdkafka and Java's consumer say.
pub const PARTITION_MAX_BYTES: i32 = 1024 * 1024;
/// What a fetch may bring in all.
pub const MAX_BYTES: i32 = 50 * 1024 * 1024;

/// Reads all partitions of a topic from their start, in one fetch session.
#[derive(Debug)]
pub struct Consumer {
    connection: Connection,
    topic: TopicName,
    session: (i32, i32),
    positions: BTreeMap<i32, i64>,
    /// Partitions whose position the session does not know yet.
    changed: Vec<i32>,
    /// Records so far.
    pub read: u64,
}

impl Consumer {
    /// Connects. The topic has partitions 0 to `partitions` - 1.
    pub fn new(bootstrap: &str, topic: &str, partitions: i32) -> anyhow::Result<Self> {
        Ok(Self {
            connection: Connection::open(bootstrap)?,
            topic: TopicName(StrBytes::from_string(topic.to_owned())),
            session: (0, 0),
            positions: (0..partitions).map(|partition| (partition, 0)).collect(),
            changed: (0..partitions).collect(),
            read: 0,
        })
    }

    /// Fetches until so many records were read; returns how many fetches that took.
    pub fn read(&mut self, records: u64) -> anyhow::Result<u64> {
        let mut fetches = 0;
        let mut without = 0;
        while self.read < records {
            let before = self.read;
            self.fetch()?;
            fetches += 1;
            // A fetch waits half a second for records.
            without = if self.read == before { without + 1 } else { 0 };
            ensure!(
                without < 60,
                "no more records after {} of {records}",
                self.read
            );
        }
        Ok(fetches)
    }

    fn fetch(&mut self) -> anyhow::Result<()> {
        let partitions = self.changed.iter().map(|partition| {
            FetchPartition::default()
                .with_partition(*partition)
                .with_fetch_offset(self.positions[partition])
                .with_partition_max_bytes(PARTITION_MAX_BYTES)
        });
        let topic = FetchTopic::default()
            .with_topic(self.topic.clone())
            .with_partitions(partitions.collect());
        let topics = if self.changed.is_empty() {
            vec![]
        } else {
            vec![topic]
        };
        let request = FetchRequest::default()
            .with_max_wait_ms(500)
            .with_min_bytes(1)
            .with_max_bytes(MAX_BYTES)
            .with_session_id(self.session.0)
            .with_session_epoch(self.session.1)
            .with_topics(topics);
        let response = self.connection.call(&request, FETCH_VERSION)?;
        ensure!(
            response.error_code == 0,
            "fetch: error {}",
            response.error_code
        );
        ensure!(response.session_id != 0, "fetch: no session");
        self.session = (response.session_id, self.session.1 + 1);
        self.changed.clear();
        for partition in response
            .responses
            .iter()
            .flat_map(|topic| &topic.partitions)
        {
            let (index, error) = (partition.partition_index, partition.error_code);
            ensure!(error == 0, "fetch of partition {index}: error {error}");
            let mut rest = partition.records.as_deref().unwrap_or_default();
            if rest.is_empty() {
                continue;
            }
            self.changed.push(index);
            let position = self.positions.get_mut(&index);
            let position = position.context("a partition that was not asked for")?;
            // A batch's base offset, length and last offset delta, and how many records it has. The
            // last one may be cut short.
            while let Some((header, _)) = rest.split_first_chunk::<61>() {
                let field = |at: usize| i32::from_be_bytes([0, 1, 2, 3].map(|n| header[at + n]));
                let Some(next) = rest.get(12 + field(8) as usize..) else {
                    break;
                };
                let base = (i64::from(field(0)) << 32) | i64::from(field(4) as u32);
                *position = base + i64::from(field(23)) + 1;
                self.read += field(57) as u64;
                rest = next;
            }
        }
        Ok(())
    }
}
