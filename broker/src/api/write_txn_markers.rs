//! WriteTxnMarkers (27), version 1: an administrator ends a transaction in single partitions, whatever its
//! coordinator says: `kafka-transactions.sh abort` (KIP-664). Among Kafka's brokers it is how coordinators
//! reach other brokers; here they are at home.
//!
//! The markers are on the device before the answer. Where the producer, or a coordinator, of a newer epoch
//! was there, it is refused.

use std::ops::RangeInclusive;
use std::sync::Arc;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::write_txn_markers_request::WritableTxnMarker;
use kafka_protocol::messages::write_txn_markers_response::{
    WritableTxnMarkerPartitionResult, WritableTxnMarkerResult, WritableTxnMarkerTopicResult,
};
use kafka_protocol::messages::{WriteTxnMarkersRequest, WriteTxnMarkersResponse};
use storage::PartitionLog;
use storage::batch::{EndMarker, TransactionResult};
use storage::partition_log::Durability;

use crate::api::group_answer::{code, owned};
use crate::api::partition_request::{partition, storage_failure};
use crate::catalog::TopicKind;
use crate::group::offsets_topic::OFFSETS_TOPIC;
use crate::router::{Reply, RequestContext};

/// Versions served.
pub const VERSIONS: RangeInclusive<i16> = 1..=1;

/// Writes them, one partition after another.
pub async fn handle(
    ctx: &RequestContext,
    request: WriteTxnMarkersRequest,
) -> Reply<WriteTxnMarkersResponse> {
    let mut results = Vec::with_capacity(request.markers.len());
    for marker in request.markers {
        results.push(of_marker(ctx, marker).await);
    }
    Reply::Now(WriteTxnMarkersResponse::default().with_markers(results))
}

async fn of_marker(ctx: &RequestContext, request: WritableTxnMarker) -> WritableTxnMarkerResult {
    let marker = EndMarker {
        producer_id: request.producer_id.0,
        producer_epoch: request.producer_epoch,
        coordinator_epoch: request.coordinator_epoch,
        result: match request.transaction_result {
            true => TransactionResult::Commit,
            false => TransactionResult::Abort,
        },
    };
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let name = owned(&topic.name);
        let mut partitions = Vec::with_capacity(topic.partition_indexes.len());
        for index in topic.partition_indexes {
            let written = write(ctx, &marker, &name, index).await;
            partitions.push(
                WritableTxnMarkerPartitionResult::default()
                    .with_partition_index(index)
                    .with_error_code(code(written.err())),
            );
        }
        topics.push(
            WritableTxnMarkerTopicResult::default()
                .with_name(topic.name)
                .with_partitions(partitions),
        );
    }
    WritableTxnMarkerResult::default()
        .with_producer_id(request.producer_id)
        .with_topics(topics)
}

async fn write(
    ctx: &RequestContext,
    marker: &EndMarker,
    name: &str,
    index: i32,
) -> Result<(), ResponseError> {
    let topic = ctx.broker.catalog.topic(name);
    let topic = topic.ok_or(ResponseError::UnknownTopicOrPartition)?;
    let log: Arc<PartitionLog> = Arc::clone(partition(&topic, index)?);
    // Model topics write the others, and have no transactions.
    if topic.kind != TopicKind::Ordinary && name != OFFSETS_TOPIC {
        return Err(ResponseError::InvalidTopicException);
    }
    let failed = |error| storage_failure("write_txn_markers", name, index, &error);
    let appended = log.append_marker(marker).map_err(failed)?;
    tracing::warn!(
        topic = name,
        partition = index,
        producer_id = marker.producer_id,
        result = ?marker.result,
        "an administrator has ended a transaction"
    );
    if name == OFFSETS_TOPIC {
        let committed = marker.result == TransactionResult::Commit;
        let groups = &ctx.broker.groups;
        groups.transaction_ended(index, marker.producer_id, committed);
    }
    let durable = log.wait(appended.end, Durability::Disk).await;
    durable.map_err(failed)
}
