use broker::api::produce;
use broker::catalog::TopicKind;
use broker::router::Reply;
use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::TransactionalId;
use kafka_protocol::messages::produce_response::PartitionProduceResponse;
use kafka_protocol::protocol::StrBytes;
use storage::batch::{BatchBuilder, Compression, layout};

use crate::support::{
    PRODUCE_BY_NAME, TestBroker, altered, answer, batch, filled, idempotent, only_produced,
    produce_request, values,
};

fn code(answer: &PartitionProduceResponse) -> Option<ResponseError> {
    ResponseError::try_from_code(answer.error_code)
}

fn message(answer: &PartitionProduceResponse) -> &str {
    answer.error_message.as_deref().unwrap_or_default()
}

#[tokio::test]
async fn what_was_produced_is_fetched() {
    let test = TestBroker::start().await;
    test.create("t", 1).await;

    let first = test.produce("t", batch(&["a", "b"])).await;
    assert_eq!((code(&first), first.base_offset), (None, 0));
    assert_eq!(first.log_append_time_ms, -1);
    assert_eq!(first.log_start_offset, 0);
    let second = test.produce("t", batch(&["c"])).await;
    assert_eq!((code(&second), second.base_offset), (None, 2));

    let fetched = test.fetch("t", 0).await;
    assert_eq!(values(&fetched), ["a", "b", "c"]);
    assert_eq!(fetched.high_watermark, 3);
}

#[tokio::test]
async fn acks_all_is_on_the_disk_before_the_answer() {
    let test = TestBroker::start().await;
    let topic = test.create("t", 1).await;
    for end in 1..=3 {
        test.produce("t", batch(&["a"])).await;
        assert!(topic.partitions[0].offsets().synced_offset >= end);
    }
}

#[tokio::test]
async fn pipelined_requests_append_in_order_before_any_answer_is_awaited() {
    let test = TestBroker::start().await;
    test.create("t", 1).await;
    let mut replies = Vec::new();
    for value in ["a", "b", "c"] {
        let request = produce_request("t", 0, Some(batch(&[value])));
        replies.push(produce::handle(&test.context(PRODUCE_BY_NAME), request).await);
    }
    assert_eq!(values(&test.fetch("t", 0).await), ["a", "b", "c"]);
    for (offset, reply) in (0..).zip(replies) {
        assert_eq!(only_produced(answer(reply).await).base_offset, offset);
    }
}

#[tokio::test]
async fn acks_1_answers_at_once_from_the_page_cache() {
    let test = TestBroker::start().await;
    test.create("t", 1).await;
    let request = produce_request("t", 0, Some(batch(&["a"]))).with_acks(1);
    match produce::handle(&test.context(PRODUCE_BY_NAME), request).await {
        Reply::Now(response) => assert_eq!(code(&only_produced(response)), None),
        _ => panic!("acks=1 waited"),
    }
}

#[tokio::test]
async fn durabilities_are_the_topics() {
    let test = TestBroker::start().await;
    let all_in_page_cache = [("milena.acks.all.durability", "page_cache")];
    test.create_with("fast", 1, &all_in_page_cache, TopicKind::Ordinary)
        .await;
    let one_on_disk = [("milena.acks.one.durability", "disk")];
    let safe = test
        .create_with("safe", 1, &one_on_disk, TopicKind::Ordinary)
        .await;

    let request = produce_request("fast", 0, Some(batch(&["a"])));
    let reply = produce::handle(&test.context(PRODUCE_BY_NAME), request).await;
    assert!(matches!(reply, Reply::Now(_)));
    let request = produce_request("safe", 0, Some(batch(&["a"]))).with_acks(1);
    let reply = produce::handle(&test.context(PRODUCE_BY_NAME), request).await;
    answer(reply).await;
    assert_eq!(safe.partitions[0].offsets().synced_offset, 1);
}

