//! Topics by id and by first use.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response::MetadataResponseTopic;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    DeleteTopicsRequest, FetchRequest, MetadataRequest, ProduceRequest,
};
use uuid::Uuid;

use super::client::{Client, Served};
use super::partitions::{batch, create, produce, topic_name};

fn ask(
    client: &mut Client,
    topic: MetadataRequestTopic,
    may_create: bool,
) -> MetadataResponseTopic {
    let request = MetadataRequest::default()
        .with_topics(Some(vec![topic]))
        .with_allow_auto_topic_creation(may_create);
    client.call(12, &request).topics.remove(0)
}

fn by_name(client: &mut Client, name: &str, may_create: bool) -> MetadataResponseTopic {
    let topic = MetadataRequestTopic::default().with_name(Some(topic_name(name)));
    ask(client, topic, may_create)
}

/// What Metadata, Produce and Fetch say of a topic's id.
fn codes_by_id(client: &mut Client, id: Uuid) -> [i16; 3] {
    let topic = MetadataRequestTopic::default()
        .with_name(None)
        .with_topic_id(id);
    let metadata = ask(client, topic, false).error_code;

    let data = PartitionProduceData::default().with_records(Some(batch(None, 0, b"v")));
    let data = TopicProduceData::default()
        .with_topic_id(id)
        .with_partition_data(vec![data]);
    let request = ProduceRequest::default()
        .with_acks(-1)
        .with_timeout_ms(30_000)
        .with_topic_data(vec![data]);
    let produced = client.call(13, &request).responses.remove(0);

    let partition = FetchPartition::default().with_partition_max_bytes(1 << 20);
    let topic = FetchTopic::default()
        .with_topic_id(id)
        .with_partitions(vec![partition]);
    let request = FetchRequest::default()
        .with_max_bytes(1 << 20)
        .with_topics(vec![topic]);
    let fetched = client.call(13, &request).responses.remove(0);
    [
        metadata,
        produced.partition_responses[0].error_code,
        fetched.partitions[0].error_code,
    ]
}

#[test]
fn a_topic_that_is_deleted_and_created_again_has_a_new_id_and_the_old_one_is_unknown() {
    let served = Served::start();
    let mut client = served.connect();
    create(&mut client, "t", 1);
    let old = by_name(&mut client, "t", false).topic_id;
    assert_eq!(codes_by_id(&mut client, old), [0; 3]);

    let request = DeleteTopicsRequest::default().with_topic_names(vec![topic_name("t")]);
    assert_eq!(client.call(5, &request).responses[0].error_code, 0);
    create(&mut client, "t", 1);
    let new = by_name(&mut client, "t", false).topic_id;
    assert_ne!(new, old);
    let unknown = ResponseError::UnknownTopicId.code();
    assert_eq!(codes_by_id(&mut client, old), [unknown; 3]);
    assert_eq!(codes_by_id(&mut client, new), [0; 3]);
}

#[test]
fn metadata_and_produce_create_a_topic_that_is_not_there_unless_that_is_switched_off() {
    let unknown = ResponseError::UnknownTopicOrPartition.code();
    let served = Served::start_with(|config| config.broker.num_partitions = 3);
    let mut client = served.connect();
    assert_eq!(by_name(&mut client, "asked", false).error_code, unknown);
    let created = by_name(&mut client, "asked", true);
    assert_eq!((created.error_code, created.partitions.len()), (0, 3));
    assert_eq!(produce(&mut client, "sent", 2, batch(None, 0, b"v")).0, 0);
    assert_eq!(by_name(&mut client, "sent", false).partitions.len(), 3);

    let served = Served::start_with(|config| config.broker.auto_create_topics_enable = false);
    let mut client = served.connect();
    assert_eq!(by_name(&mut client, "asked", true).error_code, unknown);
    assert_eq!(
        produce(&mut client, "sent", 0, batch(None, 0, b"v")).0,
        unknown
    );
    assert_eq!(by_name(&mut client, "sent", false).error_code, unknown);
}
