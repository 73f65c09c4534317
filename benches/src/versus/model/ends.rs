//! How many records a topic has: all its partitions' ends in one request, so that asking often costs
//! little.

use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

const TIMEOUT: Duration = Duration::from_secs(5);

/// Asks for the ends of a topic.
pub struct Ends {
    consumer: BaseConsumer,
    asked: TopicPartitionList,
}

impl Ends {
    /// Of a topic, which need not be there yet.
    pub fn of(bootstrap: &str, topic: &str, partitions: i32) -> anyhow::Result<Self> {
        let consumer = ClientConfig::new()
            .set("bootstrap.servers", bootstrap)
            .set("group.id", "unused")
            // A broker that starts again is looked for at once.
            .set("reconnect.backoff.ms", "10")
            .set("reconnect.backoff.max.ms", "10")
            // A topic that is not there yet, too.
            .set("retry.backoff.ms", "10")
            .set("retry.backoff.max.ms", "10")
            .set("log_level", "0")
            .create()?;
        let ends = (0..partitions).map(|partition| (topic.to_owned(), partition, Offset::End));
        Ok(Self {
            consumer,
            asked: ends.collect(),
        })
    }

    /// Of each partition; those that are not known are left out.
    pub fn by_partition(&self) -> Vec<(i32, i64)> {
        let found = self.consumer.offsets_for_times(self.asked.clone(), TIMEOUT);
        let found = found.unwrap_or_default();
        let end = |partition: i32, offset: Offset| match offset {
            Offset::Offset(end) => Some((partition, end)),
            _ => None,
        };
        let elements = found.elements();
        elements
            .iter()
            .filter_map(|e| end(e.partition(), e.offset()))
            .collect()
    }

    /// Of all partitions together.
    pub fn sum(&self) -> u64 {
        let ends = self.by_partition();
        ends.iter()
            .map(|(_, end)| u64::try_from(*end).unwrap_or(0))
            .sum()
    }
}
