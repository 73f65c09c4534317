//! The topics of a model topic: found or created, and checked.

use std::collections::BTreeMap;
use std::sync::Arc;

use inference::spec::ModelTopicSpec;
use uuid::Uuid;

use super::StartError;
use super::embedded::Topics;
use super::jobs::Job;
use crate::catalog::{
    Catalog, CatalogError, ConfigChange, ConfigOperation, ConfigTarget, Growth, NewTopic, Topic,
    TopicKind,
};

/// Small, so that compaction reaches most of a changelog and a start has little to replay.
const CHANGELOG_SEGMENT_BYTES: (&str, &str) = ("segment.bytes", "16777216");

/// Records on their way to their keys go when they have been read, and not before.
const KEEP_ALL: [(&str, &str); 2] = [("retention.ms", "-1"), ("retention.bytes", "-1")];

/// In an order in which every input comes before what is derived from it. The config's check has
/// refused cycles.
pub(super) fn in_dependency_order(mut specs: Vec<Arc<ModelTopicSpec>>) -> Vec<Arc<ModelTopicSpec>> {
    let mut ordered: Vec<Arc<ModelTopicSpec>> = Vec::with_capacity(specs.len());
    while !specs.is_empty() {
        let (ready, waiting): (Vec<_>, Vec<_>) = specs.iter().cloned().partition(|spec| {
            !spec
                .inputs()
                .any(|input| specs.iter().any(|other| other.name() == input))
        });
        if ready.is_empty() {
            ordered.extend(waiting);
            break;
        }
        ordered.extend(ready);
        specs = waiting;
    }
    ordered
}

/// Finds the topics of a job, creating those that are missing: inputs with `num_partitions`,
/// outputs with as many as the inputs have. Outputs that have fewer get more, but for one that brings records to their
/// keys, which stay where they are.
pub(super) async fn ensure(
    job: &Job,
    catalog: &Catalog,
    num_partitions: i32,
) -> Result<Topics, StartError> {
    let spec = &*job.spec;
    let name = spec.name();
    let mut inputs = Vec::new();
    for input in spec.inputs() {
        let topic = match catalog.topic(input) {
            Some(topic) => topic,
            None => create(catalog, input, num_partitions, TopicKind::Ordinary, &[]).await?,
        };
        if topic.kind.is_internal() {
            return Err(StartError::new(
                name,
                format!("input '{input}' is an internal topic"),
            ));
        }
        inputs.push(topic);
    }
    let partitions = same_partitions(name, &inputs)?;
    let kind = TopicKind::Derived {
        model_topic: name.to_owned(),
    };
    let derived = match (job.repartitions(), catalog.topic(name)) {
        (true, Some(topic)) if topic.kind == kind => topic,
        (true, None) => create(catalog, name, partitions, kind, &KEEP_ALL).await?,
        _ => output(catalog, name, name, partitions, kind).await?,
    };
    let dead_letter = match spec.dead_letter_topic() {
        Some(dlq) => {
            let kind = TopicKind::DeadLetter {
                model_topic: job.owner().to_owned(),
            };
            Some(dead_letters(catalog, name, &dlq, partitions, kind).await?)
        }
        None => None,
    };
    let mut alerts = Vec::new();
    for alert in spec.alert_topics() {
        let kind = TopicKind::Alert {
            model_topic: name.to_owned(),
        };
        alerts.push(output(catalog, name, &alert, partitions, kind).await?);
    }
    let mut tables = Vec::new();
    for table in spec.tables() {
        tables.push(match catalog.topic(&table) {
            Some(topic) => topic,
            None => {
                let compacted = [("cleanup.policy", "compact")];
                create(
                    catalog,
                    &table,
                    num_partitions,
                    TopicKind::Ordinary,
                    &compacted,
                )
                .await?
            }
        });
    }
    let (changelog_id, changelog) = changelog(catalog, spec).await?;
    Ok(Topics {
        inputs,
        derived,
        dead_letter,
        alerts,
        tables,
        changelog,
        changelog_id,
    })
}

/// Dead letters of one partition may come from several, so there may be more partitions than wanted.
async fn dead_letters(
    catalog: &Catalog,
    model_topic: &str,
    name: &str,
    partitions: i32,
    kind: TopicKind,
) -> Result<Arc<Topic>, StartError> {
    match catalog.topic(name) {
        Some(topic) if topic.kind == kind && topic.partition_count() > partitions => Ok(topic),
        _ => output(catalog, model_topic, name, partitions, kind).await,
    }
}

