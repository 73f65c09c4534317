//! ListGroups (16), versions 0 to 5: every group, with its state (version 4 and up, KIP-518) and
//! its type (version 5 and up, KIP-848).
//!
//! - Filters on states and types ignore case; an empty filter lets everything through. A state or
//!   a type that is not known matches nothing.
//! - Every group is of the type `classic`. The positions of model topics are shown as groups that
//!   never had members.

use std::collections::HashSet;
use std::ops::RangeInclusive;

use kafka_protocol::messages::list_groups_response::ListedGroup;
use kafka_protocol::messages::{GroupId, ListGroupsRequest, ListGroupsResponse};
use kafka_protocol::protocol::StrBytes;

use crate::api::group_answer::text;
use crate::router::{Reply, RequestContext};

/// Versions served.
pub const VERSIONS: RangeInclusive<i16> = 0..=5;

const TYPE: StrBytes = StrBytes::from_static_str("classic");

/// Answers with the groups that pass the filters.
pub async fn handle(ctx: &RequestContext, request: ListGroupsRequest) -> Reply<ListGroupsResponse> {
    let states = filter(&request.states_filter);
    let types = filter(&request.types_filter);
    if !passes(&types, &TYPE) {
        return Reply::Now(ListGroupsResponse::default());
    }
    let groups = ctx.broker.groups.list().into_iter();
    let listed = groups
        .filter(|group| passes(&states, group.state.name()))
        .map(|group| {
            ListedGroup::default()
                .with_group_id(GroupId(text(group.group)))
                .with_protocol_type(text(group.protocol_type))
                .with_group_state(StrBytes::from_static_str(group.state.name()))
                .with_group_type(TYPE)
        });
    Reply::Now(ListGroupsResponse::default().with_groups(listed.collect()))
}

fn filter(names: &[StrBytes]) -> HashSet<String> {
    let names = names.iter();
    names.map(|name| name.trim().to_lowercase()).collect()
}

fn passes(filter: &HashSet<String>, name: &str) -> bool {
    filter.is_empty() || filter.contains(&name.to_lowercase())
}
