//! Changes of configs: of a topic, or of the broker.
//!
//! A change is checked as a whole, on the device before it is in force, and in force for every
//! partition before it is answered: the next append obeys it.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::broker_config::{self, BrokerConfigs, BrokerScope};
use super::topic_config::{self, ConfigKind, TopicConfigDef, effective};
use super::{CatalogError, Inner, Topic, TopicConfig, TopicDefaults, TopicKind, Topics, records};

/// What decides how the broker writes a topic of its own: not for clients to change.
const LOCKED: &[&str] = &[
    "cleanup.policy",
    "message.timestamp.type",
    "milena.acks.all.durability",
    "milena.acks.one.durability",
];

/// Whose configs are changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigTarget {
    /// The topic of that name.
    Topic(String),
    /// The broker.
    Broker(BrokerScope),
}

/// What happens to one config.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigOperation {
    /// It has this value from now on.
    Set(String),
    /// It is not set any more.
    Delete,
    /// These words are added to its list.
    Append(String),
    /// These words are taken out of its list.
    Subtract(String),
}

/// What happens to the configs of a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigChange {
    /// These are set, and no others.
    Replace(BTreeMap<String, String>),
    /// One operation for each of these; the others stay as they are.
    Each(BTreeMap<String, ConfigOperation>),
}

impl Inner {
    pub(super) async fn alter(
        &self,
        target: ConfigTarget,
        change: ConfigChange,
        validate_only: bool,
    ) -> Result<(), CatalogError> {
        let _change = self.change.lock().await;
        match target {
            ConfigTarget::Topic(name) => self.alter_topic(&name, change, validate_only).await,
            ConfigTarget::Broker(scope) => self.alter_broker(scope, change, validate_only).await,
        }
    }

    async fn alter_topic(
        &self,
        name: &str,
        change: ConfigChange,
        validate_only: bool,
    ) -> Result<(), CatalogError> {
        let (topic, defaults) = self.read(|topics| {
            let topic = topics.by_name.get(name).cloned();
            (topic, Arc::clone(&topics.defaults))
        });
        let topic = topic.ok_or_else(|| CatalogError::UnknownTopic(name.to_owned()))?;
        let defaults = defaults.for_kind(&topic.kind);
        let inherited = |key: &str| {
            let def = TopicConfigDef::find(key)?;
            let (value, _) = effective(def, &EMPTY, &defaults);
            Some((def.kind, value.to_owned()))
        };
        let configs = changed(&topic.configs, change, inherited)?;
        let configs = topic_config::checked(configs)?;
        topic_config::check_new_configs(&configs, &defaults)?;
        check_locked(&topic, &configs)?;
        let config = TopicConfig::from_configs(&configs, &defaults)?;
        if validate_only || configs == topic.configs {
            return Ok(());
        }
        let record = records::TopicRecord {
            id: topic.id,
            kind: topic.kind.clone(),
            partitions: topic.partition_count(),
            configs,
        };
        let batch = records::topic_batch(self.clock.now_ms(), name, Some(&record))?;
        self.log_change(batch).await?;
        let altered = with_config(&topic, record.configs, config);
        tracing::info!(topic = name, configs = ?altered.configs, "topic configs changed");
        self.write(|topics| topics.insert(altered));
        Ok(())
    }

    async fn alter_broker(
        &self,
        scope: BrokerScope,
        change: ConfigChange,
        validate_only: bool,
    ) -> Result<(), CatalogError> {
        let (mut broker, all, defaults) = self.read(|topics| {
            let all: Vec<_> = topics.by_name.values().cloned().collect();
            (topics.broker.clone(), all, Arc::clone(&topics.defaults))
        });
        let inherited = |key: &str| {
            let kind = broker_config::dynamic_kind(key)?;
            let value = TopicConfigDef::find_by_broker_name(key)
                .map_or("", |def| effective(def, &EMPTY, &defaults).0);
            Some((kind, value.to_owned()))
        };
        let configs = changed(broker.of(scope), change, inherited)?;
        let configs = broker_config::checked(configs)?;
        broker.set(scope, configs);
        let defaults = defaults.with_dynamic(&broker)?;
        let typed = all
            .iter()
            .map(|topic| typed(&topic.kind, &topic.configs, &defaults))
            .collect::<Result<Vec<_>, _>>()?;
        if validate_only {
            return Ok(());
        }
        let configs = broker.of(scope);
        let batch = records::broker_configs_batch(self.clock.now_ms(), scope, configs)?;
        self.log_change(batch).await?;
        tracing::info!(?scope, ?configs, "broker configs changed");
        let altered: Vec<_> = all
            .iter()
            .zip(typed)
            .filter(|(topic, config)| topic.config != *config)
            .map(|(topic, config)| with_config(topic, topic.configs.clone(), config))
            .collect();
        self.observer.tell(&broker);
        self.write(|topics| topics.set_broker(broker, defaults, altered));
        Ok(())
    }
}

impl Topics {
    fn set_broker(
        &mut self,
        broker: BrokerConfigs,
        defaults: TopicDefaults,
        altered: Vec<Arc<Topic>>,
    ) {
        self.broker = broker;
        self.defaults = Arc::new(defaults);
        for topic in altered {
            self.insert(topic);
        }
    }
}

