//! `kill -9` under windowed features, held to an independent recomputation; see [`tests::feature_kills`].
//!
//! ```text
//! cargo run -p tests --bin feature_kills -- [--rounds 50] [--transactions 1000000] [--customers 100000] [--seed 1]
//!     [--config other.toml] [--keep folder] [--verbose]
//! ```
//!
//! Ends with 1, and the seed, where an output is missing, there twice, or has a feature that it should not have. Needs Python
//! 3.11 or newer.

use std::path::PathBuf;

use clap::Parser;
use tests::feature_kills::Options;

#[derive(Parser)]
struct Arguments {
    /// How often the broker is killed or stopped under load.
    #[arg(long, default_value_t = 50)]
    rounds: u64,
    /// Transactions in all.
    #[arg(long, default_value_t = 1_000_000)]
    transactions: u64,
    /// Whose they are.
    #[arg(long, default_value_t = 100_000)]
    customers: u64,
    /// What is drawn is drawn from it.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// A config in place of the fraud example's, with the same topics.
    #[arg(long)]
    config: Option<PathBuf>,
    /// Where config, inputs and outputs are left.
    #[arg(long)]
    keep: Option<PathBuf>,
    /// Says after every round what has happened so far.
    #[arg(long)]
    verbose: bool,
}

fn main() -> std::process::ExitCode {
    let arguments = Arguments::parse();
    let seed = arguments.seed;
    println!("seed {seed}");
    let options = Options {
        rounds: arguments.rounds,
        transactions: arguments.transactions,
        customers: arguments.customers,
        seed,
        config: arguments.config,
        keep: arguments.keep,
        verbose: arguments.verbose,
    };
    match tests::feature_kills::run(&options) {
        Ok(figures) => {
            println!("{figures}");
            std::process::ExitCode::SUCCESS
        }
        Err(fault) => {
            eprintln!("seed {seed}: {fault}");
            std::process::ExitCode::FAILURE
        }
    }
}
