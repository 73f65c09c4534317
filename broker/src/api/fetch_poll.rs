//! The reading and waiting inside a Fetch: one pass over the partitions that are due, and, where
//! that finds too little, a wait for any of the fetch's partitions to move.
//!
//! - The records found never exceed `max_bytes` together, nor a partition's own limit, but for the
//!   first batch of the first partition that has one: that is always returned, or a large batch
//!   would stop its readers for ever (Kafka's `minOneMessage`).
//! - Nothing is polled: each partition has one waiter on its log's watch channel, and only a
//!   partition that moved is read again. In a session the waiters stay, so that a fetch costs what
//!   moved since the last one, however many partitions the session has.
//! - Records stay slices of what the log mapped. They are not copied here.
//! - A read that would wait for the device runs on a thread that may block.
//! - The session is locked for reads from the page cache, and never over a wait.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join_all;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::fetch_response::PartitionData;
use storage::batch::batches;
use storage::partition_log::{ColdRead, Fetched, Offsets, Read, ReadLimit};
use storage::{Error, Offset};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::api::fetch_partition::{Found, Lookup};
use crate::fetch_session::partitions::Place;
use crate::fetch_session::{Session, SharedSession, TakenOver, lock};

/// What the last look at a partition came to.
pub enum Outcome {
    /// Records, or none.
    Found(Fetched),
    /// Nothing can be read; the answer says why.
    Refused(Box<PartitionData>),
    /// To be loaded; up to so many bytes are set aside for it.
    Cold(ColdRead, usize),
    /// The log's reason.
    Failed(Error),
    /// A thread of ours died; it has said so.
    Lost,
}

/// What a fetch asks altogether.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// Where its reader stops.
    pub limit: Result<ReadLimit, ResponseError>,
    /// Waits for so much ...
    pub min_bytes: usize,
    /// ... and answers with at most so much ...
    pub max_bytes: usize,
    /// ... at the latest then.
    pub deadline: Instant,
    /// Partitions are remembered for the fetches that follow.
    pub in_session: bool,
}

/// A fetch under way.
pub struct Poll {
    session: SharedSession,
    lookup: Lookup,
    terms: Terms,
    outcomes: BTreeMap<Place, Looked>,
    /// Bytes found or set aside.
    used: usize,
    /// How many outcomes call for an answer at once.
    urgent: usize,
    cold: usize,
    reads: u64,
    answers_at_once: bool,
}

struct Looked {
    outcome: Outcome,
    is_urgent: bool,
}

impl Outcome {
    /// Bytes found, or set aside.
    fn bytes(&self) -> usize {
        match self {
            Self::Found(found) => found.records.len(),
            Self::Cold(_, reserved) => *reserved,
            Self::Refused(_) | Self::Failed(_) | Self::Lost => 0,
        }
    }

    /// The client has to know now, or waiting would not make it more: it is an error, or a limit or
    /// a segment's end came before the end of the log.
    fn is_urgent(&self, fetch_offset: Offset, limit: ReadLimit) -> bool {
        match self {
            Self::Found(found) => is_cut_short(found, fetch_offset, limit),
            Self::Cold(..) => false,
            Self::Refused(_) | Self::Failed(_) | Self::Lost => true,
        }
    }
}

impl Poll {
    /// Over a session's partitions; nothing is read yet.
    pub fn new(session: SharedSession, lookup: Lookup, terms: Terms) -> Self {
        Self {
            session,
            lookup,
            terms,
            outcomes: BTreeMap::new(),
            used: 0,
            urgent: 0,
            cold: 0,
            reads: 0,
            answers_at_once: false,
        }
    }

    /// Waits for nothing but the disk.
    pub fn answer_at_once(&mut self) {
        self.answers_at_once = true;
    }

    /// Looks at every partition that is due, in line.
    pub fn look_at_due(&mut self) {
        let session = Arc::clone(&self.session);
        let mut session = lock(&session);
        for place in session.partitions.due() {
            self.look(&mut session, place);
        }
        self.lookup.end_of_pass();
    }

