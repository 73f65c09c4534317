//! Configs of the broker that are set while it runs, under Kafka's names: the defaults for topics,
//! how many connections there may be, and what the threads that compact logs obey.
//!
//! They are set for this node, or as the cluster's default; the node's go before the default, and
//! both before the broker's file.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use super::CatalogError;
use super::topic_config::{ConfigKind, ConfigSource, TopicConfigDef};
use crate::cleaner_config as cleaner;

/// Whom a broker config is set for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BrokerScope {
    /// This node.
    Node,
    /// Every broker of the cluster that does not say.
    Cluster,
}

/// What was set on the running broker, by Kafka's name, as written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BrokerConfigs {
    /// For this node.
    pub node: BTreeMap<String, String>,
    /// For every broker that does not say.
    pub cluster: BTreeMap<String, String>,
}

/// What may be set besides the defaults for topics.
const OTHERS: &[(&str, ConfigKind)] = &[
    // At least one, or nobody could set it back.
    ("max.connections", COUNT),
    ("max.connections.per.ip", COUNT),
    (cleaner::BACKOFF_MS, ConfigKind::Long { min: 0 }),
    (
        cleaner::DEDUPE_BUFFER_SIZE,
        ConfigKind::Long { min: 1 << 20 },
    ),
    (
        cleaner::IO_BUFFER_LOAD_FACTOR,
        ConfigKind::Double {
            min: 0.01,
            max: 1.0,
        },
    ),
    (
        cleaner::IO_BUFFER_SIZE,
        ConfigKind::Int {
            min: 0,
            max: i32::MAX,
        },
    ),
    (
        cleaner::IO_MAX_BYTES_PER_SECOND,
        ConfigKind::Double {
            min: 1.0,
            max: f64::MAX,
        },
    ),
    (cleaner::THREADS, ConfigKind::Int { min: 1, max: 1024 }),
];

const COUNT: ConfigKind = ConfigKind::Int {
    min: 1,
    max: i32::MAX,
};

impl BrokerConfigs {
    /// Every place that sets a config; the first one wins.
    pub fn places(&self, name: &str) -> impl Iterator<Item = (&str, ConfigSource)> {
        [
            (self.node.get(name), ConfigSource::DynamicBroker),
            (self.cluster.get(name), ConfigSource::DynamicDefaultBroker),
        ]
        .into_iter()
        .filter_map(|(value, source)| Some((value?.as_str(), source)))
    }

    /// A number that is set.
    pub fn number<T: std::str::FromStr>(&self, name: &str) -> Option<T> {
        self.places(name).next()?.0.parse().ok()
    }

    /// What is set for `scope`.
    pub fn of(&self, scope: BrokerScope) -> &BTreeMap<String, String> {
        match scope {
            BrokerScope::Node => &self.node,
            BrokerScope::Cluster => &self.cluster,
        }
    }

    pub(super) fn set(&mut self, scope: BrokerScope, configs: BTreeMap<String, String>) {
        match scope {
            BrokerScope::Node => self.node = configs,
            BrokerScope::Cluster => self.cluster = configs,
        }
    }
}

/// What a config that may be set while the broker runs takes; `None` where there is no such one.
pub fn dynamic_kind(name: &str) -> Option<ConfigKind> {
    match TopicConfigDef::find_by_broker_name(name) {
        Some(def) => Some(def.kind),
        None => OTHERS
            .iter()
            .find(|(other, _)| *other == name)
            .map(|(_, kind)| *kind),
    }
}

type Told = dyn Fn(&BrokerConfigs) + Send + Sync;

/// Is told of every change.
#[derive(Default)]
pub(super) struct Observer(OnceLock<Box<Told>>);

impl Observer {
    /// The first one stays.
    pub(super) fn set(&self, observer: impl Fn(&BrokerConfigs) + Send + Sync + 'static) {
        let _ = self.0.set(Box::new(observer));
    }

    pub(super) fn tell(&self, configs: &BrokerConfigs) {
        if let Some(observer) = self.0.get() {
            observer(configs);
        }
    }
}

impl std::fmt::Debug for Observer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Observer")
            .field(&self.0.get().is_some())
            .finish()
    }
}

/// Checks names and values, and trims the values.
pub(super) fn checked(
    configs: BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>, CatalogError> {
    let unknown: Vec<&str> = configs
        .keys()
        .map(String::as_str)
        .filter(|name| dynamic_kind(name).is_none())
        .collect();
    if !unknown.is_empty() {
        return Err(CatalogError::NotDynamic(unknown.join(", ")));
    }
    configs
        .into_iter()
        .map(|(key, value)| {
            let trimmed = value.trim();
            match dynamic_kind(&key).map(|kind| kind.check(trimmed)) {
                Some(Err(reason)) => Err(CatalogError::InvalidConfig {
                    value: trimmed.to_owned(),
                    key,
                    reason,
                }),
                _ => Ok((key, trimmed.to_owned())),
            }
        })
        .collect()
}
