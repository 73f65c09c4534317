//! What has to be true of the books, told from the log alone and from what the tellers were told.

use std::collections::{BTreeMap, BTreeSet};

use super::book::{ACCOUNTS, Book, INITIAL, Leg};
use super::ledger::{Entry, Told};

const TOTAL: i64 = ACCOUNTS as i64 * INITIAL;

/// What each account has. Held against the total.
struct Balances(BTreeMap<u64, i64>);

impl Balances {
    fn new() -> Self {
        Self((0..ACCOUNTS).map(|account| (account, INITIAL)).collect())
    }

    fn add(&mut self, leg: &Leg) {
        *self.0.entry(leg.account).or_default() += leg.amount;
    }

    fn check(&self) -> Result<(), String> {
        let total: i64 = self.0.values().sum();
        match total {
            TOTAL => Ok(()),
            _ => Err(format!("the total is {total}, not {TOTAL}: {:?}", self.0)),
        }
    }
}

/// Reads the one partition of the vault in read_committed, record after record.
///
/// The total is held constant at every offset where a move ends, and a move's debit and credit to two
/// offsets next to each other. Each teller's records are whole transfers in its order, and each transfer
/// follows the one that its teller knew to be committed: so none is missing, twice, or halfway there.
pub(super) struct Vault {
    balances: Balances,
    /// The debit whose credit has to be the next record.
    debit: Option<(i64, Leg)>,
    last_offset: Option<i64>,
    /// Of each teller its last transfer, and how many of its moves were read.
    tellers: BTreeMap<u64, (Leg, u64)>,
    complete: BTreeSet<u64>,
}

impl Vault {
    pub(super) fn new() -> Self {
        Self {
            balances: Balances::new(),
            debit: None,
            last_offset: None,
            tellers: BTreeMap::new(),
            complete: BTreeSet::new(),
        }
    }

    pub(super) fn take(&mut self, offset: i64, leg: &Leg) -> Result<(), String> {
        let at = |what: String| format!("vault, offset {offset}: {what}: {leg:?}");
        if self.last_offset.is_some_and(|last| last >= offset) {
            return Err(at(format!("it follows offset {:?}", self.last_offset)));
        }
        self.last_offset = Some(offset);
        self.balances.add(leg);
        match self.debit.take() {
            None if leg.is_debit() => {
                self.begin_move(leg).map_err(at)?;
                self.debit = Some((offset, leg.clone()));
                return Ok(());
            }
            Some((before, debit))
                if before + 1 == offset
                    && (debit.transfer, debit.number, -debit.amount)
                        == (leg.transfer, leg.number, leg.amount) => {}
            debit => return Err(at(format!("it follows {debit:?}"))),
        }
        if leg.number + 1 == leg.moves {
            self.complete.insert(leg.transfer);
        }
        self.balances.check().map_err(at)
    }

    fn begin_move(&mut self, leg: &Leg) -> Result<(), String> {
        let last = self.tellers.get(&leg.teller());
        let follows = match last {
            Some((last, read)) if last.transfer == leg.transfer => leg.number == *read,
            Some((last, read)) if *read < last.moves => {
                return Err(format!("{read} moves are all there is of {last:?}"));
            }
            last => {
                let last = last.map(|(last, _)| last.transfer);
                let known = |last| leg.previous == Some(last) || leg.unsure.contains(&last);
                leg.number == 0 && last.map_or(leg.previous.is_none(), known)
            }
        };
        if !follows {
            return Err(format!("it follows {last:?} of its teller"));
        }
        self.tellers
            .insert(leg.teller(), (leg.clone(), leg.number + 1));
        Ok(())
    }

    /// Where nothing is open, nothing is incomplete.
    pub(super) fn check_closed(&self) -> Result<(), String> {
        if let Some(debit) = &self.debit {
            return Err(format!("vault: it ends in {debit:?}"));
        }
        let half = |(leg, read): &&(Leg, u64)| *read < leg.moves;
        match self.tellers.values().find(half) {
            Some((leg, read)) => Err(format!("vault: it ends with {read} moves of {leg:?}")),
            None => self.balances.check(),
        }
    }
}

/// The accounts in several partitions, looked at when no transaction is open.
///
/// Of each transfer there is all or nothing, once; each teller's records are in its order in each
/// partition; the total is constant.
pub(super) struct Branches {
    balances: Balances,
    /// The records of each transfer that were read: move, and whether it is the credit.
    transfers: BTreeMap<u64, BTreeMap<(u64, bool), Leg>>,
    /// The newest ones, which [`Branches::check_closed`] has not looked at.
    fresh: BTreeSet<u64>,
    /// The last record of each teller in each partition.
    last: BTreeMap<(String, i32, u64), (u64, u64, bool)>,
}

impl Branches {
    pub(super) fn new() -> Self {
        Self {
            balances: Balances::new(),
            transfers: BTreeMap::new(),
            fresh: BTreeSet::new(),
            last: BTreeMap::new(),
        }
    }

    pub(super) fn take(&mut self, topic: &str, partition: i32, leg: &Leg) -> Result<(), String> {
        let at = |what: String| format!("{topic}-{partition}: {what}: {leg:?}");
        if Book::Branches.place_of(leg.account) != (topic, partition) {
            return Err(at("its account is elsewhere".to_owned()));
        }
        let place = (topic.to_owned(), partition, leg.teller());
        let last = self.last.insert(place, leg.order());
        if last.is_some_and(|last| last >= leg.order()) {
            return Err(at(format!("it follows {last:?} of its teller")));
        }
        self.balances.add(leg);
        self.fresh.insert(leg.transfer);
        let legs = self.transfers.entry(leg.transfer).or_default();
        legs.insert((leg.number, !leg.is_debit()), leg.clone());
        Ok(())
    }

    pub(super) fn check_closed(&mut self) -> Result<(), String> {
        for transfer in std::mem::take(&mut self.fresh) {
            let legs = &self.transfers[&transfer];
            let moves = legs.values().next().map_or(0, |leg| leg.moves);
            let wanted = (0..moves).flat_map(|number| [(number, false), (number, true)]);
            let amount: i64 = legs.values().map(|leg| leg.amount).sum();
            if !legs.keys().copied().eq(wanted) || amount != 0 {
                return Err(format!("transfer {transfer} is halfway there: {legs:?}"));
            }
        }
        self.balances.check()
    }
}

/// Holds what was read against what the tellers were told.
pub(super) fn check_told(
    entries: &[Entry],
    vault: &Vault,
    branches: &Branches,
) -> Result<(), String> {
    for entry in entries {
        let is_there = match entry.book {
            Book::Vault => vault.complete.contains(&entry.transfer),
            Book::Branches => branches.transfers.contains_key(&entry.transfer),
        };
        let holds = match entry.told {
            Told::Committed => is_there,
            Told::Aborted | Told::Abandoned | Told::Fenced => !is_there,
            Told::Nothing => true,
        };
        if !holds {
            let is = if is_there { "there" } else { "not there" };
            return Err(format!("it is {is}: {entry:?}"));
        }
    }
    Ok(())
}

/// Nothing is there that no teller knows of.
pub(super) fn check_known(
    known: &BTreeSet<u64>,
    vault: &Vault,
    branches: &Branches,
) -> Result<(), String> {
    let found = vault.complete.iter().chain(branches.transfers.keys());
    match found.into_iter().find(|transfer| !known.contains(transfer)) {
        Some(transfer) => Err(format!("no teller has made transfer {transfer}")),
        None => Ok(()),
    }
}
