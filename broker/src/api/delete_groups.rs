//! DeleteGroups (42), versions 0 to 2: groups without members go, with their offsets.
//!
//! - A group is gone, on the device too, when the answer goes out.
//! - A group with members is NON_EMPTY_GROUP, one that is not there GROUP_ID_NOT_FOUND. The
//!   positions of model topics can't be deleted (GROUP_AUTHORIZATION_FAILED, as commits to them).
//! - A group that is named twice is deleted and answered once.

use std::collections::HashSet;
use std::ops::RangeInclusive;

use futures_util::FutureExt;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::delete_groups_response::DeletableGroupResult;
use kafka_protocol::messages::{DeleteGroupsRequest, DeleteGroupsResponse, GroupId};

use crate::api::group_answer::code;
use crate::group::Answer;
use crate::router::{Reply, RequestContext};

/// Versions served.
pub const VERSIONS: RangeInclusive<i16> = 0..=2;

/// Deletes; answers when all that was deleted is durable.
pub async fn handle(
    ctx: &RequestContext,
    request: DeleteGroupsRequest,
) -> Reply<DeleteGroupsResponse> {
    let mut seen = HashSet::with_capacity(request.groups_names.len());
    let mut answers = Vec::with_capacity(request.groups_names.len());
    for group in request.groups_names {
        if seen.insert(group.clone()) {
            let answer = ctx.broker.groups.delete_group(group.as_str());
            answers.push((group, answer));
        }
    }
    Reply::Later(response(answers).boxed())
}

async fn response(
    answers: Vec<(GroupId, Answer<Result<(), ResponseError>>)>,
) -> DeleteGroupsResponse {
    let mut results = Vec::with_capacity(answers.len());
    for (group, answer) in answers {
        let stopping = Err(ResponseError::CoordinatorNotAvailable);
        let result = match answer {
            Answer::Now(result) => result,
            Answer::Later(result) => result.await.unwrap_or(stopping),
        };
        results.push(
            DeletableGroupResult::default()
                .with_group_id(group)
                .with_error_code(code(result.err())),
        );
    }
    DeleteGroupsResponse::default().with_results(results)
}
