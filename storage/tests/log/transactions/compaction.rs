//! Compaction of a log with transactions: read_committed readers see the same as before, and are told of
//! no transaction whose marker is gone, since they would leave its producer out for ever.

use std::fs;

use storage::disk::{Disk, RealDisk};

use super::*;
use crate::compaction::{DELETE_RETENTION_MS, World, compacted, compactor};

fn open_compacted(disk: Arc<dyn Disk>, path: &Path) -> World {
    let config = LogConfig {
        segment_ms: NEVER,
        ..compacted()
    };
    World::open_on(disk, path, config)
}

fn reopened(path: &Path) -> World {
    open_compacted(Arc::new(RealDisk), path)
}

/// Appends a record of a few keys to a producer's transaction; its value is its offset, or it is a
/// tombstone.
fn put(log: &PartitionLog, producer_id: i64, random: &mut Random) {
    let (epoch, sequence) = next_of(log, producer_id);
    let mut batch = BatchBuilder::new(Compression::None)
        .producer(producer_id, epoch, sequence)
        .transactional();
    let key = [b'a' + random.below(6) as u8];
    let value = log.offsets().log_end_offset.to_be_bytes();
    let value = (!random.one_in(6)).then_some(&value[..]);
    batch.push(1_000, Some(&key), value, &[]);
    log.append(&batch.build()).expect("appends");
}

/// Transactions of several producers in turn, one of which has one that is long.
fn fill(log: &PartitionLog, random: &mut Random, steps: usize) {
    for _ in 0..steps {
        let producer_id = random.below(4) as i64;
        match random.below(9) {
            0 | 1 => {
                commit(log, producer_id);
            }
            2 | 3 => {
                abort(log, producer_id);
            }
            _ => put(log, producer_id, random),
        }
    }
}

/// Ends all that are open, and fills what can't be compacted: the newest segment.
fn end_all(log: &PartitionLog) {
    for producer_id in [0, 1, 2, 3, 9] {
        commit(log, producer_id);
    }
    for _ in 0..12 {
        let end = log.offsets().log_end_offset;
        log.append(&batch(end, 2)).expect("appends");
    }
}

/// The newest value of each key for a read_committed consumer, without those that are deleted.
fn newest(log: &PartitionLog) -> BTreeMap<Bytes, Bytes> {
    let offsets = log.offsets();
    let mut found = BTreeMap::new();
    let mut next = offsets.log_start_offset;
    while next < offsets.last_stable_offset {
        let fetched = fetch_committed(log, next, 400).expect("reads");
        for record in records_taken(&fetched) {
            let key = record.key.expect("a key");
            match record.value {
                Some(value) => found.insert(key, value),
                None => found.remove(&key),
            };
        }
        next = extent(&fetched.records).map_or(offsets.last_stable_offset, |read| read.end);
    }
    found
}

/// The entries in the files, as (producer, marker).
fn entries(path: &Path) -> Vec<(i64, Offset)> {
    let mut found = Vec::new();
    for file in files(path, "txnindex") {
        let bytes = fs::read(file).expect("reads");
        assert_eq!(bytes.len() % 34, 0);
        let field = |entry: &[u8], at: usize| {
            i64::from_be_bytes(entry[at..at + 8].try_into().expect("eight bytes"))
        };
        let entries = bytes.chunks_exact(34);
        found.extend(entries.map(|entry| (field(entry, 2), field(entry, 18))));
    }
    found
}

/// As [`check`]; but of what is gone, readers may be told still, as long as its marker is there.
fn check_compacted(path: &Path, log: &PartitionLog, what: &str) {
    let walk = walk(path);
    let offsets = log.offsets();
    let (start, stable) = (offsets.log_start_offset, offsets.last_stable_offset);
    let expected = walk.last_stable_offset(start..offsets.log_end_offset);
    assert_eq!(stable, expected, "{what}");
    assert_eq!(open_transactions(log), walk.open, "{what}");
    for entry in entries(path) {
        assert!(
            walk.abort_markers.contains(&entry),
            "{what}: {entry:?} has no marker"
        );
    }
    for offset in start..stable {
        let place = format!("{what}, from {offset}");
        let fetched = fetch_committed(log, offset, 400).expect("reads");
        let read = extent(&fetched.records).expect("a batch");
        for told in &fetched.aborted {
            let marker = (told.producer_id, told.last_offset);
            assert!(walk.abort_markers.contains(&marker), "{place}: {told:?}");
            let is_in = told.first_offset < read.end && told.last_offset >= offset;
            assert!(is_in, "{place}: {told:?}");
        }
        for left in walk.aborted_in(offset..read.end) {
            let is_told = fetched.aborted.iter().any(|told| {
                (told.producer_id, told.last_offset) == (left.producer_id, left.last_offset)
                    && told.first_offset <= left.first_offset
            });
            assert!(is_told, "{place}: {left:?}");
        }
        assert_eq!(taken(&fetched), walk.committed_in(read), "{place}");
    }
}

