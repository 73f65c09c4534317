//! Waiting for partitions to move: one waiter per partition on its log's watch channel, armed once
//! for as long as a session lasts, so that a fetch costs what moved and not what is watched.

use std::collections::HashMap;
use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use futures_util::future::{AbortHandle, Abortable, BoxFuture};
use futures_util::stream::{FuturesUnordered, Stream};
use futures_util::task::noop_waker_ref;
use storage::PartitionLog;
use storage::partition_log::Offsets;
use tokio::sync::watch;
use tokio::task::coop::unconstrained;

/// The waiters of a fetch's partitions, by slot. They hold nothing of a log but its offsets.
#[derive(Debug, Default)]
pub struct Watches {
    waiting: FuturesUnordered<Abortable<BoxFuture<'static, Moved>>>,
    armed: HashMap<usize, AbortHandle>,
}

/// A partition's offsets changed, or its log is gone.
struct Moved {
    slot: usize,
    /// `None` when there is nothing more to come.
    offsets: Option<watch::Receiver<Offsets>>,
}

impl Watches {
    /// Its partition is watched.
    pub fn is_armed(&self, slot: usize) -> bool {
        self.armed.contains_key(&slot)
    }

    /// Watches a log from now on; read it afterwards.
    pub fn arm(&mut self, slot: usize, log: &PartitionLog) {
        if !self.is_armed(slot) {
            self.wait(slot, log.watch());
        }
    }

    /// Stops watching.
    pub fn disarm(&mut self, slot: usize) {
        if let Some(handle) = self.armed.remove(&slot) {
            handle.abort();
        }
    }

    /// Resolves with the partitions that moved. They are watched on.
    pub fn poll_moved(&mut self, context: &mut Context<'_>) -> Poll<Vec<usize>> {
        let mut moved = Vec::new();
        let mut again = Vec::new();
        // Not to be interrupted by a budget: what is not polled has not registered its waker.
        let all = unconstrained(std::future::poll_fn(|context| {
            loop {
                match Pin::new(&mut self.waiting).poll_next(context) {
                    Poll::Ready(Some(Ok(Moved { slot, offsets }))) => {
                        self.armed.remove(&slot);
                        moved.push(slot);
                        again.extend(offsets.map(|offsets| (slot, offsets)));
                    }
                    Poll::Ready(Some(Err(_aborted))) => {}
                    Poll::Ready(None) | Poll::Pending => return Poll::Ready(()),
                }
            }
        }));
        let _ = pin!(all).poll(context);
        for (slot, offsets) in again {
            self.wait(slot, offsets);
        }
        if moved.is_empty() {
            Poll::Pending
        } else {
            Poll::Ready(moved)
        }
    }

    /// The partitions that have moved by now.
    pub fn moved(&mut self) -> Vec<usize> {
        let mut context = Context::from_waker(noop_waker_ref());
        match self.poll_moved(&mut context) {
            Poll::Ready(moved) => moved,
            Poll::Pending => Vec::new(),
        }
    }

    fn wait(&mut self, slot: usize, mut offsets: watch::Receiver<Offsets>) {
        let waiting: BoxFuture<'static, Moved> = Box::pin(async move {
            let offsets = offsets.changed().await.is_ok().then_some(offsets);
            Moved { slot, offsets }
        });
        let (handle, registration) = AbortHandle::new_pair();
        self.waiting.push(Abortable::new(waiting, registration));
        self.armed.insert(slot, handle);
    }
}
