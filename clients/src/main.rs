//! The `milena-load` command; see [`clients::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    clients::cli::run()
}
