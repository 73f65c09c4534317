//! Damage in the middle of a log: what is sound is served, what is lost is said, nothing is skipped
//! without a word.

use std::collections::HashMap;
use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use storage::batch::header::{Batch, batches};
use storage::batch::{BatchBuilder, Compression, layout};
use storage::partition_log::{DeleteTo, Durability, Read, ReadLimit};
use storage::{Error, LogConfig, LogDir, Offset, PartitionLog};

use crate::fixture::*;

/// A log of one segment with an index entry for about every third batch.
fn one_segment() -> LogConfig {
    LogConfig {
        index_interval_bytes: 200,
        ..LogConfig::default()
    }
}

/// Writes batches of two records, `batches` of them, with timestamps ten apart.
fn written(path: &Path, config: &LogConfig, batches: i64, clean: bool) {
    let dir = open_dir(path);
    let log = open_log(&dir, config.clone());
    for number in 0..batches {
        let first = number * 2;
        let times = [first * 10, first * 10 + 10];
        log.append(&batch_at(first, &times, Compression::None))
            .expect("appends");
    }
    if clean {
        dir.shutdown().expect("stops");
    } else {
        dir.checkpoint().expect("checkpoints");
    }
}

fn opened(path: &Path, config: &LogConfig) -> (LogDir, Arc<PartitionLog>) {
    let dir = open_dir(path);
    let log = open_log(&dir, config.clone());
    (dir, log)
}

/// The position and the size of every batch of a file.
fn places(bytes: &[u8]) -> Vec<(usize, usize)> {
    let mut position = 0;
    batches(bytes)
        .map(|batch| {
            let size = batch.expect("whole").size_in_bytes();
            position += size;
            (position - size, size)
        })
        .collect()
}

/// Puts a file on the device and out of the page cache.
fn evict(path: &Path) {
    let file = fs::File::open(path).expect("opens");
    file.sync_all().expect("syncs");
    // SAFETY: no memory is involved.
    let result = unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
    assert_eq!(result, 0);
}

/// Puts the only segment out of the page cache; false where the file system has no other place.
fn evicted(log: &PartitionLog, file: &Path) -> bool {
    (0..100).any(|_| {
        evict(file);
        let read = log.read(0, 1 << 20, true, ReadLimit::HighWatermark);
        matches!(read, Ok(Read::Cold(_)))
    })
}

/// Everything that can be read from offset 0 on, batch by batch, and the offsets that are lost, as
/// (from, to).
fn read_across(log: &PartitionLog) -> (Vec<Offset>, Vec<(Offset, Offset)>) {
    read_in_pieces(log, 1)
}

fn read_in_pieces(log: &PartitionLog, max_bytes: usize) -> (Vec<Offset>, Vec<(Offset, Offset)>) {
    let (mut found, mut lost, mut offset) = (Vec::new(), Vec::new(), 0);
    loop {
        match fetch(log, offset, max_bytes) {
            Ok(fetched) if fetched.records.is_empty() => return (found, lost),
            Ok(fetched) => {
                for batch in batches(&fetched.records) {
                    let batch = batch.expect("a whole batch");
                    batch.check_crc().expect("a sound batch");
                    found.extend(batch.base_offset()..batch.next_offset());
                    offset = batch.next_offset();
                }
            }
            Err(Error::Damaged { from, to, .. }) => {
                assert!(from <= offset && offset < to, "{from}..{to} at {offset}");
                lost.push((from, to));
                offset = to;
            }
            Err(error) => panic!("at {offset}: {error}"),
        }
    }
}

