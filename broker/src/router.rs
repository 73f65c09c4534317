//! One table: from an API key and version to its handler.
//!
//! The table is built from each API module's `VERSIONS` and `handle`, and ApiVersions answers from
//! it: what is advertised is what exists. One exception: Produce is advertised from version 0
//! (librdkafka up to 2.8 stops compressing otherwise, KAFKA-18659), and versions 0 to 2 are answered
//! with UNSUPPORTED_VERSION.
//!
//! As in Kafka, a request that can't be read (unknown API, version out of range, a body that does
//! not decode) closes the connection; ApiVersions alone answers a version that it does not know.

use std::any::Any;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use kafka_protocol::messages::{
    ApiKey, ApiVersionsResponse, FetchResponse, RequestHeader, ResponseHeader,
};
use kafka_protocol::protocol::buf::ByteBufMut;
use kafka_protocol::protocol::{Encodable, HeaderVersion, Request, StrBytes};

use crate::connection::{RequestMemory, Service};
use crate::frame::{Frame, FrameBuffer, MAX_OWN_BYTES};
use crate::{Broker, api, produce_before_v3, request_header, request_metrics, wire_shape};

/// Who sent a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Principal {
    /// Not authenticated.
    Anonymous,
}

/// What a handler knows of a request besides its body.
#[derive(Clone, Debug)]
pub struct RequestContext {
    /// The broker.
    pub broker: Arc<Broker>,
    /// The version that the body was decoded with.
    pub api_version: i16,
    /// Echoed in the response.
    pub correlation_id: i32,
    /// The client's name for itself.
    pub client_id: Option<StrBytes>,
    /// Where the connection comes from.
    pub client_host: IpAddr,
    /// Who it is.
    pub principal: Principal,
}

