//! `milena quickstart`, the real binary: every transaction is scored once, also after a restart.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};

fn quickstart(data_dir: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_milena"))
        .arg("quickstart")
        .arg("--data-dir")
        .arg(data_dir)
        .args(arguments)
        .output()
        .unwrap()
}

fn stdout(output: &Output) -> String {
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{}\n{stdout}\n{stderr}",
        output.status
    );
    stdout
}

#[test]
fn scores_each_transaction_once_and_goes_on_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("deep").join("quickstart");
    let first = quickstart(&data_dir, &["--port", "0", "--records", "6000"]);
    let first = stdout(&first);
    assert!(first.contains("6,000 transactions scored"), "{first}");
    assert!(
        first.contains("scored exactly once (6,000 counted again from the topic)"),
        "{first}"
    );
    assert!(first.contains("end to end: p50 "), "{first}");
    assert!(first.contains("kcat -b 127.0.0.1:"), "{first}");
    // As many alerts in their topic as scores say.
    let alerts = first.lines().find_map(|line| {
        let counts = line.strip_prefix("alerts (score 0.9 and above): ")?;
        counts.split_once(", and ")
    });
    let (scored, produced) = alerts.expect("a line on alerts");
    assert_eq!(
        produced,
        format!("{scored} records in fraud.alerts"),
        "{first}"
    );
    // The state of a customer, as the broker told it over HTTP.
    let state = first.lines().last().expect("the state");
    let state: serde_json::Value = serde_json::from_str(state).expect("JSON");
    assert!(
        state["features"]["mean_amount"]
            .as_f64()
            .is_some_and(|mean| mean > 0.0),
        "{first}"
    );
    assert!(!first.contains("goes on after"), "{first}");

    let second = quickstart(
        &data_dir,
        &["--port", "0", "--records", "500", "--rate", "5000"],
    );
    let second = stdout(&second);
    assert!(
        second.contains("goes on after    6,000 transactions"),
        "{second}"
    );
    assert!(
        second.contains("scored exactly once (500 counted again from the topic)"),
        "{second}"
    );
}

#[test]
fn a_port_in_use_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let port = address.port().to_string();
    let output = quickstart(folder.path(), &["--port", &port, "--records", "1"]);
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        stderr.contains(&format!("can't listen on {address}")),
        "{stderr}"
    );
}

#[test]
fn a_data_folder_that_is_a_file_is_named() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let output = quickstart(file.path(), &["--port", "0", "--records", "1"]);
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        stderr.contains(&file.path().display().to_string()),
        "{stderr}"
    );
}
