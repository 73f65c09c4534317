//! DescribeTopicPartitions (75), version 0: topics in pages.
//!
//! - Topics come in the order of their names, each once; no names means all topics. A page has at
//!   most `response_partition_limit` partitions, never more than [`MAX_PARTITIONS`], never fewer than
//!   one; where more is to come, the cursor names the first partition of the next page.
//! - Where names are given, the cursor's topic must be among them.
//! - A topic that does not exist takes no room on a page, and is not created.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_topic_partitions_response::{
    Cursor, DescribeTopicPartitionsResponsePartition, DescribeTopicPartitionsResponseTopic,
};
use kafka_protocol::messages::{
    BrokerId, DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse, TopicName,
};
use kafka_protocol::protocol::StrBytes;

use crate::Broker;
use crate::api::error_code;
use crate::api::metadata::topic_operations;
use crate::catalog::{CatalogError, Topic, check_name};
use crate::router::{Reply, RequestContext};

/// Versions served.
pub const VERSIONS: RangeInclusive<i16> = 0..=0;

/// The most partitions of a page: Kafka's `max.request.partition.size.limit`.
pub const MAX_PARTITIONS: usize = 2000;

/// Answers the request.
pub async fn handle(
    ctx: &RequestContext,
    request: DescribeTopicPartitionsRequest,
) -> Reply<DescribeTopicPartitionsResponse> {
    let broker = &ctx.broker;
    let (from, first_partition) = match &request.cursor {
        Some(cursor) => (Some(cursor.topic_name.to_string()), cursor.partition_index),
        None => (None, 0),
    };
    let asked: BTreeSet<String> = request
        .topics
        .iter()
        .map(|topic| topic.name.to_string())
        .collect();
    let is_listed = from
        .as_ref()
        .is_none_or(|from| asked.is_empty() || asked.contains(from));
    let Ok(first_partition) = usize::try_from(first_partition).map_err(|_| ()) else {
        return Reply::Now(invalid(asked));
    };
    if !is_listed {
        return Reply::Now(invalid(asked));
    }
    let limit = usize::try_from(request.response_partition_limit).unwrap_or(0);
    let mut page = Page {
        broker,
        left: limit.clamp(1, MAX_PARTITIONS),
        response: DescribeTopicPartitionsResponse::default(),
    };
    let names = match asked.is_empty() {
        true => broker
            .catalog
            .topics()
            .iter()
            .map(|topic| topic.name.clone())
            .collect(),
        false => asked,
    };
    let names = names
        .into_iter()
        .filter(|name| from.as_ref().is_none_or(|from| name >= from));
    for name in names {
        let first = match &from {
            Some(from) if *from == name => first_partition,
            _ => 0,
        };
        if !page.add(&name, first) {
            break;
        }
    }
    Reply::Now(page.response)
}

struct Page<'a> {
    broker: &'a Broker,
    /// So many partitions have room.
    left: usize,
    response: DescribeTopicPartitionsResponse,
}

impl Page<'_> {
    /// Adds what has room of a topic; false where something has not.
    fn add(&mut self, name: &str, first: usize) -> bool {
        let unknown = || CatalogError::UnknownTopic(name.to_owned());
        let found =
            check_name(name).and_then(|()| self.broker.catalog.topic(name).ok_or_else(unknown));
        let topic = match found {
            Ok(topic) => topic,
            Err(error) => {
                let code = error_code::of_catalog(&error);
                self.response.topics.push(failed(name, code));
                return true;
            }
        };
        if self.left == 0 {
            self.response.next_cursor = Some(cursor(name, 0));
            return false;
        }
        let end = topic.partitions.len().min(first.saturating_add(self.left));
        self.left = self.left.saturating_sub(end.saturating_sub(first));
        let described = described(self.broker, &topic, first, end);
        self.response.topics.push(described);
        if end < topic.partitions.len() {
            self.response.next_cursor = Some(cursor(name, end));
            return false;
        }
        true
    }
}

fn topic_name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}

fn cursor(topic: &str, partition: usize) -> Cursor {
    Cursor::default()
        .with_topic_name(topic_name(topic))
        // At most catalog::MAX_PARTITIONS.
        .with_partition_index(partition as i32)
}

fn described(
    broker: &Broker,
    topic: &Topic,
    first: usize,
    end: usize,
) -> DescribeTopicPartitionsResponseTopic {
    let node = BrokerId(broker.node_id);
    let partitions = topic.partitions.iter().enumerate();
    let partitions = partitions.take(end).skip(first).map(|(index, log)| {
        DescribeTopicPartitionsResponsePartition::default()
            // At most catalog::MAX_PARTITIONS.
            .with_partition_index(index as i32)
            .with_leader_id(node)
            .with_leader_epoch(log.leader_epoch())
            .with_replica_nodes(vec![node])
            .with_isr_nodes(vec![node])
            .with_eligible_leader_replicas(Some(Vec::new()))
            .with_last_known_elr(Some(Vec::new()))
    });
    DescribeTopicPartitionsResponseTopic::default()
        .with_name(Some(topic_name(&topic.name)))
        .with_topic_id(topic.id)
        .with_is_internal(topic.kind.is_internal())
        .with_partitions(partitions.collect())
        .with_topic_authorized_operations(topic_operations(topic))
}

fn failed(name: &str, code: ResponseError) -> DescribeTopicPartitionsResponseTopic {
    DescribeTopicPartitionsResponseTopic::default()
        .with_name(Some(topic_name(name)))
        .with_error_code(code.code())
        .with_topic_authorized_operations(i32::MIN)
}

/// There is no error for the whole of a response.
fn invalid(asked: BTreeSet<String>) -> DescribeTopicPartitionsResponse {
    let topics = asked
        .iter()
        .map(|name| failed(name, ResponseError::InvalidRequest));
    DescribeTopicPartitionsResponse::default().with_topics(topics.collect())
}
