//! What holds for topics that do not say: what the broker's file sets, and above it what was set
//! on the running broker.

use std::borrow::Cow;
use std::collections::BTreeMap;

use storage::LogConfig;

use super::super::broker_config::BrokerConfigs;
use super::super::{CatalogError, TopicKind};
use super::{ConfigSource, TopicConfigDef, check_new_configs, checked};

/// The topic config that decides whether records are thrown away by key: what the broker writes
/// itself does not follow the broker's default for it.
const CLEANUP_POLICY: &str = "cleanup.policy";

/// What the broker sets for topics that do not say. Each map is by topic config name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicDefaults {
    file: BTreeMap<String, String>,
    dynamic_default: BTreeMap<String, String>,
    dynamic: BTreeMap<String, String>,
    producer_id_expiration_ms: u64,
}

impl Default for TopicDefaults {
    fn default() -> Self {
        Self {
            file: BTreeMap::new(),
            dynamic_default: BTreeMap::new(),
            dynamic: BTreeMap::new(),
            producer_id_expiration_ms: LogConfig::default().producer_id_expiration_ms,
        }
    }
}

impl TopicDefaults {
    /// Defaults of the broker's file by topic config name. Fails on an unknown name or a bad value.
    pub fn new(configs: BTreeMap<String, String>) -> Result<Self, CatalogError> {
        let defaults = Self {
            file: checked(configs)?,
            ..Self::default()
        };
        check_new_configs(&BTreeMap::new(), &defaults)?;
        Ok(defaults)
    }

    /// `producer.id.expiration.ms`: idle producers are forgotten after this long. A setting of the
    /// broker, not of a topic.
    #[must_use]
    pub fn with_producer_id_expiration_ms(mut self, producer_id_expiration_ms: u64) -> Self {
        self.producer_id_expiration_ms = producer_id_expiration_ms;
        self
    }

    /// The file's defaults with what is set on the running broker above them.
    pub(in crate::catalog) fn with_dynamic(
        &self,
        configs: &BrokerConfigs,
    ) -> Result<Self, CatalogError> {
        let defaults = Self {
            dynamic: of_topics(&configs.node)?,
            dynamic_default: of_topics(&configs.cluster)?,
            ..self.clone()
        };
        check_new_configs(&BTreeMap::new(), &defaults)?;
        Ok(defaults)
    }

    /// What holds for a topic of this kind: whether records may be thrown away by key is not the
    /// broker's default to say for topics that the broker writes itself.
    pub(crate) fn for_kind(&self, kind: &TopicKind) -> Cow<'_, Self> {
        let is_set = self.places(CLEANUP_POLICY).next().is_some();
        if kind.is_writable_by_clients() || !is_set {
            return Cow::Borrowed(self);
        }
        let mut own = self.clone();
        for place in [&mut own.file, &mut own.dynamic_default, &mut own.dynamic] {
            place.remove(CLEANUP_POLICY);
        }
        Cow::Owned(own)
    }

    /// `producer.id.expiration.ms`.
    pub fn producer_id_expiration_ms(&self) -> u64 {
        self.producer_id_expiration_ms
    }

    /// Every place that sets the topic config `name` for the broker; the first one wins.
    pub fn places(&self, name: &str) -> impl Iterator<Item = (&str, ConfigSource)> {
        [
            (self.dynamic.get(name), ConfigSource::DynamicBroker),
            (
                self.dynamic_default.get(name),
                ConfigSource::DynamicDefaultBroker,
            ),
            (self.file.get(name), ConfigSource::BrokerFile),
        ]
        .into_iter()
        .filter_map(|(value, source)| Some((value?.as_str(), source)))
    }
}

/// The topic defaults among a broker's configs, checked, by topic config name.
fn of_topics(configs: &BTreeMap<String, String>) -> Result<BTreeMap<String, String>, CatalogError> {
    let named = configs.iter().filter_map(|(name, value)| {
        let def = TopicConfigDef::find_by_broker_name(name)?;
        Some((def.name.to_owned(), value.clone()))
    });
    checked(named.collect())
}
