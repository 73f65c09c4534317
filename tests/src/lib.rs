//! What the integration tests share: the real `milena` binary in a data folder of its own, and
//! rdkafka clients that talk to it.

pub mod bank;
pub mod client_matrix;
pub mod compaction_load;
pub mod feature_kills;
pub mod kill_rounds;
pub mod random;
pub mod transaction;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, FromClientConfig};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, ThreadedProducer};
use rdkafka::{Offset, TopicPartitionList};
use tempfile::TempDir;

/// How long anything in a test may take before it counts as hung.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// What a consumer is given of transactions: its `isolation.level`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// Only committed ones, up to where the oldest open one begins.
    ReadCommitted,
    /// All records, whatever becomes of them.
    ReadUncommitted,
}

impl Isolation {
    /// As librdkafka's setting names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::ReadCommitted => "read_committed",
            Self::ReadUncommitted => "read_uncommitted",
        }
    }
}

/// The `milena` binary of this build, built first where it is not up to date.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let exe = std::env::current_exe().expect("the test's own path");
        let dir = exe.parent().expect("target/<profile>[/deps]");
        let profile_dir = if dir.ends_with("deps") {
            dir.parent().expect("target/<profile>")
        } else {
            dir
        };
        let profile = match profile_dir.file_name().and_then(|name| name.to_str()) {
            Some("debug") | None => "dev",
            Some(other) => other,
        };
        let status = Command::new(env!("CARGO"))
            .args([
                "build",
                "--quiet",
                "--workspace",
                "--bin",
                "milena",
                "--profile",
                profile,
            ])
            .arg("--target-dir")
            .arg(profile_dir.parent().expect("the target folder"))
            .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
            .status()
            .expect("cargo runs");
        assert!(
            status.success(),
            "cargo build of the milena binary failed: {status}"
        );
        profile_dir.join("milena")
    })
}

/// The repository's root.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .canonicalize()
        .expect("the repository")
}

/// A port that was free a moment ago, and that no connection takes as its own end: those are from 32,768 on.
/// While a broker is away its clients try to connect all the time, and would take its port sooner or later.
pub fn free_port() -> u16 {
    const FIRST: u32 = 12_000;
    const COUNT: u32 = 20_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Tests that run at the same time begin at places of their own.
    let begin = std::process::id().wrapping_mul(7_919);
    let mut ports = (0..COUNT).map(|_| {
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        (FIRST + begin.wrapping_add(next) % COUNT) as u16
    });
    let is_free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    ports.find(is_free).expect("a free port")
}

/// A running `milena serve`, in a folder that goes when it is dropped.
pub struct Milena {
    dir: TempDir,
    port: u16,
    http_port: u16,
    config: String,
    child: Option<Child>,
    starts: usize,
    open_files: Option<u64>,
    environment: Vec<(String, String)>,
    arguments: Vec<String>,
}

impl Milena {
    /// Starts with `config` (TOML; `[broker]` and `[http]` are written by this function) and waits
    /// until it answers.
    pub fn start(config: &str) -> Self {
        Self::start_with_broker("", config)
    }

    /// As [`Milena::start`], with further keys of the `[broker]` table.
    pub fn start_with_broker(broker: &str, config: &str) -> Self {
        let mut milena = Self::prepare(broker, config);
        milena.restart();
        milena
    }

