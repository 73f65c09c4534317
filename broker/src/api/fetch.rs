//! Fetch (1), versions 4 to 18: whole record batches from many partitions, waiting for new ones.
//!
//! - A fetch offset inside a batch gets the whole batch; readers skip what is before it.
//! - The answer waits until `min_bytes` are there over all partitions, or `max_wait_ms` are over. An
//!   error in any partition answers at once. `fetch_poll` has the limits.
//! - Sessions (KIP-227, from version 7): session epoch 0 asks for one, -1 for none, and any other
//!   goes on with one; the first two close the session that they name. `fetch_session` has the
//!   rules. A full fetch is answered with every partition, one in a session with what changed.
//! - Partitions are served in the request's order, and in a session those that returned records go
//!   to the end. A partition that is named twice counts once, with the last word.
//! - Under read_committed, readers stop at `last_stable_offset`, and are told which transactions of what
//!   they get were aborted.
//! - zstd is withheld from versions before 10, which do not know it.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::fetch_response::{
    FetchableTopicResponse, NodeEndpoint, PartitionData,
};
use kafka_protocol::messages::{BrokerId, FetchRequest, FetchResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use storage::partition_log::ReadLimit;
use tokio::time::Instant;
use uuid::Uuid;

use crate::Broker;
use crate::api::fetch_partition::{Lookup, answer_of};
use crate::api::fetch_poll::{Poll, Terms};
use crate::api::partition_request::read_limit;
use crate::catalog::names::MAX_NAME_LENGTH;
use crate::fetch_session::partitions::{Asked, Partition, TopicKey};
use crate::fetch_session::{
    Changes, FINAL_EPOCH, INITIAL_EPOCH, NO_SESSION, Session, SharedSession, TakenOver, lock,
};
use crate::router::{Reply, RequestContext};

/// Versions served.
pub const VERSIONS: RangeInclusive<i16> = 4..=18;

/// From this version on, topics are named by id.
const TOPIC_IDS_SINCE: i16 = 13;

/// Answers at once where there is enough to read, otherwise when there is.
pub async fn handle(ctx: &RequestContext, request: FetchRequest) -> Reply<FetchResponse> {
    let mut fetch = match Fetch::begin(ctx, request) {
        Ok(fetch) => fetch,
        Err(code) => {
            return Reply::Now(FetchResponse::default().with_error_code(code.code()));
        }
    };
    fetch.poll.look_at_due();
    if fetch.poll.is_complete() {
        return Reply::Now(fetch.into_response());
    }
    let shutdown = ctx.broker.shutdown.clone();
    Reply::Later(Box::pin(async move {
        if let Some(taken_over) = fetch.taken_over.take() {
            fetch.poll.run(taken_over, shutdown).await;
        }
        fetch.into_response()
    }))
}

/// A fetch under way.
struct Fetch {
    broker: Arc<Broker>,
    api_version: i16,
    limit: ReadLimit,
    kind: Kind,
    taken_over: Option<TakenOver>,
    poll: Poll,
}

/// What a fetch is to its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// It has none, and wants one or not.
    Full { opens: bool },
    /// It goes on with one, which has this epoch as long as nobody else does so too.
    Incremental { epoch: i32 },
}

impl Fetch {
    fn begin(ctx: &RequestContext, request: FetchRequest) -> Result<Self, ResponseError> {
        let limit = read_limit(request.isolation_level);
        let stops = *ctx.broker.shutdown.borrow();
        let max_bytes = request.max_bytes.min(ctx.broker.settings.fetch_max_bytes);
        let max_wait = Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0));
        let (min_bytes, max_bytes) = (size(request.min_bytes), size(max_bytes));
        let (session, kind) = session(ctx, request)?;
        let (taken_over, is_empty) = {
            let mut session = lock(&session);
            let taken_over = session.begin(ctx.api_version, limit.ok());
            (taken_over, session.partitions.is_empty())
        };
        let terms = Terms {
            limit,
            min_bytes,
            max_bytes,
            deadline: Instant::now() + max_wait,
            in_session: matches!(kind, Kind::Incremental { .. }),
        };
        let lookup = Lookup::new(Arc::clone(&ctx.broker), ctx.api_version);
        let mut poll = Poll::new(session, lookup, terms);
        if stops || is_empty {
            poll.answer_at_once();
        }
        Ok(Self {
            broker: Arc::clone(&ctx.broker),
            api_version: ctx.api_version,
            limit: limit.unwrap_or(ReadLimit::HighWatermark),
            kind,
            taken_over: Some(taken_over),
            poll,
        })
    }

    fn into_response(self) -> FetchResponse {
        self.broker.fetch_sessions.count_reads(self.poll.reads());
        let (shared, outcomes) = self.poll.into_outcomes();
        let mut response = Response::default();
        let mut session = lock(&shared);
        if let Kind::Incremental { epoch } = self.kind
            && session.epoch != epoch
        {
            // Another request has gone on with the session: what was found is the other's to find.
            let code = ResponseError::InvalidFetchSessionEpoch.code();
            return FetchResponse::default().with_error_code(code);
        }
        for (place, outcome, is_urgent) in outcomes {
            let Some(partition) = session.partitions.get(place.slot).cloned() else {
                continue;
            };
            let (data, answer) = answer_of(outcome, &partition, self.api_version, self.limit);
            if session.partitions.answer(place.slot, &answer)
                || matches!(self.kind, Kind::Full { .. })
            {
                response.push(partition, data);
            }
            // At its end, and watched: there is nothing to tell until it moves.
            if answer.records_len == 0 && !is_urgent && session.watches.is_armed(place.slot) {
                session.partitions.rest(place.slot);
            }
        }
        let session_id = match self.kind {
            Kind::Incremental { .. } => session.id,
            Kind::Full { opens: false } => NO_SESSION,
            Kind::Full { opens: true } => {
                drop(session);
                self.broker.fetch_sessions.open(&shared)
            }
        };
        response.finish(&self.broker).with_session_id(session_id)
    }
}

