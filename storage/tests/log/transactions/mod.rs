//! Transactions: what read_committed readers see, and what the log knows of them after whatever happens
//! to it.

mod compaction;
mod damage;
mod failed_writes;
mod power_cut;
mod walk;

use std::collections::BTreeMap;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use faulty_disk::{Keep, Random, write_tree};
use storage::batch::{
    Batch, BatchBuilder, Compression, EndMarker, Record, TransactionResult, batches, decode,
};
use storage::config::NEVER;
use storage::partition_log::{DeleteTo, Fetched, Read, ReadLimit};
use storage::{Error, LogConfig, LogDir, Offset, PartitionLog, Result};

use crate::fixture::*;
use walk::{Walk, committed};

/// Markers have the broker's time, and the records' is long ago: no segment rolls for that.
fn config() -> LogConfig {
    LogConfig {
        segment_ms: NEVER,
        ..small_segments()
    }
}

fn open(path: &Path) -> (LogDir, Arc<PartitionLog>) {
    let dir = open_dir(path);
    let log = open_log(&dir, config());
    (dir, log)
}

/// A batch of a producer's transaction, whose keys and values are numbers.
fn part(producer_id: i64, epoch: i16, sequence: i32, values: &[i64]) -> Bytes {
    let mut batch = BatchBuilder::new(Compression::None)
        .producer(producer_id, epoch, sequence)
        .transactional();
    for value in values {
        let value = value.to_be_bytes();
        batch.push(1_000, Some(&value), Some(&value), &[]);
    }
    batch.build()
}

/// The producer's epoch, and its next sequence.
fn next_of(log: &PartitionLog, producer_id: i64) -> (i16, i32) {
    let active = log.active_producers();
    let producer = active.iter().find(|found| found.producer_id == producer_id);
    producer.map_or((0, 0), |found| (found.epoch, found.last_sequence + 1))
}

/// Appends a batch of `count` records to a producer's transaction; returns its first offset.
fn data(log: &PartitionLog, producer_id: i64, count: usize) -> Offset {
    let (epoch, sequence) = next_of(log, producer_id);
    let end = log.offsets().log_end_offset;
    let values: Vec<i64> = (end..end + count as i64).collect();
    let appended = log.append(&part(producer_id, epoch, sequence, &values));
    appended.expect("appends").base_offset
}

fn marker(log: &PartitionLog, producer_id: i64, result: TransactionResult) -> EndMarker {
    EndMarker {
        producer_id,
        producer_epoch: next_of(log, producer_id).0,
        coordinator_epoch: 0,
        result,
    }
}

fn try_to_end(log: &PartitionLog, producer_id: i64, result: TransactionResult) -> Result<Offset> {
    let appended = log.append_marker(&marker(log, producer_id, result))?;
    assert_eq!(appended.end, appended.start + 1);
    Ok(appended.start)
}

/// Returns the marker's offset.
fn abort(log: &PartitionLog, producer_id: i64) -> Offset {
    try_to_end(log, producer_id, TransactionResult::Abort).expect("appends")
}

/// Returns the marker's offset.
fn commit(log: &PartitionLog, producer_id: i64) -> Offset {
    try_to_end(log, producer_id, TransactionResult::Commit).expect("appends")
}

/// Takes `steps` of several producers' transactions in turn, and of one that has none.
fn interleave(log: &PartitionLog, random: &mut Random, steps: usize) {
    for _ in 0..steps {
        let producer_id = random.below(4) as i64;
        match random.below(8) {
            0 => {
                let end = log.offsets().log_end_offset;
                log.append(&batch(end, 2)).expect("appends");
            }
            1 => {
                commit(log, producer_id);
            }
            2 | 3 => {
                abort(log, producer_id);
            }
            _ => {
                data(log, producer_id, 1 + random.below(2) as usize);
            }
        }
    }
}

fn fetch_committed(log: &PartitionLog, offset: Offset, max_bytes: usize) -> Result<Fetched> {
    match log.read(offset, max_bytes, true, ReadLimit::LastStableOffset)? {
        Read::Warm(fetched) => Ok(fetched),
        Read::Cold(cold) => cold.load(),
    }
}

/// All that is in the files.
fn walk(path: &Path) -> Walk {
    let mut walk = Walk::default();
    for file in files(path, "log") {
        let bytes = std::fs::read(file).expect("reads");
        for batch in batches(&bytes) {
            walk.note(&batch.expect("a whole batch"));
        }
    }
    walk
}

