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

// As the broker has: bare loops and the external scorer must not be slower for want of it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> anyhow::Result<()> {
    benches::versus::run::run(&benches::versus::run::Options::parse())
}
