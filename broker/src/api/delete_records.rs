//! DeleteRecords (21), versions 0 to 2: a partition begins at a later offset.
//!
//! - Records below the offset are gone for readers when the answer goes out, and stay gone whatever
//!   happens then; -1 stands for the high watermark. Files that lie below as a whole are removed.
//! - An offset below the log's start changes nothing. The answer is the log's start either way.
//! - An offset above the high watermark, or negative, is OFFSET_OUT_OF_RANGE.
//! - As in Kafka, the broker's own topics are INVALID_TOPIC_EXCEPTION, and a topic whose
//!   `cleanup.policy` is without `delete` is POLICY_VIOLATION.
//! - A model topic's outputs may be deleted up to what is published. Inputs may be deleted before
//!   they are scored: the model topic passes over them.

use std::collections::HashSet;
use std::ops::RangeInclusive;
use std::sync::Arc;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::delete_records_request::DeleteRecordsPartition;
use kafka_protocol::messages::delete_records_response::{
    DeleteRecordsPartitionResult, DeleteRecordsTopicResult,
};
use kafka_protocol::messages::{DeleteRecordsRequest, DeleteRecordsResponse};
use storage::PartitionLog;
use storage::partition_log::DeleteTo;

use crate::api::partition_request::{partition, storage_failure};
use crate::catalog::Topic;
use crate::catalog::topic_config::deletes_old_records;
use crate::router::{Reply, RequestContext};

/// Versions served.
pub const VERSIONS: RangeInclusive<i16> = 0..=2;

/// "The high watermark" in a request.
const HIGH_WATERMARK: i64 = -1;
/// "Nothing was deleted" in a response.
const NO_LOW_WATERMARK: i64 = -1;

/// Answers when everything is durable.
pub async fn handle(
    ctx: &RequestContext,
    request: DeleteRecordsRequest,
) -> Reply<DeleteRecordsResponse> {
    let mut wanted = Vec::new();
    let mut places = Vec::new();
    let mut topics = Vec::with_capacity(request.topics.len());
    let mut seen = HashSet::new();
    for asked in &request.topics {
        let topic = ctx.broker.catalog.topic(&asked.name);
        let mut answers = Vec::with_capacity(asked.partitions.len());
        for partition in &asked.partitions {
            let index = partition.partition_index;
            let log = if seen.insert((&asked.name, index)) {
                deletable(ctx, topic.as_ref(), partition)
            } else {
                Err(ResponseError::InvalidRequest)
            };
            answers.push(match log {
                Err(error) => failed(index, error),
                Ok(log) => {
                    wanted.push((Arc::clone(log), delete_to(partition.offset)));
                    places.push((topics.len(), answers.len()));
                    // What is left standing if the blocking thread dies.
                    failed(index, ResponseError::UnknownServerError)
                }
            });
        }
        topics.push(
            DeleteRecordsTopicResult::default()
                .with_name(asked.name.clone())
                .with_partitions(answers),
        );
    }
    let mut response = DeleteRecordsResponse::default().with_topics(topics);
    if wanted.is_empty() {
        return Reply::Now(response);
    }
    // Started here and not in the future, which is polled only when earlier responses are written.
    let catalog = Arc::clone(&ctx.broker.catalog);
    let deletion = tokio::task::spawn_blocking(move || {
        let starts = catalog.delete_records(&wanted);
        wanted
            .iter()
            .zip(starts)
            .map(|((log, _), start)| answer(log, start))
            .collect::<Vec<_>>()
    });
    Reply::Later(Box::pin(async move {
        match deletion.await {
            Ok(answers) => {
                for ((topic, partition), answer) in places.into_iter().zip(answers) {
                    response.topics[topic].partitions[partition] = answer;
                }
            }
            Err(error) => tracing::error!(%error, "a deletion of records ended early"),
        }
        response
    }))
}

fn deletable<'a>(
    ctx: &RequestContext,
    topic: Option<&'a Arc<Topic>>,
    wanted: &DeleteRecordsPartition,
) -> Result<&'a Arc<PartitionLog>, ResponseError> {
    let topic = topic.ok_or(ResponseError::UnknownTopicOrPartition)?;
    let log = partition(topic, wanted.partition_index)?;
    if topic.kind.is_internal() {
        return Err(ResponseError::InvalidTopicException);
    }
    if !deletes_old_records(&topic.configs, &ctx.broker.catalog.defaults()) {
        return Err(ResponseError::PolicyViolation);
    }
    Ok(log)
}

fn delete_to(offset: i64) -> DeleteTo {
    match offset {
        HIGH_WATERMARK => DeleteTo::HighWatermark,
        offset => DeleteTo::Offset(offset),
    }
}

fn answer(log: &PartitionLog, start: storage::Result<i64>) -> DeleteRecordsPartitionResult {
    let index = log.partition();
    match start {
        Ok(log_start_offset) => DeleteRecordsPartitionResult::default()
            .with_partition_index(index)
            .with_low_watermark(log_start_offset),
        Err(error) => failed(
            index,
            storage_failure("delete_records", log.topic(), index, &error),
        ),
    }
}

fn failed(index: i32, error: ResponseError) -> DeleteRecordsPartitionResult {
    DeleteRecordsPartitionResult::default()
        .with_partition_index(index)
        .with_low_watermark(NO_LOW_WATERMARK)
        .with_error_code(error.code())
}
