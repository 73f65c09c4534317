//! One partition of a Fetch: finding its log, and what is answered with what was read from it.

use std::sync::Arc;

use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::fetch_response::{
    AbortedTransaction, EpochEndOffset, LeaderIdAndEpoch, PartitionData,
};
use kafka_protocol::messages::{BrokerId, ProducerId};
use storage::batch::{Compression, batches};
use storage::partition_log::{Fetched, Offsets, ReadLimit};
use storage::{Offset, PartitionLog};

use crate::Broker;
use crate::api::fetch_poll::Outcome;
use crate::api::partition_request::{
    NO_LEADER_EPOCH, check_leader_epoch, partition, storage_failure,
};
use crate::catalog::Topic;
use crate::fetch_session::partitions::{Answer, Asked, Partition, Partitions, TopicKey};

/// From this version on, clients know zstd.
const ZSTD_SINCE: i16 = 10;
/// From this version on, a fenced client is told the leader (KIP-951).
const LEADER_SINCE: i16 = 16;

/// A partition that can be read.
pub struct Found {
    /// Its log.
    pub log: Arc<PartitionLog>,
    /// The first offset wanted.
    pub fetch_offset: Offset,
    /// The most bytes wanted of it.
    pub partition_max_bytes: usize,
}

/// Finds logs for one request.
pub struct Lookup {
    broker: Arc<Broker>,
    api_version: i16,
    /// The topic that was found last; its next partition is usually the next one wanted.
    last: Option<(TopicKey, Arc<Topic>)>,
}

impl Lookup {
    /// For a request of this version.
    pub fn new(broker: Arc<Broker>, api_version: i16) -> Self {
        Self {
            broker,
            api_version,
            last: None,
        }
    }

    /// The log of a slot's partition, or the answer where there is nothing to read.
    pub fn find(
        &mut self,
        partitions: &mut Partitions,
        slot: usize,
    ) -> Result<Found, Box<PartitionData>> {
        let unknown = ResponseError::UnknownTopicOrPartition;
        let Some(Partition {
            topic,
            index,
            asked,
            ..
        }) = partitions.get(slot).cloned()
        else {
            return Err(Box::new(failed(unknown)));
        };
        let topic = self
            .topic(partitions, &topic)
            .map_err(|code| Box::new(failed(code)))?;
        let log = partition(&topic, index).map_err(|code| Box::new(failed(code)))?;
        if let Err(code) = check_leader_epoch(log, asked.current_leader_epoch) {
            let mut answer = failed(code);
            if code == ResponseError::FencedLeaderEpoch && self.api_version >= LEADER_SINCE {
                answer.current_leader = LeaderIdAndEpoch::default()
                    .with_leader_id(BrokerId(self.broker.node_id))
                    .with_leader_epoch(log.leader_epoch());
            }
            return Err(Box::new(answer));
        }
        if asked.last_fetched_epoch != NO_LEADER_EPOCH {
            check_divergence(log, &asked)?;
        }
        Ok(Found {
            log: Arc::clone(log),
            fetch_offset: asked.fetch_offset,
            partition_max_bytes: usize::try_from(asked.partition_max_bytes).unwrap_or(0),
        })
    }

    /// Lets go of topics: what follows may see them deleted.
    pub fn end_of_pass(&mut self) {
        self.last = None;
    }

    /// A topic that is named by its id and was there once is known by its name from then on, as in
    /// Kafka: when it is created again, the answer is that its id is another one now.
    fn topic(
        &mut self,
        partitions: &mut Partitions,
        key: &TopicKey,
    ) -> Result<Arc<Topic>, ResponseError> {
        if let Some((last, topic)) = &self.last
            && last == key
        {
            return Ok(Arc::clone(topic));
        }
        let catalog = &self.broker.catalog;
        let topic = match key {
            TopicKey::Name(name) => catalog
                .topic(name)
                .ok_or(ResponseError::UnknownTopicOrPartition)?,
            TopicKey::Id(id) => match (catalog.topic_by_id(*id), partitions.topic_name(key)) {
                (Some(topic), _) => {
                    partitions.name_topic(key, &topic.name);
                    topic
                }
                (None, None) => return Err(ResponseError::UnknownTopicId),
                (None, Some(name)) if catalog.topic(&name).is_some() => {
                    return Err(ResponseError::InconsistentTopicId);
                }
                (None, Some(_)) => return Err(ResponseError::UnknownTopicOrPartition),
            },
        };
        self.last = Some((key.clone(), Arc::clone(&topic)));
        Ok(topic)
    }
}

