//! The load generator `milena-load`, as a process of its own beside the brokers.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use clients::report::Report;

use super::built;
use crate::process;

/// The `milena-load` of this build, built first where it is not up to date.
pub fn binary() -> anyhow::Result<&'static Path> {
    static BINARY: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let built =
        BINARY.get_or_init(|| built::binary("milena-load").map_err(|error| format!("{error:#}")));
    built.as_deref().map_err(|error| anyhow!("{error}"))
}

/// A run of `milena-load` that goes on.
#[derive(Debug)]
pub struct Load {
    child: Child,
    command: String,
    report: PathBuf,
    stderr: PathBuf,
    started: Instant,
}

impl Load {
    /// Starts it with these arguments, and `--report` and `--quiet`. What it writes goes to `folder`.
    pub fn spawn<S: AsRef<str>>(folder: &Path, args: &[S]) -> anyhow::Result<Self> {
        let args: Vec<&str> = args.iter().map(AsRef::as_ref).collect();
        let (report, stderr) = (folder.join("load.json"), folder.join("load.stderr"));
        fs::remove_file(&report).ok();
        let mut command = Command::new(binary()?);
        command
            .args(&args)
            .arg("--report")
            .arg(&report)
            .arg("--quiet")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&stderr)?);
        process::end_with_this_thread(&mut command);
        let child = command.spawn().context("milena-load starts")?;
        Ok(Self {
            child,
            command: format!("milena-load {}", args.join(" ")),
            report,
            stderr,
            started: Instant::now(),
        })
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits for its end and reads its report. After `timeout` it is killed, which is an error.
    pub fn report(mut self, timeout: Duration) -> anyhow::Result<Report> {
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            if self.started.elapsed() > timeout {
                bail!("{} has not ended after {timeout:?}", self.command);
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        if !status.success() {
            let said = fs::read_to_string(&self.stderr).unwrap_or_default();
            bail!("{}: {status}: {}", self.command, said.trim());
        }
        let report = fs::read(&self.report)
            .with_context(|| format!("{} has written no report", self.command))?;
        serde_json::from_slice(&report).context("the report of milena-load")
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        if !self.has_ended() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