    /// Writes the config without starting.
    pub fn prepare(broker: &str, config: &str) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("milena-test-")
            .tempdir()
            .expect("a folder");
        let (port, http_port) = (free_port(), free_port());
        let config = format!(
            "[broker]\nlisten = \"127.0.0.1:{port}\"\ndata_dir = {:?}\n{broker}\n\
             [http]\nlisten = \"127.0.0.1:{http_port}\"\n{config}\n",
            dir.path().join("data")
        );
        fs::write(dir.path().join("milena.toml"), &config).expect("the config");
        Self {
            dir,
            port,
            http_port,
            config,
            child: None,
            starts: 0,
            open_files: None,
            environment: Vec::new(),
            arguments: Vec::new(),
        }
    }

    /// The next start may have so many files open, and can't raise that.
    pub fn limit_open_files(&mut self, files: u64) {
        self.open_files = Some(files);
    }

    /// The next starts have these environment variables, and no others beside the test's own.
    pub fn set_environment(&mut self, variables: &[(&str, &str)]) {
        let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        self.environment = variables.iter().map(owned).collect();
    }

    /// The next starts have these arguments after those that they always have.
    pub fn set_arguments(&mut self, arguments: &[&str]) {
        self.arguments = arguments
            .iter()
            .map(|&argument| argument.to_owned())
            .collect();
    }

    /// Starts it (again) and waits until it answers.
    pub fn restart(&mut self) {
        self.spawn();
        self.wait_until_it_answers();
    }

    /// Starts it without waiting.
    pub fn spawn(&mut self) {
        assert!(self.child.is_none(), "it runs already");
        self.starts += 1;
        let log = File::create(self.log_path()).expect("the log file");
        let mut command = Command::new(binary());
        command
            .args(["serve", "--config"])
            .arg(self.dir.path().join("milena.toml"))
            .args(&self.arguments)
            .current_dir(repository())
            .env("MILENA_LOG", "info")
            .envs(self.environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the log file"))
            .stderr(log);
        if let Some(files) = self.open_files {
            let limit = libc::rlimit {
                rlim_cur: files,
                rlim_max: files,
            };
            let set = move || {
                // SAFETY: `limit` is a whole `rlimit`, and is only read during the call.
                match unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } {
                    0 => Ok(()),
                    _ => Err(std::io::Error::last_os_error()),
                }
            };
            // SAFETY: between fork and exec it makes one system call and allocates nothing.
            unsafe { command.pre_exec(set) };
        }
        self.child = Some(command.spawn().expect("milena starts"));
    }

    /// Waits for the whole answer to a first request.
    pub fn wait_until_it_answers(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        while self.api_versions().is_err() {
            if let Some(status) = self
                .child
                .as_mut()
                .and_then(|c| c.try_wait().ok().flatten())
            {
                panic!("milena ended with {status}:\n{}", self.log());
            }
            assert!(
                Instant::now() < deadline,
                "milena does not answer:\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    /// One request on a connection of its own. The address is bound before the start is finished;
    /// only an answer says that it is.
    fn api_versions(&self) -> std::io::Result<()> {
        // ApiVersions v0, correlation id 1, no client id.
        const REQUEST: [u8; 14] = [0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 1, 0xff, 0xff];
        let mut stream = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, self.port)))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(&REQUEST)?;
        let mut length = [0; 4];
        stream.read_exact(&mut length)?;
        stream.read_exact(&mut vec![0; u32::from_be_bytes(length) as usize])
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().expect("SIGKILL");
        child.wait().expect("its end");
    }

    /// SIGTERM, and waits for the end.
    pub fn stop(&mut self) -> ExitStatus {
        let child = self.child.as_ref().expect("it runs");
        // SAFETY: kill(2) has no memory effects; the pid is that of a child not yet waited for.
        let sent = unsafe { libc::kill(child.id() as libc::pid_t, libc::SIGTERM) };
        assert_eq!(sent, 0, "SIGTERM");
        self.wait_for_exit()
    }

    /// Waits for an end that it comes to by itself.
    pub fn wait_for_exit(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self
                .child
                .as_mut()
                .expect("it runs")
                .try_wait()
                .expect("wait")
            {
                self.child = None;
                return status;
            }
            assert!(
                Instant::now() < deadline,
                "milena does not end:\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// `host:port` for clients.
    pub fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The port that speaks Kafka's protocol.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The port of `/metrics`.
    pub fn http_port(&self) -> u16 {
        self.http_port
    }

    /// The value of a metric, named with its labels where it has some, from `/metrics`.
    pub fn metric(&self, name: &str) -> f64 {
        self.metric_if_there(name)
            .unwrap_or_else(|| panic!("no {name} in /metrics"))
    }

    /// As [`Milena::metric`]; `None` where nothing was recorded under that name.
    pub fn metric_if_there(&self, name: &str) -> Option<f64> {
        let (_, text) = self.get("/metrics");
        text.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
    }

    /// `GET` over HTTP: the status and the body.
    pub fn get(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.http_port)).expect("http");
        let request = format!("GET {path} HTTP/1.1\r\nhost: milena\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("http takes it");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("http answers");
        let (head, body) = text.split_once("\r\n\r\n").expect("a response");
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
        (status.expect("a status"), body.to_owned())
    }

    /// Resident and anonymous memory of the process, in bytes.
    pub fn resident_bytes(&self) -> (u64, u64) {
        let status =
            fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("its status");
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let kb = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
            kb.expect("a number of kB") * 1024
        };
        (field("VmRSS:"), field("RssAnon:"))
    }

    /// The process's id.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    /// Its data folder.
    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Its config file's text.
    pub fn config(&self) -> &str {
        &self.config
    }

    /// Replaces the config for the next start.
    pub fn set_config(&mut self, config: String) {
        fs::write(self.dir.path().join("milena.toml"), &config).expect("the config");
        self.config = config;
    }

    /// What it has logged since its last start.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    fn log_path(&self) -> PathBuf {
        self.dir.path().join(format!("milena-{}.log", self.starts))
    }

    /// A client configuration that points here.
    pub fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.bootstrap());
        config
    }

    /// A client of type `T` with further settings.
    pub fn client_with<T: FromClientConfig>(&self, settings: &[(&str, &str)]) -> T {
        let mut config = self.client();
        for (key, value) in settings {
            config.set(*key, *value);
        }
        config.create().expect("a client")
    }

    /// Every record of a topic from the start, by partition, up to the ends that it has now.
    pub fn read_topic(&self, topic: &str) -> BTreeMap<i32, Vec<Received>> {
        self.read_topic_from(topic, &BTreeMap::new())
    }

    /// As [`Milena::read_topic`], from given offsets.
    pub fn read_topic_from(
        &self,
        topic: &str,
        from: &BTreeMap<i32, i64>,
    ) -> BTreeMap<i32, Vec<Received>> {
        self.read_topic_as(Isolation::ReadCommitted, topic, from)
    }

    /// As [`Milena::read_topic_from`], of open and aborted transactions what the isolation level gives.
    pub fn read_topic_as(
        &self,
        isolation: Isolation,
        topic: &str,
        from: &BTreeMap<i32, i64>,
    ) -> BTreeMap<i32, Vec<Received>> {
        let mut received: BTreeMap<i32, Vec<Received>> = BTreeMap::new();
        let ends = self.visit(isolation, topic, from, |partition, record| {
            received.entry(partition).or_default().push(record);
        });
        for partition in ends.into_keys() {
            received.entry(partition).or_default();
        }
        received
    }

    /// Gives each record of a topic, from given offsets up to the ends that it has now, which are returned.
    pub fn visit(
        &self,
        isolation: Isolation,
        topic: &str,
        from: &BTreeMap<i32, i64>,
        visitor: impl FnMut(i32, Received),
    ) -> BTreeMap<i32, i64> {
        let consumer: BaseConsumer = self.client_with(&[
            ("group.id", "unused"),
            ("enable.auto.commit", "false"),
            ("isolation.level", isolation.name()),
            ("fetch.wait.max.ms", "50"),
            // Nothing else says that a log ends in records that are not given out.
            ("enable.partition.eof", "true"),
        ]);
        visit(&consumer, topic, from, visitor)
    }

    /// The end offset of each partition: what a consumer in read_committed may read up to.
    pub fn ends(&self, topic: &str) -> BTreeMap<i32, i64> {
        self.ends_as(Isolation::ReadCommitted, topic)
    }

    /// The last stable offset of each partition, or its high watermark.
    pub fn ends_as(&self, isolation: Isolation, topic: &str) -> BTreeMap<i32, i64> {
        let settings = [
            ("group.id", "unused"),
            ("isolation.level", isolation.name()),
        ];
        let consumer: BaseConsumer = self.client_with(&settings);
        ends(&consumer, topic)
    }
}

