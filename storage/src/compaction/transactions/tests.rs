//! Logs of a few transactions.

use bytes::Bytes;

use super::*;
use crate::batch::{Compression, retain};
use crate::compaction::test_batches::{by, changed, marker, parse, plain, transactional};

const ABORT: i16 = 0;
const COMMIT: i16 = 1;

fn data(producer_id: i64, offset: Offset) -> Bytes {
    let record = (0, Some("key"), Some("value"));
    transactional(&by(producer_id, offset, Compression::None, &[record]))
}

fn learnt(log: &[Bytes]) -> Transactions {
    let mut transactions = Transactions::default();
    assert!(!transactions.are_known());
    for batch in log {
        transactions.learn(&parse(batch));
    }
    transactions.learnt();
    assert!(transactions.are_known());
    transactions
}

/// The base offsets of the data batches that were aborted.
fn aborted(transactions: &Transactions, log: &[Bytes]) -> Vec<Offset> {
    let batches = log.iter().map(|batch| parse(batch));
    let data = batches.filter(|batch| !batch.is_control());
    let aborted = data.filter(|batch| transactions.is_aborted(batch));
    aborted.map(|batch| batch.base_offset()).collect()
}

#[test]
fn batches_of_aborted_transactions_are_told_from_others() {
    let not_transactional =
        |producer, offset| by(producer, offset, Compression::None, &[(0, Some("a"), None)]);
    let log = [
        data(1, 0),
        data(2, 1),
        data(1, 2),
        not_transactional(1, 3),
        marker(1, 4, ABORT),
        data(1, 5),
        marker(2, 6, COMMIT),
        data(2, 7),
        marker(1, 8, COMMIT),
        marker(2, 9, ABORT),
        marker(3, 10, ABORT),
        data(3, 11),
        marker(3, 12, COMMIT),
        plain(13, Compression::None, &[(0, Some("a"), None)]),
    ];
    let transactions = learnt(&log);
    assert_eq!(aborted(&transactions, &log), [0, 2, 7]);
    assert_eq!(transactions.first_undecided(), None);
}

#[test]
fn a_transaction_without_a_marker_is_undecided() {
    let log = [
        data(1, 0),
        marker(1, 1, COMMIT),
        data(2, 2),
        data(1, 3),
        data(1, 4),
        marker(2, 5, ABORT),
    ];
    assert_eq!(learnt(&log[..1]).first_undecided(), Some(0));
    assert_eq!(learnt(&log[..3]).first_undecided(), Some(2));
    assert_eq!(learnt(&log).first_undecided(), Some(3));
    assert_eq!(aborted(&learnt(&log), &log), [2]);
    assert_eq!(aborted(&learnt(&log[..5]), &log), [0; 0]);
}

#[test]
fn what_cannot_be_read_may_have_been_a_marker() {
    let damaged = {
        let mut bytes = marker(1, 1, COMMIT).to_vec();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        Bytes::from(bytes)
    };
    let short_key = changed(&marker(1, 1, COMMIT), |bytes| {
        // The key's length, after four fields of a byte: 4 becomes 3, and the value's 7.
        bytes[layout_records() + 4] = 3 << 1;
        bytes.swap(layout_records() + 8, layout_records() + 9);
        bytes[layout_records() + 8] = 7 << 1;
    });
    // A marker of which a changed bit makes a data batch.
    let disguised = {
        let mut bytes = marker(1, 1, COMMIT).to_vec();
        bytes[crate::batch::layout::ATTRIBUTES + 1] &= !(1 << 5);
        Bytes::from(bytes)
    };
    for bad in [damaged, short_key, disguised] {
        let log = [data(1, 0), bad, data(1, 2), marker(1, 3, ABORT)];
        let transactions = learnt(&log);
        assert_eq!(aborted(&transactions, &log), [0; 0]);
        assert_eq!(transactions.first_undecided(), Some(0));
        let log = [&log[1..], &[]].concat();
        assert_eq!(learnt(&log).first_undecided(), Some(1));
    }
    let mut transactions = learnt(&[data(2, 7), marker(2, 8, ABORT)]);
    transactions.unreadable_from(9);
    transactions.unreadable_from(12);
    assert_eq!(transactions.first_undecided(), Some(9));
    assert_eq!(aborted(&transactions, &[data(2, 7)]), [7]);
}

fn layout_records() -> usize {
    crate::batch::layout::RECORDS
}

#[test]
fn other_control_batches_end_no_transaction_and_stay() {
    let log = [data(1, 0), marker(1, 1, 2), marker(1, 2, ABORT)];
    let mut transactions = learnt(&log);
    assert_eq!(aborted(&transactions, &log), [0]);
    assert!(transactions.pass_data(&parse(&log[0])));
    assert!(!transactions.pass_control(&parse(&log[1])).unwrap());
    assert!(!transactions.pass_control(&parse(&log[2])).unwrap());
    assert!(transactions.pass_control(&parse(&log[2])).unwrap());
}

#[test]
fn a_marker_is_needed_while_a_batch_of_its_transaction_is_there() {
    let log = [
        data(1, 0),
        data(2, 1),
        marker(1, 2, COMMIT),
        marker(2, 3, ABORT),
        marker(1, 4, COMMIT),
        marker(2, 5, ABORT),
    ];
    let mut transactions = learnt(&log);
    for _ in 0..2 {
        transactions.begin_pass();
        assert!(!transactions.pass_data(&parse(&log[0])));
        assert!(transactions.pass_data(&parse(&log[1])));
        let control = |at: usize, transactions: &mut Transactions| {
            transactions.pass_control(&parse(&log[at])).unwrap()
        };
        assert!(!control(2, &mut transactions));
        assert!(!control(3, &mut transactions));
        assert!(control(4, &mut transactions));
        assert!(control(5, &mut transactions));
        // A pass that ends in the midst of a transaction leaves nothing to the next one.
        transactions.pass_data(&parse(&log[0]));
    }
    let emptied = retain::emptied(&parse(&log[2])).unwrap();
    transactions.pass_data(&parse(&log[0]));
    assert!(transactions.pass_control(&parse(&emptied)).unwrap());
}

#[test]
fn an_emptied_marker_ends_its_transaction_and_aborts_nothing() {
    let emptied = Bytes::from(retain::emptied(&parse(&marker(1, 1, ABORT))).unwrap());
    let log = [data(1, 0), emptied, data(1, 2), marker(1, 3, ABORT)];
    let transactions = learnt(&log);
    assert_eq!(aborted(&transactions, &log), [2]);
    assert_eq!(transactions.first_undecided(), None);
}
