//! DescribeConfigs (32), versions 1 to 4: every config of topics and of this broker.
//!
//! - A config comes with its value, where that is from, its type, and, where asked for, its
//!   synonyms (every place that sets it, the first one wins) and its documentation.
//! - A list of names, where it is not empty, filters; unknown names in it are skipped, as in Kafka.
//! - The broker's configs are read-only. The nameless broker (the cluster's dynamic default) has
//!   none.

mod broker_configs;

use std::collections::HashSet;
use std::ops::RangeInclusive;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};
use kafka_protocol::messages::{DescribeConfigsRequest, DescribeConfigsResponse};
use kafka_protocol::protocol::StrBytes;

use crate::Broker;
use crate::api::error_code;
use crate::catalog::topic_config::{ConfigKind, ConfigSource, TOPIC_CONFIGS, effective};
use crate::catalog::{CatalogError, TopicDefaults, check_name};
use crate::router::{Reply, RequestContext};

/// Versions served.
pub const VERSIONS: RangeInclusive<i16> = 1..=4;

/// Kafka's `ConfigResource.Type`.
mod resource_type {
    pub const TOPIC: i8 = 2;
    pub const BROKER: i8 = 4;
}

/// Kafka's number for a config's source.
pub(super) fn source_code(source: ConfigSource) -> i8 {
    match source {
        ConfigSource::Topic => 1,
        ConfigSource::BrokerFile => 4,
        ConfigSource::Default => 5,
    }
}

/// A config's type, as Kafka numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Type {
    Boolean = 1,
    String = 2,
    Int = 3,
    Long = 5,
    Double = 6,
    List = 7,
}

impl From<ConfigKind> for Type {
    fn from(kind: ConfigKind) -> Self {
        match kind {
            ConfigKind::Boolean => Self::Boolean,
            ConfigKind::Int { .. } => Self::Int,
            ConfigKind::Long { .. } => Self::Long,
            ConfigKind::Double { .. } => Self::Double,
            ConfigKind::Choice(_) => Self::String,
            ConfigKind::List(_) => Self::List,
        }
    }
}

/// One config, with everything that may be asked about it.
struct Config {
    name: &'static str,
    kind: Type,
    read_only: bool,
    documentation: String,
    /// The config's name at each place that sets it, the value and the place. The first one wins.
    set: Vec<(&'static str, String, ConfigSource)>,
}

type Refusal = (ResponseError, String);

/// Answers the request.
pub async fn handle(
    ctx: &RequestContext,
    request: DescribeConfigsRequest,
) -> Reply<DescribeConfigsResponse> {
    let asked = Asked {
        synonyms: request.include_synonyms,
        documentation: request.include_documentation,
    };
    let results = request
        .resources
        .into_iter()
        .map(|resource| asked.result(&ctx.broker, resource));
    Reply::Now(DescribeConfigsResponse::default().with_results(results.collect()))
}

/// What the request asks for besides values.
#[derive(Clone, Copy)]
struct Asked {
    synonyms: bool,
    documentation: bool,
}

impl Asked {
    fn result(self, broker: &Broker, resource: DescribeConfigsResource) -> DescribeConfigsResult {
        let result = DescribeConfigsResult::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name.clone());
        match configs(broker, &resource) {
            Ok(mut configs) => {
                if let Some(keys) = resource.configuration_keys.filter(|keys| !keys.is_empty()) {
                    let keys: HashSet<&str> = keys.iter().map(|key| &**key).collect();
                    configs.retain(|config| keys.contains(config.name));
                }
                let configs = configs.into_iter().map(|config| self.described(config));
                result
                    .with_error_message(None)
                    .with_configs(configs.collect())
            }
            Err((code, message)) => result
                .with_error_code(code.code())
                .with_error_message(Some(StrBytes::from_string(message))),
        }
    }

    fn described(self, config: Config) -> DescribeConfigsResourceResult {
        let winner = config.set.first();
        let value = winner.map(|(_, value, _)| StrBytes::from_string(value.clone()));
        let source = winner.map_or(ConfigSource::Default, |(_, _, source)| *source);
        let documentation = self
            .documentation
            .then(|| StrBytes::from_string(config.documentation));
        let synonyms = config.set.into_iter().filter(|_| self.synonyms);
        let synonyms = synonyms.map(|(name, value, source)| {
            DescribeConfigsSynonym::default()
                .with_name(StrBytes::from_static_str(name))
                .with_value(Some(StrBytes::from_string(value)))
                .with_source(source_code(source))
        });
        DescribeConfigsResourceResult::default()
            .with_name(StrBytes::from_static_str(config.name))
            .with_value(value)
            .with_read_only(config.read_only)
            .with_config_source(source_code(source))
            .with_synonyms(synonyms.collect())
            .with_config_type(config.kind as i8)
            .with_documentation(documentation)
    }
}

fn configs(broker: &Broker, resource: &DescribeConfigsResource) -> Result<Vec<Config>, Refusal> {
    let name = &*resource.resource_name;
    match resource.resource_type {
        resource_type::TOPIC => topic_configs(broker, name),
        resource_type::BROKER if name.is_empty() => Ok(Vec::new()),
        resource_type::BROKER if name.parse() == Ok(broker.node_id) => {
            Ok(broker_configs::broker_configs(broker))
        }
        resource_type::BROKER => Err((
            ResponseError::InvalidRequest,
            format!("this is broker {}, not broker {name:?}", broker.node_id),
        )),
        other => {
            let message = format!("configs of resource type {other} are not served");
            Err((ResponseError::InvalidRequest, message))
        }
    }
}

fn topic_configs(broker: &Broker, name: &str) -> Result<Vec<Config>, Refusal> {
    let of_catalog = |error: CatalogError| (error_code::of_catalog(&error), error.to_string());
    check_name(name).map_err(of_catalog)?;
    let topic = broker
        .catalog
        .topic(name)
        .ok_or_else(|| of_catalog(CatalogError::UnknownTopic(name.to_owned())))?;
    let defaults = broker.catalog.defaults();
    let configs = TOPIC_CONFIGS.iter().map(|def| {
        let mut set = Vec::with_capacity(3);
        if let (value, ConfigSource::Topic) = effective(def, &topic.configs, defaults) {
            set.push((def.name, value.to_owned(), ConfigSource::Topic));
        }
        set.extend(set_by_broker(
            def.broker_name,
            defaults.get(def.name),
            def.default,
        ));
        Config {
            name: def.name,
            kind: def.kind.into(),
            read_only: false,
            documentation: def.documentation(),
            set,
        }
    });
    Ok(configs.collect())
}

/// The broker's defaults for topics, under their broker-wide names.
fn topic_defaults(defaults: &TopicDefaults) -> impl Iterator<Item = Config> {
    TOPIC_CONFIGS.iter().map(|def| Config {
        name: def.broker_name,
        kind: def.kind.into(),
        read_only: true,
        documentation: format!(
            "The default of the topic config {}. {}",
            def.name,
            def.documentation()
        ),
        set: set_by_broker(def.broker_name, defaults.get(def.name), def.default).collect(),
    })
}

fn set_by_broker(
    name: &'static str,
    in_file: Option<&str>,
    default: &str,
) -> impl Iterator<Item = (&'static str, String, ConfigSource)> {
    let in_file = in_file.map(|value| (name, value.to_owned(), ConfigSource::BrokerFile));
    in_file
        .into_iter()
        .chain([(name, default.to_owned(), ConfigSource::Default)])
}
