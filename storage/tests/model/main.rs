//! The log under thousands of histories, each drawn from a seed: batches good and bad, idempotent
//! producers that repeat themselves, transactions of several producers at once, reads and lookups, rolls,
//! deletions, staging and discarding, compaction, changes of configuration, calls that fail, full disks, kills, power cuts that leave any part of
//! what was not synced, also in the middle of a recovery, and restarts. Beside it goes a model that is
//! a list of batches.
//!
//! After every step the log answers as the model does. After a crash the log is a prefix of the
//! model, as long as what was said to be durable at least; a derived partition has what was recorded
//! of it; no offset has had two batches under one epoch; and a producer's last batch is known. What a
//! compaction has left, or a crash in its midst, is one that is allowed (`compaction.rs`). What is stable,
//! and what read_committed readers see, is at any time what the markers in the log say
//! (`transactions.rs`).
//!
//! - `MILENA_LOG_HISTORIES=100000 cargo test --release -p storage --test model -- --nocapture` for more
//!   of them than by default, from another seed on every time (`MILENA_LOG_FIRST_SEED` says from which).
//! - `MILENA_LOG_SEED=7 cargo test -p storage --test model` replays one, without the steps that it
//!   fails without, and shows what happened.
//! - Seeds that have found something are in `regressions.txt`, and are replayed every time.

mod batches;
mod check;
mod compaction;
mod model;
mod plan;
mod steps;
mod transactions;
#[path = "../log/transactions/walk.rs"]
mod walk;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use check::Outcome;
use faulty_disk::Random;
use plan::Step;
use world::World;

const HISTORIES: u64 = 200;
/// Set in the seed of a history in which logs are compacted.
const COMPACTING: u64 = 1 << 63;
/// Set in that of one with transactions.
const TRANSACTING: u64 = 1 << 62;

fn variable(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().expect("a number"))
}

/// What a history begins with.
#[derive(Clone)]
struct Beginning {
    random: Random,
    compacting: bool,
    transacting: bool,
}

/// The steps of a seed, and the numbers for all else.
fn plan(seed: u64) -> (Vec<Step>, Beginning) {
    let mut random = Random::new(seed & !(COMPACTING | TRANSACTING));
    let compacting = seed & COMPACTING != 0;
    let transacting = seed & TRANSACTING != 0;
    let steps = plan::draw(&mut random, compacting, transacting);
    let beginning = Beginning {
        random,
        compacting,
        transacting,
    };
    (steps, beginning)
}

/// Takes the steps, and says what went wrong, and at which.
fn run(
    steps: &[Step],
    beginning: &Beginning,
    trace: Option<&mut Vec<String>>,
) -> Result<(), String> {
    let mut world = World::new(beginning.clone(), trace.is_some());
    let outcome = catch_unwind(AssertUnwindSafe(|| -> Outcome {
        world.begin()?;
        for (index, step) in steps.iter().enumerate() {
            world
                .step(*step)
                .map_err(|what| format!("step {index}, {step:?}: {what}"))?;
        }
        world.end().map_err(|what| format!("at the end: {what}"))
    }));
    if let (Some(trace), Some(taken)) = (trace, world.trace.take()) {
        *trace = taken;
    }
    outcome.unwrap_or_else(|_| Err("a panic".to_owned()))
}

/// What went wrong, without place and numbers.
fn kind(what: &str) -> String {
    let what = what.rsplit_once("): ").map_or(what, |(_, what)| what);
    let what = what.strip_prefix("at the end: ").unwrap_or(what);
    what.chars()
        .filter(|character| !character.is_ascii_digit())
        .take(25)
        .collect()
}

/// Leaves out what is not needed for a history to fail so.
fn shrink(mut steps: Vec<Step>, beginning: &Beginning, failure: &str) -> Vec<Step> {
    let mut size = steps.len().div_ceil(2);
    while size > 0 {
        let mut index = 0;
        let mut shorter = false;
        while index < steps.len() {
            let mut without = steps.clone();
            without.drain(index..(index + size).min(steps.len()));
            if run(&without, beginning, None).is_err_and(|what| kind(&what) == kind(failure)) {
                steps = without;
                shorter = true;
            } else {
                index += size;
            }
        }
        if !shorter || size > 1 {
            size /= 2;
        }
    }
    steps
}

/// Runs a history once more with as few steps as it takes, and shows them.
fn explain(seed: u64) -> String {
    let (steps, beginning) = plan(seed);
    let first = run(&steps, &beginning, None);
    let steps = match &first {
        Err(failure) => shrink(steps, &beginning, failure),
        Ok(()) => steps,
    };
    let mut trace = Vec::new();
    let result = run(&steps, &beginning, Some(&mut trace));
    format!(
        "{}\nseed {seed}: {first:?}\n{} steps of it: {result:?}",
        trace.join("\n"),
        steps.len()
    )
}

fn histories(seeds: impl Fn(u64) -> Option<u64> + Sync) -> u64 {
    let (next, failed) = (AtomicU64::new(0), Mutex::new(Vec::new()));
    let threads = thread::available_parallelism().map_or(1, |count| count.get());
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(seed) = seeds(index) else { break };
                    let (steps, beginning) = plan(seed);
                    if let Err(what) = run(&steps, &beginning, None) {
                        let mut failed = failed.lock().expect("not poisoned");
                        failed.push((seed, what));
                        // Enough to look at.
                        if failed.len() >= 10 {
                            break;
                        }
                    }
                }
            });
        }
    });
    let mut failed = failed.into_inner().expect("not poisoned");
    failed.sort_unstable();
    for (seed, what) in &failed {
        println!("seed {seed}: {what}");
    }
    if let Some((seed, _)) = failed.first() {
        panic!("{}", explain(*seed));
    }
    next.into_inner()
}

#[test]
fn no_history_sets_the_log_and_the_model_apart() {
    if let Some(seed) = variable("MILENA_LOG_SEED") {
        println!("{}", explain(seed));
        return;
    }
    let first = variable("MILENA_LOG_FIRST_SEED").unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        // Far apart, so that no two runs have seeds in common.
        now.unwrap_or_default().as_secs() << 24
    });
    let count = variable("MILENA_LOG_HISTORIES").unwrap_or(HISTORIES);
    // Logs are compacted in every other one, and of both kinds every other one has transactions.
    let flags = |index| (COMPACTING * (index % 2)) | (TRANSACTING * (index / 2 % 2));
    let seed = |index| (first.wrapping_add(index) & !(COMPACTING | TRANSACTING)) | flags(index);
    histories(|index| (index < count).then(|| seed(index)));
    println!("{count} histories from seed {first}");
}

/// Each line has a seed, and what it has found.
#[test]
fn what_was_found_once_stays_away() {
    let lines = include_str!("regressions.txt").lines();
    let seeds: Vec<u64> = lines
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .map(|line| {
            line.split(' ')
                .next()
                .expect("a seed")
                .parse()
                .expect("a seed")
        })
        .collect();
    histories(|index| seeds.get(index as usize).copied());
}