#[tokio::test]
async fn acks_0_has_no_response_and_closes_on_an_error() {
    let test = TestBroker::start().await;
    test.create("t", 1).await;
    let context = test.context(PRODUCE_BY_NAME);
    let good = produce_request("t", 0, Some(batch(&["a"]))).with_acks(0);
    assert!(matches!(produce::handle(&context, good).await, Reply::None));
    assert_eq!(values(&test.fetch("t", 0).await), ["a"]);

    let bad = produce_request("t", 7, Some(batch(&["a"]))).with_acks(0);
    match produce::handle(&context, bad).await {
        Reply::Close(reason) => assert!(reason.contains("no partition 7"), "{reason}"),
        _ => panic!("the connection stays open"),
    }
}

#[tokio::test]
async fn other_acks_are_refused_and_nothing_is_appended() {
    let test = TestBroker::start().await;
    test.create("t", 1).await;
    for acks in [2, -2, i16::MAX] {
        let request = produce_request("t", 0, Some(batch(&["a"]))).with_acks(acks);
        let reply = produce::handle(&test.context(PRODUCE_BY_NAME), request).await;
        let refused = only_produced(answer(reply).await);
        assert_eq!(code(&refused), Some(ResponseError::InvalidRequiredAcks));
        assert_eq!(refused.base_offset, -1);
    }
    assert_eq!(test.fetch("t", 0).await.high_watermark, 0);
}

#[tokio::test]
async fn a_duplicate_gets_the_first_offset_and_is_not_stored() {
    let test = TestBroker::start().await;
    test.create("t", 1).await;
    let producer = (4000, 0);
    for (sequence, value) in [(0, "a"), (1, "b"), (2, "c")] {
        test.produce("t", idempotent(producer, sequence, &[value]))
            .await;
    }
    let again = test.produce("t", idempotent(producer, 1, &["b"])).await;
    assert_eq!((code(&again), again.base_offset), (None, 1));
    assert_eq!(values(&test.fetch("t", 0).await), ["a", "b", "c"]);
}

#[tokio::test]
async fn a_gap_and_a_stale_epoch_are_refused() {
    let test = TestBroker::start().await;
    test.create("t", 1).await;
    test.produce("t", idempotent((4000, 1), 0, &["a"])).await;
    let gap = test.produce("t", idempotent((4000, 1), 2, &["c"])).await;
    assert_eq!(code(&gap), Some(ResponseError::OutOfOrderSequenceNumber));
    let stale = test.produce("t", idempotent((4000, 0), 1, &["b"])).await;
    assert_eq!(code(&stale), Some(ResponseError::InvalidProducerEpoch));
    assert_eq!(values(&test.fetch("t", 0).await), ["a"]);
}

#[tokio::test]
async fn bad_batches_are_refused_with_a_reason_and_nothing_is_lost() {
    let test = TestBroker::start().await;
    test.create("t", 1).await;
    test.produce("t", batch(&["before"])).await;

    let good = batch(&["a", "b"]);
    let mut wrong_crc = good.to_vec();
    *wrong_crc.last_mut().unwrap() ^= 1;
    let control = altered(&good, layout::ATTRIBUTES, &0x20_i16.to_be_bytes());
    let cases: [(&str, Option<Bytes>, ResponseError); 9] = [
        ("null", None, ResponseError::InvalidRecord),
        ("empty", Some(Bytes::new()), ResponseError::InvalidRecord),
        (
            "wrong crc",
            Some(wrong_crc.into()),
            ResponseError::CorruptMessage,
        ),
        (
            "wrong count",
            Some(altered(&good, layout::RECORDS_COUNT, &3_i32.to_be_bytes())),
            ResponseError::InvalidRecord,
        ),
        ("control", Some(control), ResponseError::InvalidRecord),
        (
            "old magic",
            Some(altered(&good, layout::MAGIC, &[1])),
            ResponseError::InvalidRecord,
        ),
        (
            "two batches",
            Some([good.clone(), good.clone()].concat().into()),
            ResponseError::InvalidRecord,
        ),
        (
            "torn",
            Some(good.slice(..good.len() - 1)),
            ResponseError::CorruptMessage,
        ),
        (
            "no header",
            Some(good.slice(..20)),
            ResponseError::CorruptMessage,
        ),
    ];
    for (what, records, expected) in cases {
        let request = produce_request("t", 0, records);
        let reply = produce::handle(&test.context(PRODUCE_BY_NAME), request).await;
        let refused = only_produced(answer(reply).await);
        assert_eq!(code(&refused), Some(expected), "{what}");
        assert!(!message(&refused).is_empty(), "{what}");
        assert_eq!(refused.base_offset, -1, "{what}");
    }

    let after = test.produce("t", batch(&["after"])).await;
    assert_eq!((code(&after), after.base_offset), (None, 1));
    assert_eq!(values(&test.fetch("t", 0).await), ["before", "after"]);
}

