//! CreatePartitions (37), versions 0 to 3.
//!
//! - New partitions are on the device, and open, when the answer goes out; clients find them at
//!   their next Metadata. The topics of one request succeed or fail each on its own; one that is
//!   named twice fails.
//! - A manual assignment may name this broker only, once for each new partition.
//! - `validate_only` checks everything and changes nothing.
//! - The outputs of a model topic grow with its inputs, at once and before the answer, and the model
//!   topic goes on with the new partitions while it runs. Where it has several inputs, all of them
//!   must be in the request, or it is POLICY_VIOLATION.
//! - Topics that the broker writes itself are refused with POLICY_VIOLATION.

use std::collections::{BTreeMap, HashMap};
use std::ops::RangeInclusive;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::create_partitions_request::{
    CreatePartitionsAssignment, CreatePartitionsTopic,
};
use kafka_protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
use kafka_protocol::messages::{
    BrokerId, CreatePartitionsRequest, CreatePartitionsResponse, TopicName,
};
use kafka_protocol::protocol::StrBytes;

use crate::Broker;
use crate::api::error_code;
use crate::catalog::{CatalogError, Growth};
use crate::model_topics::GrowError;
use crate::router::{Reply, RequestContext};

/// Versions served.
pub const VERSIONS: RangeInclusive<i16> = 0..=3;

type Refusal = (ResponseError, String);

/// Answers the request.
pub async fn handle(
    ctx: &RequestContext,
    request: CreatePartitionsRequest,
) -> Reply<CreatePartitionsResponse> {
    let broker = &ctx.broker;
    let mut times_named: HashMap<TopicName, u32> = HashMap::with_capacity(request.topics.len());
    for topic in &request.topics {
        *times_named.entry(topic.name.clone()).or_default() += 1;
    }
    let mut results: Vec<(TopicName, Result<(), Refusal>)> = Vec::with_capacity(times_named.len());
    let mut asked = BTreeMap::new();
    for topic in request.topics {
        // Nothing is left of a name whose failure was noted already.
        let Some(times) = times_named.remove(&topic.name) else {
            continue;
        };
        let result = match times {
            1 => check(broker, &topic),
            _ => Err((
                ResponseError::InvalidRequest,
                format!("topic '{}' is {times} times in the request", &*topic.name.0),
            )),
        };
        if result.is_ok() {
            asked.insert(topic.name.to_string(), topic.count);
        }
        results.push((topic.name, result));
    }
    let grown = broker
        .model_topics
        .grow(&broker.catalog, asked, request.validate_only);
    let mut failed = grown.await;
    let results = results.into_iter().map(|(name, result)| {
        let result = match failed.remove(&*name.0) {
            None => result,
            Some(GrowError::Inputs(reason)) => Err((ResponseError::PolicyViolation, reason)),
            Some(GrowError::Catalog(error)) => Err(of_catalog(&error)),
        };
        answer(name, result)
    });
    Reply::Now(CreatePartitionsResponse::default().with_results(results.collect()))
}

fn answer(name: TopicName, result: Result<(), Refusal>) -> CreatePartitionsTopicResult {
    let (code, message) = match result {
        Ok(()) => (0, None),
        Err((code, message)) => {
            tracing::debug!(topic = &**name, reason = message, "topic not grown");
            (code.code(), Some(StrBytes::from_string(message)))
        }
    };
    CreatePartitionsTopicResult::default()
        .with_name(name)
        .with_error_code(code)
        .with_error_message(message)
}

fn of_catalog(error: &CatalogError) -> Refusal {
    (error_code::of_catalog(error), error.to_string())
}

/// What is wrong with one topic's growth.
fn check(broker: &Broker, asked: &CreatePartitionsTopic) -> Result<(), Refusal> {
    let growth = Growth {
        topic: asked.name.to_string(),
        partitions: asked.count,
    };
    let checked = broker.catalog.check_growth(&growth);
    let topic = checked.map_err(|error| of_catalog(&error))?;
    if !topic.kind.is_writable_by_clients() {
        return Err(of_catalog(&CatalogError::Owned {
            topic: growth.topic,
            owner: topic.kind.owner(),
            what: "its partitions are not a client's to add".to_owned(),
        }));
    }
    match &asked.assignments {
        Some(assignments) => {
            let added = asked.count.saturating_sub(topic.partition_count());
            check_assignments(BrokerId(broker.node_id), added, assignments)
        }
        None => Ok(()),
    }
}

fn check_assignments(
    node: BrokerId,
    added: i32,
    assignments: &[CreatePartitionsAssignment],
) -> Result<(), Refusal> {
    let refuse = |message| Err((ResponseError::InvalidReplicaAssignment, message));
    if i32::try_from(assignments.len()) != Ok(added) {
        return refuse(format!(
            "{added} partition(s) are added, but {} assignment(s) were given",
            assignments.len()
        ));
    }
    for assignment in assignments {
        if let Some(other) = assignment.broker_ids.iter().find(|id| **id != node) {
            return refuse(format!(
                "a partition is assigned to broker {}, but there is only broker {}",
                other.0, node.0
            ));
        }
        if assignment.broker_ids.len() != 1 {
            return refuse(format!(
                "a partition is assigned to {} replicas instead of 1",
                assignment.broker_ids.len()
            ));
        }
    }
    Ok(())
}
