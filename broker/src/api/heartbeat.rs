//! Heartbeat (12), versions 0 to 4: a member is alive. REBALANCE_IN_PROGRESS asks it to rejoin.

use std::ops::RangeInclusive;

use kafka_protocol::messages::{HeartbeatRequest, HeartbeatResponse};

use crate::api::group_answer::code;
use crate::router::{Reply, RequestContext};

/// Versions served.
pub const VERSIONS: RangeInclusive<i16> = 0..=4;

/// Starts the member's session anew.
pub async fn handle(ctx: &RequestContext, request: HeartbeatRequest) -> Reply<HeartbeatResponse> {
    let result = ctx.broker.groups.heartbeat(
        request.group_id.as_str(),
        &request.member_id,
        request.group_instance_id.as_deref(),
        request.generation_id,
    );
    Reply::Now(HeartbeatResponse::default().with_error_code(code(result.err())))
}
