//! `milena quickstart`: a broker, a trained model topic and live traffic in one command.
//!
//! - [`example`]: the fraud example's config and model, carried in the binary;
//! - [`transactions`], [`random`]: the traffic, made up from a seed;
//! - [`client`]: a small Kafka client; nothing here reaches the broker but through a socket;
//! - [`feed`], [`scores`], [`tracker`], [`session`]: transactions in, scores out, each matched once;
//! - [`display`]: what is printed;
//! - [`auc`]: how good a score is, for the model's training and its test.

pub mod auc;
pub mod client;
pub mod display;
pub mod example;
pub mod feed;
pub mod random;
pub mod scores;
pub mod session;
pub mod tracker;
pub mod transactions;

use client::ClientError;
use example::INPUT;

/// Why the quickstart ended early.
#[derive(Debug, thiserror::Error)]
pub enum QuickstartError {
    /// A request to the broker failed.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A batch could not be made.
    #[error("encoding transactions: {0}")]
    Encode(String),
    /// The answer to a produce request left a partition out.
    #[error("the broker did not answer for {INPUT}/{partition}")]
    NotAcknowledged {
        /// The partition.
        partition: i32,
    },
    /// A record of the derived topic is not what the model topic writes.
    #[error("{topic}/{partition} offset {offset} is not a score: {reason}")]
    Output {
        /// The derived topic.
        topic: &'static str,
        /// The partition.
        partition: i32,
        /// The offset.
        offset: i64,
        /// What is wrong.
        reason: String,
    },
    /// Scores stopped coming.
    #[error("no score came for a long time, {unscored} transactions wait for theirs")]
    Stalled {
        /// Acknowledged and not scored.
        unscored: u64,
    },
    /// The derived topic ends before its end.
    #[error("the derived topic can't be read to its end")]
    Unreadable,
    /// The terminal or the pipe is gone, or a file can't be written.
    #[error("writing: {0}")]
    Write(#[from] std::io::Error),
    /// A histogram can't be made.
    #[error("latencies: {0}")]
    Latency(#[from] hdrhistogram::CreationError),
}

impl QuickstartError {
    fn encode(error: impl ToString) -> QuickstartError {
        QuickstartError::Encode(error.to_string())
    }
}