/// Ways to damage the batch at a place of a file, and how many batches from there on are lost.
type Harm = (&'static str, fn(&mut [u8], usize, usize), usize);

/// Those that are looked for in what comes from the device: the first two only a checksum shows.
const COLD: [&str; 3] = [
    "a bit of the payload",
    "a bit of the checksum",
    "a base offset further on",
];

fn harms() -> Vec<Harm> {
    fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
        bytes[at..at + value.len()].copy_from_slice(value);
    }
    vec![
        (
            "a bit of the payload",
            |b, at, size| b[at + size - 1] ^= 1,
            1,
        ),
        (
            "a bit of the checksum",
            |b, at, _| b[at + layout::CRC] ^= 1,
            1,
        ),
        ("the magic", |b, at, _| b[at + layout::MAGIC] = 1, 1),
        (
            "a longer length",
            |b, at, _| b[at + layout::BATCH_LENGTH + 3] ^= 0x80,
            1,
        ),
        (
            "a length of gigabytes",
            |b, at, _| b[at + layout::BATCH_LENGTH] = 0x7f,
            1,
        ),
        (
            "a negative length",
            |b, at, _| b[at + layout::BATCH_LENGTH] = 0xff,
            1,
        ),
        (
            "a base offset further on",
            |b, at, _| b[at + layout::BASE_OFFSET + 7] ^= 0x40,
            1,
        ),
        (
            "a base offset that is gone by",
            |b, at, _| put(b, at + layout::BASE_OFFSET, &1_i64.to_be_bytes()),
            1,
        ),
        (
            "a base offset beyond all",
            |b, at, _| b[at + layout::BASE_OFFSET + 1] ^= 1,
            1,
        ),
        (
            "a last offset further on",
            |b, at, _| put(b, at + layout::LAST_OFFSET_DELTA, &9_i32.to_be_bytes()),
            1,
        ),
        ("zeros for a header", |b, at, _| b[at..at + 61].fill(0), 1),
        (
            "zeros over two batches",
            |b, at, size| b[at + 5..at + size + 30].fill(0),
            2,
        ),
        (
            "garbage over three batches",
            |b, at, size| {
                for (index, byte) in b[at..at + 2 * size + 9].iter_mut().enumerate() {
                    *byte = (index * 7 % 251) as u8;
                }
            },
            3,
        ),
    ]
}

#[test]
fn whatever_is_damaged_only_what_it_had_is_lost() {
    for (name, harm, count) in harms() {
        for clean in [true, false] {
            for at in [0, 19] {
                let is_cold = COLD.contains(&name);
                let folder = if is_cold {
                    tempfile::tempdir().expect("a folder")
                } else {
                    folder_in_memory()
                };
                written(folder.path(), &one_segment(), 40, clean);
                let file = files(folder.path(), "log").remove(0);
                let mut bytes = fs::read(&file).expect("reads");
                let places = places(&bytes);
                let (position, size) = places[at];
                harm(&mut bytes, position, size);
                fs::write(&file, &bytes).expect("damages");
                let (_dir, log) = opened(folder.path(), &one_segment());
                assert_eq!(log.offsets().log_end_offset, 80, "{name}, {clean}, {at}");
                let (found, lost) = if is_cold {
                    if !evicted(&log, &file) {
                        continue;
                    }
                    read_in_pieces(&log, 1 << 20)
                } else {
                    read_across(&log)
                };
                let (from, to) = (at as i64 * 2, (at + count) as i64 * 2);
                let sound: Vec<Offset> = (0..from).chain(to..80).collect();
                assert_eq!(lost, [(from, to)], "{name}, clean {clean}, batch {at}");
                assert_eq!(found, sound, "{name}, clean {clean}, batch {at}");
                assert_eq!(log.damaged_ranges(), 1, "{name}");
                assert_eq!(fs::read(&file).expect("reads"), bytes, "nothing is changed");
                // Time goes on across it, too.
                for wanted in [0, from * 10, to * 10, 790] {
                    let found = log
                        .offset_for_timestamp(wanted, ReadLimit::HighWatermark)
                        .expect("looks up")
                        .map(|found| found.offset);
                    let wanted = wanted / 10;
                    let expected = if (from..to).contains(&wanted) {
                        to
                    } else {
                        wanted
                    };
                    assert_eq!(found, Some(expected), "{name}, clean {clean}, batch {at}");
                }
            }
        }
    }
}

#[test]
fn a_wrong_offset_behind_other_damage_hides_nothing() {
    for clean in [true, false] {
        let folder = folder_in_memory();
        written(folder.path(), &one_segment(), 40, clean);
        let file = files(folder.path(), "log").remove(0);
        let mut bytes = fs::read(&file).expect("reads");
        let places = places(&bytes);
        // Checksums cover neither: the lengths lead on to the second one.
        bytes[places[19].0..][..8].copy_from_slice(&1_i64.to_be_bytes());
        bytes[places[20].0..][..8].copy_from_slice(&0x7f00_0000_i64.to_be_bytes());
        fs::write(&file, &bytes).expect("damages");
        let (_dir, log) = opened(folder.path(), &one_segment());
        let (found, lost) = read_across(&log);
        assert_eq!(lost, [(38, 42)], "clean {clean}");
        let sound: Vec<Offset> = (0..38).chain(42..80).collect();
        assert_eq!(found, sound, "clean {clean}");
        let largest = log.max_timestamp().expect("looks up").expect("some");
        assert_eq!((largest.offset, largest.timestamp_ms), (79, 790));
    }
}

