//! DeleteTopics (20), versions 1 to 6.
//!
//! - A topic is gone, on the device too, when the answer goes out; then its files are removed.
//! - From version 6 topics are named by name or by id, one of the two.
//! - Topics that the broker writes itself are refused with POLICY_VIOLATION, as Produce refuses
//!   them: a model topic's outputs, dead letters and changelog, and the broker's internal topics.
//! - Once a model topic has left the config, its outputs and dead letters are deleted like any topic,
//!   and after them its changelog: until then that says how much of them is committed.

use std::collections::HashSet;
use std::ops::RangeInclusive;
use std::sync::Arc;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::delete_topics_response::DeletableTopicResult;
use kafka_protocol::messages::{DeleteTopicsRequest, DeleteTopicsResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use crate::Broker;
use crate::api::error_code;
use crate::catalog::{CatalogError, Topic, TopicKind};
use crate::router::{Reply, RequestContext};

/// Versions served.
pub const VERSIONS: RangeInclusive<i16> = 1..=6;

/// From this version on, topics may be named by id.
const TOPIC_IDS_SINCE: i16 = 6;

type Refusal = (ResponseError, String);

/// Answers the request.
pub async fn handle(
    ctx: &RequestContext,
    request: DeleteTopicsRequest,
) -> Reply<DeleteTopicsResponse> {
    let asked: Vec<DeleteTopicState> = if ctx.api_version >= TOPIC_IDS_SINCE {
        request.topics
    } else {
        let by_name = |name| DeleteTopicState::default().with_name(Some(name));
        request.topic_names.into_iter().map(by_name).collect()
    };
    let mut seen = HashSet::with_capacity(asked.len());
    let mut responses = Vec::with_capacity(asked.len());
    for asked in asked {
        let response = match find(&ctx.broker, &asked) {
            // Named twice, by name and by id even: the second one finds nothing to do.
            Ok(topic) if !seen.insert(topic.id) => Err(refusal(
                ResponseError::InvalidRequest,
                "the topic is in the request twice",
            )),
            Ok(topic) => delete(&ctx.broker, &topic).await,
            Err(refusal) => Err(refusal),
        };
        responses.push(match response {
            Ok((name, id)) => DeletableTopicResult::default()
                .with_name(Some(name))
                .with_topic_id(id)
                .with_error_message(None),
            Err((code, message)) => DeletableTopicResult::default()
                .with_name(asked.name)
                .with_topic_id(asked.topic_id)
                .with_error_code(code.code())
                .with_error_message(Some(StrBytes::from_string(message))),
        });
    }
    Reply::Now(DeleteTopicsResponse::default().with_responses(responses))
}

fn find(broker: &Broker, asked: &DeleteTopicState) -> Result<Arc<Topic>, Refusal> {
    match (&asked.name, asked.topic_id) {
        (Some(name), id) if id.is_nil() => {
            let unknown = || of_catalog(CatalogError::UnknownTopic(name.to_string()));
            broker.catalog.topic(name).ok_or_else(unknown)
        }
        (None, id) if !id.is_nil() => broker.catalog.topic_by_id(id).ok_or_else(|| {
            refusal(
                ResponseError::UnknownTopicId,
                format!("no topic has the id {id}"),
            )
        }),
        (Some(_), _) => Err(refusal(
            ResponseError::InvalidRequest,
            "a topic is named by its name or by its id, not by both",
        )),
        (None, _) => Err(refusal(
            ResponseError::InvalidRequest,
            "neither a topic's name nor its id is given",
        )),
    }
}

async fn delete(broker: &Broker, topic: &Topic) -> Result<(TopicName, Uuid), Refusal> {
    let name = &topic.name;
    if let Some(reason) = reserved(broker, topic) {
        let message = format!("topic '{name}' belongs to {}: {reason}", topic.kind.owner());
        return Err(refusal(ResponseError::PolicyViolation, message));
    }
    broker
        .catalog
        .delete_topic(name)
        .await
        .map_err(of_catalog)?;
    broker.groups.forget_topic(topic);
    Ok((TopicName(StrBytes::from_string(name.clone())), topic.id))
}

/// Why clients may not delete a topic.
fn reserved(broker: &Broker, topic: &Topic) -> Option<String> {
    let in_config = "it can be deleted once that is not in the config any more";
    match &topic.kind {
        TopicKind::Ordinary => None,
        TopicKind::Internal => Some("it can't be deleted".to_owned()),
        TopicKind::Derived { model_topic }
        | TopicKind::DeadLetter { model_topic }
        | TopicKind::Alert { model_topic }
        | TopicKind::Changelog { model_topic }
            if broker.model_topics.is_configured(model_topic) =>
        {
            Some(in_config.to_owned())
        }
        TopicKind::Derived { .. } | TopicKind::DeadLetter { .. } | TopicKind::Alert { .. } => None,
        TopicKind::Changelog { model_topic } => {
            let topics = broker.catalog.topics();
            let output = topics.iter().find(|other| match &other.kind {
                TopicKind::Derived { model_topic: of }
                | TopicKind::DeadLetter { model_topic: of }
                | TopicKind::Alert { model_topic: of } => of == model_topic,
                _ => false,
            })?;
            Some(format!(
                "it says how much of '{}' is committed; delete that first",
                output.name
            ))
        }
    }
}

fn refusal(code: ResponseError, message: impl Into<String>) -> Refusal {
    (code, message.into())
}

fn of_catalog(error: CatalogError) -> Refusal {
    (error_code::of_catalog(&error), error.to_string())
}
