//! AlterConfigs (33), versions 0 to 2: replaces all configs of topics and of the broker.
//!
//! - What is not named is unset. Otherwise as IncrementalAlterConfigs, see there.

use std::ops::RangeInclusive;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::alter_configs_request::AlterConfigsResource;
use kafka_protocol::messages::alter_configs_response::AlterConfigsResourceResponse;
use kafka_protocol::messages::{AlterConfigsRequest, AlterConfigsResponse};
use kafka_protocol::protocol::StrBytes;

use crate::Broker;
use crate::api::alter_answer::{self, Refusal, Resource, refusal};
use crate::catalog::ConfigChange;
use crate::router::{Reply, RequestContext};

/// Versions served.
pub const VERSIONS: RangeInclusive<i16> = 0..=2;

/// Answers the request.
pub async fn handle(
    ctx: &RequestContext,
    request: AlterConfigsRequest,
) -> Reply<AlterConfigsResponse> {
    let named = |r: &AlterConfigsResource| (r.resource_type, r.resource_name.clone());
    let mut times_named = alter_answer::times_named(request.resources.iter().map(named));
    let mut responses = Vec::with_capacity(times_named.len());
    for asked in request.resources {
        let resource = named(&asked);
        // Nothing is left of a resource whose failure was reported already.
        let Some(times) = times_named.remove(&resource) else {
            continue;
        };
        let result = match alter_answer::check_once(&resource, times) {
            Ok(()) => alter(&ctx.broker, &resource, asked, request.validate_only).await,
            Err(refusal) => Err(refusal),
        };
        let (code, message) = match result {
            Ok(()) => (0, None),
            Err((code, message)) => (code.code(), Some(StrBytes::from_string(message))),
        };
        responses.push(
            AlterConfigsResourceResponse::default()
                .with_error_code(code)
                .with_error_message(message)
                .with_resource_type(resource.0)
                .with_resource_name(resource.1),
        );
    }
    Reply::Now(AlterConfigsResponse::default().with_responses(responses))
}

async fn alter(
    broker: &Broker,
    resource: &Resource,
    asked: AlterConfigsResource,
    validate_only: bool,
) -> Result<(), Refusal> {
    let configs = asked.configs.into_iter();
    let configs = alter_answer::by_name(configs.map(|config| (config.name, config.value)))?;
    let configs = configs
        .into_iter()
        .map(|(key, value)| match value {
            Some(value) => Ok((key, value.to_string())),
            None => Err(refusal(
                ResponseError::InvalidRequest,
                format!("config {key} has no value"),
            )),
        })
        .collect::<Result<_, _>>()?;
    alter_answer::alter(
        broker,
        resource,
        ConfigChange::Replace(configs),
        validate_only,
    )
    .await
}
