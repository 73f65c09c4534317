//! Idempotent producers that outlive the broker: what it had not answered when it was killed they send
//! again, so that it has to tell what it has from what it has not.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use broker::quickstart::transactions::{FRAUD_RATE, transaction};
use rdkafka::ClientContext;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};

use super::TOPICS;
use crate::random::Random;
use crate::{Milena, PATIENCE};

/// Ids of one producer are below this, so that an id says whose it is.
pub(super) const IDS: u64 = 1_000_000_000;
/// Records of one producer that are not answered yet.
const MAX_UNANSWERED: u64 = 400;

/// A record that was acknowledged.
#[derive(Clone, Debug)]
pub(super) struct Acknowledged {
    pub topic: usize,
    pub partition: i32,
    pub offset: i64,
    pub id: u64,
}

/// What the broker has answered.
#[derive(Clone, Default)]
struct Answers {
    count: Arc<AtomicU64>,
    acknowledged: Arc<Mutex<Vec<Acknowledged>>>,
    failures: Arc<Mutex<Vec<String>>>,
}

impl ClientContext for Answers {}

impl ProducerContext for Answers {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let message = match result {
            Ok(message) => message,
            Err((error, _)) => {
                let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
                failures.push(error.to_string());
                return;
            }
        };
        let topic = TOPICS
            .iter()
            .position(|topic| topic.name == message.topic());
        let acknowledged = Acknowledged {
            topic: topic.unwrap_or(0),
            partition: message.partition(),
            offset: message.offset(),
            id: id_of(message.payload().unwrap_or_default()).unwrap_or(u64::MAX),
        };
        let mut all = self
            .acknowledged
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        all.push(acknowledged);
        self.count.fetch_add(1, Ordering::SeqCst);
    }
}

/// The id in a payload of either kind.
pub(super) fn id_of(payload: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(payload).ok()?;
    if text.starts_with('{') {
        let value: serde_json::Value = serde_json::from_str(text).ok()?;
        return value["tx_id"].as_str()?.parse().ok();
    }
    text.split(' ').next()?.parse().ok()
}

fn payload(topic: usize, id: u64, random: &mut Random) -> String {
    if TOPICS[topic].scored {
        let mut transaction = transaction(1, id, FRAUD_RATE).transaction;
        transaction.tx_id = id.to_string();
        return serde_json::to_string(&transaction).expect("JSON");
    }
    let padding = random.below(800) as usize;
    format!("{id} {:x>padding$}", "")
}

/// One producer, on all partitions of one topic.
pub(super) struct Load {
    answers: Answers,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<u64, String>>>,
}

impl Load {
    pub(super) fn start(milena: &Milena, number: u64, topic: usize, seed: u64) -> Self {
        let answers = Answers::default();
        let mut config = milena.client();
        config
            .set("acks", "all")
            .set("enable.idempotence", "true")
            .set("linger.ms", "2")
            .set("batch.num.messages", "40")
            .set("message.timeout.ms", "900000")
            .set("reconnect.backoff.ms", "10")
            .set("reconnect.backoff.max.ms", "100")
            .set("retry.backoff.ms", "10")
            .set("retry.backoff.max.ms", "100");
        let producer: ThreadedProducer<Answers> =
            ThreadedProducer::from_config_and_context(&config, answers.clone())
                .expect("a producer");
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&answers.count));
        let mut random = Random::new(seed.wrapping_add(number));
        let thread = std::thread::spawn(move || {
            let mut sent = 0;
            while !stopped.load(Ordering::SeqCst) {
                if sent - counted.load(Ordering::SeqCst) >= MAX_UNANSWERED {
                    std::thread::sleep(Duration::from_millis(1));
                    continue;
                }
                if random.below(8) == 0 {
                    std::thread::sleep(Duration::from_millis(random.below(16)));
                }
                let payload = payload(topic, number * IDS + sent, &mut random);
                let partition = random.below(TOPICS[topic].partitions as u64) as i32;
                let record = BaseRecord::<[u8], str>::to(TOPICS[topic].name)
                    .partition(partition)
                    .payload(&payload);
                producer
                    .send(record)
                    .map_err(|(error, _)| error.to_string())?;
                sent += 1;
            }
            producer
                .flush(PATIENCE)
                .map_err(|error| error.to_string())?;
            Ok(sent)
        });
        Self {
            answers,
            stop,
            thread: Some(thread),
        }
    }

    /// What was acknowledged since the last call.
    pub(super) fn take_acknowledged(&self) -> Vec<Acknowledged> {
        let mut all = self
            .answers
            .acknowledged
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *all)
    }

    /// Ends when everything is answered; how many records that is.
    pub(super) fn finish(&mut self) -> Result<u64, String> {
        self.stop.store(true, Ordering::SeqCst);
        let thread = self.thread.take().ok_or("finished already")?;
        let sent = thread
            .join()
            .map_err(|_| "a producer panicked".to_owned())??;
        let failures = self
            .answers
            .failures
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match failures.first() {
            Some(first) => Err(format!("{} records failed: {first}", failures.len())),
            None => Ok(sent),
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}
