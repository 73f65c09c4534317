//! The model topics that run in this broker.
//!
//! At start ([`Registry::start`]): the topics of each model topic are found or created, every
//! changelog in the catalog is replayed and every derived partition cut back to its committed end
//! and published (`recovery`), and then the model topics run, those that feed others first.
//!
//! What a model topic does is the `inference` crate's matter; here is the log that it does it on
//! (`embedded`), with the exactly-once commit (`commit`).

mod changelog;
mod commit;
mod embedded;
mod reader;
mod recovery;
#[cfg(test)]
mod tests;
mod topics;
mod turns;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};

use inference::engine::Engine;
use inference::spec::{ModelSpec, ModelTopicSpec, Spanned};
use inference::task::Running;
use storage::LogDir;
use tokio::runtime::Handle;

use crate::catalog::{Catalog, TopicKind};
use crate::clock::Clock;
use crate::group::ReadOnlyGroups;
use embedded::{CommittedPositions, EmbeddedLog, Topics};
use recovery::Recovered;

/// A model topic's positions are shown as the consumer group of this prefix and its name.
pub const GROUP_PREFIX: &str = "milena.";

/// Why the model topics could not be started.
#[derive(Debug, thiserror::Error)]
#[error("model topic '{name}': {reason}")]
pub struct StartError {
    /// The model topic, or the topic of it that failed.
    pub name: String,
    /// What is wrong.
    pub reason: String,
}

impl StartError {
    fn new(name: &str, reason: String) -> Self {
        Self {
            name: name.to_owned(),
            reason,
        }
    }
}

/// What is to run, and on what.
#[derive(Debug)]
pub struct Setup {
    /// Topics are found and created here.
    pub catalog: Arc<Catalog>,
    /// Knows what a clean stop left.
    pub log_dir: Arc<LogDir>,
    /// `[[model]]`
    pub models: Vec<Spanned<ModelSpec>>,
    /// `[[model_topic]]`
    pub model_topics: Vec<Spanned<ModelTopicSpec>>,
    /// Relative model folders start here.
    pub base_dir: PathBuf,
    /// Partitions of an input that is created.
    pub num_partitions: i32,
    /// Time.
    pub clock: Arc<dyn Clock>,
}

/// The running model topics.
#[derive(Debug, Default)]
pub struct Registry {
    /// The inputs of every model topic of the config, whether it runs or not.
    inputs: BTreeMap<String, Vec<String>>,
    running: tokio::sync::Mutex<Vec<Running>>,
    positions: BTreeMap<String, (Topics, CommittedPositions)>,
}

impl Registry {
    /// Recovers the derived topics and starts the model topics. Models are loaded first, so that a
    /// bad one is refused before anything is changed.
    pub async fn start(setup: Setup) -> Result<Self, StartError> {
        let specs: Vec<Arc<ModelTopicSpec>> = setup
            .model_topics
            .iter()
            .map(|spec| Arc::new(spec.get_ref().clone()))
            .collect();
        let engines = load_models(&setup, &specs).await?;

        let mut topics = BTreeMap::new();
        let specs = topics::in_dependency_order(specs);
        for spec in &specs {
            let found = topics::ensure(spec, &setup.catalog, setup.num_partitions).await?;
            topics.insert(spec.name().to_owned(), found);
        }
        let mut recovered = recover(&setup).await?;

        let turns = Arc::new(turns::Turns::default());
        let inputs = |spec: &ModelTopicSpec| spec.inputs().map(str::to_owned).collect();
        let mut registry = Self {
            inputs: specs
                .iter()
                .map(|spec| (spec.name().to_owned(), inputs(spec)))
                .collect(),
            ..Self::default()
        };
        let running = registry.running.get_mut();
        for spec in specs {
            let name = spec.name().to_owned();
            if recovered.failed.contains_key(&name) {
                continue;
            }
            let (Some(topics), Some(engine)) = (topics.remove(&name), engines.get(&name)) else {
                continue;
            };
            let log = EmbeddedLog::new(
                topics.clone(),
                spec.start,
                recovered.committed.remove(&name).unwrap_or_default(),
                turns.clone(),
                Handle::current(),
                setup.clock.clone(),
            );
            registry
                .positions
                .insert(name.clone(), (topics, log.positions()));
            let topic = inference::task::spawn(spec, engine.clone(), log)
                .map_err(|error| StartError::new(&name, format!("thread: {error}")))?;
            running.push(topic);
        }
        Ok(registry)
    }

