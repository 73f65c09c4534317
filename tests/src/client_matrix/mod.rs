//! The client matrix: every client of [`client::CLIENTS`] goes through the same cases against one
//! broker, as a process of its own, and is believed only where what it says, what lies on the disk
//! and what a second client sees agree.
//!
//! `tests/src/bin/client_matrix.rs` is the driver. What a client has no way to do is in the report
//! with its reason; nothing is left out silently.

pub mod alone;
pub mod batches;
pub mod client;
mod kcat;
pub mod program;
mod rebalance;
pub mod record;
mod reference;
pub mod report;
pub mod scored;
pub mod static_member;
pub mod together;
pub mod transactions;

use std::path::PathBuf;

use client::Client;

/// Every case, in the order of the table's columns.
pub const CASES: [&str; 22] = [
    "produce",
    "group",
    "restart",
    "rebalance",
    "cooperative",
    "static member",
    "none",
    "gzip",
    "snappy",
    "lz4",
    "zstd",
    "idempotent",
    "headers",
    "nulls",
    "900 kB",
    "by time",
    "scored",
    "transactions",
    "exactly once",
    "500 transactions",
    "crossed",
    "broker restart",
];

/// The broker that the clients are run against.
pub struct Setup {
    /// Its address.
    pub bootstrap: String,
    /// Its data folder, where it can be read.
    pub data_dir: Option<PathBuf>,
    /// Makes topics and groups of one run different from those of another.
    pub run: String,
}

impl Setup {
    /// A topic, or a group, of one client.
    pub fn name(&self, client: &Client, what: &str) -> String {
        format!("matrix-{}-{}-{what}", self.run, client.name)
    }
}
