//! DeleteRecords against the other data APIs: what is refused, and what readers see.

use broker::api::{delete_records, fetch, list_offsets};
use broker::catalog::TopicKind;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::delete_records_request::{
    DeleteRecordsPartition, DeleteRecordsTopic,
};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::{DeleteRecordsRequest, ListOffsetsRequest};

use crate::support::*;

fn request(partitions: &[(&str, i32, i64)]) -> DeleteRecordsRequest {
    let topics = partitions.iter().map(|(topic, partition, offset)| {
        let partition = DeleteRecordsPartition::default()
            .with_partition_index(*partition)
            .with_offset(*offset);
        DeleteRecordsTopic::default()
            .with_name(topic_name(topic))
            .with_partitions(vec![partition])
    });
    DeleteRecordsRequest::default()
        .with_timeout_ms(30_000)
        .with_topics(topics.collect())
}

/// The low watermark, or the error, of each partition.
async fn deleted(
    test: &TestBroker,
    partitions: &[(&str, i32, i64)],
) -> Vec<Result<i64, ResponseError>> {
    let reply = delete_records::handle(&test.context(2), request(partitions)).await;
    let topics = answer(reply).await.topics;
    let answers = topics.iter().flat_map(|topic| &topic.partitions);
    answers
        .map(
            |found| match ResponseError::try_from_code(found.error_code) {
                None => Ok(found.low_watermark),
                Some(error) => {
                    assert_eq!(found.low_watermark, -1);
                    Err(error)
                }
            },
        )
        .collect()
}

async fn earliest(test: &TestBroker, topic: &str) -> (i64, i32) {
    let partition = ListOffsetsPartition::default().with_timestamp(-2);
    let topic = ListOffsetsTopic::default()
        .with_name(topic_name(topic))
        .with_partitions(vec![partition]);
    let request = ListOffsetsRequest::default().with_topics(vec![topic]);
    let reply = list_offsets::handle(&test.context(10), request).await;
    let found = answer(reply).await.topics.remove(0).partitions.remove(0);
    assert_eq!(found.error_code, 0);
    (found.offset, found.leader_epoch)
}

#[tokio::test]
async fn readers_find_the_log_to_begin_later() {
    let test = TestBroker::start().await;
    test.create("t", 2).await;
    test.produce("t", batch(&["a", "b", "c"])).await;
    test.produce("t", batch(&["d", "e", "f"])).await;
    let asked = [("t", 0, 4), ("t", 1, -1)];
    assert_eq!(deleted(&test, &asked).await, [Ok(4), Ok(0)]);
    assert_eq!(earliest(&test, "t").await, (4, 0));
    let gone = test.fetch("t", 3).await;
    assert_eq!(gone.error_code, ResponseError::OffsetOutOfRange.code());
    // The batch that has the first offset comes whole, and clients skip what is below.
    assert_eq!(values(&test.fetch("t", 4).await), ["d", "e", "f"]);
    assert_eq!(deleted(&test, &[("t", 0, 2)]).await, [Ok(4)], "never back");
    assert_eq!(deleted(&test, &[("t", 0, -1)]).await, [Ok(6)]);
    assert_eq!(earliest(&test, "t").await, (6, 0));
    test.produce("t", batch(&["g"])).await;
    assert_eq!(values(&test.fetch("t", 6).await), ["g"]);
}

#[tokio::test]
async fn delete_records_of_any_offset_and_any_partition_is_answered() {
    let test = TestBroker::start().await;
    test.create("t", 1).await;
    test.produce("t", batch(&["a", "b"])).await;
    let out_of_range = Err(ResponseError::OffsetOutOfRange);
    for offset in [3, i64::MAX, -2, i64::MIN] {
        assert_eq!(
            deleted(&test, &[("t", 0, offset)]).await,
            [out_of_range],
            "{offset}"
        );
    }
    let unknown = Err(ResponseError::UnknownTopicOrPartition);
    for partition in [1, -1, i32::MIN, i32::MAX] {
        let asked = [("t", partition, 0), ("t", 0, 0), ("nope", partition, 0)];
        let expected = [unknown, Ok(0), unknown];
        assert_eq!(deleted(&test, &asked).await, expected, "{partition}");
    }
    let twice = [("t", 0, 1), ("t", 0, 2)];
    let expected = [Ok(1), Err(ResponseError::InvalidRequest)];
    assert_eq!(deleted(&test, &twice).await, expected);
    assert_eq!(deleted(&test, &[]).await, []);
    assert_eq!(values(&test.fetch("t", 1).await), ["a", "b"]);
}

#[tokio::test]
async fn topics_whose_policy_does_not_delete_and_the_brokers_own_are_refused() {
    let test = TestBroker::start().await;
    let model_topic = || "m".to_owned();
    let changelog = TopicKind::Changelog {
        model_topic: model_topic(),
    };
    for (name, policy, kind, expected) in [
        (
            "compacted",
            "compact",
            TopicKind::Ordinary,
            Err(ResponseError::PolicyViolation),
        ),
        ("both", "compact,delete", TopicKind::Ordinary, Ok(0)),
        ("kept", "delete", TopicKind::Ordinary, Ok(0)),
        (
            "internal",
            "delete",
            TopicKind::Internal,
            Err(ResponseError::InvalidTopicException),
        ),
        (
            "m.changelog",
            "delete",
            changelog,
            Err(ResponseError::InvalidTopicException),
        ),
    ] {
        let configs = [("cleanup.policy", policy)];
        test.create_with(name, 1, &configs, kind).await;
        assert_eq!(deleted(&test, &[(name, 0, -1)]).await, [expected], "{name}");
    }
}

#[tokio::test]
async fn a_derived_topic_is_deleted_up_to_what_is_published() {
    let test = TestBroker::start().await;
    let kind = TopicKind::Derived {
        model_topic: "m".to_owned(),
    };
    let topic = test.create_with("m", 1, &[], kind).await;
    let log = &topic.partitions[0];
    log.stage(&batch(&["a", "b", "c"])).unwrap();
    let not_yet = deleted(&test, &[("m", 0, -1)]).await;
    assert_eq!(not_yet, [Err(ResponseError::OffsetNotAvailable)]);
    log.publish(3).unwrap();
    log.stage(&batch(&["d"])).unwrap();
    let asked = deleted(&test, &[("m", 0, 4)]).await;
    assert_eq!(asked, [Err(ResponseError::OffsetOutOfRange)]);
    assert_eq!(deleted(&test, &[("m", 0, -1)]).await, [Ok(3)]);
    log.publish(4).unwrap();
    assert_eq!(values(&test.fetch("m", 3).await), ["d"]);
}

#[tokio::test]
async fn a_long_poll_at_the_end_outlives_the_deletion_of_everything() {
    let test = TestBroker::start().await;
    test.create("t", 1).await;
    test.produce("t", batch(&["a"])).await;
    let mut poll = fetch_request(&[("t", 0, 1)]);
    poll.max_wait_ms = 30_000;
    let reply = fetch::handle(&test.context(FETCH_BY_NAME), poll).await;
    let waiting = tokio::spawn(answer(reply));
    assert_eq!(deleted(&test, &[("t", 0, -1)]).await, [Ok(1)]);
    test.produce("t", batch(&["b"])).await;
    let response = waiting.await.unwrap();
    assert_eq!(values(&response.responses[0].partitions[0]), ["b"]);
}
