//! LeaveGroup (13), versions 0 to 5: members leave.
//!
//! Up to version 2 one member leaves and the response has its error; from version 3 on any number
//! does, each with an error of its own, and an administrator can name static members by their
//! instance id alone (KIP-345).

use std::ops::RangeInclusive;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::leave_group_response::MemberResponse;
use kafka_protocol::messages::{LeaveGroupRequest, LeaveGroupResponse};

use crate::api::group_answer::{code, owned, owned_option};
use crate::group::machine::Leaver;
use crate::router::{Reply, RequestContext};

/// Versions served.
pub const VERSIONS: RangeInclusive<i16> = 0..=5;

/// From this version on, a request names any number of members.
const BATCHES_SINCE: i16 = 3;

/// Takes the members out of their group.
pub async fn handle(ctx: &RequestContext, request: LeaveGroupRequest) -> Reply<LeaveGroupResponse> {
    let group = request.group_id.as_str();
    let leavers: Vec<Leaver> = if ctx.api_version >= BATCHES_SINCE {
        request.members.iter().map(leaver).collect()
    } else {
        vec![Leaver {
            member_id: owned(&request.member_id),
            instance_id: None,
        }]
    };
    for (leaver, member) in leavers.iter().zip(&request.members) {
        tracing::debug!(group, ?leaver, reason = member.reason.as_deref(), "leave");
    }
    let results = match ctx.broker.groups.leave(group, &leavers) {
        Ok(results) => results,
        Err(error) => return Reply::Now(failed(error)),
    };
    if ctx.api_version < BATCHES_SINCE {
        let error = results.into_iter().find_map(Result::err);
        return Reply::Now(LeaveGroupResponse::default().with_error_code(code(error)));
    }
    let members = request
        .members
        .into_iter()
        .zip(results)
        .map(|(member, result)| {
            MemberResponse::default()
                .with_member_id(member.member_id)
                .with_group_instance_id(member.group_instance_id)
                .with_error_code(code(result.err()))
        });
    Reply::Now(LeaveGroupResponse::default().with_members(members.collect()))
}

fn leaver(member: &MemberIdentity) -> Leaver {
    Leaver {
        member_id: owned(&member.member_id),
        instance_id: owned_option(member.group_instance_id.as_ref()),
    }
}

fn failed(error: ResponseError) -> LeaveGroupResponse {
    LeaveGroupResponse::default().with_error_code(error.code())
}
