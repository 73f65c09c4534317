//! Faults of the disk in the middle of a commit, and what others see meanwhile.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use inference::stream_log::{
    Commit, CommitError, OutputTopic, Positions, StateSink, StreamLog, Task,
};
use storage::partition_log::ReadLimit;

use super::world::{
    CRASHES, Crash, NoState, Runner, SCORED, World, failing, output, records, scored, value,
};
use faulty_disk::Call;

const CHANGELOG: &str = "scored.changelog-0";

/// The end of what consumers see, and of the log.
fn ends(world: &World, topic: &str) -> (i64, i64) {
    let offsets = world.partition(topic, 0).offsets();
    (offsets.high_watermark, offsets.log_end_offset)
}

/// Three inputs are there, and a runtime has read them.
async fn three_read(world: &World) -> (Runner, Arc<[Commit]>) {
    world.append_synced("transactions", 0, 0..3).await;
    let mut runner = Runner::start(world.log("scored")).await;
    let commits = runner.read(0, 3).await;
    (runner, commits)
}

#[tokio::test]
async fn a_refused_write_is_taken_back_and_tried_again() {
    for folder in [CHANGELOG, "scored-0", "scored.dlq-0"] {
        let mut world = World::new(SCORED).await;
        let (runner, commits) = three_read(&world).await;
        let mut commit = commits[0].clone();
        let dead = output(OutputTopic::DeadLetter, 0, Bytes::from("dead"));
        commit.outputs.push(dead);
        let commits = Arc::from([commit]);

        world.disk.fail(failing(Call::Write, folder, ".log"));
        for _ in 0..2 {
            let error = runner.commit(&commits).await.unwrap_err();
            assert!(matches!(error, CommitError::Retry(_)), "{folder}: {error}");
            assert!(error.to_string().contains("No space left"), "{error}");
            for topic in ["scored", "scored.dlq"] {
                assert_eq!(ends(&world, topic), (0, 0), "{folder}: {topic}");
            }
        }
        world.disk.heal();
        runner.commit(&commits).await.unwrap();
        drop(runner);

        for _ in 0..2 {
            assert_eq!(world.values("scored", 0), scored(0..3), "{folder}");
            assert_eq!(world.values("scored.dlq", 0), ["dead"], "{folder}");
            world.crash(Crash::PowerCut).await;
        }
        assert_eq!(Runner::start(world.log("scored")).await.positions[&0], 3);
    }
}

/// What the next start finds is one output for each input, whether the batch was there or not; and
/// a runtime that goes on all the same does no harm.
#[tokio::test]
async fn a_changelog_that_fails_to_sync_ends_it() {
    for crash in CRASHES {
        let mut world = World::new(SCORED).await;
        let (runner, commits) = three_read(&world).await;
        world
            .disk
            .fail(failing(Call::Sync, CHANGELOG, ".log").once());
        for _ in 0..2 {
            let error = runner.commit(&commits).await.unwrap_err();
            assert!(matches!(error, CommitError::Fatal(_)), "{error}");
            assert_eq!(world.values("scored", 0), scored(0..0));
        }
        drop(runner);

        world.crash(crash).await;
        let mut runner = Runner::start(world.log("scored")).await;
        let position = runner.positions[&0];
        assert_eq!(position, if crash == Crash::Kill { 3 } else { 0 });
        assert_eq!(world.values("scored", 0), scored(0..position as usize));
        runner.run(0, 3).await.unwrap();
        assert_eq!(world.values("scored", 0), scored(0..3));
    }
}

