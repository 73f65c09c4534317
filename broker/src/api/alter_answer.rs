//! What AlterConfigs and IncrementalAlterConfigs have in common: which resources have configs that
//! may be changed, and how a refusal is told.

use std::collections::{BTreeMap, HashMap};

use kafka_protocol::ResponseError;
use kafka_protocol::protocol::StrBytes;

use crate::Broker;
use crate::api::{error_code, resource_type};
use crate::catalog::broker_config::BrokerScope;
use crate::catalog::{CatalogError, ConfigChange, ConfigTarget, check_name};

/// The code and the message of a refusal.
pub(super) type Refusal = (ResponseError, String);

/// A resource's type and name.
pub(super) type Resource = (i8, StrBytes);

/// A refused change in the request's words.
pub(super) fn refusal(code: ResponseError, message: impl Into<String>) -> Refusal {
    (code, message.into())
}

/// How often each resource is in a request.
pub(super) fn times_named(resources: impl Iterator<Item = Resource>) -> HashMap<Resource, u32> {
    let mut times = HashMap::new();
    for resource in resources {
        *times.entry(resource).or_default() += 1;
    }
    times
}

/// A resource may be in a request once.
pub(super) fn check_once(resource: &Resource, times: u32) -> Result<(), Refusal> {
    if times == 1 {
        return Ok(());
    }
    let message = format!(
        "resource '{}' is {times} times in the request",
        &*resource.1
    );
    Err(refusal(ResponseError::InvalidRequest, message))
}

/// By name; a config may be named once.
pub(super) fn by_name<V>(
    configs: impl Iterator<Item = (StrBytes, V)>,
) -> Result<BTreeMap<String, V>, Refusal> {
    let mut named = BTreeMap::new();
    for (name, value) in configs {
        if named.insert(name.to_string(), value).is_some() {
            let message = format!("config {} is in the request twice", &*name);
            return Err(refusal(ResponseError::InvalidRequest, message));
        }
    }
    Ok(named)
}

/// Changes the configs of a resource.
pub(super) async fn alter(
    broker: &Broker,
    (resource_type, name): &Resource,
    change: ConfigChange,
    validate_only: bool,
) -> Result<(), Refusal> {
    let target = target(broker, *resource_type, name)?;
    let is_broker = matches!(target, ConfigTarget::Broker(_));
    let altered = broker.catalog.alter_configs(target, change, validate_only);
    altered.await.map_err(|error| {
        let code = match error_code::of_catalog(&error) {
            // As Kafka has it for brokers.
            ResponseError::InvalidConfig if is_broker => ResponseError::InvalidRequest,
            code => code,
        };
        refusal(code, error.to_string())
    })
}

fn target(broker: &Broker, resource_type: i8, name: &str) -> Result<ConfigTarget, Refusal> {
    let invalid = |message: String| Err(refusal(ResponseError::InvalidRequest, message));
    match resource_type {
        resource_type::TOPIC => {
            let of_catalog =
                |error: CatalogError| refusal(error_code::of_catalog(&error), error.to_string());
            check_name(name).map_err(of_catalog)?;
            Ok(ConfigTarget::Topic(name.to_owned()))
        }
        resource_type::BROKER if name.is_empty() => Ok(ConfigTarget::Broker(BrokerScope::Cluster)),
        resource_type::BROKER if name.parse() == Ok(broker.node_id) => {
            Ok(ConfigTarget::Broker(BrokerScope::Node))
        }
        resource_type::BROKER => invalid(format!(
            "this is broker {}, not broker {name:?}",
            broker.node_id
        )),
        resource_type::BROKER_LOGGER => {
            invalid("log levels are set by the environment variable MILENA_LOG".to_owned())
        }
        resource_type::CLIENT_METRICS => {
            invalid("client metrics are not collected by this broker".to_owned())
        }
        resource_type::GROUP => invalid("groups have no configs of their own".to_owned()),
        other => invalid(format!("unknown resource type {other}")),
    }
}
