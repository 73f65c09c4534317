//! The soft limit of open files, which is low on most systems, is no limit; and with a low hard limit
//! there may be more partitions than files.

use std::time::Duration;

use rdkafka::Message;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use tests::{Milena, PATIENCE};

const PARTITIONS: i32 = 200;
/// Enough for a start, and not for three files in each partition.
const SOFT_LIMIT: u64 = 128;

fn limit() -> libc::rlimit {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` is a whole `rlimit`, and is only written during the call.
    let got = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    assert_eq!(got, 0, "getrlimit");
    limit
}

fn set_soft_limit(files: u64) {
    let limit = libc::rlimit {
        rlim_cur: files,
        ..limit()
    };
    // SAFETY: `limit` is a whole `rlimit`, and is only read during the call.
    let set = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) };
    assert_eq!(set, 0, "setrlimit");
}

#[test]
fn a_start_with_more_files_than_the_soft_limit_works() {
    tests::binary();
    let before = limit().rlim_cur;
    // The broker inherits it.
    set_soft_limit(SOFT_LIMIT);
    let mut milena = Milena::start(&format!(
        "[[topic]]\nname = \"many\"\npartitions = {PARTITIONS}\n"
    ));
    let producer: ThreadedProducer<DefaultProducerContext> = milena.client_with(&[("acks", "all")]);
    for partition in 0..PARTITIONS {
        let payload = partition.to_be_bytes();
        let record = BaseRecord::<[u8], [u8]>::to("many")
            .partition(partition)
            .payload(&payload);
        producer
            .send(record)
            .map_err(|(error, _)| error)
            .expect("sends");
    }
    producer.flush(PATIENCE).expect("every record is delivered");
    milena.kill();
    milena.restart();
    set_soft_limit(before);

    let consumer: BaseConsumer =
        milena.client_with(&[("group.id", "reader"), ("auto.offset.reset", "earliest")]);
    consumer.subscribe(&["many"]).expect("subscribes");
    let mut seen = std::collections::BTreeSet::new();
    let deadline = std::time::Instant::now() + PATIENCE;
    while seen.len() < PARTITIONS as usize {
        assert!(std::time::Instant::now() < deadline, "only {}", seen.len());
        let Some(record) = consumer.poll(Duration::from_millis(100)) else {
            continue;
        };
        let record = record.expect("a record");
        assert_eq!(
            record.payload(),
            Some(&record.partition().to_be_bytes()[..])
        );
        seen.insert(record.partition());
    }
}

/// Of three hundred partitions, which would have nine hundred files.
const HARD_LIMIT: u64 = 256;
const MORE_PARTITIONS: i32 = 300;

/// Sends a record of its own to each partition.
fn produce(milena: &Milena, acks: &str, round: i32) {
    let producer: ThreadedProducer<DefaultProducerContext> =
        milena.client_with(&[("acks", acks), ("linger.ms", "5"), ("retries", "0")]);
    for partition in 0..MORE_PARTITIONS {
        let payload = (round * MORE_PARTITIONS + partition).to_be_bytes();
        // Larger than an index interval, so that the indexes are written to as well.
        let payload = [&payload[..], &[b'x'; 5_000]].concat();
        let record = BaseRecord::<[u8], [u8]>::to("many")
            .partition(partition)
            .payload(&payload);
        tests::send(&producer, record);
    }
    producer.flush(PATIENCE).expect("every record is delivered");
    assert_eq!(producer.in_flight_count(), 0);
}

/// Reads everything: each partition has its record of each round.
fn check_all(milena: &Milena, rounds: i32) {
    let all = milena.read_topic("many");
    assert_eq!(all.len(), MORE_PARTITIONS as usize);
    for (partition, records) in all {
        let found: Vec<i32> = records
            .iter()
            .map(|record| {
                let value = record.value.as_deref().expect("a value");
                i32::from_be_bytes(*value.first_chunk().expect("its number"))
            })
            .collect();
        let expected: Vec<i32> = (0..rounds)
            .map(|round| round * MORE_PARTITIONS + partition)
            .collect();
        assert_eq!(found, expected, "partition {partition}");
    }
}

/// The files of partitions that the broker has open.
fn open_log_files(milena: &Milena) -> usize {
    let open = std::fs::read_dir(format!("/proc/{}/fd", milena.pid())).expect("its files");
    open.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
        .filter(|target| target.starts_with(milena.data_dir()))
        .count()
}

#[test]
fn more_partitions_than_files_are_served() {
    let mut milena = Milena::prepare(
        "",
        &format!("[[topic]]\nname = \"many\"\npartitions = {MORE_PARTITIONS}\n"),
    );
    milena.limit_open_files(HARD_LIMIT);
    milena.restart();
    for (round, acks) in ["1", "all", "1", "all"].into_iter().enumerate() {
        produce(&milena, acks, round as i32);
        // Half of the limit, and what threads have open at the moment.
        let open = open_log_files(&milena);
        assert!(open <= HARD_LIMIT as usize / 2 + 16, "{open} open files");
    }
    assert!(milena.stop().success());
    assert!(!milena.log().contains("ERROR"), "{}", milena.log());

    milena.restart();
    assert!(milena.log().contains("clean=true"), "{}", milena.log());
    check_all(&milena, 4);
    produce(&milena, "1", 4);
    milena.kill();
    // What was not synced is scanned, and indexes are built anew.
    milena.restart();
    produce(&milena, "all", 5);
    check_all(&milena, 6);
    let open = open_log_files(&milena);
    assert!(open <= HARD_LIMIT as usize / 2 + 16, "{open} open files");
    assert!(milena.stop().success());
    assert!(!milena.log().contains("ERROR"), "{}", milena.log());
}
