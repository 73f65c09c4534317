//! Compaction through the real binary, with librdkafka: topics of `cleanup.policy=compact` come down to
//! each key's newest record while they are written, read and killed.
//!
//! A record's value is its offset, and its time follows from that, so that each record says by itself
//! whether it is what was written.

mod crashes;
mod groups;
mod threads;
mod topics;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime};

use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use tests::{Milena, PATIENCE, Received};

/// Looks for something to compact twenty times a second; files go at once.
const LOG: &str = "[log]\ncleaner_backoff_ms = 50\nfile_delete_delay_ms = 0\n";
/// Small segments, compacted whatever part of them is dirty.
const COMPACTED: [(&str, &str); 3] = [
    ("cleanup.policy", "compact"),
    ("internal.segment.bytes", "2000"),
    ("min.cleanable.dirty.ratio", "0.01"),
];

/// A topic of one partition for the config file; later configs go before earlier ones.
fn topic(name: &str, configs: &[(&str, &str)]) -> String {
    let all: BTreeMap<_, _> = COMPACTED.iter().chain(configs).copied().collect();
    let configs: Vec<String> = all
        .iter()
        .map(|(key, value)| format!("\"{key}\" = \"{value}\""))
        .collect();
    let configs = configs.join(", ");
    format!("[[topic]]\nname = \"{name}\"\npartitions = 1\nconfigs = {{ {configs} }}\n")
}

/// These are the topic's configs from now on, and no others.
fn alter(milena: &Milena, resource: ResourceSpecifier<'_>, configs: &[(&str, &str)]) {
    let admin: AdminClient<DefaultClientContext> = milena.client_with(&[]);
    let mut wanted = AlterConfig::new(resource);
    for (name, value) in configs {
        wanted = wanted.set(name, value);
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let altered = runtime.block_on(admin.alter_configs(&[wanted], &AdminOptions::new()));
    altered.expect("an answer").remove(0).expect("altered");
}

/// The only writer of a topic's partition 0: it knows the offset that its next record gets.
struct Writer<'a> {
    producer: BaseProducer,
    topic: &'a str,
    next: i64,
}

impl<'a> Writer<'a> {
    fn new(milena: &Milena, topic: &'a str, settings: &[(&str, &str)]) -> Self {
        let mut all = vec![
            ("acks", "all"),
            ("enable.idempotence", "true"),
            ("linger.ms", "0"),
        ];
        all.extend_from_slice(settings);
        let ends = milena.ends(topic);
        Self {
            producer: milena.client_with(&all),
            topic,
            next: ends[&0],
        }
    }

    /// Queues a record whose value is its offset.
    fn send(&mut self, key: &str) {
        let value = self.next.to_string();
        self.queue(BaseRecord::to(self.topic).key(key).payload(&value));
    }

    /// Queues a tombstone.
    fn delete(&mut self, key: &str) {
        self.queue(BaseRecord::<str, str>::to(self.topic).key(key));
    }

    fn queue(&mut self, record: BaseRecord<'_, str, str>) {
        let record = record.partition(0).timestamp(time_of(self.next));
        let queued = self.producer.send(record);
        queued.map_err(|(error, _)| error).expect("queued");
        self.next += 1;
    }

    /// Waits until everything is delivered.
    fn flush(&self) {
        let since = Instant::now();
        // The producer's own flush looks ten times a second.
        while self.producer.in_flight_count() > 0 {
            assert!(since.elapsed() < PATIENCE, "not delivered");
            self.producer.poll(Duration::from_millis(1));
        }
    }

    /// A record for each of `keys`, in batches of about so many.
    fn round(&mut self, keys: &[&str]) {
        keys.iter().for_each(|key| self.send(key));
        self.flush();
    }
}

/// The time of the record at an offset: about now, and later where the offset is higher.
fn time_of(offset: i64) -> i64 {
    static BEGIN: OnceLock<i64> = OnceLock::new();
    let now = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let begin = BEGIN.get_or_init(|| now().map_or(0, |since| since.as_millis() as i64));
    begin + offset
}

fn text(bytes: &Option<Vec<u8>>) -> Option<&str> {
    std::str::from_utf8(bytes.as_deref()?).ok()
}

/// Everything that partition 0 has, each record held against what is always true of it.
fn records(milena: &Milena, topic: &str) -> Vec<Received> {
    let consumer: BaseConsumer = milena.client_with(&[("group.id", "unused")]);
    let ends = consumer.fetch_watermarks(topic, 0, PATIENCE);
    let (start, _) = ends.expect("where it begins");
    let mut read = milena.read_topic_from(topic, &BTreeMap::from([(0, start)]));
    let records = read.remove(&0).expect("partition 0");
    assert!(records.is_sorted_by(|a, b| a.offset < b.offset));
    for record in &records {
        assert_eq!(record.timestamp_ms, Some(time_of(record.offset)));
        if let Some(value) = text(&record.value) {
            assert_eq!(value, record.offset.to_string(), "it is where it was");
        }
    }
    records
}

/// The newest record of each key.
fn newest(records: &[Received]) -> BTreeMap<&str, &Received> {
    let keyed = records.iter();
    keyed
        .map(|record| (text(&record.key).expect("a key"), record))
        .collect()
}

/// The `.log` files of partition 0, the newest one last.
fn segments(milena: &Milena, topic: &str) -> Vec<PathBuf> {
    let folder = milena.data_dir().join(format!("{topic}-0"));
    let files = fs::read_dir(folder).expect("its folder");
    let mut logs: Vec<_> = files
        .map(|entry| entry.expect("its folder").path())
        .filter(|path| path.extension().is_some_and(|suffix| suffix == "log"))
        .collect();
    logs.sort();
    logs
}

/// Where the newest segment begins: nothing from there on is compacted.
fn active_base(milena: &Milena, topic: &str) -> i64 {
    let newest = segments(milena, topic).pop().expect("a segment");
    let name = newest.file_stem().expect("a name").to_string_lossy();
    name.parse().expect("an offset")
}

/// No key is twice in what may be compacted.
fn is_compacted(milena: &Milena, topic: &str) -> bool {
    let base = active_base(milena, topic);
    let records = records(milena, topic);
    let closed = records.iter().filter(|record| record.offset < base);
    let mut keys: Vec<_> = closed.map(|record| text(&record.key)).collect();
    keys.sort_unstable();
    let count = keys.len();
    keys.dedup();
    keys.len() == count
}

fn passes(milena: &Milena) -> f64 {
    milena
        .metric_if_there("milena_compaction_passes_total{outcome=\"done\"}")
        .unwrap_or(0.0)
}
