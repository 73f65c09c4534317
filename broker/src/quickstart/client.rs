//! The quickstart's own small Kafka client: one TCP connection, requests answered in order.
//!
//! It knows four APIs at fixed versions and checks with ApiVersions that the broker serves them. It
//! has no retries, no leader discovery and no idempotence: the broker is on this machine, and any
//! error ends the quickstart.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::api_versions_request::ApiVersionsRequest;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchRequest, FetchTopic};
use kafka_protocol::messages::list_offsets_request::{
    ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic,
};
use kafka_protocol::messages::metadata_request::{MetadataRequest, MetadataRequestTopic};
use kafka_protocol::messages::produce_request::{
    PartitionProduceData, ProduceRequest, TopicProduceData,
};
use kafka_protocol::messages::{ProduceResponse, RequestHeader, ResponseHeader, TopicName};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};
use kafka_protocol::records::{Record, RecordBatchDecoder};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

/// What ListOffsets calls the end of a partition.
pub const LATEST: i64 = -1;

/// Largest response that is taken.
const MAX_RESPONSE_BYTES: usize = 64 << 20;
/// Longer than the broker ever takes over one request.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(40);
const PRODUCE_TIMEOUT_MS: i32 = 30_000;

const API_VERSIONS: i16 = 3;
const METADATA: i16 = 9;
const LIST_OFFSETS: i16 = 6;
const FETCH: i16 = 11;
const PRODUCE: i16 = 9;

