//! Offsets of a group that are committed in a transaction, with the outputs of what was read.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::producer::{DefaultProducerContext, Producer, ThreadedProducer};
use rdkafka::{Offset, TopicPartitionList};
use tests::random::Random;
use tests::transaction::{self, Ended};
use tests::{Isolation, Milena, PATIENCE, eventually, send};

use super::{
    TransactionalProducer, committed, expect_committed, nothing_open, producer, queue, text,
    topics, uncommitted, write, write_plainly,
};

const INPUTS: usize = 400;
const PARTITIONS: i32 = 4;
/// Of a transaction.
const MOST_RECORDS: usize = 15;

fn config(partitions: i32) -> String {
    format!(
        "{}[group]\ngroup_initial_rebalance_delay_ms = 100\n",
        topics(&[("in", partitions), ("out", partitions)])
    )
}

fn member(milena: &Milena) -> BaseConsumer {
    let member: BaseConsumer = milena.client_with(&[
        ("group.id", "g"),
        ("auto.offset.reset", "earliest"),
        ("enable.auto.commit", "false"),
        ("isolation.level", Isolation::ReadCommitted.name()),
        ("fetch.wait.max.ms", "50"),
        ("session.timeout.ms", "10000"),
        ("topic.metadata.refresh.interval.ms", "500"),
    ]);
    member.subscribe(&["in"]).expect("subscribed");
    member
}

/// What the group has committed of each partition, 0 where that is nothing; an error where `isolation` does not
/// let it be known yet.
fn positions(
    milena: &Milena,
    isolation: Isolation,
    partitions: i32,
    patience: Duration,
) -> Result<BTreeMap<i32, i64>, KafkaError> {
    let consumer: BaseConsumer =
        milena.client_with(&[("group.id", "g"), ("isolation.level", isolation.name())]);
    let mut asked = TopicPartitionList::new();
    asked.add_partition_range("in", 0, partitions - 1);
    let found = consumer.committed_offsets(asked, patience)?;
    let offset = |offset| match offset {
        Offset::Offset(offset) => offset,
        _ => 0,
    };
    let elements = found.elements();
    let found = elements.iter().map(|partition| {
        partition.error()?;
        Ok((partition.partition(), offset(partition.offset())))
    });
    found.collect()
}

fn offsets(partitions: &[(i32, i64)]) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for (partition, offset) in partitions {
        let added = list.add_partition_offset("in", *partition, Offset::Offset(*offset));
        added.expect("an offset");
    }
    list
}

/// Where a processor does not go on as it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    AbortsAfterOutputs,
    AbortsAfterOffsets,
    IsGoneAfterOutputs,
    IsGoneAfterOffsets,
}

const FAULTS: [Fault; 4] = [
    Fault::AbortsAfterOutputs,
    Fault::AbortsAfterOffsets,
    Fault::IsGoneAfterOutputs,
    Fault::IsGoneAfterOffsets,
];

/// A member of the group that writes an output for each input, each batch in a transaction.
struct Processor {
    consumer: BaseConsumer,
    producer: TransactionalProducer,
}

impl Processor {
    fn new(milena: &Milena, id: &str) -> Self {
        Self {
            producer: producer(milena, id),
            consumer: member(milena),
        }
    }

    /// Up to [`MOST_RECORDS`] that are there.
    fn poll(&self) -> Vec<(i32, i64, String)> {
        let mut batch = Vec::new();
        while batch.len() < MOST_RECORDS {
            match self.consumer.poll(Duration::from_millis(100)) {
                Some(Ok(message)) => {
                    let value = text(message.payload().map(<[u8]>::to_vec));
                    batch.push((message.partition(), message.offset(), value));
                }
                // Errors of a rebalance pass.
                Some(Err(_)) => {}
                None => break,
            }
        }
        batch
    }

