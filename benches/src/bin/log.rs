//! The log beside what the machine can do.
//!
//! ```text
//! cargo run --release -p benches --bin log                      # everything
//! cargo run --release -p benches --bin log -- append read       # some of it
//! cargo run --release -p benches --bin log -- --help
//! ```
//!
//! [`benches::log`] says how it is measured.

use clap::Parser;

fn main() {
    benches::log::run(&benches::log::Options::parse());
}
