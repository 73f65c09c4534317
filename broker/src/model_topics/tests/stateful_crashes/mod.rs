//! A crash after every single system call of model topics that remember.
//!
//! Payments of a few customers come in two partitions, some of them no JSON and some without a customer. A model topic brings
//! them to their customers, counts and sums, scores them with a real model, raises alerts by a rule and has dead letters; a
//! second one reads its output and counts too. The whole registry runs, as in a broker, over a disk that writes down every
//! call; there are clean stops and compactions of the changelogs in between. Then, for each call, what a crash right after
//! it may leave is started from.
//!
//! Each start has to find what consumers had seen, and, once all has been caught up with: one output or dead letter for each
//! payment that is there; the counts of each customer 1, 2, 3, … in the order of the outputs, and its sums, so that state and
//! outputs belong together and nothing is lost, doubled or half applied; an alert for each output that the rule is for; of
//! each output one of the second model topic. Then more payments come, and it has to hold again.
//!
//! `MILENA_STATEFUL_CRASHES` is how many of the points are tried: one in so many, 9 where it is not set.

mod house;
mod payments;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use faulty_disk::{FaultyDisk, Image, Keep, write_tree};
use tempfile::TempDir;

use house::{House, Seen};
use payments::Payment;

/// What was durable, or seen, after so many system calls.
struct Promise {
    since: usize,
    /// By partition, how many payments.
    payments: BTreeMap<i32, i64>,
    seen: Seen,
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap()
}

/// A folder in memory, where the system has one.
fn scratch() -> TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap())
}

async fn run(disk: &FaultyDisk, folder: &TempDir, promises: &mut Vec<Promise>) {
    let mut ends = BTreeMap::from([(0, 0), (1, 0)]);
    let mut life = 0;
    while life < 3 {
        let house = House::open(folder.path(), disk).await;
        for round in 0..3 {
            for partition in 0..2 {
                let end = ends.get_mut(&partition).unwrap();
                let more = 4 + (round + partition as i64) % 3;
                house.produce(partition, *end..*end + more).await;
                *end += more;
            }
            if round != 1 {
                house.caught_up(&ends).await;
            }
            promises.push(Promise {
                since: disk.recorded(),
                payments: ends.clone(),
                seen: house.seen(),
            });
        }
        house.compact();
        house.close().await;
        life += 1;
    }
}

async fn try_crash(calls: usize, what: &str, image: &Image, keep: Keep, promises: &[Promise]) {
    let folder = scratch();
    let disk = match keep {
        Keep::All => FaultyDisk::after_kill(image, folder.path()),
        _ => {
            write_tree(&image.tree(keep), folder.path()).unwrap();
            FaultyDisk::over(folder.path())
        }
    };
    let told = Told(format!(
        "crashed after {calls} calls, the last of them {what}, keeping {keep:?}"
    ));
    let house = House::open(folder.path(), &disk).await;
    let kept = promises.iter().rev().find(|promise| promise.since <= calls);
    let mut ends = house.ends();
    if let Some(kept) = kept {
        for (partition, payments) in &kept.payments {
            assert!(ends[partition] >= *payments, "payments are lost: {ends:?}");
        }
        house.check_seen(&kept.seen);
    }
    house.caught_up(&ends).await;
    house.check(&ends);
    for partition in 0..2 {
        let end = ends.get_mut(&partition).unwrap();
        house.produce(partition, *end..*end + 3).await;
        *end += 3;
    }
    house.caught_up(&ends).await;
    house.check(&ends);
    house.close().await;
    std::mem::forget(told);
}

/// Says where it was when a check fails.
struct Told(String);

impl Drop for Told {
    fn drop(&mut self) {
        eprintln!("{}", self.0);
    }
}

#[test]
fn a_crash_of_stateful_model_topics_loses_doubles_and_halves_nothing() {
    let every = std::env::var("MILENA_STATEFUL_CRASHES");
    let every: usize = every.map_or(9, |every| every.parse().expect("a number"));
    let mut promises = Vec::new();
    let journal = runtime().block_on(async {
        let folder = scratch();
        let disk = FaultyDisk::over(folder.path());
        disk.record();
        run(&disk, &folder, &mut promises).await;
        disk.journal()
    });
    let mut cases = Vec::new();
    let mut images = journal.images();
    while let Some((calls, what, image)) = images.next() {
        for (number, keep) in [Keep::All, Keep::None, Keep::Some(calls as u64)]
            .into_iter()
            .enumerate()
        {
            if (3 * calls + number).is_multiple_of(every) {
                cases.push((calls, what.to_owned(), image.clone(), keep));
            }
        }
    }
    println!("{} system calls, {} crashes", journal.len(), cases.len());
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let runtime = runtime();
                while let Some((calls, what, image, keep)) =
                    cases.get(next.fetch_add(1, Ordering::Relaxed))
                {
                    runtime.block_on(try_crash(*calls, what, image, *keep, &promises));
                }
            });
        }
    });
}

#[test]
fn the_check_sees_what_is_wrong() {
    let runtime = runtime();
    runtime.block_on(async {
        let folder = scratch();
        let disk = FaultyDisk::over(folder.path());
        let house = House::open(folder.path(), &disk).await;
        let ends = BTreeMap::from([(0, 12), (1, 12)]);
        for partition in 0..2 {
            house.produce(partition, 0..12).await;
        }
        house.caught_up(&ends).await;
        house.check(&ends);
        let outputs = house.outputs("scored");
        let lost = outputs[1..].to_vec();
        let mut doubled = outputs.clone();
        doubled.push(outputs[0].clone());
        let mut miscounted = outputs.clone();
        miscounted[0].n += 1.0;
        let dead: Vec<Payment> = Vec::new();
        for wrong in [lost, doubled, miscounted] {
            let found = payments::check(&ends, &wrong, &house.dead());
            assert!(found.is_err());
        }
        assert!(payments::check(&ends, &outputs, &dead).is_err());
        house.close().await;
    });
}
