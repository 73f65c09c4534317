//! A million keys that are updated a hundred times each, in a topic that is compacted meanwhile.
//!
//! ```text
//! cargo run --release -p benches --bin compaction_under_load -- [--verbose] [--keys 1000000] [--updates 100]
//! ```
//!
//! What is run and checked is in [`tests::compaction_load`]; every option is listed by `--help`. Prints a
//! table; ends with 1 where a newest record is not there, or where the broker's own memory was more than
//! it should be. Takes some minutes, and up to about 5 GB of disk.

use clap::Parser;
use tests::compaction_load::{Options, run};

fn main() -> std::process::ExitCode {
    match run(&Options::parse()) {
        Ok(figures) => {
            print!("{figures}");
            std::process::ExitCode::SUCCESS
        }
        Err(fault) => {
            eprintln!("{fault}");
            std::process::ExitCode::FAILURE
        }
    }
}
