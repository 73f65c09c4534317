//! `kill -9` at random moments under idempotent load; see [`tests::kill_rounds`].
//!
//! ```text
//! cargo run -p tests --bin kill_rounds -- [--rounds 100] [--seed 1] [--verbose]
//! ```
//!
//! Ends with 1, and the seed, where something was lost, doubled or out of order.

use clap::Parser;

#[derive(Parser)]
struct Options {
    /// How often the broker is killed under load.
    #[arg(long, default_value_t = 100)]
    rounds: u64,
    /// What is drawn is drawn from it.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Says after every round what has happened so far.
    #[arg(long)]
    verbose: bool,
}

fn main() -> std::process::ExitCode {
    let options = Options::parse();
    println!("seed {}", options.seed);
    match tests::kill_rounds::run(options.rounds, options.seed, options.verbose) {
        Ok(figures) => {
            println!("{figures}");
            std::process::ExitCode::SUCCESS
        }
        Err(fault) => {
            eprintln!("seed {}: {fault}", options.seed);
            std::process::ExitCode::FAILURE
        }
    }
}
