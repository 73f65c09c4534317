//! ListConfigResources (74), versions 0 to 1: what has configs.
//!
//! - Version 0 is about client metrics alone, of which there are none; version 1 names the types, and
//!   no type means all. A type is listed once, however often it is named; an unknown one is
//!   UNSUPPORTED_VERSION.
//! - Every topic that clients see and this broker are listed, whether anything is set on them or not;
//!   loggers, client metrics and groups have no configs here, so none is.

use std::ops::RangeInclusive;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::list_config_resources_response::ConfigResource;
use kafka_protocol::messages::{ListConfigResourcesRequest, ListConfigResourcesResponse};
use kafka_protocol::protocol::StrBytes;

use crate::Broker;
use crate::api::resource_type;
use crate::router::{Reply, RequestContext};

/// Versions served.
pub const VERSIONS: RangeInclusive<i16> = 0..=1;

/// From this version on, the request names types.
const TYPES_SINCE: i16 = 1;

/// In the order in which they are listed.
const TYPES: &[i8] = &[
    resource_type::TOPIC,
    resource_type::BROKER,
    resource_type::BROKER_LOGGER,
    resource_type::CLIENT_METRICS,
    resource_type::GROUP,
];

/// Answers the request.
pub async fn handle(
    ctx: &RequestContext,
    request: ListConfigResourcesRequest,
) -> Reply<ListConfigResourcesResponse> {
    let asked = match ctx.api_version {
        TYPES_SINCE.. if request.resource_types.is_empty() => TYPES.to_vec(),
        TYPES_SINCE.. => request.resource_types,
        _ => vec![resource_type::CLIENT_METRICS],
    };
    if asked.iter().any(|of| !TYPES.contains(of)) {
        let code = ResponseError::UnsupportedVersion.code();
        return Reply::Now(ListConfigResourcesResponse::default().with_error_code(code));
    }
    let listed = TYPES
        .iter()
        .filter(|of| asked.contains(of))
        .flat_map(|of| names(&ctx.broker, *of).into_iter().map(|name| (*of, name)));
    let listed = listed.map(|(of, name)| {
        ConfigResource::default()
            .with_resource_type(of)
            .with_resource_name(StrBytes::from_string(name))
    });
    Reply::Now(ListConfigResourcesResponse::default().with_config_resources(listed.collect()))
}

fn names(broker: &Broker, of: i8) -> Vec<String> {
    match of {
        resource_type::TOPIC => {
            let topics = broker.catalog.topics();
            topics.iter().map(|topic| topic.name.clone()).collect()
        }
        resource_type::BROKER => vec![broker.node_id.to_string()],
        _ => Vec::new(),
    }
}
