//! OffsetDelete (47), version 0: a group forgets offsets (KIP-496).
//!
//! - The offsets are gone, on the device too, when the answer goes out. An offset that is not there
//!   is no error.
//! - A topic that members of the group have subscribed to is GROUP_SUBSCRIBED_TO_TOPIC, as is every
//!   topic of a group of consumers whose subscriptions can't be read. Groups of other kinds must be
//!   empty (NON_EMPTY_GROUP).
//! - A topic that does not exist is UNKNOWN_TOPIC_OR_PARTITION; only topics that do are looked for
//!   in the group.

use std::ops::RangeInclusive;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::offset_delete_response::{
    OffsetDeleteResponsePartition, OffsetDeleteResponseTopic,
};
use kafka_protocol::messages::{OffsetDeleteRequest, OffsetDeleteResponse, TopicName};

use crate::api::group_answer::{code, reply};
use crate::router::{Reply, RequestContext};

/// Versions served.
pub const VERSIONS: RangeInclusive<i16> = 0..=0;

/// A topic's name, its partitions, and whether there is such a topic.
type Asked = (TopicName, Vec<i32>, bool);

/// Removes the offsets; answers when that is durable.
pub async fn handle(
    ctx: &RequestContext,
    request: OffsetDeleteRequest,
) -> Reply<OffsetDeleteResponse> {
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter();
        let partitions = partitions.map(|partition| partition.partition_index);
        let exists = ctx.broker.catalog.topic(topic.name.as_str()).is_some();
        (topic.name, partitions.collect(), exists)
    });
    let asked: Vec<Asked> = topics.collect();
    let existing: Vec<(String, Vec<i32>)> = asked
        .iter()
        .filter(|(_, _, exists)| *exists)
        .map(|(name, partitions, _)| (name.to_string(), partitions.clone()))
        .collect();
    if existing.is_empty() && !asked.is_empty() {
        return Reply::Now(response(asked, |_| false));
    }
    let groups = &ctx.broker.groups;
    let answer = groups.delete_offsets(request.group_id.as_str(), existing);
    let stopping = Err(ResponseError::CoordinatorNotAvailable);
    reply(answer, stopping, move |result| match result {
        Ok(subscribed) => response(asked, |topic| subscribed.contains(topic)),
        Err(error) => OffsetDeleteResponse::default().with_error_code(error.code()),
    })
}

fn response(asked: Vec<Asked>, is_subscribed: impl Fn(&str) -> bool) -> OffsetDeleteResponse {
    let topics = asked.into_iter().map(|(name, partitions, exists)| {
        let error = if !exists {
            Some(ResponseError::UnknownTopicOrPartition)
        } else if is_subscribed(name.as_str()) {
            Some(ResponseError::GroupSubscribedToTopic)
        } else {
            None
        };
        let partitions = partitions.into_iter().map(|partition| {
            OffsetDeleteResponsePartition::default()
                .with_partition_index(partition)
                .with_error_code(code(error))
        });
        OffsetDeleteResponseTopic::default()
            .with_name(name)
            .with_partitions(partitions.collect())
    });
    OffsetDeleteResponse::default().with_topics(topics.collect())
}