#[test]
fn what_is_known_to_be_damaged_stays_so_when_more_is_found() {
    let folder = folder_in_memory();
    written(folder.path(), &one_segment(), 40, true);
    let file = files(folder.path(), "log").remove(0);
    let mut bytes = fs::read(&file).expect("reads");
    let places = places(&bytes);
    bytes[places[30].0..][..8].copy_from_slice(&0x7f00_0000_i64.to_be_bytes());
    bytes[places[32].0 - 1] ^= 1;
    fs::write(&file, &bytes).expect("damages");
    let (_dir, log) = opened(folder.path(), &one_segment());
    assert_eq!(read_across(&log).1, [(60, 64)]);
    let harmed = fs::OpenOptions::new().write(true).open(&file);
    let at = (places[10].0 + layout::MAGIC) as u64;
    harmed
        .and_then(|file| file.write_all_at(&[0], at))
        .expect("damages");
    let (found, lost) = read_across(&log);
    assert_eq!(lost, [(20, 22), (60, 64)]);
    let sound: Vec<Offset> = (0..20).chain(22..60).chain(64..80).collect();
    assert_eq!(found, sound);
}

#[test]
fn a_batch_that_goes_on_beyond_the_log_is_an_error() {
    let folder = folder_in_memory();
    written(folder.path(), &one_segment(), 40, true);
    let file = files(folder.path(), "log").remove(0);
    let mut bytes = fs::read(&file).expect("reads");
    // Written by whoever makes its checksum right, too. No lookup before it meets the one behind.
    let places = places(&bytes);
    let (position, size) = places[3];
    let batch = &mut bytes[position..][..size];
    batch[layout::LAST_OFFSET_DELTA..][..4].copy_from_slice(&[0x7f, 0, 0, 0]);
    let crc = Batch::parse(batch).expect("a batch").compute_crc();
    batch[layout::CRC..][..4].copy_from_slice(&crc.to_be_bytes());
    // So that nothing contradicts it.
    bytes[places[4].0..places[38].0].fill(0);
    fs::write(&file, &bytes).expect("damages");
    let (_dir, log) = opened(folder.path(), &one_segment());
    assert_eq!(log.offsets().log_end_offset, 80);
    let read = fetch(&log, 6, 1 << 20);
    assert!(
        matches!(read, Err(Error::CorruptFile { .. } | Error::Damaged { .. })),
        "{read:?}"
    );
    let largest = log.max_timestamp().expect("looks up");
    assert!(largest.is_none_or(|found| found.offset < 80), "{largest:?}");
}

#[test]
fn several_damaged_places_are_told_apart() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = LogConfig {
        segment_bytes: 2000,
        ..one_segment()
    };
    written(folder.path(), &config, 200, true);
    let segments = files(folder.path(), "log");
    assert!(segments.len() > 4, "{}", segments.len());
    let whole: HashMap<_, _> = segments
        .iter()
        .map(|file| (file.clone(), places(&fs::read(file).expect("reads"))))
        .collect();
    let mut lost = Vec::new();
    for (file, at) in [(&segments[0], 3), (&segments[0], 12), (&segments[2], 0)] {
        let base: Offset = file
            .file_stem()
            .and_then(|name| name.to_str()?.parse().ok())
            .expect("a base offset");
        lost.push((base + at as i64 * 2, base + at as i64 * 2 + 2));
        let mut bytes = fs::read(file).expect("reads");
        let position = whole[file][at].0;
        bytes[position + layout::MAGIC] = 0;
        fs::write(file, &bytes).expect("damages");
    }
    // The last batches of a closed segment: nothing sound follows in it.
    let bytes = fs::read(&segments[3]).expect("reads");
    let places = places(&bytes);
    let (position, _) = places[places.len() - 2];
    let end: Offset = segments[4]
        .file_stem()
        .and_then(|name| name.to_str()?.parse().ok())
        .expect("a base offset");
    lost.push((end - 4, end));
    let mut damaged = bytes.clone();
    damaged[position..].fill(0);
    fs::write(&segments[3], &damaged).expect("damages");

    let (_dir, log) = opened(folder.path(), &config);
    let (found, said) = read_across(&log);
    assert_eq!(said, lost);
    let is_lost = |offset: &Offset| lost.iter().any(|(from, to)| (*from..*to).contains(offset));
    let sound: Vec<Offset> = (0..400).filter(|offset| !is_lost(offset)).collect();
    assert_eq!(found, sound);
    assert_eq!(log.damaged_ranges(), 4);
    // And once they are known, no reader has to wait for a survey.
    for (from, to) in lost {
        let again = log.read(from, 100, true, ReadLimit::HighWatermark);
        assert!(
            matches!(again, Err(Error::Damaged { to: next, .. }) if next == to),
            "{again:?}"
        );
    }
}

