//! Markers whose append fails, at any call: nothing of them is left, the transaction is open as before,
//! and it can be ended then.

use super::*;

/// What the log has when the marker comes, and what that makes it do besides writing the batch.
type Before = (&'static str, fn(&PartitionLog));

const CASES: [Before; 4] = [
    ("the first in its segment", |log| {
        data(log, 1, 2);
        data(log, 2, 1);
    }),
    ("as many as are gathered", |log| {
        for _ in 0..63 {
            data(log, 2, 1);
            abort(log, 2);
        }
        data(log, 2, 1);
        data(log, 1, 2);
    }),
    ("a full segment", |log| {
        data(log, 2, 1);
        data(log, 1, 1);
        log.set_config(Arc::new(segments_of(log.size_bytes())));
    }),
    ("behind others", |log| {
        data(log, 2, 1);
        abort(log, 2);
        data(log, 1, 2);
        data(log, 2, 2);
    }),
];

fn segments_of(segment_bytes: u64) -> LogConfig {
    LogConfig {
        segment_bytes,
        ..config()
    }
}

fn open_on(disk: &FaultyDisk, path: &Path) -> (LogDir, Arc<PartitionLog>) {
    let dir = open_dir_on(Arc::new(disk.clone()), path).expect("opens");
    // Room for the most that a case has.
    let log = open_log(&dir, segments_of(12_000));
    (dir, log)
}

/// What a start finds after a kill, and after a power cut.
fn check_starts(disk: &FaultyDisk, end: Offset, place: &str) {
    for keep in [Keep::All, Keep::None, Keep::Some(7)] {
        let folder = folder_in_memory();
        write_tree(&disk.image().tree(keep), folder.path()).expect("writes");
        let (dir, log) = open(folder.path());
        let place = format!("{place}, {keep:?}");
        assert!(log.offsets().log_end_offset <= end, "{place}");
        check_some(folder.path(), &log, &place);
        dir.shutdown().expect("stops");
        drop((log, dir));
        let (_dir, log) = open(folder.path());
        check_some(folder.path(), &log, &place);
    }
}

#[test]
fn a_marker_that_cannot_be_written_leaves_nothing() {
    const CALLS: [Call; 7] = [
        Call::Write,
        Call::Create,
        Call::Open,
        Call::Read,
        Call::SetLen,
        Call::RemoveFile,
        Call::Sync,
    ];
    let failures = [
        Failure::Errno(libc::ENOSPC),
        Failure::Errno(libc::EMFILE),
        Failure::Torn(libc::EIO),
    ];
    let mut failed = 0;
    for (name, before) in CASES {
        for call in CALLS {
            for failure in failures {
                for skip in 0..6 {
                    let place = format!("{name}, {call:?} {failure:?} after {skip}");
                    let folder = folder_in_memory();
                    let disk = FaultyDisk::over(folder.path());
                    let (_dir, log) = open_on(&disk, folder.path());
                    before(&log);
                    let offsets = log.offsets();
                    let transactions = open_transactions(&log);
                    assert!(transactions.contains_key(&1));
                    disk.fail(
                        Fault::new(call, failure)
                            .in_folder("events-0")
                            .once_after(skip),
                    );
                    let appended = try_to_end(&log, 1, TransactionResult::Abort);
                    disk.heal();
                    let Err(error) = appended else {
                        // So many calls are not made.
                        break;
                    };
                    assert!(!matches!(error, Error::ReadOnly(_)), "{place}: {error}");
                    failed += 1;
                    assert_eq!(log.offsets(), offsets, "{place}");
                    assert_eq!(open_transactions(&log), transactions, "{place}");
                    check_some(folder.path(), &log, &place);
                    check_starts(&disk, offsets.log_end_offset, &place);
                    let again = try_to_end(&log, 1, TransactionResult::Abort);
                    assert_eq!(again.expect("appends"), offsets.log_end_offset);
                    // Then readers get to it.
                    let end = commit(&log, 2) + 1;
                    check_reads(folder.path(), &log, &place, &[300], 1);
                    check_starts(&disk, end, &place);
                }
            }
        }
    }
    assert!(failed > 50, "{failed} have failed");
}

#[test]
fn a_marker_that_cannot_be_cut_back_is_told_by_the_next_start() {
    for (name, before) in CASES {
        let folder = folder_in_memory();
        let disk = FaultyDisk::over(folder.path());
        let (dir, log) = open_on(&disk, folder.path());
        before(&log);
        let offsets = log.offsets();
        for call in [Call::Write, Call::Create] {
            disk.fail(Fault::new(call, Failure::Errno(libc::ENOSPC)).on(".txnindex"));
        }
        disk.fail(failing_cuts());
        let appended = try_to_end(&log, 1, TransactionResult::Abort);
        disk.heal();
        if name == "behind others" {
            // Its entry is held.
            assert!(appended.is_ok(), "{name}");
            continue;
        }
        assert!(
            matches!(appended, Err(Error::ReadOnly(_))),
            "{name}: {appended:?}"
        );
        assert_eq!(log.offsets(), offsets, "{name}");
        let again = try_to_end(&log, 1, TransactionResult::Abort);
        assert!(
            matches!(again, Err(Error::ReadOnly(_))),
            "{name}: {again:?}"
        );
        assert!(dir.shutdown().is_err());
        check_starts(&disk, offsets.log_end_offset + 1, name);
    }
}

#[test]
fn a_marker_among_batches_that_fail_together_leaves_nothing() {
    let folder = folder_in_memory();
    let (dir, log) = open(folder.path());
    data(&log, 2, 1);
    data(&log, 1, 1);
    abort(&log, 1);
    data(&log, 1, 1);
    let before = (log.offsets(), open_transactions(&log));
    let abort_it = marker(&log, 1, TransactionResult::Abort).batch(1_000);
    // Over several segments, each with an aborted transaction, and the last batch is torn.
    let mut together = Vec::new();
    for sequence in 2..30 {
        together.extend_from_slice(&abort_it);
        together.extend_from_slice(&part(1, 0, sequence, &[7]));
    }
    let whole = Bytes::from(together.clone());
    together.truncate(together.len() - 1);
    assert!(log.append_internal(&together.into()).is_err());
    assert_eq!((log.offsets(), open_transactions(&log)), before);
    check(folder.path(), &log, "nothing is left");
    data(&log, 1, 1);
    abort(&log, 1);
    check(folder.path(), &log, "another is ended");
    let at = log.append_internal(&whole).expect("appends");
    assert_eq!(at.end - at.start, 56);
    check(folder.path(), &log, "they are all there");
    assert!(files(folder.path(), "txnindex").len() > 3);
    drop((log, dir));
    let (_dir, log) = open(folder.path());
    check(folder.path(), &log, "after a start");
}

#[test]
fn a_marker_that_fails_makes_the_log_forget_no_producer_s_batches() {
    let folder = folder_in_memory();
    let disk = FaultyDisk::over(folder.path());
    let (dir, log) = open_on(&disk, folder.path());
    for sequence in 0..4 {
        log.append(&produced(7, 0, sequence, 1)).expect("appends");
        log.append(&part(1, 0, sequence, &[7])).expect("appends");
    }
    // A snapshot has the last batch of each.
    dir.checkpoint().expect("checkpoints");
    disk.fail(Fault::new(Call::Create, Failure::Errno(libc::ENOSPC)).on(".txnindex"));
    let refused = try_to_end(&log, 1, TransactionResult::Abort);
    assert!(refused.is_err(), "{refused:?}");
    disk.heal();
    for sequence in 0..4 {
        for batch in [produced(7, 0, sequence, 1), part(1, 0, sequence, &[7])] {
            let again = log.append(&batch).expect("is known");
            assert!(again.duplicate, "{sequence}");
        }
    }
    abort(&log, 1);
    check(folder.path(), &log, "ended");
}

#[test]
fn a_full_disk_keeps_a_transaction_open_until_there_is_room() {
    let folder = folder_in_memory();
    let disk = FaultyDisk::over(folder.path());
    let (dir, log) = open_on(&disk, folder.path());
    data(&log, 1, 2);
    set_room(&disk, Some(40));
    for _ in 0..3 {
        let refused = try_to_end(&log, 1, TransactionResult::Abort).expect_err("no room");
        assert!(refused.is_disk_full(), "{refused}");
        assert_eq!(log.offsets().last_stable_offset, 0);
    }
    set_room(&disk, None);
    assert_eq!(abort(&log, 1), 2);
    check(folder.path(), &log, "with room");
    // Entries that are held get their room later.
    for _ in 0..10 {
        data(&log, 1, 1);
        abort(&log, 1);
    }
    set_room(&disk, Some(40));
    assert!(dir.checkpoint().is_err());
    check(folder.path(), &log, "held");
    set_room(&disk, None);
    dir.checkpoint().expect("checkpoints");
    check_starts(&disk, log.offsets().log_end_offset, "after all");
}
