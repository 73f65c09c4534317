//! One client that produces: hands records over, and takes every acknowledgement.
//!
//! Sending and acknowledgements are on two threads. Each record carries the time that its latency
//! counts from through librdkafka and back, in the pointer that librdkafka keeps for the
//! application, so that nothing is allocated or looked up for a record. A full queue makes the
//! sender wait; at a fixed rate the schedule goes on meanwhile.

use std::ffi::CStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::Thread;
use std::time::Duration;

use rdkafka::bindings::{
    rd_kafka_commit_transaction, rd_kafka_error_destroy, rd_kafka_error_is_retriable,
    rd_kafka_error_string,
};
use rdkafka::client::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};

use crate::error::{Error, Result};
use crate::meter::Lane;
use crate::run::Shared;
use crate::settings::{self, TRANSACTIONAL_ID};

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
    transactional_id: Option<String>,
}

impl Producer {
    /// Connects. With a transactional id it is then the only producer that has it, and what one before
    /// has left open is aborted.
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
            last_delivered_us: AtomicU64::new(0),
            sender_waits: AtomicBool::new(false),
            sender: std::sync::OnceLock::new(),
        };
        let client: ThreadedProducer<Deliveries> = settings::create(config, deliveries)?;
        client
            .client()
            .fetch_metadata(Some(topic), patience)
            .map_err(Error::kafka(format!("topic {topic:?}")))?;
        let transactional_id = config.get(TRANSACTIONAL_ID);
        if let Some(id) = transactional_id {
            let at = config.get("bootstrap.servers").unwrap_or("?");
            client
                .init_transactions(patience)
                .map_err(Error::kafka(format!("transactional id {id:?} at {at}")))?;
        }
        Ok(Self {
            client,
            shared: Arc::clone(shared),
            lane,
            topic: topic.to_owned(),
            transactional_id: transactional_id.map(str::to_owned),
        })
    }

    /// Where it counts.
    pub fn lane(&self) -> &Lane {
        &self.lane
    }

    /// The run that it is part of.
    pub fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Its transactional id; empty where it has none.
    pub fn transactional_id(&self) -> &str {
        self.transactional_id.as_deref().unwrap_or_default()
    }

    /// When the last acknowledgement came.
    pub fn last_delivered_us(&self) -> u64 {
        let deliveries = self.client.context();
        deliveries.last_delivered_us.load(Ordering::SeqCst)
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

    /// Begins a transaction, which takes all that is sent from now on.
    pub fn begin_transaction(&self) -> Result<()> {
        self.client
            .begin_transaction()
            .map_err(Error::kafka("beginning a transaction"))
    }

    /// Waits until all that was sent is acknowledged, and the transaction committed; at most for `wait`.
    pub fn commit_transaction(&self, wait: Duration) -> std::result::Result<(), NotCommitted> {
        // rdkafka's own is up to 100 ms late: it flushes first, and looks only so often whether all is
        // acknowledged.
        let client = self.client.client().native_ptr();
        // SAFETY: the client is alive as long as `self`.
        let error = unsafe { rd_kafka_commit_transaction(client, wait.as_millis() as i32) };
        if error.is_null() {
            return Ok(());
        }
        // SAFETY: the error is ours until it is destroyed, and its text is copied before.
        unsafe {
            let not_committed = NotCommitted {
                reason: CStr::from_ptr(rd_kafka_error_string(error))
                    .to_string_lossy()
                    .into_owned(),
                can_go_on: rd_kafka_error_is_retriable(error) != 0,
            };
            rd_kafka_error_destroy(error);
            Err(not_committed)
        }
    }

    /// Aborts the transaction, so that it is in nobody's way; where that doesn't succeed within `wait`, the
    /// broker does it when its time is over.
    pub fn abort_transaction(&self, wait: Duration) {
        let _ = self.client.abort_transaction(wait);
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

/// Why a transaction is not committed (yet).
#[derive(Clone, Debug)]
pub struct NotCommitted {
    /// In librdkafka's words.
    pub reason: String,
    /// Whether it still may be: the next call goes on where this one has stopped.
    pub can_go_on: bool,
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
    last_delivered_us: AtomicU64,
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
                self.last_delivered_us.store(now_us, Ordering::SeqCst);
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
