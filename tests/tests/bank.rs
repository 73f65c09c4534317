//! A few rounds of what `.ci/long` runs twenty of.

use std::time::{SystemTime, UNIX_EPOCH};

#[test]
fn no_money_is_made_or_lost_over_kills() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let seed = now.expect("after 1970").as_secs();
    println!("seed {seed}");
    match tests::bank::run(3, seed, false) {
        Ok(figures) => println!("{figures}"),
        Err(fault) => panic!("seed {seed}: {fault}"),
    }
}
