//! A changelog that was compacted says what it said before.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use storage::compaction::{Compactor, CompactorConfig, Throttle};
use storage::partition_log::ReadLimit;

use super::super::changelog;
use super::world::{CRASHES, Crash, Runner, SCORED, World, records, scored};
use crate::catalog::{ConfigChange, ConfigTarget};

const COMMITS: usize = 60;
const RECORDS: usize = 3;

/// Compacts whatever is due; returns how many passes that took.
async fn compact(world: &World) -> usize {
    let log_dir = Arc::clone(world.log_dir());
    let work = move || {
        let (throttle, stop) = (Throttle::new(None), AtomicBool::new(false));
        let mut compactor =
            Compactor::new(CompactorConfig::default(), throttle.into(), stop.into());
        let mut passes = 0;
        while let Some(pass) = log_dir.compact_next(&mut compactor) {
            pass.outcome.unwrap();
            passes += 1;
        }
        passes
    };
    tokio::task::spawn_blocking(work).await.unwrap()
}

#[tokio::test]
async fn a_changelog_that_was_compacted_says_the_same() {
    for crash in CRASHES {
        let mut world = World::new(SCORED).await;
        let configs = [
            ("cleanup.policy", "compact"),
            ("internal.segment.bytes", "1000"),
            ("segment.bytes", "16777216"),
            ("min.cleanable.dirty.ratio", "0.01"),
        ];
        let configs = configs.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let small = ConfigChange::Replace(BTreeMap::from(configs));
        let target = ConfigTarget::Topic("scored.changelog".to_owned());
        let altered = world.catalog().alter_configs(target, small, false);
        altered.await.unwrap();
        let commit = async |world: &World, commits: std::ops::Range<usize>| {
            let mut runner = Runner::start(world.log("scored")).await;
            for n in commits {
                let numbers = n * RECORDS..(n + 1) * RECORDS;
                let end = numbers.end as i64;
                world.append_synced("transactions", 0, numbers).await;
                runner.run(0, end).await.unwrap();
            }
        };
        let committed = |world: &World| {
            let changelog = &world.topics("scored").changelog;
            let committed = changelog::replay(changelog).unwrap();
            let records = records(changelog, ReadLimit::LogEnd).unwrap().len();
            (committed, records)
        };
        commit(&world, 0..COMMITS).await;
        let (before, all) = committed(&world);
        assert!(compact(&world).await >= 1);
        let (after, left) = committed(&world);
        assert_eq!(after, before);
        assert!(left < all / 3, "{left} of {all}");

        world.crash(crash).await;
        assert!(world.recovered().failed.is_empty());
        assert_eq!(world.values("scored", 0), scored(0..COMMITS * RECORDS));
        // It goes on, and is compacted again behind a start.
        commit(&world, COMMITS..2 * COMMITS).await;
        assert!(compact(&world).await >= 1);
        world.crash(Crash::Kill).await;
        assert_eq!(world.values("scored", 0), scored(0..2 * COMMITS * RECORDS));
        let runner = Runner::start(world.log("scored")).await;
        assert_eq!(runner.positions[&0], (2 * COMMITS * RECORDS) as i64);
    }
}
