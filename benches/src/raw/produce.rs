//! Requests that are built once and sent again and again.

use anyhow::ensure;
use bytes::Bytes;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{ApiVersionsRequest, ProduceRequest, TopicName};
use kafka_protocol::protocol::StrBytes;
use storage::batch::{BatchBuilder, Compression};

use super::{decode, frame};

/// The first with compact encodings.
const PRODUCE_VERSION: i16 = 9;

/// A whole Produce request of one batch to one partition.
pub fn produce_frame(
    topic: &str,
    partition: i32,
    records: usize,
    record_bytes: usize,
    acks: i16,
) -> anyhow::Result<Bytes> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    let mut batch = BatchBuilder::new(Compression::None);
    let value = vec![b'x'; record_bytes];
    for _ in 0..records {
        batch.push(now.as_millis() as i64, None, Some(&value), &[]);
    }
    let data = PartitionProduceData::default()
        .with_index(partition)
        .with_records(Some(batch.build()));
    let topic = TopicProduceData::default()
        .with_name(TopicName(StrBytes::from_string(topic.to_owned())))
        .with_partition_data(vec![data]);
    let request = ProduceRequest::default()
        .with_acks(acks)
        .with_timeout_ms(60_000)
        .with_topic_data(vec![topic]);
    frame(&request, PRODUCE_VERSION)
}

/// Whether the response says that the record was appended.
pub fn check_produced(response: Bytes) -> anyhow::Result<()> {
    let response = decode::<ProduceRequest>(response, PRODUCE_VERSION)?;
    let partitions = response
        .responses
        .iter()
        .flat_map(|topic| &topic.partition_responses);
    for partition in partitions {
        let (index, error) = (partition.index, partition.error_code);
        ensure!(error == 0, "produce to partition {index}: error {error}");
    }
    Ok(())
}

/// A whole ApiVersions request.
pub fn api_versions_frame() -> anyhow::Result<Bytes> {
    let name = StrBytes::from_static_str("versus");
    let request = ApiVersionsRequest::default()
        .with_client_software_name(name.clone())
        .with_client_software_version(name);
    frame(&request, 3)
}
