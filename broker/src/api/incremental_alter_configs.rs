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
use kafka_protocol::protocol::StrBytes;

use crate::Broker;
use crate::api::alter_answer::{self, Refusal, Resource, refusal};
use crate::catalog::{ConfigChange, ConfigOperation};
use crate::router::{Reply, RequestContext};

/// Versions served.
pub const VERSIONS: RangeInclusive<i16> = 0..=1;

/// Answers the request.
pub async fn handle(
    ctx: &RequestContext,
    request: IncrementalAlterConfigsRequest,
) -> Reply<IncrementalAlterConfigsResponse> {
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
    Reply::Now(IncrementalAlterConfigsResponse::default().with_responses(responses))
}

async fn alter(
    broker: &Broker,
    resource: &Resource,
    asked: AlterConfigsResource,
    validate_only: bool,
) -> Result<(), Refusal> {
    let configs = asked.configs.into_iter();
    let configs = alter_answer::by_name(configs.map(|config| (config.name.clone(), config)))?;
    let operations = configs
        .into_iter()
        .map(|(key, config)| Ok((key, operation(config)?)))
        .collect::<Result<_, _>>()?;
    alter_answer::alter(
        broker,
        resource,
        ConfigChange::Each(operations),
        validate_only,
    )
    .await
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
