//! A reader of the vault in read_committed that reads all along, and outlives the kills.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};

use super::book::{Book, Leg};
use super::checker::Vault;
use crate::{Isolation, Milena, PATIENCE};

/// The offset and the value of each record.
pub(super) type Records = Vec<(i64, Vec<u8>)>;

/// While it is not known yet how many records there will be.
const MORE: usize = usize::MAX;

pub(super) struct LiveReader {
    /// It ends with so many records.
    count: Arc<AtomicUsize>,
    thread: JoinHandle<Result<Records, String>>,
}

impl LiveReader {
    pub(super) fn start(milena: &Milena) -> Self {
        let consumer: BaseConsumer = milena.client_with(&[
            ("group.id", "unused"),
            ("isolation.level", Isolation::ReadCommitted.name()),
            ("fetch.wait.max.ms", "50"),
            ("reconnect.backoff.ms", "10"),
            ("reconnect.backoff.max.ms", "100"),
            ("topic.metadata.refresh.interval.ms", "500"),
            // What is read is there for good: a position that is out of range is a fault.
            ("auto.offset.reset", "error"),
        ]);
        let mut assignment = TopicPartitionList::new();
        let (topic, _) = Book::Vault.topics()[0];
        assignment
            .add_partition_offset(topic, 0, Offset::Offset(0))
            .expect("an assignment");
        consumer.assign(&assignment).expect("assigned");
        let count = Arc::new(AtomicUsize::new(MORE));
        let wanted = Arc::clone(&count);
        let thread = std::thread::spawn(move || read(&consumer, &wanted));
        Self { count, thread }
    }

    /// Once nothing is written any more and there are so many records: what it has read.
    pub(super) fn finish(self, count: usize) -> Result<Records, String> {
        self.count.store(count, Ordering::SeqCst);
        let read = self.thread.join();
        read.map_err(|_| "the reader panicked".to_owned())?
    }
}

fn read(consumer: &BaseConsumer, count: &AtomicUsize) -> Result<Records, String> {
    let (mut vault, mut records) = (Vault::new(), Records::new());
    let mut deadline = None;
    loop {
        let count = count.load(Ordering::SeqCst);
        if records.len() >= count {
            vault.check_closed()?;
            return Ok(records);
        }
        if count != MORE && *deadline.get_or_insert(Instant::now() + PATIENCE) < Instant::now() {
            let read = records.len();
            return Err(format!(
                "who reads the vault all along has {read} of {count} records"
            ));
        }
        match consumer.poll(Duration::from_millis(50)) {
            None => {}
            Some(Ok(message)) => {
                let value = message.payload().unwrap_or_default();
                let leg = Leg::from_bytes(value).ok_or("a record of the vault is none")?;
                vault
                    .take(message.offset(), &leg)
                    .map_err(|fault| format!("read all along: {fault}"))?;
                records.push((message.offset(), value.to_vec()));
            }
            Some(Err(error)) if error.rdkafka_error_code().is_some_and(is_of_a_cut) => {
                return Err(format!("the vault was cut below what was read: {error}"));
            }
            // Of the time without a broker.
            Some(Err(_)) => {}
        }
    }
}

fn is_of_a_cut(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::LogTruncation
    )
}
