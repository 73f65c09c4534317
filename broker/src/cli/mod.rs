//! The `milena` command.
//!
//! - `milena serve [--config FILE] [--rebuild-state MODEL_TOPIC]`: the broker, until SIGTERM or SIGINT;
//! - `milena quickstart`: a broker, a trained model topic and live traffic;
//! - `milena explain --config FILE`: what the config comes to, with its defaults;
//! - `milena schema [--reference]`: the keys of the config file, as a JSON Schema or as a text;
//! - `milena check --config FILE`: tells all that `serve` would refuse, without starting anything.
//!
//! The exit code is 0, 1 where the command failed (the reason is on standard error), or 2 where it
//! was not understood.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::{self, Config};
use crate::explain::Explanation;

mod quickstart;
mod serve;

/// A Kafka-compatible log broker that runs machine-learning models on records as they arrive.
#[derive(Debug, Parser)]
#[command(name = "milena", version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the broker until SIGTERM or SIGINT
    Serve {
        /// The configuration; without one, the defaults hold
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Build a model topic's state anew from its inputs, as far as they reach back; what it has put out stays
        #[arg(long, value_name = "MODEL_TOPIC")]
        rebuild_state: Vec<String>,
    },
    /// Run a broker with a fraud model and live traffic, and show what comes out
    Quickstart(quickstart::QuickstartArguments),
    /// Tell what a configuration comes to: topics and models, features, state, defaults
    Explain {
        /// The configuration
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Write a JSON Schema of configuration files, for editors
    Schema {
        /// Write a text for people in its place, in Markdown
        #[arg(long)]
        reference: bool,
    },
    /// Check a configuration file
    Check {
        /// The configuration
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
}

fn explain(file: &Path) -> Result<(), CliError> {
    print!("{}", Explanation::of(file)?);
    Ok(())
}

fn schema(reference: bool) -> Result<(), CliError> {
    match reference {
        true => print!("{}", config::reference()),
        false => println!("{:#}", config::schema()),
    }
    Ok(())
}

/// Runs the command of this process.
pub fn run() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Serve {
            config,
            rebuild_state,
        } => serve::run(config.as_deref(), rebuild_state),
        Command::Quickstart(arguments) => quickstart::run(arguments),
        Command::Check { config } => check(&config),
        Command::Explain { config } => explain(&config),
        Command::Schema { reference } => schema(reference),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            for line in error.to_string().lines() {
                eprintln!("milena: {line}");
            }
            ExitCode::FAILURE
        }
    }
}

/// What a command fails with; it is shown and not looked into.
type CliError = Box<dyn std::error::Error + Send + Sync>;

fn check(file: &Path) -> Result<(), CliError> {
    Config::check_file(file)?;
    println!("{}: ok", file.display());
    Ok(())
}