/// What a handler answers.
pub enum Reply<R> {
    /// The response.
    Now(R),
    /// The response, when it is ready. The next request is handled meanwhile; the future is only
    /// polled once every earlier response of the connection is ready.
    Later(BoxFuture<'static, R>),
    /// No response at all (acks=0).
    None,
    /// Close the connection, for this reason.
    Close(String),
}

/// What becomes of a request.
pub enum Outcome {
    /// A response to write.
    Now(Frame),
    /// A response to write when it is ready, or the reason to close the connection.
    Later(BoxFuture<'static, Result<Frame, String>>),
    /// Nothing to write.
    None,
    /// Write the earlier responses, then close the connection for this reason.
    Close(String),
}

/// One line of the table.
#[derive(Clone, Debug)]
pub struct Api {
    /// The API.
    pub key: ApiKey,
    name: &'static str,
    /// The versions that its handler serves.
    pub versions: RangeInclusive<i16>,
}

impl Api {
    /// Its name in the protocol.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The versions that ApiVersions reports.
    pub fn advertised(&self) -> RangeInclusive<i16> {
        match self.key {
            ApiKey::Produce => 0..=*self.versions.end(),
            _ => self.versions.clone(),
        }
    }
}

/// Builds the table and the dispatch from lines of `API: module, request type`.
macro_rules! table {
    ($($key:ident: $module:ident, $request:ident;)*) => {
        const TABLE: &[Api] = &[
            $(Api { key: ApiKey::$key, name: stringify!($key), versions: api::$module::VERSIONS },)*
        ];

        async fn dispatch(
            key: ApiKey,
            context: &RequestContext,
            body: Bytes,
        ) -> Result<Outcome, String> {
            match key {
                $(ApiKey::$key => {
                    let request: kafka_protocol::messages::$request =
                        decode(context.api_version, context.client_id.as_ref(), body)?;
                    let reply = api::$module::handle(context, request).await;
                    answer::<kafka_protocol::messages::$request>(context, reply)
                })*
                other => Err(format!("{other:?} is not served")),
            }
        }

        fn decode_only(key: ApiKey, version: i16, body: Bytes) -> Result<(), String> {
            match key {
                $(ApiKey::$key => {
                    decode::<kafka_protocol::messages::$request>(version, None, body).map(drop)
                })*
                other => Err(format!("{other:?} is not served")),
            }
        }
    };
}

table! {
    Produce: produce, ProduceRequest;
    Fetch: fetch, FetchRequest;
    ListOffsets: list_offsets, ListOffsetsRequest;
    InitProducerId: init_producer_id, InitProducerIdRequest;
    AddPartitionsToTxn: add_partitions_to_txn, AddPartitionsToTxnRequest;
    AddOffsetsToTxn: add_offsets_to_txn, AddOffsetsToTxnRequest;
    EndTxn: end_txn, EndTxnRequest;
    TxnOffsetCommit: txn_offset_commit, TxnOffsetCommitRequest;
    WriteTxnMarkers: write_txn_markers, WriteTxnMarkersRequest;
    DescribeTransactions: describe_transactions, DescribeTransactionsRequest;
    ListTransactions: list_transactions, ListTransactionsRequest;
    FindCoordinator: find_coordinator, FindCoordinatorRequest;
    JoinGroup: join_group, JoinGroupRequest;
    SyncGroup: sync_group, SyncGroupRequest;
    Heartbeat: heartbeat, HeartbeatRequest;
    LeaveGroup: leave_group, LeaveGroupRequest;
    OffsetCommit: offset_commit, OffsetCommitRequest;
    OffsetFetch: offset_fetch, OffsetFetchRequest;
    OffsetDelete: offset_delete, OffsetDeleteRequest;
    ListGroups: list_groups, ListGroupsRequest;
    DescribeGroups: describe_groups, DescribeGroupsRequest;
    DeleteGroups: delete_groups, DeleteGroupsRequest;
    ApiVersions: api_versions, ApiVersionsRequest;
    CreateTopics: create_topics, CreateTopicsRequest;
    DeleteTopics: delete_topics, DeleteTopicsRequest;
    DeleteRecords: delete_records, DeleteRecordsRequest;
    OffsetForLeaderEpoch: offset_for_leader_epoch, OffsetForLeaderEpochRequest;
    DescribeCluster: describe_cluster, DescribeClusterRequest;
    DescribeConfigs: describe_configs, DescribeConfigsRequest;
    DescribeLogDirs: describe_log_dirs, DescribeLogDirsRequest;
    DescribeProducers: describe_producers, DescribeProducersRequest;
    ElectLeaders: elect_leaders, ElectLeadersRequest;
    AlterPartitionReassignments: alter_partition_reassignments, AlterPartitionReassignmentsRequest;
    ListPartitionReassignments: list_partition_reassignments, ListPartitionReassignmentsRequest;
    GetTelemetrySubscriptions: get_telemetry_subscriptions, GetTelemetrySubscriptionsRequest;
    Metadata: metadata, MetadataRequest;
    CreatePartitions: create_partitions, CreatePartitionsRequest;
    AlterConfigs: alter_configs, AlterConfigsRequest;
    IncrementalAlterConfigs: incremental_alter_configs, IncrementalAlterConfigsRequest;
    ListConfigResources: list_config_resources, ListConfigResourcesRequest;
    DescribeTopicPartitions: describe_topic_partitions, DescribeTopicPartitionsRequest;
}

/// What keeps members in their groups and data moving: their answers are never held up by responses
/// that other clients do not take.
fn answers_little(key: ApiKey, elements: usize) -> bool {
    /// Of a fetch's, mostly.
    const FEW: usize = 100;
    match key {
        ApiKey::Produce
        | ApiKey::Heartbeat
        | ApiKey::JoinGroup
        | ApiKey::SyncGroup
        | ApiKey::LeaveGroup
        | ApiKey::OffsetCommit
        | ApiKey::InitProducerId
        | ApiKey::AddPartitionsToTxn
        | ApiKey::AddOffsetsToTxn
        | ApiKey::EndTxn
        | ApiKey::TxnOffsetCommit
        | ApiKey::ApiVersions => true,
        ApiKey::Fetch | ApiKey::ListOffsets | ApiKey::FindCoordinator => elements <= FEW,
        _ => false,
    }
}

/// Every API that is served.
pub fn table() -> &'static [Api] {
    TABLE
}

/// An API's line in the table.
fn line(api_key: i16) -> Option<usize> {
    TABLE.iter().position(|api| api.key as i16 == api_key)
}

/// The requests of one connection.
#[derive(Debug)]
pub struct Router {
    broker: Arc<Broker>,
    client_host: IpAddr,
    /// The last request's, so that it is not copied out of every request.
    client_id: Option<StrBytes>,
}

impl Router {
    /// For a connection from `client_host`.
    pub fn new(broker: Arc<Broker>, client_host: IpAddr) -> Self {
        Self {
            broker,
            client_host,
            client_id: None,
        }
    }