/// The session that a request goes on with, or a new one for what it asks.
fn session(
    ctx: &RequestContext,
    request: FetchRequest,
) -> Result<(SharedSession, Kind), ResponseError> {
    let sessions = &ctx.broker.fetch_sessions;
    let by_id = ctx.api_version >= TOPIC_IDS_SINCE;
    let (id, epoch) = (request.session_id, request.session_epoch);
    let (changes, is_keepable) = changes(request, by_id);
    if epoch == INITIAL_EPOCH || epoch == FINAL_EPOCH {
        sessions.close(id);
        let mut session = Session::new(by_id);
        for (topic, index, asked) in changes.asked {
            session.partitions.ask(&topic, index, asked);
        }
        let opens = epoch == INITIAL_EPOCH && is_keepable;
        return Ok((Arc::new(Mutex::new(session)), Kind::Full { opens }));
    }
    if !is_keepable {
        sessions.close(id);
        return Err(ResponseError::FetchSessionIdNotFound);
    }
    let session = sessions.go_on(id, epoch, by_id, changes)?;
    let epoch = lock(&session).epoch;
    Ok((session, Kind::Incremental { epoch }))
}

/// What a request asks and no longer asks, and whether a session can remember it: names that are
/// too long for a topic would take more room than a session has for them.
fn changes(request: FetchRequest, by_id: bool) -> (Changes, bool) {
    let mut is_keepable = true;
    let mut key = |name: &TopicName, id: Uuid| {
        if by_id {
            return TopicKey::Id(id);
        }
        is_keepable &= name.len() <= MAX_NAME_LENGTH;
        TopicKey::Name(Arc::from(name.as_str()))
    };
    let mut changes = Changes::default();
    for topic in &request.topics {
        let key = key(&topic.topic, topic.topic_id);
        changes.asked.extend(topic.partitions.iter().map(|asked| {
            let what = Asked {
                fetch_offset: asked.fetch_offset,
                current_leader_epoch: asked.current_leader_epoch,
                last_fetched_epoch: asked.last_fetched_epoch,
                partition_max_bytes: asked.partition_max_bytes,
            };
            (key.clone(), asked.partition, what)
        }));
    }
    for topic in &request.forgotten_topics_data {
        let key = key(&topic.topic, topic.topic_id);
        let partitions = topic.partitions.iter();
        changes
            .forgotten
            .extend(partitions.map(|index| (key.clone(), *index)));
    }
    (changes, is_keepable)
}

/// A response that takes shape partition by partition, each topic once.
#[derive(Default)]
struct Response {
    topics: Vec<FetchableTopicResponse>,
    places: HashMap<TopicKey, usize>,
    tells_leader: bool,
}

impl Response {
    fn push(&mut self, partition: Partition, data: PartitionData) {
        self.tells_leader |= data.current_leader.leader_id.0 >= 0;
        let topics = &mut self.topics;
        let place = *self
            .places
            .entry(partition.topic)
            .or_insert_with_key(|key| {
                let topic = FetchableTopicResponse::default();
                topics.push(match key {
                    TopicKey::Name(name) => {
                        topic.with_topic(TopicName(StrBytes::from_string(name.to_string())))
                    }
                    TopicKey::Id(id) => topic.with_topic_id(*id),
                });
                topics.len() - 1
            });
        if let Some(topic) = self.topics.get_mut(place) {
            topic.partitions.push(data);
        }
    }

    fn finish(self, broker: &Broker) -> FetchResponse {
        let response = FetchResponse::default().with_responses(self.topics);
        if self.tells_leader {
            response.with_node_endpoints(vec![endpoint(broker)])
        } else {
            response
        }
    }
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
