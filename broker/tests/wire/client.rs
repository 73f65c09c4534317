//! A server in this process, and a client that can also be wrong.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use broker::config::Config;
use broker::server::{RunningServer, Server};
use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::{RequestHeader, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};
use tempfile::TempDir;

/// A server on a free port with a data folder of its own.
pub struct Served {
    runtime: tokio::runtime::Runtime,
    server: Option<RunningServer>,
    pub address: SocketAddr,
    pub http: Option<SocketAddr>,
    pub folder: TempDir,
}

pub fn config(folder: &TempDir) -> Config {
    let mut config = Config::default();
    config.broker.listen = "127.0.0.1:0".to_owned();
    config.broker.data_dir = folder.path().join("data");
    config.http.listen = "127.0.0.1:0".to_owned();
    config.group.group_initial_rebalance_delay_ms = 0;
    config
}

impl Served {
    pub fn start() -> Self {
        Self::start_with(|_| {})
    }

    pub fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let mut config = config(&folder);
        change(&mut config);
        Self::start_in(folder, config)
    }

    pub fn start_in(folder: TempDir, config: Config) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime");
        let server = runtime
            .block_on(Server::start(config))
            .expect("the server starts");
        let (address, http) = (server.local_addr(), server.http_addr());
        Self {
            runtime,
            server: Some(server),
            address,
            http,
            folder,
        }
    }

    pub fn connect(&self) -> Client {
        Client::connect(self.address)
    }

    /// Creates what clients may not create.
    pub fn create_topic(&self, new: broker::catalog::NewTopic) {
        let server = self.server.as_ref().expect("it runs");
        let created = server.broker().catalog.create_topic(new);
        self.runtime.block_on(created).expect("a topic");
    }

    /// Stops cleanly and gives the folder back.
    pub fn stop(mut self) -> TempDir {
        if let Some(server) = self.server.take() {
            self.runtime.block_on(server.stop()).expect("a clean stop");
        }
        self.folder
    }

    /// Begins to stop, without waiting for it.
    pub fn stop_soon(mut self) -> std::thread::JoinHandle<TempDir> {
        std::thread::spawn(move || {
            if let Some(server) = self.server.take() {
                self.runtime.block_on(server.stop()).expect("a clean stop");
            }
            self.folder
        })
    }
}

pub struct Client {
    stream: TcpStream,
    correlation_id: i32,
}

impl Client {
    pub fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("the server accepts");
        stream
            .set_read_timeout(Some(Duration::from_secs(30)))
            .expect("a timeout");
        stream.set_nodelay(true).expect("nodelay");
        Self {
            stream,
            correlation_id: 100,
        }
    }

    pub fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the server takes it");
    }

    pub fn write_frame(&mut self, body: &[u8]) {
        self.write(&[&(body.len() as u32).to_be_bytes()[..], body].concat());
    }

    /// Sends header and body of any API at any version, and returns the correlation id.
    pub fn write_request(&mut self, api: i16, version: i16, flexible: bool, body: &[u8]) -> i32 {
        self.correlation_id += 1;
        let mut frame = BytesMut::new();
        frame.put_i16(api);
        frame.put_i16(version);
        frame.put_i32(self.correlation_id);
        frame.put_i16(4);
        frame.put_slice(b"test");
        if flexible {
            frame.put_u8(0);
        }
        frame.put_slice(body);
        self.write_frame(&frame);
        self.correlation_id
    }

    pub fn send<R: Request>(&mut self, version: i16, request: &R) -> i32 {
        self.correlation_id += 1;
        let mut frame = BytesMut::new();
        RequestHeader::default()
            .with_request_api_key(R::KEY)
            .with_request_api_version(version)
            .with_correlation_id(self.correlation_id)
            .with_client_id(Some(StrBytes::from_static_str("test")))
            .encode(&mut frame, R::header_version(version))
            .expect("a header");
        request.encode(&mut frame, version).expect("a request");
        self.write_frame(&frame);
        self.correlation_id
    }

    /// The next response, without its length.
    pub fn receive(&mut self) -> io::Result<Bytes> {
        let mut len = [0; 4];
        self.stream.read_exact(&mut len)?;
        let mut body = vec![0; u32::from_be_bytes(len) as usize];
        self.stream.read_exact(&mut body)?;
        Ok(body.into())
    }

    pub fn receive_for<R: Request>(&mut self, version: i16, correlation_id: i32) -> R::Response {
        let mut body = self.receive().expect("a response");
        let header = ResponseHeader::decode(&mut body, R::Response::header_version(version));
        assert_eq!(header.expect("a header").correlation_id, correlation_id);
        let response = R::Response::decode(&mut body, version).expect("it decodes");
        assert!(body.is_empty(), "{} bytes follow the response", body.len());
        response
    }

    pub fn call<R: Request>(&mut self, version: i16, request: &R) -> R::Response {
        let correlation_id = self.send(version, request);
        self.receive_for::<R>(version, correlation_id)
    }

    pub fn half_close(&mut self) {
        self.stream.shutdown(Shutdown::Write).expect("half closed");
    }

    /// Nothing comes any more: the server closed the connection.
    pub fn assert_closed(mut self) {
        let mut rest = Vec::new();
        match self.stream.read_to_end(&mut rest) {
            Ok(_) => assert!(
                rest.is_empty(),
                "{} bytes came before the close",
                rest.len()
            ),
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{error}"),
        }
    }
}
