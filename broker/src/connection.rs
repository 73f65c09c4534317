//! One client connection: frames in, responses out in request order.
//!
//! - A frame is four bytes of length and that many bytes. A length of zero or less, or over
//!   `max_request_bytes`, closes the connection. The buffer grows with what has arrived: an
//!   announced length reserves at most 64 KiB ahead, or as much as the connection's largest request
//!   so far, up to 1 MiB.
//! - Requests are handled one after another. Their responses go through a queue of at most
//!   [`IN_FLIGHT`] to the writer; when it is full, reading stops. Responses that are ready together
//!   leave in one vectored write.
//! - A connection on which nothing moved for `max_idle` closes, unless a response is being waited for.
//! - When the peer stops sending, or the broker stops, nothing more is read; requests that were read
//!   are answered, within `drain`.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::io::{self, IoSlice};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use futures_util::FutureExt;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::router::Outcome;

/// Requests that were read and are not answered yet, at most.
pub const IN_FLIGHT: usize = 32;

/// A write is started when this much is ready, even if more is coming.
const WRITE_BYTES: usize = 256 * 1024;
/// Pieces of one vectored write; Linux takes 1024.
const WRITE_PIECES: usize = 64;
/// The read buffer of a connection that sends small requests.
const READ_BYTES: usize = 8 * 1024;
/// What an announced length may reserve before its bytes arrive, on a connection that has not sent
/// a larger request yet ...
const READ_AHEAD_BYTES: usize = 64 * 1024;
/// ... and on one that has.
const MAX_READ_AHEAD_BYTES: usize = 1024 * 1024;
/// A buffer that grew beyond this is not kept.
const KEEP_BYTES: usize = 256 * 1024;

/// What handles the requests.
pub trait Service: Send {
    /// Handles one request; the frame comes without its length.
    fn call(&mut self, frame: Bytes) -> impl Future<Output = Outcome> + Send;
}

/// What a connection obeys.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// `socket.request.max.bytes`.
    pub max_request_bytes: usize,
    /// `connections.max.idle.ms`.
    pub max_idle: Duration,
    /// How long the last responses may take once nothing more is read.
    pub drain: Duration,
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub enum Closed {
    /// The peer closed it between two requests.
    #[error("closed by the client")]
    ByClient,
    /// The broker stops.
    #[error("the broker stops")]
    Shutdown,
    /// Nothing moved for `connections.max.idle.ms`.
    #[error("idle for {0:?}")]
    Idle(Duration),
    /// The peer closed it inside a request.
    #[error("closed by the client after {read} of {expected} bytes of a request")]
    Truncated {
        /// The bytes that came, the length included.
        read: usize,
        /// The bytes announced, the length included.
        expected: usize,
    },
    /// A length that is not served.
    #[error(
        "a request announces {announced} bytes, 1 to {limit} are served (socket.request.max.bytes)"
    )]
    Length {
        /// What it announces.
        announced: i32,
        /// The limit.
        limit: usize,
    },
    /// A request that can't be answered.
    #[error("{0}")]
    Refused(String),
    /// The last responses could not be written in time.
    #[error("responses were not ready or not taken within {0:?}")]
    Drain(Duration),
    /// The socket failed.
    #[error("{0}")]
    Io(#[from] io::Error),
}

impl Closed {
    /// It ended as connections do; nobody needs to know.
    pub fn is_ordinary(&self) -> bool {
        matches!(
            self,
            Self::ByClient | Self::Shutdown | Self::Idle(_) | Self::Io(_)
        )
    }
}

/// Serves one connection until it closes. Metrics count the bytes.
pub async fn serve<R, W, S>(
    reader: R,
    writer: W,
    service: S,
    limits: Limits,
    shutdown: watch::Receiver<bool>,
) -> Closed
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
    S: Service,
{
    let (queue, responses) = mpsc::channel(IN_FLIGHT);
    let activity = Activity::new();
    let mut stop = shutdown.clone();
    let input = Input {
        reader,
        buffer: BytesMut::new(),
        read_ahead: READ_AHEAD_BYTES,
        limits,
        shutdown,
        activity: &activity,
    };
    let output = Output::new(writer, &activity);

    let mut reading = std::pin::pin!(read_requests(input, service, queue));
    let mut writing = std::pin::pin!(write_responses(output, responses));
    let mut idle = std::pin::pin!(activity.idle(limits.max_idle));
    let mut stopped = std::pin::pin!(async move {
        let _ = stop.wait_for(|stop| *stop).await;
        tokio::time::sleep(limits.drain).await;
    });
    // Reading first: what it hands over is written in the same turn.
    let why = tokio::select! {
        biased;
        why = &mut reading => why,
        written = &mut writing => return written.err().unwrap_or(Closed::ByClient),
        () = &mut idle => return Closed::Idle(limits.max_idle),
        () = &mut stopped => return Closed::Drain(limits.drain),
    };
    match tokio::time::timeout(limits.drain, writing).await {
        Ok(Ok(())) => why,
        Ok(Err(closed)) => closed,
        Err(_) if why.is_ordinary() => Closed::Drain(limits.drain),
        Err(_) => why,
    }
}

