//! ElectLeaders (43), versions 0 to 2: one broker leads every partition already, and it is the
//! preferred leader of each.
//!
//! So an election of either type (0 preferred, 1 unclean) is ELECTION_NOT_NEEDED where the partition
//! exists, and UNKNOWN_TOPIC_OR_PARTITION where it does not. `topic_partitions` null asks for all
//! partitions; as in Kafka those that need no election are then left out, which leaves none. An
//! unknown election type is INVALID_REQUEST for the request.

use std::ops::RangeInclusive;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::elect_leaders_response::{PartitionResult, ReplicaElectionResult};
use kafka_protocol::messages::{ElectLeadersRequest, ElectLeadersResponse};
use kafka_protocol::protocol::StrBytes;

use crate::api::partition_request::partition;
use crate::router::{Reply, RequestContext};

/// Versions served.
pub const VERSIONS: RangeInclusive<i16> = 0..=2;

/// From this version on, the request has an election type and the response an error code.
const ELECTION_TYPES_SINCE: i16 = 1;

const PREFERRED: i8 = 0;
const UNCLEAN: i8 = 1;

/// Says of each partition that it has its leader.
pub async fn handle(
    ctx: &RequestContext,
    request: ElectLeadersRequest,
) -> Reply<ElectLeadersResponse> {
    let election_type = request.election_type;
    if ctx.api_version >= ELECTION_TYPES_SINCE && ![PREFERRED, UNCLEAN].contains(&election_type) {
        return Reply::Now(
            ElectLeadersResponse::default().with_error_code(ResponseError::InvalidRequest.code()),
        );
    }
    let mut results = Vec::new();
    for asked in request.topic_partitions.unwrap_or_default() {
        let topic = ctx.broker.catalog.topic(&asked.topic);
        let result = |index| {
            let exists = topic.as_ref().is_some_and(|t| partition(t, index).is_ok());
            let (code, message) = if exists {
                (ResponseError::ElectionNotNeeded, None)
            } else {
                let message = format!("there is no partition {index} of topic '{}'", &*asked.topic);
                (ResponseError::UnknownTopicOrPartition, Some(message))
            };
            PartitionResult::default()
                .with_partition_id(index)
                .with_error_code(code.code())
                .with_error_message(message.map(StrBytes::from_string))
        };
        let partitions = asked.partitions.iter().copied().map(result).collect();
        results.push(
            ReplicaElectionResult::default()
                .with_topic(asked.topic)
                .with_partition_result(partitions),
        );
    }
    Reply::Now(ElectLeadersResponse::default().with_replica_election_results(results))
}