impl Drop for Milena {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            eprintln!("milena's log:\n{}", self.log());
        }
    }
}

/// A record as a consumer saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// Its offset.
    pub offset: i64,
    /// Milliseconds since the epoch.
    pub timestamp_ms: Option<i64>,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its value.
    pub value: Option<Vec<u8>>,
    /// In order; a null value is empty.
    pub headers: Vec<(String, Vec<u8>)>,
}

impl Received {
    /// The header of that name, as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers.iter().find(|(key, _)| key == name)?;
        std::str::from_utf8(value).ok()
    }

    fn from_message(message: &BorrowedMessage<'_>) -> Self {
        Self {
            offset: message.offset(),
            timestamp_ms: message.timestamp().to_millis(),
            key: message.key().map(<[u8]>::to_vec),
            value: message.payload().map(<[u8]>::to_vec),
            headers: message
                .headers()
                .map(|headers| {
                    headers
                        .iter()
                        .map(|h| (h.key.to_owned(), h.value.unwrap_or_default().to_vec()))
                        .collect()
                })
                .unwrap_or_default(),
        }
    }
}

fn ends<C: ClientContext + ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
) -> BTreeMap<i32, i64> {
    let metadata = consumer
        .fetch_metadata(Some(topic), PATIENCE)
        .expect("metadata");
    let topic_metadata = metadata.topics().first().expect("the topic");
    assert!(
        topic_metadata.error().is_none(),
        "{topic}: {:?}",
        topic_metadata.error()
    );
    topic_metadata
        .partitions()
        .iter()
        .map(|p| {
            let (_, end) = consumer
                .fetch_watermarks(topic, p.id(), PATIENCE)
                .expect("the partition's ends");
            (p.id(), end)
        })
        .collect()
}

