//! A producer: one request at a time, asked again where no answer comes.

use broker::transaction::machine::{End, Init, Producer};
use broker::transaction::records::TransactionVersion;
use kafka_protocol::ResponseError;
use storage::batch::TransactionResult;

use crate::message::{Answer, Partition, Request, Tag};
use crate::promises::{Promises, Told};
use crate::random::Random;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Doing {
    Introducing {
        expected: bool,
    },
    /// Between transactions.
    Idle,
    Adding,
    Writing,
    Ending(TransactionResult),
    Dead,
}

/// One instance of a producer.
#[derive(Clone, Debug)]
pub struct Client {
    pub number: usize,
    /// Its transactional id.
    pub id: usize,
    version: TransactionVersion,
    timeout_ms: i32,
    durable: bool,
    producer: Option<Producer>,
    doing: Doing,
    /// Of the transaction that is open.
    transaction: usize,
    plan: Vec<Partition>,
    written: usize,
    added: Vec<Partition>,
    sequences: Vec<i32>,
    will: TransactionResult,
    /// What it waits for, and since when.
    pub asked: Option<(u64, Request, i64)>,
}

impl Client {
    pub fn new(number: usize, id: usize, partitions: usize, random: &mut Random) -> Self {
        let v2 = random.chance(600);
        Self {
            number,
            id,
            version: if v2 {
                TransactionVersion::V2
            } else {
                TransactionVersion::V1
            },
            timeout_ms: random.between(100, 3_000) as i32,
            durable: random.chance(700),
            producer: None,
            doing: Doing::Introducing { expected: false },
            transaction: 0,
            plan: Vec::new(),
            written: 0,
            added: Vec::new(),
            sequences: vec![0; partitions],
            will: TransactionResult::Commit,
            asked: None,
        }
    }

    /// Nothing comes of it any more.
    pub fn die(&mut self) {
        self.doing = Doing::Dead;
        self.asked = None;
    }

    /// Whatever it has asked may come later than what it asks next.
    pub fn may_be_late(&self) -> bool {
        self.version.raises_epoch()
    }

    /// Its next request, where it has none under way; none where it rests.
    pub fn next(
        &mut self,
        promises: &mut Promises,
        random: &mut Random,
        may_begin: bool,
    ) -> Option<Request> {
        if self.asked.is_some() {
            return None;
        }
        let producer = self.producer;
        if self.doing == Doing::Idle {
            if !may_begin {
                return None;
            }
            self.begin(promises, random);
        }
        Some(match &self.doing {
            Doing::Introducing { expected } => Request::Init(Init {
                timeout_ms: self.timeout_ms,
                expected: producer.filter(|_| *expected),
            }),
            Doing::Idle | Doing::Dead => return None,
            Doing::Adding => Request::Add {
                producer: producer?,
                partition: self.plan[self.written],
            },
            Doing::Writing => {
                let partition = self.plan[self.written];
                Request::Write {
                    producer: producer?,
                    partition,
                    sequence: self.sequences[partition],
                    tag: Tag {
                        transaction: self.transaction,
                        write: self.written,
                    },
                    version: self.version,
                    durable: self.durable,
                }
            }
            Doing::Ending(result) => {
                let told = &mut promises.transactions[self.transaction].told;
                if *result == TransactionResult::Commit && *told == Told::NotCommitted {
                    *told = Told::Unknown;
                }
                Request::End(End {
                    producer: producer?,
                    result: *result,
                    version: self.version,
                })
            }
        })
    }

    fn begin(&mut self, promises: &mut Promises, random: &mut Random) {
        self.transaction = promises.begin(self.durable);
        self.will = match random.chance(700) {
            true => TransactionResult::Commit,
            false => TransactionResult::Abort,
        };
        // Under version 2 an abort may come before anything is written.
        let may_be_empty = self.version.raises_epoch() && self.will == TransactionResult::Abort;
        let writes = random.between(u64::from(!may_be_empty), 5);
        let last = self.sequences.len() as u64 - 1;
        let plan = (0..writes).map(|_| random.between(0, last) as usize);
        self.plan = plan.collect();
        self.written = 0;
        self.added.clear();
        self.doing = Doing::Writing;
        self.go_on();
    }

    /// To the next write, or to the end.
    fn go_on(&mut self) {
        self.doing = match self.plan.get(self.written) {
            None => Doing::Ending(self.will),
            Some(partition) if !self.version.raises_epoch() && !self.added.contains(partition) => {
                Doing::Adding
            }
            Some(_) => Doing::Writing,
        };
    }

    /// An answer has come.
    pub fn told(&mut self, answer: &Answer, promises: &mut Promises) -> Result<(), String> {
        match answer {
            Ok(producer) => self.done(*producer, promises),
            // Again, later.
            Err(ResponseError::ConcurrentTransactions) => Ok(()),
            Err(error) => {
                self.failed(*error, promises);
                Ok(())
            }
        }
    }

    fn done(&mut self, producer: Option<Producer>, promises: &mut Promises) -> Result<(), String> {
        match self.doing.clone() {
            Doing::Introducing { .. } => {
                let producer = producer.ok_or("who it is, is not said")?;
                promises.given(producer, self.number)?;
                self.set(producer);
                self.doing = Doing::Idle;
            }
            Doing::Adding => {
                self.added.push(self.plan[self.written]);
                self.doing = Doing::Writing;
            }
            Doing::Writing => {
                let partition = self.plan[self.written];
                let transaction = &mut promises.transactions[self.transaction];
                transaction.acknowledged.insert(self.written, partition);
                self.sequences[partition] += 1;
                self.written += 1;
                self.go_on();
            }
            Doing::Ending(result) => {
                promises.transactions[self.transaction].told = match result {
                    TransactionResult::Commit => Told::Committed,
                    TransactionResult::Abort => Told::Aborted,
                };
                if self.version.raises_epoch() {
                    let producer = producer.ok_or("who it is, is not said")?;
                    promises.given(producer, self.number)?;
                    self.set(producer);
                }
                self.doing = Doing::Idle;
            }
            Doing::Idle | Doing::Dead => {}
        }
        Ok(())
    }

    fn set(&mut self, producer: Producer) {
        if self.producer != Some(producer) {
            self.sequences.fill(0);
        }
        self.producer = Some(producer);
    }

    fn failed(&mut self, error: ResponseError, promises: &mut Promises) {
        let is_fenced = matches!(
            error,
            ResponseError::ProducerFenced
                | ResponseError::InvalidProducerEpoch
                | ResponseError::InvalidProducerIdMapping
        );
        match self.doing.clone() {
            _ if is_fenced => {
                promises.totals.fenced += 1;
                self.die();
            }
            // It may not be committed any more.
            Doing::Adding | Doing::Writing => self.doing = Doing::Ending(TransactionResult::Abort),
            Doing::Ending(TransactionResult::Commit) => {
                promises.transactions[self.transaction].told = Told::Aborted;
                self.doing = Doing::Introducing { expected: true };
            }
            // There is nothing to abort.
            Doing::Ending(TransactionResult::Abort) => {
                self.doing = Doing::Introducing { expected: true };
            }
            Doing::Introducing { .. } | Doing::Idle | Doing::Dead => self.die(),
        }
    }
}
