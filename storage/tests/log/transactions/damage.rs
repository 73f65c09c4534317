//! Starts, on what was left whole and on what was not: every index of aborted transactions says what the
//! log does, after this start and after the next.

use std::fs;
use std::path::PathBuf;

use super::*;

/// Writes transactions, some of them behind a checkpoint. One is open at the end.
fn write(path: &Path, clean: bool) {
    let (dir, log) = open(path);
    // The first segment has an entry, of which all is as small as can be.
    data(&log, 0, 1);
    abort(&log, 0);
    data(&log, 9, 2);
    interleave(&log, &mut Random::new(5), 150);
    dir.checkpoint().expect("checkpoints");
    interleave(&log, &mut Random::new(6), 60);
    abort(&log, 9);
    data(&log, 8, 1);
    interleave(&log, &mut Random::new(7), 20);
    if clean {
        dir.shutdown().expect("stops");
    }
}

/// Starts, and looks at everything; goes on, and does so again after stops of each kind.
fn survives(path: &Path, what: &str) {
    let stops = [
        "clean",
        "unclean",
        "clean after a checkpoint",
        "unclean after a checkpoint",
    ];
    for (round, stop) in stops.into_iter().enumerate() {
        let place = format!("{what}, before a stop that is {stop}");
        let (dir, log) = open(path);
        check_some(path, &log, &place);
        if round > 0 {
            interleave(&log, &mut Random::new(round as u64), 10);
            check_some(path, &log, &place);
        }
        if stop.ends_with("checkpoint") {
            dir.checkpoint().expect("checkpoints");
        }
        if stop.starts_with("clean") {
            dir.shutdown().expect("stops");
        }
    }
    let (_dir, log) = open(path);
    check_some(path, &log, what);
}

/// The index files, and what they have.
fn indexes(path: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let indexes = files(path, "txnindex").into_iter();
    let read = |file: PathBuf| {
        let bytes = fs::read(&file).expect("reads");
        (file, bytes)
    };
    indexes.map(read).collect()
}

#[test]
fn a_clean_restart_changes_nothing() {
    let folder = folder_in_memory();
    write(folder.path(), true);
    let before = indexes(folder.path());
    assert!(before.len() > 5 && before.iter().all(|(_, bytes)| bytes.len() % 34 == 0));
    for _ in 0..2 {
        let (dir, log) = open(folder.path());
        assert!(dir.was_clean());
        check(folder.path(), &log, "after a clean stop");
        dir.shutdown().expect("stops");
        assert_eq!(indexes(folder.path()), before);
    }
    survives(folder.path(), "a clean stop");
}

#[test]
fn what_was_not_checkpointed_is_found_in_the_log() {
    let folder = folder_in_memory();
    write(folder.path(), false);
    survives(folder.path(), "a crash");
    // Nor is there anything to be found but the batches.
    for snapshots in [true, false] {
        let folder = folder_in_memory();
        write(folder.path(), false);
        fs::remove_file(folder.path().join("recovery-point-offset-checkpoint")).expect("removes");
        for (index, _) in indexes(folder.path()) {
            fs::remove_file(index).expect("removes");
        }
        if !snapshots {
            for snapshot in files(folder.path(), "snapshot") {
                fs::remove_file(snapshot).expect("removes");
            }
        }
        survives(folder.path(), "a crash, and only batches are left");
    }
}

type Harm = (&'static str, fn(&mut Vec<u8>));

const HARMS: [Harm; 9] = [
    ("an entry is torn", |bytes| bytes.truncate(bytes.len() - 1)),
    ("half of it is there", |bytes| {
        bytes.truncate(bytes.len() / 2 / 34 * 34 + 17)
    }),
    ("a byte more", |bytes| bytes.push(0)),
    ("an entry of zeros more", |bytes| bytes.extend([0; 34])),
    ("zeros", |bytes| bytes.fill(0)),
    ("its first entry is zeros", |bytes| bytes[..34].fill(0)),
    ("its last entry is zeros", |bytes| {
        let last = bytes.len() - 34;
        bytes[last..].fill(0);
    }),
    ("another version", |bytes| bytes[1] = 7),
    ("garbage", |bytes| {
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = (at * 89 + 7) as u8;
        }
    }),
];

#[test]
fn an_index_that_is_damaged_is_built_again() {
    for clean in [true, false] {
        let written = folder_in_memory();
        write(written.path(), clean);
        let sound = indexes(written.path());
        for (harm, damage) in HARMS {
            // Of the first segment, of one that is below the recovery point, and of all.
            for which in [0..1, 2..3, 0..sound.len()] {
                let folder = folder_in_memory();
                copy(written.path(), folder.path());
                let damaged = files(folder.path(), "txnindex");
                for (file, (_, bytes)) in damaged
                    .iter()
                    .zip(&sound)
                    .skip(which.start)
                    .take(which.len())
                {
                    let mut bytes = bytes.clone();
                    // The newest one's entries are held until there is a checkpoint.
                    if !bytes.is_empty() {
                        damage(&mut bytes);
                    }
                    fs::write(file, bytes).expect("damages");
                }
                survives(folder.path(), &format!("{harm}, {which:?}, clean: {clean}"));
                let (dir, _log) = open(folder.path());
                dir.shutdown().expect("stops");
                let found = indexes(folder.path());
                for ((file, found), (_, sound)) in found.iter().zip(&sound) {
                    assert!(found.starts_with(sound), "{harm}: {}", file.display());
                }
            }
        }
    }
}

