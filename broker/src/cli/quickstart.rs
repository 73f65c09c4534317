//! `milena quickstart`.

use std::path::PathBuf;

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::CliError;
use crate::config::{BrokerSection, LogFormat};
use crate::logging;
use crate::quickstart::{self, DEFAULT_DATA_DIR, DEFAULT_PORT, Options};

/// The quickstart's arguments.
#[derive(Debug, Args)]
pub(super) struct QuickstartArguments {
    /// End after so many transactions, with a summary; without it, Ctrl-C ends
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    records: Option<u64>,
    /// Transactions a second [default: 2000, or with --records as many as are scored]
    #[arg(long, value_name = "R", value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
    /// The folder for its data; what an earlier run left there stays
    #[arg(long, value_name = "DIR", default_value = DEFAULT_DATA_DIR)]
    data_dir: PathBuf,
    /// The port on 127.0.0.1; 0 takes a free one
    #[arg(long, value_name = "P", default_value_t = DEFAULT_PORT)]
    port: u16,
}

/// Runs until the records are through, or a signal.
pub(super) fn run(arguments: QuickstartArguments) -> Result<(), CliError> {
    // The live line is what is to be seen: the broker's own lines only where something is wrong.
    logging::init(LogFormat::Text, "warn")?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(BrokerSection::default().network_threads)
        .thread_name("network")
        .enable_all()
        .build()?;
    let options = Options {
        records: arguments.records,
        rate: arguments.rate,
        data_dir: arguments.data_dir,
        port: arguments.port,
    };
    let done = runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let (stop, stopped) = watch::channel(false);
        let running = quickstart::run(options, stopped);
        tokio::pin!(running);
        tokio::select! {
            done = &mut running => return Ok(done?),
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stop.send_replace(true);
        tokio::select! {
            done = running => Ok(done?),
            // Who asks twice does not want to wait.
            _ = interrupt.recv() => {
                Err("interrupted before the stop was finished: the next start recovers".into())
            }
        }
    });
    // After an interrupt the client's thread may still be waiting for the broker.
    runtime.shutdown_background();
    done
}
