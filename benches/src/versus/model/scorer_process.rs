//! A process that scores beside a broker.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

const STOP_TIMEOUT: Duration = Duration::from_secs(20);

/// It runs until it is stopped or dropped.
#[derive(Debug)]
pub struct ScorerProcess {
    child: Child,
    log: PathBuf,
}

impl ScorerProcess {
    /// Starts it. What it says goes to a file.
    pub fn spawn(mut command: Command, log: PathBuf) -> anyhow::Result<Self> {
        let file = File::create(&log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("{} does not start", command.get_program().display()))?;
        Ok(Self { child, log })
    }

    /// Its id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// An error where it has ended by itself.
    pub fn check(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("a scorer has ended with {status}:\n{}", self.said()),
        }
    }

    /// SIGTERM, and waits for its end, with its last commit.
    pub fn stop(mut self) -> anyhow::Result<()> {
        // SAFETY: kill(2) has no memory effects; the pid is that of a child not yet waited for.
        unsafe { libc::kill(self.child.id() as libc::pid_t, libc::SIGTERM) };
        let deadline = Instant::now() + STOP_TIMEOUT;
        loop {
            match self.child.try_wait()? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => bail!("a scorer has ended with {status}:\n{}", self.said()),
                None if Instant::now() > deadline => {
                    bail!("a scorer does not end:\n{}", self.said())
                }
                None => std::thread::sleep(Duration::from_millis(10)),
            }
        }
    }

    /// The end of what it has said.
    fn said(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

impl Drop for ScorerProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
