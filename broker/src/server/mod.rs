//! The server: from a configuration to connections, and back to a clean stop.
//!
//! Start: the configuration is checked, both addresses are bound, the data folder is opened and its
//! logs recovered (`open`), and only then are connections accepted. Clients that come earlier wait
//! in the listen backlog.
//!
//! Stop, in this order, so that no accepted write is lost: no connection is accepted and nothing more
//! is read; requests that were read are answered, within [`DRAIN`]; connections close; compaction
//! ends where it is; model topics end their commits; every log is synced and the clean-shutdown marker
//! written.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use storage::LogDir;
use storage::reserved_disk::ReservedDisk;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::config::{Config, Problem};
use crate::{Broker, http, open_files};

mod accepting;
pub mod admission;
mod compaction;
mod log_allowance;
mod open;
mod retention;

use accepting::Accepting;
pub use open::OpenError;

/// How long the last responses may take at a stop.
pub const DRAIN: Duration = Duration::from_secs(5);

/// Connections that the system accepts before the server does.
const BACKLOG: u32 = 1024;

/// How soon a disk that was full is found to have room again.
const LOOK_FOR_ROOM: Duration = Duration::from_secs(1);

/// How often the metrics' histograms are folded together.
const METRICS_UPKEEP: Duration = Duration::from_secs(5);

/// Why the server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration makes no sense.
    #[error(transparent)]
    Config(#[from] Problem),
    /// An address can't be listened on.
    #[error("{key}: can't listen on {address}: {error}")]
    Listen {
        /// The configuration's key.
        key: &'static str,
        /// The address.
        address: SocketAddr,
        /// The system's words.
        error: io::Error,
    },
    /// The data folder, or what is in it, can't be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
}

/// Starts servers.
#[derive(Debug)]
pub struct Server;

impl Server {
    /// Starts a server; it serves when this returns.
    pub async fn start(config: Config) -> Result<RunningServer, StartError> {
        if let Some(problem) = config.check().into_iter().next() {
            return Err(problem.into());
        }
        http::recorder();
        let open_files = open_files::raise_limit()
            .inspect_err(|error| tracing::warn!(%error, "the limit of open files stays as it is"))
            .ok();
        let listener = bind("broker.listen", config.listen_address()?)?;
        let http_listener = match config.http_address()? {
            Some(address) => Some(bind("http.listen", address)?),
            None => None,
        };
        let local_addr = address_of("broker.listen", &listener)?;
        let http_addr = match &http_listener {
            Some(listener) => Some(address_of("http.listen", listener)?),
            None => None,
        };

        let (stop, shutdown) = watch::channel(false);
        let advertised = config.advertised(local_addr)?;
        let opened = open::open(&config, advertised, shutdown.clone()).await?;
        let (log_dir, broker) = (opened.log_dir, opened.broker);

        let compaction = tokio::spawn(compaction::run(
            log_dir.clone(),
            opened.cleaner,
            shutdown.clone(),
        ));
        let mut background = vec![
            tokio::spawn(checkpoints(
                log_dir.clone(),
                Duration::from_millis(config.broker.checkpoint_interval_ms),
                shutdown.clone(),
            )),
            tokio::spawn(retention::run(
                log_dir.clone(),
                Duration::from_millis(config.log.retention_check_interval_ms),
                shutdown.clone(),
            )),
            tokio::spawn(metrics_upkeep(shutdown.clone())),
            tokio::spawn(room(opened.disk, shutdown.clone())),
        ];
        if let Some(listener) = http_listener {
            background.push(tokio::spawn(http::serve(listener, broker.clone())));
        }
        let limits = config.connection_limits(DRAIN);
        let accepting = Accepting {
            listener,
            broker: broker.clone(),
            limits,
            open_files,
            shutdown,
        };
        tracing::info!(
            listen = %local_addr,
            http = http_addr.map(tracing::field::display),
            advertised = format!("{}:{}", broker.advertised.0, broker.advertised.1),
            data_dir = %log_dir.path().display(),
            clean = log_dir.was_clean(),
            topics = broker.catalog.topics().len(),
            "serving"
        );
        let accepting = tokio::spawn(accepting.run());
        Ok(RunningServer {
            local_addr,
            http_addr,
            broker,
            log_dir,
            stop,
            accepting,
            compaction,
            background,
        })
    }
}

