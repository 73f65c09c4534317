//! From the arguments to the exit code.

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;

use crate::args::{Arguments, Command, Load, Output};
use crate::error::{Error, Result};
use crate::payload::Payloads;
use crate::report::Report;
use crate::{allocator, end_to_end, mix, plot, summary};

/// Does what the command line says: 0 where all went well, 1 where not, 2 where the arguments are
/// at fault.
pub fn run() -> ExitCode {
    allocator::keep_memory();
    match execute(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("milena-load: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

fn execute(arguments: &Arguments) -> Result<()> {
    let (measured, arrivals, output) = match &arguments.command {
        Command::Produce(produce) => {
            let payloads = payloads(&produce.load)?;
            (mix::run_produce(produce, payloads)?, None, &produce.output)
        }
        Command::Consume(consume) => (mix::run_consume(consume)?, None, &consume.output),
        Command::EndToEnd(both) => {
            let (measured, arrivals) = end_to_end::run(both, payloads(&both.load)?)?;
            (measured, Some(arrivals), &both.output)
        }
        Command::Mix(mix) => (mix::run_mix(mix, payloads(&mix.load)?)?, None, &mix.output),
    };
    let command = std::env::args().collect();
    let (report, failure) = summary::report(measured, arrivals, command);
    print!("{}", summary::text(&report));
    write(&report, output)?;
    failure.map_or(Ok(()), Err)
}

fn payloads(load: &Load) -> Result<Payloads> {
    match &load.payload {
        Some(path) => Payloads::from_file(path),
        None => Ok(Payloads::synthetic(load.size, load.seed)),
    }
}

fn write(report: &Report, output: &Output) -> Result<()> {
    if let Some(path) = &output.report {
        let json =
            serde_json::to_string_pretty(report).map_err(|error| failed(path, error.into()))?;
        fs::write(path, json + "\n").map_err(|error| failed(path, error))?;
    }
    if let Some(path) = &output.plot {
        plot::draw(report, path)?;
    }
    Ok(())
}

fn failed(path: &Path, source: std::io::Error) -> Error {
    Error::Output {
        path: path.to_owned(),
        source,
    }
}
