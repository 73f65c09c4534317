use broker::api::list_offsets;
use broker::catalog::TopicKind;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::ListOffsetsRequest;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::list_offsets_response::ListOffsetsPartitionResponse;
use storage::batch::{BatchBuilder, Compression};

use crate::support::{TestBroker, answer, batch, filled, timestamp, topic_name};

const NEWEST: i16 = 10;

fn request(topic: &str, partition: ListOffsetsPartition) -> ListOffsetsRequest {
    ListOffsetsRequest::default().with_topics(vec![
        ListOffsetsTopic::default()
            .with_name(topic_name(topic))
            .with_partitions(vec![partition]),
    ])
}

fn at(timestamp: i64) -> ListOffsetsPartition {
    ListOffsetsPartition::default().with_timestamp(timestamp)
}

async fn list(test: &TestBroker, request: ListOffsetsRequest) -> ListOffsetsPartitionResponse {
    let reply = list_offsets::handle(&test.context(NEWEST), request).await;
    answer(reply).await.topics[0].partitions[0].clone()
}

/// (offset, timestamp), where there is no error.
async fn found(test: &TestBroker, timestamp: i64) -> (i64, i64) {
    let found = list(test, request("t", at(timestamp))).await;
    assert_eq!(found.error_code, 0, "{timestamp}");
    (found.offset, found.timestamp)
}

#[tokio::test]
async fn every_special_timestamp_has_its_answer() {
    let test = TestBroker::start().await;
    test.create("t", 1).await;
    for (special, offset) in [(-1, 0), (-2, 0), (-3, -1), (-4, 0), (-5, -1)] {
        assert_eq!(
            found(&test, special).await,
            (offset, -1),
            "{special}, empty"
        );
    }
    test.produce("t", batch(&["a", "b", "c"])).await;
    test.produce("t", batch(&["d"])).await;
    assert_eq!(found(&test, -1).await, (4, -1));
    assert_eq!(found(&test, -2).await, (0, -1));
    assert_eq!(found(&test, -3).await, (2, timestamp(2)));
    assert_eq!(found(&test, -4).await, (0, -1));
    assert_eq!(found(&test, -5).await, (-1, -1));
    let unknown = list(&test, request("t", at(-6))).await;
    assert_eq!(unknown.error_code, ResponseError::UnsupportedVersion.code());
}

#[tokio::test]
async fn times_find_the_first_record_at_or_after_them_in_compressed_batches_too() {
    let test = TestBroker::start().await;
    test.create("t", 1).await;
    let gzip = BatchBuilder::new(Compression::Gzip);
    test.produce("t", filled(gzip, &["a", "b", "c"])).await;
    assert_eq!(found(&test, 0).await, (0, timestamp(0)));
    assert_eq!(found(&test, timestamp(1)).await, (1, timestamp(1)));
    assert_eq!(found(&test, timestamp(2)).await, (2, timestamp(2)));
    assert_eq!(found(&test, timestamp(3)).await, (-1, -1));
}

#[tokio::test]
async fn answers_carry_the_leader_epoch_and_requests_are_checked_against_it() {
    let test = TestBroker::start().await;
    let topic = test.create("t", 1).await;
    let epoch = topic.partitions[0].leader_epoch();
    let empty = list(&test, request("t", at(-2))).await;
    assert_eq!(empty.leader_epoch, epoch, "of the records to come");
    test.produce("t", batch(&["a"])).await;
    for special in [-1, -2, -3, 0] {
        let found = list(&test, request("t", at(special))).await;
        assert_eq!(found.leader_epoch, epoch, "{special}");
    }
    let newer = at(-1).with_current_leader_epoch(epoch + 1);
    let refused = list(&test, request("t", newer)).await;
    assert_eq!(refused.error_code, ResponseError::UnknownLeaderEpoch.code());
}

#[tokio::test]
async fn what_does_not_exist_and_what_is_asked_twice_is_refused() {
    let test = TestBroker::start().await;
    test.create("t", 1).await;
    let unknown = ResponseError::UnknownTopicOrPartition.code();
    assert_eq!(list(&test, request("u", at(-1))).await.error_code, unknown);
    for partition in [1, -1, i32::MAX] {
        let at = at(-1).with_partition_index(partition);
        let refused = list(&test, request("t", at)).await;
        assert_eq!(refused.error_code, unknown);
        assert_eq!(refused.partition_index, partition);
    }
    let mut twice = request("t", at(-1));
    twice.topics[0].partitions.push(at(-2));
    let reply = list_offsets::handle(&test.context(NEWEST), twice).await;
    let answers = answer(reply).await.topics.remove(0).partitions;
    assert_eq!(answers[0].error_code, 0);
    assert_eq!(answers[1].error_code, ResponseError::InvalidRequest.code());
}

#[tokio::test]
async fn unknown_isolation_levels_are_refused() {
    let test = TestBroker::start().await;
    test.create("t", 1).await;
    let request = request("t", at(-1)).with_isolation_level(2);
    let refused = list(&test, request).await;
    assert_eq!(refused.error_code, ResponseError::InvalidRequest.code());
}

#[tokio::test]
async fn a_derived_partition_tells_its_published_end_once_that_is_known() {
    let test = TestBroker::start().await;
    let kind = TopicKind::Derived {
        model_topic: "t".to_owned(),
    };
    let topic = test.create_with("t", 1, &[], kind).await;
    let log = &topic.partitions[0];
    let early = list(&test, request("t", at(-1))).await;
    assert_eq!(early.error_code, ResponseError::OffsetNotAvailable.code());

    log.publish(0).unwrap();
    let staged = log.stage(&batch(&["a", "b"])).unwrap();
    for hidden in [-1, -3, 0] {
        let (offset, _) = found(&test, hidden).await;
        assert_eq!(offset, if hidden == -1 { 0 } else { -1 }, "{hidden}");
    }
    log.publish(staged.end).unwrap();
    assert_eq!(found(&test, -1).await, (2, -1));
    assert_eq!(found(&test, -3).await, (1, timestamp(1)));
}
