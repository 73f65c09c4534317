//! One table: from an API key and version to its handler.

use std::net::IpAddr;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use kafka_protocol::protocol::StrBytes;

use crate::Broker;

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
    /// polled once every earlier response of the connection is written.
    Later(BoxFuture<'static, R>),
    /// No response at all (acks=0).
    None,
    /// Close the connection, for this reason.
    Close(String),
}