static EMPTY: BTreeMap<String, String> = BTreeMap::new();

/// The typed form of a topic's configs.
pub(super) fn typed(
    kind: &TopicKind,
    configs: &BTreeMap<String, String>,
    defaults: &TopicDefaults,
) -> Result<TopicConfig, CatalogError> {
    TopicConfig::from_configs(configs, &defaults.for_kind(kind))
}

/// The topic with other configs, which its logs obey from now on.
fn with_config(
    topic: &Topic,
    configs: BTreeMap<String, String>,
    config: TopicConfig,
) -> Arc<Topic> {
    for log in &topic.partitions {
        log.set_config(Arc::clone(&config.log));
    }
    Arc::new(Topic {
        configs,
        config,
        ..topic.clone()
    })
}

/// What is set after the change. `inherited` tells what a config takes, and the value that it has
/// where it is not set.
fn changed(
    current: &BTreeMap<String, String>,
    change: ConfigChange,
    inherited: impl Fn(&str) -> Option<(ConfigKind, String)>,
) -> Result<BTreeMap<String, String>, CatalogError> {
    let operations = match change {
        ConfigChange::Replace(configs) => return Ok(configs),
        ConfigChange::Each(operations) => operations,
    };
    let mut configs = current.clone();
    for (key, operation) in operations {
        match operation {
            ConfigOperation::Set(value) => {
                configs.insert(key, value);
            }
            ConfigOperation::Delete => {
                configs.remove(&key);
            }
            ConfigOperation::Append(words) | ConfigOperation::Subtract(words)
                if !inherited(&key).is_some_and(|(kind, _)| kind.is_list()) =>
            {
                return Err(CatalogError::InvalidConfig {
                    key,
                    value: words,
                    reason: "only to a list can values be added, or taken from it".to_owned(),
                });
            }
            ConfigOperation::Append(words) => {
                let mut list = current_list(&configs, &key, &inherited);
                for word in topic_config::list(&words) {
                    if !list.iter().any(|listed| listed == word) {
                        list.push(word.to_owned());
                    }
                }
                configs.insert(key, list.join(","));
            }
            ConfigOperation::Subtract(words) => {
                let mut list = current_list(&configs, &key, &inherited);
                list.retain(|listed| !topic_config::list(&words).any(|word| word == listed));
                configs.insert(key, list.join(","));
            }
        }
    }
    Ok(configs)
}

fn current_list(
    configs: &BTreeMap<String, String>,
    key: &str,
    inherited: impl Fn(&str) -> Option<(ConfigKind, String)>,
) -> Vec<String> {
    let value = configs
        .get(key)
        .cloned()
        .or_else(|| inherited(key).map(|(_, value)| value))
        .unwrap_or_default();
    topic_config::list(&value).map(str::to_owned).collect()
}

fn check_locked(topic: &Topic, configs: &BTreeMap<String, String>) -> Result<(), CatalogError> {
    if topic.kind.is_writable_by_clients() {
        return Ok(());
    }
    match LOCKED
        .iter()
        .find(|key| topic.configs.get(**key) != configs.get(**key))
    {
        None => Ok(()),
        Some(key) => Err(CatalogError::Owned {
            topic: topic.name.clone(),
            owner: topic.kind.owner(),
            what: format!("its {key} can't be changed"),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configs(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect()
    }

    fn inherited(key: &str) -> Option<(ConfigKind, String)> {
        TopicConfigDef::find(key).map(|def| (def.kind, def.default.to_owned()))
    }

    fn one(key: &str, operation: ConfigOperation) -> ConfigChange {
        ConfigChange::Each(BTreeMap::from([(key.to_owned(), operation)]))
    }

    #[test]
    fn each_operation_changes_its_config_alone() {
        let current = configs(&[("retention.ms", "5"), ("segment.ms", "7")]);
        for (change, expected) in [
            (
                one("retention.ms", ConfigOperation::Set("6".into())),
                configs(&[("retention.ms", "6"), ("segment.ms", "7")]),
            ),
            (
                one("retention.ms", ConfigOperation::Delete),
                configs(&[("segment.ms", "7")]),
            ),
            (
                one("cleanup.policy", ConfigOperation::Delete),
                current.clone(),
            ),
            (
                ConfigChange::Replace(configs(&[("segment.ms", "8")])),
                configs(&[("segment.ms", "8")]),
            ),
        ] {
            assert_eq!(changed(&current, change, inherited).unwrap(), expected);
        }
    }

    #[test]
    fn lists_grow_and_shrink_from_the_value_that_holds() {
        let change = one(
            "cleanup.policy",
            ConfigOperation::Append("compact,delete".into()),
        );
        let both = changed(&BTreeMap::new(), change, inherited).unwrap();
        assert_eq!(both, configs(&[("cleanup.policy", "delete,compact")]));
        let change = one("cleanup.policy", ConfigOperation::Subtract("delete".into()));
        let compact = changed(&both, change, inherited).unwrap();
        assert_eq!(compact, configs(&[("cleanup.policy", "compact")]));
        for operation in [
            ConfigOperation::Append("1".into()),
            ConfigOperation::Subtract("1".into()),
        ] {
            let error = changed(&both, one("retention.ms", operation), inherited).unwrap_err();
            assert!(error.to_string().contains("retention.ms"), "{error}");
        }
    }
}
