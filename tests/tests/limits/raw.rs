//! Clients that send what they like.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use kafka_protocol::messages::{RequestHeader, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};
use tests::{Milena, PATIENCE};

/// Raises this process's limit of open files as far as the system lets it, and returns it.
pub fn raise_open_files() -> u64 {
    broker::open_files::raise_limit().expect("the limit of open files")
}

/// A connection to the broker.
pub fn connect(milena: &Milena) -> TcpStream {
    try_connect(milena).expect("a connection")
}

/// A connection to the broker, if the system gives one.
pub fn try_connect(milena: &Milena) -> io::Result<TcpStream> {
    connect_from(milena, Ipv4Addr::LOCALHOST)
}

/// A connection to the broker from another address of this machine.
pub fn connect_from(milena: &Milena, address: Ipv4Addr) -> io::Result<TcpStream> {
    let to = SocketAddr::from((Ipv4Addr::LOCALHOST, milena.port()));
    let stream = if address == Ipv4Addr::LOCALHOST {
        TcpStream::connect(to)?
    } else {
        from(IpAddr::V4(address), to)?
    };
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn from(address: IpAddr, to: SocketAddr) -> io::Result<TcpStream> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    let connecting = async {
        let socket = tokio::net::TcpSocket::new_v4()?;
        socket.bind(SocketAddr::from((address, 0)))?;
        socket.connect(to).await
    };
    let stream = runtime.block_on(connecting)?.into_std()?;
    stream.set_nonblocking(false)?;
    Ok(stream)
}

/// A request, with its length.
pub fn request<R: Request>(version: i16, correlation_id: i32, request: &R) -> Vec<u8> {
    let mut frame = BytesMut::new();
    RequestHeader::default()
        .with_request_api_key(R::KEY)
        .with_request_api_version(version)
        .with_correlation_id(correlation_id)
        .with_client_id(Some(StrBytes::from_static_str("limits")))
        .encode(&mut frame, R::header_version(version))
        .expect("a header");
    request.encode(&mut frame, version).expect("a request");
    [&(frame.len() as u32).to_be_bytes()[..], &frame].concat()
}

/// The next response, without its length.
pub fn receive(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut len = [0; 4];
    stream.read_exact(&mut len)?;
    let mut body = vec![0; u32::from_be_bytes(len) as usize];
    stream.read_exact(&mut body)?;
    Ok(body)
}

/// Asks, and waits for the answer.
pub fn call<R: Request>(stream: &mut TcpStream, version: i16, body: &R) -> R::Response {
    try_call(stream, version, body).expect("an answer")
}

/// As [`call`], on a connection that may be closed.
pub fn try_call<R: Request>(
    stream: &mut TcpStream,
    version: i16,
    body: &R,
) -> io::Result<R::Response> {
    stream.write_all(&request(version, 7, body))?;
    let mut answer = bytes::Bytes::from(receive(stream)?);
    let header = ResponseHeader::decode(&mut answer, R::Response::header_version(version));
    assert_eq!(header.expect("a header").correlation_id, 7);
    Ok(R::Response::decode(&mut answer, version).expect("it decodes"))
}

/// The broker closes the connection within `limit`; what it sends before does not count.
pub fn is_closed_within(stream: &mut TcpStream, limit: Duration) -> bool {
    let begin = Instant::now();
    let mut rest = [0; 64 * 1024];
    while let Some(left) = limit.checked_sub(begin.elapsed()) {
        let left = left.max(Duration::from_millis(1));
        stream.set_read_timeout(Some(left)).expect("a timeout");
        match stream.read(&mut rest) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return true,
            Err(_) => {}
        }
    }
    false
}

/// One request and its answer: the broker serves.
pub fn is_served(stream: &mut TcpStream) -> bool {
    // ApiVersions v0, correlation id 7, no client id.
    const REQUEST: [u8; 14] = [0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 7, 0xff, 0xff];
    stream.write_all(&REQUEST).is_ok()
        && receive(stream).is_ok_and(|answer| answer.starts_with(&[0, 0, 0, 7, 0, 0]))
}
