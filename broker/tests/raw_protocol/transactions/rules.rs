//! One rule each.

use std::time::Duration;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_producers_request::TopicRequest;
use kafka_protocol::messages::write_txn_markers_request::{
    WritableTxnMarker, WritableTxnMarkerTopic,
};
use kafka_protocol::messages::{
    DescribeProducersRequest, DescribeTransactionsRequest, InitProducerIdRequest, ProducerId,
    WriteTxnMarkersRequest,
};
use uuid::Uuid;

use super::error;
use super::producer::{
    END_V1, END_V2, PRODUCE_V1, PRODUCE_V2, Producer, committed_offset, end_of, read,
    transactional_id,
};
use crate::{Client, TestServer, topic_name};

/// A server with the topic "t".
async fn server() -> (TestServer, Client, (&'static str, Uuid)) {
    let server = TestServer::start().await;
    let mut client = Client::connect(&server).await;
    let id = client.topic_id("t").await;
    (server, client, ("t", id))
}

/// Markers follow an answer: looks until `seen` holds.
async fn until<T>(mut look: impl AsyncFnMut() -> T, seen: impl Fn(&T) -> bool) -> T {
    for _ in 0..500 {
        let found = look().await;
        if seen(&found) {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("nothing of the kind was seen within ten seconds");
}

#[tokio::test]
async fn read_committed_stops_at_the_last_stable_offset_and_is_told_what_was_aborted() {
    let (_server, mut client, topic) = server().await;
    let mut first = Producer::init(&mut client, "first").await;
    let mut second = Producer::init(&mut client, "second").await;
    assert_eq!(first.write(&mut client, PRODUCE_V2, topic, "a").await, None);
    assert_eq!(
        second.write(&mut client, PRODUCE_V2, topic, "b").await,
        None
    );
    let open = read(&mut client, topic, 0, true).await;
    assert_eq!((open.values.len(), open.last_stable_offset), (0, 0));
    assert_eq!(read(&mut client, topic, 0, false).await.values, ["a", "b"]);
    let aborted_id = second.id;
    assert_eq!(second.end(&mut client, END_V2, false).await, None);
    // Before it there is one that is open still.
    let uncommitted = async || read(&mut client, topic, 0, false).await;
    until(uncommitted, |seen| seen.values.len() == 2).await;
    assert_eq!(
        read(&mut client, topic, 0, true).await.last_stable_offset,
        0
    );
    assert_eq!(first.end(&mut client, END_V2, true).await, None);
    let committed = async || read(&mut client, topic, 0, true).await;
    let seen = until(committed, |seen| seen.last_stable_offset == 4).await;
    assert_eq!(seen.values, ["a", "b"], "batches come whole");
    assert_eq!(seen.aborted, [(aborted_id, 1)]);
    let uncommitted = read(&mut client, topic, 0, false).await;
    assert_eq!(
        (uncommitted.values.len(), uncommitted.aborted.len()),
        (2, 0)
    );
    // Behind its batches it is none of the reader's business.
    let later = read(&mut client, topic, 3, true).await;
    assert_eq!(later.aborted, []);
}

#[tokio::test]
async fn the_latest_offset_is_the_last_stable_one_under_read_committed() {
    let (_server, mut client, topic) = server().await;
    let mut producer = Producer::init(&mut client, "tx").await;
    assert_eq!(
        producer.write(&mut client, PRODUCE_V2, topic, "a").await,
        None
    );
    assert_eq!(end_of(&mut client, "t", true).await, 0);
    assert_eq!(end_of(&mut client, "t", false).await, 1);
    assert_eq!(producer.end(&mut client, END_V2, true).await, None);
    let end = async || end_of(&mut client, "t", true).await;
    until(end, |end| *end == 2).await;
}

#[tokio::test]
async fn a_stale_epoch_in_a_transaction_is_invalid_producer_epoch() {
    let (_server, mut client, topic) = server().await;
    let mut zombie = Producer::init(&mut client, "tx").await;
    assert_eq!(
        zombie.write(&mut client, PRODUCE_V2, topic, "a").await,
        None
    );
    let mut next = Producer::init(&mut client, "tx").await;
    assert_eq!(next.id, zombie.id);
    assert!(next.epoch > zombie.epoch + 1, "the epoch between aborts");
    for version in [PRODUCE_V1, PRODUCE_V2] {
        let refused = zombie.write(&mut client, version, topic, "b").await;
        assert_eq!(
            refused,
            Some(ResponseError::InvalidProducerEpoch),
            "v{version}"
        );
    }
    assert_eq!(
        zombie.add(&mut client, "t").await,
        Some(ResponseError::ProducerFenced)
    );
    let refused = zombie.end(&mut client, END_V1, true).await;
    assert_eq!(refused, Some(ResponseError::ProducerFenced));
    assert_eq!(next.write(&mut client, PRODUCE_V2, topic, "c").await, None);
    assert_eq!(next.end(&mut client, END_V2, true).await, None);
    let committed = async || read(&mut client, topic, 0, true).await;
    let seen = until(committed, |seen| seen.last_stable_offset == 4).await;
    assert_eq!(seen.aborted, [(zombie.id, 0)]);
}

#[tokio::test]
async fn a_batch_outside_of_an_open_transaction_is_invalid_txn_state() {
    let (_server, mut client, topic) = server().await;
    let mut producer = Producer::init(&mut client, "tx").await;
    assert_eq!(
        producer.write(&mut client, PRODUCE_V2, topic, "a").await,
        None
    );
    let refused = producer.write_outside(&mut client, topic, "b").await;
    assert_eq!(refused, Some(ResponseError::InvalidTxnState));
    assert_eq!(read(&mut client, topic, 0, false).await.values, ["a"]);
}

#[tokio::test]
async fn each_end_raises_the_epoch_and_a_late_one_does_not_end_the_next_transaction() {
    let (_server, mut client, topic) = server().await;
    let mut producer = Producer::init(&mut client, "tx").await;
    assert_eq!(
        producer.write(&mut client, PRODUCE_V2, topic, "a").await,
        None
    );
    let mut late = producer.clone();
    assert_eq!(producer.end(&mut client, END_V2, true).await, None);
    assert_eq!(producer.epoch, late.epoch + 1);
    // Its answer may have been lost: it is the same, as long as no other transaction has begun.
    let mut again = late.clone();
    assert_eq!(again.end(&mut client, END_V2, true).await, None);
    assert_eq!((again.id, again.epoch), (producer.id, producer.epoch));
    assert_eq!(
        producer.write(&mut client, PRODUCE_V2, topic, "b").await,
        None
    );
    let fenced = Some(ResponseError::ProducerFenced);
    assert_eq!(late.end(&mut client, END_V2, true).await, fenced);
    let refused = late.write(&mut client, PRODUCE_V2, topic, "late").await;
    assert_eq!(refused, Some(ResponseError::InvalidProducerEpoch));
    let seen = read(&mut client, topic, 0, true).await;
    assert_eq!(
        (seen.values, seen.last_stable_offset),
        (vec!["a".to_owned()], 2)
    );
    assert_eq!(producer.end(&mut client, END_V2, false).await, None);
}

#[tokio::test]
async fn a_batch_whose_partition_was_not_added_is_refused_before_produce_12() {
    let (_server, mut client, topic) = server().await;
    let mut producer = Producer::init(&mut client, "tx").await;
    for (version, code) in [
        (10, ResponseError::InvalidTxnState),
        (11, ResponseError::TransactionAbortable),
    ] {
        let refused = producer.write(&mut client, version, topic, "a").await;
        assert_eq!(refused, Some(code), "v{version}");
    }
    assert_eq!(producer.add(&mut client, "t").await, None);
    assert_eq!(producer.write(&mut client, 10, topic, "a").await, None);
    assert_eq!(producer.end(&mut client, END_V1, true).await, None);
    // What comes late of it is no part of the next transaction: it would never end.
    let refused = producer.write(&mut client, 10, topic, "late").await;
    assert_eq!(refused, Some(ResponseError::InvalidTxnState));
    let committed = async || read(&mut client, topic, 0, true).await;
    until(committed, |seen| seen.last_stable_offset == 2).await;
}

#[tokio::test]
async fn a_timeout_over_the_brokers_maximum_is_refused() {
    let server = TestServer::start_with(|config| {
        config.transaction.transaction_max_timeout_ms = 1000;
    })
    .await;
    let mut client = Client::connect(&server).await;
    for (timeout_ms, expected) in [
        (1000, None),
        (1001, Some(ResponseError::InvalidTransactionTimeout)),
        (0, Some(ResponseError::InvalidTransactionTimeout)),
    ] {
        let request = InitProducerIdRequest::default()
            .with_transactional_id(Some(transactional_id("tx")))
            .with_transaction_timeout_ms(timeout_ms);
        let response = client.call(5, &request).await;
        assert_eq!(error(response.error_code), expected, "{timeout_ms}");
    }
    let request = InitProducerIdRequest::default()
        .with_transactional_id(Some(transactional_id("")))
        .with_transaction_timeout_ms(1000);
    let response = client.call(5, &request).await;
    assert_eq!(
        error(response.error_code),
        Some(ResponseError::InvalidRequest)
    );
}

#[tokio::test]
async fn pending_offsets_are_unstable_where_stable_ones_are_asked_for() {
    let (_server, mut client, _) = server().await;
    let mut producer = Producer::init(&mut client, "tx").await;
    let of = ("g", "t");
    for (round, commit) in [(1, true), (2, false)] {
        let committed = producer
            .commit_offset(&mut client, 5, "g", ("t", round))
            .await;
        assert_eq!(committed, None);
        let unstable = Err(ResponseError::UnstableOffsetCommit);
        assert_eq!(committed_offset(&mut client, of, true).await, unstable);
        let before = if round == 1 { -1 } else { 1 };
        assert_eq!(committed_offset(&mut client, of, false).await, Ok(before));
        assert_eq!(producer.end(&mut client, END_V2, commit).await, None);
        let stable = async || committed_offset(&mut client, of, true).await;
        assert_eq!(until(stable, Result::is_ok).await, Ok(1));
    }
}

#[tokio::test]
async fn a_transaction_that_is_open_for_too_long_is_aborted_and_readers_go_on() {
    let server = TestServer::start_with(|config| {
        let transaction = &mut config.transaction;
        transaction.transaction_abort_timed_out_transaction_cleanup_interval_ms = 10;
    })
    .await;
    let mut client = Client::connect(&server).await;
    let topic = ("t", client.topic_id("t").await);
    let request = InitProducerIdRequest::default()
        .with_transactional_id(Some(transactional_id("tx")))
        .with_transaction_timeout_ms(100);
    let response = client.call(5, &request).await;
    let mut producer = Producer {
        transactional_id: "tx".to_owned(),
        id: response.producer_id.0,
        epoch: response.producer_epoch,
        sequence: 0,
    };
    assert_eq!(
        producer.write(&mut client, PRODUCE_V2, topic, "a").await,
        None
    );
    let committed = async || read(&mut client, topic, 0, true).await;
    let seen = until(committed, |seen| seen.last_stable_offset == 2).await;
    assert_eq!(seen.aborted, [(producer.id, 0)]);
    let refused = producer.write(&mut client, PRODUCE_V2, topic, "b").await;
    assert_eq!(refused, Some(ResponseError::InvalidProducerEpoch));
    // It may not be committed any more; who aborts it goes on.
    let refused = producer.end(&mut client, END_V2, true).await;
    assert_eq!(refused, Some(ResponseError::InvalidTxnState));
    assert_eq!(producer.end(&mut client, END_V2, false).await, None);
    assert_eq!(
        producer.write(&mut client, PRODUCE_V2, topic, "c").await,
        None
    );
    assert_eq!(producer.end(&mut client, END_V2, true).await, None);
}

#[tokio::test]
async fn an_administrator_ends_a_transaction_in_a_partition() {
    let (_server, mut client, topic) = server().await;
    let mut producer = Producer::init(&mut client, "tx").await;
    assert_eq!(
        producer.write(&mut client, PRODUCE_V2, topic, "a").await,
        None
    );
    let asked = TopicRequest::default()
        .with_name(topic_name("t"))
        .with_partition_indexes(vec![0]);
    let request = DescribeProducersRequest::default().with_topics(vec![asked]);
    let response = client.call(0, &request).await;
    let found = &response.topics[0].partitions[0].active_producers[0];
    assert_eq!(
        (found.producer_id.0, found.current_txn_start_offset),
        (producer.id, 0)
    );
    let marker = |epoch, index| {
        let topic = WritableTxnMarkerTopic::default()
            .with_name(topic_name("t"))
            .with_partition_indexes(vec![index]);
        let marker = WritableTxnMarker::default()
            .with_producer_id(ProducerId(producer.id))
            .with_producer_epoch(epoch)
            .with_transaction_result(false)
            .with_topics(vec![topic]);
        WriteTxnMarkersRequest::default().with_markers(vec![marker])
    };
    for (epoch, index, expected) in [
        (
            producer.epoch - 1,
            0,
            Some(ResponseError::InvalidProducerEpoch),
        ),
        (
            producer.epoch,
            7,
            Some(ResponseError::UnknownTopicOrPartition),
        ),
        (producer.epoch, 0, None),
    ] {
        let response = client.call(1, &marker(epoch, index)).await;
        let result = &response.markers[0].topics[0].partitions[0];
        assert_eq!(error(result.error_code), expected);
    }
    let seen = read(&mut client, topic, 0, true).await;
    assert_eq!(
        (seen.last_stable_offset, seen.aborted),
        (2, vec![(producer.id, 0)])
    );
}

#[tokio::test]
async fn topics_that_clients_may_not_write_are_no_part_of_transactions() {
    let (_server, mut client, _) = server().await;
    let producer = Producer::init(&mut client, "tx").await;
    let unknown = Some(ResponseError::UnknownTopicOrPartition);
    assert_eq!(producer.add(&mut client, "no-such-topic").await, unknown);
    let refused = producer.add(&mut client, "__transaction_state").await;
    assert_eq!(refused, Some(ResponseError::TopicAuthorizationFailed));
    let request =
        DescribeTransactionsRequest::default().with_transactional_ids(vec![transactional_id("tx")]);
    let response = client.call(0, &request).await;
    assert_eq!(&*response.transaction_states[0].transaction_state, "Empty");
}

#[tokio::test]
async fn a_transactional_id_that_nobody_uses_expires() {
    let server = TestServer::start_with(|config| {
        config.transaction.transactional_id_expiration_ms = 50;
        let transaction = &mut config.transaction;
        transaction.transaction_remove_expired_transaction_cleanup_interval_ms = 10;
    })
    .await;
    let mut client = Client::connect(&server).await;
    let producer = Producer::init(&mut client, "tx").await;
    let request =
        DescribeTransactionsRequest::default().with_transactional_ids(vec![transactional_id("tx")]);
    let describe = async || client.call(0, &request).await.transaction_states[0].error_code;
    let gone = Some(ResponseError::TransactionalIdNotFound);
    until(describe, |code| error(*code) == gone).await;
    let topic = client.topic_id("t").await;
    let mut producer = producer;
    let refused = producer
        .write(&mut client, PRODUCE_V2, ("t", topic), "a")
        .await;
    assert_eq!(refused, Some(ResponseError::InvalidProducerIdMapping));
    let again = Producer::init(&mut client, "tx").await;
    assert_ne!(again.id, producer.id);
}