/// The batch may be in the changelog as a whole, so that its outputs must not go.
#[tokio::test]
async fn a_changelog_that_can_not_be_cut_back_ends_it() {
    let mut world = World::new(SCORED).await;
    let (runner, commits) = three_read(&world).await;
    let commit = |state: &[u8]| -> Arc<[Commit]> {
        let mut commit = commits[0].clone();
        commit.state = vec![(Bytes::from("key"), Some(Bytes::copy_from_slice(state)))];
        Arc::from([commit])
    };
    // An index entry is due after 4096 bytes, and 64 are written at a time.
    let first = Commit {
        outputs: Vec::new(),
        positions: Positions::from([(0, 0)]),
        ..commit(&[0; 8192])[0].clone()
    };
    for _ in 0..64 {
        let first = Arc::from([first.clone()]);
        runner.commit(&first).await.unwrap();
    }
    world.disk.fail(failing(Call::Write, CHANGELOG, ".index"));
    world.disk.fail(failing(Call::SetLen, CHANGELOG, ""));
    let error = runner.commit(&commit(&[1; 8192])).await.unwrap_err();
    assert!(matches!(error, CommitError::Fatal(_)), "{error}");
    assert_eq!(world.values("scored", 0), scored(0..0));
    drop(runner);

    world.crash(Crash::Kill).await;
    let mut runner = Runner::start(world.log("scored")).await;
    let position = runner.positions[&0];
    assert_eq!(world.values("scored", 0), scored(0..position as usize));
    runner.run(0, 3).await.unwrap();
    assert_eq!(world.values("scored", 0), scored(0..3));
}

#[tokio::test]
async fn an_input_or_an_output_that_fails_to_sync_ends_it() {
    for folder in ["transactions-0", "scored-0"] {
        let mut world = World::new(SCORED).await;
        world.append("transactions", 0, 0..3);
        let mut runner = Runner::start(world.log("scored")).await;
        let commits = runner.read(0, 3).await;
        world.disk.fail(failing(Call::Sync, folder, ".log").once());
        let error = runner.commit(&commits).await.unwrap_err();
        assert!(matches!(error, CommitError::Fatal(_)), "{folder}: {error}");
        assert_eq!(world.values("scored", 0), scored(0..0));
        let changelog = &world.topics("scored").changelog;
        assert_eq!(changelog.offsets().log_end_offset, 0, "{folder}");
        drop(runner);

        world.crash(Crash::Kill).await;
        let mut runner = Runner::start(world.log("scored")).await;
        assert_eq!(runner.positions[&0], 0);
        runner.run(0, 3).await.unwrap();
        assert_eq!(world.values("scored", 0), scored(0..3), "{folder}");
    }
}

#[tokio::test]
async fn consumers_see_nothing_that_is_staged() {
    let world = World::new(SCORED).await;
    let (runner, commits) = three_read(&world).await;
    let derived = world.partition("scored", 0);
    world.disk.hold(Call::Sync, CHANGELOG);
    let (committed, ()) = tokio::join!(runner.commit(&commits), async {
        let changelog = &world.topics("scored").changelog;
        while changelog.offsets().log_end_offset == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let offsets = derived.offsets();
        assert_eq!((offsets.high_watermark, offsets.log_end_offset), (0, 3));
        assert_eq!(offsets.last_stable_offset, 0);
        for limit in [ReadLimit::HighWatermark, ReadLimit::LastStableOffset] {
            assert_eq!(records(&derived, limit).unwrap(), []);
            let beyond = derived.read(1, 1 << 20, true, limit);
            let Err(storage::Error::OffsetOutOfRange { end: 0, .. }) = beyond else {
                panic!("{beyond:?}");
            };
        }
        world.disk.release();
    });
    committed.unwrap();
    assert_eq!(world.values("scored", 0), scored(0..3));
}

/// A model topic whose input is derived reads what is committed, and nothing else.
#[tokio::test]
async fn a_chained_model_topic_sees_nothing_that_is_staged() {
    let chained = "[[model_topic]]\nname = 'again'\ninput = 'scored'\nmodel = 'fraud'\n";
    let mut world = World::new(&format!("{SCORED}\n{chained}")).await;
    let (runner, commits) = three_read(&world).await;
    let mut chained = Runner::start(world.log("again")).await;
    world.stage("scored", &commits[0]).await;
    let poll = chained.log.poll(1 << 20);
    assert!(
        tokio::time::timeout(Duration::from_millis(100), poll)
            .await
            .is_err()
    );
    // The commit begins by cutting off what somebody has left there.
    runner.commit(&commits).await.unwrap();
    chained.run(0, 3).await.unwrap();
    drop((runner, chained));
    world.crash(Crash::PowerCut).await;
    assert_eq!(world.values("scored", 0), scored(0..3));
    let again: Vec<String> = (0..3)
        .map(|number| format!("scored scored {}", value(number)))
        .collect();
    assert_eq!(world.values("again", 0), again);
}

