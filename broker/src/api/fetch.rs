//! Fetch (1), versions 4 to 18: whole record batches from many partitions, waiting for new ones.
//!
//! - A fetch offset inside a batch gets the whole batch; readers skip what is before it.
//! - The answer waits until `min_bytes` are there over all partitions, or `max_wait_ms` are over. An
//!   error in any partition answers at once. `fetch_poll` has the limits.
//! - Partitions are filled in the request's order; clients rotate it themselves.
//! - Sessions (KIP-227) are declined: a full fetch is answered with session id 0, and one that
//!   goes on with a session gets FETCH_SESSION_ID_NOT_FOUND, after which clients send a full one.
//! - Under read_committed, readers stop at `last_stable_offset`. No transaction is ever aborted
//!   here, so the list of aborted ones is empty.
//! - zstd is withheld from versions before 10, which do not know it.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::{
    EpochEndOffset, FetchableTopicResponse, LeaderIdAndEpoch, NodeEndpoint, PartitionData,
};
use kafka_protocol::messages::{BrokerId, FetchRequest, FetchResponse};
use kafka_protocol::protocol::StrBytes;
use storage::PartitionLog;
use storage::batch::{Compression, batches};
use storage::partition_log::{Fetched, Offsets, ReadLimit};

use crate::Broker;
use crate::api::fetch_poll::{Failure, Poll, Slot};
use crate::api::partition_request::{
    NO_LEADER_EPOCH, check_leader_epoch, partition, read_limit, storage_failure,
};
use crate::catalog::Topic;
use crate::router::{Reply, RequestContext};

/// Versions served.
pub const VERSIONS: RangeInclusive<i16> = 4..=18;

/// From this version on, clients know zstd.
const ZSTD_SINCE: i16 = 10;
/// From this version on, topics are named by id.
const TOPIC_IDS_SINCE: i16 = 13;
/// From this version on, a fenced client is told the leader (KIP-951).
const LEADER_SINCE: i16 = 16;
/// Session epochs of a full fetch: one that opens a session, and one that wants none.
const FULL_FETCH_EPOCHS: [i32; 2] = [0, -1];

/// Answers at once where there is enough to read, otherwise when there is.
pub async fn handle(ctx: &RequestContext, request: FetchRequest) -> Reply<FetchResponse> {
    if !FULL_FETCH_EPOCHS.contains(&request.session_epoch) {
        let code = ResponseError::FetchSessionIdNotFound.code();
        return Reply::Now(FetchResponse::default().with_error_code(code));
    }
    let mut fetch = Fetch::plan(ctx, request);
    fetch.poll.read_all();
    if fetch.poll.is_complete() {
        return Reply::Now(fetch.into_response());
    }
    let shutdown = ctx.broker.shutdown.clone();
    Reply::Later(Box::pin(async move {
        fetch.poll.run(shutdown).await;
        fetch.into_response()
    }))
}

/// A fetch under way: its response so far, and the partitions that are still to be filled in.
struct Fetch {
    broker: Arc<Broker>,
    api_version: i16,
    limit: ReadLimit,
    response: FetchResponse,
    poll: Poll,
    /// Where in the response each partition of `poll` belongs.
    places: Vec<Place>,
}

struct Place {
    topic: Arc<Topic>,
    topic_place: usize,
    partition_place: usize,
}

impl Fetch {
    fn plan(ctx: &RequestContext, request: FetchRequest) -> Self {
        let limit = read_limit(request.isolation_level);
        let max_bytes = request.max_bytes.min(ctx.broker.settings.fetch_max_bytes);
        let max_wait = Duration::from_millis(request.max_wait_ms.max(0) as u64);
        let stopping = *ctx.broker.shutdown.borrow();
        let poll_limit = *limit.as_ref().unwrap_or(&ReadLimit::HighWatermark);
        let mut fetch = Self {
            broker: Arc::clone(&ctx.broker),
            api_version: ctx.api_version,
            limit: poll_limit,
            response: FetchResponse::default(),
            poll: Poll::new(
                poll_limit,
                size(request.min_bytes),
                size(max_bytes),
                max_wait,
            ),
            places: Vec::new(),
        };
        if stopping || request.topics.is_empty() {
            fetch.poll.answer_at_once();
        }
        for asked in request.topics {
            let topic = limit.and_then(|_| fetch.topic(&asked));
            let mut answers = Vec::with_capacity(asked.partitions.len());
            for asked in &asked.partitions {
                let found = match &topic {
                    Ok(topic) => fetch.log(topic, asked),
                    Err(code) => Err(Box::new(failed(*code))),
                };
                let answer = match found {
                    Ok((topic, log)) => {
                        fetch.places.push(Place {
                            topic,
                            topic_place: fetch.response.responses.len(),
                            partition_place: answers.len(),
                        });
                        fetch.poll.push(Slot::new(
                            log,
                            asked.fetch_offset,
                            size(asked.partition_max_bytes),
                        ));
                        PartitionData::default()
                    }
                    Err(answer) => {
                        fetch.poll.answer_at_once();
                        *answer
                    }
                };
                answers.push(answer.with_partition_index(asked.partition));
            }
            fetch.response.responses.push(
                FetchableTopicResponse::default()
                    .with_topic(asked.topic)
                    .with_topic_id(asked.topic_id)
                    .with_partitions(answers),
            );
        }
        fetch
    }

