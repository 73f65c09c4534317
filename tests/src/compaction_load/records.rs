//! What is written, and whether it is read back.

use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};

use super::Options;
use crate::{Milena, PATIENCE, ends};

/// `k` and eight digits.
const KEY_BYTES: usize = 9;
/// Update and key, four bytes each, and eight that follow from them.
const VALUE_BYTES: usize = 16;
/// What a record takes in a batch beside its key and value: lengths, deltas, attributes, headers.
const RECORD_OVERHEAD_BYTES: u64 = 9;

/// Who writes what, where.
pub(super) struct Plan {
    keys: u32,
    updates: u32,
    partitions: u32,
    producers: u32,
}

impl Plan {
    pub fn new(options: &Options) -> Self {
        Self {
            keys: options.keys,
            updates: options.updates,
            partitions: options.partitions,
            producers: options.producers,
        }
    }

    fn partition(&self, key: u32) -> i32 {
        (key / self.producers.max(1) % self.partitions.max(1)) as i32
    }
}

fn key_of(key: u32) -> [u8; KEY_BYTES] {
    let mut bytes = *b"k00000000";
    let mut rest = key;
    for digit in bytes.iter_mut().skip(1).rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    bytes
}

fn key_in(bytes: &[u8]) -> Option<u32> {
    let digits = bytes.strip_prefix(b"k")?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

fn value_of(key: u32, update: u32) -> [u8; VALUE_BYTES] {
    let mixed = (u64::from(key) << 32 | u64::from(update)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut bytes = [0; VALUE_BYTES];
    bytes[..4].copy_from_slice(&update.to_be_bytes());
    bytes[4..8].copy_from_slice(&key.to_be_bytes());
    bytes[8..].copy_from_slice(&mixed.to_be_bytes());
    bytes
}

/// Writes every update of the keys of one producer.
pub(super) fn produce(
    milena: &Milena,
    topic: &str,
    plan: &Plan,
    options: &Options,
    producer: u32,
) -> Result<(), String> {
    let idempotent = if options.acks == "all" {
        "true"
    } else {
        "false"
    };
    let client: BaseProducer = milena.client_with(&[
        ("acks", &options.acks),
        ("enable.idempotence", idempotent),
        ("compression.type", &options.compression),
        ("linger.ms", "20"),
        ("batch.size", "1000000"),
        ("queue.buffering.max.messages", "500000"),
        ("queue.buffering.max.kbytes", "65536"),
    ]);
    // Its keys are producer, producer + producers, and so on.
    let own = (plan.keys + plan.producers - 1 - producer) / plan.producers;
    let pace = Pace::new(options.records_per_second, plan.producers);
    for update in 0..plan.updates {
        let order = Order::new(own, update);
        for nth in 0..own {
            let key = order.at(nth) * plan.producers + producer;
            send(&client, topic, plan.partition(key), key, update)?;
            pace.wait(&client, u64::from(update) * u64::from(own) + u64::from(nth));
        }
        client.poll(Duration::ZERO);
    }
    client
        .flush(PATIENCE * 2)
        .map_err(|error| format!("producer {producer}: {error}"))
}

/// When a producer's records are due.
struct Pace {
    begun: Instant,
    /// `None`: at once.
    per_second: Option<f64>,
}

impl Pace {
    /// How often it looks at the clock.
    const RECORDS: u64 = 500;

    fn new(of_all: u32, producers: u32) -> Self {
        Self {
            begun: Instant::now(),
            per_second: (of_all > 0).then(|| f64::from(of_all) / f64::from(producers)),
        }
    }

    fn wait(&self, client: &BaseProducer, sent: u64) {
        let Some(per_second) = self
            .per_second
            .filter(|_| sent.is_multiple_of(Self::RECORDS))
        else {
            return;
        };
        let due = self.begun + Duration::from_secs_f64(sent as f64 / per_second);
        loop {
            let left = due.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            client.poll(left);
        }
    }
}

fn send(
    client: &BaseProducer,
    topic: &str,
    partition: i32,
    key: u32,
    update: u32,
) -> Result<(), String> {
    let (key_bytes, value) = (key_of(key), value_of(key, update));
    let mut record = BaseRecord::to(topic)
        .partition(partition)
        .key(&key_bytes[..])
        .payload(&value[..]);
    let since = Instant::now();
    loop {
        match client.send(record) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                if since.elapsed() > PATIENCE {
                    return Err(format!("nothing is taken for {PATIENCE:?}"));
                }
                record = back;
                client.poll(Duration::from_millis(10));
            }
            Err((error, _)) => return Err(format!("key {key}, update {update}: {error}")),
        }
    }
}

/// Numbers below `count` in another order for each round: n times a factor that has no divisor in
/// common with `count`.
struct Order {
    count: u64,
    factor: u64,
    first: u64,
}

