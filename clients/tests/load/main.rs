//! The real `milena-load` against the real `milena`.

mod arguments;
mod end_to_end;
mod produce_and_consume;
mod stall;
mod transactions;

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use clients::report::Report;
use tempfile::TempDir;
use tests::Milena;

/// A broker, and a folder for what the runs write.
struct Bench {
    milena: Milena,
    dir: TempDir,
}

impl Bench {
    fn start(config: &str) -> Self {
        Self {
            milena: Milena::start(config),
            dir: tempfile::tempdir().expect("a folder"),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// `milena-load` with these arguments, for this broker, with a report.
    fn command(&self, arguments: &str) -> Command {
        let mut command = load(arguments);
        command
            .args(["--bootstrap", &self.milena.bootstrap(), "--report"])
            .arg(self.path("report.json"))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs it; its report, where it ends as a good run does.
    fn run(&self, arguments: &str) -> Report {
        self.report(self.command(arguments).output().expect("it runs"), 0)
    }

    /// Runs it where it must fail with this exit code: the report and what it said.
    fn run_failing(&self, arguments: &str) -> (Report, String) {
        let output = self.command(arguments).output().expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (self.report(output, 1), said)
    }

    fn report(&self, output: Output, wanted: i32) -> Report {
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(wanted), "{said}");
        let json = std::fs::read(self.path("report.json")).expect("a report");
        serde_json::from_slice(&json).expect("what report.rs says")
    }

    fn read_all(&self, topic: &str) -> Vec<tests::Received> {
        self.milena
            .read_topic(topic)
            .into_values()
            .flatten()
            .collect()
    }
}

fn load(arguments: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_milena-load"));
    command
        .args(arguments.split_whitespace())
        .stdin(Stdio::null());
    command
}
