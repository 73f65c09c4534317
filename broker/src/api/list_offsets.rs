//! ListOffsets (2), versions 1 to 10: from a timestamp, or a special one, to an offset.
//!
//! | timestamp | since | answer |
//! |---|---|---|
//! | -1 latest | 1 | `high_watermark`, or `last_stable_offset` under read_committed |
//! | -2 earliest | 1 | `log_start_offset` |
//! | -3 max timestamp (KIP-734) | 7 | the record with the largest timestamp |
//! | -4 earliest local (KIP-405) | 8 | `log_start_offset`: everything is local |
//! | -5 latest tiered (KIP-1005) | 9 | -1: nothing is tiered |
//! | 0 and above | 1 | the first record at or after that time |
//!
//! Where there is no such record, offset and timestamp are -1 and there is no error. Other negative
//! timestamps, and those that are newer than the request's version, are UNSUPPORTED_VERSION.
//! Lookups by time read the log, so they run on threads that may block.

use std::collections::HashSet;
use std::ops::RangeInclusive;
use std::sync::Arc;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::list_offsets_request::ListOffsetsPartition;
use kafka_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use kafka_protocol::messages::{ListOffsetsRequest, ListOffsetsResponse};
use storage::partition_log::{Offsets, ReadLimit, TimestampAndOffset};
use storage::{Offset, PartitionLog};
use tokio::sync::Semaphore;

use crate::api::partition_request::{
    NO_LEADER_EPOCH, check_leader_epoch, partition, read_limit, storage_failure,
};
use crate::catalog::Topic;
use crate::router::{Reply, RequestContext};

/// Versions served.
pub const VERSIONS: RangeInclusive<i16> = 1..=10;

/// From this version on, answers carry leader epochs; the codec refuses to encode them in older ones.
const LEADER_EPOCHS_SINCE: i16 = 4;

/// Lookups by time that are under way at once, over all connections: a small batch may be a large
/// one when it is opened.
static LOOKUPS: Semaphore = Semaphore::const_new(4);

/// No such record.
const UNKNOWN: TimestampAndOffset = TimestampAndOffset {
    timestamp_ms: -1,
    offset: -1,
    leader_epoch: NO_LEADER_EPOCH,
};

/// What a partition's timestamp asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Latest,
    Earliest,
    MaxTimestamp,
    LatestTiered,
    AtOrAfter(i64),
}

impl Wanted {
    fn of(timestamp: i64, api_version: i16) -> Result<Self, ResponseError> {
        match timestamp {
            -1 => Ok(Self::Latest),
            -2 => Ok(Self::Earliest),
            -3 if api_version >= 7 => Ok(Self::MaxTimestamp),
            -4 if api_version >= 8 => Ok(Self::Earliest),
            -5 if api_version >= 9 => Ok(Self::LatestTiered),
            0.. => Ok(Self::AtOrAfter(timestamp)),
            _ => Err(ResponseError::UnsupportedVersion),
        }
    }

    /// Answered from memory.
    fn is_immediate(self) -> bool {
        matches!(self, Self::Latest | Self::Earliest | Self::LatestTiered)
    }
}

/// One partition's question, found to be answerable.
struct Lookup {
    topic: Arc<Topic>,
    index: i32,
    log: Arc<PartitionLog>,
    wanted: Wanted,
    limit: ReadLimit,
    api_version: i16,
}

/// Answers what is known at once; goes to a blocking thread for the rest.
pub async fn handle(
    ctx: &RequestContext,
    request: ListOffsetsRequest,
) -> Reply<ListOffsetsResponse> {
    let mut slow = Vec::new();
    let mut places = Vec::new();
    let mut topics = Vec::with_capacity(request.topics.len());
    let mut seen = HashSet::new();
    for asked in &request.topics {
        let topic = ctx.broker.catalog.topic(&asked.name);
        let mut answers = Vec::with_capacity(asked.partitions.len());
        for question in &asked.partitions {
            let index = question.partition_index;
            let lookup = if seen.insert((&asked.name, index)) {
                Lookup::new(ctx, &request, question, topic.as_ref())
            } else {
                Err(ResponseError::InvalidRequest)
            };
            answers.push(match lookup {
                Err(error) => failed(index, error),
                Ok(lookup) if lookup.wanted.is_immediate() => lookup.run(),
                Ok(lookup) => {
                    slow.push(lookup);
                    places.push((topics.len(), answers.len()));
                    // What is left standing if the blocking thread dies.
                    failed(index, ResponseError::UnknownServerError)
                }
            });
        }
        topics.push(
            ListOffsetsTopicResponse::default()
                .with_name(asked.name.clone())
                .with_partitions(answers),
        );
    }
    let mut response = ListOffsetsResponse::default().with_topics(topics);
    if slow.is_empty() {
        return Reply::Now(response);
    }
    // Started here and not in the future, which is polled only when earlier responses are written.
    let search = tokio::spawn(async move {
        let _turn = LOOKUPS.acquire().await;
        tokio::task::spawn_blocking(move || slow.iter().map(Lookup::run).collect::<Vec<_>>()).await
    });
    Reply::Later(Box::pin(async move {
        match search.await.and_then(|search| search) {
            Ok(found) => {
                for ((topic, partition), answer) in places.into_iter().zip(found) {
                    response.topics[topic].partitions[partition] = answer;
                }
            }
            Err(error) => tracing::error!(%error, "an offset lookup ended early"),
        }
        response
    }))
}

