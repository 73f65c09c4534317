//! AlterConfigs (33), versions 0 to 2: replaces all configs of topics and of the broker.
//!
//! - What is not named is unset. Otherwise as IncrementalAlterConfigs, see there.

use std::ops::RangeInclusive;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::alter_configs_request::AlterConfigsResource;
use kafka_protocol::messages::alter_configs_response::AlterConfigsResourceResponse;
use kafka_protocol::messages::{AlterConfigsRequest, AlterConfigsResponse};

use crate::api::alter_answer::{self, Refusal, refusal};
use crate::catalog::ConfigChange;
use crate::router::{Reply, RequestContext};

/// Versions served.
pub const VERSIONS: RangeInclusive<i16> = 0..=2;

/// Answers the request.
pub async fn handle(
    ctx: &RequestContext,
    request: AlterConfigsRequest,
) -> Reply<AlterConfigsResponse> {
    let altered = alter_answer::alter_each(
        &ctx.broker,
        request.resources,
        |asked| (asked.resource_type, asked.resource_name.clone()),
        change,
        request.validate_only,
    );
    let responses = altered.await.into_iter().map(|altered| {
        AlterConfigsResourceResponse::default()
            .with_error_code(altered.code)
            .with_error_message(altered.message)
            .with_resource_type(altered.resource.0)
            .with_resource_name(altered.resource.1)
    });
    Reply::Now(AlterConfigsResponse::default().with_responses(responses.collect()))
}

fn change(asked: AlterConfigsResource) -> Result<ConfigChange, Refusal> {
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
    Ok(ConfigChange::Replace(configs))
}
