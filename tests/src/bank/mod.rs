//! A bank: tellers transfer money between accounts, each transfer in a transaction, while the broker is killed
//! and started again, again and again. No money is made or lost: for a read_committed reader the total is constant.
//!
//! Six tellers make transfers in two books (see `book.rs`). Some transfers are aborted, some abandoned by a
//! producer that is gone, some committed by a producer that was replaced. In each round the broker is killed at a
//! random moment, at times the start after that, too; then the bank closes, and with no transaction open:
//!
//! - the total is constant in both books; in the vault, all of whose accounts are in one partition, it is so at
//!   every offset where a move ends, also for a reader that reads all along;
//! - a transfer that its teller was told is committed is there as a whole, once; one that was aborted, abandoned or
//!   committed by a producer that was replaced is not; one of which nothing was told is there as a whole
//!   or not at all;
//! - transfers of a teller are there in its order, and none that nobody has made;
//! - nothing stays open: the last stable offsets are the high watermarks.
//!
//! In the end everything is read once more, and is what was read before; and there were records to hide.

mod book;
mod checker;
mod hours;
mod ledger;
mod live;
mod teller;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crate::random::Random;
use crate::{Isolation, Milena, Received, eventually};
use book::{Book, Leg, TOPICS};
use checker::{Branches, Vault};
use hours::Hours;
use ledger::{Ledger, Told};
use live::{LiveReader, Records};
use teller::Teller;

const TELLERS: u64 = 6;
/// The longest that the bank is open before the broker is killed, and afterwards.
const MOST_BEFORE_MS: u64 = 1_500;
const MOST_AFTER_MS: u64 = 300;
/// Every so many rounds the start is killed, too, up to [`MOST_START_MS`] after it began.
const KILL_START_EVERY: u64 = 3;
const MOST_START_MS: u64 = 120;
/// How long a teller may take for a transfer, with the broker away meanwhile.
const PATIENCE: Duration = Duration::from_secs(3 * crate::PATIENCE.as_secs());

/// What happened.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// Rounds with a kill under load.
    pub rounds: u64,
    /// Kills of a start.
    pub killed_starts: u64,
    /// Transfers by what their tellers were told.
    told: BTreeMap<Told, u64>,
    /// Records of the vault and of the branches that are committed.
    pub vault_records: usize,
    /// The same of the branches.
    pub branches_records: usize,
    /// Records in the logs that no reader in read_committed is given.
    pub hidden_records: usize,
}

impl std::fmt::Display for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let told = |told| self.told.get(&told).copied().unwrap_or(0);
        write!(
            f,
            "{} rounds, {} starts killed: {} transfers committed, {} aborted, {} abandoned, {} fenced, {} of which \
             nothing was told; {} records in the vault, {} in the branches, {} hidden; no money made or lost",
            self.rounds,
            self.killed_starts,
            told(Told::Committed),
            told(Told::Aborted),
            told(Told::Abandoned),
            told(Told::Fenced),
            told(Told::Nothing),
            self.vault_records,
            self.branches_records,
            self.hidden_records,
        )
    }
}

/// Runs `rounds` rounds; what is drawn is drawn from `seed`, when it happens is the machine's matter.
pub fn run(rounds: u64, seed: u64, verbose: bool) -> Result<Figures, String> {
    let topic = |(name, partitions): &(&str, i32)| {
        format!(
            "[[topic]]\nname = \"{name}\"\npartitions = {partitions}\n\
             configs = {{ \"internal.segment.bytes\" = 65536 }}\n"
        )
    };
    let config: String = TOPICS.iter().map(topic).collect();
    let milena = Milena::start_with_broker("checkpoint_interval_ms = 300", &config);
    let (hours, ledger) = (Arc::new(Hours::default()), Arc::new(Ledger::default()));
    let tellers = (0..TELLERS)
        .map(|number| {
            Teller::start(
                &milena,
                number,
                seed,
                Arc::clone(&hours),
                Arc::clone(&ledger),
            )
        })
        .collect();
    let mut bank = Bank {
        live: LiveReader::start(&milena),
        milena,
        hours,
        ledger,
        tellers,
        random: Random::new(seed),
        read: BTreeMap::new(),
        vault: Vault::new(),
        branches: Branches::new(),
        known: BTreeSet::new(),
        figures: Figures::default(),
    };
    for round in 1..=rounds {
        bank.round(round)
            .map_err(|fault| format!("round {round}: {fault}\n{}", bank.milena.log()))?;
        if verbose {
            println!("{}", bank.figures);
        }
    }
    bank.finish()
}

