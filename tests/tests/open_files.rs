//! The soft limit of open files, which is low on most systems, is no limit.

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
