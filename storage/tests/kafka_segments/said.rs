//! What Kafka's own clients said of each partition, as tests/java/Segments.java writes it down.

use std::fs;
use std::str::FromStr;

use storage::checkpoint::uuid_text;
use uuid::Uuid;

use crate::archive::taken;

/// A record as a client sees it; bytes in hexadecimal after an `x`, or `null`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub offset: i64,
    pub timestamp: i64,
    pub timestamp_type: String,
    pub leader_epoch: i32,
    pub key: String,
    pub value: String,
    /// `key=value`, with commas between; `-` without any.
    pub headers: String,
}

/// An offset with its timestamp and leader epoch; all -1 where there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    pub offset: i64,
    pub timestamp: i64,
    pub leader_epoch: i32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Producer {
    pub producer_id: i64,
    pub epoch: i16,
    pub last_sequence: i32,
    pub last_timestamp: i64,
    pub coordinator_epoch: i32,
    pub transaction_start: i64,
}

#[derive(Debug)]
pub struct Partition {
    pub topic: String,
    pub number: i32,
    pub topic_id: Uuid,
    pub start: i64,
    pub end: i64,
    pub records: Vec<Record>,
    /// By the timestamp asked for.
    pub times: Vec<(i64, Found)>,
    pub max_timestamp: Found,
    /// By the epoch asked for: the epoch answered and its end.
    pub epochs: Vec<(i32, i32, i64)>,
    /// By id. Internal topics have none.
    pub producers: Vec<Producer>,
}

/// What was said of `stopped` or `killed`.
pub fn partitions(of: &str) -> Vec<Partition> {
    let said = fs::read_to_string(taken().join(of).join("said")).expect("reads");
    let mut partitions: Vec<Partition> = Vec::new();
    for line in said.lines() {
        let mut words = Words(line.split(' '));
        if words.text() == "partition" {
            partitions.push(words.partition());
            continue;
        }
        let partition = partitions.last_mut().expect("a partition first");
        let mut words = Words(line.split(' '));
        match words.text() {
            "record" => partition.records.push(words.record()),
            "time" => partition.times.push((words.next(), words.found())),
            "max" => partition.max_timestamp = words.found(),
            "epoch" => {
                let epoch = (words.next(), words.next(), words.next());
                partition.epochs.push(epoch);
            }
            "producer" => partition.producers.push(words.producer()),
            other => assert_eq!(other, "producers", "{line}"),
        }
    }
    for partition in &mut partitions {
        partition
            .producers
            .sort_by_key(|producer| producer.producer_id);
    }
    partitions
}

struct Words<'a>(std::str::Split<'a, char>);

impl<'a> Words<'a> {
    fn text(&mut self) -> &'a str {
        self.0.next().expect("another word")
    }

    fn next<T: FromStr>(&mut self) -> T {
        let word = self.text();
        word.parse()
            .unwrap_or_else(|_| panic!("{word} is no number"))
    }

    fn partition(&mut self) -> Partition {
        Partition {
            topic: self.text().to_owned(),
            number: self.next(),
            topic_id: uuid_text::decode(self.text()).expect("a topic id"),
            start: self.next(),
            end: self.next(),
            records: Vec::new(),
            times: Vec::new(),
            max_timestamp: Found {
                offset: -1,
                timestamp: -1,
                leader_epoch: -1,
            },
            epochs: Vec::new(),
            producers: Vec::new(),
        }
    }

    fn record(&mut self) -> Record {
        Record {
            offset: self.next(),
            timestamp: self.next(),
            timestamp_type: self.text().to_owned(),
            leader_epoch: self.next(),
            key: self.text().to_owned(),
            value: self.text().to_owned(),
            headers: self.text().to_owned(),
        }
    }

    fn found(&mut self) -> Found {
        Found {
            offset: self.next(),
            timestamp: self.next(),
            leader_epoch: self.next(),
        }
    }

    fn producer(&mut self) -> Producer {
        Producer {
            producer_id: self.next(),
            epoch: self.next(),
            last_sequence: self.next(),
            last_timestamp: self.next(),
            coordinator_epoch: self.next(),
            transaction_start: self.next(),
        }
    }
}
