//! One batch, or a log of a few, through a round.

mod damage_tests;

use bytes::Bytes;

use super::*;
use crate::batch::{Compression, Header, Record};
use crate::compaction::test_batches::{
    CODECS, Plain, by, log_append_time, marker, parse, plain, records, transactional,
};

const NOW: i64 = 1_000_000;
const RETENTION: u64 = 5_000;
const HORIZON: i64 = NOW + RETENTION as i64;
const ABORT: i16 = 0;
const COMMIT: i16 = 1;

/// What a pass goes by, and its log.
struct Pass {
    map: OffsetMap,
    end_offset: Offset,
    now_ms: i64,
    last: HashMap<i64, LastRecord>,
    transactions: Transactions,
}

impl Pass {
    /// The map has `newest`, and has seen what is below `end`.
    fn new(newest: &[(&str, Offset)], end: Offset) -> Self {
        let mut map = OffsetMap::new(1 << 12, 0.9);
        for (key, offset) in newest {
            assert!(map.put(key.as_bytes(), *offset));
        }
        map.update_latest_offset(end - 1);
        Self {
            map,
            // No batch ends here.
            end_offset: Offset::MAX,
            now_ms: NOW,
            last: HashMap::new(),
            transactions: Transactions::default(),
        }
    }

    fn learn(mut self, log: &[Bytes]) -> Self {
        for batch in log {
            self.transactions.learn(&parse(batch));
        }
        self.transactions.learnt();
        self
    }

    fn filter(&mut self, batch: &Bytes) -> Result<Filtered, Refused> {
        let mut round = Round {
            map: &self.map,
            end_offset: self.end_offset,
            now_ms: self.now_ms,
            delete_retention_ms: RETENTION,
            max_message_bytes: 1 << 14,
            last_of_producers: &self.last,
            transactions: &mut self.transactions,
        };
        round.filter(&parse(batch))
    }

    fn verdict(&mut self, batch: &Bytes) -> Verdict {
        self.filter(batch).unwrap().verdict
    }

    fn rewritten(&mut self, batch: &Bytes) -> Bytes {
        match self.verdict(batch) {
            Verdict::Rewritten(bytes) => checked(batch, &bytes),
            other => panic!("{other:?}"),
        }
    }

    /// What is left of a log, batch by batch.
    fn compact(&mut self, log: &[Bytes]) -> Vec<Bytes> {
        self.transactions.begin_pass();
        let left = log.iter().filter_map(|batch| match self.verdict(batch) {
            Verdict::AsItIs => Some(batch.clone()),
            Verdict::Rewritten(bytes) => Some(checked(batch, &bytes)),
            Verdict::Gone => None,
        });
        left.collect()
    }
}

/// A rewritten batch keeps all of the header that is not about its records, and of its records what
/// they are.
fn checked(before: &[u8], after: &[u8]) -> Bytes {
    let (old, new) = (parse(before), parse(after));
    new.check_crc().unwrap();
    assert_eq!(new.size_in_bytes(), after.len());
    let identity = |batch: &Batch<'_>| {
        (
            (batch.base_offset(), batch.last_offset()),
            batch.partition_leader_epoch(),
            (batch.producer_id(), batch.producer_epoch()),
            (batch.base_sequence(), batch.last_sequence()),
            batch.timestamp_type(),
            (batch.is_transactional(), batch.is_control()),
        )
    };
    assert_eq!(identity(&old), identity(&new));
    let (old_records, new_records) = (records(before), records(after));
    assert_eq!(new.records_count() as usize, new_records.len());
    for record in &new_records {
        assert!(old_records.contains(record), "{record:?}");
    }
    if !new_records.is_empty() {
        assert_eq!(old.compression().unwrap(), new.compression().unwrap());
        let largest = new_records.iter().map(|record| record.timestamp).max();
        assert_eq!(Some(new.max_timestamp()), largest);
    }
    Bytes::copy_from_slice(after)
}

