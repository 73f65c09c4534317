//! Records through the whole way: pipelined, in order, byte for byte.

use bytes::Bytes;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    ApiVersionsRequest, FetchRequest, FetchResponse, MetadataRequest, ProduceRequest, TopicName,
};
use kafka_protocol::protocol::StrBytes;
use storage::batch::{BatchBuilder, Compression, batches};

use crate::client::{Client, Served};

fn topic() -> TopicName {
    TopicName(StrBytes::from_static_str("t"))
}

fn create(client: &mut Client) {
    let named = MetadataRequestTopic::default().with_name(Some(topic()));
    let request = MetadataRequest::default().with_topics(Some(vec![named]));
    assert_eq!(client.call(9, &request).topics[0].error_code, 0);
}

/// A batch of one record of `size` bytes.
fn batch(number: usize, size: usize) -> Bytes {
    let mut batch = BatchBuilder::new(Compression::None);
    let value = vec![number as u8; size];
    batch.push(1_700_000_000_000, None, Some(&value), &[]);
    batch.build()
}

fn produce(acks: i16, records: Bytes) -> ProduceRequest {
    let partition = PartitionProduceData::default()
        .with_index(0)
        .with_records(Some(records));
    ProduceRequest::default()
        .with_acks(acks)
        .with_timeout_ms(10_000)
        .with_topic_data(vec![
            TopicProduceData::default()
                .with_name(topic())
                .with_partition_data(vec![partition]),
        ])
}

fn fetch(offset: i64, max_bytes: i32) -> FetchRequest {
    let partition = FetchPartition::default()
        .with_partition(0)
        .with_fetch_offset(offset)
        .with_partition_max_bytes(max_bytes);
    FetchRequest::default()
        .with_max_wait_ms(0)
        .with_max_bytes(max_bytes)
        .with_topics(vec![
            FetchTopic::default()
                .with_topic(topic())
                .with_partitions(vec![partition]),
        ])
}

fn records(response: &FetchResponse) -> Bytes {
    let partition = &response.responses[0].partitions[0];
    assert_eq!(partition.error_code, 0);
    partition.records.clone().unwrap_or_default()
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let served = Served::start();
    let mut client = served.connect();
    create(&mut client);
    // Slow answers (acks=all waits for the disk), fast ones and none at all, all at once.
    let mut sent = Vec::new();
    for number in 0..60 {
        let acks = [-1, 1, 0][number % 3];
        sent.push((acks, client.send(9, &produce(acks, batch(number, 100)))));
        sent.push((9, client.send(0, &ApiVersionsRequest::default())));
    }
    let mut offset = 0;
    for (acks, correlation_id) in sent {
        match acks {
            9 => assert_eq!(
                client
                    .receive_for::<ApiVersionsRequest>(0, correlation_id)
                    .error_code,
                0
            ),
            0 => offset += 1,
            _ => {
                let response = client.receive_for::<ProduceRequest>(9, correlation_id);
                let partition = &response.responses[0].partition_responses[0];
                assert_eq!((partition.error_code, partition.base_offset), (0, offset));
                offset += 1;
            }
        }
    }
    served.stop();
}

#[test]
fn fetched_records_are_the_produced_bytes_over_a_restart() {
    let mut served = Served::start();
    let mut client = served.connect();
    create(&mut client);
    // On both sides of the size from which record bytes are written from the log as they are.
    let sizes = [10, 3000, 4000, 5000, 100_000, 900_000];
    let mut expected = Vec::new();
    for (number, size) in sizes.into_iter().enumerate() {
        let records = batch(number, size);
        let response = client.call(9, &produce(-1, records.clone()));
        assert_eq!(response.responses[0].partition_responses[0].error_code, 0);
        expected.push(records);
    }
    for clean in [false, true] {
        if clean {
            let folder = served.stop();
            let config = crate::client::config(&folder);
            served = Served::start_in(folder, config);
            client = served.connect();
        }
        let all = records(&client.call(11, &fetch(0, 50_000_000)));
        let stored: Vec<_> = batches(&all).map(|batch| batch.expect("a batch")).collect();
        assert_eq!(stored.len(), expected.len());
        for (number, (stored, sent)) in stored.iter().zip(&expected).enumerate() {
            // Nothing but the base offset and the leader epoch, which the CRC does not cover.
            assert_eq!(stored.base_offset(), number as i64);
            assert_eq!(stored.bytes()[..8], (number as i64).to_be_bytes());
            assert_eq!(stored.bytes()[8..12], sent[8..12], "the length");
            assert_eq!(stored.bytes()[16..], sent[16..]);
        }
        // Several at once, each of them whole.
        let ids: Vec<i32> = (0..expected.len())
            .map(|offset| client.send(11, &fetch(offset as i64, 1)))
            .collect();
        for (number, id) in ids.into_iter().enumerate() {
            let one = records(&client.receive_for::<FetchRequest>(11, id));
            assert_eq!(one, stored[number].bytes(), "at least one whole batch");
        }
    }
    served.stop();
}
