//! ListPartitionReassignments (46), version 0: with one broker nothing is ever on its way to another,
//! so the list is empty, whatever is asked for.

use std::ops::RangeInclusive;

use kafka_protocol::messages::{
    ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse,
};

use crate::router::{Reply, RequestContext};

/// Versions served.
pub const VERSIONS: RangeInclusive<i16> = 0..=0;

/// Lists nothing.
pub async fn handle(
    _ctx: &RequestContext,
    _request: ListPartitionReassignmentsRequest,
) -> Reply<ListPartitionReassignmentsResponse> {
    Reply::Now(ListPartitionReassignmentsResponse::default().with_error_message(None))
}
