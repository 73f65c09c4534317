//! Transactions under thousands of histories, each drawn from a seed: producers begin, write to several
//! partitions, commit offsets, commit and abort; they are cut off and ask again, die, come back as
//! another instance while the first one lives on, and take too long. The broker is killed, or loses its
//! power and with it what was not on the device, between any two steps. No network, no disk, no clock: a
//! history is the same every time.
//!
//! The machine is the broker's own, as are the batches, the markers, and what a partition remembers of
//! its producers; what is written here is the order of steps around them (`coordinator.rs`), as
//! `broker/src/transaction` has it.
//!
//! Held against: a marker that commits closes batches of one transaction only, whose producer has asked
//! for it, and one that aborts none that was said to be committed; and when nothing goes wrong any
//! more, every transaction is there as a whole, exactly once, or not at all, as its producer was told; no
//! last stable offset hangs; and a read_committed reader by the list of aborted transactions sees just
//! that.
//!
//! - `MILENA_TRANSACTION_HISTORIES=100000 cargo test --release -p broker --test transaction_simulation`
//!   for more of them than by default (`.ci/long` does that).
//! - `MILENA_TRANSACTION_SEED=7 cargo test -p broker --test transaction_simulation` replays one, with its
//!   trace.

mod client;
mod coordinator;
mod log;
mod message;
mod promises;
#[path = "../group_simulation/random.rs"]
#[allow(dead_code)]
mod random;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use promises::Totals;
use world::World;

const HISTORIES: u64 = 3_000;

fn variable(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().expect("a number"))
}

fn run(world: &mut World) -> Result<Totals, String> {
    let result = catch_unwind(AssertUnwindSafe(|| world.run()));
    result.unwrap_or_else(|_| Err("a panic".to_owned()))
}

/// Runs a history once more, and says how it came to its end.
fn explain(seed: u64) -> String {
    let mut world = World::new(seed, true);
    let result = run(&mut world);
    let trace = world.trace.take().unwrap_or_default();
    format!("{}\nseed {seed}: {result:?}", trace.join("\n"))
}

#[test]
fn no_history_breaks_a_promise() {
    if let Some(seed) = variable("MILENA_TRANSACTION_SEED") {
        println!("{}", explain(seed));
    }
    let histories = variable("MILENA_TRANSACTION_HISTORIES").unwrap_or(HISTORIES);
    let (next, totals) = (AtomicU64::new(0), Mutex::new(Totals::default()));
    let failed = Mutex::new(Vec::new());
    let threads = thread::available_parallelism().map_or(1, |count| count.get());
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut sum = Totals::default();
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= histories {
                        break;
                    }
                    match run(&mut World::new(seed, false)) {
                        Ok(history) => sum.add(&history),
                        Err(violation) => failed.lock().unwrap().push((seed, violation)),
                    }
                }
                totals.lock().unwrap().add(&sum);
            });
        }
    });
    let mut failed = failed.into_inner().unwrap();
    failed.sort_unstable();
    if let Some((seed, violation)) = failed.first() {
        let others: Vec<u64> = failed.iter().map(|(seed, _)| *seed).take(20).collect();
        panic!(
            "{}\n{} of {histories} histories break a promise; the first, seed {seed}: {violation}\nseeds {others:?}",
            explain(*seed),
            failed.len(),
        );
    }
    let totals = totals.into_inner().unwrap();
    println!("{histories} histories: {totals:?}");
    for (what, count) in totals.all() {
        assert!(count > 0 || histories < HISTORIES, "there were no {what}");
    }
}
