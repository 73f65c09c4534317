//! ListTransactions (66), versions 0 to 2: transactional ids, by state, producer, how long ago
//! their transaction was begun (from version 1 on, KIP-994), and a pattern that all of the id has to match
//! (from version 2 on, KIP-1152). A pattern that is none is INVALID_REGULAR_EXPRESSION.

use std::ops::RangeInclusive;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::list_transactions_response::TransactionState;
use kafka_protocol::messages::{
    ListTransactionsRequest, ListTransactionsResponse, ProducerId, TransactionalId,
};
use kafka_protocol::protocol::StrBytes;
use regex::{Regex, RegexBuilder};

use crate::api::group_answer::text;
use crate::router::{Reply, RequestContext};
use crate::transaction::listing::Listed;
use crate::transaction::records::State;

/// Versions served.
pub const VERSIONS: RangeInclusive<i16> = 0..=2;

/// What a pattern may take in memory, bytes.
const MAX_PATTERN_BYTES: usize = 1 << 20;

/// Answers from memory.
pub async fn handle(
    ctx: &RequestContext,
    request: ListTransactionsRequest,
) -> Reply<ListTransactionsResponse> {
    let is_known = |filter: &&StrBytes| State::ALL.iter().any(|it| it.name() == filter.as_str());
    let (known, unknown): (Vec<_>, Vec<_>) = request.state_filters.iter().partition(is_known);
    let response = ListTransactionsResponse::default();
    let pattern = request.transactional_id_pattern.as_deref();
    let Ok(pattern) = pattern
        .filter(|it| !it.is_empty())
        .map(pattern_of)
        .transpose()
    else {
        let error = ResponseError::InvalidRegularExpression;
        return Reply::Now(response.with_error_code(error.code()));
    };
    let is_wanted = |listed: &Listed| {
        let state = StrBytes::from_static_str(listed.state.name());
        let producer_ids = &request.producer_id_filters;
        let by_state = request.state_filters.is_empty() || known.contains(&&state);
        let by_producer =
            producer_ids.is_empty() || producer_ids.iter().any(|it| it.0 == listed.producer_id);
        let by_duration =
            request.duration_filter < 0 || listed.since_start_ms > request.duration_filter;
        let by_pattern = pattern
            .as_ref()
            .is_none_or(|pattern| pattern.is_match(&listed.transactional_id));
        by_state && by_producer && by_duration && by_pattern
    };
    let listed = ctx.broker.transactions.list().into_iter();
    let states = listed.filter(is_wanted).map(|listed| {
        TransactionState::default()
            .with_transactional_id(TransactionalId(text(listed.transactional_id)))
            .with_producer_id(ProducerId(listed.producer_id))
            .with_transaction_state(StrBytes::from_static_str(listed.state.name()))
    });
    Reply::Now(
        response
            .with_transaction_states(states.collect())
            .with_unknown_state_filters(unknown.into_iter().cloned().collect()),
    )
}

fn pattern_of(pattern: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(&format!("^(?:{pattern})$"))
        .size_limit(MAX_PATTERN_BYTES)
        .dfa_size_limit(MAX_PATTERN_BYTES)
        .build()
}
