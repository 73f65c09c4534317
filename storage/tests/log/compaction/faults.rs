//! A full disk, damage, what happens to a log in the midst of a pass, and crashes at every step.

use super::*;

#[test]
fn a_disk_without_room_ends_a_pass_and_nothing_else() {
    let folder = folder_in_memory();
    let disk = FaultyDisk::over(folder.path());
    let world = World::open_on(Arc::new(disk.clone()), folder.path(), compacted());
    world.count_up(30, 10);
    let before = all(&world.log);
    world.dir.checkpoint().expect("checkpoints");
    set_room(&disk, Some(500));
    let failed = world
        .dir
        .compact_next(&mut compactor(1 << 20))
        .expect("is due");
    assert!(failed.outcome.expect_err("no room").is_disk_full());
    assert_eq!(
        files(folder.path(), "cleaned").len(),
        0,
        "what it has written"
    );
    assert_eq!(all(&world.log), before);
    assert!(world.compact().is_none(), "it is tried again later");
    assert_eq!(world.dir.uncleanable_partitions().len(), 1);
    set_room(&disk, None);
    world.pass(60_000);
    assert_eq!(world.compact().expect("is due").records_kept, 30);
    assert!(world.dir.uncleanable_partitions().is_empty());
}

#[test]
fn a_batch_that_cannot_be_read_stays() {
    let folder = folder_in_memory();
    {
        let world = World::open(folder.path());
        world.count_up(5, 40);
        world.dir.shutdown().expect("stops");
    }
    // A record of the first batch: its CRC is wrong.
    let first = files(folder.path(), "log").remove(0);
    let mut bytes = fs::read(&first).expect("reads");
    bytes[70] ^= 1;
    fs::write(&first, &bytes).expect("damages");
    let world = World::open(folder.path());
    let stats = world.compact().expect("is due");
    assert_eq!(stats.unreadable_batches, 1);
    let left = fs::read(files(folder.path(), "log").remove(0)).expect("reads");
    assert_eq!(left[..70], bytes[..70]);
    // Without its length nobody knows where the next one is.
    world.count_up(5, 40);
    world.dir.shutdown().expect("stops");
    drop(world);
    let mut bytes = fs::read(&first).expect("reads");
    bytes[8..12].copy_from_slice(&i32::MAX.to_be_bytes());
    fs::write(&first, &bytes).expect("damages");
    let world = World::open(folder.path());
    let failed = world
        .dir
        .compact_next(&mut compactor(1 << 20))
        .expect("is due");
    assert!(matches!(failed.outcome, Err(Error::CorruptFile { .. })));
    assert!(world.dir.compact_next(&mut compactor(1 << 20)).is_none());
    let (topic, partition, reason) = world.dir.uncleanable_partitions().remove(0);
    assert_eq!((topic.as_str(), partition), ("events", 0));
    assert!(reason.contains("batch of"), "{reason}");
}

/// A pass that has begun, and waits for its first read, while `meanwhile` does something to the log.
fn in_the_midst(
    meanwhile: impl FnOnce(&World),
) -> (tempfile::TempDir, World, Option<CompactionStats>) {
    let folder = folder_in_memory();
    let disk = FaultyDisk::over(folder.path());
    let world = World::open_on(Arc::new(disk.clone()), folder.path(), compacted());
    world.count_up(5, 40);
    world.dir.checkpoint().expect("checkpoints");
    disk.hold(Call::Read, "events-0");
    let stats = std::thread::scope(|scope| {
        let pass = scope.spawn(|| world.compact());
        assert!(disk.wait_for_held(1, Duration::from_secs(30)));
        meanwhile(&world);
        disk.release();
        pass.join().expect("no panic")
    });
    (folder, world, stats)
}

