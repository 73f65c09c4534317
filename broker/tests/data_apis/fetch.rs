use std::time::{Duration, Instant};

use broker::api::fetch;
use broker::catalog::TopicKind;
use broker::router::Reply;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::{FetchRequest, FetchResponse};
use storage::batch::{BatchBuilder, Compression};

use crate::support::{
    FETCH_BY_NAME, TestBroker, answer, batch, fetch_request, filled, produce_request, values,
};

/// Long enough that a test which waits it out fails.
const LONG: i32 = 60_000;

fn code(partition: &PartitionData) -> Option<ResponseError> {
    ResponseError::try_from_code(partition.error_code)
}

async fn handle(test: &TestBroker, request: FetchRequest) -> Reply<FetchResponse> {
    fetch::handle(&test.context(FETCH_BY_NAME), request).await
}

/// The partitions of every topic, in the request's order.
fn partitions(response: FetchResponse) -> Vec<PartitionData> {
    assert_eq!((response.error_code, response.session_id), (0, 0));
    let topics = response.responses.into_iter();
    topics.flat_map(|topic| topic.partitions).collect()
}

async fn fetched(test: &TestBroker, request: FetchRequest) -> Vec<PartitionData> {
    partitions(answer(handle(test, request).await).await)
}

async fn finished(reply: tokio::task::JoinHandle<FetchResponse>) -> Vec<PartitionData> {
    let response = tokio::time::timeout(Duration::from_secs(10), reply).await;
    partitions(response.expect("the poll still waits").unwrap())
}

fn sizes(partitions: &[PartitionData]) -> Vec<usize> {
    let size = |partition: &PartitionData| partition.records.as_ref().map_or(0, |r| r.len());
    partitions.iter().map(size).collect()
}

#[tokio::test]
async fn an_offset_inside_a_batch_gets_the_whole_batch() {
    let test = TestBroker::start().await;
    test.create("t", 1).await;
    test.produce("t", batch(&["a", "b"])).await;
    test.produce("t", batch(&["c", "d", "e"])).await;
    assert_eq!(values(&test.fetch("t", 3).await), ["c", "d", "e"]);
    assert_eq!(values(&test.fetch("t", 1).await), ["a", "b", "c", "d", "e"]);
    assert!(values(&test.fetch("t", 5).await).is_empty());
}

#[tokio::test]
async fn what_is_there_is_answered_at_once() {
    let test = TestBroker::start().await;
    test.create("t", 1).await;
    test.produce("t", batch(&["a"])).await;
    let request = fetch_request(&[("t", 0, 0)]).with_max_wait_ms(LONG);
    match handle(&test, request).await {
        Reply::Now(response) => assert_eq!(values(&partitions(response)[0]), ["a"]),
        _ => panic!("it waits"),
    }
}

#[tokio::test]
async fn a_long_poll_wakes_on_an_append_to_any_of_its_partitions() {
    let test = TestBroker::start().await;
    test.create("t", 3).await;
    let request = fetch_request(&[("t", 0, 0), ("t", 1, 0), ("t", 2, 0)]).with_max_wait_ms(LONG);
    let reply = tokio::spawn(answer(handle(&test, request).await));
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!reply.is_finished());

    let produce = produce_request("t", 1, Some(batch(&["a"]))).with_acks(1);
    answer(broker::api::produce::handle(&test.context(12), produce).await).await;
    let found = finished(reply).await;
    assert_eq!(values(&found[1]), ["a"]);
    assert_eq!((sizes(&found)[0], sizes(&found)[2]), (0, 0));
    assert_eq!(found[1].high_watermark, 1);
}

#[tokio::test]
async fn a_long_poll_waits_for_min_bytes_over_all_partitions() {
    let test = TestBroker::start().await;
    test.create("a", 1).await;
    test.create("b", 1).await;
    let one = batch(&["x"]);
    let request = fetch_request(&[("a", 0, 0), ("b", 0, 0)])
        .with_max_wait_ms(LONG)
        .with_min_bytes(3 * one.len() as i32);
    let reply = tokio::spawn(answer(handle(&test, request).await));
    test.produce("a", one.clone()).await;
    test.produce("b", one.clone()).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!reply.is_finished());
    test.produce("a", one.clone()).await;
    assert_eq!(sizes(&finished(reply).await), [2 * one.len(), one.len()]);
}

