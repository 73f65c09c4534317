//! What one of several producers sends: its part of the records, bytes and keys, in its turns of the
//! schedule or as fast as it goes, in transactions or without.

use std::time::Duration;

use crate::args::{Bounds, Load, Producing};
use crate::clock::{seconds_to_us, wake_precisely};
use crate::error::Result;
use crate::meter::latencies;
use crate::pacing::{Schedule, part};
use crate::payload::Payloads;
use crate::producer::{Due, Producer};
use crate::random::Random;
use crate::run::Shared;
use crate::transactions::Transactions;

/// What one of several producers has to do.
#[derive(Clone, Debug)]
pub struct Share {
    /// Which one it is.
    pub index: usize,
    /// Of how many.
    pub producers: usize,
    /// The run's bounds; the share is a part of them.
    pub bounds: Bounds,
    /// What is sent.
    pub load: Load,
    /// How.
    pub producing: Producing,
    /// Where it is sent in transactions: how long each takes records.
    pub transaction: Option<Duration>,
}

/// Sends a producer's share; how many records were delivered.
pub fn produce(producer: Producer, payloads: &Payloads, share: &Share) -> Result<u64> {
    let mut transactions = Transactions::new(&producer, share.transaction);
    let sent = match share.load.rate {
        Some(rate) => send_on_schedule(&producer, payloads, share, &mut transactions, rate),
        None => send_at_once(&producer, payloads, share, &mut transactions),
    }?;
    transactions.finish()?;
    Ok(producer.finish(sent))
}

/// Up to when records are due, or sent: of the run's clock.
pub fn deadline_us(bounds: &Bounds, shared: &Shared) -> u64 {
    let seconds = bounds.seconds_or_default();
    let after = seconds.map_or(u64::MAX, seconds_to_us);
    shared.counted_from_us().saturating_add(after)
}

fn send_on_schedule(
    producer: &Producer,
    payloads: &Payloads,
    share: &Share,
    transactions: &mut Transactions<'_>,
    rate: f64,
) -> Result<u64> {
    wake_precisely();
    let shared = producer.shared();
    producer.lane().begin(shared.counted_from_us());
    let schedule = Schedule::new(rate, shared.begins_us(), share.index, share.producers);
    let deadline_us = deadline_us(&share.bounds, shared);
    let most = share.producing.in_flight.map_or(u64::MAX, u64::from);
    let mut rest = Rest::of(share, shared);
    let mut late = latencies();
    let mut sent = 0;
    while schedule.due_us(sent) < deadline_us && rest.is_some() {
        let due_us = schedule.due_us(sent);
        transactions.end_before(due_us)?;
        if !schedule.wait(sent, shared) || !producer.wait_for_room(sent, most) {
            break;
        }
        transactions.begin()?;
        if !rest.send(producer, payloads, sent, Due::At(due_us)) {
            break;
        }
        sent += 1;
        if due_us >= shared.counted_from_us() {
            late.saturating_record(shared.clock.now_us() - due_us);
        }
    }
    producer.lane().lock().handed_over_late = late;
    Ok(sent)
}

fn send_at_once(
    producer: &Producer,
    payloads: &Payloads,
    share: &Share,
    transactions: &mut Transactions<'_>,
) -> Result<u64> {
    let shared = producer.shared();
    let now_us = shared.clock.now_us();
    producer.lane().begin(now_us.max(shared.counted_from_us()));
    let deadline_us = deadline_us(&share.bounds, shared);
    let most = share.producing.in_flight.map_or(u64::MAX, u64::from);
    let mut rest = Rest::of(share, shared);
    let mut sent = 0;
    while rest.is_some() && !shared.stopped() {
        if !producer.wait_for_room(sent, most) {
            break;
        }
        // The only look at the clock for a record: it is what costs most here.
        let mut now_us = shared.clock.now_us();
        if transactions.is_over(now_us) {
            transactions.commit()?;
            now_us = shared.clock.now_us();
        }
        if now_us >= deadline_us {
            break;
        }
        transactions.begin()?;
        if !rest.send(producer, payloads, sent, Due::AtHandOver(now_us)) {
            break;
        }
        sent += 1;
    }
    Ok(sent)
}

/// What is left of a share once the warm-up is over, and where its keys come from.
struct Rest {
    records: u64,
    bytes: u64,
    counted_from_us: u64,
    keys: Option<u64>,
    random: Random,
    first: u64,
}

impl Rest {
    fn of(share: &Share, shared: &Shared) -> Self {
        let of =
            |total: Option<u64>| total.map_or(u64::MAX, |n| part(n, share.index, share.producers));
        let index = share.index as u64;
        Self {
            records: of(share.bounds.records),
            bytes: of(share.bounds.bytes),
            counted_from_us: shared.counted_from_us(),
            keys: share.producing.keys,
            random: Random::seeded(share.load.seed ^ (index << 32)),
            // So that producers do not send the same values at the same time.
            first: index * 7919,
        }
    }

    fn is_some(&self) -> bool {
        self.records > 0 && self.bytes > 0
    }

    /// Sends record `n`; false where the run was stopped before.
    fn send(&mut self, producer: &Producer, payloads: &Payloads, n: u64, due: Due) -> bool {
        let mut text = [0; DIGITS];
        let key = self
            .keys
            .map(|keys| decimal(self.random.below(keys), &mut text));
        let value = payloads.get(self.first + n);
        let Some(due_us) = producer.send(key, value, due) else {
            return false;
        };
        if due_us >= self.counted_from_us {
            let bytes = value.len() + key.map_or(0, <[u8]>::len);
            self.records -= 1;
            self.bytes = self.bytes.saturating_sub(bytes as u64);
        }
        true
    }
}

/// As many digits as a `u64` has.
pub const DIGITS: usize = 20;

/// A number in decimal, without an allocation.
pub fn decimal(mut number: u64, text: &mut [u8; DIGITS]) -> &[u8] {
    let mut start = DIGITS;
    loop {
        start -= 1;
        text[start] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return &text[start..];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_in_decimal() {
        for number in [0, 9, 10, 12_345, u64::MAX] {
            let mut text = [0; DIGITS];
            assert_eq!(decimal(number, &mut text), number.to_string().as_bytes());
        }
    }
}
