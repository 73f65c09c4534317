//! The transactions of one producer: each takes records for its time, and is then committed.
//!
//! A transaction begins with the first record that is sent after the one before, so that none is empty, and ends
//! when its time is over, whether or not a record is due then. While it is committed nothing is sent; at a
//! fixed rate the schedule goes on meanwhile, so that a commit is in the latency of all records that
//! were due during it.

use std::time::Duration;

use crate::args::{Acks, Load, Producing, Target, written};
use crate::error::{Error, Result};
use crate::pacing::sleep_until_us;
use crate::producer::Producer;
use crate::settings::TRANSACTIONAL_ID;

/// As Kafka's own kafka-producer-perf-test.
const DEFAULT_DURATION_MS: u32 = 3000;
/// How long a commit waits at most before it looks whether the run was stopped; and how long an abort
/// may take.
const LOOK: Duration = Duration::from_secs(1);

/// How the producers of a run make their transactions.
#[derive(Clone, Debug)]
pub struct Transactional {
    prefix: String,
    /// How long each takes records.
    pub duration: Duration,
}

impl Transactional {
    /// As the options say; none where they ask for no transactions.
    pub fn of(target: &Target, load: &Load, producing: &Producing) -> Result<Option<Self>> {
        check_properties(target)?;
        let duration_ms = producing.transaction_duration_ms;
        let Some(prefix) = &producing.transactional_id else {
            return match duration_ms {
                Some(duration_ms) => Err(Error::Value {
                    option: "--transaction-duration-ms",
                    value: duration_ms.to_string(),
                    reason: "there are no transactions without --transactional-id",
                }),
                None => Ok(None),
            };
        };
        if load.acks != Acks::All {
            return Err(Error::Value {
                option: "--acks",
                value: written(&load.acks),
                reason: "transactions, which --transactional-id asks for, need --acks all",
            });
        }
        let duration_ms = duration_ms.unwrap_or(DEFAULT_DURATION_MS);
        Ok(Some(Self {
            prefix: prefix.clone(),
            duration: Duration::from_millis(u64::from(duration_ms)),
        }))
    }

    /// The transactional id of the producer with that number.
    pub fn id(&self, number: u16) -> String {
        format!("{}-{number}", self.prefix)
    }
}

/// Refuses a transactional id among the settings for all clients: two producers with the same one shut
/// each other out.
pub fn check_properties(target: &Target) -> Result<()> {
    let mut properties = target.properties.iter();
    match properties.find(|(key, _)| key == TRANSACTIONAL_ID) {
        Some((key, id)) => Err(Error::Value {
            option: "-X",
            value: format!("{key}={id}"),
            reason: "each producer needs an id of its own: --transactional-id of produce and mix",
        }),
        None => Ok(()),
    }
}

/// The transactions of a producer; one without a duration has none, and every method does nothing.
pub struct Transactions<'a> {
    producer: &'a Producer,
    duration_us: Option<u64>,
    /// Of the open one: when its time is over.
    over_us: Option<u64>,
    begun: u64,
}

impl<'a> Transactions<'a> {
    /// None is open.
    pub fn new(producer: &'a Producer, duration: Option<Duration>) -> Self {
        Self {
            producer,
            duration_us: duration.map(|duration| duration.as_micros() as u64),
            over_us: None,
            begun: 0,
        }
    }

    /// Begins one where none is open.
    pub fn begin(&mut self) -> Result<()> {
        if let (Some(duration_us), None) = (self.duration_us, self.over_us) {
            self.producer.begin_transaction()?;
            self.begun += 1;
            self.over_us = Some(self.producer.shared().clock.now_us() + duration_us);
        }
        Ok(())
    }

    /// Whether one is open whose time is over.
    pub fn is_over(&self, now_us: u64) -> bool {
        self.over_us.is_some_and(|over_us| over_us <= now_us)
    }

    /// Commits the open one where its time is over, or will be before `due_us`: then when it is.
    pub fn end_before(&mut self, due_us: u64) -> Result<()> {
        let Some(over_us) = self.over_us else {
            return Ok(());
        };
        let shared = self.producer.shared();
        if self.is_over(due_us.max(shared.clock.now_us())) && sleep_until_us(over_us, shared) {
            self.commit()?;
        }
        Ok(())
    }

    /// Commits the open one. Where the run is stopped meanwhile it is aborted.
    pub fn commit(&mut self) -> Result<()> {
        if self.over_us.take().is_none() {
            return Ok(());
        }
        let shared = self.producer.shared();
        let began_us = shared.clock.now_us();
        while let Err(error) = self.producer.commit_transaction(LOOK) {
            if error.can_go_on && !shared.stopped() {
                continue;
            }
            self.producer.abort_transaction(LOOK);
            // Why the run was stopped is known already.
            return match shared.stopped() {
                true => Ok(()),
                false => Err(Error::Commit {
                    number: self.begun,
                    id: self.producer.transactional_id().to_owned(),
                    reason: error.reason,
                }),
            };
        }
        let now_us = shared.clock.now_us();
        let acknowledged_us = self.producer.last_delivered_us().clamp(began_us, now_us);
        let mut counts = self.producer.lane().lock();
        counts.moved = true;
        if began_us >= shared.counted_from_us() {
            counts.commit(now_us, now_us - began_us, now_us - acknowledged_us);
        }
        Ok(())
    }

    /// Commits the last one, or aborts it where the run was stopped.
    pub fn finish(mut self) -> Result<()> {
        if self.over_us.is_some() && self.producer.shared().stopped() {
            self.producer.abort_transaction(LOOK);
            return Ok(());
        }
        self.commit()
    }
}
