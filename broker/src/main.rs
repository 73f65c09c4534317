//! The `milena` command; see [`broker::cli`].

use std::process::ExitCode;

// Inference allocates a lot, from many threads.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    broker::cli::run()
}