fn offsets(batch: &[u8]) -> Vec<Offset> {
    let records = records(batch);
    records.iter().map(|record| record.offset).collect()
}

const THREE: [Plain<'static>; 3] = [
    (30, Some("a"), Some("0")),
    (20, Some("b"), Some("1")),
    (10, Some("c"), Some("2")),
];

#[test]
fn older_records_of_a_key_go_and_the_others_stay_as_they_are() {
    for codec in CODECS {
        for batch in [
            plain(10, codec, &THREE),
            by(7, 10, codec, &THREE),
            log_append_time(&plain(10, codec, &THREE)),
        ] {
            // The newest are here, or nowhere: nothing changes, not a byte.
            let mut pass = Pass::new(&[("a", 10), ("b", 11)], 100);
            assert_eq!(pass.verdict(&batch), Verdict::AsItIs);
            let mut pass = Pass::new(&[("a", 99), ("c", 98)], 100);
            let left = pass.rewritten(&batch);
            assert_eq!(offsets(&left), [11]);
            assert!(!parse(&left).has_delete_horizon());
            let mut pass = Pass::new(&[("b", 50)], 100);
            assert_eq!(offsets(&pass.rewritten(&batch)), [10, 12]);
            let mut pass = Pass::new(&[("a", 97), ("b", 98), ("c", 99)], 100);
            assert_eq!(pass.verdict(&batch), Verdict::Gone);
        }
    }
}

#[test]
fn headers_of_records_stay_with_them() {
    let header = |key: &'static str, value: Option<&'static str>| Header {
        key: Bytes::from(key),
        value: value.map(Bytes::from),
    };
    let headers = [
        header("one", Some("1")),
        header("one", None),
        header("", Some("")),
    ];
    for codec in CODECS {
        let mut builder = crate::batch::BatchBuilder::new(codec);
        builder.push(5, Some(b"a"), Some(b"0"), &headers);
        builder.push(-1, Some(b"b"), None, &headers);
        builder.push(7, Some(b"c"), Some(b"2"), &[]);
        let batch = builder.build();
        let left = Pass::new(&[("a", 50)], 100).rewritten(&batch);
        let expected = |offset, timestamp, key, value, headers: &[Header]| Record {
            offset,
            timestamp,
            key: Some(Bytes::from_static(key)),
            value,
            headers: headers.to_vec(),
        };
        assert_eq!(
            records(&left),
            [
                expected(1, -1, b"b", None, &headers),
                expected(2, 7, b"c", Some(Bytes::from_static(b"2")), &[]),
            ]
        );
        assert_eq!(parse(&left).base_timestamp(), HORIZON);
    }
}

#[test]
fn records_above_what_the_map_has_seen_stay() {
    let batch = plain(
        10,
        Compression::None,
        &[THREE[0], (0, None, Some("x")), THREE[0]],
    );
    assert_eq!(Pass::new(&[("a", 9)], 10).verdict(&batch), Verdict::AsItIs);
    let mut pass = Pass::new(&[("a", 11)], 12);
    let filtered = pass.filter(&batch).unwrap();
    assert_eq!(
        (
            filtered.counts.records_kept,
            filtered.counts.keyless_dropped
        ),
        (1, 1)
    );
    assert_eq!(offsets(&pass.rewritten(&batch)), [12]);
}