struct Bank {
    milena: Milena,
    hours: Arc<Hours>,
    ledger: Arc<Ledger>,
    tellers: Vec<JoinHandle<()>>,
    live: LiveReader,
    random: Random,
    /// Everything that was read when the bank was closed, by topic and partition.
    read: BTreeMap<(&'static str, i32), Records>,
    vault: Vault,
    branches: Branches,
    /// Every transfer that a teller knows of.
    known: BTreeSet<u64>,
    figures: Figures,
}

impl Bank {
    fn round(&mut self, round: u64) -> Result<(), String> {
        self.hours.open();
        self.wait(MOST_BEFORE_MS);
        self.milena.kill();
        self.figures.rounds += 1;
        if round.is_multiple_of(KILL_START_EVERY) {
            self.milena.spawn();
            self.wait(MOST_START_MS);
            self.milena.kill();
            self.figures.killed_starts += 1;
        }
        self.milena.restart();
        self.wait(MOST_AFTER_MS);
        self.close()
    }

    fn wait(&mut self, most_ms: u64) {
        std::thread::sleep(Duration::from_millis(self.random.below(most_ms)));
    }

    /// Waits until every teller has ended its transfer, reads what is new, and looks at all of it.
    fn close(&mut self) -> Result<(), String> {
        self.hours.close(PATIENCE)?;
        for (topic, _) in TOPICS {
            eventually("nothing is open", || {
                let ends = |isolation| self.milena.ends_as(isolation, topic);
                (ends(Isolation::ReadCommitted) == ends(Isolation::ReadUncommitted)).then_some(())
            });
            self.read_on(topic)?;
        }
        self.vault.check_closed()?;
        self.branches.check_closed()?;
        let entries = self.ledger.take()?;
        for entry in &entries {
            self.known.insert(entry.transfer);
            *self.figures.told.entry(entry.told).or_default() += 1;
        }
        checker::check_told(&entries, &self.vault, &self.branches)?;
        checker::check_known(&self.known, &self.vault, &self.branches)
    }

    fn read_on(&mut self, topic: &'static str) -> Result<(), String> {
        let next = |records: &Records| records.last().map_or(0, |(offset, _)| offset + 1);
        let read = self.read.iter().filter(|((name, _), _)| *name == topic);
        let from = read
            .map(|((_, partition), records)| (*partition, next(records)))
            .collect();
        for (partition, records) in self.milena.read_topic_from(topic, &from) {
            for record in records {
                let (offset, value) = own(record);
                let leg = Leg::from_bytes(&value)
                    .ok_or_else(|| format!("{topic}-{partition}: offset {offset} is no record"))?;
                if topic == Book::Vault.topics()[0].0 {
                    self.vault.take(offset, &leg)?;
                } else {
                    self.branches.take(topic, partition, &leg)?;
                }
                let read = self.read.entry((topic, partition)).or_default();
                read.push((offset, value));
            }
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Figures, String> {
        self.hours.end();
        for teller in std::mem::take(&mut self.tellers) {
            teller.join().map_err(|_| "a teller panicked")?;
        }
        self.close()?;
        let Self {
            milena,
            live,
            read,
            mut figures,
            ..
        } = self;
        let count = |book: Book| -> usize {
            let topics: Vec<_> = book.topics().iter().map(|(name, _)| *name).collect();
            let of_book = read.iter().filter(|((name, _), _)| topics.contains(name));
            of_book.map(|(_, records)| records.len()).sum()
        };
        figures.vault_records = count(Book::Vault);
        figures.branches_records = count(Book::Branches);
        if live.finish(figures.vault_records)? != read[&("vault", 0)] {
            return Err("who read the vault all along has read something else".to_owned());
        }
        for (topic, partition) in read.keys() {
            let again = read_again(&milena, Isolation::ReadCommitted, topic, *partition);
            let all = read_again(&milena, Isolation::ReadUncommitted, topic, *partition);
            let before = &read[&(*topic, *partition)];
            if again != *before {
                return Err(format!("{topic}-{partition} is not what was read before"));
            }
            let all: BTreeSet<_> = all.into_iter().collect();
            if let Some(missing) = before.iter().find(|record| !all.contains(*record)) {
                return Err(format!("{topic}-{partition} has lost {missing:?}"));
            }
            figures.hidden_records += all.len() - before.len();
        }
        if figures.hidden_records == 0 {
            return Err("there was nothing to hide: no abort came to anything".to_owned());
        }
        Ok(figures)
    }
}

fn own(record: Received) -> (i64, Vec<u8>) {
    (record.offset, record.value.unwrap_or_default())
}

fn read_again(milena: &Milena, isolation: Isolation, topic: &str, partition: i32) -> Records {
    let mut all = milena.read_topic_as(isolation, topic, &BTreeMap::new());
    let records = all.remove(&partition).unwrap_or_default();
    records.into_iter().map(own).collect()
}
