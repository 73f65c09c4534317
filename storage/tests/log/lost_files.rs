//! Every kind of file that a start reads, lost or damaged in every way: what is in the log comes out
//! right all the same, or the start is refused with the file's name.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use storage::batch::{BatchBuilder, Compression};
use storage::partition_log::{DeleteTo, ReadLimit};
use storage::{Error, LogConfig, LogDir, PartitionLog};

use crate::fixture::*;

const START: i64 = 5;
const END: i64 = 90;

/// One record of a producer: its offset is its value and its sequence, and ten times that its time.
fn record(number: i64) -> Bytes {
    let mut batch = BatchBuilder::new(Compression::None).producer(7, 0, number as i32);
    batch.push(number * 10, None, Some(&number.to_be_bytes()), &[]);
    batch.build()
}

fn open(path: &Path) -> (LogDir, Arc<PartitionLog>) {
    let dir = open_dir(path);
    let log = open_log(&dir, config());
    (dir, log)
}

fn config() -> LogConfig {
    LogConfig {
        segment_bytes: 2000,
        index_interval_bytes: 150,
        ..LogConfig::default()
    }
}

/// Three epochs of thirty records, the first five deleted.
fn write(path: &Path, clean: bool) {
    for epoch in 0..3 {
        let (dir, log) = open(path);
        for number in epoch * 30..epoch * 30 + 30 {
            if number == 80 {
                dir.checkpoint().expect("checkpoints");
            }
            log.append(&record(number)).expect("appends");
        }
        if epoch == 1 {
            let deleted = dir.delete_records(&[(Arc::clone(&log), DeleteTo::Offset(START))]);
            assert_eq!(deleted[0].clone().expect("deletes"), START);
        }
        if epoch == 2 && clean {
            dir.shutdown().expect("stops");
        }
    }
}