#[test]
fn a_closed_segment_that_was_cut_short_is_noticed() {
    for clean in [true, false] {
        let folder = tempfile::tempdir().expect("a folder");
        let config = LogConfig {
            segment_bytes: 2000,
            ..one_segment()
        };
        written(folder.path(), &config, 60, clean);
        let segments = files(folder.path(), "log");
        let bytes = fs::read(&segments[1]).expect("reads");
        let places = places(&bytes);
        let (position, _) = places[places.len() - 3];
        fs::write(&segments[1], &bytes[..position]).expect("cuts");
        let (_dir, log) = opened(folder.path(), &config);
        let (found, lost) = read_across(&log);
        assert_eq!(lost.len(), 1);
        let (from, to) = lost[0];
        assert_eq!(to - from, 6, "three batches of two");
        assert_eq!(found.len(), 114);
        assert_eq!(found, (0..from).chain(to..120).collect::<Vec<_>>());
    }
}

#[test]
fn bytes_of_batches_in_a_record_are_no_batches() {
    let folder = tempfile::tempdir().expect("a folder");
    {
        let dir = open_dir(folder.path());
        let log = open_log(&dir, one_segment());
        log.append(&batch(0, 2)).expect("appends");
        // Somebody keeps copies of batches, at offsets that could come next.
        let mut copies = Vec::new();
        for offset in [2_i64, 4, 6] {
            let copy = batch(offset, 2);
            let start = copies.len();
            copies.extend_from_slice(&copy);
            copies[start..start + 8].copy_from_slice(&offset.to_be_bytes());
        }
        let mut outer = BatchBuilder::new(Compression::None);
        outer.push(1_000, None, Some(&copies), &[]);
        log.append(&outer.build()).expect("appends");
        for first in 0..10 {
            log.append(&batch(first * 2, 2)).expect("appends");
        }
        dir.shutdown().expect("stops");
    }
    for index in [true, false] {
        let file = files(folder.path(), "log").remove(0);
        let mut bytes = fs::read(&file).expect("reads");
        let (position, _) = places(&bytes)[1];
        // The length, so that nothing leads over the record.
        bytes[position + layout::BATCH_LENGTH] = 0x7f;
        fs::write(&file, &bytes).expect("damages");
        if !index {
            fs::write(&files(folder.path(), "index")[0], b"").expect("loses");
        }
        let (dir, log) = opened(folder.path(), &one_segment());
        let (found, lost) = read_across(&log);
        assert_eq!(lost, [(2, 3)]);
        assert_eq!(found, (0..2).chain(3..23).collect::<Vec<_>>());
        dir.shutdown().expect("stops");
        drop((dir, log));
        bytes[position + layout::BATCH_LENGTH] = 0;
        fs::write(&file, &bytes).expect("repairs");
    }
}

#[test]
fn bytes_that_are_full_of_headers_take_no_longer_than_others() {
    let folder = tempfile::tempdir().expect("a folder");
    written(folder.path(), &one_segment(), 5, true);
    let file = files(folder.path(), "log").remove(0);
    let mut bytes = fs::read(&file).expect("reads");
    let (position, _) = places(&bytes)[4];
    let sound = bytes.clone();
    // Each of them says that it goes on to the end, which a checksum would have to be computed of.
    let size = 8 << 20;
    bytes.resize(position + size, 0);
    let mut at = position;
    while at + 61 < bytes.len() {
        let header = &mut bytes[at..];
        let length = (header.len() - layout::LOG_OVERHEAD) as i32;
        header[..8].copy_from_slice(&20_i64.to_be_bytes());
        header[layout::BATCH_LENGTH..][..4].copy_from_slice(&length.to_be_bytes());
        header[layout::MAGIC] = 2;
        at += 61;
    }
    bytes[position + layout::MAGIC] = 0;
    bytes.extend_from_slice(&sound[position..]);
    fs::write(&file, &bytes).expect("damages");
    let started = Instant::now();
    let (_dir, log) = opened(folder.path(), &one_segment());
    let (found, _) = read_across(&log);
    assert_eq!(found[..8], (0..8).collect::<Vec<_>>());
    assert!(started.elapsed() < Duration::from_secs(60));
}