/// Reads until the connection must close; the queue closes with it.
async fn read_requests<R, S>(
    mut input: Input<'_, R>,
    mut service: S,
    queue: mpsc::Sender<Outcome>,
) -> Closed
where
    R: AsyncRead + Unpin,
    S: Service,
{
    loop {
        let frame = match input.frame().await {
            Ok(frame) => frame,
            Err(closed) => return closed,
        };
        let outcome = service.call(frame).await;
        match outcome {
            Outcome::None => {}
            Outcome::Close(reason) => return Closed::Refused(reason),
            outcome => {
                if queue.send(outcome).await.is_err() {
                    return Closed::ByClient;
                }
            }
        }
    }
}

struct Input<'a, R> {
    reader: R,
    buffer: BytesMut,
    read_ahead: usize,
    limits: Limits,
    shutdown: watch::Receiver<bool>,
    activity: &'a Activity,
}

impl<R: AsyncRead + Unpin> Input<'_, R> {
    async fn frame(&mut self) -> Result<Bytes, Closed> {
        if *self.shutdown.borrow() {
            return Err(Closed::Shutdown);
        }
        self.fill(4, READ_BYTES).await?;
        let announced = self
            .buffer
            .first_chunk::<4>()
            .map_or(0, |len| i32::from_be_bytes(*len));
        let limit = self.limits.max_request_bytes;
        let len = match usize::try_from(announced) {
            Ok(len) if (1..=limit).contains(&len) => len,
            _ => return Err(Closed::Length { announced, limit }),
        };
        self.fill(4 + len, 0).await?;
        self.buffer.advance(4);
        let frame = self.buffer.split_to(len).freeze();
        self.read_ahead = self.read_ahead.max(len.min(MAX_READ_AHEAD_BYTES));
        if len > KEEP_BYTES {
            // The rest of this allocation would live as long as the connection.
            self.buffer = BytesMut::from(&self.buffer[..]);
        }
        Ok(frame)
    }

    /// Reads until `expected` bytes are there, asking for at least `at_least` at once.
    async fn fill(&mut self, expected: usize, at_least: usize) -> Result<(), Closed> {
        while self.buffer.len() < expected {
            let missing = expected - self.buffer.len();
            // Beyond that the buffer at most doubles with what has arrived.
            let ahead = missing
                .min(self.read_ahead.max(self.buffer.len()))
                .max(at_least);
            self.buffer.reserve(ahead);
            let read = tokio::select! {
                biased;
                read = self.reader.read_buf(&mut self.buffer) => read?,
                _ = self.shutdown.wait_for(|stop| *stop) => return Err(Closed::Shutdown),
            };
            if read == 0 {
                return Err(match self.buffer.len() {
                    0 => Closed::ByClient,
                    read => Closed::Truncated { read, expected },
                });
            }
            self.activity.moved();
            metrics_of_connections().bytes_in.increment(read as u64);
        }
        Ok(())
    }
}

async fn write_responses<W: AsyncWrite + Unpin>(
    mut output: Output<'_, W>,
    mut responses: mpsc::Receiver<Outcome>,
) -> Result<(), Closed> {
    loop {
        let outcome = match responses.try_recv() {
            Ok(outcome) => outcome,
            Err(_) => {
                output.flush().await?;
                match responses.recv().await {
                    Some(outcome) => outcome,
                    None => return Ok(output.finish().await?),
                }
            }
        };
        let frame = match outcome {
            Outcome::Now(frame) => frame,
            Outcome::Later(mut response) => match (&mut response).now_or_never() {
                Some(frame) => frame.map_err(Closed::Refused)?,
                None => {
                    output.flush().await?;
                    output.activity.awaits(true);
                    let frame = response.await;
                    output.activity.awaits(false);
                    match frame {
                        Ok(frame) => frame,
                        Err(reason) => return Err(Closed::Refused(reason)),
                    }
                }
            },
            Outcome::None => continue,
            Outcome::Close(reason) => {
                output.finish().await?;
                return Err(Closed::Refused(reason));
            }
        };
        output.push(frame).await?;
    }
}

