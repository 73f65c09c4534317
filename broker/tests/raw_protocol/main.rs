//! Every API over TCP, frame by frame, at every version that is served: Produce, Fetch, ListOffsets and
//! InitProducerId here, and at one version each in bytes written by hand, so that a codec that is
//! wrong on both sides does not go unnoticed; the others in [`log_apis`] and [`other_apis`].

mod compression;
mod fetch_sessions;
mod group_apis;
mod log_apis;
mod other_apis;
mod rules;
mod transactions;

use std::ops::RangeInclusive;

use broker::api::{fetch, init_producer_id, list_offsets, produce};
use broker::config::Config;
use broker::server::{RunningServer, Server};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    ApiKey, FetchRequest, InitProducerIdRequest, ListOffsetsRequest, MetadataRequest,
    ProduceRequest, RequestHeader, ResponseHeader, TopicName,
};
use kafka_protocol::protocol::{Decodable, Encodable, Request, StrBytes};
use storage::batch::{BatchBuilder, Compression};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use uuid::Uuid;

const TIMESTAMP: i64 = 1_700_000_000_000;

struct TestServer {
    server: RunningServer,
    _folder: TempDir,
}

impl TestServer {
    async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        config.broker.listen = "127.0.0.1:0".to_owned();
        config.broker.data_dir = folder.path().to_owned();
        config.http.listen = String::new();
        config.group.group_initial_rebalance_delay_ms = 0;
        change(&mut config);
        Self {
            server: Server::start(config).await.unwrap(),
            _folder: folder,
        }
    }
}

struct Client {
    stream: TcpStream,
    correlation_id: i32,
}

impl Client {
    async fn connect(server: &TestServer) -> Self {
        Self {
            stream: TcpStream::connect(server.server.local_addr())
                .await
                .unwrap(),
            correlation_id: 0,
        }
    }

    /// Sends a request and decodes its response, all of it.
    async fn call<R: Request>(&mut self, version: i16, request: &R) -> R::Response {
        self.correlation_id += 1;
        let key = ApiKey::try_from(R::KEY).unwrap();
        let mut frame = BytesMut::new();
        RequestHeader::default()
            .with_request_api_key(R::KEY)
            .with_request_api_version(version)
            .with_correlation_id(self.correlation_id)
            .with_client_id(Some(StrBytes::from_static_str("raw")))
            .encode(&mut frame, key.request_header_version(version))
            .unwrap();
        request.encode(&mut frame, version).unwrap();
        let mut response = self.exchange(&frame).await;
        let header = ResponseHeader::decode(&mut response, key.response_header_version(version));
        assert_eq!(header.unwrap().correlation_id, self.correlation_id);
        let decoded = R::Response::decode(&mut response, version).unwrap();
        assert!(
            !response.has_remaining(),
            "{key:?} v{version} has bytes left"
        );
        decoded
    }

    /// Sends one frame and returns the next.
    async fn exchange(&mut self, frame: &[u8]) -> Bytes {
        let mut sized = Vec::with_capacity(4 + frame.len());
        sized.put_i32(frame.len() as i32);
        sized.put_slice(frame);
        self.stream.write_all(&sized).await.unwrap();
        let size = self.stream.read_i32().await.unwrap();
        let mut response = vec![0; size as usize];
        self.stream.read_exact(&mut response).await.unwrap();
        response.into()
    }

    /// The id of a topic, which Metadata creates where there is none.
    async fn topic_id(&mut self, name: &str) -> Uuid {
        use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
        let topic = MetadataRequestTopic::default().with_name(Some(topic_name(name)));
        let request = MetadataRequest::default()
            .with_topics(Some(vec![topic]))
            .with_allow_auto_topic_creation(true);
        let response = self.call(12, &request).await;
        assert_eq!(response.topics[0].error_code, 0);
        response.topics[0].topic_id
    }
}

fn topic_name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}

fn batch(value: &str) -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None);
    builder.push(TIMESTAMP, Some(b"key"), Some(value.as_bytes()), &[]);
    builder.build()
}

fn every(versions: RangeInclusive<i16>) -> impl Iterator<Item = (i64, i16)> {
    (0..).zip(versions)
}

fn produce_request(name: &str, id: Uuid, version: i16, records: Bytes) -> ProduceRequest {
    let data = PartitionProduceData::default().with_records(Some(records));
    let topic = TopicProduceData::default().with_partition_data(vec![data]);
    let topic = if version >= 13 {
        topic.with_topic_id(id)
    } else {
        topic.with_name(topic_name(name))
    };
    ProduceRequest::default()
        .with_transactional_id(None)
        .with_acks(-1)
        .with_timeout_ms(30_000)
        .with_topic_data(vec![topic])
}

