//! AlterPartitionReassignments (45), versions 0 and 1: every partition has one replica, on this
//! broker, and that is where it stays.
//!
//! | replicas | answer |
//! |---|---|
//! | this broker | done: nothing has to move |
//! | null, to cancel | NO_REASSIGNMENT_IN_PROGRESS |
//! | none, or any other broker, or one twice | INVALID_REPLICA_ASSIGNMENT, which names it |
//!
//! Partitions that do not exist are UNKNOWN_TOPIC_OR_PARTITION. With one broker the replication
//! factor cannot change, so `allow_replication_factor_change` (version 1) is only echoed.

use std::ops::RangeInclusive;
use std::sync::Arc;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::alter_partition_reassignments_request::ReassignablePartition;
use kafka_protocol::messages::alter_partition_reassignments_response::{
    ReassignablePartitionResponse, ReassignableTopicResponse,
};
use kafka_protocol::messages::{
    AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse, BrokerId,
};
use kafka_protocol::protocol::StrBytes;

use crate::api::partition_request::partition;
use crate::catalog::Topic;
use crate::router::{Reply, RequestContext};

/// Versions served.
pub const VERSIONS: RangeInclusive<i16> = 0..=1;

/// Checks each assignment against the only one that there can be.
pub async fn handle(
    ctx: &RequestContext,
    request: AlterPartitionReassignmentsRequest,
) -> Reply<AlterPartitionReassignmentsResponse> {
    let node_id = ctx.broker.node_id;
    let mut responses = Vec::with_capacity(request.topics.len());
    for asked in request.topics {
        let topic = ctx.broker.catalog.topic(&asked.name);
        let response = |wanted: &ReassignablePartition| {
            let refused = check(node_id, topic.as_ref(), &asked.name, wanted).err();
            let (code, message) = refused.unzip();
            ReassignablePartitionResponse::default()
                .with_partition_index(wanted.partition_index)
                .with_error_code(code.map_or(0, |code| code.code()))
                .with_error_message(message.map(StrBytes::from_string))
        };
        let partitions = asked.partitions.iter().map(response).collect();
        responses.push(
            ReassignableTopicResponse::default()
                .with_name(asked.name)
                .with_partitions(partitions),
        );
    }
    Reply::Now(
        AlterPartitionReassignmentsResponse::default()
            .with_allow_replication_factor_change(request.allow_replication_factor_change)
            .with_error_message(None)
            .with_responses(responses),
    )
}

fn check(
    node_id: i32,
    topic: Option<&Arc<Topic>>,
    name: &str,
    wanted: &ReassignablePartition,
) -> Result<(), (ResponseError, String)> {
    let index = wanted.partition_index;
    if topic.is_none_or(|topic| partition(topic, index).is_err()) {
        let message = format!("there is no partition {index} of topic '{name}'");
        return Err((ResponseError::UnknownTopicOrPartition, message));
    }
    let invalid = |message: String| Err((ResponseError::InvalidReplicaAssignment, message));
    let Some(replicas) = &wanted.replicas else {
        let message = "no partition reassignment is in progress".to_owned();
        return Err((ResponseError::NoReassignmentInProgress, message));
    };
    match replicas.as_slice() {
        [] => invalid("the assignment has no replicas".to_owned()),
        [BrokerId(id)] if *id == node_id => Ok(()),
        all => match all.iter().find(|id| id.0 != node_id) {
            Some(other) => invalid(format!(
                "the assignment has broker {}, but broker {node_id} is the only one",
                other.0
            )),
            None => invalid(format!(
                "the assignment has broker {node_id} more than once"
            )),
        },
    }
}
