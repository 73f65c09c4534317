//! Compaction that is cut short, again and again.

use std::collections::BTreeMap;
use std::fs;
use std::thread;
use std::time::Duration;

use clap::Parser;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use tests::compaction_load::{self, Options};
use tests::{Milena, PATIENCE, eventually};

use super::{LOG, Writer, is_compacted, newest, passes, records, text, topic};

const KILLS: usize = 8;

#[test]
fn nothing_is_lost_where_the_broker_is_killed_in_the_midst_of_it() {
    // Compacts all the time, with a map that is never large enough for all keys at once.
    let log = "[log]\ncleaner_backoff_ms = 1\ncleaner_dedupe_buffer_size = 1048576\n\
               cleaner_io_max_bytes_per_second = 2000000\n";
    let mut milena = Milena::start(&format!("{log}{}", topic("t", &[])));
    let producer: BaseProducer = milena.client_with(&[
        ("acks", "all"),
        ("enable.idempotence", "true"),
        ("linger.ms", "1"),
        ("batch.num.messages", "40"),
        ("reconnect.backoff.max.ms", "100"),
    ]);
    let mut expected = BTreeMap::new();
    let mut sent = 0u64;
    let mut send = |records: usize| {
        for _ in 0..records {
            let key = format!("key-{}", sent * 7 % 61);
            let value = sent.to_string();
            let record = BaseRecord::<str, str>::to("t").partition(0);
            let queued = producer.send(record.key(&key).payload(&value));
            queued.map_err(|(error, _)| error).expect("queued");
            expected.insert(key, value);
            sent += 1;
            producer.poll(Duration::ZERO);
        }
    };
    for kill in 0..KILLS {
        send(1_000);
        // Some kills come before anything is compacted, some after a while of it.
        let wanted = (kill % 4) as f64;
        eventually("there are passes", || {
            send(20);
            (passes(&milena) >= wanted).then_some(())
        });
        thread::sleep(Duration::from_millis(7 * kill as u64));
        milena.kill();
        milena.restart();
    }
    producer.flush(PATIENCE).expect("delivered");
    eventually("it is compacted", || {
        let left = milena.read_topic("t").remove(&0).expect("partition 0");
        ((left.len() as u64) < sent / 4).then_some(())
    });
    for clean in [false, true] {
        let left = milena.read_topic("t").remove(&0).expect("partition 0");
        assert!(left.is_sorted_by(|a, b| a.offset < b.offset));
        let found: BTreeMap<String, String> = newest(&left)
            .into_iter()
            .map(|(key, record)| {
                let value = text(&record.value).expect("a value");
                (key.to_owned(), value.to_owned())
            })
            .collect();
        assert_eq!(found, expected);
        match clean {
            true => assert!(milena.stop().success()),
            false => milena.kill(),
        }
        milena.restart();
        // What a pass has left when it was cut short is gone.
        let folder = fs::read_dir(milena.data_dir().join("t-0")).expect("its folder");
        let names = folder.map(|entry| entry.expect("a file").file_name());
        let names: Vec<_> = names
            .map(|name| name.to_string_lossy().into_owned())
            .collect();
        assert!(
            !names.iter().any(|name| name.ends_with(".swap")),
            "{names:?}"
        );
    }
    assert_eq!(milena.ends("t")[&0] as u64, sent, "each is there once");
}

/// Its sequence is known still, though all of its records are gone.
#[test]
fn an_idempotent_producer_goes_on_after_compaction_and_a_restart() {
    let mut milena = Milena::start(&format!("{LOG}{}", topic("t", &[])));
    let mut idle = Writer::new(&milena, "t", &[("reconnect.backoff.max.ms", "100")]);
    idle.round(&["a", "b"]);
    for stop in [true, false] {
        let mut other = Writer::new(&milena, "t", &[]);
        for _ in 0..200 {
            other.round(&["a", "b", "c"]);
        }
        eventually("it is compacted", || {
            let left = records(&milena, "t");
            let mine = left.iter().any(|record| record.offset < 2);
            (!mine && is_compacted(&milena, "t")).then_some(())
        });
        let end = other.next;
        drop(other);
        match stop {
            true => assert!(milena.stop().success()),
            false => milena.kill(),
        }
        milena.restart();
        idle.next = end;
        idle.round(&["a", "b"]);
        let left = records(&milena, "t");
        assert_eq!(newest(&left)["a"].offset, end);
        assert_eq!(newest(&left)["b"].offset, end + 1);
        assert_eq!(milena.ends("t")[&0], end + 2, "once");
    }
}

/// The program behind the figures, small.
#[test]
fn keys_that_are_updated_all_the_time_come_down_to_the_newest_of_each() {
    for compression in ["none", "zstd"] {
        let options = Options::parse_from([
            "compaction_under_load",
            "--keys=3000",
            "--updates=60",
            "--segment-bytes=100000",
            "--dedupe-bytes=2097152",
            "--threads=2",
            "--quiet=3",
            "--compression",
            compression,
        ]);
        let figures = compaction_load::run(&options).expect("nothing is lost");
        assert!(figures.passes() >= 4.0, "{figures}");
        let (cleaned, live) = figures.cleaned_and_live_bytes();
        assert!(cleaned < 4 * live, "{figures}");
    }
}
