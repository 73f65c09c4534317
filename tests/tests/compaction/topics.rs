//! What is left of a topic, and what its consumers see.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;

use rdkafka::admin::ResourceSpecifier;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};
use tests::{Milena, PATIENCE, eventually};

use super::{
    COMPACTED, LOG, Writer, active_base, alter, is_compacted, newest, passes, records, segments,
    text, topic,
};

const KEYS: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];
const CODECS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];

#[test]
fn a_topic_comes_down_to_each_keys_newest_record_while_it_is_written_and_read() {
    let milena = Milena::start(&format!("{LOG}{}", topic("t", &[])));
    let written = thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut writer = Writer::new(&milena, "t", &[]);
            for _ in 0..300 {
                writer.round(&KEYS);
            }
            writer.next
        });
        while !writer.is_finished() {
            records(&milena, "t");
        }
        writer.join().expect("it is written")
    });
    eventually("the topic is compacted", || {
        is_compacted(&milena, "t").then_some(())
    });
    let records = records(&milena, "t");
    let expected: BTreeMap<&str, i64> = KEYS
        .into_iter()
        .zip(written - KEYS.len() as i64..)
        .collect();
    let found = newest(&records);
    let found: BTreeMap<&str, i64> = found.iter().map(|(k, r)| (*k, r.offset)).collect();
    assert_eq!(found, expected);
    assert!(
        (records.len() as i64) < written / 4,
        "{} of {written}",
        records.len()
    );
    assert_eq!(milena.ends("t")[&0], written);
    assert_eq!(
        milena.metric("milena_compaction_uncleanable_partitions"),
        0.0
    );
    for name in [
        "read_bytes",
        "written_bytes",
        "kept_records",
        "dropped_records",
    ] {
        let name = format!("milena_compaction_{name}_total");
        assert!(milena.metric(&name) > 0.0, "{name}");
    }
    assert!(milena.metric("milena_compaction_pass_seconds_count") >= 1.0);
    assert!(milena.metric("milena_compaction_last_pass_timestamp_seconds") > 1.7e9);
    let log = milena.log();
    let line = log.lines().find(|line| line.contains("compacted"));
    let line = line.expect("a line says so");
    for part in ["topic", "partition", "kept", "end_offset", "bytes_written"] {
        assert!(line.contains(part), "{line}");
    }
}

#[test]
fn batches_of_every_codec_are_compacted_and_keep_their_offsets() {
    let topics: String = CODECS.iter().map(|codec| topic(codec, &[])).collect();
    let mut milena = Milena::start(&format!("{LOG}{topics}"));
    for codec in CODECS {
        let settings = [("compression.type", codec), ("linger.ms", "5")];
        let mut writer = Writer::new(&milena, codec, &settings);
        // Seldom written keys are left of batches whose other records go.
        for round in 0..150 {
            let rare = format!("rare-{}", round / 10);
            let mut keys = KEYS.to_vec();
            keys.push(&rare);
            writer.round(&keys);
        }
    }
    for codec in CODECS {
        eventually(&format!("'{codec}' is compacted"), || {
            is_compacted(&milena, codec).then_some(())
        });
    }
    for restart in [false, true] {
        if restart {
            assert!(milena.stop().success());
            milena.restart();
        }
        for codec in CODECS {
            let records = records(&milena, codec);
            let newest = newest(&records);
            assert_eq!(newest.len(), KEYS.len() + 15, "{codec}");
            for (nth, key) in KEYS.iter().enumerate() {
                assert_eq!(newest[key].offset, 149 * 9 + nth as i64, "{codec}: {key}");
            }
            for rare in 0..15 {
                let offset = (rare * 10 + 9) * 9 + 8;
                assert_eq!(
                    newest[format!("rare-{rare}").as_str()].offset,
                    offset,
                    "{codec}"
                );
            }
        }
    }
}

#[test]
fn a_consumer_in_a_stretch_that_was_removed_goes_on_behind_it() {
    let milena = Milena::start(&format!("{LOG}{}", topic("t", &[])));
    let mut writer = Writer::new(&milena, "t", &[]);
    writer.round(&KEYS);
    // It stands in the midst of what is going to be removed, with what it has read in hand.
    let consumer: BaseConsumer = milena.client_with(&[
        ("group.id", "slow"),
        ("enable.auto.commit", "false"),
        ("fetch.wait.max.ms", "50"),
        ("queued.max.messages.kbytes", "1"),
    ]);
    let mut position = TopicPartitionList::new();
    let at = position.add_partition_offset("t", 0, Offset::Offset(3));
    at.expect("an assignment");
    consumer.assign(&position).expect("assigned");
    let first = consumer.poll(PATIENCE).expect("a record").expect("read");
    assert_eq!(first.offset(), 3);
    for _ in 0..200 {
        writer.round(&KEYS);
    }
    eventually("the topic is compacted", || {
        is_compacted(&milena, "t").then_some(())
    });
    let left = records(&milena, "t");
    let left: BTreeSet<i64> = left.iter().map(|record| record.offset).collect();
    // From every offset on, those there are and those there are not.
    for from in (0..writer.next).step_by(37) {
        let read = milena.read_topic_from("t", &BTreeMap::from([(0, from)]));
        let read: Vec<i64> = read[&0].iter().map(|record| record.offset).collect();
        let expected: Vec<i64> = left.range(from..).copied().collect();
        assert_eq!(read, expected, "from {from}");
    }
    let mut last = first.offset();
    drop(first);
    while last + 1 < writer.next {
        let message = consumer.poll(PATIENCE).expect("a record").expect("read");
        assert!(message.offset() > last);
        last = message.offset();
    }
}

