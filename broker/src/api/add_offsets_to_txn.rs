//! AddOffsetsToTxn (25), versions 0 to 4: a group's offsets become part of a producer's transaction, on the
//! device before the answer. What is added is the group's partition of `__consumer_offsets`. Producers of
//! transactions version 2 do without.

use std::ops::RangeInclusive;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::{AddOffsetsToTxnRequest, AddOffsetsToTxnResponse};

use crate::api::group_answer::code;
use crate::api::transaction_version;
use crate::group::offsets_topic::OFFSETS_TOPIC;
use crate::router::{Reply, RequestContext};
use crate::transaction::machine::Producer;
use crate::transaction::records::TransactionVersion;

/// Versions served.
pub const VERSIONS: RangeInclusive<i16> = 0..=4;

/// From this version on, clients know PRODUCER_FENCED.
const FENCED_SINCE: i16 = 2;

/// Adds it.
pub async fn handle(
    ctx: &RequestContext,
    request: AddOffsetsToTxnRequest,
) -> Reply<AddOffsetsToTxnResponse> {
    let result = add(ctx, &request)
        .await
        .map_err(|error| transaction_version::for_client(error, ctx.api_version, FENCED_SINCE));
    Reply::Now(AddOffsetsToTxnResponse::default().with_error_code(code(result.err())))
}

async fn add(ctx: &RequestContext, request: &AddOffsetsToTxnRequest) -> Result<(), ResponseError> {
    let groups = &ctx.broker.groups;
    let group = request.group_id.as_str();
    groups.prepare_transactional_commit(group).await?;
    let partition = groups.offsets_partition(group);
    let partition = partition.ok_or(ResponseError::CoordinatorNotAvailable)?;
    let producer = Producer {
        id: request.producer_id.0,
        epoch: request.producer_epoch,
    };
    let partitions = [(OFFSETS_TOPIC.to_owned(), partition)];
    let transactional_id = request.transactional_id.as_str();
    ctx.broker
        .transactions
        .add_partitions(
            transactional_id,
            producer,
            &partitions,
            TransactionVersion::V0,
        )
        .await
}