#[test]
fn readers_see_the_same_after_every_pass_and_every_start() {
    for seed in 0..3 {
        let folder = folder_in_memory();
        let mut random = Random::new(seed);
        let mut world = reopened(folder.path());
        // The header of its marker is kept, since no other batch says which epoch it has; the marker and
        // its entry go.
        put(&world.log, 7, &mut random);
        let raising = EndMarker {
            producer_epoch: 1,
            ..marker(&world.log, 7, TransactionResult::Abort)
        };
        world.log.append_marker(&raising).expect("appends");
        put(&world.log, 9, &mut random);
        fill(&world.log, &mut random, 120);
        put(&world.log, 9, &mut random);
        end_all(&world.log);
        let told = entries_after_checkpoint(&world, folder.path());
        assert!(told > 10, "{told} entries");
        let mut gone = false;
        for round in 0..6 {
            let place = format!("seed {seed}, round {round}");
            let before = newest(&world.log);
            let stats = world.compact().expect("is due");
            assert!(
                stats.records_kept < stats.records_read,
                "{place}: {stats:?}"
            );
            assert_eq!(newest(&world.log), before, "{place}");
            check_compacted(folder.path(), &world.log, &place);
            gone |= round > 1 && entries_after_checkpoint(&world, folder.path()) < told / 2;
            if round % 3 == 1 {
                world.dir.shutdown().expect("stops");
            }
            if round % 3 > 0 {
                drop(world);
                world = reopened(folder.path());
                assert_eq!(newest(&world.log), before, "{place}, after a start");
                check_compacted(folder.path(), &world.log, &place);
            }
            world.pass(i64::from(round + 1) * DELETE_RETENTION_MS);
            fill(&world.log, &mut random, 20);
            end_all(&world.log);
        }
        assert!(
            gone,
            "markers of which nothing is left have gone, and their entries"
        );
    }
}

fn entries_after_checkpoint(world: &World, path: &Path) -> usize {
    world.dir.checkpoint().expect("checkpoints");
    entries(path).len()
}

#[test]
fn what_is_undecided_is_not_compacted() {
    let folder = folder_in_memory();
    let world = reopened(folder.path());
    let mut random = Random::new(4);
    fill(&world.log, &mut random, 60);
    for producer_id in 0..4 {
        abort(&world.log, producer_id);
    }
    put(&world.log, 9, &mut random);
    let open_since = world.log.offsets().last_stable_offset;
    fill(&world.log, &mut random, 60);
    let stats = world.compact().expect("is due");
    assert!(stats.end_offset <= open_since, "{stats:?}");
    check_compacted(folder.path(), &world.log, "with an open one");
    abort(&world.log, 9);
    end_all(&world.log);
    let before = newest(&world.log);
    let stats = world.compact().expect("is due");
    assert!(stats.end_offset > open_since, "{stats:?}");
    assert_eq!(newest(&world.log), before);
    check_compacted(folder.path(), &world.log, "with none");
}

