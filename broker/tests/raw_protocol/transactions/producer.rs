//! A transactional producer in frames, and what readers see of it.

use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};
use kafka_protocol::messages::txn_offset_commit_request::{
    TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
};
use kafka_protocol::messages::{
    AddPartitionsToTxnRequest, EndTxnRequest, GroupId, InitProducerIdRequest, ListOffsetsRequest,
    OffsetFetchRequest, ProduceRequest, ProducerId, TransactionalId, TxnOffsetCommitRequest,
};
use kafka_protocol::protocol::StrBytes;
use storage::batch::{BatchBuilder, Compression, batches, records};
use uuid::Uuid;

use super::error;
use crate::{Client, fetch_request, produce_request, topic_name};

/// The newest version of Produce, and of EndTxn, that go by transactions version 1.
pub const PRODUCE_V1: i16 = 11;
pub const END_V1: i16 = 4;
/// Those that go by version 2 (KIP-890).
pub const PRODUCE_V2: i16 = 13;
pub const END_V2: i16 = 5;

pub fn transactional_id(id: &str) -> TransactionalId {
    TransactionalId(StrBytes::from_string(id.to_owned()))
}

pub fn group_id(id: &str) -> GroupId {
    GroupId(StrBytes::from_string(id.to_owned()))
}

/// Markers have the broker's time: records much older than them would be in a segment of their own.
fn now_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    i64::try_from(since.unwrap().as_millis()).unwrap()
}

/// Who a producer is.
#[derive(Clone, Debug)]
pub struct Producer {
    pub transactional_id: String,
    pub id: i64,
    pub epoch: i16,
    pub sequence: i32,
}

impl Producer {
    /// Introduces itself.
    pub async fn init(client: &mut Client, id: &str) -> Self {
        let request = InitProducerIdRequest::default()
            .with_transactional_id(Some(transactional_id(id)))
            .with_transaction_timeout_ms(60_000);
        let response = client.call(5, &request).await;
        assert_eq!(error(response.error_code), None);
        Self {
            transactional_id: id.to_owned(),
            id: response.producer_id.0,
            epoch: response.producer_epoch,
            sequence: 0,
        }
    }

    fn batch(&self, value: &str, transactional: bool) -> Bytes {
        let batch = BatchBuilder::new(Compression::None);
        let mut batch = batch.producer(self.id, self.epoch, self.sequence);
        if transactional {
            batch = batch.transactional();
        }
        batch.push(now_ms(), Some(b"key"), Some(value.as_bytes()), &[]);
        batch.build()
    }

    /// A request with one record of its transaction.
    pub fn request(&self, version: i16, topic: (&str, Uuid), value: &str) -> ProduceRequest {
        produce_request(topic.0, topic.1, version, self.batch(value, true))
            .with_transactional_id(Some(transactional_id(&self.transactional_id)))
    }

    /// Writes one record of its transaction.
    pub async fn write(
        &mut self,
        client: &mut Client,
        version: i16,
        topic: (&str, Uuid),
        value: &str,
    ) -> Option<ResponseError> {
        let request = self.request(version, topic, value);
        let code = produced(client, version, &request).await;
        self.sequence += i32::from(code.is_none());
        code
    }

    /// Writes one record outside of it.
    pub async fn write_outside(
        &mut self,
        client: &mut Client,
        topic: (&str, Uuid),
        value: &str,
    ) -> Option<ResponseError> {
        let request = produce_request(topic.0, topic.1, 13, self.batch(value, false));
        produced(client, 13, &request).await
    }

    /// Adds a partition of a topic.
    pub async fn add(&self, client: &mut Client, topic: &str) -> Option<ResponseError> {
        let topic = AddPartitionsToTxnTopic::default()
            .with_name(topic_name(topic))
            .with_partitions(vec![0]);
        let request = AddPartitionsToTxnRequest::default()
            .with_v3_and_below_transactional_id(transactional_id(&self.transactional_id))
            .with_v3_and_below_producer_id(ProducerId(self.id))
            .with_v3_and_below_producer_epoch(self.epoch)
            .with_v3_and_below_topics(vec![topic]);
        let response = client.call(3, &request).await;
        let topic = &response.results_by_topic_v3_and_below[0];
        error(topic.results_by_partition[0].partition_error_code)
    }

