//! Metadata (3), versions 0 to 13: this broker, and the topics with their partitions.
//!
//! - One broker: it is the controller, and the leader and only replica of every partition. Leader
//!   epochs are the logs' own.
//! - Null topics are all topics (version 0: an empty list). Names that don't exist are created where
//!   the request and `auto.create.topics.enable` allow it; the answer then has the new topic.
//! - From version 12 topics may be named by id. As in Kafka, names are not looked at where
//!   any topic is.

use std::collections::HashSet;
use std::ops::RangeInclusive;
use std::sync::Arc;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{BrokerId, MetadataRequest, MetadataResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use crate::Broker;
use crate::api::error_code;
use crate::catalog::{self, Topic, TopicKind};
use crate::router::{Reply, RequestContext};

/// Versions served.
pub const VERSIONS: RangeInclusive<i16> = 0..=13;

/// From this version on, requests may name topics by id, and names may be null.
const TOPIC_IDS_SINCE: i16 = 12;

/// The operations that Kafka's `AclOperation` numbers, as bits.
mod operation {
    pub const READ: i32 = 1 << 3;
    pub const WRITE: i32 = 1 << 4;
    pub const CREATE: i32 = 1 << 5;
    pub const DELETE: i32 = 1 << 6;
    pub const ALTER: i32 = 1 << 7;
    pub const DESCRIBE: i32 = 1 << 8;
    pub const CLUSTER_ACTION: i32 = 1 << 9;
    pub const DESCRIBE_CONFIGS: i32 = 1 << 10;
    pub const ALTER_CONFIGS: i32 = 1 << 11;
    pub const IDEMPOTENT_WRITE: i32 = 1 << 12;
}

/// What everybody may do with the cluster while there are no ACLs.
const CLUSTER_OPERATIONS: i32 = operation::CREATE
    | operation::ALTER
    | operation::DESCRIBE
    | operation::CLUSTER_ACTION
    | operation::DESCRIBE_CONFIGS
    | operation::ALTER_CONFIGS
    | operation::IDEMPOTENT_WRITE;

/// What everybody may do with a topic of the broker's own while there are no ACLs.
const BROKERS_OWN_TOPIC_OPERATIONS: i32 =
    operation::READ | operation::DESCRIBE | operation::DESCRIBE_CONFIGS | operation::ALTER_CONFIGS;

/// What everybody may do with an ordinary topic while there are no ACLs.
const TOPIC_OPERATIONS: i32 = BROKERS_OWN_TOPIC_OPERATIONS
    | operation::WRITE
    | operation::CREATE
    | operation::DELETE
    | operation::ALTER;

/// The protocol's word for operations that were not asked for.
const NOT_REQUESTED: i32 = i32::MIN;

/// Answers the request.
pub async fn handle(ctx: &RequestContext, request: MetadataRequest) -> Reply<MetadataResponse> {
    let broker = &ctx.broker;
    let topics = match check(ctx.api_version, &request) {
        Ok(()) => describe(ctx, &request).await,
        Err(code) => {
            let asked = request.topics.iter().flatten();
            // Names can't be null in the versions that fail here.
            let name = |name: &Option<TopicName>| Some(name.clone().unwrap_or_default());
            asked
                .map(|asked| failed(name(&asked.name), asked.topic_id, code))
                .collect()
        }
    };
    let cluster_operations = if request.include_cluster_authorized_operations {
        CLUSTER_OPERATIONS
    } else {
        NOT_REQUESTED
    };
    let (host, port) = &broker.advertised;
    let node = MetadataResponseBroker::default()
        .with_node_id(BrokerId(broker.node_id))
        .with_host(StrBytes::from_string(host.clone()))
        .with_port(i32::from(*port));
    Reply::Now(
        MetadataResponse::default()
            .with_brokers(vec![node])
            .with_cluster_id(Some(StrBytes::from_string(broker.cluster_id.clone())))
            .with_controller_id(BrokerId(broker.node_id))
            .with_topics(topics)
            .with_cluster_authorized_operations(cluster_operations),
    )
}

/// Versions 10 and 11 have the field for ids, but no meaning for it.
fn check(api_version: i16, request: &MetadataRequest) -> Result<(), ResponseError> {
    let ids_too_early = api_version < TOPIC_IDS_SINCE
        && request
            .topics
            .iter()
            .flatten()
            .any(|topic| topic.name.is_none() || !topic.topic_id.is_nil());
    if ids_too_early {
        Err(ResponseError::InvalidRequest)
    } else {
        Ok(())
    }
}

async fn describe(ctx: &RequestContext, request: &MetadataRequest) -> Vec<MetadataResponseTopic> {
    let broker = &ctx.broker;
    let with_operations = request.include_topic_authorized_operations;
    let asked = match &request.topics {
        Some(asked) if !(asked.is_empty() && ctx.api_version == 0) => asked,
        _ => {
            let all = broker.catalog.topics();
            return all
                .iter()
                .map(|topic| described(broker, topic, with_operations))
                .collect();
        }
    };
    if asked.iter().any(|topic| !topic.topic_id.is_nil()) {
        return by_id(broker, asked, with_operations);
    }
    let may_create = request.allow_auto_topic_creation && broker.settings.auto_create_topics_enable;
    let mut seen = HashSet::with_capacity(asked.len());
    let mut topics = Vec::with_capacity(asked.len());
    for MetadataRequestTopic { name, .. } in asked {
        let Some(name) = name else {
            topics.push(failed(None, Uuid::nil(), ResponseError::InvalidRequest));
            continue;
        };
        if !seen.insert(name) {
            continue;
        }
        topics.push(match find_or_create(broker, name, may_create).await {
            Ok(topic) => described(broker, &topic, with_operations),
            Err(code) => failed(Some(name.clone()), Uuid::nil(), code),
        });
    }
    topics
}

fn by_id(
    broker: &Broker,
    asked: &[MetadataRequestTopic],
    with_operations: bool,
) -> Vec<MetadataResponseTopic> {
    let mut seen = HashSet::with_capacity(asked.len());
    asked
        .iter()
        .map(|asked| asked.topic_id)
        .filter(|id| !id.is_nil() && seen.insert(*id))
        .map(|id| match broker.catalog.topic_by_id(id) {
            Some(topic) => described(broker, &topic, with_operations),
            None => failed(None, id, ResponseError::UnknownTopicId),
        })
        .collect()
}

async fn find_or_create(
    broker: &Broker,
    name: &str,
    may_create: bool,
) -> Result<Arc<Topic>, ResponseError> {
    if let Some(topic) = broker.catalog.topic(name) {
        return Ok(topic);
    }
    catalog::check_name(name).map_err(|error| error_code::of_catalog(&error))?;
    // The broker creates its own topics when it needs them; nobody else may.
    if !may_create || catalog::is_reserved(name) {
        return Err(ResponseError::UnknownTopicOrPartition);
    }
    let created = broker
        .catalog
        .auto_create(name, broker.settings.num_partitions)
        .await;
    created.map_err(|error| {
        tracing::warn!(topic = name, %error, "auto-creation failed");
        error_code::of_catalog(&error)
    })
}

fn described(broker: &Broker, topic: &Topic, with_operations: bool) -> MetadataResponseTopic {
    let node = BrokerId(broker.node_id);
    let partitions = topic.partitions.iter().enumerate().map(|(index, log)| {
        MetadataResponsePartition::default()
            // At most catalog::MAX_PARTITIONS.
            .with_partition_index(index as i32)
            .with_leader_id(node)
            .with_leader_epoch(log.leader_epoch())
            .with_replica_nodes(vec![node])
            .with_isr_nodes(vec![node])
    });
    let operations = match with_operations {
        false => NOT_REQUESTED,
        true => topic_operations(topic),
    };
    MetadataResponseTopic::default()
        .with_name(Some(TopicName(StrBytes::from_string(topic.name.clone()))))
        .with_topic_id(topic.id)
        .with_is_internal(topic.kind.is_internal())
        .with_partitions(partitions.collect())
        .with_topic_authorized_operations(operations)
}

/// What everybody may do with a topic while there are no ACLs.
pub(super) fn topic_operations(topic: &Topic) -> i32 {
    match topic.kind {
        TopicKind::Ordinary => TOPIC_OPERATIONS,
        _ => BROKERS_OWN_TOPIC_OPERATIONS,
    }
}

fn failed(name: Option<TopicName>, topic_id: Uuid, code: ResponseError) -> MetadataResponseTopic {
    MetadataResponseTopic::default()
        .with_error_code(code.code())
        .with_name(name)
        .with_topic_id(topic_id)
        .with_topic_authorized_operations(NOT_REQUESTED)
}