/// Why a request got no good answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The socket failed or the broker closed it.
    #[error("connection to {address}: {source}")]
    Io {
        /// The broker.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// No answer in time.
    #[error("no response to {api} within {} s", RESPONSE_TIMEOUT.as_secs())]
    Timeout {
        /// The request.
        api: &'static str,
    },
    /// An answer that is not one.
    #[error("unreadable response to {api}: {reason}")]
    Malformed {
        /// The request.
        api: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// An error code.
    #[error("{api} of {subject}: {code}")]
    Refused {
        /// The request.
        api: &'static str,
        /// The topic or partition.
        subject: String,
        /// Kafka's word for it.
        code: String,
    },
    /// The broker does not speak this client's version of a request.
    #[error("the broker does not serve {api} version {version}")]
    Version {
        /// The request.
        api: &'static str,
        /// The version wanted.
        version: i16,
    },
}

/// One end of a partition's records in a Fetch response.
#[derive(Debug)]
pub struct Fetched {
    /// The partition.
    pub partition: i32,
    /// From the offset asked for on.
    pub records: Vec<Record>,
}

/// A connection with at most one unanswered request per caller; [`Connection::split`] makes it a
/// pipeline.
#[derive(Debug)]
pub struct Connection {
    address: SocketAddr,
    client_id: &'static str,
    reader: OwnedReadHalf,
    writer: OwnedWriteHalf,
    correlation_id: i32,
    buffer: BytesMut,
}

impl Connection {
    /// Connects and checks the versions.
    pub async fn open(
        address: SocketAddr,
        client_id: &'static str,
    ) -> Result<Connection, ClientError> {
        let io = |source| ClientError::Io { address, source };
        let stream = TcpStream::connect(address).await.map_err(io)?;
        stream.set_nodelay(true).map_err(io)?;
        let (reader, writer) = stream.into_split();
        let mut connection = Connection {
            address,
            client_id,
            reader,
            writer,
            correlation_id: 0,
            buffer: BytesMut::new(),
        };
        connection.check_versions().await?;
        Ok(connection)
    }

    async fn check_versions(&mut self) -> Result<(), ClientError> {
        let request = ApiVersionsRequest::default()
            .with_client_software_name(StrBytes::from_static_str("milena-quickstart"))
            .with_client_software_version(StrBytes::from_static_str(env!("CARGO_PKG_VERSION")));
        let response = self.call("ApiVersions", API_VERSIONS, &request).await?;
        refuse("ApiVersions", self.client_id, response.error_code)?;
        for (api, key, version) in [
            ("Produce", ProduceRequest::KEY, PRODUCE),
            ("Fetch", FetchRequest::KEY, FETCH),
            ("ListOffsets", ListOffsetsRequest::KEY, LIST_OFFSETS),
            ("Metadata", MetadataRequest::KEY, METADATA),
        ] {
            let served = response.api_keys.iter().any(|served| {
                served.api_key == key
                    && (served.min_version..=served.max_version).contains(&version)
            });
            if !served {
                return Err(ClientError::Version { api, version });
            }
        }
        Ok(())
    }

    /// How many partitions a topic has.
    pub async fn partitions(&mut self, topic: &str) -> Result<i32, ClientError> {
        let request = MetadataRequest::default()
            .with_topics(Some(vec![
                MetadataRequestTopic::default().with_name(Some(topic_name(topic))),
            ]))
            .with_allow_auto_topic_creation(false);
        let response = self.call("Metadata", METADATA, &request).await?;
        let Some(answer) = response.topics.first() else {
            return Err(malformed("Metadata", "it names no topic"));
        };
        refuse("Metadata", topic, answer.error_code)?;
        Ok(answer.partitions.len() as i32)
    }

    /// The end offset of each partition, as a consumer sees it.
    pub async fn end_offsets(
        &mut self,
        topic: &str,
        partitions: i32,
    ) -> Result<Vec<i64>, ClientError> {
        let asked = (0..partitions)
            .map(|index| {
                ListOffsetsPartition::default()
                    .with_partition_index(index)
                    .with_timestamp(LATEST)
            })
            .collect();
        let request = ListOffsetsRequest::default()
            .with_replica_id((-1).into())
            .with_topics(vec![
                ListOffsetsTopic::default()
                    .with_name(topic_name(topic))
                    .with_partitions(asked),
            ]);
        let response = self.call("ListOffsets", LIST_OFFSETS, &request).await?;
        let mut ends = vec![None; partitions.max(0) as usize];
        for answer in response.topics.iter().flat_map(|topic| &topic.partitions) {
            let subject = format!("{topic}/{}", answer.partition_index);
            refuse("ListOffsets", &subject, answer.error_code)?;
            let slot = usize::try_from(answer.partition_index)
                .ok()
                .and_then(|index| ends.get_mut(index));
            if let Some(slot) = slot {
                *slot = Some(answer.offset);
            }
        }
        ends.into_iter()
            .collect::<Option<Vec<i64>>>()
            .ok_or_else(|| malformed("ListOffsets", "a partition is missing"))
    }

    /// Waits up to `max_wait` for records at or after the offsets, one for each partition.
    pub async fn fetch(
        &mut self,
        topic: &str,
        offsets: &[i64],
        max_wait: Duration,
    ) -> Result<Vec<Fetched>, ClientError> {
        let partitions = (0..)
            .zip(offsets)
            .map(|(index, &offset)| {
                FetchPartition::default()
                    .with_partition(index)
                    .with_fetch_offset(offset)
                    .with_partition_max_bytes(4 << 20)
            })
            .collect();
        let request = FetchRequest::default()
            .with_replica_id((-1).into())
            .with_max_wait_ms(max_wait.as_millis() as i32)
            .with_min_bytes(1)
            .with_max_bytes(16 << 20)
            .with_session_epoch(-1)
            .with_topics(vec![
                FetchTopic::default()
                    .with_topic(topic_name(topic))
                    .with_partitions(partitions),
            ]);
        let response = self.call("Fetch", FETCH, &request).await?;
        refuse("Fetch", topic, response.error_code)?;
        let mut fetched = Vec::new();
        for answer in response.responses.into_iter().flat_map(|t| t.partitions) {
            let partition = answer.partition_index;
            refuse("Fetch", &format!("{topic}/{partition}"), answer.error_code)?;
            let Some(mut bytes) = answer.records else {
                continue;
            };
            let wanted = usize::try_from(partition)
                .ok()
                .and_then(|index| offsets.get(index).copied())
                .ok_or_else(|| malformed("Fetch", format!("partition {partition}")))?;
            let sets = RecordBatchDecoder::decode_all(&mut bytes)
                .map_err(|error| malformed("Fetch", error))?;
            // A batch may begin before the offset asked for.
            let records: Vec<Record> = sets
                .into_iter()
                .flat_map(|set| set.records)
                .filter(|record| record.offset >= wanted && !record.control)
                .collect();
            if !records.is_empty() {
                fetched.push(Fetched { partition, records });
            }
        }
        Ok(fetched)
    }

    /// Sends one request and waits for its answer.
    async fn call<R>(
        &mut self,
        api: &'static str,
        version: i16,
        request: &R,
    ) -> Result<R::Response, ClientError>
    where
        R: Request,
    {
        self.correlation_id = self.correlation_id.wrapping_add(1);
        let frame = encode(api, version, self.correlation_id, self.client_id, request)?;
        let address = self.address;
        self.writer
            .write_all(&frame)
            .await
            .map_err(|source| ClientError::Io { address, source })?;
        let body = read_frame(address, &mut self.reader, &mut self.buffer, api).await?;
        decode(api, version, self.correlation_id, body)
    }

    /// A pipeline of Produce requests to one topic: several may be on their way, and they are
    /// answered in order.
    pub fn split(self, topic: &str) -> (ProduceSender, ProduceReceiver) {
        let sender = ProduceSender {
            address: self.address,
            client_id: self.client_id,
            writer: self.writer,
            correlation_id: self.correlation_id,
            topic: topic_name(topic),
        };
        let receiver = ProduceReceiver {
            address: self.address,
            reader: self.reader,
            buffer: self.buffer,
            correlation_id: self.correlation_id,
        };
        (sender, receiver)
    }
}

/// The writing half of a produce pipeline.
#[derive(Debug)]
pub struct ProduceSender {
    address: SocketAddr,
    client_id: &'static str,
    writer: OwnedWriteHalf,
    correlation_id: i32,
    topic: TopicName,
}

impl ProduceSender {
    /// Sends one encoded batch per partition, with acks=all.
    pub async fn send(&mut self, batches: Vec<(i32, Bytes)>) -> Result<(), ClientError> {
        let partitions = batches
            .into_iter()
            .map(|(index, records)| {
                PartitionProduceData::default()
                    .with_index(index)
                    .with_records(Some(records))
            })
            .collect();
        let request = ProduceRequest::default()
            .with_acks(-1)
            .with_timeout_ms(PRODUCE_TIMEOUT_MS)
            .with_topic_data(vec![
                TopicProduceData::default()
                    .with_name(self.topic.clone())
                    .with_partition_data(partitions),
            ]);
        self.correlation_id = self.correlation_id.wrapping_add(1);
        let frame = encode(
            "Produce",
            PRODUCE,
            self.correlation_id,
            self.client_id,
            &request,
        )?;
        let address = self.address;
        self.writer
            .write_all(&frame)
            .await
            .map_err(|source| ClientError::Io { address, source })
    }
}

/// The reading half of a produce pipeline.
#[derive(Debug)]
pub struct ProduceReceiver {
    address: SocketAddr,
    reader: OwnedReadHalf,
    buffer: BytesMut,
    correlation_id: i32,
}

impl ProduceReceiver {
    /// Partition and base offset of each batch of the oldest request not yet answered.
    pub async fn receive(&mut self) -> Result<Vec<(i32, i64)>, ClientError> {
        self.correlation_id = self.correlation_id.wrapping_add(1);
        let body = read_frame(self.address, &mut self.reader, &mut self.buffer, "Produce").await?;
        let response: ProduceResponse = decode("Produce", PRODUCE, self.correlation_id, body)?;
        let mut acknowledged = Vec::new();
        for topic in &response.responses {
            for partition in &topic.partition_responses {
                let subject = format!("{}/{}", topic.name.as_str(), partition.index);
                refuse("Produce", &subject, partition.error_code)?;
                acknowledged.push((partition.index, partition.base_offset));
            }
        }
        Ok(acknowledged)
    }
}

fn topic_name(topic: &str) -> TopicName {
    TopicName(StrBytes::from_string(topic.to_owned()))
}

fn malformed(api: &'static str, reason: impl ToString) -> ClientError {
    ClientError::Malformed {
        api,
        reason: reason.to_string(),
    }
}

fn refuse(api: &'static str, subject: &str, error_code: i16) -> Result<(), ClientError> {
    if error_code == 0 {
        return Ok(());
    }
    let code = match ResponseError::try_from_code(error_code) {
        Some(error) => error.to_string(),
        None => format!("error code {error_code}"),
    };
    Err(ClientError::Refused {
        api,
        subject: subject.to_owned(),
        code,
    })
}

/// A frame: four bytes of length, the header, the request.
fn encode<R: Request>(
    api: &'static str,
    version: i16,
    correlation_id: i32,
    client_id: &'static str,
    request: &R,
) -> Result<BytesMut, ClientError> {
    let mut frame = BytesMut::from(&[0u8; 4][..]);
    let header = RequestHeader::default()
        .with_request_api_key(R::KEY)
        .with_request_api_version(version)
        .with_correlation_id(correlation_id)
        .with_client_id(Some(StrBytes::from_static_str(client_id)));
    header
        .encode(&mut frame, R::header_version(version))
        .and_then(|()| request.encode(&mut frame, version))
        .map_err(|error| malformed(api, error))?;
    let length = (frame.len() - 4) as u32;
    frame[..4].copy_from_slice(&length.to_be_bytes());
    Ok(frame)
}

async fn read_frame(
    address: SocketAddr,
    reader: &mut OwnedReadHalf,
    buffer: &mut BytesMut,
    api: &'static str,
) -> Result<Bytes, ClientError> {
    let read = async {
        let mut length = [0u8; 4];
        reader.read_exact(&mut length).await?;
        let length = u32::from_be_bytes(length) as usize;
        if length > MAX_RESPONSE_BYTES {
            return Err(std::io::Error::other(format!(
                "a response of {length} bytes is over {MAX_RESPONSE_BYTES}"
            )));
        }
        buffer.clear();
        buffer.resize(length, 0);
        reader.read_exact(buffer).await?;
        Ok(buffer.split().freeze())
    };
    match tokio::time::timeout(RESPONSE_TIMEOUT, read).await {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(source)) => Err(ClientError::Io { address, source }),
        Err(_) => Err(ClientError::Timeout { api }),
    }
}

fn decode<T: Decodable + HeaderVersion>(
    api: &'static str,
    version: i16,
    correlation_id: i32,
    mut body: Bytes,
) -> Result<T, ClientError> {
    let header = ResponseHeader::decode(&mut body, T::header_version(version))
        .map_err(|error| malformed(api, error))?;
    if header.correlation_id != correlation_id {
        let got = header.correlation_id;
        return Err(malformed(
            api,
            format!("correlation id {got} instead of {correlation_id}"),
        ));
    }
    let response = T::decode(&mut body, version).map_err(|error| malformed(api, error))?;
    if body.has_remaining() {
        let rest = body.remaining();
        return Err(malformed(api, format!("{rest} bytes too many")));
    }
    Ok(response)
}
