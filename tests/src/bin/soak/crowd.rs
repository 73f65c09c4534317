//! The consumers: processes that are started, asked to leave, killed and held up, and whose output
//! is booked. Every process is ended when its [`Consumer`] is dropped, and by the kernel when the
//! soak itself ends in any way.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::cast::{GROUPS, Part};
use crate::ledger::Ledger;
use crate::load::stamp;

/// How long one that was asked to leave may take. A JVM on a busy machine takes seconds.
const LEAVE_PATIENCE: Duration = Duration::from_secs(45);

/// What the members of one phase have in common.
pub struct Stage {
    pub bootstrap: String,
    pub topic: String,
    pub ledger: Arc<Ledger>,
    /// Nobody is killed: sessions need not be short.
    pub patient: bool,
    pub stderr_dir: PathBuf,
    pub assignments: Arc<AtomicU64>,
    /// When the phase began.
    pub began: Instant,
}

/// One who takes part, running or not.
pub struct Consumer {
    pub part: Part,
    state: State,
    starts: u32,
}

enum State {
    Out,
    In(Running),
    /// Stopped by SIGSTOP, to go on then.
    HeldUp(Running, Instant),
    /// Asked to leave then.
    Leaving(Running, Instant),
}

struct Running {
    child: Child,
    reader: Option<JoinHandle<()>>,
    stderr: PathBuf,
}

impl Consumer {
    pub fn new(part: Part) -> Self {
        Self {
            part,
            state: State::Out,
            starts: 0,
        }
    }

    pub fn is_in(&self) -> bool {
        matches!(self.state, State::In(_))
    }

    pub fn is_out(&self) -> bool {
        matches!(self.state, State::Out)
    }

    /// The group's id in this phase.
    pub fn group_id(stage: &Stage, group: usize) -> String {
        format!("{}-{}", stage.topic, GROUPS[group].name)
    }

    /// Joins. Only the main thread may call this: a child ends with the thread that started it.
    pub fn join(&mut self, stage: &Stage) {
        self.starts += 1;
        let stderr = stage
            .stderr_dir
            .join(format!("{}-{}", self.part.name, self.starts));
        let group_id = Self::group_id(stage, self.part.group);
        let mut command =
            self.part
                .command(&stage.bootstrap, &stage.topic, &group_id, stage.patient);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(&stderr).expect("a file for stderr"));
        // SAFETY: prctl is async-signal-safe and touches no memory.
        unsafe {
            command.pre_exec(|| {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                Ok(())
            });
        }
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(error) => {
                stage.ledger.fault(format!("{command:?}: {error}"));
                return;
            }
        };
        let output = child.stdout.take().expect("its stdout is piped");
        let reader = read(
            format!("{}#{}", self.part.name, self.starts),
            self.part.group,
            output,
            stage,
        );
        self.state = State::In(Running {
            child,
            reader: Some(reader),
            stderr,
        });
    }

    /// SIGTERM; `tend` waits for the end.
    pub fn leave(&mut self) {
        self.state = match std::mem::replace(&mut self.state, State::Out) {
            State::In(running) => {
                running.signal(libc::SIGTERM);
                State::Leaving(running, Instant::now())
            }
            State::HeldUp(running, _) => {
                running.signal(libc::SIGCONT);
                running.signal(libc::SIGTERM);
                State::Leaving(running, Instant::now())
            }
            other => other,
        };
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.state = State::Out;
    }

    /// SIGSTOP, and SIGCONT after `pause`.
    pub fn hold_up(&mut self, pause: Duration) {
        self.state = match std::mem::replace(&mut self.state, State::Out) {
            State::In(running) => {
                running.signal(libc::SIGSTOP);
                State::HeldUp(running, Instant::now() + pause)
            }
            other => other,
        };
    }

    /// Notices ends, and lets go on whoever was held up for long enough.
    pub fn tend(&mut self, stage: &Stage) {
        let name = &self.part.name;
        self.state = match std::mem::replace(&mut self.state, State::Out) {
            State::In(mut running) => match running.child.try_wait() {
                Ok(None) => State::In(running),
                ended => {
                    let why = running.stderr_tail();
                    stage
                        .ledger
                        .fault(format!("{name} ended by itself: {ended:?}: {why}"));
                    State::Out
                }
            },
            State::HeldUp(running, until) if Instant::now() >= until => {
                running.signal(libc::SIGCONT);
                State::In(running)
            }
            State::Leaving(mut running, since) => match running.child.try_wait() {
                Ok(None) if since.elapsed() < LEAVE_PATIENCE => State::Leaving(running, since),
                Ok(Some(status)) if status.success() => State::Out,
                ended => {
                    let why = running.stderr_tail();
                    stage.ledger.fault(format!(
                        "{name} was asked to leave, after {:?}: {ended:?}: {why}",
                        since.elapsed()
                    ));
                    State::Out
                }
            },
            other => other,
        };
    }
}

impl Running {
    fn signal(&self, signal: libc::c_int) {
        // SAFETY: kill(2) has no memory effects; the pid is that of a child not yet waited for.
        unsafe { libc::kill(self.child.id() as libc::pid_t, signal) };
    }

    fn stderr_tail(&self) -> String {
        let text = std::fs::read(&self.stderr).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(5)..].join(" | ")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

/// Books what a consumer prints, until its output ends.
fn read(name: String, group: usize, output: ChildStdout, stage: &Stage) -> JoinHandle<()> {
    let (ledger, assignments) = (Arc::clone(&stage.ledger), Arc::clone(&stage.assignments));
    std::thread::spawn(move || {
        let mut output = BufReader::new(output);
        let mut line = Vec::new();
        loop {
            line.clear();
            match output.read_until(b'\n', &mut line) {
                // One that is killed may end in the middle of a line.
                Ok(_) if line.last() == Some(&b'\n') => {}
                _ => return,
            }
            match serde_json::from_slice::<Value>(&line) {
                Ok(event) if event.get("event").is_some() => {
                    let assigned = event["event"] == "assigned";
                    assignments.fetch_add(assigned.into(), Ordering::Relaxed);
                }
                record => {
                    let record = record.unwrap_or_default();
                    let place = (record["partition"].as_i64(), record["offset"].as_i64());
                    let stamp = record["value"].as_str().and_then(stamp);
                    match (place, stamp) {
                        ((Some(partition), Some(offset)), Some(stamp)) => {
                            let partition = i32::try_from(partition).unwrap_or(-1);
                            ledger.seen(group, &name, partition, offset, stamp);
                        }
                        _ => ledger.fault(format!(
                            "{name} printed {}",
                            String::from_utf8_lossy(&line).trim_end()
                        )),
                    }
                }
            }
        }
    })
}