#[test]
fn a_tombstone_stays_until_its_delete_horizon_has_passed() {
    let three = [THREE[0], (20, Some("b"), None), THREE[2]];
    for codec in CODECS {
        for batch in [
            plain(10, codec, &three),
            log_append_time(&by(7, 10, codec, &three)),
        ] {
            let mut pass = Pass::new(&[], 100);
            let waiting = pass.rewritten(&batch);
            assert_eq!(records(&waiting), records(&batch));
            let header = parse(&waiting);
            assert!(header.has_delete_horizon());
            assert_eq!(header.base_timestamp(), HORIZON);

            // The horizon is not moved, neither by time nor by a rewrite.
            pass.now_ms = HORIZON - 1;
            assert_eq!(pass.verdict(&waiting), Verdict::AsItIs);
            let mut later = Pass::new(&[("c", 99)], 100);
            later.now_ms = HORIZON - 1;
            let fewer = later.rewritten(&waiting);
            assert_eq!(offsets(&fewer), [10, 11]);
            assert_eq!(parse(&fewer).base_timestamp(), HORIZON);

            pass.now_ms = HORIZON;
            let filtered = pass.filter(&waiting).unwrap();
            assert_eq!(filtered.counts.tombstones_dropped, 1);
            let left = pass.rewritten(&waiting);
            assert_eq!(offsets(&left), [10, 12]);
            assert_eq!(pass.verdict(&left), Verdict::AsItIs);
        }
    }
}

/// A value that it deletes is there still, and the next pass would drop both.
#[test]
fn a_tombstone_above_what_the_map_has_seen_gets_no_horizon_yet() {
    let batch = plain(10, Compression::None, &[(0, Some("a"), None), THREE[1]]);
    for end in [10, 11] {
        assert_eq!(Pass::new(&[], end).verdict(&batch), Verdict::AsItIs);
    }
    assert!(parse(&Pass::new(&[], 12).rewritten(&batch)).has_delete_horizon());
}

#[test]
fn a_tombstone_with_a_newer_record_goes_at_once() {
    let batch = plain(10, Compression::None, &[(20, Some("b"), None)]);
    assert_eq!(Pass::new(&[("b", 11)], 100).verdict(&batch), Verdict::Gone);
    let longest = Pass::new(&[], 100);
    let mut round = longest;
    let verdict = Round {
        map: &round.map,
        end_offset: 100,
        now_ms: NOW,
        delete_retention_ms: u64::MAX,
        max_message_bytes: 1 << 14,
        last_of_producers: &round.last,
        transactions: &mut round.transactions,
    }
    .filter(&parse(&batch))
    .unwrap()
    .verdict;
    let Verdict::Rewritten(bytes) = verdict else {
        panic!("{verdict:?}");
    };
    assert_eq!(parse(&bytes).base_timestamp(), i64::MAX);
    assert_eq!(records(&bytes), records(&batch));
}

#[test]
fn the_last_batch_of_a_producer_and_of_the_round_keep_their_headers() {
    let none_newest = [("a", 97), ("b", 98), ("c", 99)];
    for codec in CODECS {
        let batch = by(7, 10, codec, &THREE);
        let last = |last_data_offset, producer_epoch| LastRecord {
            last_data_offset,
            producer_epoch,
        };
        let stays = [
            (13, HashMap::new()),
            (100, HashMap::from([(7, last(Some(12), 9))])),
        ];
        for (end_offset, known) in stays {
            let mut pass = Pass::new(&none_newest, 100);
            (pass.end_offset, pass.last) = (end_offset, known);
            let header = pass.rewritten(&batch);
            assert_eq!(header.len(), 61);
            assert_eq!(parse(&header).max_timestamp(), 30);
            assert_eq!(pass.verdict(&header), Verdict::AsItIs);
            pass.end_offset = 100;
            pass.last = HashMap::from([(7, last(Some(13), 3)), (8, last(Some(12), 3))]);
            assert_eq!(pass.verdict(&header), Verdict::Gone);
        }
        let mut pass = Pass::new(&none_newest, 100);
        // Only a marker is known of it: no data batch is the last one.
        pass.last = HashMap::from([(7, last(None, 3))]);
        assert_eq!(pass.verdict(&batch), Verdict::Gone);
    }
}