/// A server that serves. Dropping it leaves it running until the runtime ends, without a clean stop.
#[derive(Debug)]
pub struct RunningServer {
    local_addr: SocketAddr,
    http_addr: Option<SocketAddr>,
    broker: Arc<Broker>,
    log_dir: Arc<LogDir>,
    stop: watch::Sender<bool>,
    accepting: JoinHandle<()>,
    compaction: JoinHandle<()>,
    background: Vec<JoinHandle<()>>,
}

impl RunningServer {
    /// Where Kafka clients connect.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Where metrics and health are served.
    pub fn http_addr(&self) -> Option<SocketAddr> {
        self.http_addr
    }

    /// What the handlers reach.
    pub fn broker(&self) -> &Arc<Broker> {
        &self.broker
    }

    /// Stops cleanly; every accepted write is on the disk when this returns.
    pub async fn stop(self) -> Result<(), OpenError> {
        tracing::info!("stopping");
        self.stop.send_replace(true);
        report_panic("accepting", self.accepting.await);
        report_panic("compaction", self.compaction.await);
        open::close(&self.broker, &self.log_dir).await?;
        for task in self.background {
            report_panic("background", task.await);
        }
        tracing::info!("stopped");
        Ok(())
    }
}

fn report_panic(task: &str, ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(task, %error, "a task panicked");
    }
}

fn bind(key: &'static str, address: SocketAddr) -> Result<TcpListener, StartError> {
    let listen = || {
        let socket = if address.is_ipv4() {
            TcpSocket::new_v4()
        } else {
            TcpSocket::new_v6()
        }?;
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    listen().map_err(|error| StartError::Listen {
        key,
        address,
        error,
    })
}

fn address_of(key: &'static str, listener: &TcpListener) -> Result<SocketAddr, StartError> {
    let unknown = SocketAddr::from(([0, 0, 0, 0], 0));
    listener.local_addr().map_err(|error| StartError::Listen {
        key,
        address: unknown,
        error,
    })
}

/// Writes recovery points now and then, so that a start after a crash has less to read.
async fn checkpoints(
    log_dir: Arc<LogDir>,
    interval: Duration,
    mut shutdown: watch::Receiver<bool>,
) {
    while every(interval, &mut shutdown).await {
        let log_dir = log_dir.clone();
        match tokio::task::spawn_blocking(move || log_dir.checkpoint()).await {
            Ok(Ok(())) => {}
            // Said where the sync failed, and true until the next start.
            Ok(Err(error @ storage::Error::ReadOnly(_))) => {
                tracing::debug!(%error, "a partition has no checkpoint any more");
            }
            Ok(Err(error)) => tracing::error!(%error, "checkpoint failed"),
            Err(error) => tracing::error!(%error, "checkpoint panicked"),
        }
    }
}

/// While the disk is full, finds out whether there is room again.
async fn room(disk: Arc<ReservedDisk>, mut shutdown: watch::Receiver<bool>) {
    while every(LOOK_FOR_ROOM, &mut shutdown).await {
        if !disk.is_full() {
            continue;
        }
        let disk = disk.clone();
        match tokio::task::spawn_blocking(move || disk.look_for_room()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "looking for room on the disk failed"),
            Err(error) => tracing::error!(%error, "looking for room on the disk panicked"),
        }
    }
}

async fn metrics_upkeep(mut shutdown: watch::Receiver<bool>) {
    let Some(recorder) = http::recorder() else {
        return;
    };
    while every(METRICS_UPKEEP, &mut shutdown).await {
        recorder.run_upkeep();
    }
}

/// Waits for the next turn; false when the server stops.
async fn every(interval: Duration, shutdown: &mut watch::Receiver<bool>) -> bool {
    tokio::select! {
        () = tokio::time::sleep(interval) => true,
        _ = shutdown.wait_for(|stop| *stop) => false,
    }
}