#[test]
fn readers_wait_before_an_open_transaction_where_nothing_is_left() {
    let folder = folder_in_memory();
    let world = reopened(folder.path());
    let log = &world.log;
    for key in 0..40_i64 {
        let mut batch = BatchBuilder::new(Compression::None);
        batch.push(1_000, Some(&key.to_be_bytes()), Some(b"value"), &[]);
        log.append(&batch.build()).expect("appends");
        if key == 0 {
            // All in one segment, and the next transaction begins another.
            set_segment_bytes(log, 1 << 20);
        }
    }
    put(log, 1, &mut Random::new(1));
    put(log, 1, &mut Random::new(1));
    set_segment_bytes(log, log.size_bytes());
    let open_since = log.offsets().log_end_offset;
    put(log, 2, &mut Random::new(1));
    abort(log, 1);
    // Else the header of its last batch would stay.
    put(log, 1, &mut Random::new(1));
    commit(log, 1);
    assert_eq!(files(folder.path(), "log").len(), 2);
    // The map has no room for all keys. So the last batch is not that of the part that is compacted,
    // which would stay, but it goes all the same, as the transaction was aborted.
    let stats = world.compact_with(&mut compactor(24 * 34));
    assert!(stats.expect("is due").map_was_full);
    assert_eq!(log.offsets().last_stable_offset, open_since);
    let before = extent(&fetch_committed(log, 0, 1 << 20).expect("reads").records);
    let last = before.expect("batches").end;
    assert!(last < open_since, "{last}");
    for offset in last..=open_since {
        let fetched = fetch_committed(log, offset, 1 << 20).expect("reads");
        assert!(fetched.records.is_empty(), "from {offset}");
    }
    commit(log, 2);
    for offset in last..=open_since {
        let fetched = fetch_committed(log, offset, 1 << 20).expect("reads");
        assert_eq!(taken(&fetched).first(), Some(&open_since), "from {offset}");
    }
}

fn set_segment_bytes(log: &PartitionLog, segment_bytes: u64) {
    let config = LogConfig {
        segment_bytes,
        segment_ms: NEVER,
        ..compacted()
    };
    log.set_config(Arc::new(config));
}

/// A crash at every call of a pass, and at every call of the start that goes on with it.
#[test]
fn a_crash_in_the_midst_of_a_swap_leaves_no_entry_of_a_marker_that_is_gone() {
    let folder = folder_in_memory();
    let disk = FaultyDisk::over(folder.path());
    let world = open_compacted(Arc::new(disk.clone()), folder.path());
    let mut random = Random::new(8);
    let roll = || {
        for _ in 0..12 {
            let end = world.log.offsets().log_end_offset;
            world.log.append(&batch(end, 2)).expect("appends");
        }
    };
    put(&world.log, 1, &mut random);
    abort(&world.log, 1);
    roll();
    // Whoever is told of the one before when that is gone sees nothing of these.
    put(&world.log, 1, &mut random);
    put(&world.log, 1, &mut random);
    commit(&world.log, 1);
    roll();
    // The first pass takes the records of what was aborted, the second gives its marker a horizon, and
    // the third takes it, so that nothing is left to be told of.
    for _ in 0..2 {
        assert!(world.compact().is_some());
        assert_eq!(entries(folder.path()), [(1, 1)]);
        world.pass(DELETE_RETENTION_MS);
        roll();
    }
    world.dir.checkpoint().expect("checkpoints");
    let expected = newest(&world.log);
    assert!(expected.len() > 1, "{expected:?}");
    disk.record();
    assert!(world.compact().is_some());
    assert!(files(folder.path(), "txnindex").is_empty());
    assert_eq!(newest(&world.log), expected);
    let journal = disk.journal();
    drop(world);
    let mut images = journal.images();
    let (mut seen, mut in_swaps) = (0, 0);
    while let Some((calls, what, image)) = images.next() {
        for keep in [Keep::All, Keep::Some(random.next())] {
            let place = format!("{calls} calls, {what}, {keep:?}");
            let tree = image.tree(keep);
            let crashed = folder_in_memory();
            write_tree(&tree, crashed.path()).expect("writes");
            let in_swap = !files(crashed.path(), "swap").is_empty();
            let disk = FaultyDisk::over(crashed.path());
            disk.record();
            let world = open_compacted(Arc::new(disk.clone()), crashed.path());
            check_compacted(crashed.path(), &world.log, &place);
            assert_eq!(newest(&world.log), expected, "{place}");
            seen += 1;
            if !in_swap {
                continue;
            }
            let start = disk.journal();
            let mut images = start.images();
            while let Some((again, last, image)) = images.next() {
                let place = format!("{place}; {again} calls of a start, {last}");
                let crashed = folder_in_memory();
                write_tree(&image.tree(Keep::All), crashed.path()).expect("writes");
                let world = reopened(crashed.path());
                check_compacted(crashed.path(), &world.log, &place);
                assert_eq!(newest(&world.log), expected, "{place}");
                in_swaps += 1;
            }
        }
    }
    assert!(
        seen > 50 && in_swaps > 300,
        "{seen} images, {in_swaps} of starts"
    );
}