#[test]
fn a_cold_read_compares_checksums() {
    let folder = tempfile::tempdir().expect("a folder");
    let (_dir, log) = opened(folder.path(), &one_segment());
    for first in 0..20 {
        log.append(&batch(first * 2, 2)).expect("appends");
    }
    let file = files(folder.path(), "log").remove(0);
    let mut bytes = fs::read(&file).expect("reads");
    let (position, size) = places(&bytes)[10];
    bytes[position + size - 1] ^= 1;
    // Under the running broker's feet, as a device that forgets.
    fs::write(&file, &bytes).expect("damages");
    if !evicted(&log, &file) {
        return;
    }
    let fetched = fetch(&log, 0, 1 << 20).expect("reads");
    assert_eq!(fetched.records.len(), position, "up to the damage");
    let (found, lost) = read_across(&log);
    assert_eq!(lost, [(20, 22)]);
    assert_eq!(found.len(), 38);
    assert_eq!(log.damaged_ranges(), 1);
    log.append(&batch(40, 2)).expect("appends go on");
    assert_eq!(read_across(&log).0.len(), 40);
}

fn cuts(path: &Path) -> Vec<PathBuf> {
    files(path, "cut")
}

#[test]
fn a_log_whose_synced_end_is_damaged_ends_there_in_a_new_epoch() {
    for clean in [true, false] {
        let folder = tempfile::tempdir().expect("a folder");
        written(folder.path(), &one_segment(), 20, clean);
        let file = files(folder.path(), "log").remove(0);
        let mut bytes = fs::read(&file).expect("reads");
        let (position, _) = places(&bytes)[17];
        bytes[position + 20..].fill(0);
        fs::write(&file, &bytes).expect("damages");
        let (dir, log) = opened(folder.path(), &one_segment());
        assert_eq!(log.offsets().log_end_offset, 34);
        assert_eq!(log.leader_epoch(), 1, "clean {clean}");
        assert_eq!(log.end_offset_for_epoch(0), Some((0, 34)));
        let kept = cuts(folder.path());
        assert_eq!(kept.len(), 1, "{kept:?}");
        assert!(
            kept[0].ends_with(format!("00000000000000000000.log.{position}.cut")),
            "{kept:?}"
        );
        assert_eq!(fs::read(&kept[0]).expect("reads"), bytes[position..]);
        log.append(&batch(34, 2)).expect("appends");
        assert_eq!(read_across(&log).0, (0..36).collect::<Vec<_>>());
        dir.shutdown().expect("stops");
        drop((dir, log));
        let (_dir, log) = opened(folder.path(), &one_segment());
        assert_eq!(log.offsets().log_end_offset, 36);
        assert_eq!(log.leader_epoch(), 1, "the next start is a clean one");
        assert_eq!(cuts(folder.path()), kept, "a start keeps what was cut off");
    }
}

#[test]
fn sound_batches_behind_a_torn_one_are_kept_beside_the_log() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = LogConfig {
        segment_bytes: 1000,
        ..one_segment()
    };
    {
        let (_dir, log) = opened(folder.path(), &config);
        for first in 0..40 {
            log.append(&batch(first * 2, 2)).expect("appends");
        }
    }
    let segments = files(folder.path(), "log");
    assert!(segments.len() > 3, "{}", segments.len());
    let before: Vec<Vec<u8>> = segments
        .iter()
        .map(|file| fs::read(file).expect("reads"))
        .collect();
    let places = places(&before[1]);
    let (position, size) = places[2];
    let mut torn = before[1].clone();
    torn[position + 30..position + size].fill(0);
    fs::write(&segments[1], &torn).expect("tears");
    let end = batches(&before[1])
        .nth(2)
        .expect("there")
        .expect("whole")
        .base_offset();
    let (dir, log) = opened(folder.path(), &config);
    assert_eq!(log.offsets().log_end_offset, end);
    assert_eq!(files(folder.path(), "log").len(), 2);
    let kept = cuts(folder.path());
    assert_eq!(kept.len(), segments.len() - 1, "{kept:?}");
    assert_eq!(fs::read(&kept[0]).expect("reads"), torn[position..]);
    for (kept, before) in kept[1..].iter().zip(&before[2..]) {
        assert!(kept.to_string_lossy().ends_with(".log.0.cut"), "{kept:?}");
        assert_eq!(&fs::read(kept).expect("reads"), before);
    }
    // The same again, at the same place: the earlier one stays.
    log.append(&batch(end, 2)).expect("appends");
    log.append(&batch(end + 2, 2)).expect("appends");
    drop((dir, log));
    let mut torn = fs::read(&segments[1]).expect("reads");
    torn[position + 30] ^= 1;
    fs::write(&segments[1], &torn).expect("tears");
    let (_dir, log) = opened(folder.path(), &config);
    assert_eq!(log.offsets().log_end_offset, end);
    let both = cuts(folder.path());
    assert_eq!(both.len(), kept.len() + 1, "{both:?}");
    assert!(kept.iter().all(|kept| both.contains(kept)));
    assert_eq!(read_across(&log).0, (0..end).collect::<Vec<_>>());
}

