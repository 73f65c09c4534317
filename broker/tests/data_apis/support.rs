//! A broker without sockets, requests to its handlers, and batches good and bad.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsRawFd;
use std::sync::Arc;

use broker::Broker;
use broker::api::{fetch, produce};
use broker::catalog::{NewTopic, Topic, TopicKind};
use broker::config::Config;
use broker::router::{Principal, Reply, RequestContext};
use broker::server::{RunningServer, Server};
use bytes::Bytes;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::produce_response::PartitionProduceResponse;
use kafka_protocol::messages::{FetchRequest, ProduceRequest, ProduceResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use storage::batch::{BatchBuilder, Compression, layout};
use tempfile::TempDir;

/// Newest versions that name topics by name.
pub const PRODUCE_BY_NAME: i16 = 12;
pub const FETCH_BY_NAME: i16 = 12;

pub struct TestBroker {
    pub broker: Arc<Broker>,
    pub server: RunningServer,
    folder: TempDir,
}

impl TestBroker {
    pub async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        config.broker.listen = "127.0.0.1:0".to_owned();
        config.broker.data_dir = folder.path().to_owned();
        config.http.listen = String::new();
        change(&mut config);
        let server = Server::start(config).await.unwrap();
        Self {
            broker: Arc::clone(server.broker()),
            server,
            folder,
        }
    }

    pub fn context(&self, api_version: i16) -> RequestContext {
        RequestContext {
            broker: Arc::clone(&self.broker),
            api_version,
            correlation_id: 1,
            client_id: None,
            client_host: IpAddr::V4(Ipv4Addr::LOCALHOST),
            principal: Principal::Anonymous,
        }
    }

    pub async fn create(&self, name: &str, partitions: i32) -> Arc<Topic> {
        self.create_with(name, partitions, &[], TopicKind::Ordinary)
            .await
    }

    pub async fn create_with(
        &self,
        name: &str,
        partitions: i32,
        configs: &[(&str, &str)],
        kind: TopicKind,
    ) -> Arc<Topic> {
        let configs = configs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect::<BTreeMap<_, _>>();
        let new = NewTopic {
            name: name.to_owned(),
            partitions,
            configs,
            kind,
        };
        self.broker.catalog.create_topic(new).await.unwrap()
    }

    /// Asks the system to drop a partition's first segment from the page cache.
    pub fn evict(&self, topic: &str, partition: i32) {
        let folder = self.folder.path().join(format!("{topic}-{partition}"));
        let file = File::open(folder.join("00000000000000000000.log")).unwrap();
        // SAFETY: the descriptor is open until the end of this function.
        let advised =
            unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
        assert_eq!(advised, 0);
    }

    /// Produces with acks=all, at the newest version that names topics.
    pub async fn produce(&self, topic: &str, records: Bytes) -> PartitionProduceResponse {
        let request = produce_request(topic, 0, Some(records));
        let reply = produce::handle(&self.context(PRODUCE_BY_NAME), request).await;
        only_produced(answer(reply).await)
    }

    /// Fetches at the newest version that names topics, without waiting.
    pub async fn fetch(&self, topic: &str, offset: i64) -> PartitionData {
        let request = fetch_request(&[(topic, 0, offset)]);
        let reply = fetch::handle(&self.context(FETCH_BY_NAME), request).await;
        let mut response = answer(reply).await;
        assert_eq!(response.error_code, 0);
        response.responses.remove(0).partitions.remove(0)
    }
}

pub fn topic_name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}

pub fn produce_request(topic: &str, partition: i32, records: Option<Bytes>) -> ProduceRequest {
    ProduceRequest::default()
        .with_transactional_id(None)
        .with_acks(-1)
        .with_timeout_ms(30_000)
        .with_topic_data(vec![
            TopicProduceData::default()
                .with_name(topic_name(topic))
                .with_partition_data(vec![
                    PartitionProduceData::default()
                        .with_index(partition)
                        .with_records(records),
                ]),
        ])
}

pub fn only_produced(mut response: ProduceResponse) -> PartitionProduceResponse {
    assert_eq!(response.responses.len(), 1);
    let mut topic = response.responses.remove(0);
    assert_eq!(topic.partition_responses.len(), 1);
    topic.partition_responses.remove(0)
}

/// Each of (topic, partition, offset), without waiting, with room for everything.
pub fn fetch_request(partitions: &[(&str, i32, i64)]) -> FetchRequest {
    let topics = partitions.iter().map(|(topic, partition, offset)| {
        FetchTopic::default()
            .with_topic(topic_name(topic))
            .with_partitions(vec![
                FetchPartition::default()
                    .with_partition(*partition)
                    .with_fetch_offset(*offset)
                    .with_partition_max_bytes(1 << 20),
            ])
    });
    FetchRequest::default()
        .with_max_wait_ms(0)
        .with_min_bytes(1)
        .with_max_bytes(50 << 20)
        .with_topics(topics.collect())
}

/// The response, waiting for it where it comes later.
pub async fn answer<R>(reply: Reply<R>) -> R {
    match reply {
        Reply::Now(response) => response,
        Reply::Later(response) => response.await,
        Reply::None => panic!("there is no response"),
        Reply::Close(reason) => panic!("closed: {reason}"),
    }
}

/// Timestamp of the record with this index in a batch of [`batch`].
pub fn timestamp(index: usize) -> i64 {
    1_700_000_000_000 + index as i64
}

/// One batch, one record per value.
pub fn batch(values: &[&str]) -> Bytes {
    filled(BatchBuilder::new(Compression::None), values)
}

pub fn filled(mut builder: BatchBuilder, values: &[&str]) -> Bytes {
    for (index, value) in values.iter().enumerate() {
        builder.push(timestamp(index), None, Some(value.as_bytes()), &[]);
    }
    builder.build()
}

/// One batch of an idempotent producer.
pub fn idempotent(producer: (i64, i16), sequence: i32, values: &[&str]) -> Bytes {
    let builder = BatchBuilder::new(Compression::None).producer(producer.0, producer.1, sequence);
    filled(builder, values)
}

/// The batch with some bytes replaced and its CRC made right again.
pub fn altered(batch: &Bytes, position: usize, bytes: &[u8]) -> Bytes {
    let mut altered = batch.to_vec();
    altered[position..position + bytes.len()].copy_from_slice(bytes);
    let crc = crc32c::crc32c(&altered[layout::CRC_COVERS_FROM..]);
    altered[layout::CRC..layout::CRC + 4].copy_from_slice(&crc.to_be_bytes());
    altered.into()
}

/// The values in a fetched partition, in order, from whole batches only.
pub fn values(partition: &PartitionData) -> Vec<String> {
    assert_eq!(partition.error_code, 0);
    let bytes = partition.records.clone().unwrap_or_default();
    let mut values = Vec::new();
    let mut position = 0;
    for batch in storage::batch::batches(&bytes) {
        let size = batch.unwrap().size_in_bytes();
        let records =
            storage::batch::records::decode(&bytes.slice(position..position + size), usize::MAX);
        values.extend(
            records.unwrap().into_iter().map(|record| {
                String::from_utf8(record.value.unwrap_or_default().to_vec()).unwrap()
            }),
        );
        position += size;
    }
    values
}
