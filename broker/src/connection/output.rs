//! The writing half: from outcomes, in order, to bytes. Responses that are ready together leave in
//! one vectored write.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use futures_util::FutureExt;
use tokio::io::{AsyncWrite, AsyncWriteExt};

use super::progress::Progress;
use super::queue::{Queue, Queued};
use super::{Closed, UNCOUNTED_RESPONSE_BYTES, metrics_of_connections};
use crate::frame::Frame;
use crate::memory_budget::{Budgets, Charge};
use crate::router::Outcome;

/// A write is started when this much is ready, even if more is coming.
const WRITE_BYTES: usize = 256 * 1024;
/// Pieces of one vectored write; Linux takes 1024.
const WRITE_PIECES: usize = 64;
/// A list of pieces that grew beyond this is not kept.
const KEEP_PIECES: usize = 2 * WRITE_PIECES;

/// Notes that a response is there which its client has not taken, and counts it where that comes to
/// more than a little.
pub(super) fn untaken(frame: &Frame, budgets: &Budgets, progress: &Progress) -> Option<Charge> {
    let untaken = progress.answered(frame.own_bytes);
    (untaken > UNCOUNTED_RESPONSE_BYTES)
        .then(|| Charge::of_what_exists(&budgets.responses, frame.own_bytes))
}

/// Writes until the queue is closed and empty, or something goes wrong.
pub(super) async fn write_responses<W: AsyncWrite + Unpin>(
    mut output: Output<'_, W>,
    queue: &Queue,
) -> Result<(), Closed> {
    loop {
        let queued = match queue.try_pop() {
            Some(queued) => queued,
            None => {
                output.flush().await?;
                queue.wake_reader();
                match queue.pop().await {
                    Some(queued) => queued,
                    None => return Ok(output.finish().await?),
                }
            }
        };
        queue.wake_reader();
        let Queued {
            outcome,
            request,
            response: charge,
        } = queued;
        let (frame, charge) = match outcome {
            Outcome::Now(frame) => (frame, charge),
            Outcome::Later(mut response) => {
                let ready = match (&mut response).now_or_never() {
                    Some(ready) => ready,
                    None => {
                        output.flush().await?;
                        output.progress.awaits_response(true);
                        let ready = response.await;
                        output.progress.awaits_response(false);
                        ready
                    }
                };
                let frame = ready.map_err(Closed::Refused)?;
                let charge = untaken(&frame, output.budgets, output.progress);
                (frame, charge)
            }
            Outcome::None => continue,
            Outcome::Close(reason) => {
                output.finish().await?;
                return Err(Closed::Refused(reason));
            }
        };
        request.release(output.progress);
        output.push(frame, charge).await?;
    }
}

pub(super) struct Output<'a, W> {
    writer: W,
    pieces: VecDeque<Bytes>,
    bytes: usize,
    /// Of these, what is the responses' own.
    own_bytes: usize,
    charges: Vec<Charge>,
    budgets: &'a Arc<Budgets>,
    progress: &'a Progress,
}

impl<'a, W: AsyncWrite + Unpin> Output<'a, W> {
    pub(super) fn new(writer: W, budgets: &'a Arc<Budgets>, progress: &'a Progress) -> Self {
        Self {
            writer,
            pieces: VecDeque::new(),
            bytes: 0,
            own_bytes: 0,
            charges: Vec::new(),
            budgets,
            progress,
        }
    }

    async fn push(&mut self, frame: Frame, charge: Option<Charge>) -> io::Result<()> {
        self.bytes += frame.len;
        self.own_bytes += frame.own_bytes;
        self.pieces.extend(frame.chunks);
        self.charges.extend(charge);
        if self.bytes >= WRITE_BYTES || self.pieces.len() >= WRITE_PIECES {
            self.flush().await?;
        }
        Ok(())
    }

    async fn flush(&mut self) -> io::Result<()> {
        while !self.pieces.is_empty() {
            let written = poll_fn(|cx| self.poll_write(cx)).await?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            self.progress.moved();
            metrics_of_connections().bytes_out.increment(written as u64);
            self.advance(written);
        }
        if self.bytes > 0 {
            self.progress.taken(self.own_bytes);
            (self.bytes, self.own_bytes) = (0, 0);
            if !self.charges.is_empty() {
                self.charges = Vec::new();
            }
            if self.pieces.capacity() > KEEP_PIECES {
                self.pieces = VecDeque::new();
            }
        }
        self.writer.flush().await
    }

    /// The list of slices is made anew for each try: it would be the largest part of an idle
    /// connection.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut slices = [IoSlice::new(&[]); WRITE_PIECES];
        let count = self.pieces.len().min(WRITE_PIECES);
        for (slice, piece) in slices.iter_mut().zip(&self.pieces) {
            *slice = IoSlice::new(piece);
        }
        Pin::new(&mut self.writer).poll_write_vectored(cx, &slices[..count])
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
