//! DescribeProducers (61), version 0: the producers that a partition remembers (KIP-664).
//!
//! Idempotent producers with their epoch, last sequence and the time of their last append by the
//! broker's clock; coordinator epoch and transaction start are -1 where they have no transaction.
//! A partition that a request names twice is answered once, then INVALID_REQUEST: there may be many
//! producers.

use std::collections::HashSet;
use std::ops::RangeInclusive;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_producers_response::{
    PartitionResponse, ProducerState, TopicResponse,
};
use kafka_protocol::messages::{DescribeProducersRequest, DescribeProducersResponse, ProducerId};
use kafka_protocol::protocol::StrBytes;
use storage::producer_state::ActiveProducer;

use crate::api::partition_request::partition;
use crate::router::{Reply, RequestContext};

/// Versions served.
pub const VERSIONS: RangeInclusive<i16> = 0..=0;

/// Answers from memory.
pub async fn handle(
    ctx: &RequestContext,
    request: DescribeProducersRequest,
) -> Reply<DescribeProducersResponse> {
    let mut seen = HashSet::new();
    let mut topics = Vec::with_capacity(request.topics.len());
    for asked in &request.topics {
        let topic = ctx.broker.catalog.topic(&asked.name);
        let mut partitions = Vec::with_capacity(asked.partition_indexes.len());
        for &index in &asked.partition_indexes {
            let response = PartitionResponse::default().with_partition_index(index);
            let found = match &topic {
                _ if !seen.insert((&asked.name, index)) => Err((
                    ResponseError::InvalidRequest,
                    format!("partition {} {index} is in the request twice", &*asked.name),
                )),
                Some(topic) => {
                    partition(topic, index).map_err(|code| (code, unknown(&asked.name, index)))
                }
                None => Err((
                    ResponseError::UnknownTopicOrPartition,
                    unknown(&asked.name, index),
                )),
            };
            partitions.push(match found {
                Ok(log) => {
                    let producers = log.active_producers().into_iter().map(described);
                    response
                        .with_error_message(None)
                        .with_active_producers(producers.collect())
                }
                Err((code, message)) => response
                    .with_error_code(code.code())
                    .with_error_message(Some(StrBytes::from_string(message))),
            });
        }
        topics.push(
            TopicResponse::default()
                .with_name(asked.name.clone())
                .with_partitions(partitions),
        );
    }
    Reply::Now(DescribeProducersResponse::default().with_topics(topics))
}

fn unknown(topic: &str, index: i32) -> String {
    format!("there is no partition {index} of topic '{topic}'")
}

fn described(producer: ActiveProducer) -> ProducerState {
    ProducerState::default()
        .with_producer_id(ProducerId(producer.producer_id))
        .with_producer_epoch(producer.epoch.into())
        .with_last_sequence(producer.last_sequence)
        .with_last_timestamp(producer.last_append_ms)
        .with_coordinator_epoch(producer.coordinator_epoch)
        .with_current_txn_start_offset(producer.current_txn_first_offset.unwrap_or(-1))
}
