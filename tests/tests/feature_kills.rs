//! A few rounds of what `.ci/long` runs fifty of, and the recomputation's own tests.

use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use tests::feature_kills::{Options, run};

fn features_survive(options: Options) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let seed = now.expect("after 1970").as_secs();
    println!("seed {seed}");
    match run(&Options { seed, ..options }) {
        Ok(figures) => println!("{figures}"),
        Err(fault) => panic!("seed {seed}: {fault}"),
    }
}

#[test]
fn windows_hold_over_kills_what_they_hold_without() {
    features_survive(Options {
        rounds: 5,
        transactions: 20_000,
        customers: 2_000,
        ..Options::default()
    });
}

#[test]
fn the_fraud_example_holds_over_kills_what_it_holds_without() {
    features_survive(Options {
        rounds: 4,
        transactions: 10_000,
        customers: 1_000,
        config: Some(tests::repository().join("config/examples/fraud/milena.toml")),
        ..Options::default()
    });
}

#[test]
fn every_kind_of_feature_is_what_it_is_said_to_be() {
    features_survive(Options {
        rounds: 3,
        transactions: 5_000,
        customers: 100,
        config: Some(tests::repository().join("tests/src/feature_kills/every.toml")),
        ..Options::default()
    });
}

#[test]
fn the_recomputation_finds_what_was_put_there_for_it() {
    let tests = tests::repository().join("tests/recompute");
    let mut command = Command::new("python3");
    command
        .args(["-B", "-m", "unittest", "discover"])
        .arg(tests);
    let output = command.output().expect("python3");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}
