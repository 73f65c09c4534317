//! Transactions from each language: many of them back to back, some aborted; and a topic copied exactly once by
//! a program that is killed.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::json;

use super::Setup;
use super::batches;
use super::client::{Client, Feature};
use super::program::{PATIENCE, Program};
use super::record::{Read, Record};
use super::reference::{self, Writer};
use super::report::{Case, Outcome};
use crate::Isolation;

const FEW: usize = 40;
const MANY: usize = 500;
const PARTITIONS: i32 = 3;
/// Of a transaction.
const RECORDS: usize = 3;
/// Records that are copied before the program is killed, and those after.
const INPUTS: usize = 150;
/// The copying program aborts each transaction of this number.
const ABORT_EVERY: usize = 4;

/// Back to back, every fifth one aborted: who reads what is committed reads each of the others as a whole and in
/// order, and the batches on the disk are those of transactions.
pub fn few(setup: &Setup, client: &Client) -> Case {
    back_to_back(setup, client, "few-transactions", FEW)
}

/// As [`few`], many of them.
pub fn many(setup: &Setup, client: &Client) -> Case {
    back_to_back(setup, client, "many-transactions", MANY)
}

fn is_committed(transaction: usize) -> bool {
    transaction % 5 != 3
}

/// The records of a transaction, one in each partition but for every third transaction, which is in one only.
fn records(transaction: usize) -> Vec<Record> {
    let record = |n: usize| {
        let partition = match transaction % 3 {
            2 => transaction,
            _ => n,
        } as i32
            % PARTITIONS;
        Record::new(partition, "k", format!("{transaction}.{n}"))
    };
    (0..RECORDS).map(record).collect()
}

fn line(transaction: usize) -> String {
    let records = records(transaction).into_iter().map(
        |record| json!({ "key": record.key, "value": record.value, "partition": record.partition }),
    );
    let records: Vec<_> = records.collect();
    json!({ "records": records, "commit": is_committed(transaction) }).to_string() + "\n"
}

fn back_to_back(setup: &Setup, client: &Client, what: &str, count: usize) -> Case {
    if let Some(why) = client.lacks(Feature::Transactions) {
        return Ok(Outcome::Lacking(why));
    }
    let topic = setup.name(client, what);
    reference::create_topic(&setup.bootstrap, &topic, PARTITIONS)?;
    let mut program = client.transactions(&setup.bootstrap, &topic, &topic)?;
    let lines: String = (0..count).map(line).collect();
    program.send_bytes(lines.as_bytes())?;
    let mut ended = 0;
    while ended < count {
        let next = count.min(ended + 20);
        program.wait_for(&format!("the end of {next} transactions"), |said| {
            (said.ended.len() >= next).then_some(())
        })?;
        ended = next;
    }
    let said = program.end()?.ended;
    if !said.iter().copied().eq((0..count).map(is_committed)) {
        return Err(format!("it says that its transactions ended as {said:?}"));
    }
    wait_until_nothing_is_open(setup, &topic)?;
    let read = reference::read(&setup.bootstrap, &topic, PARTITIONS)?;
    same_values(read, is_committed, count)?;
    let isolation = Isolation::ReadUncommitted;
    let all = reference::read_as(isolation, &setup.bootstrap, &topic, PARTITIONS)?;
    same_values(all, |_| true, count)?;
    on_the_disk(setup, &topic, count)
}

/// The transactions that are wanted, of each partition in order.
fn same_values(
    read: Vec<Read>,
    is_wanted: impl Fn(usize) -> bool,
    count: usize,
) -> Result<(), String> {
    let (mut found, mut expected) = (BTreeMap::new(), BTreeMap::new());
    for read in read {
        let values: &mut Vec<_> = found.entry(read.partition).or_default();
        values.push(read.value.unwrap_or_default());
    }
    for record in (0..count).filter(|n| is_wanted(*n)).flat_map(records) {
        let partition = record.partition.unwrap_or_default();
        let values: &mut Vec<_> = expected.entry(partition).or_default();
        values.push(record.value.unwrap_or_default());
    }
    for (partition, expected) in expected {
        let found = found.remove(&partition).unwrap_or_default();
        if found != expected {
            let at = found.iter().zip(&expected).take_while(|(a, b)| a == b);
            let at = at.count();
            return Err(format!(
                "partition {partition}: {:?} is read where {:?} should be, {} values of {}",
                found.get(at),
                expected.get(at),
                found.len(),
                expected.len()
            ));
        }
    }
    Ok(())
}

