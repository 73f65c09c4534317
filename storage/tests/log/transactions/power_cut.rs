//! Power cuts and kills at every system call: what is left of the log has its transactions.

use faulty_disk::Journal;
use storage::partition_log::Durability;

use super::*;

/// What was on the device after so many system calls.
type Promise = (usize, Offset);

/// Transactions over several segments, with checkpoints, syncs and a deletion in between.
async fn history(path: &Path, disk: &FaultyDisk, seed: u64) -> Vec<Promise> {
    let dir = open_dir_on(Arc::new(disk.clone()), path).expect("opens");
    let log = open_log(&dir, config());
    let mut random = Random::new(seed);
    let mut promises = vec![(0, 0)];
    data(&log, 9, 1);
    for round in 0..12 {
        interleave(&log, &mut random, 8);
        let end = log.offsets().log_end_offset;
        match round % 4 {
            0 => log.wait(end, Durability::Disk).await.expect("durable"),
            1 => dir.checkpoint().expect("checkpoints"),
            2 if round > 4 => {
                abort(&log, 9);
                continue;
            }
            _ => continue,
        }
        promises.push((disk.recorded(), end));
    }
    promises
}

fn recorded(seed: u64) -> (Journal, Vec<Promise>) {
    let folder = folder_in_memory();
    let disk = FaultyDisk::over(folder.path());
    disk.record();
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let runtime = runtime.expect("a runtime");
    let promises = runtime.block_on(history(folder.path(), &disk, seed));
    assert!(files(folder.path(), "txnindex").len() > 2);
    (disk.journal(), promises)
}

/// Starts on what is left, goes on, and does so again: what a start has made of the indexes has to be
/// there when it relies on it.
fn go_on(path: &Path, durable: Offset, place: &str) {
    for round in 0..3 {
        let (dir, log) = open(path);
        let end = log.offsets().log_end_offset;
        assert!(
            end >= durable,
            "{place}: ends at {end}, {durable} are durable"
        );
        check_some(path, &log, &format!("{place}, start {round}"));
        let producer_id = i64::from(round);
        data(&log, producer_id, 1);
        abort(&log, producer_id);
        match round {
            0 => dir.checkpoint().expect("checkpoints"),
            1 => dir.shutdown().expect("stops"),
            _ => {}
        }
    }
}

#[test]
fn a_power_cut_at_any_call_leaves_the_transactions_of_what_is_left() {
    let (journal, promises) = recorded(1);
    let mut random = Random::new(1);
    let mut images = journal.images();
    let mut seen = 0;
    while let Some((calls, what, image)) = images.next() {
        let kept = promises.iter().rev().find(|(after, _)| *after <= calls);
        let (_, durable) = kept.expect("the first");
        let all_or_none = if calls % 2 == 0 {
            Keep::All
        } else {
            Keep::None
        };
        for keep in [all_or_none, Keep::Some(random.next())] {
            let place = format!("{calls} calls, {what}, {keep:?}");
            let folder = folder_in_memory();
            write_tree(&image.tree(keep), folder.path()).expect("writes");
            go_on(folder.path(), *durable, &place);
            seen += 1;
        }
    }
    assert!(seen > 300, "{seen} images");
}

/// The start on what a power cut has left is cut short by another, at any of its calls.
#[test]
fn a_power_cut_in_the_midst_of_a_start_leaves_them_too() {
    let (journal, promises) = recorded(3);
    let mut random = Random::new(5);
    let mut images = journal.images();
    let mut seen = 0;
    while let Some((calls, what, image)) = images.next() {
        if calls % 40 != 0 {
            continue;
        }
        let kept = promises.iter().rev().find(|(after, _)| *after <= calls);
        let (_, durable) = kept.expect("the first");
        let folder = folder_in_memory();
        let left = image.tree(Keep::Some(random.next()));
        write_tree(&left, folder.path()).expect("writes");
        let disk = FaultyDisk::over(folder.path());
        disk.record();
        {
            let dir = open_dir_on(Arc::new(disk.clone()), folder.path()).expect("opens");
            let log = open_log(&dir, config());
            dir.checkpoint().expect("checkpoints");
            data(&log, 0, 1);
        }
        let start = disk.journal();
        let mut images = start.images();
        while let Some((again, last, image)) = images.next() {
            let place = format!("{calls} calls, {what}; {again} calls of a start, {last}");
            let folder = folder_in_memory();
            let left = image.tree(Keep::Some(random.next()));
            write_tree(&left, folder.path()).expect("writes");
            go_on(folder.path(), *durable, &place);
            seen += 1;
        }
    }
    assert!(seen > 100, "{seen} images");
}
