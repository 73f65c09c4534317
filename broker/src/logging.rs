//! The process's own log lines, on standard error.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::config::LogFormat;

/// How much is logged, as a `tracing` filter such as `info,broker=debug`.
pub const FILTER_VARIABLE: &str = "MILENA_LOG";

/// What libraries say of themselves is told from warnings on, unless the variable names them.
const QUIETED: &str = "fjall=warn,lsm_tree=warn";

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The variable is not a filter.
    #[error("{FILTER_VARIABLE}={value:?}: {reason}")]
    Filter {
        /// The variable's value.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
    /// There is a logger already.
    #[error("logging: {0}")]
    Taken(String),
}

/// Sets the process's logger up: `default_filter` where the variable is not set.
pub fn init(format: LogFormat, default_filter: &str) -> Result<(), LoggingError> {
    let value = std::env::var(FILTER_VARIABLE).unwrap_or_else(|_| default_filter.to_owned());
    let quieted = format!("{QUIETED},{value}");
    let filter = EnvFilter::try_new(quieted).map_err(|error| LoggingError::Filter {
        value,
        reason: error.to_string(),
    })?;
    let logger = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let set = match format {
        LogFormat::Text => logger.try_init(),
        LogFormat::Json => logger.json().flatten_event(true).try_init(),
    };
    set.map_err(|error| LoggingError::Taken(error.to_string()))
}
