//! The model topics that run in this broker.
//!
//! At start ([`Registry::start`]): the topics of each model topic are found or created, every
//! changelog in the catalog is replayed and every derived partition cut back to its committed end
//! and published (`recovery`), and then the model topics run, those that feed others first.
//!
//! Inputs that get more partitions while a model topic runs: `growth` says what else grows, the catalog
//! does all of it at once, and then the model topic is told ([`Registry::grow`]).
//!
//! What a model topic does is the `inference` crate's matter; here is the log that it does it on
//! (`embedded`), with the exactly-once commit (`commit`).

mod changelog;
mod commit;
mod embedded;
mod growth;
mod jobs;
mod purge;
mod reader;
mod rebuild;
mod recovery;
mod restore;
mod tables;
#[cfg(test)]
mod tests;
mod topics;
mod turns;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};

use inference::engine::Engine;
use inference::spec::{EventTimeSpec, ModelSpec, ModelTopicSpec, Spanned};
use inference::task::{Origins, Running, StateReader, Surroundings, check_fit};
use storage::LogDir;
use tokio::runtime::Handle;

use crate::catalog::{Catalog, CatalogError, Topic, TopicKind};
use crate::clock::Clock;
use crate::group::ReadOnlyGroups;
use embedded::{CommittedPositions, EmbeddedLog, Growing, Topics};
use growth::Feed;
use jobs::{Job, Role, repartition_of};
use recovery::Recovered;

/// A model topic's positions are shown as the consumer group of this prefix and its name.
pub const GROUP_PREFIX: &str = "milena.";

/// Where state goes that memory has no room for, in the data folder.
pub(crate) const STATE_FOLDER: &str = ".state";

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
    /// Where topics' event times are.
    pub event_times: HashMap<String, EventTimeSpec>,
    /// Model topics whose state is to be built anew from their inputs.
    pub rebuild_state: Vec<String>,
    /// Time.
    pub clock: Arc<dyn Clock>,
}

/// The running model topics.
#[derive(Debug, Default)]
pub struct Registry {
    /// Every model topic of the config, whether it runs or not, those that feed others first.
    feeds: Vec<Feed>,
    running: tokio::sync::Mutex<Vec<Running>>,
    live: BTreeMap<String, Live>,
    /// Of model topics whose state may be asked for.
    states: BTreeMap<String, StateReader>,
    purge: Option<tokio::task::JoinHandle<()>>,
    /// One growth at a time.
    growth: tokio::sync::Mutex<()>,
}

/// What is asked of a model topic that runs.
#[derive(Debug)]
struct Live {
    growing: Growing,
    positions: CommittedPositions,
}

/// Why a topic does not get more partitions.
#[derive(Clone, Debug, thiserror::Error)]
pub enum GrowError {
    /// A model topic could not go on.
    #[error("{0}")]
    Inputs(String),
    /// The catalog refused or failed.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
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
        let jobs: Vec<Job> = specs.into_iter().flat_map(Job::of).collect();
        for job in &jobs {
            let found = topics::ensure(job, &setup.catalog, setup.num_partitions).await?;
            topics.insert(job.spec.name().to_owned(), found);
        }
        let mut recovered = recover(&setup).await?;
        let (asked, clock) = (&setup.rebuild_state, &*setup.clock);
        rebuild::run(&jobs, &topics, &mut recovered, asked, clock).await?;