#[tokio::test]
async fn model_topics_do_not_wait_for_each_other() {
    let other = "[[model_topic]]\nname = 'other'\ninput = 'transactions'\nmodel = 'fraud'\n";
    let world = World::new(&format!("{SCORED}\n{other}")).await;
    let (runner, commits) = three_read(&world).await;
    let mut other = Runner::start(world.log("other")).await;
    for (number, held) in ["scored-0", CHANGELOG].into_iter().enumerate() {
        world
            .append_synced("transactions", 1, number..number + 1)
            .await;
        world.disk.hold(Call::Sync, held);
        let slow = runner.commit(&commits);
        tokio::pin!(slow);
        let end = number as i64 + 1;
        tokio::select! {
            biased;
            result = &mut slow => panic!("{result:?} while its disk is held"),
            result = other.run(1, end) => result.unwrap(),
        }
        world.disk.release();
        slow.await.unwrap();
    }
    assert_eq!(
        world.values("scored", 0),
        [scored(0..3), scored(0..3)].concat()
    );
    assert_eq!(world.values("other", 1), scored(0..2));
}

/// The caller goes away in the middle of a commit: it is done all the same, and once.
#[tokio::test]
async fn a_commit_goes_on_without_its_caller() {
    let world = World::new(SCORED).await;
    let (mut runner, commits) = three_read(&world).await;
    world.disk.hold(Call::Sync, "scored-0");
    let commit = runner.log.commit(commits.clone());
    let gone = tokio::time::timeout(Duration::from_millis(50), commit).await;
    assert!(gone.is_err(), "its disk is held");
    world.disk.release();
    world.append_synced("transactions", 0, 3..5).await;
    runner.run(0, 5).await.unwrap();
    assert_eq!(world.values("scored", 0), scored(0..5));
}

#[tokio::test]
async fn a_commit_may_be_empty() {
    let world = World::new(SCORED).await;
    let (mut runner, commits) = three_read(&world).await;
    let empty = Commit {
        task: Task { partition: 0 },
        outputs: Vec::new(),
        state: Vec::new(),
        positions: Positions::new(),
    };
    runner.commit(&Arc::from([])).await.unwrap();
    runner.commit(&Arc::from([empty])).await.unwrap();
    let changelog = &world.topics("scored").changelog;
    assert_eq!(changelog.offsets().log_end_offset, 0);
    runner.commit(&commits).await.unwrap();
    world.append_synced("transactions", 0, 3..4).await;
    runner.run(0, 4).await.unwrap();
    assert_eq!(world.values("scored", 0), scored(0..4));
}

#[tokio::test]
async fn state_that_was_refused_is_not_restored() {
    struct Keys(Vec<Vec<u8>>);
    impl StateSink for Keys {
        fn put(&mut self, key: &[u8], _value: Option<&[u8]>) {
            self.0.push(key.to_vec());
        }
    }
    let world = World::new(SCORED).await;
    let (runner, commits) = three_read(&world).await;
    let mut commit = commits[0].clone();
    commit.state = vec![(Bytes::from("key"), Some(Bytes::from("value")))];
    world
        .disk
        .fail(failing(Call::Write, CHANGELOG, ".log").once());
    let task = commit.task;
    runner.commit(&Arc::from([commit])).await.unwrap_err();
    let mut keys = Keys(Vec::new());
    let positions = runner.log.restore(task, &mut keys).await.unwrap();
    assert_eq!(positions, Positions::from([(0, 0)]));
    assert!(keys.0.is_empty());
    let unknown = Task { partition: 9 };
    let result = runner.log.restore(unknown, &mut NoState).await;
    assert!(result.is_err(), "{result:?}");
}
