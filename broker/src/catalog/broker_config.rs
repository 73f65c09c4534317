//! Configs of the broker that are set while it runs, under Kafka's names: the defaults for topics.
//!
//! They are set for this node, or as the cluster's default; the node's go before the default, and
//! both before the broker's file.

use std::collections::BTreeMap;

use super::CatalogError;
use super::topic_config::{ConfigKind, TopicConfigDef};

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

impl BrokerConfigs {
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
    TopicConfigDef::find_by_broker_name(name).map(|def| def.kind)
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
