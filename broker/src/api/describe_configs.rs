//! DescribeConfigs (32), versions 1 to 4: every config of topics and of this broker.
//!
//! - A config comes with its value, where that is from, its type, and, where asked for, its
//!   synonyms (every place that sets it, the first one wins) and its documentation.
//! - A list of names, where it is not empty, filters; unknown names in it are skipped, as in Kafka.
//! - A broker is named by its id. The nameless broker is the cluster's default: it has what was set
//!   there on the running broker, and nothing else.
//! - Of the broker's configs the defaults for topics and the limits of connections may be changed
//!   while it runs; the others are read-only.
//! - Client metrics and groups have no configs here, so their lists are empty; loggers are not
//!   served.

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
use crate::api::resource_type;
use crate::catalog::topic_config::{
    ConfigKind, ConfigSource, TOPIC_CONFIGS, TopicConfigDef, effective,
};
use crate::catalog::{CatalogError, TopicDefaults, check_name};
use crate::router::{Reply, RequestContext};

/// Versions served.
pub const VERSIONS: RangeInclusive<i16> = 1..=4;

/// Kafka's number for a config's source.
pub(super) fn source_code(source: ConfigSource) -> i8 {
    match source {
        ConfigSource::Topic => 1,
        ConfigSource::DynamicBroker => 2,
        ConfigSource::DynamicDefaultBroker => 3,
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
    Short = 4,
    Long = 5,
    Double = 6,
    List = 7,
}

impl From<ConfigKind> for Type {
    fn from(kind: ConfigKind) -> Self {
        match kind {
            ConfigKind::Boolean | ConfigKind::NotServed => Self::Boolean,
            ConfigKind::Int { .. } | ConfigKind::IntOr { .. } => Self::Int,
            ConfigKind::Long { .. } => Self::Long,
            ConfigKind::Double { .. } => Self::Double,
            ConfigKind::Choice(_) => Self::String,
            ConfigKind::List(_) | ConfigKind::ReplicaList => Self::List,
        }
    }
}

/// One config, with everything that may be asked about it.
struct Config {
    name: &'static str,
    kind: Type,
    read_only: bool,
    documentation: String,
    value: Option<String>,
    source: ConfigSource,
    /// The config's name at each place that sets it, the value and the place. The first one is
    /// what the config has.
    set: Vec<Place>,
}

/// A config's name at a place, the value that it has there, and the place.
type Place = (&'static str, String, ConfigSource);

impl Config {
    /// With the value of the first place.
    fn new(
        name: &'static str,
        kind: Type,
        read_only: bool,
        documentation: String,
        set: Vec<Place>,
    ) -> Self {
        let (value, source) = match set.first() {
            Some((_, value, source)) => (Some(value.clone()), *source),
            None => (None, ConfigSource::Default),
        };
        Self {
            name,
            kind,
            read_only,
            documentation,
            value,
            source,
            set,
        }
    }
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
    // A resource that is named twice, or by two names for a broker, is described once: a response
    // is not larger than what there is to say.
    let mut seen = HashSet::with_capacity(request.resources.len());
    let results = request
        .resources
        .into_iter()
        .filter(|resource| seen.insert(identity(resource)))
        .map(|resource| asked.result(&ctx.broker, resource));
    Reply::Now(DescribeConfigsResponse::default().with_results(results.collect()))
}

/// A resource's type and its name, or its number where brokers are meant.
fn identity(resource: &DescribeConfigsResource) -> (i8, Result<i32, StrBytes>) {
    let name = &resource.resource_name;
    let number = match resource.resource_type {
        resource_type::BROKER => name.parse().ok(),
        _ => None,
    };
    (resource.resource_type, number.ok_or_else(|| name.clone()))
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
            .with_value(config.value.map(StrBytes::from_string))
            .with_read_only(config.read_only)
            .with_config_source(source_code(config.source))
            .with_synonyms(synonyms.collect())
            .with_config_type(config.kind as i8)
            .with_documentation(documentation)
    }
}

fn configs(broker: &Broker, resource: &DescribeConfigsResource) -> Result<Vec<Config>, Refusal> {
    let name = &*resource.resource_name;
    match resource.resource_type {
        resource_type::TOPIC => topic_configs(broker, name),
        resource_type::BROKER if name.is_empty() => Ok(cluster_configs(broker)),
        resource_type::BROKER if name.parse() == Ok(broker.node_id) => {
            Ok(broker_configs::broker_configs(broker))
        }
        resource_type::BROKER => Err((
            ResponseError::InvalidRequest,
            format!("this is broker {}, not broker {name:?}", broker.node_id),
        )),
        resource_type::CLIENT_METRICS | resource_type::GROUP => Ok(Vec::new()),
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
    let defaults = defaults.for_kind(&topic.kind);
    let configs = TOPIC_CONFIGS.iter().map(|def| {
        let (value, source) = effective(def, &topic.configs, &defaults);
        let explicit = topic.configs.get(def.name).into_iter();
        let explicit = explicit.map(|value| (def.name, value.clone(), ConfigSource::Topic));
        Config {
            value: Some(value.to_owned()),
            source,
            ..Config::new(
                def.name,
                def.kind.into(),
                false,
                def.documentation(),
                explicit.chain(set_by_broker(def, &defaults)).collect(),
            )
        }
    });
    Ok(configs.collect())
}

/// The broker's defaults for topics, under their broker-wide names.
fn topic_defaults(defaults: &TopicDefaults) -> impl Iterator<Item = Config> {
    TOPIC_CONFIGS.iter().filter_map(|def| {
        let set = set_by_broker(def, defaults).collect();
        Some(topic_default(def, def.broker_name?, set))
    })
}

fn topic_default(def: &TopicConfigDef, broker_name: &'static str, set: Vec<Place>) -> Config {
    let documentation = format!(
        "The default of the topic config {}. {}",
        def.name,
        def.documentation()
    );
    Config::new(broker_name, def.kind.into(), false, documentation, set)
}

/// Where the broker sets its default for a topic config.
fn set_by_broker(def: &TopicConfigDef, defaults: &TopicDefaults) -> impl Iterator<Item = Place> {
    let name = def.broker_name;
    let own = (def.default, ConfigSource::Default);
    let places = defaults.places(def.name);
    let places = places.chain((!def.follows).then_some(own));
    places.filter_map(move |(value, source)| Some((name?, value.to_owned(), source)))
}

/// What was set on the running broker as the cluster's default.
fn cluster_configs(broker: &Broker) -> Vec<Config> {
    let defaults = broker.catalog.defaults();
    let mut configs: Vec<Config> = TOPIC_CONFIGS
        .iter()
        .filter_map(|def| {
            let mut set: Vec<_> = set_by_broker(def, &defaults).collect();
            set.retain(|(_, _, source)| *source == ConfigSource::DynamicDefaultBroker);
            (!set.is_empty()).then_some(topic_default(def, def.broker_name?, set))
        })
        .collect();
    configs.extend(broker_configs::cluster_settings(broker));
    configs.sort_unstable_by_key(|config| config.name);
    configs
}