    /// There is an answer, and it can be given without waiting.
    pub fn is_complete(&self) -> bool {
        self.cold == 0 && (self.terms.deadline <= Instant::now() || self.is_satisfied())
    }

    /// Waits until there is enough to answer with, time is up, another request takes the session
    /// over, or the broker stops.
    pub async fn run(&mut self, taken_over: TakenOver, mut shutdown: watch::Receiver<bool>) {
        self.load_cold().await;
        self.arm();
        self.load_cold().await;
        let deadline = self.terms.deadline;
        let no_longer = async move {
            tokio::select! {
                () = sleep_until(deadline) => {}
                _ = taken_over => {}
                _ = shutdown.wait_for(|stops| *stops) => {}
            }
        };
        tokio::pin!(no_longer);
        let session = Arc::clone(&self.session);
        while !self.is_satisfied() {
            tokio::select! {
                // What is there is given, however late it is.
                biased;
                moved = poll_fn(|context| lock(&session).watches.poll_moved(context)) => {
                    self.look_again(&moved);
                    self.load_cold().await;
                }
                () = &mut no_longer => return,
            }
        }
    }

    /// How often a partition was looked at.
    pub fn reads(&self) -> u64 {
        self.reads
    }

    /// The session and what was found, in line.
    pub fn into_outcomes(self) -> (SharedSession, impl Iterator<Item = (Place, Outcome, bool)>) {
        let outcomes = self.outcomes.into_iter();
        let outcomes = outcomes.map(|(place, looked)| (place, looked.outcome, looked.is_urgent));
        (self.session, outcomes)
    }

    /// Enough was found, or something that the client has to know at once, or waiting would not
    /// make it more.
    fn is_satisfied(&self) -> bool {
        self.answers_at_once || self.has_enough() || self.urgent > 0
    }

    fn has_enough(&self) -> bool {
        self.used >= self.terms.min_bytes.min(self.terms.max_bytes)
    }

    /// Watches every partition that was looked at and is not watched. What moved in between is
    /// found by looking again.
    fn arm(&mut self) {
        if self.is_satisfied() {
            return;
        }
        let session = Arc::clone(&self.session);
        let mut session = lock(&session);
        let places: Vec<_> = self.outcomes.keys().copied().collect();
        for place in places {
            if !session.watches.is_armed(place.slot) {
                self.watch(&mut session, place.slot);
                self.look(&mut session, place);
            }
        }
        self.lookup.end_of_pass();
    }

    fn watch(&mut self, session: &mut Session, slot: usize) {
        if let Ok(Found { log, .. }) = self.lookup.find(&mut session.partitions, slot) {
            session.watches.arm(slot, &log);
        }
    }

    fn look_again(&mut self, slots: &[usize]) {
        let session = Arc::clone(&self.session);
        let mut session = lock(&session);
        for slot in slots {
            session.partitions.make_due(*slot);
            if let Some(place) = session.partitions.place(*slot) {
                self.look(&mut session, place);
            }
        }
        self.lookup.end_of_pass();
    }

    fn look(&mut self, session: &mut Session, place: Place) {
        self.reads += 1;
        self.take(place);
        let outcome = match self.lookup.find(&mut session.partitions, place.slot) {
            Err(answer) => Outcome::Refused(answer),
            Ok(found) => self.read_watched(session, place.slot, &found),
        };
        let fetch_offset = session
            .partitions
            .get(place.slot)
            .map_or(0, |partition| partition.asked.fetch_offset);
        self.put(place, outcome, fetch_offset);
    }

    /// Reads. In a session, a partition at its end is watched from before it was found to be there.
    fn read_watched(&self, session: &mut Session, slot: usize, found: &Found) -> Outcome {
        let outcome = self.read(found);
        let is_empty = matches!(&outcome, Outcome::Found(found) if found.records.is_empty());
        if !is_empty || !self.terms.in_session || session.watches.is_armed(slot) {
            return outcome;
        }
        session.watches.arm(slot, &found.log);
        self.read(found)
    }

