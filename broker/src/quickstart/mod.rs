//! `milena quickstart`: a broker, a trained model topic and live traffic in one command.
//!
//! - [`example`]: the fraud example's config and model, carried in the binary;
//! - [`transactions`], [`random`]: the traffic, made up from a seed;
//! - [`client`]: a small Kafka client; nothing here reaches the broker but through a socket;
//! - [`feed`], [`scores`], [`tracker`], [`session`]: transactions in, scores out, each matched once;
//! - [`display`]: what is printed;
//! - [`rows`], [`auc`]: what the model is given, and how good a score is: for its training and its test.

pub mod auc;
pub mod client;
pub mod display;
pub mod example;
pub mod feed;
pub mod random;
pub mod rows;
pub mod scores;
pub mod session;
pub mod tracker;
pub mod transactions;

use std::cell::RefCell;
use std::net::SocketAddr;
use std::path::PathBuf;

use tokio::sync::watch;

use crate::config::{Config, ConfigErrors};
use crate::server::{OpenError, Server, StartError};
use client::ClientError;
use display::Display;
use example::{DERIVED, INPUT};
use session::Outcome;

/// Where the quickstart listens, and where it keeps its data, unless it is told otherwise.
pub const DEFAULT_PORT: u16 = 9092;
/// See [`DEFAULT_PORT`].
pub const DEFAULT_DATA_DIR: &str = "data/quickstart";
/// Transactions a second where no number of them is given.
pub const DEFAULT_RATE: u32 = 2000;

/// What the user asks for.
#[derive(Clone, Debug)]
pub struct Options {
    /// End after so many transactions; `None` goes on until it is stopped.
    pub records: Option<u64>,
    /// Transactions a second; `None` is [`DEFAULT_RATE`], or with `records` as many as are scored.
    pub rate: Option<u32>,
    /// The folder of config, model and logs.
    pub data_dir: PathBuf,
    /// On 127.0.0.1; 0 takes a free one.
    pub port: u16,
}

/// Starts the broker, runs the traffic against it until it is through or `stop` turns true, and stops
/// the broker cleanly. An error also where a transaction is missing from the scores or twice in them.
pub async fn run(options: Options, stop: watch::Receiver<bool>) -> Result<(), QuickstartError> {
    let server = Server::start(config(&options)?).await?;
    let (address, http) = (server.local_addr(), server.http_addr());
    // The client has a thread of its own, as if it were elsewhere.
    let ran = tokio::task::spawn_blocking(move || -> Result<Outcome, QuickstartError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(traffic(&options, address, http, stop))
    })
    .await;
    let stopped = server.stop().await;
    let outcome = ran.map_err(|error| QuickstartError::Panicked(error.to_string()))??;
    stopped?;
    match outcome.fault() {
        None => Ok(()),
        Some(fault) => Err(QuickstartError::Fault(fault)),
    }
}

/// The example's config, for this folder and port.
fn config(options: &Options) -> Result<Config, QuickstartError> {
    let in_folder = |error: std::io::Error| QuickstartError::Folder {
        folder: options.data_dir.clone(),
        error,
    };
    let file = example::install(&options.data_dir).map_err(in_folder)?;
    let mut config = Config::load(&file)?;
    config.broker.listen = format!("127.0.0.1:{}", options.port);
    config.broker.data_dir = options.data_dir.join("log");
    if options.port != DEFAULT_PORT {
        // Beside another broker the usual port of the metrics is likely taken too.
        config.http.listen = "127.0.0.1:0".to_owned();
    }
    Ok(config)
}

async fn traffic(
    options: &Options,
    address: SocketAddr,
    http: Option<SocketAddr>,
    stop: watch::Receiver<bool>,
) -> Result<Outcome, QuickstartError> {
    let display = RefCell::new(Display::stdout());
    let start = session::look(address).await?;
    display
        .borrow_mut()
        .opening(address, http, &options.data_dir, &start)?;
    let rate = match (options.rate, options.records) {
        (None, None) => Some(DEFAULT_RATE),
        (rate, _) => rate,
    };
    let outcome = session::run(address, &start, options.records, rate, &display, stop).await?;
    display.borrow_mut().summary(&outcome)?;
    if let (Some(http), Some(customer)) = (http, &outcome.customer) {
        let path = format!("/v1/state/{DERIVED}/{customer}");
        let url = format!("http://{http}{path}");
        let state = state(url.clone()).await?;
        display.borrow_mut().state(customer, &url, &state)?;
    }
    Ok(outcome)
}

/// What is remembered of a customer, as JSON.
async fn state(url: String) -> Result<String, QuickstartError> {
    let asked = tokio::task::spawn_blocking(move || {
        ureq::get(&url)
            .call()
            .and_then(|answer| answer.into_body().read_to_string())
            .map_err(|error| QuickstartError::State(format!("{url}: {error}")))
    });
    asked
        .await
        .map_err(|error| QuickstartError::Panicked(error.to_string()))?
}

/// Why the quickstart ended early.
#[derive(Debug, thiserror::Error)]
pub enum QuickstartError {
    /// The folder can't be written.
    #[error("{folder}: {error}", folder = .folder.display())]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// The system's words.
        error: std::io::Error,
    },
    /// The example's config is not taken.
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    /// The broker did not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The broker did not stop cleanly.
    #[error("stopping the broker: {0}")]
    Stop(#[from] OpenError),
    /// A transaction is missing from the scores or twice in them.
    #[error("{0}")]
    Fault(String),
    /// What is remembered of a customer can't be read.
    #[error("{0}")]
    State(String),
    /// The client's thread panicked.
    #[error("the client panicked: {0}")]
    Panicked(String),
    /// A request to the broker failed.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A batch could not be made.
    #[error("encoding transactions: {0}")]
    Encode(String),
    /// The answer to a produce request left a partition out.
    #[error("the broker did not answer for {INPUT}/{partition}")]
    NotAcknowledged {
        /// The partition.
        partition: i32,
    },
    /// A record of the derived topic is not what the model topic writes.
    #[error("{topic}/{partition} offset {offset} is not a score: {reason}")]
    Output {
        /// The derived topic.
        topic: &'static str,
        /// The partition.
        partition: i32,
        /// The offset.
        offset: i64,
        /// What is wrong.
        reason: String,
    },
    /// Scores stopped coming.
    #[error("no score came for a long time, {unscored} transactions wait for theirs")]
    Stalled {
        /// Acknowledged and not scored.
        unscored: u64,
    },
    /// The derived topic ends before its end.
    #[error("the derived topic can't be read to its end")]
    Unreadable,
    /// The terminal or the pipe is gone.
    #[error("standard output: {0}")]
    Write(#[from] std::io::Error),
    /// A histogram can't be made.
    #[error("latencies: {0}")]
    Latency(#[from] hdrhistogram::CreationError),
}

impl QuickstartError {
    fn encode(error: impl ToString) -> QuickstartError {
        QuickstartError::Encode(error.to_string())
    }
}
