//! The `milena` binary: what it refuses, and how it stops.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

fn milena(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_milena"));
    command.args(arguments).env_remove("MILENA_LOG");
    command
}

fn written(folder: &TempDir, text: &str) -> String {
    let path = folder.path().join("milena.toml");
    std::fs::write(&path, text).expect("a file");
    path.to_string_lossy().into_owned()
}

fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = milena(arguments).output().expect("it runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("it writes UTF-8");
    (status.code(), text(stdout), text(stderr))
}

/// A broker of its own; killed when it is dropped.
struct Broker {
    child: Child,
    errors: BufReader<std::process::ChildStderr>,
}

impl Broker {
    fn start(config: &str) -> Self {
        let mut child = milena(&["serve", "--config", config])
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let errors = BufReader::new(child.stderr.take().expect("its standard error"));
        let mut broker = Self { child, errors };
        broker.wait_for("serving");
        broker
    }

    fn wait_for(&mut self, text: &str) -> String {
        let mut line = String::new();
        let mut all = String::new();
        while self.errors.read_line(&mut line).expect("it writes UTF-8") > 0 {
            if line.contains(text) {
                return line;
            }
            all.push_str(&line);
            line.clear();
        }
        panic!("no {text:?} in:\n{all}");
    }

    fn signal(&self, signal: i32) {
        // SAFETY: a signal to a child that was not waited for yet.
        let sent = unsafe { libc::kill(self.child.id() as i32, signal) };
        assert_eq!(sent, 0, "the signal is sent");
    }

    fn exit_code(&mut self, within: Duration) -> Option<i32> {
        let begin = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("it can be waited for") {
                return status.code();
            }
            assert!(begin.elapsed() < within, "it still runs after {within:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn small_config(data: &Path, more: &str) -> String {
    let data = data.display();
    format!(
        "[broker]\nlisten = \"127.0.0.1:0\"\ndata_dir = \"{data}\"\n{more}\n[http]\nlisten = \"\"\n"
    )
}

#[test]
fn check_tells_what_is_wrong_and_where() {
    let folder = TempDir::new().expect("a folder");
    let good = written(&folder, "[broker]\nnode_id = 3\n");
    assert_eq!(
        run(&["check", "--config", &good]),
        (Some(0), format!("{good}: ok\n"), String::new())
    );
    let bad = written(&folder, "[broker]\nnode_id = 3\nnodeid = 3\n");
    for arguments in [
        &["check", "--config", &bad][..],
        &["serve", "--config", &bad],
    ] {
        let (code, stdout, stderr) = run(arguments);
        assert_eq!((code, stdout), (Some(1), String::new()));
        let expected = format!("milena: {bad}:3: broker.nodeid: unknown field `nodeid`");
        assert!(stderr.starts_with(&expected), "{stderr}");
    }
    let (code, _, stderr) = run(&["check", "--config", "/no/such/file"]);
    assert_eq!(code, Some(1));
    assert!(stderr.starts_with("milena: /no/such/file: "), "{stderr}");
}

#[test]
fn it_knows_its_version_and_its_arguments() {
    let (code, stdout, _) = run(&["--version"]);
    assert_eq!(
        (code, stdout),
        (Some(0), format!("milena {}\n", env!("CARGO_PKG_VERSION")))
    );
    assert_eq!(run(&["server"]).0, Some(2));
}

#[test]
fn a_port_in_use_is_a_clear_error() {
    let folder = TempDir::new().expect("a folder");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let config = small_config(&folder.path().join("data"), "").replace("127.0.0.1:0", &address);
    let (code, _, stderr) = run(&["serve", "--config", &written(&folder, &config)]);
    assert_eq!(code, Some(1));
    assert!(
        stderr.contains(&format!("broker.listen: can't listen on {address}: ")),
        "{stderr}"
    );
}

#[test]
fn signals_stop_it_cleanly() {
    let folder = TempDir::new().expect("a folder");
    let config = written(&folder, &small_config(&folder.path().join("data"), ""));
    for (signal, was_clean) in [(libc::SIGTERM, "clean=true"), (libc::SIGINT, "clean=true")] {
        let mut broker = Broker::start(&config);
        broker.signal(signal);
        broker.wait_for("stopped");
        assert_eq!(broker.exit_code(Duration::from_secs(10)), Some(0));
        // The next start sees it.
        let mut next = milena(&["serve", "--config", &config])
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let errors = BufReader::new(next.stderr.take().expect("its standard error"));
        let mut next = Broker {
            child: next,
            errors,
        };
        let line = next.wait_for("serving");
        assert!(line.contains(was_clean), "{line}");
        next.signal(libc::SIGTERM);
        assert_eq!(next.exit_code(Duration::from_secs(10)), Some(0));
    }
}

#[test]
fn log_lines_can_be_json() {
    let folder = TempDir::new().expect("a folder");
    let config = small_config(&folder.path().join("data"), "log_format = \"json\"");
    let mut broker = Broker::start(&written(&folder, &config));
    broker.signal(libc::SIGTERM);
    let line = broker.wait_for("stopped");
    let line: serde_json::Value = serde_json::from_str(&line).expect("a line is JSON");
    assert_eq!(
        (&line["message"], &line["level"]),
        (&"stopped".into(), &"INFO".into())
    );
    assert_eq!(broker.exit_code(Duration::from_secs(10)), Some(0));
}

#[test]
fn explain_tells_what_a_config_comes_to() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/examples/sensors");
    let config = example.join("milena.toml");
    let (code, told, errors) = run(&["explain", "--config", &config.to_string_lossy()]);
    assert_eq!((code, errors.as_str()), (Some(0), ""));
    let lines: Vec<&str> = told.lines().map(str::trim).collect();
    for line in [
        // The graph, what it is made of, and what was left to defaults.
        "machines -> machines.scored.repartition",
        "machines.scored.repartition -> machines.scored, through model sensors",
        "machines.scored -> machines.alerts, where anomaly",
        "machines.scored -> machines.scored.dlq, what fails",
        "task      anomaly, rows of 10 numbers, 6.5 KiB of weights",
        "feature   vibration_mean, a number, input 5: mean of $.vibration over the session, to a pause of 30s, \
         0 where there is none",
        "keyed by  $.machine_id; machines.scored.repartition brings records of a key together, by Java's murmur2",
        "time      of machines: $.ts, as unix_ms",
        "state     up to 512.0 MiB in memory, more in data/sensors/.state/machines.scored; logged to \
         machines.scored.changelog",
        "query     http://127.0.0.1:9644/v1/state/machines.scored/{key}",
        "error     what features can't be made of goes to machines.scored.dlq",
        "key = \"$.machine_id\"",
        "state.ttl = \"7d\"  (default)",
        "broker.data_dir = \"data/sensors\"",
    ] {
        assert!(lines.contains(&line), "no line {line:?} in:\n{told}");
    }
}

#[test]
fn explain_tells_the_faults_of_a_config_that_has_some() {
    let folder = TempDir::new().expect("a folder");
    let config = written(&folder, "[broker]\nnode_id = -1\nnum_partitions = 0\n");
    let (code, told, errors) = run(&["explain", "--config", &config]);
    assert_eq!((code, told.as_str()), (Some(1), ""));
    let faults: Vec<&str> = errors.lines().collect();
    assert_eq!(faults.len(), 2, "{errors}");
    assert!(
        faults[0].contains("milena.toml:2: broker.node_id = -1: "),
        "{errors}"
    );
    assert!(
        faults[1].contains("milena.toml:3: broker.num_partitions = 0: "),
        "{errors}"
    );
}
