//! The log beside what the machine can do: `cargo run --release -p benches --bin log`.
//!
//! Every subject runs the crate `storage` in this process and, in the same rounds, a *bare loop*: the
//! system calls and checksums that the same work takes at the least, and nothing else. Machines are
//! noisy, so the two take turns; a figure is the median over the rounds, and a ratio the median of
//! each round's ratio. Each subject's module says what its bare loop does.

pub mod append;
pub mod compaction;
pub mod figures;
pub mod fixture;
pub mod group_commit;
pub mod latency;
pub mod lookups;
pub mod read;
pub mod recovery;

use std::path::PathBuf;
use std::process::Command;

use clap::{Parser, ValueEnum};
use tempfile::TempDir;

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Subject {
    /// Appends to the page cache and to the disk.
    Append,
    /// Reading a log from front to back.
    Read,
    /// Small appends that wait for the disk in groups.
    GroupCommit,
    /// How long an append takes while a log is compacted, or loses segments.
    Latency,
    /// Compacting a log, by codec.
    Compaction,
    /// A start after an unclean stop.
    Recovery,
    /// Offsets and timestamps in a sparse log of 100 GB.
    Lookups,
    /// Ten thousand partitions: the program `partitions`.
    Partitions,
}

/// How to measure.
#[derive(Debug, Parser)]
#[command(about = "Measures the log beside bare loops of the same work")]
pub struct Options {
    /// What to measure; everything where nothing is named.
    pub subjects: Vec<Subject>,
    /// Where to work: a folder on the disk that is to be measured. It gets a folder that goes in the end.
    #[arg(long, default_value = "/var/tmp")]
    pub dir: PathBuf,
    /// How often each measurement is taken, by turns with its bare loop.
    #[arg(long, default_value_t = 7)]
    pub rounds: usize,
    /// Log bytes of one measurement, in MiB.
    #[arg(long, default_value_t = 512)]
    pub mib: u64,
    /// Seconds of one measurement that waits for the disk or follows a clock.
    #[arg(long, default_value_t = 2.0)]
    pub seconds: f64,
}

impl Options {
    /// A new folder to work in, gone when it is dropped.
    pub fn folder(&self) -> TempDir {
        tempfile::Builder::new()
            .prefix("milena-benches-")
            .tempdir_in(&self.dir)
            .expect("a folder in --dir")
    }

    /// Log bytes of one measurement.
    pub fn bytes(&self) -> u64 {
        self.mib << 20
    }
}

/// Measures what `options` name, and prints a table for each subject.
pub fn run(options: &Options) {
    for subject in Subject::value_variants() {
        if !options.subjects.is_empty() && !options.subjects.contains(subject) {
            continue;
        }
        match subject {
            Subject::Append => append::run(options),
            Subject::Read => read::run(options),
            Subject::GroupCommit => group_commit::run(options),
            Subject::Latency => latency::run(options),
            Subject::Compaction => compaction::run(options),
            Subject::Recovery => recovery::run(options),
            Subject::Lookups => lookups::run(options),
            Subject::Partitions => partitions(),
        }
        println!();
    }
}

/// Another program, as it measures the whole broker.
fn partitions() {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["run", "--release", "-p", "benches", "--bin", "partitions"])
        .status()
        .expect("cargo runs");
    assert!(status.success(), "the program `partitions`: {status}");
}
