//! DescribeGroups (15), versions 0 to 6: groups with their members.
//!
//! - A group that is not there is `Dead`, without an error; from version 6 on it is
//!   GROUP_ID_NOT_FOUND as well (KIP-1043).
//! - Subscriptions and the protocol are shown while the group is stable.
//! - A group that is named twice is described once, so that a response is not larger than what
//!   there is to say.

use std::collections::HashSet;
use std::ops::RangeInclusive;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use kafka_protocol::messages::{DescribeGroupsRequest, DescribeGroupsResponse, GroupId};
use kafka_protocol::protocol::StrBytes;

use crate::api::group_answer::text;
use crate::group::machine::{ShownMember, State};
use crate::router::{Reply, RequestContext};

/// Versions served.
pub const VERSIONS: RangeInclusive<i16> = 0..=6;

/// From this version on, a group that is not there is an error.
const NOT_FOUND_SINCE: i16 = 6;

/// Operations on a group that are open to everybody: read, delete, describe, describe configs,
/// alter configs (bits of Kafka's `AclOperation`).
const ALL_OPERATIONS: i32 = 1 << 3 | 1 << 6 | 1 << 8 | 1 << 10 | 1 << 11;

/// Answers with the groups.
pub async fn handle(
    ctx: &RequestContext,
    request: DescribeGroupsRequest,
) -> Reply<DescribeGroupsResponse> {
    let operations = if request.include_authorized_operations {
        ALL_OPERATIONS
    } else {
        i32::MIN
    };
    let mut seen = HashSet::with_capacity(request.groups.len());
    let mut described = Vec::with_capacity(request.groups.len());
    for group in request.groups {
        if seen.insert(group.clone()) {
            described.push(describe(ctx, group).with_authorized_operations(operations));
        }
    }
    Reply::Now(DescribeGroupsResponse::default().with_groups(described))
}

fn describe(ctx: &RequestContext, group: GroupId) -> DescribedGroup {
    let Some(found) = ctx.broker.groups.describe(group.as_str()) else {
        let answer = DescribedGroup::default()
            .with_group_state(StrBytes::from_static_str(State::Dead.name()));
        if ctx.api_version < NOT_FOUND_SINCE {
            return answer.with_group_id(group);
        }
        // In Kafka's words: its tools show them.
        let message = format!("Group {} not found.", group.as_str());
        return answer
            .with_group_id(group)
            .with_error_code(ResponseError::GroupIdNotFound.code())
            .with_error_message(Some(text(message)));
    };
    DescribedGroup::default()
        .with_group_id(group)
        .with_error_message(None)
        .with_group_state(StrBytes::from_static_str(found.state.name()))
        .with_protocol_type(text(found.protocol_type))
        .with_protocol_data(text(found.protocol))
        .with_members(found.members.into_iter().map(member).collect())
}

fn member(member: ShownMember) -> DescribedGroupMember {
    DescribedGroupMember::default()
        .with_member_id(text(member.member_id))
        .with_group_instance_id(member.instance_id.map(text))
        .with_client_id(text(member.client_id))
        .with_client_host(text(member.client_host))
        .with_member_metadata(member.metadata)
        .with_member_assignment(member.assignment)
}
