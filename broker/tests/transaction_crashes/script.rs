//! Transactions, and what has to be left of them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use broker::coordinator_log::InTransaction;
use broker::group::machine::Committer;
use broker::group::offsets_topic::OFFSETS_TOPIC;
use broker::group::records::OffsetCommitValue;
use broker::group::{Fetched, NewOffset};
use broker::transaction::coordinator::Write;
use broker::transaction::machine::{End, Init, Producer};
use broker::transaction::records::TransactionVersion;
use bytes::Bytes;
use faulty_disk::FaultyDisk;
use storage::PartitionLog;
use storage::batch::{BatchBuilder, Compression, TransactionResult, batches, records};
use storage::partition_log::{Durability, Read, ReadLimit};

use super::broker_parts::{PARTITIONS, Parts, TOPIC};

const ID: &str = "tx";
const GROUP: &str = "g";
/// Longer than anything here takes.
const TIMEOUT_MS: i32 = 60_000;
/// In the place of a transaction's number: of the producer that goes on after a crash.
const AFTER: usize = 999;

const V1: TransactionVersion = TransactionVersion::V1;
const V2: TransactionVersion = TransactionVersion::V2;

/// What a producer was told of a transaction, after so many system calls.
#[derive(Clone, Debug)]
pub struct Ended {
    pub since: usize,
    number: usize,
    result: TransactionResult,
}

#[derive(Default)]
pub struct Script {
    pub ended: Vec<Ended>,
    /// How many partitions each transaction has written to.
    written: BTreeMap<usize, usize>,
    sequences: BTreeMap<(Producer, i32), i32>,
}

impl Script {
    pub async fn run(&mut self, parts: &Parts, disk: &FaultyDisk) {
        let mut producer = init(parts).await;
        let plan = [
            (V2, TransactionResult::Commit),
            (V2, TransactionResult::Abort),
            (V2, TransactionResult::Commit),
            (V1, TransactionResult::Commit),
            (V1, TransactionResult::Commit),
            (V1, TransactionResult::Abort),
            (V2, TransactionResult::Commit),
        ];
        for (number, (version, result)) in plan.into_iter().enumerate() {
            self.write_all(parts, producer, number, version).await;
            producer = end(parts, producer, version, result).await;
            self.ended.push(Ended {
                since: disk.recorded(),
                number,
                result,
            });
        }
        // Left open, and aborted by the next instance.
        let number = self.ended.len();
        self.write_all(parts, producer, number, V2).await;
        let next = init(parts).await;
        self.ended.push(Ended {
            since: disk.recorded(),
            number,
            result: TransactionResult::Abort,
        });
        assert_eq!(next.id, producer.id);
        // And one that is open at the end, for the crashes to come.
        self.write_all(parts, next, number + 1, V2).await;
    }

    /// Writes to every partition, and an offset, all acknowledged.
    async fn write_all(
        &mut self,
        parts: &Parts,
        producer: Producer,
        number: usize,
        version: TransactionVersion,
    ) {
        // Before: a crash on the way leaves some of them, which have to go.
        self.written.insert(number, PARTITIONS as usize);
        for partition in 0..PARTITIONS {
            let sequence = self.sequences.entry((producer, partition)).or_insert(0);
            write(parts, producer, (partition, *sequence), number, version).await;
            *sequence += 1;
        }
        commit_offset(parts, producer, number, version).await;
    }

    /// After a crash: waits until all has come to rest, and looks.
    pub async fn check(&self, parts: &Parts, kept: impl Iterator<Item = &Ended>) {
        // Whoever comes up next has what is open aborted, and goes on.
        let producer = init(parts).await;
        for partition in 0..PARTITIONS {
            write(parts, producer, (partition, 0), AFTER, V2).await;
        }
        end(parts, producer, V2, TransactionResult::Commit).await;
        let topic = parts.topic();
        let mut seen: BTreeMap<usize, usize> = BTreeMap::new();
        for log in &topic.partitions {
            at_rest(log).await;
            for number in committed(log) {
                *seen.entry(number).or_default() += 1;
            }
        }
        if let Some(offsets) = parts.catalog.topic(OFFSETS_TOPIC) {
            for log in &offsets.partitions {
                at_rest(log).await;
            }
        }
        for (number, times) in &seen {
            let whole = self.written.get(number).copied();
            let whole = whole.unwrap_or(PARTITIONS as usize);
            assert_eq!(
                *times, whole,
                "transaction {number} is in {times} partitions"
            );
        }
        let there: BTreeSet<usize> = seen.into_keys().collect();
        assert!(there.contains(&AFTER));
        for Ended { number, result, .. } in kept {
            let is_there = there.contains(number);
            let committed = *result == TransactionResult::Commit;
            assert_eq!(is_there, committed, "transaction {number}: {result:?}");
        }
        let last = there.iter().rev().find(|number| **number != AFTER);
        let fetched = parts.groups.fetch_offsets(GROUP, TOPIC, &[0], true);
        let offset = match &fetched[0].1 {
            Fetched::Committed(value) => Some(value.offset as usize),
            Fetched::Nothing => None,
            Fetched::Unstable => panic!("an offset stays pending"),
        };
        assert_eq!(offset, last.map(|number| number + 1), "{there:?}");
    }
}