/// Where the open transactions begin, by producer.
fn open_transactions(log: &PartitionLog) -> BTreeMap<i64, Offset> {
    let active = log.active_producers().into_iter();
    let open = active.filter_map(|producer| {
        let first = producer.current_txn_first_offset?;
        Some((producer.producer_id, first))
    });
    open.collect()
}

/// What readers are told of transactions is what the batches say, wherever and however much they read.
fn check(path: &Path, log: &PartitionLog, what: &str) {
    check_reads(path, log, what, &[1, 300, 1 << 20], 1);
}

/// As [`check`], of some offsets, and one size.
fn check_some(path: &Path, log: &PartitionLog, what: &str) {
    check_reads(path, log, what, &[300], 7);
}

fn check_reads(path: &Path, log: &PartitionLog, what: &str, max_bytes: &[usize], step: usize) {
    let walk = walk(path);
    let offsets = log.offsets();
    let (start, stable) = (offsets.log_start_offset, offsets.last_stable_offset);
    let expected = walk.last_stable_offset(start..offsets.log_end_offset);
    assert_eq!(stable, expected, "{what}");
    assert!(stable <= offsets.high_watermark, "{what}");
    assert_eq!(open_transactions(log), walk.open, "{what}");
    for max_bytes in max_bytes {
        for offset in (start..=stable).step_by(step) {
            let place = format!("{what}, {max_bytes} bytes from {offset}");
            let fetched = fetch_committed(log, offset, *max_bytes).expect("reads");
            let Some(read) = extent(&fetched.records) else {
                assert!(offset == stable && fetched.aborted.is_empty(), "{place}");
                continue;
            };
            assert!(read.start <= offset && offset < read.end, "{place}");
            assert!(read.end <= stable, "{place}");
            let aborted = walk.aborted_in(offset..read.end);
            assert_eq!(fetched.aborted, aborted, "{place}");
            assert_eq!(taken(&fetched), walk.committed_in(read), "{place}");
        }
    }
}

/// From the first batch to the end of the last.
fn extent(records: &[u8]) -> Option<Range<Offset>> {
    let whole = |batch: Result<Batch<'_>>| {
        let batch = batch.expect("a whole batch");
        batch.base_offset()..batch.next_offset()
    };
    let first = batches(records).next().map(whole)?;
    let last = batches(records).last().map(whole)?;
    Some(first.start..last.end)
}

/// Where the batches begin that a consumer takes.
fn taken(fetched: &Fetched) -> Vec<Offset> {
    let taken = committed(&fetched.records, &fetched.aborted).into_iter();
    taken.map(|batch| batch.base_offset()).collect()
}

/// The records that a consumer takes.
fn records_taken(fetched: &Fetched) -> Vec<Record> {
    let taken = committed(&fetched.records, &fetched.aborted).into_iter();
    let decoded = taken.map(|batch| {
        let bytes = fetched.records.slice_ref(batch.bytes());
        decode(&bytes, bytes.len()).expect("decodes")
    });
    decoded.flatten().collect()
}

#[test]
fn only_markers_raise_what_is_stable() {
    let folder = folder_in_memory();
    let (_dir, log) = open(folder.path());
    let stable = || log.offsets().last_stable_offset;
    log.append(&batch(0, 2)).expect("appends");
    assert_eq!(stable(), 2);
    assert_eq!((data(&log, 1, 2), stable()), (2, 2));
    assert_eq!((data(&log, 2, 1), stable()), (4, 2));
    log.append(&batch(5, 3)).expect("appends");
    assert_eq!((data(&log, 1, 1), stable()), (8, 2));
    // The later one, and that of a producer which has nothing here.
    assert_eq!((abort(&log, 2), stable()), (9, 2));
    assert_eq!((commit(&log, 3), stable()), (10, 2));
    assert_eq!((data(&log, 2, 1), stable()), (11, 2));
    assert_eq!((commit(&log, 1), stable()), (12, 11));
    assert_eq!((data(&log, 1, 1), stable()), (13, 11));
    assert_eq!((abort(&log, 2), stable()), (14, 13));
    assert_eq!((commit(&log, 1), stable()), (15, 16));
    assert_eq!(log.offsets().high_watermark, 16);
    check(folder.path(), &log, "at the end");
}

