//! IncrementalAlterConfigs (44), versions 0 to 1: changes configs of topics and of the broker.
//!
//! - A change is on the device, and in force for the next append, when the answer goes out. The
//!   resources of one request succeed or fail each on its own, and each as a whole; one that is
//!   named twice fails.
//! - Values are checked as CreateTopics checks them: a bad one is INVALID_CONFIG for a topic,
//!   INVALID_REQUEST for the broker, as in Kafka.
//! - Values can be added to lists, and taken from them; where the list is not set, they are added to
//!   what holds then.
//! - The broker is named by its id, or nameless as the cluster's default: the defaults for topics
//!   can be changed, and are in force at once for every topic that does not say; and so can
//!   `max.connections` and `max.connections.per.ip`.
//! - Topics that the broker writes itself (a model topic's outputs, dead letters and changelog, and
//!   internal topics) keep what their writer depends on, with POLICY_VIOLATION: `cleanup.policy`,
//!   `message.timestamp.type` and the durabilities. Everything else, such as retention and segment
//!   sizes, may be changed.
//! - Loggers, client metrics and groups have no configs here: INVALID_REQUEST.

use std::ops::RangeInclusive;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use kafka_protocol::messages::incremental_alter_configs_response::AlterConfigsResourceResponse;
use kafka_protocol::messages::{IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse};

use crate::api::alter_answer::{self, Refusal, refusal};
use crate::catalog::{ConfigChange, ConfigOperation};
use crate::router::{Reply, RequestContext};

/// Versions served.
pub const VERSIONS: RangeInclusive<i16> = 0..=1;

/// Answers the request.
pub async fn handle(
    ctx: &RequestContext,
    request: IncrementalAlterConfigsRequest,
) -> Reply<IncrementalAlterConfigsResponse> {
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
    Reply::Now(IncrementalAlterConfigsResponse::default().with_responses(responses.collect()))
}

fn change(asked: AlterConfigsResource) -> Result<ConfigChange, Refusal> {
    let configs = asked.configs.into_iter();
    let configs = alter_answer::by_name(configs.map(|config| (config.name.clone(), config)))?;
    let operations = configs
        .into_iter()
        .map(|(key, config)| Ok((key, operation(config)?)))
        .collect::<Result<_, _>>()?;
    Ok(ConfigChange::Each(operations))
}

/// By Kafka's `AlterConfigOp.OpType`.
fn operation(config: AlterableConfig) -> Result<ConfigOperation, Refusal> {
    let operation = match config.config_operation {
        0 => ConfigOperation::Set,
        1 => return Ok(ConfigOperation::Delete),
        2 => ConfigOperation::Append,
        3 => ConfigOperation::Subtract,
        other => {
            return Err(refusal(
                ResponseError::InvalidRequest,
                format!("config {}: unknown operation {other}", &*config.name),
            ));
        }
    };
    match config.value {
        Some(value) => Ok(operation(value.to_string())),
        None => Err(refusal(
            ResponseError::InvalidRequest,
            format!("config {} has no value", &*config.name),
        )),
    }
}
