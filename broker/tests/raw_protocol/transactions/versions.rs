//! Every transaction API at every version.

use broker::api::{
    add_offsets_to_txn, add_partitions_to_txn, describe_transactions, end_txn, init_producer_id,
    list_transactions, produce, txn_offset_commit, write_txn_markers,
};
use kafka_protocol::messages::add_partitions_to_txn_request::{
    AddPartitionsToTxnTopic, AddPartitionsToTxnTransaction,
};
use kafka_protocol::messages::write_txn_markers_request::WritableTxnMarker;
use kafka_protocol::messages::{
    AddOffsetsToTxnRequest, AddPartitionsToTxnRequest, DescribeTransactionsRequest,
    InitProducerIdRequest, ListTransactionsRequest, ProducerId, WriteTxnMarkersRequest,
};
use kafka_protocol::protocol::StrBytes;

use super::error;
use super::producer::{END_V2, Producer, group_id, read, transactional_id};
use crate::{Client, TestServer, every, topic_name};

/// Which of an API's versions is asked for in a round.
fn version(round: i64, versions: &std::ops::RangeInclusive<i16>) -> i16 {
    (versions.start() + round as i16).min(*versions.end())
}

#[tokio::test]
async fn a_transaction_at_every_version() {
    let server = TestServer::start().await;
    let mut client = Client::connect(&server).await;
    let topic = ("t", client.topic_id("t").await);
    for (round, produce) in every(produce::VERSIONS) {
        let v = version(round, &init_producer_id::VERSIONS);
        let id = format!("tx-{round}");
        let request = InitProducerIdRequest::default()
            .with_transactional_id(Some(transactional_id(&id)))
            .with_transaction_timeout_ms(60_000);
        let response = client.call(v, &request).await;
        assert_eq!(error(response.error_code), None, "v{v}");
        let mut producer = Producer {
            transactional_id: id,
            id: response.producer_id.0,
            epoch: response.producer_epoch,
            sequence: 0,
        };
        add_partitions(&mut client, round, &producer).await;
        let value = round.to_string();
        let written = producer.write(&mut client, produce, topic, &value).await;
        assert_eq!(written, None, "v{produce}");

        let v = version(round, &add_offsets_to_txn::VERSIONS);
        let request = AddOffsetsToTxnRequest::default()
            .with_transactional_id(transactional_id(&producer.transactional_id))
            .with_producer_id(ProducerId(producer.id))
            .with_producer_epoch(producer.epoch)
            .with_group_id(group_id("g"));
        let response = client.call(v, &request).await;
        assert_eq!(error(response.error_code), None, "v{v}");
        let v = version(round, &txn_offset_commit::VERSIONS);
        let committed = producer.commit_offset(&mut client, v, "g", ("t", round));
        assert_eq!(committed.await, None, "v{v}");
        describe(&mut client, round, &producer).await;
        let before = producer.clone();
        let v = version(round, &end_txn::VERSIONS);
        assert_eq!(producer.end(&mut client, v, true).await, None, "v{v}");
        assert_eq!(producer.epoch > before.epoch, v >= END_V2, "v{v}");
    }
    let rounds = produce::VERSIONS.count() as i64;
    loop {
        let seen = read(&mut client, topic, 0, true).await;
        if seen.last_stable_offset == 2 * rounds {
            let expected: Vec<String> = (0..rounds).map(|round| round.to_string()).collect();
            assert_eq!((seen.values, seen.aborted), (expected, Vec::new()));
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    for (_, v) in every(write_txn_markers::VERSIONS) {
        let marker = WritableTxnMarker::default().with_producer_id(ProducerId(7));
        let request = WriteTxnMarkersRequest::default().with_markers(vec![marker]);
        let response = client.call(v, &request).await;
        assert_eq!(response.markers[0].producer_id, ProducerId(7));
    }
}

async fn add_partitions(client: &mut Client, round: i64, producer: &Producer) {
    let v = version(round, &add_partitions_to_txn::VERSIONS);
    let id = transactional_id(&producer.transactional_id);
    let topics = vec![
        AddPartitionsToTxnTopic::default()
            .with_name(topic_name("t"))
            .with_partitions(vec![0]),
    ];
    let request = AddPartitionsToTxnRequest::default();
    if v < 4 {
        let request = request
            .with_v3_and_below_transactional_id(id)
            .with_v3_and_below_producer_id(ProducerId(producer.id))
            .with_v3_and_below_producer_epoch(producer.epoch)
            .with_v3_and_below_topics(topics);
        let response = client.call(v, &request).await;
        let result = &response.results_by_topic_v3_and_below[0].results_by_partition[0];
        assert_eq!(error(result.partition_error_code), None, "v{v}");
        return;
    }
    // First only asked about, then added.
    for verify_only in [true, false, true] {
        let transaction = AddPartitionsToTxnTransaction::default()
            .with_transactional_id(id.clone())
            .with_producer_id(ProducerId(producer.id))
            .with_producer_epoch(producer.epoch)
            .with_verify_only(verify_only)
            .with_topics(topics.clone());
        let request = AddPartitionsToTxnRequest::default().with_transactions(vec![transaction]);
        let response = client.call(v, &request).await;
        let result = &response.results_by_transaction[0];
        assert_eq!(result.transactional_id, id);
        let result = &result.topic_results[0].results_by_partition[0];
        let is_there = error(result.partition_error_code).is_none();
        let described = state_of(client, producer).await;
        assert_eq!(is_there, described == "Ongoing", "v{v}");
    }
}

async fn state_of(client: &mut Client, producer: &Producer) -> String {
    let id = transactional_id(&producer.transactional_id);
    let request = DescribeTransactionsRequest::default().with_transactional_ids(vec![id]);
    let response = client
        .call(*describe_transactions::VERSIONS.end(), &request)
        .await;
    response.transaction_states[0].transaction_state.to_string()
}

async fn describe(client: &mut Client, round: i64, producer: &Producer) {
    let id = transactional_id(&producer.transactional_id);
    let request = DescribeTransactionsRequest::default()
        .with_transactional_ids(vec![id.clone(), transactional_id("nobody")]);
    let v = version(round, &describe_transactions::VERSIONS);
    let response = client.call(v, &request).await;
    let [found, unknown] = response.transaction_states.as_slice() else {
        panic!("two were asked for");
    };
    assert_eq!(found.transactional_id, id);
    assert_eq!(
        (found.producer_id.0, found.producer_epoch),
        (producer.id, producer.epoch)
    );
    assert_eq!(&*found.transaction_state, "Ongoing");
    assert_eq!(found.transaction_timeout_ms, 60_000);
    assert!(found.transaction_start_time_ms > 0);
    let topics: Vec<_> = found
        .topics
        .iter()
        .map(|topic| topic.topic.to_string())
        .collect();
    assert_eq!(topics, ["__consumer_offsets", "t"]);
    assert_eq!(unknown.error_code, 105, "TRANSACTIONAL_ID_NOT_FOUND");

    let v = version(round, &list_transactions::VERSIONS);
    let ongoing = StrBytes::from_static_str("Ongoing");
    let filters = vec![ongoing.clone(), StrBytes::from_static_str("Odd")];
    let mut request = ListTransactionsRequest::default()
        .with_state_filters(filters)
        .with_producer_id_filters(vec![ProducerId(producer.id), ProducerId(-7)]);
    if v >= 1 {
        request = request.with_duration_filter(-1);
    }
    if v >= 2 {
        let pattern = format!("tx-{}?{round}", round % 10);
        request = request.with_transactional_id_pattern(Some(StrBytes::from_string(pattern)));
    }
    let response = client.call(v, &request).await;
    assert_eq!(response.error_code, 0);
    let unknown: Vec<_> = response
        .unknown_state_filters
        .iter()
        .map(|it| it.as_str())
        .collect();
    assert_eq!(unknown, ["Odd"]);
    let listed: Vec<_> = response
        .transaction_states
        .iter()
        .map(|it| it.transactional_id.clone())
        .collect();
    assert_eq!(listed, [id]);
    if v >= 2 {
        let none = ListTransactionsRequest::default()
            .with_transactional_id_pattern(Some(StrBytes::from_static_str("tx-(")));
        assert_eq!(client.call(v, &none).await.error_code, 128);
        let none = ListTransactionsRequest::default()
            .with_transactional_id_pattern(Some(StrBytes::from_static_str("tx")));
        assert_eq!(client.call(v, &none).await.transaction_states, []);
    }
    if v >= 1 {
        let none = ListTransactionsRequest::default().with_duration_filter(3_600_000);
        assert_eq!(client.call(v, &none).await.transaction_states, []);
    }
}