    /// One transaction; false where the processor is gone in the midst of it.
    fn step(&self, batch: &[(i32, i64, String)], fault: Fault) -> bool {
        self.producer.begin_transaction().expect("begun");
        let mut ends: BTreeMap<i32, i64> = BTreeMap::new();
        for (partition, offset, value) in batch {
            queue(&self.producer, "out", *partition, &format!("{value} out"));
            ends.insert(*partition, offset + 1);
        }
        match fault {
            Fault::AbortsAfterOutputs | Fault::IsGoneAfterOutputs => {
                transaction::flush(&self.producer);
            }
            _ => {
                let ends: Vec<_> = ends.into_iter().collect();
                let member = self.consumer.group_metadata().expect("a member");
                let sent =
                    self.producer
                        .send_offsets_to_transaction(&offsets(&ends), &member, PATIENCE);
                if sent.is_err() {
                    // The group has gone on without it.
                    self.abort(batch);
                    return true;
                }
            }
        }
        match fault {
            Fault::None => match transaction::commit(&self.producer) {
                Ended::Committed => {}
                Ended::Aborted => self.rewind(batch),
                Ended::Unknown(why) => panic!("nobody has its id beside it: {why}"),
            },
            Fault::AbortsAfterOutputs | Fault::AbortsAfterOffsets => self.abort(batch),
            Fault::IsGoneAfterOutputs | Fault::IsGoneAfterOffsets => return false,
        }
        true
    }

    fn abort(&self, batch: &[(i32, i64, String)]) {
        assert_eq!(transaction::abort(&self.producer), Ended::Aborted);
        self.rewind(batch);
    }

    /// Has the batch be read again, of partitions that it still has.
    fn rewind(&self, batch: &[(i32, i64, String)]) {
        let mut starts: BTreeMap<i32, i64> = BTreeMap::new();
        for (partition, offset, _) in batch {
            starts.entry(*partition).or_insert(*offset);
        }
        for (partition, offset) in starts {
            let _ = self
                .consumer
                .seek("in", partition, Offset::Offset(offset), PATIENCE);
        }
    }
}

/// The inputs of each partition, all sent.
fn send_inputs(milena: &Milena) -> BTreeMap<i32, Vec<String>> {
    let plain: ThreadedProducer<DefaultProducerContext> =
        milena.client_with(&[("acks", "all"), ("enable.idempotence", "true")]);
    let mut inputs: BTreeMap<i32, Vec<String>> = BTreeMap::new();
    for n in 0..INPUTS {
        let (partition, value) = (n as i32 % PARTITIONS, format!("{n}"));
        let record = rdkafka::producer::BaseRecord::<[u8], [u8]>::to("in").partition(partition);
        send(&plain, record.payload(value.as_bytes()));
        inputs.entry(partition).or_default().push(value);
    }
    transaction::flush(&plain);
    inputs
}

#[test]
fn each_input_has_one_output_whatever_becomes_of_those_who_write_them() {
    let milena = Milena::start(&config(PARTITIONS));
    let inputs = send_inputs(&milena);
    let ends: BTreeMap<i32, i64> = inputs
        .iter()
        .map(|(partition, values)| (*partition, values.len() as i64))
        .collect();
    let faults = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for number in 0..2_u64 {
            let (milena, faults, ends) = (&milena, &faults, &ends);
            scope.spawn(move || {
                let mut random = Random::new(number);
                let id = format!("processor-{number}");
                let mut processor = Processor::new(milena, &id);
                let deadline = Instant::now() + PATIENCE;
                let mut batches = 0;
                loop {
                    assert!(Instant::now() < deadline, "{batches} batches");
                    let batch = processor.poll();
                    if batch.is_empty() {
                        let isolation = Isolation::ReadUncommitted;
                        let committed = positions(milena, isolation, PARTITIONS, PATIENCE);
                        if committed.expect("the group's positions") == *ends {
                            return;
                        }
                        continue;
                    }
                    batches += 1;
                    let fault = match batches % 3 {
                        0 => FAULTS[random.below(FAULTS.len() as u64) as usize],
                        _ => Fault::None,
                    };
                    let goes_on = processor.step(&batch, fault);
                    *faults
                        .lock()
                        .expect("faults")
                        .entry(format!("{fault:?}"))
                        .or_insert(0) += 1;
                    if !goes_on {
                        // Whoever comes next has its id, and aborts what it has left open.
                        drop(processor);
                        processor = Processor::new(milena, &id);
                    }
                }
            });
        }
    });
    println!("{:?}", faults.lock().expect("faults"));
    nothing_open(&milena, "out");
    let outputs = committed(&milena, "out");
    for (partition, values) in &inputs {
        let expected: Vec<String> = values.iter().map(|value| format!("{value} out")).collect();
        assert_eq!(outputs[partition], expected, "partition {partition}");
    }
    let written: usize = uncommitted(&milena, "out").values().map(Vec::len).sum();
    assert!(written > INPUTS, "nothing was aborted");
    let found = positions(&milena, Isolation::ReadCommitted, PARTITIONS, PATIENCE);
    assert_eq!(found.expect("the group's positions"), ends);
}

