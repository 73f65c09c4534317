//! The transaction coordinator itself, crashed after every single system call.
//!
//! A script goes through transactions of both versions: partitions and a group's offsets are added and
//! written, transactions are committed, aborted, and left open, one producer fences another. The disk
//! writes down every call. Then, for each of them, what a crash right after it may leave is put into a
//! folder and started from: everything that was not durable kept (`kill -9`), nothing of it (a power cut),
//! and random parts of it.
//!
//! Each start has to come to rest: no last stable offset hangs, no offset stays pending; every transaction
//! is there as a whole, in all its partitions and in the group's offsets, or not at all; what was said to be
//! committed is there, and what was aborted is not; and the producer can go on.

mod broker_parts;
mod script;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use broker_parts::{Parts, scratch};
use faulty_disk::{FaultyDisk, Image, Journal, Keep, Tree, write_tree};
use script::{Ended, Script};

/// Random images of each point.
const RANDOM_IMAGES: u64 = 2;

/// A crash to be tried: after so many calls, with that left.
struct Case {
    calls: usize,
    what: String,
    keep: Keep,
    tree: Tree,
    /// After a `kill -9`: what of the tree is durable.
    image: Option<Image>,
}

/// What the crashes after each call may leave. What is the same as after the call before is not tried
/// again.
fn cases(journal: &Journal, ended: &[Ended]) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    let mut last: BTreeMap<u64, (usize, Tree)> = BTreeMap::new();
    let mut images = journal.images();
    while let Some((calls, what, image)) = images.next() {
        let random = (0..RANDOM_IMAGES).map(|n| (n + 2, Keep::Some(calls as u64 * 1000 + n)));
        for (kind, keep) in [(0, Keep::All), (1, Keep::None)].into_iter().chain(random) {
            let tree = image.tree(keep);
            let kept = ended.iter().filter(|ended| ended.since <= calls).count();
            let same = last.insert(kind, (kept, tree.clone()));
            if same.is_some_and(|same| same == (kept, tree.clone())) {
                continue;
            }
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

async fn try_case(case: &Case, script: &Script) {
    let folder = scratch();
    let disk = match &case.image {
        Some(image) => FaultyDisk::after_kill(image, folder.path()),
        None => {
            write_tree(&case.tree, folder.path()).unwrap();
            FaultyDisk::over(folder.path())
        }
    };
    let parts = Parts::open(folder.path(), disk).await;
    let kept = script.ended.iter();
    let kept = kept.filter(|ended| ended.since <= case.calls);
    script.check(&parts, kept).await;
}

/// Says where it was when a check fails.
struct Place<'a>(&'a Case);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Case {
                calls, what, keep, ..
            } = self.0;
            eprintln!("crashed after {calls} calls, the last of them {what}, keeping {keep:?}");
        }
    }
}

#[test]
fn a_crash_after_any_system_call_leaves_every_transaction_whole() {
    let runtime = || {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap()
    };
    let (journal, script) = runtime().block_on(async {
        let folder = scratch();
        let disk = FaultyDisk::over(folder.path());
        disk.record();
        let parts = Parts::open(folder.path(), disk.clone()).await;
        let mut script = Script::default();
        script.run(&parts, &disk).await;
        (disk.journal(), script)
    });
    let cases = cases(&journal, &script.ended);
    println!("{} system calls, {} images", journal.len(), cases.len());
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let runtime = runtime();
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let _place = Place(case);
                    runtime.block_on(try_case(case, &script));
                }
            });
        }
    });
}
