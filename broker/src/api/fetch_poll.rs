//! The reading and waiting inside a Fetch: one pass over the partitions, and, where that finds too
//! little, a wait for the partitions' offsets to move.
//!
//! - The records found never exceed `max_bytes` together, nor a partition's own limit, but for the
//!   first batch of the first partition that has one: that is always returned, or a large batch
//!   would stop its readers for ever (Kafka's `minOneMessage`).
//! - Nothing is polled: each partition has one waiter on its log's watch channel, and only a
//!   partition that moved is read again.
//! - Records stay slices of what the log mapped. They are not copied here.
//! - A read that would wait for the device runs on a thread that may block.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use storage::batch::batches;
use storage::partition_log::{ColdRead, Fetched, Offsets, Read, ReadLimit};
use storage::{Error, Offset, PartitionLog};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// A partition to read.
pub struct Slot {
    log: Arc<PartitionLog>,
    fetch_offset: Offset,
    partition_max_bytes: usize,
    outcome: Outcome,
}

/// What the last read of a partition came to.
enum Outcome {
    Unread,
    Found(Fetched),
    /// To be loaded; up to so many bytes are set aside for it.
    Cold(ColdRead, usize),
    Failed(Error),
    /// The thread that loaded it died.
    Lost,
}

/// Why a partition has no records to give.
#[derive(Debug)]
pub enum Failure {
    /// The log's reason.
    Storage(Error),
    /// A thread of ours died; it has said so.
    Lost,
}

/// A fetch under way.
pub struct Poll {
    slots: Vec<Slot>,
    limit: ReadLimit,
    min_bytes: usize,
    max_bytes: usize,
    deadline: Instant,
    answers_at_once: bool,
}

impl Slot {
    /// Not read yet.
    pub fn new(log: Arc<PartitionLog>, fetch_offset: Offset, partition_max_bytes: usize) -> Self {
        Self {
            log,
            fetch_offset,
            partition_max_bytes,
            outcome: Outcome::Unread,
        }
    }

    /// Bytes found, or set aside.
    fn bytes(&self) -> usize {
        match &self.outcome {
            Outcome::Found(found) => found.records.len(),
            Outcome::Cold(_, reserved) => *reserved,
            Outcome::Unread | Outcome::Failed(_) | Outcome::Lost => 0,
        }
    }

    /// There is more to read than was found: a limit, or the end of a segment, came first.
    fn is_cut_short(&self, limit: ReadLimit) -> bool {
        let Outcome::Found(found) = &self.outcome else {
            return false;
        };
        let next = match batches(&found.records).last() {
            None => self.fetch_offset,
            Some(Ok(batch)) => batch.last_offset() + 1,
            // A reader has to see what is wrong with it.
            Some(Err(_)) => return true,
        };
        next < end_of(&found.offsets, limit)
    }
}

impl Poll {
    /// Starts with no partitions. `max_wait` counts from now.
    pub fn new(
        limit: ReadLimit,
        min_bytes: usize,
        max_bytes: usize,
        max_wait: std::time::Duration,
    ) -> Self {
        Self {
            slots: Vec::new(),
            limit,
            min_bytes: min_bytes.min(max_bytes),
            max_bytes,
            deadline: Instant::now() + max_wait,
            answers_at_once: false,
        }
    }

    /// Waits for nothing but the disk: there is something that the client has to know now.
    pub fn answer_at_once(&mut self) {
        self.answers_at_once = true;
    }

    /// Adds a partition, after those added before.
    pub fn push(&mut self, slot: Slot) {
        self.slots.push(slot);
    }

    /// Reads every partition once, in order.
    pub fn read_all(&mut self) {
        let mut used = 0;
        for slot in &mut self.slots {
            read(slot, self.max_bytes, used, self.limit);
            used += slot.bytes();
        }
    }

    /// There is an answer, and it can be given without waiting.
    pub fn is_complete(&self) -> bool {
        !self.has_cold() && (self.deadline <= Instant::now() || self.is_satisfied())
    }

    /// Waits until there is enough to answer with, time is up, or the broker stops.
    pub async fn run(&mut self, mut shutdown: watch::Receiver<bool>) {
        self.load_cold().await;
        if self.is_satisfied() {
            return;
        }
        let mut moved: FuturesUnordered<_> = (0..self.slots.len())
            .filter_map(|index| self.watch(index))
            .collect();
        let deadline = self.deadline;
        let no_longer = async move {
            tokio::select! {
                () = sleep_until(deadline) => {}
                _ = shutdown.wait_for(|stops| *stops) => {}
            }
        };
        tokio::pin!(no_longer);
        while !self.is_satisfied() {
            tokio::select! {
                // What is there is given, however late it is.
                biased;
                Some(index) = moved.next() => {
                    self.read_again(index);
                    self.load_cold().await;
                    moved.extend(self.watch(index));
                }
                () = &mut no_longer => return,
            }
        }
    }

