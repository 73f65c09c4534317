//! CreatePartitions (37), versions 0 to 3.
//!
//! - New partitions are on the device, and open, when the answer goes out; clients find them at
//!   their next Metadata. The topics of one request succeed or fail each on its own; one that is
//!   named twice fails.
//! - A manual assignment may name this broker only, once for each new partition.
//! - `validate_only` checks everything and changes nothing.
//! - Topics that the broker writes itself are refused with POLICY_VIOLATION, and so are those that a
//!   model topic reads: its outputs have as many partitions as its inputs.

use std::collections::HashMap;
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
use crate::router::{Reply, RequestContext};

/// Versions served.
pub const VERSIONS: RangeInclusive<i16> = 0..=3;

type Refusal = (ResponseError, String);

/// Answers the request.
pub async fn handle(
    ctx: &RequestContext,
    request: CreatePartitionsRequest,
) -> Reply<CreatePartitionsResponse> {
    let mut times_named: HashMap<TopicName, u32> = HashMap::with_capacity(request.topics.len());
    for topic in &request.topics {
        *times_named.entry(topic.name.clone()).or_default() += 1;
    }
    let mut results = Vec::with_capacity(times_named.len());
    for topic in request.topics {
        // Nothing is left of a name whose failure was reported already.
        let Some(times) = times_named.remove(&topic.name) else {
            continue;
        };
        let result = if times > 1 {
            Err((
                ResponseError::InvalidRequest,
                format!("topic '{}' is {times} times in the request", &*topic.name.0),
            ))
        } else {
            grow(&ctx.broker, &topic, request.validate_only).await
        };
        let (code, message) = match result {
            Ok(()) => (0, None),
            Err((code, message)) => {
                tracing::debug!(topic = &**topic.name, reason = message, "topic not grown");
                (code.code(), Some(StrBytes::from_string(message)))
            }
        };
        results.push(
            CreatePartitionsTopicResult::default()
                .with_name(topic.name)
                .with_error_code(code)
                .with_error_message(message),
        );
    }
    Reply::Now(CreatePartitionsResponse::default().with_results(results))
}

async fn grow(
    broker: &Broker,
    asked: &CreatePartitionsTopic,
    validate_only: bool,
) -> Result<(), Refusal> {
    let growth = Growth {
        topic: asked.name.to_string(),
        partitions: asked.count,
    };
    let of_catalog = |error: CatalogError| (error_code::of_catalog(&error), error.to_string());
    let topic = broker.catalog.check_growth(&growth).map_err(of_catalog)?;
    if !topic.kind.is_writable_by_clients() {
        return Err(of_catalog(CatalogError::Owned {
            topic: growth.topic,
            owner: topic.kind.owner(),
            what: "its partitions are not a client's to add".to_owned(),
        }));
    }
    if let Some(model_topic) = broker.model_topics.reader_of(&growth.topic) {
        let message = format!(
            "topic '{}' is an input of model topic '{model_topic}', whose outputs have as many \
             partitions",
            growth.topic
        );
        return Err((ResponseError::PolicyViolation, message));
    }
    if let Some(assignments) = &asked.assignments {
        let added = asked.count.saturating_sub(topic.partition_count());
        check_assignments(BrokerId(broker.node_id), added, assignments)?;
    }
    if validate_only {
        return Ok(());
    }
    broker
        .catalog
        .grow(vec![growth])
        .await
        .map_err(of_catalog)?;
    Ok(())
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
