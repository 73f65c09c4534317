//! Milena beside Apache Kafka, bare loops and a Python pipeline, with a report.
//!
//! ```text
//! cargo run --release -p benches --bin versus                   # everything
//! cargo run --release -p benches --bin versus -- --short
//! cargo run --release -p benches --bin versus -- --help
//! ```
//!
//! [`benches::versus`] says how it is measured.

use clap::Parser;

fn main() -> anyhow::Result<()> {
    benches::versus::run::run(&benches::versus::run::Options::parse())
}
