//! What a start makes of changelogs, those it can't read among them.

use bytes::{BufMut, Bytes};
use storage::batch::{BatchBuilder, Compression};
use storage::partition_log::ReadLimit;

use super::world::{CRASHES, Crash, Runner, SCORED, World, failing, records, scored, synced};
use faulty_disk::Call;

const OTHER: &str = "
    [[model_topic]]
    name = 'other'
    input = 'transactions'
    model = 'fraud'
";

async fn two() -> World {
    let world = World::new(&format!("{SCORED}{OTHER}")).await;
    world.append_synced("transactions", 0, 0..3).await;
    for name in ["scored", "other"] {
        let mut runner = Runner::start(world.log(name)).await;
        runner.run(0, 3).await.unwrap();
    }
    world
}

/// `scored` can't go on, for that reason; its outputs stay unreadable. `other` goes on.
async fn assert_only_scored_failed(world: &World, reason: &str) {
    let failed = &world.recovered().failed;
    assert_eq!(failed.keys().collect::<Vec<_>>(), ["scored"], "{reason}");
    let error = failed["scored"].to_string();
    assert!(error.contains(reason), "{error}");
    assert!(error.contains("scored.changelog"), "{error}");
    for topic in ["scored", "scored.dlq"] {
        let read = records(&world.partition(topic, 0), ReadLimit::HighWatermark);
        assert!(
            matches!(read, Err(storage::Error::NotReadable)),
            "{topic}: {read:?}"
        );
    }
    assert_eq!(world.values("other", 0), scored(0..3));
    world.append_synced("transactions", 0, 3..4).await;
    let mut runner = Runner::start(world.log("other")).await;
    runner.run(0, 4).await.unwrap();
    assert_eq!(world.values("other", 0), scored(0..4));
}

fn key(version: i16, kind: i8, topic: &[u8]) -> Option<Vec<u8>> {
    let mut key = Vec::new();
    key.put_i16(version);
    key.put_i8(kind);
    key.put_i32(0);
    key.put_slice(topic);
    Some(key)
}

fn offset(version: i16, offset: i64) -> Option<Vec<u8>> {
    let mut value = Vec::new();
    value.put_i16(version);
    value.put_i64(offset);
    Some(value)
}

#[tokio::test]
async fn records_that_are_not_understood_are_refused_by_offset() {
    let id = [7; 16];
    let cases = [
        (key(1, 0, &id), offset(0, 3), "key version 1 is unknown"),
        (key(0, 3, &id), offset(0, 3), "record kind 3 is unknown"),
        (key(0, -1, &[]), offset(0, 3), "record kind -1 is unknown"),
        (Some(vec![0; 6]), offset(0, 3), "key of 6 bytes"),
        (None, offset(0, 3), "no key"),
        (key(0, 0, &[7; 15]), offset(0, 3), "topic id of 15 bytes"),
        (key(0, 1, &[7; 17]), offset(0, 3), "topic id of 17 bytes"),
        (key(0, 0, &id), None, "no value"),
        (key(0, 1, &id), offset(1, 3), "value version 1 is unknown"),
        (key(0, 1, &id), Some(vec![0; 9]), "value of 9 bytes"),
        (key(0, 0, &id), offset(0, -1), "offset -1 is negative"),
    ];
    for (key, value, reason) in cases {
        let mut world = two().await;
        let changelog = world.topics("scored").changelog.clone();
        let mut batch = BatchBuilder::new(Compression::None);
        batch.push(0, key.as_deref(), value.as_deref(), &[]);
        let batch: Bytes = batch.build();
        let at = changelog.append_internal(&batch).unwrap().start;
        synced(&changelog).await;
        drop(changelog);

        world.crash(Crash::Kill).await;
        assert_only_scored_failed(&world, &format!("record at offset {at}: {reason}")).await;
    }
}

/// What nobody has put on the disk must not be published.
#[tokio::test]
async fn a_changelog_that_can_not_be_synced_publishes_nothing() {
    let mut world = two().await;
    world.append_synced("transactions", 0, 3..4).await;
    let mut runner = Runner::start(world.log("scored")).await;
    let commits = runner.read(0, 4).await;
    let end = world.stage("scored", &commits[0]).await;
    world.write_changelog("scored", &commits[0], end);
    drop(runner);

    world.end(Crash::Kill);
    world
        .disk
        .fail(failing(Call::Sync, "scored.changelog-0", ".log").once());
    world.open().await;
    assert_eq!(
        world.recovered().failed.keys().collect::<Vec<_>>(),
        ["scored"]
    );
    let read = records(&world.partition("scored", 0), ReadLimit::HighWatermark);
    assert!(matches!(read, Err(storage::Error::NotReadable)), "{read:?}");
    assert_eq!(world.values("other", 0), scored(0..3));

    world.crash(Crash::PowerCut).await;
    assert_eq!(world.values("scored", 0), scored(0..3));
}

#[tokio::test]
async fn outputs_of_a_model_topic_without_config_stay_readable() {
    for crash in CRASHES {
        let mut world = two().await;
        world.append_synced("transactions", 0, 3..6).await;
        let mut runner = Runner::start(world.log("scored")).await;
        let commits = runner.read(0, 6).await;
        world.stage("scored", &commits[0]).await;
        drop(runner);
        let specs = world.specs.clone();
        world.specs.retain(|spec| spec.name() != "scored");

        for _ in 0..2 {
            world.crash(crash).await;
            assert!(world.recovered().failed.is_empty());
            assert_eq!(world.values("scored", 0), scored(0..3), "{crash:?}");
            assert_eq!(world.values("scored", 1), scored(0..0), "{crash:?}");
            assert_eq!(world.partition("scored", 0).offsets().log_end_offset, 3);
        }

        // Back in the config it goes on where it was.
        world.specs = specs;
        world.crash(crash).await;
        let mut runner = Runner::start(world.log("scored")).await;
        assert_eq!(runner.positions[&0], 3);
        runner.run(0, 6).await.unwrap();
        assert_eq!(world.values("scored", 0), scored(0..6));
    }
}

/// The changelog names what is not there: the device has lied, and somebody has to know.
#[tokio::test]
async fn lost_outputs_are_not_papered_over() {
    let mut world = two().await;
    world.end(Crash::Kill);
    let segment = world.disk_path().join("scored-0/00000000000000000000.log");
    std::fs::OpenOptions::new()
        .write(true)
        .open(segment)
        .unwrap()
        .set_len(0)
        .unwrap();
    world.open().await;
    let failed = &world.recovered().failed;
    assert_eq!(failed.keys().collect::<Vec<_>>(), ["scored"]);
    let error = failed["scored"].to_string();
    assert!(
        error.contains("ends at 0, below its committed end 3"),
        "{error}"
    );
    assert_eq!(world.values("other", 0), scored(0..3));
}