    fn topic(&self, asked: &FetchTopic) -> Result<Arc<Topic>, ResponseError> {
        let catalog = &self.broker.catalog;
        if self.api_version >= TOPIC_IDS_SINCE {
            let topic = catalog.topic_by_id(asked.topic_id);
            topic.ok_or(ResponseError::UnknownTopicId)
        } else {
            let topic = catalog.topic(&asked.topic);
            topic.ok_or(ResponseError::UnknownTopicOrPartition)
        }
    }

    /// The log to read, or the answer where there is nothing to read.
    fn log(
        &mut self,
        topic: &Arc<Topic>,
        asked: &FetchPartition,
    ) -> Result<(Arc<Topic>, Arc<PartitionLog>), Box<PartitionData>> {
        let log = partition(topic, asked.partition).map_err(|code| Box::new(failed(code)))?;
        if let Err(code) = check_leader_epoch(log, asked.current_leader_epoch) {
            let mut answer = failed(code);
            if code == ResponseError::FencedLeaderEpoch && self.api_version >= LEADER_SINCE {
                answer.current_leader = LeaderIdAndEpoch::default()
                    .with_leader_id(BrokerId(self.broker.node_id))
                    .with_leader_epoch(log.leader_epoch());
                self.response.node_endpoints = vec![endpoint(&self.broker)];
            }
            return Err(Box::new(answer));
        }
        if asked.last_fetched_epoch != NO_LEADER_EPOCH {
            check_divergence(log, asked)?;
        }
        Ok((Arc::clone(topic), Arc::clone(log)))
    }

    fn into_response(self) -> FetchResponse {
        let mut response = self.response;
        for (place, result) in self.places.into_iter().zip(self.poll.into_results()) {
            let topic = &mut response.responses[place.topic_place];
            let answer = &mut topic.partitions[place.partition_place];
            let index = answer.partition_index;
            let filled = match result {
                Ok(found) => answer_of(found, self.api_version, self.limit),
                Err(Failure::Lost) => failed(ResponseError::UnknownServerError),
                Err(Failure::Storage(error)) => {
                    failed(storage_failure("fetch", &place.topic.name, index, &error))
                }
            };
            *answer = filled.with_partition_index(index);
        }
        response
    }
}

/// A reader whose last record is not in this log (KIP-595) is told where the two part.
fn check_divergence(log: &PartitionLog, asked: &FetchPartition) -> Result<(), Box<PartitionData>> {
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

/// A partition's records, in what the client's version understands.
fn answer_of(found: Fetched, api_version: i16, limit: ReadLimit) -> PartitionData {
    let mut records = found.records;
    if api_version < ZSTD_SINCE {
        let readable = before_first_zstd(&records);
        if readable == 0 && !records.is_empty() {
            return failed(ResponseError::UnsupportedCompressionType);
        }
        records.truncate(readable);
    }
    let aborted_transactions = match limit {
        ReadLimit::LastStableOffset => Some(Vec::new()),
        ReadLimit::HighWatermark | ReadLimit::LogEnd => None,
    };
    with_offsets(&found.offsets)
        .with_aborted_transactions(aborted_transactions)
        .with_records(Some(records))
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

fn failed(code: ResponseError) -> PartitionData {
    PartitionData::default()
        .with_error_code(code.code())
        .with_high_watermark(-1)
        .with_last_stable_offset(-1)
        .with_log_start_offset(-1)
        // Some clients do not expect null where an error is.
        .with_records(Some(Bytes::new()))
}

fn endpoint(broker: &Broker) -> NodeEndpoint {
    let (host, port) = &broker.advertised;
    NodeEndpoint::default()
        .with_node_id(BrokerId(broker.node_id))
        .with_host(StrBytes::from_string(host.clone()))
        .with_port(i32::from(*port))
}

/// A count of bytes; a negative one is none.
fn size(bytes: i32) -> usize {
    usize::try_from(bytes).unwrap_or(0)
}