#[test]
fn readers_wait_at_what_is_stable_and_hear_of_markers() {
    let folder = folder_in_memory();
    let (_dir, log) = open(folder.path());
    log.append(&batch(0, 3)).expect("appends");
    data(&log, 1, 2);
    let whole = fetch_committed(&log, 0, 1 << 20).expect("reads");
    assert_eq!(whole.records.len(), batch(0, 3).len());
    assert!(
        fetch_committed(&log, 3, 1 << 20)
            .expect("reads")
            .records
            .is_empty()
    );
    for beyond in [4, 5] {
        let refused = fetch_committed(&log, beyond, 1);
        assert!(
            matches!(refused, Err(Error::OffsetOutOfRange { end: 3, .. })),
            "{refused:?}"
        );
    }
    // Who reads uncommitted sees all of it, and is told of no transactions.
    abort(&log, 1);
    let fetched = fetch(&log, 0, 1 << 20).expect("reads");
    assert_eq!(
        (batches(&fetched.records).count(), fetched.aborted.len()),
        (3, 0)
    );
    data(&log, 1, 1);
    let mut watch = log.watch();
    assert_eq!(watch.borrow_and_update().last_stable_offset, 6);
    commit(&log, 1);
    assert!(watch.has_changed().expect("the log is there"));
    assert_eq!(watch.borrow_and_update().last_stable_offset, 8);
}

#[test]
fn what_is_stable_is_not_below_the_log_s_start() {
    let folder = folder_in_memory();
    let (mut dir, mut log) = open(folder.path());
    data(&log, 1, 3);
    for _ in 0..20 {
        let end = log.offsets().log_end_offset;
        log.append(&batch(end, 3)).expect("appends");
    }
    data(&log, 1, 3);
    let delete = |dir: &LogDir, log: &Arc<PartitionLog>, offset| {
        let wanted = [(Arc::clone(log), DeleteTo::Offset(offset))];
        dir.delete_records(&wanted).remove(0).expect("deletes");
        let offsets = log.offsets();
        assert_eq!(
            (offsets.log_start_offset, offsets.last_stable_offset),
            (offset, offset)
        );
    };
    // Inside of the batch that it begins with, and behind.
    delete(&dir, &log, 1);
    assert_eq!(fetch_committed(&log, 1, 1).expect("reads").records.len(), 0);
    delete(&dir, &log, 31);
    for restart in ["none", "unclean", "clean"] {
        if restart == "clean" {
            dir.shutdown().expect("stops");
        }
        if restart != "none" {
            drop((log, dir));
            (dir, log) = open(folder.path());
        }
        log.append(&batch(0, 1)).expect("appends");
        // A start may know of its first batch that is left.
        let stable = log.offsets().last_stable_offset;
        assert!(
            stable == 31 || (stable == 63 && restart != "none"),
            "{restart}: {stable}"
        );
        assert_eq!(open_transactions(&log).len(), 1, "{restart}");
    }
    // All of it is deleted, and it is open still.
    let end = log.offsets().log_end_offset;
    delete(&dir, &log, end);
    drop((log, dir));
    (dir, log) = open(folder.path());
    assert_eq!(log.offsets().last_stable_offset, end);
    log.append(&batch(0, 1)).expect("appends");
    assert_eq!(log.offsets().last_stable_offset, end);
    abort(&log, 1);
    assert_eq!(log.offsets().last_stable_offset, end + 2);
    let fetched = fetch_committed(&log, end, 1 << 20).expect("reads");
    assert_eq!(taken(&fetched), [end]);
    drop((log, dir));
    let (_dir, log) = open(folder.path());
    assert_eq!(log.offsets().last_stable_offset, end + 2);
}

#[test]
fn a_transaction_is_over_though_its_marker_is_deleted() {
    let folder = folder_in_memory();
    let (dir, log) = open(folder.path());
    data(&log, 1, 2);
    data(&log, 2, 1);
    // A snapshot has them as open.
    dir.checkpoint().expect("checkpoints");
    commit(&log, 1);
    let end = log.offsets().log_end_offset;
    let wanted = [(Arc::clone(&log), DeleteTo::Offset(end))];
    assert!(dir.delete_records(&wanted)[0].is_ok());
    drop((log, dir));
    let (_dir, log) = open(folder.path());
    log.append(&batch(0, 3)).expect("appends");
    assert_eq!(open_transactions(&log), BTreeMap::from([(2, 2)]));
    assert_eq!(log.offsets().last_stable_offset, end);
    // Markers of which there is nothing abort nothing.
    abort(&log, 1);
    abort(&log, 2);
    assert_eq!(log.offsets().last_stable_offset, end + 5);
    let fetched = fetch_committed(&log, end, 1 << 20).expect("reads");
    assert!(
        fetched
            .aborted
            .iter()
            .all(|aborted| aborted.producer_id == 2)
    );
}

