//! A crash at each step of a commit: one output for each input in the end.

use std::sync::Arc;

use inference::stream_log::Commit;
use storage::Offset;

use super::world::{CRASHES, Crash, Runner, SCORED, World, scored, synced, value};

/// Three inputs are committed, and three more are read.
async fn half_done(world: &mut World) -> (Runner, Arc<[Commit]>) {
    world.append_synced("transactions", 0, 0..3).await;
    let mut runner = Runner::start(world.log("scored")).await;
    runner.run(0, 3).await.unwrap();
    world.append_synced("transactions", 0, 3..6).await;
    let commits = runner.read(0, 6).await;
    assert_eq!(world.values("scored", 0), scored(0..3));
    (runner, commits)
}

/// From `position` on to the end.
async fn finish(world: &World, position: Offset) {
    let mut runner = Runner::start(world.log("scored")).await;
    assert_eq!(runner.positions[&0], position);
    if position < 6 {
        runner.run(0, 6).await.unwrap();
    }
    assert_eq!(world.values("scored", 0), scored(0..6));
    // And on from there.
    world.append_synced("transactions", 0, 6..8).await;
    runner.run(0, 8).await.unwrap();
    assert_eq!(world.values("scored", 0), scored(0..8));
}

#[tokio::test]
async fn before_the_changelog_the_commit_is_taken_back() {
    for crash in CRASHES {
        let mut world = World::new(SCORED).await;
        let (runner, commits) = half_done(&mut world).await;
        let end = world.stage("scored", &commits[0]).await;
        assert_eq!(end, 6);
        assert_eq!(world.values("scored", 0), scored(0..3), "{crash:?}");
        drop(runner);

        world.crash(crash).await;
        assert_eq!(world.values("scored", 0), scored(0..3), "{crash:?}");
        let offsets = world.partition("scored", 0).offsets();
        assert_eq!((offsets.high_watermark, offsets.log_end_offset), (3, 3));
        finish(&world, 3).await;
    }
}

#[tokio::test]
async fn after_the_changelog_the_commit_is_published() {
    for crash in CRASHES {
        let mut world = World::new(SCORED).await;
        let (runner, commits) = half_done(&mut world).await;
        let end = world.stage("scored", &commits[0]).await;
        world.write_changelog("scored", &commits[0], end);
        synced(&world.topics("scored").changelog).await;
        assert_eq!(world.values("scored", 0), scored(0..3), "{crash:?}");
        drop(runner);

        world.crash(crash).await;
        assert_eq!(world.values("scored", 0), scored(0..6), "{crash:?}");
        finish(&world, 6).await;
    }
}

/// A power cut in the middle of the changelog's write: the batch is whole or it is not there.
#[tokio::test]
async fn half_a_changelog_batch_is_none() {
    let mut world = World::new(SCORED).await;
    let (runner, commits) = half_done(&mut world).await;
    let end = world.stage("scored", &commits[0]).await;
    world.write_changelog("scored", &commits[0], end);
    drop(runner);
    world.end(Crash::Kill);
    let segment = "scored.changelog-0/00000000000000000000.log";
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(world.disk_path().join(segment))
        .unwrap();
    file.set_len(file.metadata().unwrap().len() - 7).unwrap();

    world.open().await;
    assert_eq!(world.values("scored", 0), scored(0..3));
    finish(&world, 3).await;
}

/// The first crash leaves a changelog batch that no sync has seen. What the start makes of it,
/// consumers see, so that a second crash must not take it back.
#[tokio::test]
async fn what_a_start_has_published_survives_a_power_cut() {
    let mut world = World::new(SCORED).await;
    let (runner, commits) = half_done(&mut world).await;
    let end = world.stage("scored", &commits[0]).await;
    world.write_changelog("scored", &commits[0], end);
    drop(runner);

    world.crash(Crash::Kill).await;
    assert_eq!(world.values("scored", 0), scored(0..6));
    world.crash(Crash::PowerCut).await;
    assert_eq!(world.values("scored", 0), scored(0..6));
    finish(&world, 6).await;
}

/// Inputs that were acknowledged before they were on the disk are there as far as a position says.
#[tokio::test]
async fn a_power_cut_takes_no_input_below_a_position() {
    let mut world = World::new(SCORED).await;
    world.append("transactions", 0, 0..3);
    let mut runner = Runner::start(world.log("scored")).await;
    runner.run(0, 3).await.unwrap();
    world.append("transactions", 0, 3..5);
    drop(runner);

    world.crash(Crash::PowerCut).await;
    let inputs: Vec<String> = (0..3).map(value).collect();
    assert_eq!(world.values("transactions", 0), inputs);
    assert_eq!(world.values("scored", 0), scored(0..3));
    world.append_synced("transactions", 0, 3..6).await;
    finish(&world, 3).await;
}

#[tokio::test]
async fn many_crashes_leave_one_output_for_each_input() {
    let mut world = World::new(SCORED).await;
    for round in 0..12 {
        let from = round * 5;
        world.append_synced("transactions", 1, from..from + 5).await;
        let mut runner = Runner::start(world.log("scored")).await;
        let committed = runner.positions[&1] as usize;
        assert_eq!(world.values("scored", 1), scored(0..committed));
        runner.run(1, from as i64 + 5).await.unwrap();
        world.append_synced("transactions", 0, from..from + 5).await;
        // What is staged for partition 0 and what is committed for partition 1 don't touch.
        let commits = runner.read(0, from as i64 + 5).await;
        let end = world.stage("scored", &commits[0]).await;
        if round % 3 == 1 {
            world.write_changelog("scored", &commits[0], end);
        }
        drop(runner);
        world.crash(CRASHES[round % 2]).await;
    }
    let mut runner = Runner::start(world.log("scored")).await;
    for partition in 0..2 {
        runner.run(partition, 60).await.unwrap();
        assert_eq!(world.values("scored", partition), scored(0..60));
    }
}