#[tokio::test]
async fn a_batch_over_the_topics_limit_is_too_large() {
    let test = TestBroker::start().await;
    let configs = [("max.message.bytes", "200")];
    test.create_with("t", 1, &configs, TopicKind::Ordinary)
        .await;
    let large = test.produce("t", batch(&["x".repeat(300).as_str()])).await;
    assert_eq!(code(&large), Some(ResponseError::MessageTooLarge));
    let small = test.produce("t", batch(&["x"])).await;
    assert_eq!(code(&small), None);
}

#[tokio::test]
async fn a_partition_fails_alone() {
    let test = TestBroker::start().await;
    test.create("t", 1).await;
    let mut request = produce_request("t", 0, Some(batch(&["a"])));
    let bad = produce_request("t", 1, Some(batch(&["a"])));
    request.topic_data[0]
        .partition_data
        .extend(bad.topic_data[0].partition_data.clone());
    let reply = produce::handle(&test.context(PRODUCE_BY_NAME), request).await;
    let response = answer(reply).await;
    let answers = &response.responses[0].partition_responses;
    assert_eq!((answers[0].index, code(&answers[0])), (0, None));
    let unknown = Some(ResponseError::UnknownTopicOrPartition);
    assert_eq!((answers[1].index, code(&answers[1])), (1, unknown));
}

#[tokio::test]
async fn topics_that_the_broker_writes_are_refused_with_the_reason() {
    let test = TestBroker::start().await;
    let model_topic = "scored".to_owned();
    let cases = [
        (
            "scored",
            TopicKind::Derived {
                model_topic: model_topic.clone(),
            },
            ResponseError::PolicyViolation,
        ),
        (
            "scored.dlq",
            TopicKind::DeadLetter { model_topic },
            ResponseError::PolicyViolation,
        ),
        (
            "offsets",
            TopicKind::Internal,
            ResponseError::InvalidTopicException,
        ),
    ];
    for (name, kind, expected) in cases {
        test.create_with(name, 1, &[], kind).await;
        let refused = test.produce(name, batch(&["a"])).await;
        assert_eq!(code(&refused), Some(expected), "{name}");
        assert!(message(&refused).contains(name), "{}", message(&refused));
    }
    let refused = test.produce("scored", batch(&["a"])).await;
    assert_eq!(
        message(&refused),
        "'scored' is derived by model topic 'scored'; only the model topic writes it"
    );
}

