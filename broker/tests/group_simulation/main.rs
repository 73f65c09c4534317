//! The group machine under thousands of histories, each drawn from a seed: members of all kinds
//! join, leave, die and are cut off, writes fail, the broker restarts. No network, no disk, no
//! clock: a history is the same every time.
//!
//! After every step: no partition has two owners in one generation, neither as assigned nor as the
//! clients believe; tickets are answered exactly once; generations never go back; only members of
//! the present generation commit; a member's id stays its own; what is answered was stored. And when
//! nothing goes wrong any more, the group settles.
//!
//! - `MILENA_GROUP_HISTORIES=100000 cargo test --release -p broker --test group_simulation` for more
//!   of them than by default (`.ci/long` does that).
//! - `MILENA_GROUP_SEED=7 cargo test -p broker --test group_simulation` replays one, with its trace.

mod behaviour;
mod client;
mod coordinator;
mod message;
mod plan;
mod promises;
mod random;
mod trouble;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use plan::Plan;
use promises::Totals;
use random::Random;
use world::World;

const HISTORIES: u64 = 2_000;

/// Longer than every timeout of a history, several times over.
const PATIENCE_MS: u64 = 10 * 60 * 1000;

fn variable(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().expect("a number"))
}

fn run(world: &mut World) -> Result<Totals, String> {
    let result = catch_unwind(AssertUnwindSafe(|| world.run(PATIENCE_MS)));
    let outcome = result.unwrap_or_else(|_| Err("a panic".to_owned()));
    outcome.map(|()| world.promises.totals.clone())
}

fn history(seed: u64, traced: bool) -> World {
    let mut random = Random::new(seed);
    let plan = Plan::draw(&mut random);
    World::new(plan, random, traced)
}

/// Runs a history once more, and says how it came to its end.
fn explain(seed: u64) -> String {
    let mut world = history(seed, true);
    let result = run(&mut world);
    let trace = world.trace.take().unwrap_or_default();
    let plan = &world.plan;
    format!("{plan:#?}\n{}\nseed {seed}: {result:?}", trace.join("\n"))
}

#[test]
fn no_history_breaks_a_promise() {
    if let Some(seed) = variable("MILENA_GROUP_SEED") {
        println!("{}", explain(seed));
    }
    let histories = variable("MILENA_GROUP_HISTORIES").unwrap_or(HISTORIES);
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
                    match run(&mut history(seed, false)) {
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

#[test]
fn a_group_of_a_thousand_members_settles() {
    let mut random = Random::new(1);
    let plan = Plan::crowd(1_000, &mut random);
    let mut world = World::new(plan, random, false);
    let totals = run(&mut world).unwrap();
    assert!(totals.syncs > 1_000, "{totals:?}");
}
