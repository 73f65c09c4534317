//! Clients that do no more than they must: raw requests over one connection, so that what is measured is
//! the broker and not the client.

mod closed_loop;
mod fetch;
mod produce;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::Context;
use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::{ApiKey, RequestHeader, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable, Request};

pub use closed_loop::{ClosedLoop, Epoll, Exchanges};
pub use fetch::{Consumer, MAX_BYTES, PARTITION_MAX_BYTES};
pub use produce::{api_versions_frame, check_produced, produce_frame};

const TIMEOUT: Duration = Duration::from_secs(60);

/// A connection that has one request in flight.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    buffer: BytesMut,
}

impl Connection {
    /// Connects, with Nagle's algorithm off.
    pub fn open(bootstrap: &str) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(bootstrap).with_context(|| bootstrap.to_owned())?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        Ok(Self {
            stream,
            buffer: BytesMut::new(),
        })
    }

    /// Sends a whole frame and returns the response's, without its length.
    pub fn exchange(&mut self, frame: &[u8]) -> anyhow::Result<Bytes> {
        self.stream.write_all(frame)?;
        let mut length = [0; 4];
        self.stream.read_exact(&mut length)?;
        self.buffer.resize(u32::from_be_bytes(length) as usize, 0);
        self.stream.read_exact(&mut self.buffer)?;
        Ok(self.buffer.split().freeze())
    }

    /// Sends a request and returns its response.
    pub fn call<R: Request>(&mut self, request: &R, version: i16) -> anyhow::Result<R::Response> {
        let response = self.exchange(&frame(request, version)?)?;
        decode::<R>(response, version)
    }
}

/// A request as it is sent, with its length and header.
pub fn frame<R: Request>(request: &R, version: i16) -> anyhow::Result<Bytes> {
    let mut frame = BytesMut::zeroed(4);
    RequestHeader::default()
        .with_request_api_key(R::KEY)
        .with_request_api_version(version)
        .encode(&mut frame, key::<R>()?.request_header_version(version))?;
    request.encode(&mut frame, version)?;
    let length = (frame.len() - 4) as u32;
    frame[..4].copy_from_slice(&length.to_be_bytes());
    Ok(frame.freeze())
}

/// A response as it comes, without its length.
pub fn decode<R: Request>(mut response: Bytes, version: i16) -> anyhow::Result<R::Response> {
    ResponseHeader::decode(&mut response, key::<R>()?.response_header_version(version))?;
    R::Response::decode(&mut response, version)
}

fn key<R: Request>() -> anyhow::Result<ApiKey> {
    ApiKey::try_from(R::KEY).map_err(|()| anyhow::anyhow!("no API has key {}", R::KEY))
}
