//! One producer: sends its part of the load, and waits for every acknowledgement.
//!
//! Sending and acknowledgements are on two threads. Each record carries the time that its latency
//! counts from through librdkafka and back, in the pointer that librdkafka keeps for the
//! application, so that nothing is allocated or looked up for a record. A full queue makes the
//! sender wait; at a fixed rate the schedule goes on meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::Thread;
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};

use crate::args::{Bounds, Load, Producing};
use crate::clock::{seconds_to_us, wake_precisely};
use crate::error::{Error, Result};
use crate::meter::{Lane, latencies};
use crate::pacing::{Schedule, part};
use crate::payload::Payloads;
use crate::random::Random;
use crate::run::Shared;
use crate::settings;

/// How long to wait where librdkafka's queue is full.
const QUEUE_FULL: Duration = Duration::from_micros(500);
/// How long a thread waits at most before it looks whether the run was stopped.
const LOOK: Duration = Duration::from_millis(50);

/// A connected producer of one topic.
pub struct Producer {
    client: ThreadedProducer<Deliveries>,
    shared: Arc<Shared>,
    lane: Arc<Lane>,
    topic: String,
}

impl Producer {
    /// Connects.
    pub fn connect(
        config: &ClientConfig,
        shared: &Arc<Shared>,
        lane: Arc<Lane>,
        topic: &str,
        patience: Duration,
    ) -> Result<Self> {
        let deliveries = Deliveries {
            shared: Arc::clone(shared),
            lane: Arc::clone(&lane),
            ended: AtomicU64::new(0),
            delivered: AtomicU64::new(0),
            sender_waits: AtomicBool::new(false),
            sender: std::sync::OnceLock::new(),
        };
        let client: ThreadedProducer<Deliveries> = settings::create(config, deliveries)?;
        client
            .client()
            .fetch_metadata(Some(topic), patience)
            .map_err(Error::kafka(format!("topic {topic:?}")))?;
        Ok(Self {
            client,
            shared: Arc::clone(shared),
            lane,
            topic: topic.to_owned(),
        })
    }

    /// Where it counts.
    pub fn lane(&self) -> &Lane {
        &self.lane
    }

    /// Hands a record over; what its latency counts from, or none where the run was stopped before the
    /// queue had room. A record that librdkafka refuses is counted as one that failed.
    pub fn send(&self, key: Option<&[u8]>, value: &[u8], counts_from: Due) -> Option<u64> {
        let (Due::At(mut due_us) | Due::AtHandOver(mut due_us)) = counts_from;
        loop {
            let mut record =
                BaseRecord::with_opaque_to(&self.topic, due_us as usize).payload(value);
            if let Some(key) = key {
                record = record.key(key);
            }
            match self.client.send(record) {
                Ok(()) => return Some(due_us),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                    if self.shared.stopped() {
                        return None;
                    }
                    std::thread::sleep(QUEUE_FULL);
                    if let Due::AtHandOver(_) = counts_from {
                        due_us = self.shared.clock.now_us();
                    }
                }
                Err((error, _)) => {
                    let deliveries = self.client.context();
                    self.lane.lock().fail(error_name(&error));
                    deliveries.end();
                    return Some(due_us);
                }
            }
        }
    }

    /// Waits until fewer than `most` of `sent` records are unacknowledged; false where the run was
    /// stopped before.
    pub fn wait_for_room(&self, sent: u64, most: u64) -> bool {
        let deliveries = self.client.context();
        let full = || sent - deliveries.ended.load(Ordering::SeqCst) >= most;
        while full() {
            if self.shared.stopped() {
                return false;
            }
            deliveries.sender.get_or_init(std::thread::current);
            deliveries.sender_waits.store(true, Ordering::SeqCst);
            if full() {
                std::thread::park_timeout(LOOK);
            }
        }
        true
    }

    /// Waits for all `sent` records; how many were delivered. Where the run is stopped, those that are
    /// still on their way fail.
    pub fn finish(self, sent: u64) -> u64 {
        let deliveries = Arc::clone(self.client.context());
        while deliveries.ended.load(Ordering::SeqCst) < sent && !self.shared.stopped() {
            // Also ends the linger of the last batches.
            let _ = self.client.flush(Duration::from_millis(10));
        }
        drop(self.client);
        deliveries.delivered.load(Ordering::SeqCst)
    }
}