#[test]
fn an_index_is_built_again_that_is_damaged_before_the_recovery_point_in_its_midst() {
    let written = folder_in_memory();
    {
        let dir = open_dir(written.path());
        let config = LogConfig {
            segment_bytes: 1 << 20,
            ..config()
        };
        let log = open_log(&dir, config);
        interleave(&log, &mut Random::new(5), 60);
        dir.checkpoint().expect("checkpoints");
        interleave(&log, &mut Random::new(6), 20);
    }
    let (file, sound) = indexes(written.path()).remove(0);
    assert!(sound.len() > 5 * 34);
    for (harm, damage) in HARMS {
        let folder = folder_in_memory();
        copy(written.path(), folder.path());
        let mut bytes = sound.clone();
        damage(&mut bytes);
        let name = file.file_name().expect("a name");
        fs::write(partition_dir(folder.path()).join(name), bytes).expect("damages");
        survives(folder.path(), harm);
    }
}

#[test]
fn what_a_crash_has_left_behind_the_entries_costs_no_walk_over_the_log() {
    let folder = folder_in_memory();
    let size = {
        let dir = open_dir(folder.path());
        let config = LogConfig {
            segment_bytes: 1 << 30,
            ..config()
        };
        let log = open_log(&dir, config);
        data(&log, 1, 1);
        // More than a start looks back, in batches larger than what it reads at once.
        let mut large = BatchBuilder::new(Compression::None);
        large.push(1_000, None, Some(&[7; 40_000]), &[]);
        let large = large.build();
        for _ in 0..500 {
            log.append(&large).expect("appends");
        }
        abort(&log, 1);
        dir.checkpoint().expect("checkpoints");
        log.append(&batch(0, 1)).expect("appends");
        log.size_bytes()
    };
    let (file, mut bytes) = indexes(folder.path()).remove(0);
    bytes.extend([0; 34]);
    fs::write(file, bytes).expect("damages");
    let disk = FaultyDisk::over(folder.path());
    let dir = open_dir_on(Arc::new(disk.clone()), folder.path()).expect("opens");
    let log = open_log(&dir, config());
    let read = disk.bytes_read(".log");
    assert!(read < size / 5, "{read} bytes read of {size}");
    check_reads(folder.path(), &log, "zeros behind", &[300], 100);
}

fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).expect("lists") {
        let entry = entry.expect("lists");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("a type").is_dir() {
            fs::create_dir(&target).expect("creates");
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("copies");
        }
    }
}

#[test]
fn snapshots_that_are_lost_or_damaged_change_nothing() {
    for clean in [true, false] {
        for kept in 0..3 {
            for lost in [true, false] {
                let folder = folder_in_memory();
                write(folder.path(), clean);
                let before = indexes(folder.path());
                let snapshots = files(folder.path(), "snapshot");
                for snapshot in snapshots.iter().skip(kept) {
                    if lost {
                        fs::remove_file(snapshot).expect("removes");
                    } else {
                        fs::write(snapshot, b"no snapshot").expect("damages");
                    }
                }
                let what = format!("{kept} of {} snapshots, clean: {clean}", snapshots.len());
                let (dir, log) = open(folder.path());
                check(folder.path(), &log, &what);
                dir.shutdown().expect("stops");
                drop((log, dir));
                for ((file, after), (_, before)) in indexes(folder.path()).iter().zip(&before) {
                    assert!(after.starts_with(before), "{what}: {}", file.display());
                }
                survives(folder.path(), &what);
            }
        }
    }
}

#[test]
fn nothing_is_told_of_what_was_cut_off_after_a_clean_stop() {
    let folder = folder_in_memory();
    {
        let (dir, log) = open(folder.path());
        data(&log, 1, 2);
        abort(&log, 1);
        data(&log, 2, 2);
        abort(&log, 2);
        dir.shutdown().expect("stops");
    }
    let file = files(folder.path(), "log").remove(0);
    let mut bytes = fs::read(&file).expect("reads");
    // The last marker alone.
    let last = bytes.len() - 1;
    bytes.truncate(last);
    fs::write(&file, bytes).expect("damages");
    {
        let (_dir, log) = open(folder.path());
        assert_eq!(log.offsets().log_end_offset, 5);
        check(folder.path(), &log, "without the last marker");
        // Others come where it was.
        commit(&log, 2);
        data(&log, 3, 2);
        abort(&log, 3);
        check(folder.path(), &log, "with others");
    }
    survives(folder.path(), "without the last marker");
}

#[test]
fn a_start_that_builds_an_index_may_be_cut_short() {
    for clean in [true, false] {
        let written = folder_in_memory();
        write(written.path(), clean);
        // Of a segment below the recovery point.
        let (file, mut bytes) = indexes(written.path()).remove(2);
        bytes.truncate(bytes.len() - 1);
        fs::write(file, bytes).expect("damages");
        let disk = FaultyDisk::over(written.path());
        disk.record();
        {
            let dir = open_dir_on(Arc::new(disk.clone()), written.path()).expect("opens");
            let log = open_log(&dir, config());
            check_some(written.path(), &log, "not cut short");
        }
        let journal = disk.journal();
        let mut images = journal.images();
        let mut random = Random::new(2);
        while let Some((calls, what, image)) = images.next() {
            for keep in [Keep::All, Keep::None, Keep::Some(random.next())] {
                let place = format!("clean {clean}, {calls} calls, {what}, {keep:?}");
                let folder = folder_in_memory();
                write_tree(&image.tree(keep), folder.path()).expect("writes");
                let (_dir, log) = open(folder.path());
                check_some(folder.path(), &log, &place);
            }
        }
    }
}
