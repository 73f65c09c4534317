//! Where a model topic begins that has never committed.

use std::collections::BTreeMap;

use inference::stream_log::{Error, StreamLog, Task};

use super::world::{CRASHES, Crash, NoState, Runner, SCORED, World, failing, scored, value};
use crate::catalog::{ConfigChange, ConfigOperation, ConfigTarget};
use faulty_disk::Call;

const LATEST: &str = "
    [[model_topic]]
    name = 'scored'
    input = 'transactions'
    model = 'fraud'
    start = 'latest'
";
const TASK: Task = Task { partition: 0 };

/// The position of input 0 that is in memory.
fn committed(log: &super::super::embedded::EmbeddedLog) -> usize {
    log.positions().lock().unwrap().len()
}

#[tokio::test]
async fn latest_is_written_down_before_it_is_used() {
    for crash in CRASHES {
        let mut world = World::new(LATEST).await;
        // Not on the disk yet: the position names it, so it has to be first.
        world.append("transactions", 0, 0..5);
        let runner = Runner::start(world.log("scored")).await;
        assert_eq!((runner.positions[&0], runner.positions[&1]), (5, 0));
        drop(runner);

        world.crash(crash).await;
        let inputs: Vec<String> = (0..5).map(value).collect();
        assert_eq!(world.values("transactions", 0), inputs, "{crash:?}");
        world.append_synced("transactions", 0, 5..7).await;
        world.append_synced("transactions", 1, 0..2).await;
        let mut runner = Runner::start(world.log("scored")).await;
        assert_eq!((runner.positions[&0], runner.positions[&1]), (5, 0));
        runner.run(0, 7).await.unwrap();
        runner.run(1, 2).await.unwrap();
        assert_eq!(world.values("scored", 0), scored(5..7));
        assert_eq!(world.values("scored", 1), scored(0..2));
    }
}

#[tokio::test]
async fn latest_is_not_used_where_it_was_not_written_down() {
    let mut world = World::new(LATEST).await;
    world.append_synced("transactions", 0, 0..5).await;
    let log = world.log("scored");
    world
        .disk
        .fail(failing(Call::Write, "scored.changelog-0", ".log").once());
    let error = log.restore(TASK, &mut NoState).await.unwrap_err();
    assert!(matches!(error, Error::Retry(_)), "{error}");
    assert_eq!(committed(&log), 0);

    world
        .disk
        .fail(failing(Call::Sync, "scored.changelog-0", ".log").once());
    let error = log.restore(TASK, &mut NoState).await.unwrap_err();
    assert!(matches!(error, Error::Fatal(_)), "{error}");
    assert_eq!(committed(&log), 0);
    drop(log);

    world.crash(Crash::PowerCut).await;
    world.append_synced("transactions", 0, 5..6).await;
    let positions = Runner::start(world.log("scored")).await.positions;
    assert_eq!(positions[&0], 6, "nothing was promised before");
}

#[tokio::test]
async fn latest_is_where_it_was_at_the_first_restore() {
    let world = World::new(LATEST).await;
    world.append_synced("transactions", 0, 0..5).await;
    let log = world.log("scored");
    for end in 5..8 {
        let positions = log.restore(TASK, &mut NoState).await.unwrap();
        assert_eq!(positions[&0], 5);
        world.append_synced("transactions", 0, end..end + 1).await;
    }
}

/// The end of an input that no changelog vouches for means nothing.
#[tokio::test]
async fn latest_waits_for_an_input_that_is_not_readable() {
    let mut world = World::new(&format!(
        "{SCORED}
        [[model_topic]]
        name = 'late'
        input = 'scored'
        model = 'fraud'
        start = 'latest'"
    ))
    .await;
    world.append_synced("transactions", 0, 0..3).await;
    let mut runner = Runner::start(world.log("scored")).await;
    runner.run(0, 3).await.unwrap();
    drop(runner);

    world.end(Crash::Kill);
    world
        .disk
        .fail(failing(Call::Sync, "scored.changelog-0", ".log").once());
    world.open().await;
    let log = world.log("late");
    let error = log.restore(TASK, &mut NoState).await.unwrap_err();
    assert!(matches!(error, Error::Retry(_)), "{error}");
    drop(log);

    world.crash(Crash::Kill).await;
    let positions = Runner::start(world.log("late")).await.positions;
    assert_eq!(positions[&0], 3);
}

/// Changelogs that were created before there was compaction have the segments of any topic.
#[tokio::test]
async fn a_changelog_gets_small_segments() {
    let mut world = World::new(SCORED).await;
    let own = |world: &World| {
        let changelog = world.topic("scored.changelog");
        let bytes = changelog.configs.get("segment.bytes").cloned();
        (bytes, changelog.config.log.segment_bytes)
    };
    let small = (Some("16777216".to_owned()), 16 << 20);
    assert_eq!(own(&world), small);
    let plain = BTreeMap::from([("segment.bytes".to_owned(), ConfigOperation::Delete)]);
    let changelog = ConfigTarget::Topic("scored.changelog".to_owned());
    let altered = world
        .catalog()
        .alter_configs(changelog, ConfigChange::Each(plain), false);
    altered.await.unwrap();
    assert_eq!(own(&world), (None, 1 << 30));
    world.crash(Crash::Kill).await;
    assert_eq!(own(&world), small);
}
