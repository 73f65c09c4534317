//! Runs the client matrix: builds the clients' programs, starts a broker, takes every client through
//! the cases, and fails with the broker's log where one fails.
//!
//! ```sh
//! cargo run --release -p tests --bin client_matrix -- --short
//! ```

use std::collections::{BTreeSet, VecDeque};
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::sync::{Mutex, PoisonError};

use clap::Parser;
use tests::client_matrix::client::{CLIENTS, Client};
use tests::client_matrix::report::Report;
use tests::client_matrix::scored::{INPUT, OUTPUT};
use tests::client_matrix::{CASES, Setup, alone, static_member, together, transactions};
use tests::{Milena, repository};

/// Every Kafka client through the same cases.
#[derive(Parser)]
struct Options {
    /// Only this client; may be given several times.
    #[arg(long = "client", value_name = "NAME", value_parser = clap::builder::PossibleValuesParser::new(CLIENTS.each_ref().map(|c| c.name)))]
    clients: Vec<String>,
    /// What each client does on its own (the default).
    #[arg(long, conflicts_with = "full")]
    short: bool,
    /// Also what needs all of them, or a restart of the broker.
    #[arg(long)]
    full: bool,
    /// Prints the table for the docs at the end.
    #[arg(long)]
    table: bool,
    /// Clients that run at the same time.
    #[arg(long, default_value_t = 3)]
    jobs: usize,
    /// Another broker, such as an Apache Kafka, in place of a Milena of its own.
    #[arg(long, value_name = "HOST:PORT")]
    bootstrap: Option<String>,
    /// That broker's data folder, to look at the batches on its disk.
    #[arg(long, value_name = "DIR", requires = "bootstrap")]
    data_dir: Option<PathBuf>,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let chosen = |client: &&'static Client| {
        options.clients.is_empty() || options.clients.iter().any(|name| name == client.name)
    };
    let clients: Vec<&'static Client> = CLIENTS.iter().filter(chosen).collect();
    if let Err(error) = build(&clients) {
        eprintln!("{error}");
        return ExitCode::FAILURE;
    }
    let mut milena = options
        .bootstrap
        .is_none()
        .then(|| Milena::start(&config()));
    let setup = Setup {
        bootstrap: match (&milena, &options.bootstrap) {
            (Some(milena), _) => milena.bootstrap(),
            (None, given) => given.clone().unwrap_or_default(),
        },
        data_dir: milena.as_ref().map(Milena::data_dir).or(options.data_dir),
        run: std::process::id().to_string(),
    };
    let report = Report::default();
    for_each(&clients, options.jobs, |client| {
        alone::run(&setup, client, &report)
    });
    if options.full {
        for_each(&clients, options.jobs, |reader| {
            report.case(reader.name, "static member", || {
                static_member::run(&setup, reader)
            });
            report.case(reader.name, "crossed", || {
                together::crossed(&setup, reader, &clients)
            });
            report.case(reader.name, "500 transactions", || {
                transactions::many(&setup, reader)
            });
        });
        if let Some(milena) = &mut milena {
            let restart = || {
                milena.kill();
                milena.restart();
            };
            together::broker_restart(&setup, &clients, restart, &report);
        }
    }
    if options.table {
        let versions = clients
            .iter()
            .map(|client| (client.name, client.version().unwrap_or_else(|e| e)));
        println!(
            "\n{}\n",
            report.table(&versions.collect::<Vec<_>>(), &CASES)
        );
    }
    let failures = report.failures();
    if failures.is_empty() {
        println!("the client matrix passed");
        return ExitCode::SUCCESS;
    }
    if let Some(milena) = &milena {
        println!("milena's log:\n{}", milena.log());
    }
    println!("failed: {}", failures.join(", "));
    ExitCode::FAILURE
}

/// Groups that begin without waiting for more members, and the fraud model topic.
fn config() -> String {
    format!(
        "[group]\ngroup_initial_rebalance_delay_ms = 100\n\
         [[topic]]\nname = {INPUT:?}\npartitions = 4\n\
         [[model]]\nname = \"fraud\"\nsource = {:?}\n\
         [[model_topic]]\nname = {OUTPUT:?}\ninput = {INPUT:?}\nmodel = \"fraud\"\n",
        repository().join("tests/models/fraud_by_row")
    )
}

/// Runs each `build` once, all at the same time: they mostly wait for downloads.
fn build(clients: &[&'static Client]) -> Result<(), String> {
    let folders: BTreeSet<PathBuf> = clients
        .iter()
        .filter_map(|client| client.build_folder())
        .collect();
    let running = folders.iter().map(|folder| {
        let build = folder.join("build");
        Command::new(&build)
            .spawn()
            .map_err(|e| format!("{}: {e}", build.display()))
    });
    let running: Vec<_> = running.collect();
    for (folder, child) in folders.iter().zip(running) {
        let status = child?.wait().map_err(|e| e.to_string())?;
        if !status.success() {
            return Err(format!("{}/build ended with {status}", folder.display()));
        }
    }
    Ok(())
}

/// Runs `run` for each client, at most `jobs` at a time.
fn for_each(clients: &[&'static Client], jobs: usize, run: impl Fn(&'static Client) + Sync) {
    let queue: Mutex<VecDeque<&'static Client>> = Mutex::new(clients.iter().copied().collect());
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let next = queue
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .pop_front();
                    match next {
                        Some(client) => run(client),
                        None => return,
                    }
                }
            });
        }
    });
}