#[tokio::test]
async fn a_transactional_batch_needs_a_transactional_id_that_has_its_producer() {
    let test = TestBroker::start().await;
    test.create("t", 1).await;
    let transactional = 0x10_i16.to_be_bytes();
    let transactional = altered(
        &idempotent((1, 0), 0, &["a"]),
        layout::ATTRIBUTES,
        &transactional,
    );
    let refusal = Some(ResponseError::TransactionalIdAuthorizationFailed);
    assert_eq!(
        code(&test.produce("t", transactional.clone()).await),
        refusal
    );
    let request = produce_request("t", 0, Some(transactional))
        .with_transactional_id(Some(TransactionalId(StrBytes::from_static_str("tx"))));
    let reply = produce::handle(&test.context(PRODUCE_BY_NAME), request).await;
    let refusal = Some(ResponseError::InvalidProducerIdMapping);
    assert_eq!(code(&only_produced(answer(reply).await)), refusal);
    assert_eq!(test.fetch("t", 0).await.high_watermark, 0);
}

#[tokio::test]
async fn zstd_needs_version_7() {
    let test = TestBroker::start().await;
    test.create("t", 1).await;
    let zstd = filled(BatchBuilder::new(Compression::Zstd), &["a", "a", "a"]);
    for (version, expected) in [
        (6, Some(ResponseError::UnsupportedCompressionType)),
        (7, None),
    ] {
        let request = produce_request("t", 0, Some(zstd.clone()));
        let reply = produce::handle(&test.context(version), request).await;
        assert_eq!(code(&only_produced(answer(reply).await)), expected);
    }
    assert_eq!(values(&test.fetch("t", 0).await), ["a", "a", "a"]);
}

#[tokio::test]
async fn every_codec_is_stored_as_it_came() {
    let test = TestBroker::start().await;
    test.create("t", 1).await;
    let codecs = [
        Compression::Gzip,
        Compression::Snappy,
        Compression::Lz4,
        Compression::Zstd,
    ];
    for codec in codecs {
        let stored = test
            .produce("t", filled(BatchBuilder::new(codec), &["a"]))
            .await;
        assert_eq!(code(&stored), None, "{codec:?}");
    }
    assert_eq!(values(&test.fetch("t", 0).await), ["a"; 4]);
}

#[tokio::test]
async fn log_append_time_is_returned() {
    let test = TestBroker::start().await;
    let configs = [("message.timestamp.type", "LogAppendTime")];
    test.create_with("t", 1, &configs, TopicKind::Ordinary)
        .await;
    let before = test.broker.clock.now_ms();
    let stored = test.produce("t", batch(&["a"])).await;
    let after = test.broker.clock.now_ms();
    assert!((before..=after).contains(&stored.log_append_time_ms));
}

#[tokio::test]
async fn unknown_topics_are_created_where_that_is_allowed() {
    let test = TestBroker::start().await;
    assert_eq!(code(&test.produce("new", batch(&["a"])).await), None);
    assert!(test.broker.catalog.topic("new").is_some());
    for name in ["not a name", "__consumer_offsets", "__milena_catalog"] {
        let refused = test.produce(name, batch(&["a"])).await;
        assert_eq!(code(&refused), Some(ResponseError::InvalidTopicException));
    }

    let strict =
        TestBroker::start_with(|config| config.broker.auto_create_topics_enable = false).await;
    let refused = strict.produce("new", batch(&["a"])).await;
    assert_eq!(code(&refused), Some(ResponseError::UnknownTopicOrPartition));
    assert!(strict.broker.catalog.topic("new").is_none());
}

#[tokio::test]
async fn version_13_names_topics_by_id() {
    let test = TestBroker::start().await;
    let topic = test.create("t", 1).await;
    let mut request = produce_request("", 0, Some(batch(&["a"])));
    request.topic_data[0].topic_id = topic.id;
    let reply = produce::handle(&test.context(13), request.clone()).await;
    let response = answer(reply).await;
    assert_eq!(response.responses[0].topic_id, topic.id);
    assert_eq!(code(&only_produced(response)), None);

    test.broker.catalog.delete_topic("t").await.unwrap();
    test.create("t", 1).await;
    let reply = produce::handle(&test.context(13), request).await;
    let refused = only_produced(answer(reply).await);
    assert_eq!(code(&refused), Some(ResponseError::UnknownTopicId));
}