#[tokio::test]
async fn an_empty_poll_ends_with_empty_records() {
    let test = TestBroker::start().await;
    test.create("t", 2).await;
    let request = fetch_request(&[("t", 0, 0), ("t", 1, 0)]).with_max_wait_ms(100);
    let start = Instant::now();
    let found = fetched(&test, request).await;
    let waited = start.elapsed();
    assert!(waited >= Duration::from_millis(90), "{waited:?}");
    assert_eq!(found.len(), 2);
    for partition in &found {
        assert_eq!(code(partition), None);
        assert_eq!(partition.records.as_ref().unwrap().len(), 0);
    }
}

#[tokio::test]
async fn a_stop_ends_pending_polls() {
    let test = TestBroker::start().await;
    test.create("t", 1).await;
    let request = fetch_request(&[("t", 0, 0)]).with_max_wait_ms(LONG);
    let reply = tokio::spawn(answer(handle(&test, request.clone()).await));
    tokio::time::sleep(Duration::from_millis(20)).await;
    let context = test.context(FETCH_BY_NAME);
    test.server.stop().await.unwrap();
    assert_eq!(sizes(&finished(reply).await), [0]);
    let late = fetch::handle(&context, request).await;
    assert!(matches!(late, Reply::Now(_)));
}

#[tokio::test]
async fn deleting_the_topic_ends_pending_polls() {
    let test = TestBroker::start().await;
    test.create("t", 1).await;
    let request = fetch_request(&[("t", 0, 0)]).with_max_wait_ms(LONG);
    let reply = tokio::spawn(answer(handle(&test, request).await));
    tokio::time::sleep(Duration::from_millis(20)).await;
    test.broker.catalog.delete_topic("t").await.unwrap();
    let found = finished(reply).await;
    let unknown = ResponseError::UnknownTopicOrPartition;
    assert_eq!(code(&found[0]), Some(unknown));
}

#[tokio::test]
async fn the_first_batch_is_returned_whatever_the_limits() {
    let test = TestBroker::start().await;
    test.create("t", 2).await;
    let large = batch(&["x".repeat(1000).as_str()]);
    for partition in [0, 1] {
        let request = produce_request("t", partition, Some(large.clone()));
        answer(broker::api::produce::handle(&test.context(12), request).await).await;
    }
    let asked = [("t", 0, 0), ("t", 1, 0)];
    let by_response = fetch_request(&asked).with_max_bytes(10);
    assert_eq!(sizes(&fetched(&test, by_response).await), [large.len(), 0]);
    let mut by_partition = fetch_request(&asked);
    for topic in &mut by_partition.topics {
        topic.partitions[0].partition_max_bytes = 10;
    }
    assert_eq!(sizes(&fetched(&test, by_partition).await), [large.len(), 0]);
    // Where the first partition has nothing, the second is the first that has.
    let mut second = fetch_request(&[("t", 0, 1), ("t", 1, 0)]).with_max_bytes(0);
    second.topics[1].partitions[0].partition_max_bytes = -1;
    assert_eq!(sizes(&fetched(&test, second).await), [0, large.len()]);
}

#[tokio::test]
async fn limits_hold_over_partitions_and_never_split_a_batch() {
    let test = TestBroker::start_with(|config| config.broker.fetch_max_bytes = 4000).await;
    test.create("t", 2).await;
    let one = batch(&["x".repeat(1000).as_str()]);
    for partition in [0, 0, 0, 1, 1] {
        let request = produce_request("t", partition, Some(one.clone()));
        answer(broker::api::produce::handle(&test.context(12), request).await).await;
    }
    assert!((1001..1200).contains(&one.len()), "{}", one.len());
    let mut request = fetch_request(&[("t", 0, 0), ("t", 1, 0)]);
    request.topics[0].partitions[0].partition_max_bytes = 2500;
    assert_eq!(
        sizes(&fetched(&test, request).await),
        [2 * one.len(), one.len()]
    );
}