/// A producer introduces itself, whatever has to be ended first.
async fn init(parts: &Parts) -> Producer {
    let init = Init {
        timeout_ms: TIMEOUT_MS,
        expected: None,
    };
    parts.transactions.init_producer_id(ID, init).await.unwrap()
}

async fn write(
    parts: &Parts,
    producer: Producer,
    (partition, sequence): (i32, i32),
    number: usize,
    version: TransactionVersion,
) {
    let write = Write {
        transactional_id: ID,
        producer,
        partition: (TOPIC.to_owned(), partition),
        version,
    };
    add(parts, &write).await;
    let topic = parts.topic();
    let log = &topic.partitions[partition as usize];
    let batch = BatchBuilder::new(Compression::None);
    let mut batch = batch
        .producer(producer.id, producer.epoch, sequence)
        .transactional();
    batch.push(0, Some(b"k"), Some(number.to_string().as_bytes()), &[]);
    let batch = batch.build();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    let step = |it: &std::sync::Arc<_>| {
        broker::transaction::TransactionCoordinator::write(it, &write, || log.append(&batch))
    };
    let written = parts.transactions.when_free(ID, deadline, step).await;
    let written = written.unwrap();
    let end = written.done.unwrap().last_offset + 1;
    log.wait(end, Durability::Disk).await.unwrap();
    if let Some(added) = written.added {
        added.wait().await.unwrap();
    }
}

/// What clients of version 1 ask for first.
async fn add(parts: &Parts, write: &Write<'_>) {
    if write.version.raises_epoch() {
        return;
    }
    let partitions = std::slice::from_ref(&write.partition);
    parts
        .transactions
        .add_partitions(ID, write.producer, partitions, write.version)
        .await
        .unwrap();
}

async fn commit_offset(
    parts: &Parts,
    producer: Producer,
    number: usize,
    version: TransactionVersion,
) {
    parts
        .groups
        .prepare_transactional_commit(GROUP)
        .await
        .unwrap();
    let partition = parts.groups.offsets_partition(GROUP).unwrap();
    let write = Write {
        transactional_id: ID,
        producer,
        partition: (OFFSETS_TOPIC.to_owned(), partition),
        version,
    };
    add(parts, &write).await;
    let offset = NewOffset {
        topic: TOPIC.to_owned(),
        partition: 0,
        value: OffsetCommitValue {
            offset: number as i64 + 1,
            leader_epoch: -1,
            metadata: String::new(),
            commit_timestamp_ms: 0,
            expire_timestamp_ms: None,
            topic_id: None,
        },
    };
    let committer = Committer {
        member_id: "",
        instance_id: None,
        generation: -1,
    };
    let transaction = InTransaction {
        producer_id: producer.id,
        producer_epoch: producer.epoch,
    };
    let append = || {
        let offsets = std::slice::from_ref(&offset);
        parts
            .groups
            .append_transactional(GROUP, committer, transaction, offsets)
    };
    let written = parts.transactions.write(&write, append).unwrap();
    let appended = written.done.unwrap();
    for written in appended.into_iter().chain(written.added) {
        written.wait().await.unwrap();
    }
}

async fn end(
    parts: &Parts,
    producer: Producer,
    version: TransactionVersion,
    result: TransactionResult,
) -> Producer {
    let end = End {
        producer,
        result,
        version,
    };
    let ended = parts.transactions.end(ID, end).await.unwrap();
    match version.raises_epoch() {
        true => ended,
        false => producer,
    }
}

/// Waits until no transaction is open in a partition.
async fn at_rest(log: &PartitionLog) {
    for _ in 0..1000 {
        let offsets = log.offsets();
        if offsets.last_stable_offset == offsets.log_end_offset {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("a last stable offset hangs: {:?}", log.offsets());
}

/// The transactions whose records a reader of what is committed gets.
fn committed(log: &PartitionLog) -> Vec<usize> {
    let mut numbers = Vec::new();
    let mut next = 0;
    while next < log.offsets().last_stable_offset {
        let fetched = match log.read(next, 1 << 20, true, ReadLimit::LastStableOffset) {
            Ok(Read::Warm(fetched)) => fetched,
            Ok(Read::Cold(cold)) => cold.load().unwrap(),
            Err(error) => panic!("{error}"),
        };
        let mut position = 0;
        for batch in batches(&fetched.records) {
            let batch = batch.unwrap();
            let whole = position..position + batch.size_in_bytes();
            position = whole.end;
            next = batch.next_offset();
            let is_aborted = fetched.aborted.iter().any(|it| {
                it.producer_id == batch.producer_id()
                    && (it.first_offset..it.last_offset).contains(&batch.base_offset())
            });
            if batch.is_control() || is_aborted {
                continue;
            }
            let bytes: Bytes = fetched.records.slice(whole);
            for record in records::decode(&bytes, 1 << 20).unwrap() {
                let value = String::from_utf8(record.value.unwrap().to_vec()).unwrap();
                numbers.push(value.parse().unwrap());
            }
        }
    }
    numbers
}