#[test]
fn a_read_is_told_of_what_was_aborted_in_it_and_of_nothing_else() {
    let folder = folder_in_memory();
    let (_dir, log) = open(folder.path());
    // One over many segments, with others in it that lie in one.
    data(&log, 9, 2);
    for seed in 0..4 {
        interleave(&log, &mut Random::new(seed), 40);
        check(folder.path(), &log, "while one is open from the start on");
    }
    abort(&log, 9);
    interleave(&log, &mut Random::new(7), 60);
    for producer_id in 0..4 {
        commit(&log, producer_id);
    }
    check(folder.path(), &log, "when none is open");
    let all = walk(folder.path()).aborted;
    assert!(all.len() > 20, "{} aborted", all.len());
    assert!(files(folder.path(), "txnindex").len() > 5);
    assert!(files(folder.path(), "log").len() > 10);
    let offsets = log.offsets();
    assert_eq!(offsets.last_stable_offset, offsets.log_end_offset);
}

#[test]
fn entries_beyond_those_that_are_gathered_are_found() {
    let folder = folder_in_memory();
    let dir = open_dir(folder.path());
    let config = LogConfig {
        segment_bytes: 1 << 20,
        ..config()
    };
    let log = open_log(&dir, config);
    // Some are in the file, the rest are held.
    for _ in 0..150 {
        data(&log, 1, 1);
        abort(&log, 1);
    }
    check(folder.path(), &log, "before");
    let index = files(folder.path(), "txnindex").remove(0);
    let written = std::fs::metadata(&index).expect("is there").len();
    assert!(written > 0 && written < 150 * 34, "{written} bytes");
    dir.checkpoint().expect("checkpoints");
    let written = std::fs::metadata(&index).expect("is there").len();
    assert_eq!(written, 150 * 34);
    check(folder.path(), &log, "after");
}

#[test]
fn a_cold_read_is_told_of_the_same() {
    let folder = tempfile::tempdir().expect("a folder");
    {
        let (dir, log) = open(folder.path());
        data(&log, 9, 2);
        interleave(&log, &mut Random::new(1), 200);
        abort(&log, 9);
        dir.shutdown().expect("stops");
    }
    let evict = || {
        for suffix in ["log", "index", "txnindex"] {
            for file in files(folder.path(), suffix) {
                let file = std::fs::File::open(file).expect("opens");
                let (fd, advice) = (file.as_raw_fd(), libc::POSIX_FADV_DONTNEED);
                // SAFETY: the descriptor is open.
                assert_eq!(unsafe { libc::posix_fadvise(fd, 0, 0, advice) }, 0);
            }
        }
    };
    let walk = walk(folder.path());
    let (_dir, log) = open(folder.path());
    let mut cold = 0;
    let stable = log.offsets().last_stable_offset;
    for offset in (0..stable).step_by(7) {
        evict();
        let read = log.read(offset, 300, true, ReadLimit::LastStableOffset);
        let fetched = match read.expect("reads") {
            Read::Warm(fetched) => fetched,
            Read::Cold(read) => {
                cold += 1;
                read.load().expect("loads")
            }
        };
        let read = extent(&fetched.records).expect("a batch");
        let aborted = walk.aborted_in(offset..read.end);
        assert_eq!(fetched.aborted, aborted, "from {offset}");
    }
    // A file system in memory has no other place for them.
    println!("{cold} cold reads");
    // The batches alone are there: the entries have to be waited for, too.
    evict();
    drop(fetch(&log, 0, 1 << 20).expect("reads"));
    let fetched = fetch_committed(&log, 0, 1 << 20).expect("reads");
    assert!(!fetched.aborted.is_empty());
}

