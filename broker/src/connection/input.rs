//! The reading half: from bytes to frames.
//!
//! While nothing comes, a connection has no buffer: the first bytes are read into the thread's stack
//! and copied. A frame of more than [`UNCOUNTED_FRAME_BYTES`] is counted in the budget for requests
//! before its buffer grows. The buffer grows with what has arrived: an announced length reserves at
//! most 8 KiB ahead, or as much as the connection's largest request so far, up to 1 MiB.

use std::future::{Future, poll_fn};
use std::io;
use std::mem::MaybeUninit;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};

use super::progress::Progress;
use super::queue::Queue;
use super::{Closed, metrics_of_connections};
use crate::memory_budget::{Budgets, Charge};

/// What is read at once where no large request is under way.
const READ_BYTES: usize = 8 * 1024;
/// A frame up to this size is not counted while it arrives.
const UNCOUNTED_FRAME_BYTES: usize = READ_BYTES;
/// What an announced length may reserve before its bytes arrive, on a connection that has not sent
/// a larger request yet ...
const READ_AHEAD_BYTES: usize = READ_BYTES;
/// ... and on one that has.
const MAX_READ_AHEAD_BYTES: usize = 1024 * 1024;
/// A buffer that grew beyond this is not kept: producers' requests have a batch of up to a million bytes
/// by default.
const KEEP_BYTES: usize = 1024 * 1024;

/// After so much in a row, some milliseconds of copying, a connection lets others have the thread. It
/// may go on on another one, with cold caches.
const YIELD_BYTES: usize = 8 * 1024 * 1024;

const LENGTH_BYTES: usize = 4;

pub(super) struct Input<'a, R> {
    reader: R,
    buffer: BytesMut,
    /// What a buffer holds that is kept for the next request.
    kept: Option<Charge>,
    read_ahead: usize,
    /// Read since others had the thread.
    in_a_row: usize,
    max_request_bytes: usize,
    pub(super) budgets: &'a Arc<Budgets>,
    pub(super) progress: &'a Progress,
    queue: &'a Queue,
}

impl<'a, R: AsyncRead + Unpin> Input<'a, R> {
    pub(super) fn new(
        reader: R,
        max_request_bytes: usize,
        budgets: &'a Arc<Budgets>,
        progress: &'a Progress,
        queue: &'a Queue,
    ) -> Self {
        Self {
            reader,
            buffer: BytesMut::new(),
            kept: None,
            read_ahead: READ_AHEAD_BYTES,
            in_a_row: 0,
            max_request_bytes,
            budgets,
            progress,
            queue,
        }
    }

    /// The next frame, without its length, and what it holds of the budget.
    pub(super) async fn frame(&mut self) -> Result<(Bytes, Option<Charge>), Closed> {
        if self.progress.is_stopping() {
            return Err(Closed::Shutdown);
        }
        while self.buffer.len() < LENGTH_BYTES {
            if !self.buffer.is_empty() {
                self.progress.arriving(LENGTH_BYTES);
            }
            self.read(LENGTH_BYTES, false).await?;
        }
        let announced = self
            .buffer
            .first_chunk::<LENGTH_BYTES>()
            .map_or(0, |len| i32::from_be_bytes(*len));
        let limit = self.max_request_bytes;
        let len = match usize::try_from(announced) {
            Ok(len) if (1..=limit).contains(&len) => len,
            _ => return Err(Closed::Length { announced, limit }),
        };
        let expected = LENGTH_BYTES + len;
        let mut charge = None;
        if self.buffer.len() < expected {
            self.progress.arriving(expected);
            if expected <= UNCOUNTED_FRAME_BYTES {
                while self.buffer.len() < expected {
                    self.read(expected, false).await?;
                }
            } else {
                charge = Some(self.counted(expected).await?);
            }
        }
        self.progress.arrived();
        self.buffer.advance(LENGTH_BYTES);
        let frame = self.buffer.split_to(len).freeze();
        if expected > UNCOUNTED_FRAME_BYTES {
            self.read_ahead = self.read_ahead.max(len.min(MAX_READ_AHEAD_BYTES));
            self.keep(expected, charge.is_some());
        }
        Ok((frame, charge))
    }