#[test]
fn offsets_count_once_their_transaction_is_committed() {
    let mut milena = Milena::start(&config(1));
    // Committed offsets beyond the end of their log are taken back to it at a start.
    for number in 0..10 {
        write_plainly(&milena, "in", 0, &number.to_string());
    }
    let producer = producer(&milena, "t");
    let member = member(&milena);
    eventually("it is assigned", || {
        let _ = member.poll(Duration::from_millis(50));
        (member.assignment().expect("an assignment").count() == 1).then_some(())
    });
    let position = |milena: &Milena, isolation, patience| {
        positions(milena, isolation, 1, patience).map(|found| found[&0])
    };
    let unstable = |milena: &Milena| {
        let patience = Duration::from_secs(2);
        let found = position(milena, Isolation::ReadCommitted, patience);
        assert!(found.is_err(), "they are not to be had yet: {found:?}");
    };
    let begin = |offset: i64| {
        producer.begin_transaction().expect("begun");
        write(&producer, "out", 0, &offset.to_string());
        let metadata = member.group_metadata().expect("a member");
        let sent =
            producer.send_offsets_to_transaction(&offsets(&[(0, offset)]), &metadata, PATIENCE);
        sent.expect("sent");
    };
    begin(5);
    let old = position(&milena, Isolation::ReadUncommitted, PATIENCE);
    assert_eq!(old, Ok(0), "the transaction is open");
    unstable(&milena);
    assert_eq!(transaction::commit(&producer), Ended::Committed);
    let new = position(&milena, Isolation::ReadCommitted, PATIENCE);
    assert_eq!(new, Ok(5));

    begin(7);
    assert_eq!(transaction::abort(&producer), Ended::Aborted);
    let old = position(&milena, Isolation::ReadCommitted, PATIENCE);
    assert_eq!(old, Ok(5), "what was aborted does not count");

    // Offsets in an open transaction are still in it after a restart, with the records beside them.
    begin(9);
    milena.kill();
    milena.restart();
    let old = position(&milena, Isolation::ReadUncommitted, PATIENCE);
    assert_eq!(old, Ok(5));
    unstable(&milena);
    assert_eq!(transaction::commit(&producer), Ended::Committed);
    let new = position(&milena, Isolation::ReadCommitted, PATIENCE);
    assert_eq!(new, Ok(9));
    milena.kill();
    milena.restart();
    let new = position(&milena, Isolation::ReadCommitted, PATIENCE);
    assert_eq!(new, Ok(9));
    expect_committed(&milena, "out", &[(0, &["5", "9"])]);
}

#[test]
fn a_member_that_the_group_went_on_without_commits_no_offsets() {
    let milena = Milena::start(&config(1));
    let producer = producer(&milena, "t");
    let first = member(&milena);
    eventually("it is assigned", || {
        let _ = first.poll(Duration::from_millis(50));
        (first.assignment().expect("an assignment").count() == 1).then_some(())
    });
    let stale = first.group_metadata().expect("a member");
    drop(first);
    let second = member(&milena);
    eventually("the second is assigned", || {
        let _ = second.poll(Duration::from_millis(50));
        (second.assignment().expect("an assignment").count() == 1).then_some(())
    });
    producer.begin_transaction().expect("begun");
    write(&producer, "out", 0, "from a zombie");
    let sent = producer.send_offsets_to_transaction(&offsets(&[(0, 5)]), &stale, PATIENCE);
    let Err(KafkaError::Transaction(error)) = sent else {
        panic!("a zombie sends offsets: {sent:?}");
    };
    let refused = [
        RDKafkaErrorCode::UnknownMemberId,
        RDKafkaErrorCode::IllegalGeneration,
        RDKafkaErrorCode::FencedInstanceId,
    ];
    assert!(refused.contains(&error.code()), "{error:?}");
    assert!(error.txn_requires_abort(), "{error:?}");
    assert_eq!(transaction::abort(&producer), Ended::Aborted);

    // It takes no more than the right member.
    producer.begin_transaction().expect("begun");
    write(&producer, "out", 0, "from the member");
    let metadata = second.group_metadata().expect("a member");
    let sent = producer.send_offsets_to_transaction(&offsets(&[(0, 3)]), &metadata, PATIENCE);
    sent.expect("sent");
    assert_eq!(transaction::commit(&producer), Ended::Committed);
    expect_committed(&milena, "out", &[(0, &["from the member"])]);
    let found = positions(&milena, Isolation::ReadCommitted, 1, PATIENCE);
    assert_eq!(found.expect("the group's position")[&0], 3);
}