#[tokio::test]
async fn a_poll_that_limits_keep_below_min_bytes_does_not_wait() {
    let test = TestBroker::start().await;
    test.create("t", 1).await;
    let one = batch(&["x"]);
    test.produce("t", one.clone()).await;
    test.produce("t", one.clone()).await;
    let mut request = fetch_request(&[("t", 0, 0)])
        .with_max_wait_ms(LONG)
        .with_min_bytes(LONG);
    request.topics[0].partitions[0].partition_max_bytes = one.len() as i32;
    assert!(matches!(handle(&test, request).await, Reply::Now(_)));
}

#[tokio::test]
async fn isolation_levels_differ_in_the_list_of_aborted_transactions() {
    let test = TestBroker::start().await;
    test.create("t", 1).await;
    test.produce("t", batch(&["a"])).await;
    let uncommitted = fetch_request(&[("t", 0, 0)]);
    let found = fetched(&test, uncommitted.clone()).await;
    assert!(found[0].aborted_transactions.is_none());
    let found = fetched(&test, uncommitted.clone().with_isolation_level(1)).await;
    assert_eq!(values(&found[0]), ["a"]);
    assert_eq!(found[0].aborted_transactions.as_deref(), Some(&[][..]));
    assert_eq!(found[0].last_stable_offset, 1);
    let found = fetched(&test, uncommitted.with_isolation_level(2)).await;
    assert_eq!(code(&found[0]), Some(ResponseError::InvalidRequest));
}

#[tokio::test]
async fn a_hidden_tail_is_hidden_until_it_is_published() {
    let test = TestBroker::start().await;
    let kind = TopicKind::Derived {
        model_topic: "t".to_owned(),
    };
    let topic = test.create_with("t", 1, &[], kind).await;
    let log = &topic.partitions[0];
    let early = test.fetch("t", 0).await;
    assert_eq!(code(&early), Some(ResponseError::OffsetNotAvailable));

    log.publish(0).unwrap();
    let staged = log.stage(&batch(&["a"])).unwrap();
    for isolation_level in [0, 1] {
        let request = fetch_request(&[("t", 0, 0)]).with_isolation_level(isolation_level);
        let found = fetched(&test, request).await;
        assert_eq!((sizes(&found), found[0].high_watermark), (vec![0], 0));
    }
    let request = fetch_request(&[("t", 0, 0)]).with_max_wait_ms(LONG);
    let reply = tokio::spawn(answer(handle(&test, request).await));
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(!reply.is_finished());
    log.publish(staged.end).unwrap();
    assert_eq!(values(&finished(reply).await[0]), ["a"]);
}

#[tokio::test]
async fn an_error_answers_at_once_beside_what_the_others_have() {
    let test = TestBroker::start().await;
    for topic in ["t", "v"] {
        test.create(topic, 1).await;
        test.produce(topic, batch(&["a"])).await;
    }
    let asked = [
        ("v", 0, 1),
        ("t", 9, 0),
        ("t", -1, 0),
        ("u", 0, 0),
        ("t", 0, 0),
    ];
    let request = fetch_request(&asked)
        .with_max_wait_ms(LONG)
        .with_min_bytes(LONG);
    let Reply::Now(response) = handle(&test, request).await else {
        panic!("it waits");
    };
    let found = partitions(response);
    let unknown = Some(ResponseError::UnknownTopicOrPartition);
    // Each topic once, where it was first named.
    let codes: Vec<_> = found.iter().map(code).collect();
    assert_eq!(codes, [None, unknown, unknown, None, unknown]);
    assert_eq!(found[1].high_watermark, -1);
    assert_eq!(values(&found[3]), ["a"]);
}

#[tokio::test]
async fn a_partition_that_is_named_twice_is_answered_once() {
    let test = TestBroker::start().await;
    test.create("t", 1).await;
    test.produce("t", batch(&["a"])).await;
    test.produce("t", batch(&["b"])).await;
    let request = fetch_request(&[("t", 0, 0), ("t", 0, 1), ("t", 0, 1)]);
    let found = fetched(&test, request).await;
    assert_eq!(found.len(), 1);
    assert_eq!(values(&found[0]), ["b"], "the last word counts");
}