fn fetch_request(name: &str, id: Uuid, version: i16, offset: i64) -> FetchRequest {
    let partition = FetchPartition::default()
        .with_fetch_offset(offset)
        .with_partition_max_bytes(1 << 20);
    let topic = FetchTopic::default().with_partitions(vec![partition]);
    let topic = if version >= 13 {
        topic.with_topic_id(id)
    } else {
        topic.with_topic(topic_name(name))
    };
    FetchRequest::default()
        .with_max_wait_ms(0)
        .with_max_bytes(1 << 20)
        .with_topics(vec![topic])
}

#[tokio::test]
async fn produce_and_fetch_at_every_version() {
    let server = TestServer::start().await;
    let mut client = Client::connect(&server).await;
    let id = client.topic_id("t").await;
    for (offset, version) in every(produce::VERSIONS) {
        let request = produce_request("t", id, version, batch(&format!("v{version}")));
        let response = client.call(version, &request).await;
        let topic = &response.responses[0];
        if version >= 13 {
            assert_eq!(topic.topic_id, id);
        } else {
            assert_eq!(topic.name, topic_name("t"));
        }
        let partition = &topic.partition_responses[0];
        assert_eq!(
            (partition.error_code, partition.base_offset),
            (0, offset),
            "v{version}"
        );
    }
    let produced = produce::VERSIONS.count() as i64;
    for (_, version) in every(fetch::VERSIONS) {
        for (offset, produce_version) in every(produce::VERSIONS) {
            let mut request = fetch_request("t", id, version, offset);
            request.topics[0].partitions[0].partition_max_bytes = 1;
            let response = client.call(version, &request).await;
            let partition = &response.responses[0].partitions[0];
            assert_eq!(
                (partition.error_code, partition.high_watermark),
                (0, produced)
            );
            let records = partition.records.as_ref().unwrap();
            let records = storage::batch::records::decode(records, 1 << 20).unwrap();
            assert_eq!(records.len(), 1);
            assert_eq!(records[0].offset, offset);
            let value = format!("v{produce_version}");
            assert_eq!(
                records[0].value.as_deref(),
                Some(value.as_bytes()),
                "v{version}"
            );
        }
    }
}

#[tokio::test]
async fn refusals_at_every_version() {
    let server = TestServer::start().await;
    let mut client = Client::connect(&server).await;
    let id = client.topic_id("t").await;
    for (_, version) in every(produce::VERSIONS) {
        let mut damaged = batch("x").to_vec();
        *damaged.last_mut().unwrap() ^= 1;
        let request = produce_request("t", id, version, damaged.into());
        let response = client.call(version, &request).await;
        let partition = &response.responses[0].partition_responses[0];
        assert_eq!(
            (partition.error_code, partition.base_offset),
            (2, -1),
            "v{version}"
        );
        assert_eq!(
            partition.error_message.is_some(),
            version >= 8,
            "v{version}"
        );
    }
    for (_, version) in every(fetch::VERSIONS) {
        if version >= 9 {
            let mut request = fetch_request("t", id, version, 0);
            request.topics[0].partitions[0].current_leader_epoch = -2;
            let response = client.call(version, &request).await;
            let partition = &response.responses[0].partitions[0];
            assert_eq!(partition.error_code, 74, "v{version}");
            let told = (
                partition.current_leader.leader_id.0,
                response.node_endpoints.len(),
            );
            let expected = if version >= 16 { (0, 1) } else { (-1, 0) };
            assert_eq!(told, expected, "v{version}");
        }
        let mut request = fetch_request("t", id, version, 0);
        request.topics[0].partitions[0].partition = 7;
        let mut unknown = fetch_request("u", Uuid::from_u128(7), version, 0).topics;
        request.topics.append(&mut unknown);
        let response = client.call(version, &request).await;
        let code = |topic: usize| response.responses[topic].partitions[0].error_code;
        assert_eq!(code(0), 3, "v{version}");
        assert_eq!(code(1), if version >= 13 { 100 } else { 3 }, "v{version}");
    }
}

#[tokio::test]
async fn list_offsets_at_every_version() {
    let server = TestServer::start().await;
    let mut client = Client::connect(&server).await;
    let id = client.topic_id("t").await;
    for value in ["a", "b"] {
        client
            .call(9, &produce_request("t", id, 9, batch(value)))
            .await;
    }
    for (_, version) in every(list_offsets::VERSIONS) {
        for (timestamp, since, offset) in [
            (-1, 1, 2),
            (-2, 1, 0),
            (-3, 7, 0),
            (-4, 8, 0),
            (-5, 9, -1),
            (TIMESTAMP, 1, 0),
            (TIMESTAMP + 1, 1, -1),
        ] {
            let partition = ListOffsetsPartition::default().with_timestamp(timestamp);
            let topic = ListOffsetsTopic::default()
                .with_name(topic_name("t"))
                .with_partitions(vec![partition]);
            let request = ListOffsetsRequest::default().with_topics(vec![topic]);
            let response = client.call(version, &request).await;
            let partition = &response.topics[0].partitions[0];
            let expected = if version >= since {
                (0, offset)
            } else {
                (35, -1)
            };
            let found = (partition.error_code, partition.offset);
            assert_eq!(found, expected, "{timestamp} at v{version}");
        }
    }
}

