//! CreateTopics (19), versions 2 to 7.
//!
//! - A topic is on the device, and its partitions are open, when the answer goes out. The topics of
//!   one request succeed or fail each on its own; one that is named twice fails.
//! - The topics of one request share the waits for the disk. They have at most 10,000 partitions
//!   together, as in Kafka; more are POLICY_VIOLATION.
//! - One broker: the replication factor is 1 (or -1), and a manual assignment may name this broker
//!   only.
//! - `validate_only` checks everything and changes nothing; the answer has no topic id then.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::RangeInclusive;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig,
};
use kafka_protocol::messages::create_topics_response::{
    CreatableTopicConfigs, CreatableTopicResult,
};
use kafka_protocol::messages::{BrokerId, CreateTopicsRequest, CreateTopicsResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use crate::Broker;
use crate::api::describe_configs::source_code;
use crate::api::error_code;
use crate::catalog::topic_config::{TOPIC_CONFIGS, effective};
use crate::catalog::{Catalog, CatalogError, MAX_PARTITIONS, NewTopic, TopicKind};
use crate::router::{Reply, RequestContext};

/// Versions served.
pub const VERSIONS: RangeInclusive<i16> = 2..=7;

/// "As the broker likes", for partitions and replication factors.
const UNSET: i32 = -1;

/// Why a topic is refused.
#[derive(Debug, PartialEq, Eq)]
struct Refusal {
    code: ResponseError,
    message: String,
}

impl Refusal {
    fn new(code: ResponseError, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }
}

impl From<CatalogError> for Refusal {
    fn from(error: CatalogError) -> Self {
        Self::new(error_code::of_catalog(&error), error.to_string())
    }
}

/// Answers the request.
pub async fn handle(
    ctx: &RequestContext,
    request: CreateTopicsRequest,
) -> Reply<CreateTopicsResponse> {
    let broker = &ctx.broker;
    let mut times_named: HashMap<StrBytes, u32> = HashMap::with_capacity(request.topics.len());
    for topic in &request.topics {
        *times_named.entry(topic.name.0.clone()).or_default() += 1;
    }
    let mut results: Vec<(TopicName, Result<CreatableTopicResult, Refusal>)> =
        Vec::with_capacity(times_named.len());
    // What is sound, and where its answer is.
    let mut sound = Vec::new();
    let mut places = Vec::new();
    let mut partitions: i64 = 0;
    for topic in request.topics {
        // Nothing is left of a name whose failure was noted already.
        let Some(times) = times_named.remove(&topic.name.0) else {
            continue;
        };
        let name = topic.name.clone();
        let result = match times {
            1 => checked(broker, topic),
            _ => Err(Refusal::new(
                ResponseError::InvalidRequest,
                format!("topic '{}' is {times} times in the request", &*name),
            )),
        };
        let result = result.map(|new| {
            partitions += i64::from(new.partitions);
            let checked = answer(broker, Uuid::nil(), new.partitions, &new.configs);
            places.push(results.len());
            sound.push(new);
            checked
        });
        results.push((name, result));
    }
    if partitions > i64::from(MAX_PARTITIONS) {
        let message = format!(
            "{partitions} partitions are more than {MAX_PARTITIONS}, which one request may create"
        );
        for place in places {
            if let Some((_, result)) = results.get_mut(place) {
                *result = Err(Refusal::new(ResponseError::PolicyViolation, &*message));
            }
        }
    } else if !request.validate_only {
        let created = broker.catalog.create_topics(sound).await;
        for (place, created) in places.into_iter().zip(created) {
            if let Some((_, result)) = results.get_mut(place) {
                *result = created
                    .map(|topic| answer(broker, topic.id, topic.partition_count(), &topic.configs))
                    .map_err(Refusal::from);
            }
        }
    }
    let results = results.into_iter().map(|(name, result)| {
        let result = result.unwrap_or_else(|refusal| {
            tracing::debug!(
                topic = &**name,
                reason = refusal.message,
                "topic not created"
            );
            refused(refusal)
        });
        result.with_name(name)
    });
    Reply::Now(CreateTopicsResponse::default().with_topics(results.collect()))
}

/// The topic to create, if there is nothing wrong with it.
fn checked(broker: &Broker, topic: CreatableTopic) -> Result<NewTopic, Refusal> {
    let new = NewTopic {
        partitions: partitions(broker, &topic)?,
        configs: configs(topic.configs)?,
        name: topic.name.to_string(),
        kind: TopicKind::Ordinary,
    };
    broker.catalog.check_new_topic(&new)?;
    Ok(new)
}

fn answer(
    broker: &Broker,
    id: Uuid,
    partitions: i32,
    explicit: &BTreeMap<String, String>,
) -> CreatableTopicResult {
    CreatableTopicResult::default()
        .with_topic_id(id)
        .with_num_partitions(partitions)
        .with_replication_factor(1)
        .with_error_message(None)
        .with_configs(Some(described(&broker.catalog, explicit)))
}

/// How many partitions the topic gets.
fn partitions(broker: &Broker, topic: &CreatableTopic) -> Result<i32, Refusal> {
    if !topic.assignments.is_empty() {
        let unset = |what| {
            Refusal::new(
                ResponseError::InvalidRequest,
                format!("a topic with a manual assignment must have {what} -1"),
            )
        };
        if i32::from(topic.replication_factor) != UNSET {
            return Err(unset("replication factor"));
        }
        if topic.num_partitions != UNSET {
            return Err(unset("partition count"));
        }
        return assigned(BrokerId(broker.node_id), &topic.assignments);
    }
    match topic.replication_factor {
        -1 | 1 => {}
        found if found < 1 => {
            return Err(Refusal::new(
                ResponseError::InvalidReplicationFactor,
                format!("replication factor {found} is neither positive nor -1"),
            ));
        }
        found => {
            return Err(Refusal::new(
                ResponseError::InvalidReplicationFactor,
                format!("replication factor {found} is larger than the number of brokers, 1"),
            ));
        }
    }
    Ok(match topic.num_partitions {
        UNSET => broker.settings.num_partitions,
        asked => asked,
    })
}

/// The partition count of a manual assignment: partitions 0, 1, … each on `node` alone.
fn assigned(node: BrokerId, assignments: &[CreatableReplicaAssignment]) -> Result<i32, Refusal> {
    let refuse = |message: String| Refusal::new(ResponseError::InvalidReplicaAssignment, message);
    let mut seen = HashSet::with_capacity(assignments.len());
    for assignment in assignments {
        let partition = assignment.partition_index;
        if !seen.insert(partition) {
            return Err(refuse(format!(
                "partition {partition} is assigned more than once"
            )));
        }
        if let Some(other) = assignment.broker_ids.iter().find(|id| **id != node) {
            return Err(refuse(format!(
                "partition {partition} is assigned to broker {}, but there is only broker {}",
                other.0, node.0
            )));
        }
        if assignment.broker_ids.len() != 1 {
            return Err(refuse(format!(
                "partition {partition} is assigned to {} replicas instead of 1",
                assignment.broker_ids.len()
            )));
        }
    }
    let count = i32::try_from(assignments.len()).unwrap_or(i32::MAX);
    if count > MAX_PARTITIONS {
        return Err(Refusal::new(
            ResponseError::InvalidPartitions,
            format!("{count} partitions are more than {MAX_PARTITIONS}"),
        ));
    }
    match (0..count).find(|partition| !seen.contains(partition)) {
        Some(missing) => Err(refuse(format!(
            "partitions must be assigned from 0 without a gap, but {missing} is missing"
        ))),
        None => Ok(count),
    }
}

fn configs(configs: Vec<CreatableTopicConfig>) -> Result<BTreeMap<String, String>, Refusal> {
    configs
        .into_iter()
        .map(|config| match config.value {
            Some(value) => Ok((config.name.to_string(), value.to_string())),
            None => Err(Refusal::new(
                ResponseError::InvalidConfig,
                format!("config {} has no value", &*config.name),
            )),
        })
        .collect()
}

fn described(catalog: &Catalog, explicit: &BTreeMap<String, String>) -> Vec<CreatableTopicConfigs> {
    let defaults = catalog.defaults();
    TOPIC_CONFIGS
        .iter()
        .map(|def| {
            let (value, source) = effective(def, explicit, &defaults);
            CreatableTopicConfigs::default()
                .with_name(StrBytes::from_static_str(def.name))
                .with_value(Some(StrBytes::from_string(value.to_owned())))
                .with_config_source(source_code(source))
        })
        .collect()
}

fn refused(refusal: Refusal) -> CreatableTopicResult {
    CreatableTopicResult::default()
        .with_error_code(refusal.code.code())
        .with_error_message(Some(StrBytes::from_string(refusal.message)))
}
