//! GetTelemetrySubscriptions v0 (KIP-714): no client metrics are wanted.
//!
//! Newer Java clients ask on every connection and log an error where this API is missing. The
//! answer is an empty subscription, which they don't push to, and which they renew after
//! `PUSH_INTERVAL_MS`.

use std::ops::RangeInclusive;

use kafka_protocol::messages::{
    GetTelemetrySubscriptionsRequest, GetTelemetrySubscriptionsResponse,
};
use uuid::Uuid;

use crate::router::{Reply, RequestContext};

/// The versions served.
pub const VERSIONS: RangeInclusive<i16> = 0..=0;

/// How long a client waits before it asks again, and Kafka's default.
const PUSH_INTERVAL_MS: i32 = 5 * 60 * 1000;

/// The largest push that would be accepted, Kafka's default.
const TELEMETRY_MAX_BYTES: i32 = 1024 * 1024;

/// Answers with an empty subscription.
pub async fn handle(
    _context: &RequestContext,
    request: GetTelemetrySubscriptionsRequest,
) -> Reply<GetTelemetrySubscriptionsResponse> {
    // A client that has no id yet is given one.
    let id = match request.client_instance_id {
        id if id.is_nil() => Uuid::new_v4(),
        id => id,
    };
    Reply::Now(
        GetTelemetrySubscriptionsResponse::default()
            .with_client_instance_id(id)
            .with_push_interval_ms(PUSH_INTERVAL_MS)
            .with_telemetry_max_bytes(TELEMETRY_MAX_BYTES)
            .with_delta_temporality(true),
    )
}
