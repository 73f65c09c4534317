//! One client connection: frames in, responses out in request order.
//!
//! - A frame is four bytes of length and that many bytes. A length of zero or less, or over
//!   `max_request_bytes`, closes the connection.
//! - Requests are handled one after another. Their responses go through a queue to the writer; while
//!   [`IN_FLIGHT`] of them are in it, or responses of more than [`MAX_UNTAKEN_BYTES`] were not taken,
//!   no further request is handled.
//! - What requests and responses hold is counted (`request_memory`, `memory_budget`). A connection
//!   that is slow, silent or greedy closes (`progress` has the bounds). One at rest holds no buffer.
//! - When the peer stops sending, or the broker stops, nothing more is read; requests that were read
//!   are answered, within `drain`.
//!
//! Beside the budgets, one connection holds at most its task, a frame and a read of 8 KiB each,
//! [`UNCOUNTED_REQUEST_BYTES`] and [`UNCOUNTED_RESPONSE_BYTES`].

mod input;
mod metrics;
mod output;
mod progress;
mod queue;
mod request_memory;

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;

use crate::memory_budget::Budgets;
use crate::router::Outcome;
use input::Input;
pub use metrics::{ConnectionMetrics, metrics_of_connections};
use output::{Output, untaken, write_responses};
use progress::Progress;
use queue::{Queue, Queued};
pub use request_memory::RequestMemory;

/// Requests that were handled and are not answered yet, at most.
pub const IN_FLIGHT: usize = 32;
/// What the requests of one connection may hold without being counted in the budget.
pub const UNCOUNTED_REQUEST_BYTES: usize = 16 * 1024;
/// What the responses of one connection may hold without being counted in the budget.
pub const UNCOUNTED_RESPONSE_BYTES: usize = 8 * 1024;
/// Responses that were not taken hold up further requests from here on.
pub const MAX_UNTAKEN_BYTES: usize = 256 * 1024;

/// After so much of its own in responses a connection lets others have the thread.
const YIELD_BYTES: usize = 64 * 1024;

/// What handles the requests.
pub trait Service: Send {
    /// Handles one request; the frame comes without its length.
    fn call(
        &mut self,
        frame: Bytes,
        memory: &mut RequestMemory<'_>,
    ) -> impl Future<Output = Outcome> + Send;
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
    /// A request takes too long to arrive.
    #[error("a request of {bytes} bytes is not complete after {after:?}")]
    Slow {
        /// What it announces, the length included.
        bytes: usize,
        /// Since its first byte.
        after: Duration,
    },
    /// The client does not take its responses.
    #[error("responses of {bytes} bytes were not taken for {after:?}")]
    NotTaken {
        /// What waits.
        bytes: usize,
        /// Since when nothing of it was taken.
        after: Duration,
    },
    /// Others need the memory that it holds.
    #[error(
        "{bytes} bytes were held for {after:?} while the memory for requests or responses was used up"
    )]
    Memory {
        /// What it holds.
        bytes: usize,
        /// Since when.
        after: Duration,
    },
    /// The last responses could not be written in time.
    #[error("responses were not ready or not taken within {0:?}")]
    Drain(Duration),
    /// The socket failed.
    #[error("{0}")]
    Io(#[from] io::Error),
}

impl Closed {
    /// A word for it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::ByClient => "by_client",
            Self::Shutdown => "shutdown",
            Self::Idle(_) => "idle",
            Self::Truncated { .. } => "truncated",
            Self::Length { .. } => "length",
            Self::Refused(_) => "refused",
            Self::Slow { .. } => "slow",
            Self::NotTaken { .. } => "not_taken",
            Self::Memory { .. } => "memory",
            Self::Drain(_) => "drain",
            Self::Io(_) => "io",
        }
    }

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
    budgets: Arc<Budgets>,
    mut shutdown: watch::Receiver<bool>,
) -> Closed
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
    S: Service,
{
    let (queue, progress) = (Queue::default(), Progress::new());
    let input = Input::new(
        reader,
        limits.max_request_bytes,
        &budgets,
        &progress,
        &queue,
    );
    let output = Output::new(writer, &budgets, &progress);

    let mut writing = std::pin::pin!(write_responses(output, &queue));
    let why = {
        let mut reading = std::pin::pin!(read_requests(input, service, &queue));
        let mut watching = std::pin::pin!(progress.watch(&limits, &budgets));
        let mut stopped = std::pin::pin!(async {
            let _ = shutdown.wait_for(|stop| *stop).await;
            // The reader is polled with this task, and looks.
            progress.stop();
            tokio::task::yield_now().await;
            tokio::time::sleep(limits.drain).await;
        });
        // Reading first: what it hands over is written in the same turn.
        tokio::select! {
            biased;
            why = &mut reading => why,
            written = &mut writing => return written.err().unwrap_or(Closed::ByClient),
            closed = &mut watching => return closed,
            () = &mut stopped => return Closed::Drain(limits.drain),
        }
    };
    queue.close();
    match tokio::time::timeout(limits.drain, writing).await {
        Ok(Ok(())) => why,
        Ok(Err(closed)) => closed,
        // A client that has gone waits for nothing.
        Err(_) if matches!(why, Closed::Shutdown) => Closed::Drain(limits.drain),
        Err(_) => why,
    }
}

/// Reads until the connection must close.
async fn read_requests<R, S>(mut input: Input<'_, R>, mut service: S, queue: &Queue) -> Closed
where
    R: AsyncRead + Unpin,
    S: Service,
{
    let (budgets, progress) = (input.budgets, input.progress);
    let mut in_a_row = 0;
    loop {
        let (frame, charge) = match input.frame().await {
            Ok(read) => read,
            Err(closed) => return closed,
        };
        queue.room(progress).await;
        let mut memory = RequestMemory::new(budgets, progress, frame.len(), charge);
        let outcome = service.call(frame, &mut memory).await;
        let request = memory.into_held();
        let response = match &outcome {
            Outcome::None => {
                request.release(progress);
                continue;
            }
            Outcome::Close(_) => None,
            Outcome::Now(frame) => {
                in_a_row += frame.own_bytes;
                untaken(frame, budgets, progress)
            }
            Outcome::Later(_) => None,
        };
        match outcome {
            Outcome::Close(reason) => return Closed::Refused(reason),
            outcome => queue.push(Queued {
                outcome,
                request,
                response,
            }),
        }
        if in_a_row > YIELD_BYTES {
            in_a_row = 0;
            tokio::task::yield_now().await;
        }
    }
}

#[cfg(test)]
mod tests;