    /// Reads one partition within what the others have left.
    fn read(&self, found: &Found) -> Outcome {
        let limit = match self.terms.limit {
            Ok(limit) => limit,
            Err(code) => return Outcome::Refused(Box::new(super::fetch_partition::failed(code))),
        };
        let max_bytes = found
            .partition_max_bytes
            .min(self.terms.max_bytes.saturating_sub(self.used));
        let at_least_one = self.used == 0;
        if max_bytes == 0 && !at_least_one {
            // Not worth a visit to the disk.
            return Outcome::Found(Fetched {
                records: Bytes::new(),
                aborted: Vec::new(),
                offsets: found.log.offsets(),
            });
        }
        match found
            .log
            .read(found.fetch_offset, max_bytes, at_least_one, limit)
        {
            Ok(Read::Warm(fetched)) => Outcome::Found(fetched),
            // At least a byte, so that the partitions after it know that they are not the first.
            Ok(Read::Cold(cold)) => Outcome::Cold(cold, max_bytes.max(1)),
            Err(error) => Outcome::Failed(error),
        }
    }

    fn take(&mut self, place: Place) -> Option<Outcome> {
        let looked = self.outcomes.remove(&place)?;
        self.used -= looked.outcome.bytes();
        self.urgent -= usize::from(looked.is_urgent);
        self.cold -= usize::from(matches!(looked.outcome, Outcome::Cold(..)));
        Some(looked.outcome)
    }

    fn put(&mut self, place: Place, outcome: Outcome, fetch_offset: Offset) {
        let limit = self.terms.limit.unwrap_or(ReadLimit::HighWatermark);
        self.used += outcome.bytes();
        // Where there is enough, what more there would be need not be known.
        let is_urgent =
            (outcome.bytes() == 0 || !self.has_enough()) && outcome.is_urgent(fetch_offset, limit);
        self.urgent += usize::from(is_urgent);
        self.cold += usize::from(matches!(outcome, Outcome::Cold(..)));
        let looked = Looked { outcome, is_urgent };
        self.outcomes.insert(place, looked);
    }

    /// Loads what is not in the page cache, all partitions at the same time.
    async fn load_cold(&mut self) {
        if self.cold == 0 {
            return;
        }
        let is_cold = |(_, looked): &(&Place, &Looked)| matches!(looked.outcome, Outcome::Cold(..));
        let cold: Vec<_> = self
            .outcomes
            .iter()
            .filter(is_cold)
            .map(|(p, _)| *p)
            .collect();
        let mut loads = Vec::with_capacity(cold.len());
        for place in cold {
            if let Some(Outcome::Cold(cold, _)) = self.take(place) {
                let load = tokio::task::spawn_blocking(move || cold.load());
                loads.push(async move { (place, load.await) });
            }
        }
        for (place, loaded) in join_all(loads).await {
            let outcome = match loaded {
                Ok(Ok(found)) => Outcome::Found(found),
                Ok(Err(error)) => Outcome::Failed(error),
                Err(error) => {
                    tracing::error!(%error, "a read from the disk ended early");
                    Outcome::Lost
                }
            };
            let fetch_offset = lock(&self.session)
                .partitions
                .get(place.slot)
                .map_or(0, |partition| partition.asked.fetch_offset);
            self.put(place, outcome, fetch_offset);
        }
    }
}

/// There is more to read than was found: a limit, or the end of a segment, came first.
fn is_cut_short(found: &Fetched, fetch_offset: Offset, limit: ReadLimit) -> bool {
    let next = match batches(&found.records).last() {
        // Beyond the end, too, there is something to tell.
        None => return fetch_offset != end_of(&found.offsets, limit),
        Some(Ok(batch)) => batch.last_offset().saturating_add(1),
        // A reader has to see what is wrong with it.
        Some(Err(_)) => return true,
    };
    next < end_of(&found.offsets, limit)
}

/// Where a reader with this limit stops.
fn end_of(offsets: &Offsets, limit: ReadLimit) -> Offset {
    match limit {
        ReadLimit::HighWatermark => offsets.high_watermark,
        ReadLimit::LastStableOffset => offsets.last_stable_offset,
        ReadLimit::LogEnd => offsets.log_end_offset,
    }
}