    /// Whether a model topic is in the config.
    pub fn is_configured(&self, model_topic: &str) -> bool {
        self.inputs.contains_key(model_topic)
    }

    /// A model topic of the config that reads this topic.
    pub fn reader_of(&self, topic: &str) -> Option<&str> {
        let mut all = self.inputs.iter();
        all.find(|(_, inputs)| inputs.iter().any(|input| input == topic))
            .map(|(model_topic, _)| model_topic.as_str())
    }

    /// Stops all: each ends its commit in flight first. Those that read others stop last.
    pub async fn stop(&self) {
        for running in self.running.lock().await.drain(..) {
            running.stop().await;
        }
    }
}

impl ReadOnlyGroups for Registry {
    fn positions(&self, group: &str) -> Option<Vec<(String, i32, i64)>> {
        let (topics, positions) = self.positions.get(group.strip_prefix(GROUP_PREFIX)?)?;
        let names: HashMap<_, _> = topics
            .inputs
            .iter()
            .map(|input| (input.id, &input.name))
            .collect();
        let positions = positions.lock().unwrap_or_else(PoisonError::into_inner);
        let mut found: Vec<_> = positions
            .iter()
            .filter_map(|((id, partition), next)| {
                Some(((*names.get(id)?).clone(), *partition, *next))
            })
            .collect();
        found.sort_unstable();
        Some(found)
    }

    fn names(&self) -> Vec<String> {
        let topics = self.positions.keys();
        topics
            .map(|topic| format!("{GROUP_PREFIX}{topic}"))
            .collect()
    }
}

/// One engine for each model version in use, by model topic.
async fn load_models(
    setup: &Setup,
    specs: &[Arc<ModelTopicSpec>],
) -> Result<HashMap<String, Engine>, StartError> {
    let mut by_version: HashMap<(String, String), Engine> = HashMap::new();
    let mut engines = HashMap::new();
    for spec in specs {
        let name = spec.name();
        let source = spec
            .resolve_model(&setup.models, &setup.base_dir)
            .map_err(|reason| StartError::new(name, reason))?;
        let key = (source.name.clone(), source.version.clone());
        let engine = match by_version.get(&key) {
            Some(engine) => engine.clone(),
            None => {
                let engine = tokio::task::spawn_blocking(move || Engine::load(&source))
                    .await
                    .map_err(|error| StartError::new(name, error.to_string()))?
                    .map_err(|error| StartError::new(name, error.to_string()))?;
                by_version.insert(key, engine.clone());
                engine
            }
        };
        engines.insert(name.to_owned(), engine);
    }
    Ok(engines)
}

/// After a clean stop the published ends are on record, and derived partitions are readable at
/// once; the replay then only finds the positions.
async fn recover(setup: &Setup) -> Result<Recovered, StartError> {
    let topics = setup.catalog.topics();
    if setup.log_dir.was_clean() {
        for topic in topics.iter().filter(|topic| topic.kind.is_published()) {
            for (partition, log) in (0..).zip(&topic.partitions) {
                if let Some(end) = setup.log_dir.clean_high_watermark(&topic.name, partition) {
                    log.publish(end)
                        .map_err(|error| StartError::new(&topic.name, error.to_string()))?;
                }
            }
        }
    }
    let changelogs = topics
        .iter()
        .filter(|topic| matches!(topic.kind, TopicKind::Changelog { .. }))
        .count();
    let started = setup.clock.instant();
    let recovered = recovery::recover(topics)
        .await
        .map_err(|error| StartError::new("changelogs", error.to_string()))?;
    for (model_topic, error) in &recovered.failed {
        tracing::error!(model_topic, %error, "model topic can't go on");
    }
    if changelogs > 0 {
        let took_ms = setup.clock.instant().duration_since(started).as_millis() as u64;
        tracing::info!(changelogs, took_ms, "replayed changelogs");
    }
    Ok(recovered)
}