#[test]
fn stale_markers_and_batches_leave_nothing() {
    let folder = folder_in_memory();
    let (_dir, log) = open(folder.path());
    data(&log, 1, 2);
    // Under KIP-890 the marker has the epoch of the next transaction.
    let with = |producer_epoch, coordinator_epoch| EndMarker {
        producer_id: 1,
        producer_epoch,
        coordinator_epoch,
        result: TransactionResult::Abort,
    };
    log.append_marker(&with(1, 7)).expect("appends");
    let before = log.offsets();
    let late = log.append(&part(1, 0, 2, &[7]));
    assert!(
        matches!(late, Err(Error::StaleProducerEpoch { .. })),
        "{late:?}"
    );
    let late = log.append_marker(&with(0, 7));
    assert!(
        matches!(late, Err(Error::StaleProducerEpoch { .. })),
        "{late:?}"
    );
    let late = log.append_marker(&with(1, 6));
    assert!(
        matches!(late, Err(Error::StaleCoordinatorEpoch { .. })),
        "{late:?}"
    );
    let late = log.append_unsequenced(&part(1, 0, -1, &[7]));
    assert!(
        matches!(late, Err(Error::StaleProducerEpoch { .. })),
        "{late:?}"
    );
    assert_eq!(log.offsets(), before);
    let next = log
        .append_unsequenced(&part(1, 1, -1, &[7]))
        .expect("appends");
    assert_eq!((next.start, log.offsets().last_stable_offset), (3, 3));
    let plain = log.append(&produced(1, 1, 0, 1));
    assert!(
        matches!(plain, Err(Error::TransactionIsOpen { .. })),
        "{plain:?}"
    );
    assert_eq!(log.offsets().log_end_offset, 4);
    log.append(&part(1, 1, 0, &[7])).expect("appends");
    log.append_marker(&with(2, 7)).expect("appends");
    check(folder.path(), &log, "at the end");
}

#[test]
fn a_segment_s_index_goes_with_it() {
    let folder = folder_in_memory();
    let (dir, log) = open(folder.path());
    interleave(&log, &mut Random::new(3), 200);
    for producer_id in 0..4 {
        abort(&log, producer_id);
    }
    let bases = |suffix| {
        let base = |file: &std::path::PathBuf| file.file_stem()?.to_str()?.parse().ok();
        let bases = files(folder.path(), suffix);
        bases.iter().filter_map(base).collect::<Vec<Offset>>()
    };
    let (logs, indexes) = (bases("log"), bases("txnindex"));
    assert!(indexes.len() > 5, "{indexes:?}");
    let middle = logs[logs.len() / 2];
    let wanted = [(Arc::clone(&log), DeleteTo::Offset(middle))];
    assert!(dir.delete_records(&wanted)[0].is_ok());
    let left: Vec<_> = indexes.into_iter().filter(|base| *base >= middle).collect();
    assert_eq!(bases("txnindex"), left);
    let offset = log.offsets().log_start_offset;
    let fetched = fetch_committed(&log, offset, 1 << 20).expect("reads");
    assert!(
        fetched
            .aborted
            .iter()
            .all(|aborted| aborted.last_offset >= middle)
    );
    let wanted = [(Arc::clone(&log), DeleteTo::HighWatermark)];
    assert!(dir.delete_records(&wanted)[0].is_ok());
    assert!(bases("txnindex").is_empty());
    for name in std::fs::read_dir(partition_dir(folder.path())).expect("lists") {
        let name = name.expect("lists").file_name();
        assert!(!name.to_string_lossy().contains("txnindex"), "{name:?}");
    }
}

/// While transactions are written, readers take no record of one that was aborted.
#[test]
fn no_reader_sees_an_aborted_record_while_transactions_are_written() {
    const ROUNDS: i64 = 1_500;
    const ABORTED: i64 = 1 << 40;
    let folder = folder_in_memory();
    let dir = open_dir(folder.path());
    let config = LogConfig {
        segment_bytes: 5_000,
        ..config()
    };
    let log = open_log(&dir, config);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let (mut next, mut seen) = (0, 0);
                while seen < ROUNDS {
                    let fetched = fetch_committed(&log, next, 2_000).expect("reads");
                    for record in records_taken(&fetched) {
                        let value = record.value.expect("a value");
                        let value = i64::from_be_bytes(value.as_ref().try_into().expect("eight"));
                        assert_eq!(value, seen, "at {}", record.offset);
                        seen += 1;
                    }
                    next = extent(&fetched.records).map_or(next, |read| read.end);
                }
            });
        }
        for round in 0..ROUNDS {
            let sequence = round as i32;
            log.append(&part(1, 0, sequence, &[round]))
                .expect("appends");
            log.append(&part(2, 0, sequence, &[round | ABORTED]))
                .expect("appends");
            for (producer_id, result) in [
                (2, TransactionResult::Abort),
                (1, TransactionResult::Commit),
            ] {
                let marker = EndMarker {
                    producer_id,
                    producer_epoch: 0,
                    coordinator_epoch: 0,
                    result,
                };
                log.append_marker(&marker).expect("appends");
            }
        }
    });
}