/// What a record's latency counts from.
#[derive(Clone, Copy, Debug)]
pub enum Due {
    /// A time of the schedule, in microseconds of the run's clock.
    At(u64),
    /// When librdkafka takes it: now, which is given, or later where the queue is full.
    AtHandOver(u64),
}

/// Takes what librdkafka says of records, on its poll thread.
struct Deliveries {
    shared: Arc<Shared>,
    lane: Arc<Lane>,
    /// Records that were delivered or failed.
    ended: AtomicU64,
    delivered: AtomicU64,
    sender_waits: AtomicBool,
    sender: std::sync::OnceLock<Thread>,
}

impl Deliveries {
    fn end(&self) {
        self.ended.fetch_add(1, Ordering::SeqCst);
        if self.sender_waits.load(Ordering::SeqCst)
            && self.sender_waits.swap(false, Ordering::SeqCst)
            && let Some(sender) = self.sender.get()
        {
            sender.unpark();
        }
    }
}

impl ClientContext for Deliveries {
    fn error(&self, error: KafkaError, reason: &str) {
        self.shared.hear(&format!("{error}: {reason}"));
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, due_us: usize) {
        let due_us = due_us as u64;
        match result {
            Ok(message) => {
                let now_us = self.shared.clock.now_us();
                let mut counts = self.lane.lock();
                if due_us >= self.shared.counted_from_us() {
                    let bytes = message.payload_len() + message.key_len();
                    counts.record(bytes, now_us, now_us.saturating_sub(due_us));
                } else {
                    counts.moved = true;
                }
                drop(counts);
                self.delivered.fetch_add(1, Ordering::Relaxed);
            }
            Err((error, _)) => self.lane.lock().fail(error_name(error)),
        }
        self.end();
    }
}

/// librdkafka's name of an error.
pub fn error_name(error: &KafkaError) -> String {
    match error.rdkafka_error_code() {
        Some(code) => format!("{code:?}"),
        None => error.to_string(),
    }
}

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
}

/// Sends a producer's share; how many records were delivered.
pub fn produce(producer: Producer, payloads: &Payloads, share: &Share) -> u64 {
    let sent = match share.load.rate {
        Some(rate) => send_on_schedule(&producer, payloads, share, rate),
        None => send_at_once(&producer, payloads, share),
    };
    producer.finish(sent)
}

/// Up to when records are due, or sent: of the run's clock.
pub fn deadline_us(bounds: &Bounds, shared: &Shared) -> u64 {
    let seconds = bounds.seconds_or_default();
    let after = seconds.map_or(u64::MAX, seconds_to_us);
    shared.counted_from_us().saturating_add(after)
}

fn send_on_schedule(producer: &Producer, payloads: &Payloads, share: &Share, rate: f64) -> u64 {
    wake_precisely();
    let shared = &producer.shared;
    producer.lane.begin(shared.counted_from_us());
    let schedule = Schedule::new(rate, shared.begins_us(), share.index, share.producers);
    let deadline_us = deadline_us(&share.bounds, shared);
    let most = share.producing.in_flight.map_or(u64::MAX, u64::from);
    let mut rest = Rest::of(share, shared);
    let mut late = latencies();
    let mut sent = 0;
    while schedule.due_us(sent) < deadline_us && rest.is_some() {
        let due_us = schedule.due_us(sent);
        if !schedule.wait(sent, shared) || !producer.wait_for_room(sent, most) {
            break;
        }
        if !rest.send(producer, payloads, sent, Due::At(due_us)) {
            break;
        }
        sent += 1;
        if due_us >= shared.counted_from_us() {
            late.saturating_record(shared.clock.now_us() - due_us);
        }
    }
    producer.lane.lock().handed_over_late = late;
    sent
}

fn send_at_once(producer: &Producer, payloads: &Payloads, share: &Share) -> u64 {
    let shared = &producer.shared;
    let now_us = shared.clock.now_us();
    producer.lane.begin(now_us.max(shared.counted_from_us()));
    let deadline_us = deadline_us(&share.bounds, shared);
    let most = share.producing.in_flight.map_or(u64::MAX, u64::from);
    let mut rest = Rest::of(share, shared);
    let mut sent = 0;
    while rest.is_some() && !shared.stopped() {
        if !producer.wait_for_room(sent, most) {
            break;
        }
        // The only look at the clock for a record: it is what costs most here.
        let now_us = shared.clock.now_us();
        if now_us >= deadline_us || !rest.send(producer, payloads, sent, Due::AtHandOver(now_us)) {
            break;
        }
        sent += 1;
    }
    sent
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