    /// What was found for each partition, in the order in which they were added.
    pub fn into_results(self) -> impl Iterator<Item = Result<Fetched, Failure>> {
        self.slots.into_iter().map(|slot| match slot.outcome {
            Outcome::Found(found) => Ok(found),
            Outcome::Failed(error) => Err(Failure::Storage(error)),
            // Complete means that nothing is unread or cold.
            Outcome::Unread | Outcome::Cold(..) | Outcome::Lost => Err(Failure::Lost),
        })
    }

    fn used_bytes(&self) -> usize {
        self.slots.iter().map(Slot::bytes).sum()
    }

    fn has_cold(&self) -> bool {
        let mut slots = self.slots.iter();
        slots.any(|slot| matches!(slot.outcome, Outcome::Cold(..)))
    }

    /// Enough was found, or something that the client has to know at once, or waiting would not
    /// make it more.
    fn is_satisfied(&self) -> bool {
        let failed = |slot: &Slot| matches!(slot.outcome, Outcome::Failed(_) | Outcome::Lost);
        self.answers_at_once
            || self.used_bytes() >= self.min_bytes
            || self.slots.iter().any(failed)
            || self.slots.iter().any(|slot| slot.is_cut_short(self.limit))
    }

    /// Resolves with `index` when reading the partition again may find something else.
    fn watch(&self, index: usize) -> Option<impl Future<Output = usize> + Send + use<>> {
        let slot = self.slots.get(index)?;
        let Outcome::Found(found) = &slot.outcome else {
            return None;
        };
        let (seen, limit, fetch_offset) = (found.offsets, self.limit, slot.fetch_offset);
        let log = Arc::clone(&slot.log);
        let mut offsets = log.watch();
        Some(async move {
            loop {
                let now = *offsets.borrow_and_update();
                if end_of(&now, limit) != end_of(&seen, limit)
                    || now.log_start_offset != seen.log_start_offset
                    // A deleted log's offsets stay as they are.
                    || log.read(fetch_offset, 0, false, limit).is_err()
                {
                    return index;
                }
                if offsets.changed().await.is_err() {
                    // Nothing will move any more.
                    return std::future::pending().await;
                }
            }
        })
    }

    fn read_again(&mut self, index: usize) {
        let used = self.used_bytes();
        if let Some(slot) = self.slots.get_mut(index) {
            let used_by_others = used - slot.bytes();
            read(slot, self.max_bytes, used_by_others, self.limit);
        }
    }

    /// Loads what is not in the page cache, all partitions at the same time.
    async fn load_cold(&mut self) {
        if !self.has_cold() {
            return;
        }
        let loads = self.slots.iter_mut().filter_map(|slot| {
            match std::mem::replace(&mut slot.outcome, Outcome::Lost) {
                Outcome::Cold(cold, _) => {
                    let load = tokio::task::spawn_blocking(move || cold.load());
                    Some(async move { (slot, load.await) })
                }
                other => {
                    slot.outcome = other;
                    None
                }
            }
        });
        for (slot, loaded) in join_all(loads).await {
            slot.outcome = match loaded {
                Ok(Ok(found)) => Outcome::Found(found),
                Ok(Err(error)) => Outcome::Failed(error),
                Err(error) => {
                    tracing::error!(%error, "a read from the disk ended early");
                    Outcome::Lost
                }
            };
        }
    }
}

/// Reads one partition within what the others have left.
fn read(slot: &mut Slot, max_bytes: usize, used_by_others: usize, limit: ReadLimit) {
    let max_bytes = slot
        .partition_max_bytes
        .min(max_bytes.saturating_sub(used_by_others));
    let at_least_one = used_by_others == 0;
    if max_bytes == 0 && !at_least_one {
        // Not worth a visit to the disk.
        let (records, offsets) = (Bytes::new(), slot.log.offsets());
        slot.outcome = Outcome::Found(Fetched { records, offsets });
        return;
    }
    slot.outcome = match slot
        .log
        .read(slot.fetch_offset, max_bytes, at_least_one, limit)
    {
        Ok(Read::Warm(found)) => Outcome::Found(found),
        // At least a byte, so that the partitions after it know that they are not the first.
        Ok(Read::Cold(cold)) => Outcome::Cold(cold, max_bytes.max(1)),
        Err(error) => Outcome::Failed(error),
    };
}

/// Where a reader with this limit stops.
fn end_of(offsets: &Offsets, limit: ReadLimit) -> Offset {
    match limit {
        ReadLimit::HighWatermark => offsets.high_watermark,
        ReadLimit::LastStableOffset => offsets.last_stable_offset,
        ReadLimit::LogEnd => offsets.log_end_offset,
    }
}
