//! What every history has to keep.

use std::collections::BTreeMap;

use broker::transaction::machine::Producer;
use storage::batch::TransactionResult;

use crate::coordinator::Disk;
use crate::message::{Partition, Tag};

/// What a producer knows of its transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// It is open, or its producer died before it asked for an end, or asked for an abort.
    NotCommitted,
    /// It has asked for a commit, and has no answer.
    Unknown,
    Committed,
    /// Its producer was told that it is aborted, or that it may not be committed.
    Aborted,
}

/// One transaction.
#[derive(Clone, Debug)]
pub struct Transaction {
    pub told: Told,
    /// Writes that were acknowledged, and where they are.
    pub acknowledged: BTreeMap<usize, Partition>,
    /// What is acknowledged is on the device.
    pub durable: bool,
    /// It is not, and the power was cut while it was open.
    pub may_lack: bool,
}

/// How much went on.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    pub committed: u64,
    pub aborted: u64,
    pub unknown: u64,
    pub timed_out: u64,
    pub fenced: u64,
    pub asked_again: u64,
    pub late: u64,
    pub kills: u64,
    pub power_cuts: u64,
    pub unknown_aborted: u64,
}

impl Totals {
    pub fn all(&self) -> [(&'static str, u64); 10] {
        [
            ("commits", self.committed),
            ("aborts", self.aborted),
            ("unknown ends", self.unknown),
            ("timeouts", self.timed_out),
            ("fenced producers", self.fenced),
            ("repeated requests", self.asked_again),
            ("late requests", self.late),
            ("kills", self.kills),
            ("power cuts", self.power_cuts),
            (
                "transactions that were never acknowledged",
                self.unknown_aborted,
            ),
        ]
    }

    pub fn add(&mut self, other: &Self) {
        self.committed += other.committed;
        self.aborted += other.aborted;
        self.unknown += other.unknown;
        self.timed_out += other.timed_out;
        self.fenced += other.fenced;
        self.asked_again += other.asked_again;
        self.late += other.late;
        self.kills += other.kills;
        self.power_cuts += other.power_cuts;
        self.unknown_aborted += other.unknown_aborted;
    }
}

#[derive(Clone, Debug, Default)]
pub struct Promises {
    pub transactions: Vec<Transaction>,
    /// Who was given which epoch of which producer id, by introducing itself.
    given: BTreeMap<Producer, usize>,
    pub totals: Totals,
}

impl Promises {
    /// A client begins a transaction.
    pub fn begin(&mut self, durable: bool) -> usize {
        self.transactions.push(Transaction {
            told: Told::NotCommitted,
            acknowledged: BTreeMap::new(),
            durable,
            may_lack: false,
        });
        self.transactions.len() - 1
    }

    /// A client was told who it is.
    pub fn given(&mut self, producer: Producer, client: usize) -> Result<(), String> {
        match self.given.insert(producer, client) {
            Some(other) if other != client => Err(format!(
                "{producer:?} is client {client} and client {other}"
            )),
            _ => Ok(()),
        }
    }

    /// A marker is written that closes these batches.
    pub fn marked(&self, tags: &[Tag], result: TransactionResult) -> Result<(), String> {
        let Some(first) = tags.first() else {
            return Ok(());
        };
        for tag in tags {
            let told = self.transactions[tag.transaction].told;
            match result {
                TransactionResult::Commit if tag.transaction != first.transaction => {
                    return Err(format!("{first:?} and {tag:?} are committed together"));
                }
                TransactionResult::Commit if !matches!(told, Told::Unknown | Told::Committed) => {
                    return Err(format!(
                        "{tag:?} is committed, and its producer was told {told:?}"
                    ));
                }
                TransactionResult::Abort if told == Told::Committed => {
                    return Err(format!("{tag:?} is aborted after it was committed"));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The power was cut.
    pub fn power_cut(&mut self) {
        for transaction in &mut self.transactions {
            transaction.may_lack |= !transaction.durable && transaction.told != Told::Committed;
        }
    }

    /// When all is done: what readers of what is committed get.
    pub fn check(&mut self, disk: &Disk) -> Result<(), String> {
        let mut seen: BTreeMap<Tag, Vec<Partition>> = BTreeMap::new();
        for (partition, log) in disk.partitions.iter().enumerate() {
            if let Some(first) = log.producers.first_open_transaction() {
                return Err(format!("partition {partition} hangs at {first}"));
            }
            for tag in log.committed() {
                seen.entry(tag).or_default().push(partition);
            }
        }
        for (tag, partitions) in &seen {
            // An offset commit has no sequence: a second one says the same.
            let is_offsets = partitions.iter().all(|it| it + 1 == disk.partitions.len());
            if partitions.len() > 1 && !is_offsets {
                return Err(format!("{tag:?} is there {partitions:?}"));
            }
        }
        for (number, transaction) in self.transactions.iter().enumerate() {
            let is_there = |write: &usize| {
                let tag = Tag {
                    transaction: number,
                    write: *write,
                };
                seen.contains_key(&tag)
            };
            let acknowledged = transaction.acknowledged.len();
            let there = transaction
                .acknowledged
                .keys()
                .filter(|it| is_there(it))
                .count();
            let any = seen.keys().any(|tag| tag.transaction == number);
            let is_whole = there == acknowledged || transaction.may_lack;
            let broken = match transaction.told {
                Told::Committed => !is_whole,
                Told::Unknown => any && !is_whole,
                Told::NotCommitted | Told::Aborted => any,
            };
            if broken {
                let told = transaction.told;
                return Err(format!(
                    "transaction {number}: {told:?}, {there} of {acknowledged} writes are there, any: {any}"
                ));
            }
            match transaction.told {
                Told::Committed => self.totals.committed += 1,
                Told::Aborted => self.totals.aborted += 1,
                Told::Unknown => self.totals.unknown += 1,
                Told::NotCommitted => {}
            }
        }
        Ok(())
    }
}
