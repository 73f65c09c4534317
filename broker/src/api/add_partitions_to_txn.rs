//! AddPartitionsToTxn (24), versions 0 to 5: partitions become part of a producer's transaction, on the
//! device before the answer.
//!
//! Producers of transactions version 1 send it, in versions up to 3, before they write to a partition;
//! those of version 2 add partitions by writing to them. From version 4 on it names any number of
//! transactions, and may only ask whether partitions are part of them.
//!
//! Partitions that do not exist, or that clients may not write to, have errors of their own, and then none
//! of the transaction's is added: the others are OPERATION_NOT_ATTEMPTED.

use std::ops::RangeInclusive;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::add_partitions_to_txn_request::{
    AddPartitionsToTxnTopic, AddPartitionsToTxnTransaction,
};
use kafka_protocol::messages::add_partitions_to_txn_response::{
    AddPartitionsToTxnPartitionResult, AddPartitionsToTxnResult, AddPartitionsToTxnTopicResult,
};
use kafka_protocol::messages::{AddPartitionsToTxnRequest, AddPartitionsToTxnResponse};

use crate::api::group_answer::{code, owned};
use crate::api::partition_request::partition;
use crate::api::transaction_version;
use crate::catalog::TopicKind;
use crate::router::{Reply, RequestContext};
use crate::transaction::machine::{Producer, TopicPartition};

/// Versions served.
pub const VERSIONS: RangeInclusive<i16> = 0..=5;

/// From this version on, a request names any number of transactions.
const BATCHES_SINCE: i16 = 4;

/// Adds them, or looks whether they are there.
pub async fn handle(
    ctx: &RequestContext,
    request: AddPartitionsToTxnRequest,
) -> Reply<AddPartitionsToTxnResponse> {
    if ctx.api_version < BATCHES_SINCE {
        let only = AddPartitionsToTxnTransaction::default()
            .with_transactional_id(request.v3_and_below_transactional_id)
            .with_producer_id(request.v3_and_below_producer_id)
            .with_producer_epoch(request.v3_and_below_producer_epoch)
            .with_topics(request.v3_and_below_topics);
        let topics = of_transaction(ctx, only).await.topic_results;
        let response = AddPartitionsToTxnResponse::default();
        return Reply::Now(response.with_results_by_topic_v3_and_below(topics));
    }
    let mut results = Vec::with_capacity(request.transactions.len());
    for transaction in request.transactions {
        results.push(of_transaction(ctx, transaction).await);
    }
    Reply::Now(AddPartitionsToTxnResponse::default().with_results_by_transaction(results))
}

async fn of_transaction(
    ctx: &RequestContext,
    request: AddPartitionsToTxnTransaction,
) -> AddPartitionsToTxnResult {
    let producer = Producer {
        id: request.producer_id.0,
        epoch: request.producer_epoch,
    };
    let transactional_id = request.transactional_id.as_str();
    let partitions: Vec<TopicPartition> = request.topics.iter().flat_map(named).collect();
    let transactions = &ctx.broker.transactions;
    let checked: Vec<_> = partitions.iter().map(|it| check(ctx, it)).collect();
    let results: Vec<Result<(), ResponseError>> = if request.verify_only {
        transactions.verify(transactional_id, producer, &partitions)
    } else if checked.iter().any(Result::is_err) {
        let not_attempted = |it: &Result<(), _>| it.and(Err(ResponseError::OperationNotAttempted));
        checked.iter().map(not_attempted).collect()
    } else {
        let version = transaction_version::of_adding(ctx.api_version);
        let added = transactions
            .add_partitions(transactional_id, producer, &partitions, version)
            .await;
        let added = added
            .map_err(|error| transaction_version::for_client(error, ctx.api_version, FENCED_SINCE));
        vec![added; partitions.len()]
    };
    let mut results = results.into_iter();
    let topics = request.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|index| {
            let result = results.next().unwrap_or(Ok(()));
            AddPartitionsToTxnPartitionResult::default()
                .with_partition_index(*index)
                .with_partition_error_code(code(result.err()))
        });
        AddPartitionsToTxnTopicResult::default()
            .with_name(topic.name.clone())
            .with_results_by_partition(partitions.collect())
    });
    AddPartitionsToTxnResult::default()
        .with_topic_results(topics.collect())
        .with_transactional_id(request.transactional_id)
}

/// From this version on, clients know PRODUCER_FENCED.
const FENCED_SINCE: i16 = 2;

fn named(topic: &AddPartitionsToTxnTopic) -> impl Iterator<Item = TopicPartition> {
    let name = owned(&topic.name);
    topic.partitions.iter().map(move |it| (name.clone(), *it))
}

/// Whether clients may write there.
fn check(ctx: &RequestContext, (name, index): &TopicPartition) -> Result<(), ResponseError> {
    let topic = ctx.broker.catalog.topic(name);
    let topic = topic.ok_or(ResponseError::UnknownTopicOrPartition)?;
    partition(&topic, *index)?;
    match topic.kind {
        TopicKind::Ordinary => Ok(()),
        // Clients give the transaction up, and show the topic.
        _ => Err(ResponseError::TopicAuthorizationFailed),
    }
}