fn same_partitions(name: &str, inputs: &[Arc<Topic>]) -> Result<i32, StartError> {
    let Some(first) = inputs.first() else {
        return Err(StartError::new(name, "there is no input".to_owned()));
    };
    let count = first.partitions.len();
    if let Some(other) = inputs.iter().find(|topic| topic.partitions.len() != count) {
        return Err(StartError::new(
            name,
            format!(
                "inputs must have the same number of partitions: '{}' has {count}, '{}' has {}",
                first.name,
                other.name,
                other.partitions.len()
            ),
        ));
    }
    i32::try_from(count).map_err(|_| StartError::new(name, format!("{count} partitions")))
}

async fn output(
    catalog: &Catalog,
    model_topic: &str,
    name: &str,
    partitions: i32,
    kind: TopicKind,
) -> Result<Arc<Topic>, StartError> {
    let Some(topic) = catalog.topic(name) else {
        return create(catalog, name, partitions, kind, &[]).await;
    };
    if topic.kind != kind {
        return Err(StartError::new(
            model_topic,
            format!(
                "topic '{name}' exists and is not this model topic's: {:?}",
                topic.kind
            ),
        ));
    }
    if topic.partition_count() < partitions {
        // The input got more while the model topic was not in the config.
        return grow(catalog, name, partitions).await;
    }
    if topic.partition_count() > partitions {
        return Err(StartError::new(
            model_topic,
            format!(
                "topic '{name}' has {} partitions, the inputs have {partitions}",
                topic.partitions.len()
            ),
        ));
    }
    Ok(topic)
}

async fn grow(catalog: &Catalog, name: &str, partitions: i32) -> Result<Arc<Topic>, StartError> {
    let growth = Growth {
        topic: name.to_owned(),
        partitions,
    };
    let failed = |error: &dyn std::fmt::Display| StartError::new(name, error.to_string());
    let grown = catalog.grow(vec![growth]).await;
    let grown = grown.map_err(|error| failed(&error))?;
    let grown = grown.into_iter().next();
    grown.ok_or_else(|| failed(&"it did not grow"))
}

async fn changelog(
    catalog: &Catalog,
    spec: &ModelTopicSpec,
) -> Result<(Uuid, Arc<storage::PartitionLog>), StartError> {
    let name = spec.changelog_topic();
    let kind = TopicKind::Changelog {
        model_topic: spec.name().to_owned(),
    };
    let topic = match catalog.topic(&name) {
        Some(topic) if topic.kind == kind => topic,
        Some(topic) => {
            return Err(StartError::new(
                spec.name(),
                format!(
                    "topic '{name}' exists and is not its changelog: {:?}",
                    topic.kind
                ),
            ));
        }
        None => {
            let configs = [("cleanup.policy", "compact"), CHANGELOG_SEGMENT_BYTES];
            create(catalog, &name, 1, kind, &configs).await?
        }
    };
    let (key, segment_bytes) = CHANGELOG_SEGMENT_BYTES;
    if !topic.configs.contains_key(key) {
        // It is from before changelogs were compacted.
        let set = ConfigOperation::Set(segment_bytes.to_owned());
        let change = ConfigChange::Each(BTreeMap::from([(key.to_owned(), set)]));
        let altered = catalog.alter_configs(ConfigTarget::Topic(name.clone()), change, false);
        let failed = |error: CatalogError| StartError::new(spec.name(), error.to_string());
        altered.await.map_err(failed)?;
    }
    let log = topic.partitions.first().cloned();
    log.map(|log| (topic.id, log))
        .ok_or_else(|| StartError::new(spec.name(), format!("topic '{name}' has no partition")))
}

async fn create(
    catalog: &Catalog,
    name: &str,
    partitions: i32,
    kind: TopicKind,
    configs: &[(&str, &str)],
) -> Result<Arc<Topic>, StartError> {
    let configs: BTreeMap<String, String> = configs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect();
    catalog
        .create_topic(NewTopic {
            name: name.to_owned(),
            partitions,
            configs,
            kind,
        })
        .await
        .map_err(|error| StartError::new(name, error.to_string()))
}