    /// Ends its transaction; goes on as whom the answer says.
    pub async fn end(
        &mut self,
        client: &mut Client,
        version: i16,
        commit: bool,
    ) -> Option<ResponseError> {
        let request = EndTxnRequest::default()
            .with_transactional_id(transactional_id(&self.transactional_id))
            .with_producer_id(ProducerId(self.id))
            .with_producer_epoch(self.epoch)
            .with_committed(commit);
        let response = client.call(version, &request).await;
        let failed = error(response.error_code);
        if failed.is_none() && version >= END_V2 {
            (self.id, self.epoch) = (response.producer_id.0, response.producer_epoch);
            self.sequence = 0;
        }
        failed
    }

    /// Commits an offset of `topic` in its transaction.
    pub async fn commit_offset(
        &self,
        client: &mut Client,
        version: i16,
        group: &str,
        (topic, offset): (&str, i64),
    ) -> Option<ResponseError> {
        let partition = TxnOffsetCommitRequestPartition::default().with_committed_offset(offset);
        let topic = TxnOffsetCommitRequestTopic::default()
            .with_name(topic_name(topic))
            .with_partitions(vec![partition]);
        let mut request = TxnOffsetCommitRequest::default()
            .with_transactional_id(transactional_id(&self.transactional_id))
            .with_group_id(group_id(group))
            .with_producer_id(ProducerId(self.id))
            .with_producer_epoch(self.epoch)
            .with_topics(vec![topic]);
        if version >= 3 {
            request = request.with_generation_id(-1);
        }
        let response = client.call(version, &request).await;
        error(response.topics[0].partitions[0].error_code)
    }
}

async fn produced(
    client: &mut Client,
    version: i16,
    request: &ProduceRequest,
) -> Option<ResponseError> {
    let response = client.call(version, request).await;
    error(response.responses[0].partition_responses[0].error_code)
}

/// What a reader gets of a topic from an offset on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub values: Vec<String>,
    /// Producers and first offsets.
    pub aborted: Vec<(i64, i64)>,
    pub last_stable_offset: i64,
}

pub async fn read(client: &mut Client, topic: (&str, Uuid), offset: i64, committed: bool) -> Seen {
    let request =
        fetch_request(topic.0, topic.1, 16, offset).with_isolation_level(committed.into());
    let mut response = client.call(16, &request).await;
    let found = response.responses.remove(0).partitions.remove(0);
    assert_eq!(error(found.error_code), None);
    let bytes = found.records.unwrap_or_default();
    let mut values = Vec::new();
    let mut position = 0;
    for batch in batches(&bytes) {
        let batch = batch.unwrap();
        let whole = position..position + batch.size_in_bytes();
        position = whole.end;
        if !batch.is_control() {
            let records = records::decode(&bytes.slice(whole), 1 << 20).unwrap();
            let text = |value: Bytes| String::from_utf8(value.to_vec()).unwrap();
            values.extend(records.into_iter().filter_map(|it| it.value.map(text)));
        }
    }
    let aborted = found.aborted_transactions.unwrap_or_default();
    Seen {
        values,
        aborted: aborted
            .iter()
            .map(|it| (it.producer_id.0, it.first_offset))
            .collect(),
        last_stable_offset: found.last_stable_offset,
    }
}

/// The end of a topic, as ListOffsets has it.
pub async fn end_of(client: &mut Client, topic: &str, committed: bool) -> i64 {
    let partition = ListOffsetsPartition::default().with_timestamp(-1);
    let topic = ListOffsetsTopic::default()
        .with_name(topic_name(topic))
        .with_partitions(vec![partition]);
    let request = ListOffsetsRequest::default()
        .with_isolation_level(committed.into())
        .with_topics(vec![topic]);
    let response = client.call(7, &request).await;
    response.topics[0].partitions[0].offset
}

/// What a group has committed for a topic.
pub async fn committed_offset(
    client: &mut Client,
    (group, topic): (&str, &str),
    stable: bool,
) -> Result<i64, ResponseError> {
    let topic = OffsetFetchRequestTopics::default()
        .with_name(topic_name(topic))
        .with_partition_indexes(vec![0]);
    let group = OffsetFetchRequestGroup::default()
        .with_group_id(group_id(group))
        .with_topics(Some(vec![topic]));
    let request = OffsetFetchRequest::default()
        .with_require_stable(stable)
        .with_groups(vec![group]);
    let response = client.call(8, &request).await;
    let found = &response.groups[0].topics[0].partitions[0];
    match error(found.error_code) {
        None => Ok(found.committed_offset),
        Some(error) => Err(error),
    }
}