impl Lookup {
    fn new(
        ctx: &RequestContext,
        request: &ListOffsetsRequest,
        question: &ListOffsetsPartition,
        topic: Option<&Arc<Topic>>,
    ) -> Result<Self, ResponseError> {
        let topic = topic.ok_or(ResponseError::UnknownTopicOrPartition)?;
        let log = partition(topic, question.partition_index)?;
        let limit = read_limit(request.isolation_level)?;
        let wanted = Wanted::of(question.timestamp, ctx.api_version)?;
        check_leader_epoch(log, question.current_leader_epoch)?;
        Ok(Self {
            topic: Arc::clone(topic),
            index: question.partition_index,
            log: Arc::clone(log),
            wanted,
            limit,
            api_version: ctx.api_version,
        })
    }

    /// Blocking unless [`Wanted::is_immediate`].
    fn run(&self) -> ListOffsetsPartitionResponse {
        match self.find() {
            Ok(found) => {
                let leader_epoch = if self.api_version >= LEADER_EPOCHS_SINCE {
                    found.leader_epoch
                } else {
                    NO_LEADER_EPOCH
                };
                ListOffsetsPartitionResponse::default()
                    .with_partition_index(self.index)
                    .with_timestamp(found.timestamp_ms)
                    .with_offset(found.offset)
                    .with_leader_epoch(leader_epoch)
            }
            Err(error) => failed(
                self.index,
                storage_failure("list_offsets", &self.topic.name, self.index, &error),
            ),
        }
    }

    /// Where this reader stops.
    fn end(&self, offsets: &Offsets) -> Offset {
        match self.limit {
            ReadLimit::HighWatermark => offsets.high_watermark,
            ReadLimit::LastStableOffset => offsets.last_stable_offset,
            ReadLimit::LogEnd => offsets.log_end_offset,
        }
    }

    fn find(&self) -> storage::Result<TimestampAndOffset> {
        let offsets = self.log.offsets();
        let end = self.end(&offsets);
        if self.topic.kind.is_published() {
            // Says so while the partition's end is not known yet.
            self.log.read(end, 0, false, self.limit)?;
        }
        Ok(match self.wanted {
            Wanted::Latest => without_timestamp(end, self.log.leader_epoch()),
            Wanted::Earliest => without_timestamp(
                offsets.log_start_offset,
                leader_epoch_at(&self.log, offsets.log_start_offset),
            ),
            Wanted::LatestTiered => UNKNOWN,
            Wanted::MaxTimestamp => {
                let largest = self.log.max_timestamp()?;
                // A record above the limit is not there yet for this reader. The limit as it is now:
                // the newest record is mostly the one, and may have come since.
                let end = self.end(&self.log.offsets());
                largest
                    .filter(|found| found.offset < end)
                    .unwrap_or(UNKNOWN)
            }
            Wanted::AtOrAfter(timestamp_ms) => self
                .log
                .offset_for_timestamp(timestamp_ms, self.limit)?
                .unwrap_or(UNKNOWN),
        })
    }
}

/// The epoch that the record at `offset` was appended under; the current one where the log ends
/// there: the next record will be of that epoch, or a later one.
fn leader_epoch_at(log: &PartitionLog, offset: Offset) -> i32 {
    // Ends grow with epochs, so the first epoch that ends above `offset` is the one that holds it.
    let ends_above = |epoch| {
        log.end_offset_for_epoch(epoch)
            .is_some_and(|(_, end)| end > offset)
    };
    let (mut low, mut high) = (0, log.leader_epoch());
    while low < high {
        let middle = low + (high - low) / 2;
        if ends_above(middle) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    high
}

fn without_timestamp(offset: Offset, leader_epoch: i32) -> TimestampAndOffset {
    TimestampAndOffset {
        timestamp_ms: -1,
        offset,
        leader_epoch,
    }
}

fn failed(index: i32, error: ResponseError) -> ListOffsetsPartitionResponse {
    ListOffsetsPartitionResponse::default()
        .with_partition_index(index)
        .with_error_code(error.code())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_timestamps_exist_since_their_versions() {
        let unsupported = Err(ResponseError::UnsupportedVersion);
        assert_eq!(Wanted::of(-1, 1), Ok(Wanted::Latest));
        assert_eq!(Wanted::of(-2, 1), Ok(Wanted::Earliest));
        assert_eq!(Wanted::of(-3, 6), unsupported);
        assert_eq!(Wanted::of(-3, 7), Ok(Wanted::MaxTimestamp));
        assert_eq!(Wanted::of(-4, 7), unsupported);
        assert_eq!(Wanted::of(-4, 8), Ok(Wanted::Earliest));
        assert_eq!(Wanted::of(-5, 8), unsupported);
        assert_eq!(Wanted::of(-5, 9), Ok(Wanted::LatestTiered));
        assert_eq!(Wanted::of(-6, 10), unsupported);
        assert_eq!(Wanted::of(i64::MIN, 10), unsupported);
        assert_eq!(Wanted::of(0, 1), Ok(Wanted::AtOrAfter(0)));
    }
}