#[test]
fn records_may_be_deleted_in_the_midst_of_a_pass() {
    let (folder, world, stats) = in_the_midst(|world| {
        let wanted = [(Arc::clone(&world.log), DeleteTo::Offset(100))];
        assert!(world.dir.delete_records(&wanted)[0].is_ok());
    });
    assert_eq!(files(folder.path(), "cleaned").len(), 0);
    assert_eq!(world.log.offsets().log_start_offset, 100);
    // What had begun came to nothing, and another pass has begun where the log does now.
    assert_eq!(stats.expect("is due").first_dirty_offset, 100);
    assert_eq!(newest(&world.log).len(), 5);
}

#[test]
fn a_log_may_be_deleted_in_the_midst_of_a_pass() {
    let (folder, world, stats) = in_the_midst(|world| {
        world.dir.delete_log("events", 0).expect("deletes");
    });
    assert_eq!(stats, None);
    assert!(!partition_dir(folder.path()).exists());
    let log = open_log(&world.dir, compacted());
    assert_eq!(log.offsets().log_end_offset, 0);
}

#[test]
fn whoever_stops_a_pass_does_not_wait_for_its_end() {
    let folder = folder_in_memory();
    let world = World::open(folder.path());
    world.count_up(5, 40);
    let before = all(&world.log);
    let stop = Arc::new(AtomicBool::new(false));
    // It would take years.
    let throttle = Arc::new(Throttle::new(Some(1e-6)));
    let mut compactor = Compactor::new(CompactorConfig::default(), throttle, Arc::clone(&stop));
    std::thread::scope(|scope| {
        let pass = scope.spawn(|| world.compact_with(&mut compactor));
        stop.store(true, Ordering::Release);
        assert_eq!(pass.join().expect("no panic"), None);
    });
    assert_eq!(all(&world.log), before);
}

/// At every system call of a compaction, and with whatever a power cut leaves there: each key's newest
/// record is there, and compaction goes on.
#[test]
fn a_crash_at_any_step_loses_nothing() {
    let folder = folder_in_memory();
    let disk = FaultyDisk::over(folder.path());
    let world = World::open_on(Arc::new(disk.clone()), folder.path(), compacted());
    world.put(&[("gone", Some(1)), ("stays", Some(1))]);
    world.put(&[("gone", None)]);
    world.count_up(3, 30);
    world.dir.checkpoint().expect("checkpoints");
    let before = all(&world.log);
    let expected = newest(&world.log);
    disk.record();
    let stats = world.compact().expect("is due");
    assert!(
        stats.segments_before > 2 && stats.segments_after == 1,
        "{stats:?}"
    );
    let journal = disk.journal();
    let kept = all(&world.log);
    assert_eq!(newest(&world.log), expected);
    let mut images = journal.images();
    let mut random = Random::new(1);
    let mut seen = 0;
    while let Some((calls, what, image)) = images.next() {
        let seeds = [random.next(), random.next(), random.next()];
        let kept_after = [Keep::All, Keep::None].into_iter();
        for keep in kept_after.chain(seeds.map(Keep::Some)) {
            let place = format!("after {calls} calls, the last {what}, {keep:?}");
            let crashed = folder_in_memory();
            write_tree(&image.tree(keep), crashed.path()).expect("writes");
            let world = World::open_on(Arc::new(RealDisk), crashed.path(), compacted());
            let found = all(&world.log);
            assert!(found == before || found == kept, "{place}: {found:?}");
            assert_eq!(world.log.damaged_ranges(), 0, "{place}");
            for suffix in ["cleaned", "swap", "deleted"] {
                assert_eq!(files(crashed.path(), suffix).len(), 0, "{place}");
            }
            world.pass(DELETE_RETENTION_MS);
            world.count_up(3, 30);
            world.compact().expect("is due");
            let mut left = newest(&world.log);
            assert!(
                left.remove("gone").is_none_or(|value| value.is_none()),
                "{place}"
            );
            let mut expected = expected.clone();
            expected.remove("gone");
            assert_eq!(left, expected, "{place}");
            seen += 1;
        }
    }
    assert!(seen > 100, "{seen} images");
}