    /// `line` is the table's for this frame.
    async fn route(
        &mut self,
        line: Option<usize>,
        frame: Bytes,
        memory: &mut RequestMemory<'_>,
    ) -> Result<Outcome, String> {
        let (key, header, body, elements) = match read(line, frame)? {
            Read::Request(key, header, body, elements) => (key, header, body, elements),
            Read::Answered(outcome) => return Ok(outcome),
        };
        memory.decoded(elements).await;
        if !answers_little(key, elements) {
            memory.room_for_response().await;
        }
        let context = self.context(header);
        dispatch(key, &context, body).await
    }

    fn context(&mut self, header: RequestHeader) -> RequestContext {
        if self.client_id != header.client_id {
            // A copy: a slice would keep the whole request's buffer.
            self.client_id = header
                .client_id
                .as_deref()
                .map(|id| StrBytes::from_string(id.to_owned()));
        }
        RequestContext {
            broker: self.broker.clone(),
            api_version: header.request_api_version,
            correlation_id: header.correlation_id,
            client_id: self.client_id.clone(),
            client_host: self.client_host,
            principal: Principal::Anonymous,
        }
    }
}

/// A request that was read, up to its body.
enum Read {
    /// To be decoded and handled: the header, the body, and how many elements that has.
    Request(ApiKey, RequestHeader, Bytes, usize),
    /// Its version is one that no handler sees.
    Answered(Outcome),
}

/// Reads a request's header and checks that its body is worth decoding.
fn read(line: Option<usize>, mut frame: Bytes) -> Result<Read, String> {
    let start = request_header::start(&frame).map_err(|error| error.to_string())?;
    let version = start.api_version;
    let Some(served) = line.and_then(|line| TABLE.get(line)) else {
        let client = request_header::client_id(&frame).unwrap_or_default();
        return Err(format!(
            "unknown API {} v{version} from client {client:?}",
            start.api_key
        ));
    };
    let key = served.key;
    if !served.advertised().contains(&version) {
        if key == ApiKey::ApiVersions {
            let response = api::api_versions::unsupported_version();
            let frame = api_versions_v0(start.correlation_id, &response)?;
            return Ok(Read::Answered(Outcome::Now(frame)));
        }
        let client = request_header::client_id(&frame).unwrap_or_default();
        return Err(format!(
            "{key:?} v{version} is not served (client {client:?})"
        ));
    }
    let header = request_header::decode(&mut frame, key.request_header_version(version))
        .map_err(|error| format!("{key:?} v{version}: {error}"))?;
    if !served.versions.contains(&version) {
        return produce_before_v3::answer(version, start.correlation_id, &frame)
            .map(Read::Answered)
            .map_err(|error| format!("{key:?} v{version}: {error}"));
    }
    let checked = wire_shape::check(key, version, &frame).map_err(|error| error.to_string())?;
    Ok(Read::Request(key, header, frame, checked.elements))
}

/// Reads and decodes a request as a connection's router does, and handles it not: all that bytes
/// from a client can reach before there is a handler. For fuzzing.
pub fn read_only(frame: Bytes) -> Result<(), String> {
    let line = request_header::start(&frame)
        .ok()
        .and_then(|start| line(start.api_key));
    match read(line, frame)? {
        Read::Request(key, header, body, _) => decode_only(key, header.request_api_version, body),
        Read::Answered(_) => Ok(()),
    }
}

impl Service for Router {
    async fn call(&mut self, frame: Bytes, memory: &mut RequestMemory<'_>) -> Outcome {
        let began = Instant::now();
        let line = request_header::start(&frame)
            .ok()
            .and_then(|start| line(start.api_key));
        let outcome = self.route(line, frame, memory).await;
        let outcome = outcome.unwrap_or_else(Outcome::Close);
        request_metrics::of_line(line).observe(began, outcome)
    }
}

fn decode<R: Request>(
    version: i16,
    client_id: Option<&StrBytes>,
    mut body: Bytes,
) -> Result<R, String> {
    R::decode(&mut body, version).map_err(|error| {
        let name = api_name::<R>();
        let client = client_id.map(StrBytes::as_str).unwrap_or_default();
        format!("{name} v{version} from client {client:?} does not decode: {error:#}")
    })
}

fn answer<R: Request>(
    context: &RequestContext,
    reply: Reply<R::Response>,
) -> Result<Outcome, String>
where
    R::Response: Send + 'static,
{
    let (version, correlation_id) = (context.api_version, context.correlation_id);
    Ok(match reply {
        Reply::Now(response) => Outcome::Now(encode::<R>(version, correlation_id, &response)?),
        Reply::Later(response) => Outcome::Later(
            response
                .map(move |response| encode::<R>(version, correlation_id, &response))
                .boxed(),
        ),
        Reply::None => Outcome::None,
        Reply::Close(reason) => Outcome::Close(reason),
    })
}

fn encode<R: Request>(
    version: i16,
    correlation_id: i32,
    response: &R::Response,
) -> Result<Frame, String>
where
    R::Response: 'static,
{
    let header_version = R::Response::header_version(version);
    encode_frame(header_version, correlation_id, response, version)
        .map_err(|error| format!("{} v{version}: response: {error}", api_name::<R>()))
}

fn api_name<R: Request>() -> String {
    ApiKey::try_from(R::KEY).map_or_else(|()| R::KEY.to_string(), |key| format!("{key:?}"))
}

fn encode_frame<T: Encodable + 'static>(
    header_version: i16,
    correlation_id: i32,
    body: &T,
    version: i16,
) -> Result<Frame, String> {
    let mut out = FrameBuffer::with_capacity(256);
    out.splice(records(body));
    let length = out.put_gap(4);
    let header = ResponseHeader::default().with_correlation_id(correlation_id);
    header
        .encode(&mut out, header_version)
        .map_err(|error| format!("{error:#}"))?;
    body.encode(&mut out, version)
        .map_err(|error| format!("{error:#}"))?;
    if out.is_over() {
        return Err(format!("more than {MAX_OWN_BYTES} bytes"));
    }
    let len = (out.offset() - 4) as u32;
    out.gap_buf(length).copy_from_slice(&len.to_be_bytes());
    Ok(out.into_frame())
}

/// The record bytes of a fetch: slices of the log that are written as they are.
fn records(response: &dyn Any) -> Vec<Bytes> {
    let Some(fetch) = response.downcast_ref::<FetchResponse>() else {
        return Vec::new();
    };
    let partitions = fetch.responses.iter().flat_map(|topic| &topic.partitions);
    partitions
        .filter_map(|partition| partition.records.clone())
        .collect()
}

/// An ApiVersions response for a client whose version is unknown: the oldest, which all can read.
fn api_versions_v0(correlation_id: i32, response: &ApiVersionsResponse) -> Result<Frame, String> {
    encode_frame(0, correlation_id, response, 0).map_err(|error| format!("ApiVersions v0: {error}"))
}
