//! `milena serve`.

use std::path::Path;

use tokio::signal::unix::{SignalKind, signal};

use super::CliError;
use crate::config::Config;
use crate::logging;
use crate::server::Server;

/// Serves until a signal; the configuration's defaults hold where there is no file. The state of some model topics is built
/// anew.
pub(super) fn run(config: Option<&Path>, rebuild_state: Vec<String>) -> Result<(), CliError> {
    let mut config = match config {
        Some(file) => Config::load(file)?,
        None => Config::default(),
    };
    config.rebuild_state = rebuild_state;
    logging::init(config.broker.log_format, "info")?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(config.broker.network_threads)
        .thread_name("network")
        .enable_all()
        .build()?;
    runtime.block_on(serve(config))
}

async fn serve(config: Config) -> Result<(), CliError> {
    // Before the start: a signal that comes early is not lost.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let server = tokio::select! {
        server = Server::start(config) => server?,
        _ = terminate.recv() => return Err("stopped before the start was finished".into()),
        _ = interrupt.recv() => return Err("stopped before the start was finished".into()),
    };
    let signal = tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    };
    tracing::info!(signal, "signal");
    tokio::select! {
        stopped = server.stop() => Ok(stopped?),
        // Who asks twice does not want to wait.
        _ = interrupt.recv() => Err("interrupted before the stop was finished: the next start recovers".into()),
    }
}