#[tokio::test]
async fn offsets_outside_of_the_log_are_out_of_range() {
    let test = TestBroker::start().await;
    test.create("t", 1).await;
    test.produce("t", batch(&["a"])).await;
    for offset in [2, -1, i64::MAX, i64::MIN] {
        let refused = test.fetch("t", offset).await;
        assert_eq!(
            code(&refused),
            Some(ResponseError::OffsetOutOfRange),
            "{offset}"
        );
    }
}

#[tokio::test]
async fn leader_epochs_are_checked() {
    let test = TestBroker::start().await;
    let topic = test.create("t", 1).await;
    test.produce("t", batch(&["a"])).await;
    let epoch = topic.partitions[0].leader_epoch();
    let mut request = fetch_request(&[("t", 0, 0)]);
    for (current, expected) in [
        (-1, None),
        (epoch, None),
        (epoch + 1, Some(ResponseError::UnknownLeaderEpoch)),
    ] {
        request.topics[0].partitions[0].current_leader_epoch = current;
        let found = fetched(&test, request.clone()).await;
        assert_eq!(code(&found[0]), expected, "{current}");
    }
    request.topics[0].partitions[0].current_leader_epoch = -1;
    request.topics[0].partitions[0].last_fetched_epoch = epoch;
    let found = fetched(&test, request).await;
    assert_eq!(values(&found[0]), ["a"]);
}

#[tokio::test]
async fn records_that_left_the_page_cache_are_read_from_the_disk() {
    let test = TestBroker::start().await;
    let large = batch(&["x".repeat(100_000).as_str()]);
    for (topic, partition) in [("t", 0), ("t", 1), ("u", 0), ("u", 1)] {
        if partition == 0 {
            test.create(topic, 2).await;
        }
        let request = produce_request(topic, partition, Some(large.clone()));
        answer(broker::api::produce::handle(&test.context(12), request).await).await;
        // Clean pages, and not mapped yet: the system lets go of them. Where it does not (tmpfs),
        // the same is read from memory.
        test.evict(topic, partition);
    }
    let both = fetch_request(&[("t", 0, 0), ("t", 1, 0)]).with_max_wait_ms(LONG);
    let found = fetched(&test, both).await;
    assert_eq!(sizes(&found), [large.len(), large.len()]);
    assert_eq!(values(&found[1])[0].len(), 100_000);

    let limited = fetch_request(&[("u", 0, 0), ("u", 1, 0)]).with_max_bytes(10);
    assert_eq!(sizes(&fetched(&test, limited).await), [large.len(), 0]);
}

#[tokio::test]
async fn zstd_needs_version_10() {
    let test = TestBroker::start().await;
    test.create("t", 1).await;
    test.produce("t", batch(&["a"])).await;
    let zstd = BatchBuilder::new(Compression::Zstd);
    test.produce("t", filled(zstd, &["b"])).await;
    let request = fetch_request(&[("t", 0, 0)]);
    let old = answer(fetch::handle(&test.context(9), request.clone()).await).await;
    assert_eq!(values(&partitions(old)[0]), ["a"], "what it can read");
    let new = answer(fetch::handle(&test.context(10), request).await).await;
    assert_eq!(values(&partitions(new)[0]), ["a", "b"]);
    let request = fetch_request(&[("t", 0, 1)]);
    let old = answer(fetch::handle(&test.context(9), request).await).await;
    let expected = Some(ResponseError::UnsupportedCompressionType);
    assert_eq!(code(&partitions(old)[0]), expected);
}

#[tokio::test]
async fn version_13_names_topics_by_id() {
    let test = TestBroker::start().await;
    let topic = test.create("t", 1).await;
    test.produce("t", batch(&["a"])).await;
    let mut request = fetch_request(&[("", 0, 0)]);
    request.topics[0].topic_id = topic.id;
    let response = answer(fetch::handle(&test.context(18), request.clone()).await).await;
    assert_eq!(response.responses[0].topic_id, topic.id);
    assert_eq!(values(&partitions(response)[0]), ["a"]);

    test.broker.catalog.delete_topic("t").await.unwrap();
    test.create("t", 1).await;
    let response = answer(fetch::handle(&test.context(18), request).await).await;
    let code = code(&partitions(response)[0]);
    assert_eq!(code, Some(ResponseError::UnknownTopicId));
}
