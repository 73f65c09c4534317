//! A few rounds of what `.ci/long` runs a hundred of.

use std::time::{SystemTime, UNIX_EPOCH};

#[test]
fn producers_that_outlive_kills_lose_and_double_nothing() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let seed = now.expect("after 1970").as_secs();
    println!("seed {seed}");
    match tests::kill_rounds::run(5, seed, false) {
        Ok(figures) => println!("{figures}"),
        Err(fault) => panic!("seed {seed}: {fault}"),
    }
}
