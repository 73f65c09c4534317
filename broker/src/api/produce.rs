//! Produce (0), versions 3 to 13: one record batch per partition, appended in request order.
//!
//! - Batches are appended while the request is handled, so requests of one connection append in
//!   the order in which they were sent; waiting for the disk happens in the reply, while the next
//!   request is handled.
//! - `acks=all` waits for the topic's `durability_all`, `acks=1` for its `durability_one`; a
//!   duplicate of a batch that is not yet as durable waits for the same. Where an append makes it
//!   `flush.messages`, its answer waits for the disk under any acks. `acks=0` has no response,
//!   and closes the connection when a partition fails, as Kafka does.
//! - A batch is stored whole or refused whole; where one record is to blame, the answer names it from
//!   version 8 (KIP-467).
//! - Topics that the broker writes itself are refused: model topics' outputs and dead letters with
//!   POLICY_VIOLATION, internal topics with INVALID_TOPIC_EXCEPTION. Clients give up on both at once, and
//!   show the message that comes with them (from version 8).
//! - A transactional batch is appended where its partition is part of its producer's transaction: from
//!   version 12 on (KIP-890) writing adds it, before that it was added by AddPartitionsToTxn. It is
//!   acknowledged when that is on the device, too. A stale epoch is INVALID_PRODUCER_EPOCH.
//! - Versions 0 to 2 (magic 0 and 1) are advertised for old librdkafka's sake (KAFKA-18659) and
//!   answered by the router.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::produce_response::{
    BatchIndexAndErrorMessage, PartitionProduceResponse, TopicProduceResponse,
};
use kafka_protocol::messages::{ProduceRequest, ProduceResponse};
use kafka_protocol::protocol::StrBytes;
use storage::batch::{Batch, Compression};
use storage::partition_log::{Appended, Durability};
use storage::{Offset, PartitionLog};
use tokio::time::{Instant, timeout_at};

use crate::api::partition_request::{partition, storage_failure};
use crate::api::{error_code, transaction_version};
use crate::catalog::{CatalogError, Topic, TopicKind};
use crate::coordinator_log::{LogError, Written};
use crate::router::{Reply, RequestContext};
use crate::transaction::machine::{self, Producer};

mod transactional;

/// Versions served.
pub const VERSIONS: RangeInclusive<i16> = 3..=13;

/// From this version on, clients know zstd.
const ZSTD_SINCE: i16 = 7;
/// From this version on, topics are named by id.
const TOPIC_IDS_SINCE: i16 = 13;

/// What the producer waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Acks {
    None,
    One,
    All,
}

/// Why a partition's batch is not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Refusal {
    code: ResponseError,
    message: String,
    /// The record that it is about, by its place in the batch.
    record: Option<i32>,
}

/// An append that is not yet as durable as asked.
struct Undurable {
    /// Where its answer is: the topic's place, the partition's place.
    place: (usize, usize),
    topic: Arc<Topic>,
    log: Arc<PartitionLog>,
    end: Offset,
    durability: Durability,
    /// The record that adds the partition to a transaction.
    added: Option<Written>,
}

