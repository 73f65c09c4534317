//! The two books of the bank, and what a record of them says.
//!
//! A transfer has one to three moves; a move takes an amount from one account (its debit) and gives it to another
//! (its credit), which are a record each. All records of a transfer are one transaction.
//!
//! - [`Book::Vault`] has all accounts in one partition. Debit and credit of a move are sent as one batch, and
//!   each move is a batch of its own: batches of other transactions come between the moves of a transfer, but
//!   nothing between debit and credit. So the total is constant at every offset where a move ends, whatever else
//!   is open, was aborted, or is not read yet.
//! - [`Book::Branches`] has its accounts in five partitions of two topics, debit and credit mostly in different ones.
//!   The total is constant whenever no transaction is open.

use serde_json::{Value, json};

/// Transfers of one teller are below this, so that a transfer says whose it is.
pub(super) const IDS: u64 = 1_000_000_000;
/// In each book.
pub(super) const ACCOUNTS: u64 = 40;
/// What each account has in the beginning, by nothing but this.
pub(super) const INITIAL: i64 = 1_000;

/// Where accounts are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Book {
    Vault,
    Branches,
}

pub(super) const TOPICS: [(&str, i32); 3] = [("vault", 1), ("current", 3), ("savings", 2)];

impl Book {
    /// The topics that it is in.
    pub(super) fn topics(self) -> &'static [(&'static str, i32)] {
        match self {
            Self::Vault => &TOPICS[..1],
            Self::Branches => &TOPICS[1..],
        }
    }

    /// Where an account is: topic and partition.
    pub(super) fn place_of(self, account: u64) -> (&'static str, i32) {
        let topics = self.topics();
        let (topic, partitions) = topics[account as usize % topics.len()];
        let partition = account as usize / topics.len() % partitions as usize;
        (topic, partition as i32)
    }
}

/// One record: half of a move.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Leg {
    pub transfer: u64,
    /// Which of the transfer's moves.
    pub number: u64,
    /// How many moves the transfer has.
    pub moves: u64,
    pub account: u64,
    /// Below zero in a debit.
    pub amount: i64,
    /// The teller's transfer before in this book of which it was told that it is committed.
    pub previous: Option<u64>,
    /// Its transfers since then of which it was told nothing.
    pub unsure: Vec<u64>,
}

impl Leg {
    pub(super) fn teller(&self) -> u64 {
        self.transfer / IDS
    }

    pub(super) fn is_debit(&self) -> bool {
        self.amount < 0
    }

    /// Where it is among the records of its teller: transfer, move, debit before credit.
    pub(super) fn order(&self) -> (u64, u64, bool) {
        (self.transfer, self.number, !self.is_debit())
    }

    pub(super) fn to_text(&self) -> String {
        json!({
            "transfer": self.transfer, "move": self.number, "moves": self.moves,
            "account": self.account, "amount": self.amount,
            "previous": self.previous, "unsure": self.unsure,
        })
        .to_string()
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let value: Value = serde_json::from_slice(bytes).ok()?;
        let unsure = value["unsure"].as_array()?.iter().map(Value::as_u64);
        Some(Self {
            transfer: value["transfer"].as_u64()?,
            number: value["move"].as_u64()?,
            moves: value["moves"].as_u64()?,
            account: value["account"].as_u64()?,
            amount: value["amount"].as_i64()?,
            previous: value["previous"].as_u64(),
            unsure: unsure.collect::<Option<_>>()?,
        })
    }
}
