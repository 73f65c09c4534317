//! The accept loop, and the connections that it starts.
//!
//! A connection that [`Admission`] refuses is closed at once and counted. Accepted sockets have TCP
//! keepalive: a peer that vanished while it waits for a response is found after about two minutes.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::admission::{Admission, Place};
use super::log_allowance::LogAllowance;
use super::{DRAIN, report_panic};
use crate::Broker;
use crate::connection::{self, Limits, metrics_of_connections};
use crate::router::Router;

/// How long accepting rests after it failed, such as for want of file descriptors.
const ACCEPT_REST: Duration = Duration::from_millis(100);
/// How often the number of partitions is counted again.
const RECOUNT: Duration = Duration::from_secs(5);

/// A peer that is silent this long is asked whether it is there ...
const KEEPALIVE_IDLE_S: libc::c_int = 60;
/// ... this often ...
const KEEPALIVE_INTERVAL_S: libc::c_int = 10;
/// ... and so many times.
const KEEPALIVE_PROBES: libc::c_int = 6;

/// Accepts until the broker stops.
pub(super) struct Accepting {
    pub(super) listener: TcpListener,
    pub(super) broker: Arc<Broker>,
    pub(super) limits: Limits,
    /// The limit of open files, where it is known.
    pub(super) open_files: Option<u64>,
    pub(super) shutdown: watch::Receiver<bool>,
}

impl Accepting {
    pub(super) async fn run(self) {
        let mut shutdown = self.shutdown.clone();
        let counts = metrics_of_connections();
        let mut connections = JoinSet::new();
        let mut recount = tokio::time::interval(RECOUNT);
        let log = Arc::new(LogAllowance::new());
        if let Err(error) = keep_alive(&self.listener) {
            tracing::warn!(%error, "connections without keepalive");
        }
        loop {
            tokio::select! {
                biased;
                () = async { let _ = shutdown.wait_for(|stop| *stop).await; } => break,
                _ = recount.tick() => self.recount(),
                Some(ended) = connections.join_next() => {
                    counts.open.set(connections.len() as f64);
                    report_panic("connection", ended);
                }
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, client)) => match self.broker.admission.admit(client.ip()) {
                        Ok(place) => {
                            counts.accepted.increment(1);
                            connections.spawn(self.connection(stream, client, place, log.clone()));
                            counts.open.set(connections.len() as f64);
                        }
                        Err(reason) => {
                            counts.refused.increment(1);
                            if let Some(held_back) = log.take() {
                                tracing::warn!(%client, %reason, held_back, "connection refused");
                            }
                        }
                    },
                    Err(error) => {
                        tracing::warn!(%error, "accepting failed");
                        tokio::time::sleep(ACCEPT_REST).await;
                    }
                },
            }
        }
        drop(self.listener);
        let drained = async {
            while let Some(ended) = connections.join_next().await {
                report_panic("connection", ended);
            }
        };
        // Connections end by themselves within their own time; this is for one that does not.
        if tokio::time::timeout(DRAIN + Duration::from_secs(1), drained)
            .await
            .is_err()
        {
            tracing::warn!(
                connections = connections.len(),
                "connections did not end in time"
            );
            connections.shutdown().await;
        }
    }

    /// Leaves the logs their file descriptors, as many as they may need now.
    fn recount(&self) {
        let Some(open_files) = self.open_files else {
            return;
        };
        let admission: &Admission = &self.broker.admission;
        let before = admission.effective_max_connections();
        let topics = self.broker.catalog.topics();
        let partitions = topics.iter().map(|topic| topic.partitions.len()).sum();
        admission.set_open_files(open_files, partitions);
        let max_connections = admission.effective_max_connections();
        if max_connections < before {
            tracing::warn!(
                max_connections,
                open_files,
                partitions,
                "fewer connections than max.connections: the logs need the file descriptors"
            );
        }
    }

    fn connection(
        &self,
        stream: TcpStream,
        client: SocketAddr,
        place: Place,
        log: Arc<LogAllowance>,
    ) -> impl Future<Output = ()> + Send + 'static {
        let router = Router::new(self.broker.clone(), client.ip());
        let (limits, shutdown) = (self.limits, self.shutdown.clone());
        let budgets = self.broker.memory.clone();
        async move {
            // Responses are written whole: waiting for more to send only delays them.
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%client, %error, "connection without nodelay");
            }
            let (reader, writer) = stream.into_split();
            let closed = connection::serve(reader, writer, router, limits, budgets, shutdown).await;
            drop(place);
            metrics::counter!("milena_connections_closed_total", "reason" => closed.kind())
                .increment(1);
            if closed.is_ordinary() {
                tracing::debug!(%client, reason = %closed, "connection closed");
            } else if let Some(held_back) = log.take() {
                tracing::warn!(%client, reason = %closed, held_back, "connection closed");
            }
        }
    }
}

/// Sets keepalive; sockets that are accepted inherit it.
fn keep_alive(listener: &TcpListener) -> io::Result<()> {
    for (level, option, value) in [
        (libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1),
        (libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, KEEPALIVE_IDLE_S),
        (libc::IPPROTO_TCP, libc::TCP_KEEPINTVL, KEEPALIVE_INTERVAL_S),
        (libc::IPPROTO_TCP, libc::TCP_KEEPCNT, KEEPALIVE_PROBES),
    ] {
        let (value, size): (libc::c_int, _) = (value, size_of::<libc::c_int>());
        // SAFETY: the descriptor is open, and `value` is a whole integer that is only read.
        let set = unsafe {
            libc::setsockopt(
                listener.as_raw_fd(),
                level,
                option,
                (&raw const value).cast(),
                size as libc::socklen_t,
            )
        };
        if set != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}