impl Order {
    fn new(count: u32, round: u32) -> Self {
        let count = u64::from(count.max(1));
        let mut factor = (u64::from(round) * 7_919 + 104_729) % count.max(2);
        while greatest_common_divisor(factor, count) != 1 {
            factor += 1;
        }
        let first = u64::from(round) * 15_485_863 % count;
        Self {
            count,
            factor,
            first,
        }
    }

    fn at(&self, nth: u32) -> u32 {
        ((u64::from(nth) * self.factor + self.first) % self.count) as u32
    }
}

fn greatest_common_divisor(a: u64, b: u64) -> u64 {
    if b == 0 {
        a
    } else {
        greatest_common_divisor(b, a % b)
    }
}

/// What was consumed.
#[derive(Debug)]
pub(super) struct Found {
    pub records: u64,
    /// What the newest records take by themselves.
    pub live_bytes: u64,
}

/// Consumes everything and holds it against the plan.
pub(super) fn consume(milena: &Milena, topic: &str, plan: &Plan) -> Result<Found, String> {
    let consumer: BaseConsumer = milena.client_with(&[
        ("group.id", "unused"),
        ("enable.auto.commit", "false"),
        ("fetch.wait.max.ms", "50"),
        ("check.crcs", "true"),
    ]);
    let ends = ends(&consumer, topic);
    let mut assignment = TopicPartitionList::new();
    for partition in ends.keys() {
        let added = assignment.add_partition_offset(topic, *partition, Offset::Beginning);
        added.map_err(|error| error.to_string())?;
    }
    consumer.assign(&assignment).map_err(|e| e.to_string())?;
    let mut open = ends.clone();
    open.retain(|_, end| *end > 0);
    let mut newest = vec![None; plan.keys as usize];
    let mut next = vec![0; ends.len()];
    let mut records = 0;
    let mut last = Instant::now();
    while !open.is_empty() {
        let Some(message) = consumer.poll(Duration::from_millis(100)) else {
            if last.elapsed() > PATIENCE {
                return Err(format!(
                    "no records for {PATIENCE:?}; ends still to come: {open:?}"
                ));
            }
            continue;
        };
        last = Instant::now();
        let message = message.map_err(|error| error.to_string())?;
        let (partition, offset) = (message.partition(), message.offset());
        let at = || format!("partition {partition}, offset {offset}");
        let least = &mut next[partition as usize];
        if offset < *least {
            return Err(format!("{}: below {least}, which was read before", at()));
        }
        *least = offset + 1;
        let key = message
            .key()
            .and_then(key_in)
            .filter(|key| *key < plan.keys);
        let key = key.ok_or_else(|| format!("{}: a key that was not written", at()))?;
        let value = message.payload().unwrap_or_default();
        let update = value
            .first_chunk()
            .map_or(0, |bytes| u32::from_be_bytes(*bytes));
        if value != value_of(key, update) || plan.partition(key) != partition {
            return Err(format!("{}: key {key} was not written like this", at()));
        }
        let before = newest[key as usize].replace(update);
        if before.is_some_and(|before| before >= update) {
            return Err(format!("{}: key {key}: {update} after {before:?}", at()));
        }
        records += 1;
        if open.get(&partition).is_some_and(|end| offset + 1 >= *end) {
            open.remove(&partition);
        }
    }
    let last_update = plan.updates.checked_sub(1);
    let lost = newest.iter().position(|update| *update != last_update);
    if let Some(key) = lost {
        let found = newest[key];
        return Err(format!(
            "key {key}: its newest is {found:?}, not {last_update:?}"
        ));
    }
    Ok(Found {
        records,
        live_bytes: u64::from(plan.keys)
            * (KEY_BYTES as u64 + VALUE_BYTES as u64 + RECORD_OVERHEAD_BYTES),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_round_has_all_numbers_in_another_order() {
        for count in [1, 2, 10, 96, 1_000] {
            let mut before = Vec::new();
            for round in 0..3 {
                let order = Order::new(count, round);
                let numbers: Vec<u32> = (0..count).map(|nth| order.at(nth)).collect();
                let mut sorted = numbers.clone();
                sorted.sort_unstable();
                assert_eq!(sorted, (0..count).collect::<Vec<_>>(), "{count}, {round}");
                assert!(numbers != before || count < 3, "{count}, {round}");
                before = numbers;
            }
        }
    }

    #[test]
    fn keys_are_read_as_they_are_written() {
        for key in [0, 7, 99_999_999] {
            assert_eq!(key_in(&key_of(key)), Some(key));
        }
        assert_eq!(key_in(b"x00000001"), None);
        assert_ne!(value_of(1, 2), value_of(2, 1));
    }
}
