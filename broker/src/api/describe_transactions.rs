//! DescribeTransactions (65), version 0: what transactional ids are at (KIP-664).

use std::ops::RangeInclusive;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_transactions_response::{TopicData, TransactionState};
use kafka_protocol::messages::{
    DescribeTransactionsRequest, DescribeTransactionsResponse, ProducerId, TopicName,
    TransactionalId,
};
use kafka_protocol::protocol::StrBytes;

use crate::api::group_answer::text;
use crate::router::{Reply, RequestContext};
use crate::transaction::records::TransactionalIdState;

/// Versions served.
pub const VERSIONS: RangeInclusive<i16> = 0..=0;

/// Answers from memory.
pub async fn handle(
    ctx: &RequestContext,
    request: DescribeTransactionsRequest,
) -> Reply<DescribeTransactionsResponse> {
    let ids = request.transactional_ids.into_iter();
    let states = ids.map(|id| describe(ctx, id)).collect();
    Reply::Now(DescribeTransactionsResponse::default().with_transaction_states(states))
}

fn describe(ctx: &RequestContext, id: TransactionalId) -> TransactionState {
    let failed = |error: ResponseError| TransactionState::default().with_error_code(error.code());
    let state = match ctx.broker.transactions.describe(id.as_str()) {
        _ if id.is_empty() => failed(ResponseError::InvalidRequest),
        None => failed(ResponseError::TransactionalIdNotFound),
        Some(state) => described(state),
    };
    state.with_transactional_id(id)
}

fn described(state: TransactionalIdState) -> TransactionState {
    let mut topics: Vec<TopicData> = Vec::new();
    for (topic, partition) in state.partitions {
        match topics.last_mut() {
            Some(last) if last.topic.as_str() == topic => last.partitions.push(partition),
            _ => topics.push(
                TopicData::default()
                    .with_topic(TopicName(text(topic)))
                    .with_partitions(vec![partition]),
            ),
        }
    }
    TransactionState::default()
        .with_transaction_state(StrBytes::from_static_str(state.state.name()))
        .with_transaction_timeout_ms(state.timeout_ms)
        .with_transaction_start_time_ms(state.start_ms)
        .with_producer_id(ProducerId(state.producer_id))
        .with_producer_epoch(state.producer_epoch)
        .with_topics(topics)
}