/// What is left of a file's bytes; `None` where nothing is, not even its name.
type Loss = (&'static str, fn(&[u8]) -> Option<Vec<u8>>);

const LOSSES: [Loss; 7] = [
    ("missing", |_| None),
    ("empty", |_| Some(Vec::new())),
    ("truncated", |bytes| Some(bytes[..bytes.len() / 2].to_vec())),
    // Where nothing looks wrong but the end.
    ("truncated at an entry", |bytes| {
        Some(bytes[..bytes.len() / 2 / 24 * 24].to_vec())
    }),
    ("garbage", |bytes| {
        let garbage = bytes.iter().enumerate().map(|(at, _)| (at * 89 + 7) as u8);
        Some(garbage.collect())
    }),
    ("a bit flipped", |bytes| {
        let mut bytes = bytes.to_vec();
        let middle = bytes.len() / 2;
        if let Some(byte) = bytes.get_mut(middle) {
            *byte ^= 1;
        }
        Some(bytes)
    }),
    ("zeros", |bytes| Some(vec![0; bytes.len()])),
];

fn lose(file: &Path, loss: Loss) {
    let bytes = fs::read(file).expect("reads");
    match (loss.1)(&bytes) {
        Some(left) => fs::write(file, left).expect("damages"),
        None => fs::remove_file(file).expect("loses"),
    }
}

/// Everything that must come out of the log, and the end of it.
fn check(log: &PartitionLog, what: &str) -> i64 {
    let end = log.offsets().log_end_offset;
    assert!(log.offsets().log_start_offset <= START, "{what}");
    let found = read_all(log, START, 500);
    let expected: Vec<_> = (START..end).map(|number| (number, number)).collect();
    assert_eq!(found, expected, "{what}");
    assert_eq!(log.damaged_ranges(), 0, "{what}");
    for wanted in [START, 6, 29, 30, 43, 44, 61, 79, 80, 88, 89] {
        for early in [0, 3] {
            let found = log
                .offset_for_timestamp(wanted * 10 - early, ReadLimit::HighWatermark)
                .expect("looks up");
            let found = found.map(|found| (found.offset, found.timestamp_ms));
            assert_eq!(found, Some((wanted, wanted * 10)), "{what}");
        }
    }
    let beyond = log.offset_for_timestamp(end * 10, ReadLimit::HighWatermark);
    assert_eq!(beyond.expect("looks up"), None, "{what}");
    let largest = log
        .max_timestamp()
        .expect("looks up")
        .expect("there is one");
    assert_eq!(largest.offset, end - 1, "{what}");
    assert_eq!(log.end_offset_for_epoch(0), Some((0, 30)), "{what}");
    assert_eq!(log.end_offset_for_epoch(1), Some((1, 60)), "{what}");
    end
}

fn survives(folder: &Path, clean: bool, what: &str) {
    let (dir, log) = open(folder);
    assert_eq!(check(&log, what), END, "{what}");
    let epoch = log.leader_epoch();
    let expected = if clean { 2..=3 } else { 3..=3 };
    assert!(expected.contains(&epoch), "{what}: epoch {epoch}");
    let again = log.append(&record(END - 1)).expect("is known");
    assert!(again.duplicate && again.base_offset == END - 1, "{what}");
    assert!(
        !log.append(&record(END)).expect("follows").duplicate,
        "{what}"
    );
    check(&log, what);
    dir.shutdown().expect("stops");
    drop((dir, log));
    // And the next start finds everything as it should be.
    let (_dir, log) = open(folder);
    assert_eq!(check(&log, what), END + 1, "{what}, afterwards");
    assert_eq!(log.leader_epoch(), epoch, "{what}, afterwards");
    assert!(
        log.append(&record(END)).expect("is known").duplicate,
        "{what}"
    );
}

/// Runs every loss of `files`, after clean and unclean stops.
fn every_loss(files: impl Fn(&Path) -> Vec<PathBuf>) {
    for clean in [true, false] {
        let written = folder_in_memory();
        write(written.path(), clean);
        for loss in LOSSES {
            let folder = folder_in_memory();
            copy(written.path(), folder.path());
            for file in files(folder.path()) {
                lose(&file, loss);
            }
            let what = format!(
                "{} after a {} stop",
                loss.0,
                if clean { "clean" } else { "crash" }
            );
            survives(folder.path(), clean, &what);
        }
    }
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
fn offset_indexes_are_made_again_or_done_without() {
    every_loss(|path| files(path, "index"));
}

#[test]
fn time_indexes_are_made_again_or_done_without() {
    every_loss(|path| files(path, "timeindex"));
}

#[test]
fn one_index_of_many_is_made_again_or_done_without() {
    for suffix in ["index", "timeindex"] {
        every_loss(move |path| vec![files(path, suffix)[1].clone()]);
    }
}

#[test]
fn producers_are_known_without_their_snapshots() {
    every_loss(|path| files(path, "snapshot"));
}

#[test]
fn epochs_are_made_up_for_by_the_log() {
    every_loss(|path| vec![partition_dir(path).join("leader-epoch-checkpoint")]);
}

#[test]
fn a_topic_id_is_taken_from_who_opens_the_folder() {
    every_loss(|path| vec![partition_dir(path).join("partition.metadata")]);
}

#[test]
fn checkpoints_are_done_without() {
    for name in [
        "recovery-point-offset-checkpoint",
        "log-start-offset-checkpoint",
        "replication-offset-checkpoint",
    ] {
        every_loss(move |path| vec![path.join(name)]);
    }
}

#[test]
fn a_clean_stop_is_one_whatever_its_marker_holds() {
    let written = folder_in_memory();
    write(written.path(), true);
    for loss in LOSSES {
        let folder = folder_in_memory();
        copy(written.path(), folder.path());
        lose(&folder.path().join(".kafka_cleanshutdown"), loss);
        survives(folder.path(), loss.0 != "missing", loss.0);
    }
}

#[test]
fn records_that_were_deleted_stay_deleted_without_their_checkpoint() {
    for clean in [true, false] {
        for loss in LOSSES.iter().filter(|loss| loss.0 != "a bit flipped") {
            let folder = folder_in_memory();
            write(folder.path(), clean);
            lose(&folder.path().join("log-start-offset-checkpoint"), *loss);
            let (_dir, log) = open(folder.path());
            assert_eq!(log.offsets().log_start_offset, START, "{}", loss.0);
        }
    }
}

#[test]
fn a_first_offset_that_nobody_wrote_removes_nothing() {
    let folder = folder_in_memory();
    write(folder.path(), true);
    let file = folder.path().join("log-start-offset-checkpoint");
    assert_eq!(
        fs::read_to_string(&file).expect("reads"),
        "0\n1\nevents 0 5\n"
    );
    fs::write(&file, "0\n1\nevents 0 85\n").expect("damages");
    survives(folder.path(), true, "a first offset that is too high");
}

#[test]
fn a_folder_of_unknown_owner_is_refused_by_name() {
    let written = folder_in_memory();
    write(written.path(), true);
    let properties = fs::read_to_string(written.path().join("meta.properties")).expect("reads");
    let refused = |loss: Loss| {
        let folder = folder_in_memory();
        copy(written.path(), folder.path());
        lose(&folder.path().join("meta.properties"), loss);
        match open_dir_on(Arc::new(storage::disk::RealDisk), folder.path()) {
            Ok(dir) => Some(dir.cluster_id().to_owned()),
            Err(error @ Error::CorruptFile { .. }) => {
                assert!(error.to_string().contains("meta.properties"), "{error}");
                None
            }
            Err(error) => panic!("{}: {error}", loss.0),
        }
    };
    for loss in LOSSES.iter().filter(|loss| loss.0 != "a bit flipped") {
        assert_eq!(refused(*loss), None, "{}", loss.0);
    }
    // Nothing but the line's own words tells a changed id from another one.
    assert!(
        properties.starts_with("version=1\nnode.id=0\n"),
        "{properties}"
    );
    let node: Loss = ("another node", |bytes| {
        let text = String::from_utf8(bytes.to_vec()).expect("text");
        Some(text.replace("node.id=0", "node.id=1").into_bytes())
    });
    assert_eq!(refused(node), None);
}

#[test]
fn a_time_that_was_changed_between_its_neighbours_is_not_believed() {
    let folder = folder_in_memory();
    write(folder.path(), true);
    // Entries of a segment are (time, relative offset), in 12 bytes; every second record has one.
    let file = files(folder.path(), "timeindex").remove(1);
    let base: i64 = file
        .file_stem()
        .and_then(|name| name.to_str()?.parse().ok())
        .expect("a base offset");
    let mut bytes = fs::read(&file).expect("reads");
    let entries: Vec<(i64, i64)> = bytes
        .chunks_exact(12)
        .map(|entry| {
            let time = i64::from_be_bytes(entry[..8].try_into().expect("eight"));
            let offset = u32::from_be_bytes(entry[8..].try_into().expect("four"));
            (time, base + i64::from(offset))
        })
        .collect();
    let (at, (time, offset)) = (3, entries[3]);
    assert!(
        entries[2].1 + 1 < offset,
        "a record in between: {entries:?}"
    );
    bytes[at * 12..at * 12 + 8].copy_from_slice(&(time - 15).to_be_bytes());
    fs::write(&file, bytes).expect("damages");
    let (_dir, log) = open(folder.path());
    let wanted = time - 10;
    let found = log
        .offset_for_timestamp(wanted, ReadLimit::HighWatermark)
        .expect("looks up");
    assert_eq!(found.map(|found| found.offset), Some(wanted / 10));
    check(&log, "a changed time");
}

#[test]
fn an_offset_index_that_goes_back_leads_past_nothing() {
    for clean in [true, false] {
        let written = folder_in_memory();
        write(written.path(), clean);
        // Entries of a segment are (relative offset, position), in 8 bytes.
        let sound = fs::read(files(written.path(), "index").remove(1)).expect("reads");
        assert!(sound.len() > 6 * 8, "{} bytes", sound.len());
        for at in 1..sound.len() / 8 {
            let folder = folder_in_memory();
            copy(written.path(), folder.path());
            // Where a search for the segment's first offsets ends at this one, it leads nowhere, and
            // those before it are of later offsets.
            let mut bytes = sound.clone();
            bytes[at * 8..at * 8 + 8].copy_from_slice(&[0, 0, 0, 0, 0, 0, 0, 35]);
            fs::write(files(folder.path(), "index").remove(1), bytes).expect("damages");
            survives(folder.path(), clean, &format!("entry {at}"));
        }
    }
}

#[test]
fn epochs_that_the_log_does_not_have_are_not_believed() {
    for clean in [true, false] {
        let written = folder_in_memory();
        write(written.path(), clean);
        let file = "leader-epoch-checkpoint";
        let text = fs::read_to_string(partition_dir(written.path()).join(file)).expect("reads");
        assert_eq!(text, "0\n3\n0 5\n1 30\n2 60\n");
        for (from, to) in [
            ("1 30", "1 31"),
            ("1 30", "1 20"),
            ("2 60", "3 60"),
            ("2 60", "2 80"),
            ("3\n0 5\n1 30\n2 60", "2\n0 5\n1 30"),
            ("3\n0 5\n1 30", "2\n1 30"),
        ] {
            let folder = folder_in_memory();
            copy(written.path(), folder.path());
            let path = partition_dir(folder.path()).join(file);
            fs::write(path, text.replacen(from, to, 1)).expect("damages");
            survives(folder.path(), clean, &format!("{to:?} for {from:?}"));
        }
    }
}
