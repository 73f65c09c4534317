//! A client program that runs: what it has said so far, waiting for more, and its end.
//!
//! Every wait is bounded, and fails at once where the program has ended. A program that is dropped
//! is killed.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read as _, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::record::{Event, Read, Record};

/// How long a client may take for one step. Below the 45 s after which most clients' groups
/// notice a member that has gone without leaving, so that leaving is seen to work.
pub const PATIENCE: Duration = Duration::from_secs(40);

/// Which of a program's outputs a line is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Standard output.
    Out,
    /// Standard error.
    Error,
}

/// Makes events of a program's lines.
pub type Parse = fn(Output, &str) -> Option<Event>;

/// What a program has said.
#[derive(Debug, Default)]
pub struct Said {
    /// Records read, in order.
    pub read: Vec<Read>,
    /// Records written: partition and offset.
    pub written: Vec<(i32, i64)>,
    /// Transactions that ended, in order: whether they were committed.
    pub ended: Vec<bool>,
    /// The partitions that it has now.
    pub assigned: BTreeSet<i32>,
    /// How often its partitions were given or taken.
    pub changes: usize,
    /// Lines that are no events.
    pub other: Vec<String>,
    open_outputs: usize,
}

impl Said {
    fn take(&mut self, event: Event, incremental: bool) {
        match event {
            Event::Assigned(partitions) => {
                self.changes += 1;
                if !incremental {
                    self.assigned.clear();
                }
                self.assigned.extend(partitions);
            }
            Event::Revoked(partitions) => {
                self.changes += 1;
                self.assigned.retain(|p| !partitions.contains(p));
            }
            Event::Read(read) => self.read.push(read),
            Event::Written(partition, offset) => self.written.push((partition, offset)),
            Event::Ended(committed) => self.ended.push(committed),
        }
    }
}

#[derive(Default)]
struct Shared {
    said: Mutex<Said>,
    changed: Condvar,
}

impl Shared {
    fn said(&self) -> MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A child process.
pub struct Program {
    child: Child,
    stdin: Option<ChildStdin>,
    shared: Arc<Shared>,
}

impl Program {
    /// Starts it. With `incremental`, assignments add to what is there.
    pub fn start(command: &mut Command, parse: Parse, incremental: bool) -> Result<Self, String> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| format!("{:?} does not start: {e}", command.get_program()))?;
        let shared = Arc::new(Shared::default());
        shared.said().open_outputs = 2;
        let (out, error) = (child.stdout.take(), child.stderr.take());
        let (Some(out), Some(error)) = (out, error) else {
            return Err("the program's outputs are not piped".to_owned());
        };
        follow(out, Output::Out, parse, incremental, Arc::clone(&shared));
        follow(
            error,
            Output::Error,
            parse,
            incremental,
            Arc::clone(&shared),
        );
        Ok(Self {
            stdin: child.stdin.take(),
            child,
            shared,
        })
    }

    /// Writes records to its input.
    pub fn send(&mut self, records: &[Record]) -> Result<(), String> {
        let mut lines = String::new();
        for record in records {
            lines.push_str(&record.to_line());
            lines.push('\n');
        }
        self.send_bytes(lines.as_bytes())
    }

    /// Writes bytes to its input.
    pub fn send_bytes(&mut self, bytes: &[u8]) -> Result<(), String> {
        let stdin = self.stdin.as_mut().ok_or("its input is closed")?;
        let sent = stdin.write_all(bytes).and_then(|()| stdin.flush());
        sent.map_err(|e| format!("its input ended: {e}{}", self.what_else_it_said()))
    }

    /// Closes its input.
    pub fn end_input(&mut self) {
        self.stdin = None;
    }

    /// Looks at what it has said until now.
    pub fn look<T>(&self, look: impl FnOnce(&Said) -> T) -> T {
        look(&self.shared.said())
    }

    /// Waits until `done` gives a value.
    pub fn wait_for<T>(
        &self,
        what: &str,
        mut done: impl FnMut(&Said) -> Option<T>,
    ) -> Result<T, String> {
        let deadline = Instant::now() + PATIENCE;
        let mut said = self.shared.said();
        loop {
            if let Some(value) = done(&said) {
                return Ok(value);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || said.open_outputs == 0 {
                let why = match said.open_outputs {
                    0 => "it ended".to_owned(),
                    _ => format!("not within {PATIENCE:?}"),
                };
                let summary = summary(&said);
                drop(said);
                return Err(format!(
                    "{what}: {why}; {summary}{}",
                    self.what_else_it_said()
                ));
            }
            // `done` may look at another program too, which does not wake this one.
            let look_again = left.min(Duration::from_millis(50));
            let waited = self.shared.changed.wait_timeout(said, look_again);
            said = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits until it has read this many records; more are an error at the next look.
    pub fn wait_for_records(&self, count: usize) -> Result<(), String> {
        self.wait_for(&format!("{count} records"), |said| {
            (said.read.len() >= count).then_some(())
        })
    }

    /// SIGTERM, and its end with exit code 0.
    pub fn stop(mut self) -> Result<Said, String> {
        // SAFETY: kill(2) has no memory effects; the pid is that of a child not yet waited for.
        unsafe { libc::kill(self.child.id() as libc::pid_t, libc::SIGTERM) };
        self.end()
    }

    /// Its end by itself, with exit code 0.
    pub fn end(&mut self) -> Result<Said, String> {
        self.stdin = None;
        self.wait_for("its end", |said| (said.open_outputs == 0).then_some(()))?;
        let status = self.child.wait().map_err(|e| e.to_string())?;
        if !status.success() {
            return Err(format!(
                "it ended with {status}{}",
                self.what_else_it_said()
            ));
        }
        Ok(std::mem::take(&mut *self.shared.said()))
    }

    fn what_else_it_said(&self) -> String {
        let said = self.shared.said();
        if said.other.is_empty() {
            return String::new();
        }
        let first = said.other.len().saturating_sub(15);
        format!("\n    {}", said.other[first..].join("\n    "))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn summary(said: &Said) -> String {
    let mut read: BTreeMap<i32, usize> = BTreeMap::new();
    for record in &said.read {
        *read.entry(record.partition).or_default() += 1;
    }
    format!(
        "it has {:?}, has read (partition: count) {read:?}, written {}, and ended {} transactions",
        said.assigned,
        said.written.len(),
        said.ended.len()
    )
}

fn follow(
    output: impl std::io::Read + Send + 'static,
    from: Output,
    parse: Parse,
    incremental: bool,
    shared: Arc<Shared>,
) {
    std::thread::spawn(move || {
        let mut output = BufReader::new(output);
        let mut line = Vec::new();
        loop {
            line.clear();
            // No line of a client program is longer than a record and what JSON makes of it.
            let read = (&mut output).take(8 << 20).read_until(b'\n', &mut line);
            let mut said = shared.said();
            match read {
                Ok(0) | Err(_) => said.open_outputs -= 1,
                Ok(_) => {
                    let text = String::from_utf8_lossy(&line);
                    let text = text.trim_end_matches(['\n', '\r']);
                    match parse(from, text) {
                        Some(event) => said.take(event, incremental),
                        None if text.is_empty() => {}
                        None => said.other.push(text.chars().take(500).collect()),
                    }
                }
            }
            drop(said);
            shared.changed.notify_all();
            if !matches!(read, Ok(1..)) {
                return;
            }
        }
    });
}
