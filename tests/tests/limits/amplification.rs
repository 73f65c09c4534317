//! A small request does not make a large response, and not a large allocation either: what is named
//! a thousand times is answered once, or as briefly as it was asked.

use std::io::Write;
use std::net::TcpStream;

use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_topic_partitions_request::TopicRequest;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use kafka_protocol::messages::{
    CreateTopicsRequest, DeleteTopicsRequest, DescribeConfigsRequest, DescribeGroupsRequest,
    DescribeTopicPartitionsRequest, FetchRequest, FindCoordinatorRequest, GroupId,
    ListOffsetsRequest, MetadataRequest, OffsetCommitRequest, OffsetFetchRequest, TopicName,
};
use kafka_protocol::protocol::{Request, StrBytes};
use tests::Milena;

use crate::raw::{call, connect, receive, request};

const TIMES: usize = 20_000;

fn text(text: &'static str) -> StrBytes {
    StrBytes::from_static_str(text)
}

fn topic() -> TopicName {
    TopicName(text("wide"))
}

/// Asks; each name may have a short answer, and what there is to say may be said once.
fn answers_in_proportion<R: Request>(stream: &mut TcpStream, version: i16, body: &R) {
    const ONCE: usize = 128 * 1024;
    let question = request(version, 7, body);
    stream.write_all(&question).expect("the request goes out");
    let answer = receive(stream).expect("an answer");
    let api = std::any::type_name::<R>();
    eprintln!(
        "{api}: {} bytes, answered with {}",
        question.len(),
        answer.len()
    );
    assert!(
        answer.len() <= 8 * question.len() + ONCE,
        "{api}: {} bytes for {}",
        answer.len(),
        question.len()
    );
}

fn commit_with_long_metadata(stream: &mut TcpStream) {
    let partition = OffsetCommitRequestPartition::default()
        .with_committed_offset(1)
        .with_committed_metadata(Some(StrBytes::from_string("m".repeat(4000))));
    let commit = OffsetCommitRequest::default()
        .with_group_id(GroupId(text("group")))
        .with_generation_id_or_member_epoch(-1)
        .with_topics(vec![
            OffsetCommitRequestTopic::default()
                .with_name(topic())
                .with_partitions(vec![partition]),
        ]);
    let answer = call(stream, 8, &commit);
    assert_eq!(answer.topics[0].partitions[0].error_code, 0);
}

#[test]
fn what_is_named_many_times_is_answered_in_proportion() {
    let milena = Milena::start("[[topic]]\nname = \"wide\"\npartitions = 500\n");
    let mut stream = connect(&milena);
    let stream = &mut stream;
    commit_with_long_metadata(stream);
    let before = milena.resident_bytes().1;

    let named = MetadataRequestTopic::default().with_name(Some(topic()));
    let metadata = MetadataRequest::default().with_topics(Some(vec![named; TIMES]));
    answers_in_proportion(stream, 12, &metadata);

    for (kind, names) in [(4, &["0", "00", "+0"][..]), (4, &[""]), (2, &["wide"])] {
        let resources = names.iter().cycle().take(TIMES).map(|name| {
            DescribeConfigsResource::default()
                .with_resource_type(kind)
                .with_resource_name(text(name))
        });
        let configs = DescribeConfigsRequest::default()
            .with_include_documentation(true)
            .with_include_synonyms(true)
            .with_resources(resources.collect());
        answers_in_proportion(stream, 4, &configs);
    }

    let partitions = vec![ListOffsetsPartition::default().with_timestamp(0); TIMES];
    let by_time = ListOffsetsTopic::default()
        .with_name(topic())
        .with_partitions(partitions);
    let offsets = ListOffsetsRequest::default().with_topics(vec![by_time]);
    answers_in_proportion(stream, 7, &offsets);

    let committed = OffsetFetchRequestTopic::default()
        .with_name(topic())
        .with_partition_indexes(vec![0; TIMES]);
    let fetch = OffsetFetchRequest::default()
        .with_group_id(GroupId(text("group")))
        .with_topics(Some(vec![committed; 2]));
    answers_in_proportion(stream, 7, &fetch);
    let committed = OffsetFetchRequestTopics::default()
        .with_name(topic())
        .with_partition_indexes(vec![0; 10]);
    let group = OffsetFetchRequestGroup::default().with_group_id(GroupId(text("group")));
    for topics in [None, Some(vec![committed; 3])] {
        let group = group.clone().with_topics(topics);
        let fetch = OffsetFetchRequest::default().with_groups(vec![group; TIMES / 10]);
        answers_in_proportion(stream, 8, &fetch);
    }

    let describe =
        DescribeGroupsRequest::default().with_groups(vec![GroupId(text("group")); TIMES]);
    answers_in_proportion(stream, 5, &describe);

    let keys = vec![text("group"); TIMES];
    answers_in_proportion(
        stream,
        4,
        &FindCoordinatorRequest::default().with_coordinator_keys(keys),
    );

    let pages = DescribeTopicPartitionsRequest::default()
        .with_topics(vec![TopicRequest::default().with_name(topic()); TIMES])
        .with_response_partition_limit(i32::MAX);
    answers_in_proportion(stream, 0, &pages);

    let create = CreatableTopic::default()
        .with_name(topic())
        .with_num_partitions(1)
        .with_replication_factor(1);
    let create = CreateTopicsRequest::default()
        .with_topics(vec![create; TIMES])
        .with_timeout_ms(1000);
    answers_in_proportion(stream, 7, &create);

    let partitions = vec![FetchPartition::default().with_partition_max_bytes(1000); TIMES];
    let fetch = FetchTopic::default()
        .with_topic(topic())
        .with_partitions(partitions);
    let fetch = FetchRequest::default()
        .with_max_bytes(1000)
        .with_topics(vec![fetch]);
    answers_in_proportion(stream, 11, &fetch);

    let delete = DeleteTopicState::default().with_name(Some(TopicName(text("none"))));
    let delete = DeleteTopicsRequest::default()
        .with_topics(vec![delete; TIMES])
        .with_timeout_ms(1000);
    answers_in_proportion(stream, 6, &delete);

    let grown = milena.resident_bytes().1.saturating_sub(before);
    assert!(grown < 100 * 1024 * 1024, "{grown} bytes");
}