/// Each batch belongs to a transaction, and each transaction has a marker in each of its partitions.
fn on_the_disk(setup: &Setup, topic: &str, count: usize) -> Case {
    let Some(data_dir) = &setup.data_dir else {
        return Ok(Outcome::PassedBut("the broker's disk was not looked at"));
    };
    for partition in 0..PARTITIONS {
        let batches = batches::of_partition(data_dir, topic, partition)?;
        if batches.iter().any(|batch| !batch.transactional) {
            return Err("a batch is in no transaction".to_owned());
        }
        let markers = batches.iter().filter(|batch| batch.control).count();
        let is_in = |transaction: &usize| {
            let mut records = records(*transaction).into_iter();
            records.any(|record| record.partition == Some(partition))
        };
        let transactions = (0..count).filter(is_in).count();
        if markers != transactions {
            return Err(format!(
                "partition {partition} has {markers} markers of {transactions} transactions"
            ));
        }
    }
    Ok(Outcome::Passed)
}

/// Markers are written after a producer is told that its transaction is committed.
fn wait_until_nothing_is_open(setup: &Setup, topic: &str) -> Result<(), String> {
    let ends = |isolation| reference::ends_as(isolation, &setup.bootstrap, topic, PARTITIONS);
    wait_until("no transaction is open", || {
        Ok(ends(Isolation::ReadCommitted)? == ends(Isolation::ReadUncommitted)?)
    })
}

fn wait_until(what: &str, mut holds: impl FnMut() -> Result<bool, String>) -> Result<(), String> {
    let deadline = Instant::now() + PATIENCE;
    while !holds()? {
        if Instant::now() > deadline {
            return Err(format!("{what}: not within {PATIENCE:?}"));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

fn inputs(range: std::ops::Range<usize>) -> Vec<Record> {
    let record = |n| {
        Record::new(
            n as i32 % PARTITIONS,
            &format!("k-{n}"),
            format!("record {n}"),
        )
    };
    range.map(record).collect()
}

/// A program copies a topic with the group's positions in its transactions, aborts some, and is killed; another one
/// goes on. Each record has one copy.
pub fn copied(setup: &Setup, client: &Client) -> Case {
    if let Some(why) = client.lacks(Feature::Transactions) {
        return Ok(Outcome::Lacking(why));
    }
    let names = ["to-copy", "copies"].map(|what| setup.name(client, what));
    let [input, output] = names.each_ref().map(String::as_str);
    for topic in [input, output] {
        reference::create_topic(&setup.bootstrap, topic, PARTITIONS)?;
    }
    let start = || client.copier(&setup.bootstrap, [input, output], output, ABORT_EVERY);
    // In small batches, because there are clients that make a transaction of each.
    let writer = Writer::new(&setup.bootstrap, input, "none")?;
    let write = |range| -> Result<(), String> {
        for records in inputs(range).chunks(10) {
            for record in records {
                writer.send(record)?;
            }
            writer.flush()?;
        }
        Ok(())
    };
    write(0..INPUTS)?;
    let first = start()?;
    wait_for_ends(&first)?;
    // Dropped, it is killed; its group misses it only after a while.
    drop(first);
    write(INPUTS..2 * INPUTS)?;
    let second = start()?;
    wait_for_ends(&second)?;
    wait_until("every record is copied", || {
        let ends = reference::ends(&setup.bootstrap, input, PARTITIONS)?;
        Ok(reference::committed(&setup.bootstrap, output, input, PARTITIONS)? == ends)
    })?;
    second.stop()?;
    wait_until_nothing_is_open(setup, output)?;
    let read = |isolation| {
        let read = reference::read_as(isolation, &setup.bootstrap, output, PARTITIONS)?;
        let mut values: Vec<String> = read.into_iter().filter_map(|read| read.value).collect();
        values.sort_unstable();
        Ok::<_, String>(values)
    };
    let copies = read(Isolation::ReadCommitted)?;
    let expected = inputs(0..2 * INPUTS).into_iter();
    let mut expected: Vec<String> = expected
        .filter_map(|record| Some(record.value?.to_uppercase()))
        .collect();
    expected.sort_unstable();
    if copies != expected {
        let mut counts: BTreeMap<&String, i32> = BTreeMap::new();
        expected
            .iter()
            .for_each(|value| *counts.entry(value).or_default() -= 1);
        copies
            .iter()
            .for_each(|value| *counts.entry(value).or_default() += 1);
        counts.retain(|_, count| *count != 0);
        return Err(format!("too few or too many copies: {counts:?}"));
    }
    if read(Isolation::ReadUncommitted)?.len() <= expected.len() {
        return Err("nothing was aborted".to_owned());
    }
    Ok(Outcome::Passed)
}

/// Waits until it has aborted a transaction and committed another after that.
fn wait_for_ends(program: &Program) -> Result<(), String> {
    program.wait_for("a commit after an abort", |said| {
        let aborted = said.ended.iter().position(|committed| !committed)?;
        said.ended[aborted..].contains(&true).then_some(())
    })
}