#[test]
fn transactions_are_as_they_ended() {
    let a = [(1, Some("a"), Some("x"))];
    let log = [
        plain(0, Compression::None, &a),
        transactional(&by(1, 1, Compression::Snappy, &a)),
        marker(1, 2, ABORT),
        transactional(&by(1, 3, Compression::Gzip, &[(1, Some("b"), Some("y"))])),
        marker(1, 4, COMMIT),
        marker(2, 5, 77),
    ];
    let mut unlearnt = Pass::new(&[], 6);
    assert_eq!(unlearnt.verdict(&log[0]), Verdict::AsItIs);
    for batch in &log[1..] {
        let refused = unlearnt.filter(batch);
        assert!(matches!(refused, Err(Refused::TransactionsUnknown)));
    }
    let mut pass = Pass::new(&[("a", 0), ("b", 3)], 6).learn(&log);
    let filtered = pass.filter(&log[1]).unwrap();
    assert_eq!(
        (filtered.verdict, filtered.counts.aborted_dropped),
        (Verdict::Gone, 1)
    );

    // The aborted batch is gone, its marker stays through this pass and gets its horizon in the next.
    let first = pass.compact(&log);
    assert_eq!(first, [&log[..1], &log[2..]].concat());
    let second = pass.compact(&first);
    assert_eq!(
        [&second[..1], &second[2..]].concat(),
        [&first[..1], &first[2..]].concat()
    );
    assert_eq!(parse(&second[1]).base_timestamp(), HORIZON);
    assert_eq!(records(&second[1]), records(&first[1]));
    pass.now_ms = HORIZON - 1;
    assert_eq!(pass.compact(&second), second);
    pass.now_ms = HORIZON;
    assert_eq!(pass.filter(&second[1]).unwrap().counts.markers_dropped, 1);
    let third = pass.compact(&second);
    assert_eq!(third, [&log[..1], &log[3..]].concat());
}

#[test]
fn a_marker_that_is_the_last_of_its_producer_is_emptied() {
    let log = [marker(1, 4, COMMIT)];
    let mut pass = Pass::new(&[], 6).learn(&log);
    let last = LastRecord {
        last_data_offset: None,
        producer_epoch: 3,
    };
    pass.last = HashMap::from([(1, last)]);
    let waiting = pass.compact(&log);
    pass.now_ms = HORIZON;
    let emptied = pass.compact(&waiting);
    assert_eq!(parse(&emptied[0]).records_count(), 0);
    assert_eq!(pass.compact(&emptied), emptied);
    pass.last = HashMap::from([(
        1,
        LastRecord {
            producer_epoch: 4,
            ..last
        },
    )]);
    assert!(pass.compact(&emptied).is_empty());
}

#[test]
fn the_emptied_header_of_an_aborted_batch_keeps_its_marker() {
    let batch = transactional(&by(1, 0, Compression::Lz4, &THREE));
    let log = [batch, marker(1, 3, ABORT)];
    let mut pass = Pass::new(&[], 4).learn(&log);
    let last = LastRecord {
        last_data_offset: Some(2),
        producer_epoch: 3,
    };
    pass.last = HashMap::from([(1, last)]);
    let first = pass.compact(&log);
    assert_eq!((first[0].len(), &first[1]), (61, &log[1]));
    pass.now_ms = HORIZON * 2;
    assert_eq!(pass.compact(&first), first);
}

#[test]
fn more_records_than_are_looked_up_together_stay_in_their_order() {
    let keys: Vec<String> = (0..3 * TOGETHER + 7).map(|at| at.to_string()).collect();
    let all: Vec<Plain<'_>> = keys
        .iter()
        .map(|key| (7, Some(&key[..]), Some("v")))
        .collect();
    let gone = [0, TOGETHER - 1, TOGETHER, 2 * TOGETHER, 3 * TOGETHER + 6];
    let newest: Vec<(&str, Offset)> = gone.iter().map(|at| (&keys[*at][..], 5_000)).collect();
    let left = Pass::new(&newest, 6_000).rewritten(&plain(0, Compression::Lz4, &all));
    let expected = (0..all.len() as i64).filter(|at| !gone.contains(&(*at as usize)));
    assert_eq!(offsets(&left), expected.collect::<Vec<_>>());
}
