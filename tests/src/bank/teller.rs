//! A teller: one transactional id, whose producers make one transfer after the other, each in a transaction.
//! Some are aborted; some are left open by a producer that is gone, whose place a new one takes; and some
//! producers live on beside the one that took their place, and commit.

use std::sync::Arc;
use std::thread::JoinHandle;

use rdkafka::config::ClientConfig;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};

use super::book::{ACCOUNTS, Book, IDS, INITIAL, Leg};
use super::hours::Hours;
use super::ledger::{Entry, Ledger, Told};
use crate::random::Random;
use crate::transaction::{self, Ended};
use crate::{Milena, send};

type TransactionalProducer = ThreadedProducer<DefaultProducerContext>;

/// How a transfer is meant to end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Plan {
    Commit,
    Abort,
    Abandon,
    CommitAsZombie,
}

/// The transfers of one book that the next one refers to.
#[derive(Default)]
struct Known {
    committed: Option<u64>,
    unsure: Vec<u64>,
}

pub(super) struct Teller {
    config: ClientConfig,
    producer: TransactionalProducer,
    random: Random,
    next: u64,
    vault: Known,
    branches: Known,
    ledger: Arc<Ledger>,
}

impl Teller {
    /// Works on a thread of its own while the bank is open.
    pub(super) fn start(
        milena: &Milena,
        number: u64,
        seed: u64,
        hours: Arc<Hours>,
        ledger: Arc<Ledger>,
    ) -> JoinHandle<()> {
        let mut config = milena.client();
        config
            .set("transactional.id", format!("teller-{number}"))
            // A batch is what is there at a flush, however the threads are scheduled.
            .set("linger.ms", "1000")
            .set("reconnect.backoff.ms", "10")
            .set("reconnect.backoff.max.ms", "100")
            .set("retry.backoff.ms", "10")
            .set("retry.backoff.max.ms", "100");
        std::thread::spawn(move || {
            let mut teller = Self {
                producer: new_producer(&config),
                config,
                random: Random::new(seed.wrapping_add(number)),
                next: number * IDS,
                vault: Known::default(),
                branches: Known::default(),
                ledger,
            };
            while let Some(business) = hours.begin() {
                teller.transfer();
                drop(business);
            }
        })
    }

    fn transfer(&mut self) {
        let (book, transfer) = (self.draw_book(), self.next);
        self.next += 1;
        let plan = match self.random.below(24) {
            0..=3 => Plan::Abort,
            4 => Plan::Abandon,
            5 => Plan::CommitAsZombie,
            _ => Plan::Commit,
        };
        let moves = self.draw_moves(book, transfer);
        let told = match self.producer.begin_transaction() {
            Ok(()) => {
                for legs in &moves {
                    self.write(book, legs);
                }
                self.end(plan)
            }
            Err(error) => {
                self.ledger
                    .fault(format!("{transfer} does not begin: {error}"));
                Told::Aborted
            }
        };
        let known = match book {
            Book::Vault => &mut self.vault,
            Book::Branches => &mut self.branches,
        };
        match told {
            Told::Committed => {
                known.committed = Some(transfer);
                known.unsure.clear();
            }
            Told::Nothing => known.unsure.push(transfer),
            Told::Aborted | Told::Abandoned | Told::Fenced => {}
        }
        self.ledger.note(Entry {
            transfer,
            book,
            told,
        });
    }

    fn draw_book(&mut self) -> Book {
        match self.random.below(2) {
            0 => Book::Vault,
            _ => Book::Branches,
        }
    }

    /// Debit and credit of each move.
    fn draw_moves(&mut self, book: Book, transfer: u64) -> Vec<[Leg; 2]> {
        let moves = 1 + self.random.below(3);
        let known = match book {
            Book::Vault => &self.vault,
            Book::Branches => &self.branches,
        };
        let (previous, unsure) = (known.committed, known.unsure.clone());
        let one = |number| {
            let from = self.random.below(ACCOUNTS);
            let to = (from + 1 + self.random.below(ACCOUNTS - 1)) % ACCOUNTS;
            let amount = 1 + self.random.below(INITIAL as u64 / 10) as i64;
            [(from, -amount), (to, amount)].map(|(account, amount)| Leg {
                transfer,
                number,
                moves,
                account,
                amount,
                previous,
                unsure: unsure.clone(),
            })
        };
        (0..moves).map(one).collect()
    }

    /// Sends a move, which is one batch where both accounts are in one partition.
    fn write(&self, book: Book, legs: &[Leg; 2]) {
        for leg in legs {
            let (topic, partition) = book.place_of(leg.account);
            let (key, value) = (leg.account.to_string(), leg.to_text());
            let record = BaseRecord::<[u8], [u8]>::to(topic).partition(partition);
            let record = record.key(key.as_bytes()).payload(value.as_bytes());
            send(&self.producer, record);
        }
        transaction::flush(&self.producer);
    }

    fn end(&mut self, plan: Plan) -> Told {
        let ended = match plan {
            Plan::Commit => transaction::commit(&self.producer),
            Plan::Abort => transaction::abort(&self.producer),
            Plan::Abandon => {
                drop(self.replace());
                return Told::Abandoned;
            }
            Plan::CommitAsZombie => {
                let zombie = self.replace();
                if zombie.commit_transaction(crate::PATIENCE).is_ok() {
                    let what = "a producer committed that another had taken the place of";
                    self.ledger.fault(what.to_owned());
                }
                return Told::Fenced;
            }
        };
        match ended {
            Ended::Committed => Told::Committed,
            Ended::Aborted => Told::Aborted,
            Ended::Unknown(_) => {
                drop(self.replace());
                // Who was to abort never asked for anything else.
                match plan {
                    Plan::Commit => Told::Nothing,
                    _ => Told::Aborted,
                }
            }
        }
    }

    /// A new producer of the same id: what the old one left open is ended when it begins.
    fn replace(&mut self) -> TransactionalProducer {
        std::mem::replace(&mut self.producer, new_producer(&self.config))
    }
}

fn new_producer(config: &ClientConfig) -> TransactionalProducer {
    let producer: TransactionalProducer = config.create().expect("a producer");
    transaction::init(&producer).expect("initialised");
    producer
}