    /// Reads until a frame is complete that is counted.
    async fn counted(&mut self, expected: usize) -> Result<Charge, Closed> {
        let mut charge = match self.kept.take() {
            Some(kept) => kept,
            None => Charge::none(&self.budgets.requests),
        };
        self.progress.hold(charge.bytes());
        while self.buffer.len() < expected {
            // Beyond what is read ahead the buffer at most doubles with what has arrived.
            let arrived = self.buffer.len();
            let capacity = expected.min(arrived + self.read_ahead.max(arrived));
            let more = capacity - arrived;
            if !self.buffer.try_reclaim(more) {
                self.hold(&mut charge, capacity, expected).await;
                let mut larger = BytesMut::with_capacity(capacity);
                larger.extend_from_slice(&self.buffer);
                self.buffer = larger;
            }
            self.hold_no_more_than(&mut charge, self.buffer.capacity());
            while self.buffer.len() < capacity {
                self.read(expected, true).await?;
            }
        }
        // All of it may have been in a buffer that was there.
        let bytes = expected.saturating_sub(charge.bytes());
        self.hold(&mut charge, bytes, expected).await;
        Ok(charge)
    }

    async fn hold(&self, charge: &mut Charge, bytes: usize, expected: usize) {
        if !charge.try_add(bytes, expected) {
            let waiting = charge.add(bytes, expected);
            self.progress.waiting_for_memory(waiting).await;
        }
        self.progress.hold(bytes);
    }

    /// Gives back what the smaller buffer held before this one.
    fn hold_no_more_than(&self, charge: &mut Charge, bytes: usize) {
        let too_much = charge.bytes().saturating_sub(bytes);
        if too_much > 0 {
            charge.give_back(too_much);
            self.progress.release(too_much);
        }
    }

    /// Keeps the buffer of a request of `bytes` for the next one, if there is memory to spare.
    fn keep(&mut self, bytes: usize, was_counted: bool) {
        if self.kept.is_some() {
            return;
        }
        if was_counted && bytes <= KEEP_BYTES {
            self.kept = Charge::of_spare(&self.budgets.requests, bytes);
        }
        if self.kept.is_none() {
            // The rest of this allocation would live as long as the connection.
            self.buffer = BytesMut::from(&self.buffer[..]);
        }
    }

    fn let_go(&mut self) {
        self.buffer = BytesMut::new();
        self.kept = None;
    }

    /// Reads what there is, at least a byte; `into_buffer` where the buffer has room for it.
    async fn read(&mut self, expected: usize, into_buffer: bool) -> Result<(), Closed> {
        let read = poll_fn(|cx| self.poll_read(cx, into_buffer)).await?;
        if read == 0 {
            return Err(match self.buffer.len() {
                0 => Closed::ByClient,
                read => Closed::Truncated { read, expected },
            });
        }
        self.progress.moved();
        metrics_of_connections().bytes_in.increment(read as u64);
        self.in_a_row += read;
        if self.in_a_row > YIELD_BYTES {
            self.in_a_row = 0;
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        into_buffer: bool,
    ) -> Poll<Result<usize, Closed>> {
        // A kept buffer is there to be read into.
        let into_buffer =
            into_buffer || (self.kept.is_some() && self.buffer.try_reclaim(READ_BYTES));
        let read = if into_buffer {
            pin!(self.reader.read_buf(&mut self.buffer)).poll(cx)
        } else {
            self.poll_read_small(cx)
        };
        match read {
            Poll::Ready(read) => Poll::Ready(read.map_err(Closed::Io)),
            Poll::Pending if self.progress.is_stopping() => Poll::Ready(Err(Closed::Shutdown)),
            Poll::Pending => {
                if self.progress.is_at_rest() && self.buffer.is_empty() {
                    self.let_go();
                    self.queue.shrink();
                }
                Poll::Pending
            }
        }
    }

    fn poll_read_small(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut space = [MaybeUninit::<u8>::uninit(); READ_BYTES];
        let mut read = ReadBuf::uninit(&mut space);
        match Pin::new(&mut self.reader).poll_read(cx, &mut read) {
            Poll::Ready(Ok(())) => {
                self.buffer.extend_from_slice(read.filled());
                Poll::Ready(Ok(read.filled().len()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Pending,
        }
    }
}
