//! Every edge of the choice, by table. Ten offsets and 100 bytes to a segment; the last one is
//! written to.

use super::*;

const NOW_MS: i64 = 1_000_000;

struct Case {
    what: &'static str,
    /// Bytes of each segment.
    sizes: Vec<u64>,
    config: LogConfig,
    log_start_offset: Offset,
    checkpoint: Option<Offset>,
    limit: Offset,
    /// Of each segment: its first and its largest timestamp.
    times: Vec<(Option<i64>, i64)>,
    /// Where the dirty part begins and ends, clean and dirty bytes.
    expected: Option<(Offset, Offset, u64, u64)>,
    urgent: bool,
    invalid: Option<Offset>,
    /// How many segments were asked for their largest and their first timestamp.
    asked: (usize, usize),
}

fn case(what: &'static str, expected: Option<(Offset, Offset, u64, u64)>) -> Case {
    Case {
        what,
        sizes: vec![100; 4],
        config: LogConfig {
            compact: true,
            delete: false,
            ..LogConfig::default()
        },
        log_start_offset: 0,
        checkpoint: None,
        limit: Offset::MAX,
        times: vec![(Some(1), 1); 4],
        expected,
        urgent: false,
        invalid: None,
        asked: (0, 0),
    }
}

fn with_lags(min: i64, max: u64, times: &[(Option<i64>, i64)], case: Case) -> Case {
    Case {
        config: LogConfig {
            min_compaction_lag_ms: min as u64,
            max_compaction_lag_ms: max,
            ..case.config
        },
        times: times.to_vec(),
        ..case
    }
}

fn check(case: &Case) {
    let segments: Vec<_> = (0i64..)
        .zip(&case.sizes)
        .map(|(at, size)| SegmentFacts {
            base_offset: at * 10,
            size_bytes: *size,
        })
        .collect();
    let log = LogFacts {
        now_ms: NOW_MS,
        log_start_offset: case.log_start_offset,
        log_end_offset: case.sizes.len() as i64 * 10,
        first_dirty_offset: case.checkpoint,
        limit: case.limit,
    };
    let mut asked = (0, 0);
    let choice = choose(
        &case.config,
        log,
        &segments,
        |at| {
            asked.0 += 1;
            Ok::<_, usize>(case.times[at].1)
        },
        |at| {
            asked.1 += 1;
            Ok(case.times[at].0)
        },
    )
    .unwrap();
    let what = case.what;
    let found = choice.map(|choice| {
        assert_eq!(choice.urgent, case.urgent, "{what}");
        assert_eq!(choice.invalid_checkpoint, case.invalid, "{what}");
        (
            choice.first_dirty_offset,
            choice.end_offset,
            choice.clean_bytes,
            choice.dirty_bytes,
        )
    });
    assert_eq!(found, case.expected, "{what}");
    assert_eq!(asked, case.asked, "{what}: asked");
}

#[test]
fn the_dirty_part_is_what_was_never_compacted_and_may_be() {
    let all = Some((0, 30, 0, 300));
    let at = |checkpoint, case| Case {
        checkpoint: Some(checkpoint),
        ..case
    };
    let to = |limit, case| Case { limit, ..case };
    for case in [
        case("all but the newest segment", all),
        Case {
            config: LogConfig::default(),
            ..case("the topic is not compacted", None)
        },
        Case {
            sizes: vec![100],
            ..case("one segment", None)
        },
        Case {
            sizes: vec![],
            ..case("no segment", None)
        },
        Case {
            sizes: vec![0, 0, 0, 100],
            ..case("empty segments", None)
        },
        to(35, case("the limit is in the newest segment", all)),
        to(30, case("the limit is the newest segment's base", all)),
        to(
            29,
            case(
                "the limit is in the last closed segment",
                Some((0, 20, 0, 200)),
            ),
        ),
        to(9, case("the limit is in the first segment", None)),
        to(-5, case("the limit is below the log", None)),
        at(0, case("compacted, up to nothing", all)),
        at(10, case("a third is clean", Some((10, 30, 100, 200)))),
        at(
            15,
            case("a segment is compacted in part", Some((15, 30, 200, 200))),
        )
        .at_ratio(0.49),
        at(15, case("half is dirty, which is not more than half", None)),
        at(20, case("two thirds are clean", None)),
        at(20, case("two thirds are clean", Some((20, 30, 200, 100)))).at_ratio(0.33),
        at(30, case("all is clean", None)).at_ratio(0.0),
        at(40, case("compacted to the log's end", None)).at_ratio(0.0),
        at(25, to(22, case("dirty behind the limit", None))).at_ratio(0.0),
        at(25, to(5, case("dirty far behind the limit", None))).at_ratio(0.0),
    ] {
        check(&case);
    }
}

impl Case {
    fn at_ratio(mut self, min_cleanable_dirty_ratio: f64) -> Self {
        self.config.min_cleanable_dirty_ratio = min_cleanable_dirty_ratio;
        self
    }
}

