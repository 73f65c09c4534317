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

/// What became of one resource.
pub(super) struct Altered {
    pub(super) resource: Resource,
    pub(super) code: i16,
    pub(super) message: Option<StrBytes>,
}

/// Changes each resource of a request on its own; one that is in it twice fails, once.
pub(super) async fn alter_each<R>(
    broker: &Broker,
    asked: Vec<R>,
    resource_of: fn(&R) -> Resource,
    change_of: fn(R) -> Result<ConfigChange, Refusal>,
    validate_only: bool,
) -> Vec<Altered> {
    let mut times_named: HashMap<Resource, u32> = HashMap::new();
    for resource in asked.iter().map(resource_of) {
        *times_named.entry(resource).or_default() += 1;
    }
    let mut altered = Vec::with_capacity(times_named.len());
    for asked in asked {
        let resource = resource_of(&asked);
        // Nothing is left of a resource whose failure was reported already.
        let Some(times) = times_named.remove(&resource) else {
            continue;
        };
        let change = check_once(&resource, times).and_then(|()| change_of(asked));
        let result = match change {
            Ok(change) => alter(broker, &resource, change, validate_only).await,
            Err(refusal) => Err(refusal),
        };
        let (code, message) = match result {
            Ok(()) => (0, None),
            Err((code, message)) => (code.code(), Some(StrBytes::from_string(message))),
        };
        altered.push(Altered {
            resource,
            code,
            message,
        });
    }
    altered
}

/// A resource may be in a request once.
fn check_once(resource: &Resource, times: u32) -> Result<(), Refusal> {
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
async fn alter(
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