/// Appends every batch, then answers when they are as durable as asked.
pub async fn handle(ctx: &RequestContext, request: ProduceRequest) -> Reply<ProduceResponse> {
    let deadline = Instant::now() + Duration::from_millis(request.timeout_ms.max(0) as u64);
    let acks = check_request(&request);
    let mut response = ProduceResponse::default();
    let mut undurable = Vec::new();
    let transactional_id = request.transactional_id.as_ref().map(|id| id.as_str());
    for data in request.topic_data {
        let topic = match &acks {
            Ok(acks) => writable_topic(ctx, &data).await.map(|topic| (topic, *acks)),
            Err(refusal) => Err(refusal.clone()),
        };
        let mut answers = Vec::with_capacity(data.partition_data.len());
        for data in data.partition_data {
            let place = (response.responses.len(), answers.len());
            answers.push(match &topic {
                Ok((topic, acks)) => {
                    let to = Target {
                        topic,
                        transactional_id,
                    };
                    append(ctx, to, *acks, data, place, &mut undurable).await
                }
                Err(refusal) => refused(data.index, refusal.clone()),
            });
        }
        response.responses.push(
            TopicProduceResponse::default()
                .with_name(data.name)
                .with_topic_id(data.topic_id)
                .with_partition_responses(answers),
        );
    }
    if acks == Ok(Acks::None) {
        return match failure_without_response(&response) {
            Some(reason) => Reply::Close(reason),
            None => Reply::None,
        };
    }
    if undurable.is_empty() {
        return Reply::Now(response);
    }
    // Asked for here and not in the future, which is polled only when earlier responses are written.
    let waits: Vec<_> = undurable
        .into_iter()
        .map(|it| {
            let wait = it.log.wait(it.end, it.durability);
            let added = it.added.map(Written::wait);
            let both = async move {
                wait.await.map_err(Unwritten::Batch)?;
                match added {
                    Some(added) => added.await.map_err(Unwritten::Transaction),
                    None => Ok(()),
                }
            };
            let wait = timeout_at(deadline, both);
            async move { (it.place, it.topic, wait.await) }
        })
        .collect();
    Reply::Later(Box::pin(async move {
        for ((topic_place, place), topic, outcome) in join_all(waits).await {
            let answer = &mut response.responses[topic_place].partition_responses[place];
            let refusal = match outcome {
                Ok(Ok(())) => continue,
                Ok(Err(Unwritten::Batch(error))) => {
                    Refusal::of_storage(&topic.name, answer.index, &error)
                }
                // Tried again: the batch is known then.
                Ok(Err(Unwritten::Transaction(error))) => {
                    Refusal::new(ResponseError::NotEnoughReplicas, error.to_string())
                }
                Err(_) => Refusal::new(
                    ResponseError::RequestTimedOut,
                    "the batch was not on the disk in time",
                ),
            };
            *answer = refused(answer.index, refusal);
        }
        response
    }))
}

/// What did not get onto the device.
enum Unwritten {
    Batch(storage::Error),
    Transaction(LogError),
}

/// Why a request with acks=0 failed, if it did: closing the connection is all that can be said.
fn failure_without_response(response: &ProduceResponse) -> Option<String> {
    response.responses.iter().find_map(|topic| {
        let failed = topic
            .partition_responses
            .iter()
            .find(|answer| answer.error_code != 0)?;
        let message = failed.error_message.as_deref().unwrap_or_default();
        Some(format!("produce with acks=0 failed: {message}"))
    })
}

impl Refusal {
    fn new(code: ResponseError, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            record: None,
        }
    }

    fn of_storage(topic: &str, partition: i32, error: &storage::Error) -> Self {
        let code = storage_failure("produce", topic, partition, error);
        let record = match error {
            storage::Error::InvalidRecordAt { index, .. } => Some(*index),
            storage::Error::InvalidTimestamp { index, .. } => *index,
            _ => None,
        };
        Self {
            record,
            ..Self::new(code, error.to_string())
        }
    }

    fn of_catalog(error: &CatalogError) -> Self {
        Self::new(error_code::of_catalog(error), error.to_string())
    }

    fn of_transaction(refusal: machine::Refusal, api_version: i16) -> Self {
        let code = transaction_version::for_produce(refusal, api_version);
        Self::new(
            code,
            format!("the batch is not part of an open transaction: {code}"),
        )
    }
}

/// What holds for all partitions of a request.
fn check_request(request: &ProduceRequest) -> Result<Acks, Refusal> {
    match request.acks {
        0 => Ok(Acks::None),
        1 => Ok(Acks::One),
        -1 => Ok(Acks::All),
        acks => Err(Refusal::new(
            ResponseError::InvalidRequiredAcks,
            format!("acks must be 0, 1 or -1, not {acks}"),
        )),
    }
}

