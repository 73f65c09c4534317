//! SyncGroup (14), versions 0 to 5: a member asks for its assignment, and is answered when the
//! leader's is on the device. From version 5 on, members must say which protocol they take to be
//! chosen (KIP-559).

use std::ops::RangeInclusive;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::{SyncGroupRequest, SyncGroupResponse};
use kafka_protocol::protocol::StrBytes;

use crate::api::group_answer::{code, owned, owned_bytes, owned_option, reply_until_stop};
use crate::group::machine::{SyncAnswer, SyncRequest};
use crate::router::{Reply, RequestContext};

/// Versions served.
pub const VERSIONS: RangeInclusive<i16> = 0..=5;

/// From this version on, members name the protocol and its type.
const PROTOCOL_SINCE: i16 = 5;

/// Takes the leader's assignment; answers when the member's own is there.
pub async fn handle(ctx: &RequestContext, request: SyncGroupRequest) -> Reply<SyncGroupResponse> {
    let named = request.protocol_type.is_some() && request.protocol_name.is_some();
    if ctx.api_version >= PROTOCOL_SINCE && !named {
        let refused = SyncAnswer::refused(ResponseError::InconsistentGroupProtocol);
        return Reply::Now(response(refused));
    }
    let groups = &ctx.broker.groups;
    let assignments = request
        .assignments
        .iter()
        .map(|given| (owned(&given.member_id), owned_bytes(&given.assignment)));
    let sync = SyncRequest {
        ticket: groups.next_ticket(),
        member_id: owned(&request.member_id),
        instance_id: owned_option(request.group_instance_id.as_ref()),
        generation: request.generation_id,
        protocol_type: owned_option(request.protocol_type.as_ref()),
        protocol: owned_option(request.protocol_name.as_ref()),
        assignments: assignments.collect(),
    };
    let answer = groups.sync(request.group_id.as_str(), sync);
    let stopping = SyncAnswer::refused(ResponseError::CoordinatorNotAvailable);
    reply_until_stop(ctx, answer, stopping, response)
}

fn response(answer: SyncAnswer) -> SyncGroupResponse {
    SyncGroupResponse::default()
        .with_error_code(code(answer.error))
        .with_protocol_type(answer.protocol_type.map(StrBytes::from_string))
        .with_protocol_name(answer.protocol.map(StrBytes::from_string))
        .with_assignment(answer.assignment)
}