fn visit<C: ClientContext + ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    from: &BTreeMap<i32, i64>,
    mut visitor: impl FnMut(i32, Received),
) -> BTreeMap<i32, i64> {
    let ends = ends(consumer, topic);
    let mut assignment = TopicPartitionList::new();
    let mut open = BTreeMap::new();
    for (&partition, &end) in &ends {
        let start = from.get(&partition).copied().unwrap_or(0);
        if start < end {
            open.insert(partition, end);
            assignment
                .add_partition_offset(topic, partition, Offset::Offset(start))
                .expect("an assignment");
        }
    }
    consumer.assign(&assignment).expect("assign");
    let mut last = Instant::now();
    while !open.is_empty() {
        let Some(message) = consumer.poll(Duration::from_millis(100)) else {
            assert!(
                last.elapsed() < PATIENCE,
                "no records of '{topic}' for {PATIENCE:?}: {open:?}"
            );
            continue;
        };
        last = Instant::now();
        let message = match message {
            // Aborted records and the markers that end transactions are passed over without a message.
            Err(KafkaError::PartitionEOF(partition)) => {
                open.remove(&partition);
                continue;
            }
            message => message.expect("a record"),
        };
        let partition = message.partition();
        if message.offset() + 1 >= ends[&partition] {
            open.remove(&partition);
        }
        if message.offset() < ends[&partition] {
            visitor(partition, Received::from_message(&message));
        }
    }
    ends
}

/// Waits until `done` gives a value.
pub fn eventually<T>(what: &str, mut done: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = done() {
            return value;
        }
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Writes a model's folder: its card and its f32 tensors, as an exporter would.
pub fn write_model(dir: &Path, card: &serde_json::Value, tensors: &[(&str, &[usize], &[f32])]) {
    fs::write(dir.join("config.json"), card.to_string()).expect("config.json");
    let bytes: Vec<Vec<u8>> = tensors
        .iter()
        .map(|(_, _, values)| values.iter().flat_map(|v| v.to_le_bytes()).collect())
        .collect();
    let views = tensors.iter().zip(&bytes).map(|((name, shape, _), bytes)| {
        let view =
            safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.to_vec(), bytes);
        (*name, view.expect("a tensor"))
    });
    safetensors::serialize_to_file(views, None, &dir.join("model.safetensors")).expect("weights");
}

/// Queues a record, waiting where the producer's queue is full.
pub fn send(
    producer: &ThreadedProducer<DefaultProducerContext>,
    mut record: BaseRecord<'_, [u8], [u8]>,
) {
    loop {
        match producer.send(record) {
            Ok(()) => return,
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), returned)) => {
                record = returned;
                std::thread::sleep(Duration::from_micros(500));
            }
            Err((error, _)) => panic!("produce: {error}"),
        }
    }
}
