//! A crash after every single system call.
//!
//! A script goes once through what a log does: first start, idempotent producers, rolls,
//! checkpoints, snapshots, deleted records, a topic that is created and deleted, a clean stop and
//! the start after it, the commits of a model topic whose outputs go to other partitions than its
//! inputs, with a second model topic chained to it, and compactions of a keyed topic and of the
//! changelogs. The disk writes down every call. Then, for
//! each of them, what a crash right after it may leave is put into a folder and started from:
//! everything that was not durable kept (`kill -9`), nothing of it, and random parts of it. These
//! starts are crashed in turn, at a random call of theirs; after a `kill -9` what was not durable may
//! be lost then.
//!
//! Each start has to find: what was acknowledged as durable, nothing that was never written, no
//! gap, nothing out of order; indexes that lead to every record; producers that can go on and are
//! told of their duplicates; of the compacted topic the newest value of each key, and no older one; and,
//! once the model topics have caught up, one output for each input. Then it compacts what there is, and
//! finds the same.
//!
//! `MILENA_CRASH_IMAGES` is how many random images are made of each point, 1 where it is not set.

mod restart;
mod script;
mod state;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use faulty_disk::{FaultyDisk, Image, Journal, Keep, Random, Tree, write_tree};
use storage::Offset;
use tempfile::TempDir;

pub(super) use self::state::compact_all;

use self::restart::Restart;
use self::script::{Promise, Script};
use super::world::{PARTITIONS, World, specs};

const CHAINED: &str = "
    [[model_topic]]
    name = 'scored'
    input = 'transactions'
    model = 'fraud'

    [[model_topic]]
    name = 'alerts'
    input = 'scored'
    model = 'fraud'
";
/// What was appended in all.
struct Ends {
    /// By partition.
    inputs: BTreeMap<i32, Offset>,
    state: Offset,
}

/// A crash to be tried: after so many calls, with that left.
struct Case {
    calls: usize,
    what: String,
    keep: Keep,
    tree: Tree,
    /// After a `kill -9`: what of the tree is durable.
    image: Option<Image>,
}

/// What the crashes after each call may leave. What is the same as after the call before, and has
/// no more to keep, is not tried again.
fn cases(journal: &Journal, promises: &[Promise], subsets: u64) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    let mut last: BTreeMap<String, (usize, Tree)> = BTreeMap::new();
    let mut images = journal.images();
    while let Some((calls, what, image)) = images.next() {
        let random = (0..subsets).map(|n| Keep::Some(calls as u64 * 1000 + n));
        for keep in [Keep::All, Keep::None].into_iter().chain(random) {
            let tree = image.tree(keep);
            let kind = match keep {
                Keep::Some(seed) => format!("some {}", seed % 1000),
                other => format!("{other:?}"),
            };
            let kept = promises
                .iter()
                .filter(|promise| promise.since <= calls)
                .count();
            if last
                .get(&kind)
                .is_some_and(|(promises, same)| *promises == kept && *same == tree)
            {
                continue;
            }
            last.insert(kind, (kept, tree.clone()));
            cases.push(Case {
                calls,
                what: what.to_owned(),
                keep,
                tree,
                image: (keep == Keep::All).then(|| image.clone()),
            });
        }
    }
    cases
}

async fn try_case(case: &Case, promises: &[Promise], ends: &Ends) {
    let kept = promises
        .iter()
        .filter(|promise| promise.since <= case.calls);
    let mut kept: Vec<Promise> = kept.cloned().collect();
    let (journal, promised) = restart(case, &kept, ends).await;
    let mut random = Random::new(match case.keep {
        Keep::Some(seed) => seed,
        Keep::All => case.calls as u64,
        // As `Keep::Some` may be.
        Keep::None => return,
    });
    let crashed = random.below(journal.len() as u64 + 1) as usize;
    let mut images = journal.images();
    while let Some((calls, what, image)) = images.next() {
        if calls == crashed {
            let keep = match random.below(2) {
                0 => Keep::None,
                _ => Keep::Some(random.next()),
            };
            let again = Case {
                calls,
                what: what.to_owned(),
                keep,
                tree: image.tree(keep),
                image: None,
            };
            let since = |promise: &Promise| promise.since <= crashed;
            kept.extend(promised.into_iter().filter(since));
            let place = Place("its start", &again);
            restart(&again, &kept, ends).await;
            place.left();
            return;
        }
    }
}

/// Starts from what is left, and checks.
async fn restart(case: &Case, kept: &[Promise], ends: &Ends) -> (Journal, Vec<Promise>) {
    let folder = scratch();
    let killed = case
        .image
        .as_ref()
        .map(|image| FaultyDisk::after_kill(image, folder.path()));
    if killed.is_none() {
        write_tree(&case.tree, folder.path()).unwrap();
    }
    let mut world = World::over(folder, specs(CHAINED));
    if let Some(disk) = killed {
        world.disk = disk;
    }
    world.disk.record();
    let mut restart = Restart { world, kept, ends };
    restart.check().await
}

/// A folder in memory, where the system has one: thousands of images are written.
fn scratch() -> TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap())
}

fn random_images() -> u64 {
    std::env::var("MILENA_CRASH_IMAGES").map_or(1, |images| images.parse().expect("a number"))
}

#[test]
fn a_crash_after_any_system_call_loses_nothing() {
    let runtime = || {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap()
    };
    let (journal, promises, ends) = runtime().block_on(async {
        let world = World::over(scratch(), specs(CHAINED));
        world.disk.record();
        let mut script = Script::new(world);
        script.run().await;
        let inputs = (0..PARTITIONS)
            .map(|partition| {
                let log = script.world.partition("transactions", partition);
                (partition, log.offsets().log_end_offset)
            })
            .collect();
        let state = state::log(&script.world).map_or(0, |log| log.offsets().log_end_offset);
        let ends = Ends { inputs, state };
        (script.world.disk.journal(), script.promises, ends)
    });
    let cases = cases(&journal, &promises, random_images());
    println!("{} system calls, {} images", journal.len(), cases.len());
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let runtime = runtime();
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let place = Place("the script", case);
                    runtime.block_on(try_case(case, &promises, &ends));
                    place.left();
                }
            });
        }
    });
}

/// Says where it was when a check fails.
struct Place<'a>(&'static str, &'a Case);

impl Place<'_> {
    /// All is well.
    fn left(self) {
        std::mem::forget(self);
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let Self(of, case) = self;
        let Case {
            calls, what, keep, ..
        } = case;
        eprintln!("crashed after {calls} calls of {of}, the last of them {what}, keeping {keep:?}");
        for (path, content) in &case.tree {
            let bytes = content.as_ref().map_or(0, Vec::len);
            eprintln!("    {bytes:>6} {}", path.display());
        }
    }
}