#[tokio::test]
async fn init_producer_id_at_every_version() {
    let server = TestServer::start().await;
    let mut client = Client::connect(&server).await;
    let mut last = -1;
    for (_, version) in every(init_producer_id::VERSIONS) {
        let request = InitProducerIdRequest::default().with_transactional_id(None);
        let response = client.call(version, &request).await;
        assert_eq!((response.error_code, response.producer_epoch), (0, 0));
        assert!(response.producer_id.0 > last);
        last = response.producer_id.0;
    }
}

/// A frame with header v1: API, version, correlation id 7, client id "c".
fn header(api_key: i16, version: i16) -> Vec<u8> {
    let mut frame = Vec::new();
    frame.put_i16(api_key);
    frame.put_i16(version);
    frame.put_i32(7);
    put_string(&mut frame, "c");
    frame
}

fn put_string(frame: &mut Vec<u8>, string: &str) {
    frame.put_i16(string.len() as i16);
    frame.put_slice(string.as_bytes());
}

/// An array of one.
fn put_one(frame: &mut Vec<u8>) {
    frame.put_i32(1);
}

#[tokio::test]
async fn bytes_written_by_hand() {
    let server = TestServer::start().await;
    let mut client = Client::connect(&server).await;
    client.topic_id("t").await;
    let records = batch("x");

    let mut frame = header(0, 3);
    frame.put_i16(-1); // transactional_id: null
    frame.put_i16(-1); // acks
    frame.put_i32(30_000); // timeout_ms
    put_one(&mut frame);
    put_string(&mut frame, "t");
    put_one(&mut frame);
    frame.put_i32(0); // partition
    frame.put_i32(records.len() as i32);
    frame.put_slice(&records);
    let mut expected = Vec::new();
    expected.put_i32(7);
    put_one(&mut expected);
    put_string(&mut expected, "t");
    put_one(&mut expected);
    expected.put_i32(0); // partition
    expected.put_i16(0); // error_code
    expected.put_i64(0); // base_offset
    expected.put_i64(-1); // log_append_time_ms
    expected.put_i32(0); // throttle_time_ms
    assert_eq!(client.exchange(&frame).await, expected);

    let mut frame = header(2, 1);
    frame.put_i32(-1); // replica_id
    put_one(&mut frame);
    put_string(&mut frame, "t");
    put_one(&mut frame);
    frame.put_i32(0); // partition
    frame.put_i64(-1); // timestamp: latest
    let mut expected = Vec::new();
    expected.put_i32(7);
    put_one(&mut expected);
    put_string(&mut expected, "t");
    put_one(&mut expected);
    expected.put_i32(0); // partition
    expected.put_i16(0); // error_code
    expected.put_i64(-1); // timestamp
    expected.put_i64(1); // offset
    assert_eq!(client.exchange(&frame).await, expected);

    let mut frame = header(1, 4);
    frame.put_i32(-1); // replica_id
    frame.put_i32(0); // max_wait_ms
    frame.put_i32(1); // min_bytes
    frame.put_i32(1 << 20); // max_bytes
    frame.put_i8(1); // isolation_level: read_committed
    put_one(&mut frame);
    put_string(&mut frame, "t");
    put_one(&mut frame);
    frame.put_i32(0); // partition
    frame.put_i64(0); // fetch_offset
    frame.put_i32(1 << 20); // partition_max_bytes
    let mut expected = Vec::new();
    expected.put_i32(7);
    expected.put_i32(0); // throttle_time_ms
    put_one(&mut expected);
    put_string(&mut expected, "t");
    put_one(&mut expected);
    expected.put_i32(0); // partition
    expected.put_i16(0); // error_code
    expected.put_i64(1); // high_watermark
    expected.put_i64(1); // last_stable_offset
    expected.put_i32(0); // aborted_transactions: none
    expected.put_i32(records.len() as i32);
    let start = expected.len();
    expected.put_slice(&records);
    // The broker stamps its leader epoch, which the CRC does not cover.
    let mut answer = client.exchange(&frame).await.to_vec();
    let epoch = start + storage::batch::layout::PARTITION_LEADER_EPOCH;
    answer[epoch..epoch + 4].copy_from_slice(&(-1_i32).to_be_bytes());
    assert_eq!(answer, expected);

    let mut frame = header(22, 0);
    frame.put_i16(-1); // transactional_id: null
    frame.put_i32(60_000); // transaction_timeout_ms
    let answer = client.exchange(&frame).await;
    let mut expected = Vec::new();
    expected.put_i32(7);
    expected.put_i32(0); // throttle_time_ms
    expected.put_i16(0); // error_code
    assert_eq!(answer[..10], expected);
    assert_eq!(answer[18..], 0_i16.to_be_bytes(), "the epoch");
    assert_eq!(answer.len(), 20);
}