#[test]
fn tombstones_stay_for_their_time_and_go_then() {
    let topics = [
        topic("kept", &[("delete.retention.ms", "86400000")]),
        topic("gone", &[("delete.retention.ms", "100")]),
    ];
    let milena = Milena::start(&format!("{LOG}{}", topics.concat()));
    for name in ["kept", "gone"] {
        let mut writer = Writer::new(&milena, name, &[]);
        writer.round(&["deleted", "other"]);
        writer.delete("deleted");
        writer.flush();
        let is_left = |name: &str| {
            let records = records(&milena, name);
            let deleted = records
                .into_iter()
                .find(|r| text(&r.key) == Some("deleted"));
            deleted.map(|record| record.value)
        };
        let before = passes(&milena);
        eventually("what was to be compacted is", || {
            for _ in 0..10 {
                writer.round(&KEYS);
            }
            // Two passes behind the tombstone at least.
            let enough = is_compacted(&milena, name) && passes(&milena) >= before + 3.0;
            let done = match name {
                "kept" => is_left(name) == Some(None) && enough,
                _ => is_left(name).is_none(),
            };
            done.then_some(())
        });
        assert!(newest(&records(&milena, name)).contains_key("other"));
    }
}

#[test]
fn a_topic_that_is_compacted_and_deleted_is_both() {
    let config = format!(
        "{LOG}retention_check_interval_ms = 50\n{}",
        topic("both", &[])
    );
    let milena = Milena::start(&config);
    let policies = |retention_bytes| {
        let both = ("cleanup.policy", "compact,delete");
        let configs = [
            COMPACTED[1],
            COMPACTED[2],
            both,
            ("retention.bytes", retention_bytes),
        ];
        alter(&milena, ResourceSpecifier::Topic("both"), &configs);
    };
    policies("-1");
    let mut writer = Writer::new(&milena, "both", &[]);
    eventually("it is compacted", || {
        for _ in 0..20 {
            writer.round(&KEYS);
        }
        (passes(&milena) >= 2.0 && is_compacted(&milena, "both")).then_some(())
    });
    policies("6000");
    // Keys that nothing supersedes: only their age and number makes them go.
    let distinct: Vec<String> = (0..400).map(|n| format!("distinct-{n}")).collect();
    for key in &distinct {
        writer.round(&[key]);
    }
    eventually("the oldest go", || {
        let bytes: u64 = segments(&milena, "both")
            .iter()
            .map(|path| path.metadata().map_or(0, |file| file.len()))
            .sum();
        (4_000..12_000).contains(&bytes).then_some(())
    });
    // Nothing goes while it is read.
    policies("-1");
    let left = records(&milena, "both");
    let left: Vec<i64> = left.iter().map(|record| record.offset).collect();
    let expected: Vec<i64> = (left[0]..writer.next).collect();
    assert_eq!(left, expected);
    assert!(left.len() < distinct.len() && left.len() > 10);
}

#[test]
fn a_topic_is_compacted_from_when_its_policy_says_so_and_not_before() {
    let plain = [("cleanup.policy", "delete")];
    let milena = Milena::start(&format!("{LOG}{}{}", topic("t", &plain), topic("u", &[])));
    let mut writer = Writer::new(&milena, "t", &[]);
    for _ in 0..50 {
        writer.round(&KEYS);
    }
    // The other one is, meanwhile.
    let mut other = Writer::new(&milena, "u", &[]);
    for _ in 0..50 {
        other.round(&KEYS);
    }
    eventually("the other topic is compacted", || {
        is_compacted(&milena, "u").then_some(())
    });
    assert_eq!(records(&milena, "t").len() as i64, writer.next);
    alter(&milena, ResourceSpecifier::Topic("t"), &COMPACTED);
    eventually("it is compacted", || {
        is_compacted(&milena, "t").then_some(())
    });
    // What is younger than the least lag is not, nor what is behind it.
    let lag = ("min.compaction.lag.ms", "3600000");
    let configs: Vec<_> = COMPACTED.iter().copied().chain([lag]).collect();
    alter(&milena, ResourceSpecifier::Topic("t"), &configs);
    let base = active_base(&milena, "t");
    let before = writer.next;
    for _ in 0..50 {
        writer.round(&KEYS);
        other.round(&KEYS);
    }
    eventually("the other topic is compacted again", || {
        is_compacted(&milena, "u").then_some(())
    });
    let young = records(&milena, "t");
    let young = young.iter().filter(|record| record.offset >= before);
    assert_eq!(young.count() as i64, writer.next - before);
    assert!(base <= before);
}