/// The topic, created where that is allowed, if clients may write to it.
async fn writable_topic(
    ctx: &RequestContext,
    data: &TopicProduceData,
) -> Result<Arc<Topic>, Refusal> {
    let catalog = &ctx.broker.catalog;
    let settings = &ctx.broker.settings;
    let topic = if ctx.api_version >= TOPIC_IDS_SINCE {
        catalog.topic_by_id(data.topic_id).ok_or_else(|| {
            let message = format!("there is no topic with id {}", data.topic_id);
            Refusal::new(ResponseError::UnknownTopicId, message)
        })?
    } else if let Some(topic) = catalog.topic(&data.name) {
        topic
    } else if settings.auto_create_topics_enable {
        let created = catalog.auto_create(&data.name, settings.num_partitions);
        created.await.map_err(|error| Refusal::of_catalog(&error))?
    } else {
        let unknown = CatalogError::UnknownTopic(data.name.to_string());
        return Err(Refusal::of_catalog(&unknown));
    };
    match reserved_for(&topic) {
        None => Ok(topic),
        Some(refusal) => Err(refusal),
    }
}

/// Why clients may not write to a topic.
fn reserved_for(topic: &Topic) -> Option<Refusal> {
    let name = &topic.name;
    match &topic.kind {
        TopicKind::Ordinary => None,
        TopicKind::Derived { model_topic } => Some(Refusal::new(
            ResponseError::PolicyViolation,
            format!(
                "'{name}' is derived by model topic '{model_topic}'; only the model topic writes it"
            ),
        )),
        TopicKind::DeadLetter { model_topic } => Some(Refusal::new(
            ResponseError::PolicyViolation,
            format!(
                "'{name}' holds the dead letters of model topic '{model_topic}'; \
                 only the model topic writes it"
            ),
        )),
        TopicKind::Alert { model_topic } => Some(Refusal::new(
            ResponseError::PolicyViolation,
            format!(
                "'{name}' holds the alerts of model topic '{model_topic}'; \
                 only the model topic writes it"
            ),
        )),
        TopicKind::Internal | TopicKind::Changelog { .. } => Some(Refusal::new(
            ResponseError::InvalidTopicException,
            format!("'{name}' is an internal topic; only the broker writes it"),
        )),
    }
}

/// Where batches go.
#[derive(Clone, Copy)]
struct Target<'a> {
    topic: &'a Arc<Topic>,
    transactional_id: Option<&'a str>,
}

/// Appends one partition's batch; notes what is left to wait for.
async fn append(
    ctx: &RequestContext,
    to: Target<'_>,
    acks: Acks,
    data: PartitionProduceData,
    place: (usize, usize),
    undurable: &mut Vec<Undurable>,
) -> PartitionProduceResponse {
    let (index, topic) = (data.index, to.topic);
    let (log, appended, added) = match try_append(ctx, to, data).await {
        Ok(appended) => appended,
        Err(refusal) => return refused(index, refusal),
    };
    let durability = match acks {
        // As in Kafka, where the append itself would sync.
        _ if appended.flushes => Durability::Disk,
        Acks::None => Durability::PageCache,
        Acks::One => topic.config.durability_one,
        Acks::All => topic.config.durability_all,
    };
    if appended.duplicate {
        metrics::counter!("milena_produce_duplicates_total").increment(1);
    }
    let end = appended.last_offset + 1;
    let is_durable = match durability {
        // The append has written it there.
        Durability::PageCache => true,
        Durability::Disk => log.offsets().synced_offset >= end,
    };
    if !is_durable || added.is_some() {
        undurable.push(Undurable {
            place,
            topic: Arc::clone(topic),
            log: Arc::clone(log),
            end,
            durability,
            added,
        });
    }
    PartitionProduceResponse::default()
        .with_index(index)
        .with_base_offset(appended.base_offset)
        .with_log_append_time_ms(appended.log_append_time_ms.unwrap_or(-1))
        .with_log_start_offset(appended.log_start_offset)
}