        let turns = Arc::new(turns::Turns::default());
        let mut registry = Self {
            feeds: jobs.iter().map(feed).collect(),
            ..Self::default()
        };
        let running = registry.running.get_mut();
        let mut purged = Vec::new();
        for job in jobs {
            let spec = Arc::clone(&job.spec);
            let name = spec.name().to_owned();
            if recovered.failed.contains_key(&name) {
                continue;
            }
            let Some(topics) = topics.remove(&name) else {
                continue;
            };
            let log = EmbeddedLog::new(
                topics,
                spec.start,
                recovered.committed.remove(&name).unwrap_or_default(),
                turns.clone(),
                Handle::current(),
                setup.clock.clone(),
            );
            let live = Live {
                growing: log.growing(),
                positions: log.positions(),
            };
            if matches!(job.role, Role::Repartitioned(_)) {
                purged.push((live.growing.clone(), live.positions.clone()));
            }
            registry.live.insert(name.clone(), live);
            let topic = match (&job.role, engines.get(&name)) {
                (Role::Repartitions(_), _) => inference::task::spawn_rekey(spec, log),
                (_, None) => continue,
                (_, Some(engine)) => {
                    let surroundings = surroundings(&setup, &job);
                    inference::task::spawn_in(spec, engine.clone(), log, surroundings)
                }
            };
            let topic = topic.map_err(|error| StartError::new(&name, error.to_string()))?;
            if let (true, Some(state)) = (job.spec.state.query, topic.state()) {
                registry.states.insert(name, state);
            }
            running.push(topic);
        }
        if !purged.is_empty() {
            registry.purge = Some(tokio::spawn(purge::run(setup.catalog.clone(), purged)));
        }
        Ok(registry)
    }

    /// Who knows a model topic's state, where it has one that may be asked for.
    pub fn state(&self, model_topic: &str) -> Option<StateReader> {
        self.states.get(model_topic).cloned()
    }

    /// Whether a model topic is in the config.
    pub fn is_configured(&self, model_topic: &str) -> bool {
        let mut feeds = self.feeds.iter();
        feeds.any(|feed| feed.model_topic == model_topic)
    }

    /// Gives topics, by name, so many partitions, and the outputs of model topics that read them as
    /// many; model topics that run go on with them. Each topic succeeds or fails on its own, unless
    /// one model topic needs several of them. With `validate_only` nothing is changed.
    pub async fn grow(
        self: &Arc<Self>,
        catalog: &Arc<Catalog>,
        asked: BTreeMap<String, i32>,
        validate_only: bool,
    ) -> BTreeMap<String, GrowError> {
        let (registry, catalog) = (Arc::clone(self), Arc::clone(catalog));
        let names: Vec<String> = asked.keys().cloned().collect();
        // To its end, even where the caller goes away: the model topics must learn of it.
        let grown =
            tokio::spawn(
                async move { registry.grow_attended(&catalog, asked, validate_only).await },
            );
        grown.await.unwrap_or_else(|_| {
            let stopping = || GrowError::Catalog(CatalogError::Stopping);
            names.into_iter().map(|name| (name, stopping())).collect()
        })
    }

    async fn grow_attended(
        &self,
        catalog: &Catalog,
        asked: BTreeMap<String, i32>,
        validate_only: bool,
    ) -> BTreeMap<String, GrowError> {
        let _growth = self.growth.lock().await;
        let names: Vec<String> = asked.keys().cloned().collect();
        let count = |name: &str| catalog.topic(name).map(|topic| topic.partition_count());
        let plan = growth::plan(&self.feeds, asked, count);
        let refused = plan.refused.into_iter();
        let mut failed: BTreeMap<_, _> = refused
            .map(|(name, reason)| (name, GrowError::Inputs(reason)))
            .collect();
        if validate_only || plan.growths.is_empty() {
            return failed;
        }
        match catalog.grow(plan.growths).await {
            Ok(_) => self.follow(catalog),
            Err(error) => {
                for name in names {
                    let error = GrowError::Catalog(error.clone());
                    failed.entry(name).or_insert(error);
                }
            }
        }
        failed
    }

    /// Tells every model topic that runs how many partitions its topics have.
    fn follow(&self, catalog: &Catalog) {
        for (name, live) in &self.live {
            let before = live.growing.topics();
            // A topic that was deleted, and perhaps created again, is another's.
            let now = |topic: &Arc<Topic>| {
                let found = catalog.topic_by_id(topic.id);
                found.unwrap_or_else(|| Arc::clone(topic))
            };
            let topics = Topics {
                inputs: before.inputs.iter().map(now).collect(),
                derived: now(&before.derived),
                dead_letter: before.dead_letter.as_ref().map(now),
                alerts: before.alerts.iter().map(now).collect(),
                tables: before.tables.iter().map(now).collect(),
                changelog: Arc::clone(&before.changelog),
                changelog_id: before.changelog_id,
            };
            if topics.tasks() > before.tasks() {
                let tasks = topics.tasks();
                tracing::info!(model_topic = name, tasks, "inputs have more partitions");
                live.growing.grow(topics);
            }
        }
    }

    /// Stops all: each ends its commit in flight first. Those that read others stop last.
    pub async fn stop(&self) {
        if let Some(purge) = &self.purge {
            purge.abort();
        }
        for running in self.running.lock().await.drain(..) {
            running.stop().await;
        }
    }
}

impl ReadOnlyGroups for Registry {
    fn positions(&self, group: &str) -> Option<Vec<(String, i32, i64)>> {
        let live = self.live.get(group.strip_prefix(GROUP_PREFIX)?)?;
        let topics = live.growing.topics();
        let names: HashMap<_, _> = topics
            .inputs
            .iter()
            .map(|input| (input.id, &input.name))
            .collect();
        let positions = live
            .positions
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
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
        let topics = self.live.keys();
        topics
            .map(|topic| format!("{GROUP_PREFIX}{topic}"))
            .collect()
    }
}

fn feed(job: &Job) -> Feed {
    let spec = &job.spec;
    let name = spec.name().to_owned();
    // Where records are brought to their keys, these stay in the partitions that they are in.
    let outputs = match job.repartitions() {
        true => Vec::new(),
        false => [Some(name.clone()), spec.dead_letter_topic()]
            .into_iter()
            .flatten()
            .chain(spec.alert_topics())
            .collect(),
    };
    Feed {
        inputs: spec.inputs().map(str::to_owned).collect(),
        outputs,
        keeps_keys: spec.is_stateful() && job.role == Role::Whole,
        model_topic: name,
    }
}

/// What a job needs to know beside its topics.
fn surroundings(setup: &Setup, job: &Job) -> Surroundings {
    let inputs: Arc<[String]> = match &job.role {
        Role::Repartitioned(inputs) => inputs.clone().into(),
        _ => job.spec.inputs().map(str::to_owned).collect(),
    };
    let event_times = inputs
        .iter()
        .map(|input| setup.event_times.get(input).cloned());
    let event_times = event_times.collect();
    let origins = matches!(job.role, Role::Repartitioned(_)).then(|| {
        let (catalog, names) = (Arc::clone(&setup.catalog), Arc::clone(&inputs));
        let count = move |name: &String| {
            catalog
                .topic(name)
                .map_or(0, |topic| topic.partition_count())
        };
        Origins {
            inputs: Arc::clone(&inputs),
            partitions: Arc::new(move || names.iter().map(&count).collect()),
        }
    });
    Surroundings {
        event_times,
        origins,
        state_folder: Some(
            setup
                .log_dir
                .path()
                .join(STATE_FOLDER)
                .join(job.spec.name()),
        ),
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
                let source = source.clone();
                let engine = tokio::task::spawn_blocking(move || Engine::load(&source))
                    .await
                    .map_err(|error| StartError::new(name, error.to_string()))?
                    .map_err(|error| StartError::new(name, error.to_string()))?;
                by_version.insert(key, engine.clone());
                engine
            }
        };
        let faults = check_fit(spec, &source, engine.card(), engine.footprint());
        if let Some(fault) = faults.first() {
            return Err(StartError::new(name, fault.to_string()));
        }
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
