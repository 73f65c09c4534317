//! What the broker keeps for itself in compacted topics.

use std::fs;

use rdkafka::admin::ResourceSpecifier;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::{Offset, TopicPartitionList};
use tests::{Milena, PATIENCE, eventually};

use super::{COMPACTED, Writer, alter, passes, segments, topic};

const OFFSETS: &str = "__consumer_offsets";

fn log_bytes(milena: &Milena, topic: &str) -> u64 {
    let sizes = segments(milena, topic).into_iter();
    let sizes = sizes.map(|path| fs::metadata(path).map_or(0, |file| file.len()));
    sizes.sum()
}

fn offsets(partitions: &[(&str, i64)]) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for (topic, offset) in partitions {
        let added = list.add_partition_offset(topic, 0, Offset::Offset(*offset));
        added.expect("an offset");
    }
    list
}

fn committed(milena: &Milena, group: &str, topics: &[&str]) -> Vec<Offset> {
    let consumer: BaseConsumer = milena.client_with(&[("group.id", group)]);
    let mut list = TopicPartitionList::new();
    for topic in topics {
        list.add_partition(topic, 0);
    }
    let found = consumer
        .committed_offsets(list, PATIENCE)
        .expect("an answer");
    let elements = found.elements();
    elements.iter().map(|element| element.offset()).collect()
}

#[test]
fn committed_offsets_shrink_and_are_right_after_restarts() {
    let log = "cleaner_backoff_ms = 50\nfile_delete_delay_ms = 0\n";
    let config = format!(
        "[group]\noffsets_topic_num_partitions = 1\n[log]\n{log}{}{}",
        topic("s", &[]),
        topic("t", &[])
    );
    let mut milena = Milena::start(&config);
    for name in ["s", "t"] {
        let mut writer = Writer::new(&milena, name, &[("linger.ms", "5")]);
        for _ in 0..100 {
            writer.round(&["k"; 10]);
        }
    }
    let commit = |milena: &Milena, group: &str, offset: i64| {
        let consumer: BaseConsumer = milena.client_with(&[("group.id", group)]);
        for offset in offset..offset + 150 {
            let list = offsets(&[("s", offset), ("t", 2 * offset)]);
            consumer.commit(&list, CommitMode::Sync).expect("committed");
        }
    };
    commit(&milena, "one", 0);
    commit(&milena, "two", 100);
    alter(&milena, ResourceSpecifier::Topic(OFFSETS), &COMPACTED);
    let before = log_bytes(&milena, OFFSETS);
    // In segments of their own from here on.
    commit(&milena, "one", 200);
    assert!(before > 20_000, "{before}");
    eventually("the offsets are compacted", || {
        (log_bytes(&milena, OFFSETS) < 6_000).then_some(())
    });
    for end in ["running", "kill", "stop", "stop"] {
        match end {
            "kill" => milena.kill(),
            "stop" => assert!(milena.stop().success()),
            _ => {}
        }
        if end != "running" {
            milena.restart();
        }
        for (group, offset) in [("one", 349), ("two", 249)] {
            assert_eq!(
                committed(&milena, group, &["s", "t"]),
                [Offset::Offset(offset), Offset::Offset(2 * offset)],
                "{group}, {end}"
            );
        }
    }
    // A generation that was compacted is known still: its member is, too.
    let member: BaseConsumer = milena.client_with(&[
        ("group.id", "members"),
        ("group.instance.id", "one"),
        ("session.timeout.ms", "30000"),
    ]);
    member.subscribe(&["t"]).expect("subscribed");
    eventually("it is assigned", || {
        let _ = member.poll(std::time::Duration::from_millis(50));
        let assigned = member.assignment().expect("an assignment");
        (assigned.count() == 1).then_some(())
    });
    let done = passes(&milena);
    commit(&milena, "one", 400);
    eventually("the group's record is compacted", || {
        (passes(&milena) > done && log_bytes(&milena, OFFSETS) < 8_000).then_some(())
    });
    assert!(milena.stop().success());
    milena.restart();
    let list = offsets(&[("t", 7)]);
    eventually("its member commits", || {
        let _ = member.poll(std::time::Duration::from_millis(50));
        member.commit(&list, CommitMode::Sync).ok()
    });
    assert_eq!(committed(&milena, "members", &["t"]), [Offset::Offset(7)]);
}