async fn try_append<'a>(
    ctx: &RequestContext,
    to: Target<'a>,
    data: PartitionProduceData,
) -> Result<(&'a Arc<PartitionLog>, Appended, Option<Written>), Refusal> {
    let topic = to.topic;
    let log = partition(topic, data.index).map_err(|code| {
        Refusal::new(
            code,
            format!("topic '{}' has no partition {}", topic.name, data.index),
        )
    })?;
    let records = data
        .records
        .filter(|records| !records.is_empty())
        .ok_or_else(|| {
            Refusal::new(
                ResponseError::InvalidRecord,
                "the request has no record batch for this partition",
            )
        })?;
    let appended = match check_batch(&records, ctx.api_version, to.transactional_id)? {
        Some(batch) => {
            let partition = (topic.name.clone(), data.index);
            let write = transactional::write_of(batch, partition, ctx.api_version);
            transactional::append(ctx, log, records, write).await?
        }
        None if log.opens(&records) => {
            let log = Arc::clone(log);
            elsewhere(ctx, move || (log.append(&records), None)).await?
        }
        None => (log.append(&records), None),
    };
    match appended {
        (Ok(appended), added) => Ok((log, appended, added)),
        (Err(error), _) => Err(Refusal::of_storage(&topic.name, data.index, &error)),
    }
}

/// Appends what has to be opened first where it keeps no other connection waiting. This one's next
/// request waits, so that a producer's batches stay in order.
async fn elsewhere<T: Send + 'static>(
    ctx: &RequestContext,
    append: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Refusal> {
    // The semaphore is never closed.
    let permit = Arc::clone(&ctx.broker.recompressing).acquire_owned().await;
    let work = move || {
        let _permit = permit;
        append()
    };
    tokio::task::spawn_blocking(work).await.map_err(|error| {
        tracing::error!(%error, "an append ended early");
        Refusal::new(
            ResponseError::UnknownServerError,
            "the append ended early; the broker's log says why",
        )
    })
}

/// What depends on the protocol rather than on the log, which checks the rest. Whose transaction the batch
/// is part of, where it is part of one.
fn check_batch<'a>(
    records: &Bytes,
    api_version: i16,
    transactional_id: Option<&'a str>,
) -> Result<Option<(&'a str, Producer)>, Refusal> {
    let Ok(batch) = Batch::parse(records) else {
        // The log says exactly what is wrong.
        return Ok(None);
    };
    let transaction = match (batch.is_transactional(), transactional_id) {
        (false, _) => None,
        (true, Some(transactional_id)) => {
            let (id, epoch) = (batch.producer_id(), batch.producer_epoch());
            Some((transactional_id, Producer { id, epoch }))
        }
        (true, None) => {
            return Err(Refusal::new(
                ResponseError::TransactionalIdAuthorizationFailed,
                "a transactional batch in a request without a transactional id",
            ));
        }
    };
    if api_version < ZSTD_SINCE && batch.compression().is_ok_and(|c| c == Compression::Zstd) {
        return Err(Refusal::new(
            ResponseError::UnsupportedCompressionType,
            format!("zstd needs Produce version {ZSTD_SINCE}, the request has {api_version}"),
        ));
    }
    Ok(transaction)
}

fn refused(index: i32, refusal: Refusal) -> PartitionProduceResponse {
    let message = StrBytes::from_string(refusal.message);
    let record = refusal.record.map(|index| {
        BatchIndexAndErrorMessage::default()
            .with_batch_index(index)
            .with_batch_index_error_message(Some(message.clone()))
    });
    PartitionProduceResponse::default()
        .with_index(index)
        .with_error_code(refusal.code.code())
        .with_base_offset(-1)
        .with_record_errors(record.into_iter().collect())
        .with_error_message(Some(message))
}