#[test]
fn a_torn_tail_alone_is_not_kept() {
    let folder = tempfile::tempdir().expect("a folder");
    {
        let (_dir, log) = opened(folder.path(), &one_segment());
        for first in 0..10 {
            log.append(&batch(first * 2, 2)).expect("appends");
        }
    }
    let file = files(folder.path(), "log").remove(0);
    let bytes = fs::read(&file).expect("reads");
    fs::write(&file, &bytes[..bytes.len() - 7]).expect("tears");
    let (_dir, log) = opened(folder.path(), &one_segment());
    assert_eq!(log.offsets().log_end_offset, 18);
    assert_eq!(cuts(folder.path()), Vec::<PathBuf>::new());
}

#[tokio::test]
async fn a_damaged_log_goes_on_being_written_deleted_from_and_stopped() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = LogConfig {
        segment_bytes: 2000,
        ..one_segment()
    };
    {
        let (_dir, log) = opened(folder.path(), &config);
        for sequence in 0..60 {
            log.append(&produced(7, 0, sequence * 2, 2))
                .expect("appends");
        }
        _dir.checkpoint().expect("checkpoints");
    }
    // The first batch of the newest segment, and one in the middle of each other.
    for file in files(folder.path(), "log") {
        let mut bytes = fs::read(&file).expect("reads");
        let places = places(&bytes);
        if let Some((position, _)) = places.get(places.len() / 2) {
            bytes[position + layout::MAGIC] = 0;
        }
        fs::write(&file, &bytes).expect("damages");
    }
    for snapshot in files(folder.path(), "snapshot") {
        fs::remove_file(snapshot).expect("loses");
    }
    let (dir, log) = opened(folder.path(), &config);
    // The producer's state comes from the batches on either side.
    assert!(
        log.append(&produced(7, 0, 118, 2))
            .expect("known")
            .duplicate
    );
    let appended = log.append(&produced(7, 0, 120, 2)).expect("the next one");
    log.wait(appended.last_offset + 1, Durability::Disk)
        .await
        .expect("syncs");
    let (_, lost) = read_across(&log);
    assert!(!lost.is_empty());
    let (from, to) = lost[0];
    // Into the damage, and behind it.
    for start in [from + 1, to] {
        let starts = dir.delete_records(&[(Arc::clone(&log), DeleteTo::Offset(start))]);
        assert_eq!(starts[0].clone().expect("deletes"), start);
        assert_eq!(log.offsets().log_start_offset, start);
    }
    dir.checkpoint().expect("checkpoints");
    dir.shutdown().expect("stops");
    drop((dir, log));
    let (dir, log) = opened(folder.path(), &config);
    assert!(dir.was_clean());
    assert_eq!(log.offsets().log_start_offset, to);
    assert_eq!(log.offsets().log_end_offset, 122);
}

#[test]
fn an_impossible_first_batch_does_not_keep_others_from_being_appended() {
    let folder = tempfile::tempdir().expect("a folder");
    written(folder.path(), &one_segment(), 20, true);
    let file = files(folder.path(), "log").remove(0);
    let mut bytes = fs::read(&file).expect("reads");
    bytes[..61].fill(0xff);
    fs::write(&file, &bytes).expect("damages");
    let (_dir, log) = opened(folder.path(), &one_segment());
    let batch: Bytes = batch(40, 2);
    assert_eq!(log.append(&batch).expect("appends").base_offset, 40);
    let (found, lost) = read_across(&log);
    assert_eq!(lost, [(0, 2)]);
    assert_eq!(found, (2..42).collect::<Vec<_>>());
}