/// A reader whose last record is not in this log (KIP-595) is told where the two part.
fn check_divergence(log: &PartitionLog, asked: &Asked) -> Result<(), Box<PartitionData>> {
    let Some((epoch, end_offset)) = log.end_offset_for_epoch(asked.last_fetched_epoch) else {
        return Err(Box::new(failed(ResponseError::OffsetOutOfRange)));
    };
    if epoch == asked.last_fetched_epoch && asked.fetch_offset <= end_offset {
        return Ok(());
    }
    let diverging = EpochEndOffset::default()
        .with_epoch(epoch)
        .with_end_offset(end_offset);
    let answer = with_offsets(&log.offsets()).with_diverging_epoch(diverging);
    Err(Box::new(answer))
}

/// A partition's answer, and what its session notes of it.
pub fn answer_of(
    outcome: Outcome,
    partition: &Partition,
    api_version: i16,
    limit: ReadLimit,
) -> (PartitionData, Answer) {
    let topic_name = match &partition.topic {
        TopicKey::Name(name) => name.to_string(),
        TopicKey::Id(id) => id.to_string(),
    };
    let (data, is_urgent) = match outcome {
        Outcome::Found(found) => (readable(found, api_version, limit), false),
        Outcome::Refused(answer) => (*answer, true),
        Outcome::Failed(error) => {
            let code = storage_failure("fetch", &topic_name, partition.index, &error);
            (failed(code), true)
        }
        // Complete means that nothing is cold.
        Outcome::Cold(..) | Outcome::Lost => (failed(ResponseError::UnknownServerError), true),
    };
    let answer = Answer {
        records_len: data.records.as_ref().map_or(0, Bytes::len),
        is_urgent: is_urgent || data.error_code != 0,
        high_watermark: data.high_watermark,
        last_stable_offset: data.last_stable_offset,
        log_start_offset: data.log_start_offset,
    };
    (data.with_partition_index(partition.index), answer)
}

/// A partition's records, in what the client's version understands.
fn readable(found: Fetched, api_version: i16, limit: ReadLimit) -> PartitionData {
    let mut records = found.records;
    if api_version < ZSTD_SINCE {
        let readable = before_first_zstd(&records);
        if readable == 0 && !records.is_empty() {
            return failed(ResponseError::UnsupportedCompressionType);
        }
        records.truncate(readable);
    }
    let aborted_transactions = match limit {
        ReadLimit::LastStableOffset => Some(aborted(&found.aborted)),
        ReadLimit::HighWatermark | ReadLimit::LogEnd => None,
    };
    with_offsets(&found.offsets)
        .with_aborted_transactions(aborted_transactions)
        .with_records(Some(records))
}

fn aborted(
    transactions: &[storage::producer_state::AbortedTransaction],
) -> Vec<AbortedTransaction> {
    let each = transactions.iter().map(|transaction| {
        AbortedTransaction::default()
            .with_producer_id(ProducerId(transaction.producer_id))
            .with_first_offset(transaction.first_offset)
    });
    each.collect()
}

/// Bytes of the whole batches before the first one in zstd.
fn before_first_zstd(records: &[u8]) -> usize {
    batches(records)
        .map_while(Result::ok)
        .take_while(|batch| batch.compression().is_ok_and(|c| c != Compression::Zstd))
        .map(|batch| batch.size_in_bytes())
        .sum()
}

fn with_offsets(offsets: &Offsets) -> PartitionData {
    PartitionData::default()
        .with_high_watermark(offsets.high_watermark)
        .with_last_stable_offset(offsets.last_stable_offset)
        .with_log_start_offset(offsets.log_start_offset)
        .with_records(Some(Bytes::new()))
}

/// A partition of which there is nothing but an error.
pub fn failed(code: ResponseError) -> PartitionData {
    PartitionData::default()
        .with_error_code(code.code())
        .with_high_watermark(-1)
        .with_last_stable_offset(-1)
        .with_log_start_offset(-1)
        // Some clients do not expect null where an error is.
        .with_records(Some(Bytes::new()))
}
