//! JoinGroup (11), versions 0 to 9: a member joins, and is answered when the group's rebalance is
//! complete. The member is counted in while the request is handled.
//!
//! - Version 0 has no rebalance timeout: the session timeout stands for it.
//! - From version 4 on, a member without an id is told one (MEMBER_ID_REQUIRED) and joins again with
//!   it, so that lost answers leave no members behind (KIP-394). Static members (version 5 and up,
//!   KIP-345) are known by their instance id instead.
//! - From version 9 on, a leader can be told that the assignment stands (KIP-814).

use std::ops::RangeInclusive;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::join_group_response::JoinGroupResponseMember;
use kafka_protocol::messages::{JoinGroupRequest, JoinGroupResponse};
use kafka_protocol::protocol::StrBytes;

use crate::api::group_answer::{code, owned, owned_bytes, owned_option, reply_until_stop};
use crate::group::GroupCoordinator;
use crate::group::machine::{JoinAnswer, JoinRequest, Protocol};
use crate::router::{Reply, RequestContext};

/// Versions served.
pub const VERSIONS: RangeInclusive<i16> = 0..=9;

const REBALANCE_TIMEOUT_SINCE: i16 = 1;
const MEMBER_ID_REQUIRED_SINCE: i16 = 4;
const NULL_PROTOCOL_SINCE: i16 = 7;
const SKIP_ASSIGNMENT_SINCE: i16 = 9;

/// Counts the member in; answers when the rebalance is complete.
pub async fn handle(ctx: &RequestContext, request: JoinGroupRequest) -> Reply<JoinGroupResponse> {
    let groups = &ctx.broker.groups;
    let group = request.group_id.as_str();
    let join = join_request(ctx, groups, &request);
    tracing::debug!(
        group,
        member_id = join.member_id,
        instance_id = join.instance_id,
        client_id = join.client_id,
        reason = request.reason.as_deref(),
        "join"
    );
    let stopping = JoinAnswer::refused(ResponseError::CoordinatorNotAvailable, &join.member_id);
    let answer = groups.join(group, join).await;
    let version = ctx.api_version;
    reply_until_stop(ctx, answer, stopping, move |answer| {
        response(version, answer)
    })
}

fn join_request(
    ctx: &RequestContext,
    groups: &GroupCoordinator,
    request: &JoinGroupRequest,
) -> JoinRequest {
    let client_id = ctx.client_id.as_ref().map(owned).unwrap_or_default();
    let instance_id = owned_option(request.group_instance_id.as_ref());
    let rebalance_timeout_ms = if ctx.api_version >= REBALANCE_TIMEOUT_SINCE {
        request.rebalance_timeout_ms
    } else {
        request.session_timeout_ms
    };
    let protocols = request.protocols.iter().map(|protocol| Protocol {
        name: owned(&protocol.name),
        metadata: owned_bytes(&protocol.metadata),
    });
    JoinRequest {
        ticket: groups.next_ticket(),
        member_id: owned(&request.member_id),
        new_member_id: groups.new_member_id(instance_id.as_deref().unwrap_or(&client_id)),
        requires_known_member_id: ctx.api_version >= MEMBER_ID_REQUIRED_SINCE,
        supports_skip_assignment: ctx.api_version >= SKIP_ASSIGNMENT_SINCE,
        client_host: format!("/{}", ctx.client_host),
        // A negative one is outside of every broker's bounds, and refused with 0.
        session_timeout_ms: u64::try_from(request.session_timeout_ms).unwrap_or(0),
        rebalance_timeout_ms: u64::try_from(rebalance_timeout_ms).unwrap_or(0),
        protocol_type: owned(&request.protocol_type),
        protocols: protocols.collect(),
        client_id,
        instance_id,
    }
}

fn response(version: i16, answer: JoinAnswer) -> JoinGroupResponse {
    let members = answer.members.into_iter().map(|member| {
        JoinGroupResponseMember::default()
            .with_member_id(member.member_id.into())
            .with_group_instance_id(member.instance_id.map(StrBytes::from_string))
            .with_metadata(member.metadata)
    });
    let protocol = answer.protocol.map(StrBytes::from_string);
    let protocol_name = if version >= NULL_PROTOCOL_SINCE {
        protocol
    } else {
        Some(protocol.unwrap_or_default())
    };
    JoinGroupResponse::default()
        .with_error_code(code(answer.error))
        .with_generation_id(answer.generation)
        .with_protocol_type(answer.protocol_type.map(StrBytes::from_string))
        .with_protocol_name(protocol_name)
        .with_leader(answer.leader.into())
        .with_skip_assignment(answer.skip_assignment && version >= SKIP_ASSIGNMENT_SINCE)
        .with_member_id(answer.member_id.into())
        .with_members(members.collect())
}
