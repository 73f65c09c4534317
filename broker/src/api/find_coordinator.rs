//! FindCoordinator (10), versions 0 to 6: this broker coordinates every group and every transaction.
//!
//! Looking for a coordinator creates `__consumer_offsets` or `__transaction_state`, as in Kafka; where
//! that fails the answer is COORDINATOR_NOT_AVAILABLE, which clients retry. Share groups are not served.

use std::ops::RangeInclusive;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::messages::{BrokerId, FindCoordinatorRequest, FindCoordinatorResponse};
use kafka_protocol::protocol::StrBytes;

use crate::router::{Reply, RequestContext};

/// Versions served.
pub const VERSIONS: RangeInclusive<i16> = 0..=6;

/// From this version on, a request names any number of keys.
const BATCHES_SINCE: i16 = 4;

const KEY_TYPE_GROUP: i8 = 0;
const KEY_TYPE_TRANSACTION: i8 = 1;

/// Why there is no coordinator for a key.
type Refusal = (ResponseError, String);

/// Answers with this broker.
pub async fn handle(
    ctx: &RequestContext,
    request: FindCoordinatorRequest,
) -> Reply<FindCoordinatorResponse> {
    let result = ensure_topic(ctx, request.key_type).await;
    let keys = if ctx.api_version >= BATCHES_SINCE {
        request.coordinator_keys
    } else {
        vec![request.key]
    };
    let mut found = keys.into_iter().map(|key| coordinator(ctx, key, &result));
    Reply::Now(if ctx.api_version >= BATCHES_SINCE {
        FindCoordinatorResponse::default().with_coordinators(found.collect())
    } else {
        let found = found.next().unwrap_or_default();
        FindCoordinatorResponse::default()
            .with_error_code(found.error_code)
            .with_error_message(found.error_message)
            .with_node_id(found.node_id)
            .with_host(found.host)
            .with_port(found.port)
    })
}

/// The topic that the coordinator keeps its state in.
async fn ensure_topic(ctx: &RequestContext, key_type: i8) -> Result<(), Refusal> {
    let refused = |error: &dyn std::fmt::Display, code: ResponseError| {
        tracing::error!(key_type, %error, "nothing can be coordinated");
        (code, error.to_string())
    };
    let broker = &ctx.broker;
    match key_type {
        KEY_TYPE_GROUP => {
            let ensured = broker.groups.ensure_offsets_topic().await;
            ensured.map_err(|error| refused(&error, error.code()))
        }
        KEY_TYPE_TRANSACTION => {
            let ensured = broker.transactions.ensure_state_topic().await;
            ensured.map_err(|error| refused(&error, error.code()))
        }
        other => Err((
            ResponseError::InvalidRequest,
            format!("coordinators of key type {other} are not served by this broker"),
        )),
    }
}

fn coordinator(ctx: &RequestContext, key: StrBytes, result: &Result<(), Refusal>) -> Coordinator {
    let coordinator = Coordinator::default().with_key(key);
    match result {
        Ok(()) => {
            let (host, port) = &ctx.broker.advertised;
            coordinator
                .with_node_id(BrokerId(ctx.broker.node_id))
                .with_host(StrBytes::from_string(host.clone()))
                .with_port(i32::from(*port))
        }
        Err((code, message)) => coordinator
            .with_node_id(BrokerId(-1))
            .with_port(-1)
            .with_error_code(code.code())
            .with_error_message(Some(StrBytes::from_string(message.clone()))),
    }
}
