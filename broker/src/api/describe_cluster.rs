//! DescribeCluster v0-2: one broker, which is its own controller.
//!
//! Endpoint type 2 (controllers, KIP-919) is refused as a Kafka broker refuses it:
//! MISMATCHED_ENDPOINT_TYPE; any other is UNSUPPORTED_ENDPOINT_TYPE. There are no fenced brokers, so
//! `include_fenced_brokers` changes nothing.

use std::ops::RangeInclusive;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_cluster_response::DescribeClusterBroker;
use kafka_protocol::messages::{BrokerId, DescribeClusterRequest, DescribeClusterResponse};
use kafka_protocol::protocol::StrBytes;

use crate::router::{Reply, RequestContext};

/// The versions served.
pub const VERSIONS: RangeInclusive<i16> = 0..=2;

const BROKERS: i8 = 1;
const CONTROLLERS: i8 = 2;

/// Operations on the cluster that are open to everybody: create, alter, describe, cluster action,
/// describe configs, alter configs, idempotent write (bits of Kafka's `AclOperation`). Without an
/// authorizer Kafka reports all that a cluster has.
const ALL_OPERATIONS: i32 = 1 << 5 | 1 << 7 | 1 << 8 | 1 << 9 | 1 << 10 | 1 << 11 | 1 << 12;

/// Describes this broker.
pub async fn handle(
    context: &RequestContext,
    request: DescribeClusterRequest,
) -> Reply<DescribeClusterResponse> {
    let endpoint_type = request.endpoint_type;
    if endpoint_type != BROKERS {
        let (error, message) = match endpoint_type {
            CONTROLLERS => (
                ResponseError::MismatchedEndpointType,
                "the request was sent to a broker, but asks for controllers".to_owned(),
            ),
            other => (
                ResponseError::UnsupportedEndpointType,
                format!("endpoint type {other} is unknown"),
            ),
        };
        return Reply::Now(
            DescribeClusterResponse::default()
                .with_error_code(error.code())
                .with_error_message(Some(message.into()))
                .with_endpoint_type(BROKERS),
        );
    }
    let broker = &context.broker;
    let (host, port) = &broker.advertised;
    let operations = if request.include_cluster_authorized_operations {
        ALL_OPERATIONS
    } else {
        i32::MIN
    };
    Reply::Now(
        DescribeClusterResponse::default()
            .with_endpoint_type(BROKERS)
            .with_cluster_id(StrBytes::from_string(broker.cluster_id.clone()))
            .with_controller_id(BrokerId(broker.node_id))
            .with_cluster_authorized_operations(operations)
            .with_brokers(vec![
                DescribeClusterBroker::default()
                    .with_broker_id(BrokerId(broker.node_id))
                    .with_host(StrBytes::from_string(host.clone()))
                    .with_port((*port).into()),
            ]),
    )
}