#[test]
fn a_checkpoint_that_the_log_has_not_is_the_logs_start() {
    let invalid = |what, checkpoint, log_start_offset, expected| Case {
        checkpoint: Some(checkpoint),
        log_start_offset,
        invalid: Some(checkpoint),
        ..case(what, expected)
    };
    let whole = Some((0, 30, 0, 300));
    let mut retained = invalid(
        "retention has moved the start",
        5,
        12,
        Some((12, 30, 200, 200)),
    );
    retained.config.delete = true;
    retained.invalid = None;
    let mut too_far = invalid("beyond the end, with delete", 41, 0, whole);
    too_far.config.delete = true;
    for case in [
        invalid("beyond the end", 41, 0, whole),
        too_far,
        invalid("below the start", 5, 12, Some((12, 30, 200, 200))).at_ratio(0.4),
        invalid(
            "below the start, at a segment",
            5,
            10,
            Some((10, 30, 100, 200)),
        ),
        retained.at_ratio(0.4),
    ] {
        check(&case);
    }
}

#[test]
fn what_is_younger_than_the_least_lag_ends_the_dirty_part() {
    let edge = NOW_MS - 100;
    let asked = |count, case| Case {
        asked: (count, 0),
        ..case
    };
    let times = |largest: [i64; 4]| largest.map(|largest| (None, largest));
    for (count, largest, expected) in [
        (3, [edge; 4], Some((0, 30, 0, 300))),
        (2, [edge, edge + 1, edge, edge], Some((0, 10, 0, 100))),
        (1, [edge + 1, edge, edge, edge], None),
        (3, [edge, edge, NOW_MS + 100, edge], Some((0, 20, 0, 200))),
    ] {
        let case = asked(count, case("by timestamp", expected));
        check(&with_lags(100, NEVER, &times(largest), case));
    }
    // What is clean already may be as young as it likes.
    let clean = Case {
        checkpoint: Some(10),
        ..case("from the dirty part on", Some((10, 30, 100, 200)))
    };
    let young_first = times([NOW_MS, edge, edge, NOW_MS]);
    check(&with_lags(100, NEVER, &young_first, asked(2, clean)));
    let never = asked(1, case("a lag beyond all time", None));
    check(&with_lags(i64::MAX, NEVER, &times([edge; 4]), never));
}

#[test]
fn what_is_older_than_the_largest_lag_is_urgent() {
    let edge = NOW_MS - 100;
    let times = |first: [Option<i64>; 4]| first.map(|first| (first, NOW_MS));
    let due = |what, count, first: [Option<i64>; 4], urgent: bool| {
        let expected = urgent.then_some((10, 30, 100, 200));
        let case = Case {
            checkpoint: Some(10),
            urgent,
            asked: (0, count),
            ..case(what, expected)
        };
        with_lags(0, 100, &times(first), case.at_ratio(1.0))
    };
    let (old, young) = (Some(edge - 1), Some(edge));
    check(&due("just not", 2, [old, young, young, old], false));
    check(&due(
        "the first dirty one",
        1,
        [young, old, young, young],
        true,
    ));
    check(&due("the second", 2, [young, young, old, young], true));
    check(&due("no timestamps", 2, [None, None, Some(0), old], false));
    check(&due(
        "a timestamp before all",
        2,
        [None, Some(-1), None, old],
        false,
    ));
    // Above the ratio and urgent.
    let mut both = due("both", 1, [young, old, young, young], true);
    both.config.min_cleanable_dirty_ratio = 0.5;
    check(&both);
}

#[test]
fn the_first_error_is_the_answer() {
    let mut config = LogConfig {
        compact: true,
        min_compaction_lag_ms: 1,
        max_compaction_lag_ms: 1,
        ..LogConfig::default()
    };
    let segments = [0, 10, 20].map(|base_offset| SegmentFacts {
        base_offset,
        size_bytes: 1,
    });
    let log = LogFacts {
        now_ms: NOW_MS,
        log_start_offset: 0,
        log_end_offset: 30,
        first_dirty_offset: None,
        limit: 30,
    };
    let first = |at: usize| if at == 0 { Ok(None) } else { Err(at) };
    assert_eq!(choose(&config, log, &segments, Err, first), Err(0));
    assert_eq!(choose(&config, log, &segments, |_| Ok(0), first), Err(1));
    config.max_compaction_lag_ms = NEVER;
    assert!(
        choose(&config, log, &segments, |_| Ok(0), first)
            .unwrap()
            .is_some()
    );
}

#[test]
fn the_dirtiest_log_needs_it_most() {
    let of = |clean_bytes, dirty_bytes| Choice {
        first_dirty_offset: 0,
        end_offset: 0,
        clean_bytes,
        dirty_bytes,
        urgent: false,
        invalid_checkpoint: None,
    };
    assert_eq!(of(0, 0).dirty_ratio(), 0.0);
    assert_eq!(of(300, 100).dirty_ratio(), 0.25);
    assert_eq!(of(300, 100).cmp_need(&of(30, 11)), Ordering::Less);
    assert_eq!(of(0, 1).cmp_need(&of(1, 1_000_000)), Ordering::Greater);
}
