//! Transactions of customers, from one idempotent producer that outlives the broker.
//!
//! All of a customer's are in one partition of the input, which is mostly not the one that they are scored in. Event times
//! advance over ten hours, up to a minute out of order. A few customers have most of the transactions.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use serde_json::json;

use super::{INPUT, PARTITIONS};
use crate::Milena;
use crate::random::Random;

const FIRST_MS: u64 = 1_700_000_000_000;
const HOURS_MS: u64 = 10 * 3_600_000;
/// What the windows' grace is longer than.
const DISORDER_MS: u64 = 60_000;
/// Until everything is delivered, over starts of the broker.
const DELIVERY: Duration = Duration::from_secs(600);

/// What the broker has refused.
#[derive(Clone, Default)]
struct Failures(Arc<Mutex<Vec<String>>>);

impl ClientContext for Failures {}

impl ProducerContext for Failures {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            let mut failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            failures.push(error.to_string());
        }
    }
}

/// The producer.
pub(super) struct Load {
    allowed: Arc<AtomicU64>,
    failures: Failures,
    thread: Option<JoinHandle<Result<(), String>>>,
}

impl Load {
    /// Records have keys of their own where `is_keyed` says that customers are found in them; otherwise customers are their
    /// keys.
    pub(super) fn start(
        milena: &Milena,
        transactions: u64,
        customers: u64,
        is_keyed: bool,
        seed: u64,
    ) -> Self {
        let failures = Failures::default();
        let mut config = milena.client();
        config
            .set("acks", "all")
            .set("enable.idempotence", "true")
            .set("linger.ms", "5")
            .set("batch.num.messages", "500")
            .set("message.timeout.ms", "900000")
            .set("reconnect.backoff.ms", "10")
            .set("reconnect.backoff.max.ms", "100")
            .set("retry.backoff.ms", "10")
            .set("retry.backoff.max.ms", "100");
        let producer: ThreadedProducer<Failures> =
            ThreadedProducer::from_config_and_context(&config, failures.clone())
                .expect("a producer");
        let allowed = Arc::new(AtomicU64::new(0));
        let until = Arc::clone(&allowed);
        let mut random = Random::new(seed);
        let thread = std::thread::spawn(move || {
            for number in 0..transactions {
                while number >= until.load(Ordering::SeqCst) {
                    std::thread::sleep(Duration::from_millis(1));
                }
                let (customer, text) = transaction(number, transactions, customers, &mut random);
                let key = match is_keyed {
                    true => format!("t{number}"),
                    false => format!("c{customer}"),
                };
                let mut record = BaseRecord::<str, str>::to(INPUT)
                    .partition((customer % PARTITIONS) as i32)
                    .key(&key)
                    .payload(&text);
                while let Err((error, returned)) = producer.send(record) {
                    let full = KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull);
                    if error != full {
                        return Err(error.to_string());
                    }
                    record = returned;
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
            producer.flush(DELIVERY).map_err(|error| error.to_string())
        });
        Self {
            allowed,
            failures,
            thread: Some(thread),
        }
    }

    /// So many transactions may be sent by now.
    pub(super) fn allow(&self, transactions: u64) {
        self.allowed.fetch_max(transactions, Ordering::SeqCst);
    }

    /// Waits until all are delivered.
    pub(super) fn finish(&mut self) -> Result<(), String> {
        self.allow(u64::MAX);
        let thread = self.thread.take().ok_or("finished already")?;
        let began = Instant::now();
        while !thread.is_finished() && began.elapsed() < DELIVERY {
            std::thread::sleep(Duration::from_millis(10));
        }
        if !thread.is_finished() {
            return Err(format!("not everything is sent within {DELIVERY:?}"));
        }
        thread.join().map_err(|_| "the producer panicked")??;
        let failures = self.failures.0.lock();
        let failures = failures.unwrap_or_else(PoisonError::into_inner);
        match failures.first() {
            Some(first) => Err(format!("{} records failed: {first}", failures.len())),
            None => Ok(()),
        }
    }
}

/// A customer, and one of its transactions.
fn transaction(number: u64, of: u64, customers: u64, random: &mut Random) -> (u64, String) {
    let share = random.below(1 << 30) as f64 / f64::from(1 << 30);
    let customer = (share.powi(3) * customers as f64) as u64;
    let ts = FIRST_MS + number * HOURS_MS / of - random.below(DISORDER_MS);
    // 1 to 10,000, all orders of magnitude alike.
    let amount = 10f64.powf(random.below(4_000) as f64 / 1_000.0);
    let fee = match random.below(3) {
        0 => json!(null),
        _ => json!(random.below(500) as f64 / 100.0),
    };
    let pick =
        |of: &[&'static str], random: &mut Random| of[random.below(of.len() as u64) as usize];
    let value = json!({
        "tx_id": format!("t{number}"),
        "customer_id": format!("c{customer}"),
        "ts": ts,
        "amount": (amount * 100.0).round() / 100.0,
        "fee": fee,
        "merchant": {
            "id": format!("m{}", random.below(500)),
            "category": pick(&["grocery", "fuel", "travel", "digital"], random),
            "country": pick(&["CZ", "DE", "AT", "US"], random),
        },
        "card_present": random.below(2) == 0,
        "hour": random.below(24),
        "account_age_days": customer % 3000,
    });
    (customer, value.to_string())
}
