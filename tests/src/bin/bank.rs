//! A bank whose broker is killed again and again; see [`tests::bank`].
//!
//! ```text
//! cargo run -p tests --bin bank -- [--rounds 20] [--seed 1] [--verbose]
//! ```
//!
//! Ends with 1, and the seed, where money was made or lost.

use clap::Parser;

#[derive(Parser)]
struct Options {
    /// How often the broker is killed under load.
    #[arg(long, default_value_t = 20)]
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
    match tests::bank::run(options.rounds, options.seed, options.verbose) {
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