struct Output<'a, W> {
    writer: W,
    pieces: VecDeque<Bytes>,
    bytes: usize,
    activity: &'a Activity,
}

impl<'a, W: AsyncWrite + Unpin> Output<'a, W> {
    fn new(writer: W, activity: &'a Activity) -> Self {
        Self {
            writer,
            pieces: VecDeque::new(),
            bytes: 0,
            activity,
        }
    }

    async fn push(&mut self, frame: crate::frame::Frame) -> io::Result<()> {
        self.bytes += frame.len;
        self.pieces.extend(frame.chunks);
        if self.bytes >= WRITE_BYTES || self.pieces.len() >= WRITE_PIECES {
            self.flush().await?;
        }
        Ok(())
    }

    async fn flush(&mut self) -> io::Result<()> {
        while !self.pieces.is_empty() {
            let mut slices = [IoSlice::new(&[]); WRITE_PIECES];
            let count = self.pieces.len().min(WRITE_PIECES);
            for (slice, piece) in slices.iter_mut().zip(&self.pieces) {
                *slice = IoSlice::new(piece);
            }
            let written = self.writer.write_vectored(&slices[..count]).await?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            self.activity.moved();
            metrics_of_connections().bytes_out.increment(written as u64);
            self.advance(written);
        }
        self.bytes = 0;
        self.writer.flush().await
    }

    fn advance(&mut self, mut written: usize) {
        while let Some(piece) = self.pieces.front_mut() {
            if piece.len() > written {
                piece.advance(written);
                return;
            }
            written -= piece.len();
            self.pieces.pop_front();
        }
    }

    /// Writes what is left and says goodbye.
    async fn finish(&mut self) -> io::Result<()> {
        self.flush().await?;
        // The peer may be gone already; there is nothing left to tell it.
        let _ = self.writer.shutdown().await;
        Ok(())
    }
}

/// When something last moved on a connection.
struct Activity {
    begin: Instant,
    moved_ms: AtomicU64,
    awaits_response: AtomicBool,
}

impl Activity {
    fn new() -> Self {
        Self {
            begin: Instant::now(),
            moved_ms: AtomicU64::new(0),
            awaits_response: AtomicBool::new(false),
        }
    }

    fn moved(&self) {
        self.moved_ms
            .store(self.begin.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    /// A response is not ready yet: a quiet connection is not an idle one.
    fn awaits(&self, awaits: bool) {
        self.awaits_response.store(awaits, Ordering::Relaxed);
        self.moved();
    }

    /// Ends when nothing has moved for `max_idle`.
    async fn idle(&self, max_idle: Duration) {
        loop {
            let moved = Duration::from_millis(self.moved_ms.load(Ordering::Relaxed));
            let now = self.begin.elapsed();
            let quiet = now.saturating_sub(moved);
            let wait = if self.awaits_response.load(Ordering::Relaxed) {
                max_idle
            } else if quiet >= max_idle {
                return;
            } else {
                max_idle - quiet
            };
            tokio::time::sleep(wait.max(Duration::from_millis(1))).await;
        }
    }
}

/// Bytes and connections of all clients.
pub struct ConnectionMetrics {
    bytes_in: metrics::Counter,
    bytes_out: metrics::Counter,
    /// Connections accepted.
    pub accepted: metrics::Counter,
    /// Connections that are open.
    pub open: metrics::Gauge,
    /// Connections closed at once because there were too many.
    pub refused: metrics::Counter,
}

impl fmt::Debug for ConnectionMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionMetrics").finish_non_exhaustive()
    }
}

/// The process's handles, registered at first use.
pub fn metrics_of_connections() -> &'static ConnectionMetrics {
    static METRICS: std::sync::OnceLock<ConnectionMetrics> = std::sync::OnceLock::new();
    METRICS.get_or_init(|| ConnectionMetrics {
        bytes_in: metrics::counter!("milena_network_in_bytes_total"),
        bytes_out: metrics::counter!("milena_network_out_bytes_total"),
        accepted: metrics::counter!("milena_connections_accepted_total"),
        open: metrics::gauge!("milena_connections"),
        refused: metrics::counter!("milena_connections_refused_total"),
    })
}

#[cfg(test)]
#[path = "connection_tests.rs"]
mod tests;
