//! Every edge of the choice, by table.

use std::convert::Infallible;

use super::*;

/// One segment: how many offsets, bytes, and how new it is.
type Given = (i64, u64, i64);

const NOW_MS: i64 = 1_000_000;
const OLD: i64 = NOW_MS - 101;
const JUST_NOT: i64 = NOW_MS - 100;

/// Three old segments of 10 offsets and 100 bytes, and a newest one.
const FOUR: [Given; 4] = [
    (10, 100, OLD),
    (10, 100, OLD),
    (10, 100, OLD),
    (10, 100, NOW_MS),
];

struct Case {
    what: &'static str,
    segments: Vec<Given>,
    retention_ms: i64,
    retention_bytes: i64,
    delete: bool,
    log_start_offset: Offset,
    /// Below the log's end.
    hidden: i64,
    /// How many go for each reason.
    goes: &'static [(Reason, usize)],
}

fn case(what: &'static str, segments: &[Given], goes: &'static [(Reason, usize)]) -> Case {
    Case {
        what,
        segments: segments.to_vec(),
        retention_ms: 100,
        retention_bytes: -1,
        delete: true,
        log_start_offset: 0,
        hidden: 0,
        goes,
    }
}

/// The choice, and the places of the segments that it asked after.
fn chosen(case: &Case) -> (Choice, Vec<usize>) {
    let config = LogConfig {
        retention_ms: case.retention_ms,
        retention_bytes: case.retention_bytes,
        delete: case.delete,
        compact: !case.delete,
        ..LogConfig::default()
    };
    let mut segments = Vec::new();
    let mut end = 0;
    for (offsets, size_bytes, _) in &case.segments {
        segments.push(SegmentFacts {
            base_offset: end,
            size_bytes: *size_bytes,
        });
        end += offsets;
    }
    let log = LogFacts {
        now_ms: NOW_MS,
        log_start_offset: case.log_start_offset,
        high_watermark: end - case.hidden,
        log_end_offset: end,
    };
    let mut asked = Vec::new();
    let choice = choose(&config, log, &segments, |at| {
        asked.push(at);
        Ok::<_, Infallible>(case.segments[at].2)
    });
    match choice {
        Ok(choice) => (choice, asked),
        Err(never) => match never {},
    }
}

#[test]
fn what_goes_is_what_kafka_lets_go() {
    use Reason::{LogStart, Size, Time};
    let none = -1;
    for case in [
        case("nothing is there", &[], &[]),
        case("an empty log", &[(0, 0, OLD)], &[]),
        case("old ones go, the new one stays", &FOUR, &[(Time, 3)]),
        case(
            "all of it is too old",
            &[(10, 100, OLD), (10, 100, OLD)],
            &[(Time, 2)],
        ),
        case("the only one is too old", &[(10, 100, OLD)], &[(Time, 1)]),
        case(
            "the newest is empty",
            &[(10, 100, OLD), (0, 0, OLD)],
            &[(Time, 1)],
        ),
        case(
            "one in the middle that has lost its records",
            &[(10, 100, OLD), (10, 0, OLD), (10, 100, OLD), (1, 9, NOW_MS)],
            &[(Time, 3)],
        ),
        case("exactly at the limit", &[(10, 100, JUST_NOT)], &[]),
        case(
            "a new one protects what follows",
            &[(10, 100, OLD), (10, 100, JUST_NOT), (10, 100, OLD)],
            &[(Time, 1)],
        ),
        case(
            "a timestamp at the beginning of time",
            &[(10, 100, i64::MIN), (10, 100, NOW_MS)],
            &[(Time, 1)],
        ),
        case(
            "a timestamp at the end of time",
            &[(10, 100, OLD), (10, 100, i64::MAX), (10, 100, OLD)],
            &[(Time, 1)],
        ),
        Case {
            retention_ms: none,
            ..case("neither age nor size", &FOUR, &[])
        },
        Case {
            retention_ms: 0,
            ..case("older than this very moment", &FOUR, &[(Time, 3)])
        },
        Case {
            retention_ms: i64::MAX,
            ..case("for ever", &FOUR, &[])
        },
        Case {
            delete: false,
            retention_bytes: 0,
            ..case("a compacted log", &FOUR, &[])
        },
        Case {
            delete: false,
            log_start_offset: 25,
            ..case(
                "of a compacted log what was deleted",
                &FOUR,
                &[(LogStart, 2)],
            )
        },
        Case {
            retention_ms: none,
            log_start_offset: 20,
            ..case(
                "the log begins where a segment does",
                &FOUR,
                &[(LogStart, 2)],
            )
        },
        Case {
            retention_ms: none,
            log_start_offset: 40,
            ..case("the newest one is needed", &FOUR, &[(LogStart, 3)])
        },
        Case {
            retention_ms: none,
            retention_bytes: 400,
            ..case("as large as it may be", &FOUR, &[])
        },
        Case {
            retention_ms: none,
            retention_bytes: 301,
            ..case("too little would stay", &FOUR, &[])
        },
        Case {
            retention_ms: none,
            retention_bytes: 300,
            ..case("just enough stays", &FOUR, &[(Size, 1)])
        },
        Case {
            retention_ms: none,
            retention_bytes: 1,
            ..case("the newest one is more than enough", &FOUR, &[(Size, 3)])
        },
        Case {
            retention_ms: none,
            retention_bytes: 0,
            ..case("nothing need stay", &FOUR, &[(Size, 4)])
        },
        Case {
            retention_ms: none,
            retention_bytes: i64::MIN,
            ..case("any negative number is no limit", &FOUR, &[])
        },
        Case {
            retention_bytes: 300,
            ..case("size first, then time", &FOUR, &[(Size, 1), (Time, 2)])
        },
        Case {
            log_start_offset: 13,
            retention_bytes: 200,
            ..case(
                "three reasons",
                &FOUR,
                &[(LogStart, 1), (Size, 1), (Time, 1)],
            )
        },
        Case {
            retention_bytes: 151,
            ..case(
                "what time takes does not count for size",
                &[(1, 200, OLD), (1, 50, NOW_MS), (1, 100, NOW_MS)],
                &[(Time, 1)],
            )
        },
        Case {
            retention_bytes: 100,
            ..case(
                "size takes a new one, and time what it protected",
                &[(1, 90, NOW_MS), (1, 100, OLD), (1, 5, NOW_MS)],
                &[(Size, 1), (Time, 1)],
            )
        },
        Case {
            hidden: 1,
            ..case(
                "the newest one is not all visible",
                &[(10, 100, OLD), (10, 100, OLD)],
                &[(Time, 1)],
            )
        },
        Case {
            hidden: 11,
            retention_bytes: 0,
            ..case("the hidden tail begins in the third", &FOUR, &[(Size, 2)])
        },
        Case {
            hidden: 40,
            ..case("nothing is visible", &FOUR, &[])
        },
    ] {
        let (choice, _) = chosen(&case);
        let goes: Vec<(Reason, usize)> = choice
            .removals
            .iter()
            .map(|removal| (removal.reason, removal.segments))
            .collect();
        assert_eq!(goes, case.goes, "{}", case.what);
        let mut gone = case.segments.iter();
        for removal in &choice.removals {
            let bytes: u64 = gone.by_ref().take(removal.segments).map(|s| s.1).sum();
            assert_eq!(removal.size_bytes, bytes, "{}", case.what);
        }
        let count: usize = goes.iter().map(|(_, segments)| segments).sum();
        let start: i64 = case.segments.iter().take(count).map(|s| s.0).sum();
        let expected = (count > 0).then_some(start);
        assert_eq!(choice.log_start_offset, expected, "{}", case.what);
    }
}

#[test]
fn only_segments_that_matter_are_asked_after() {
    let many: Vec<Given> = (0..1_000).map(|at| (10, 100, OLD + at)).collect();
    assert_eq!(chosen(&case("one goes", &many, &[])).1, [0, 1]);
    let without = Case {
        retention_ms: -1,
        retention_bytes: 5_000,
        ..case("by size", &many, &[])
    };
    assert!(chosen(&without).1.is_empty());
    let by_size = Case {
        retention_bytes: 50_000,
        ..case("the rest by time", &many, &[])
    };
    assert_eq!(chosen(&by_size).1, [500]);
}

#[test]
fn a_timestamp_that_is_yet_to_come_is_told() {
    let future = [(10, 100, OLD), (10, 100, NOW_MS + 1), (10, 100, OLD)];
    let (choice, _) = chosen(&case("future", &future, &[]));
    assert_eq!(choice.future_timestamp, Some((10, NOW_MS + 1)));
    assert_eq!(choice.log_start_offset, Some(10));
    let now = [(10, 100, NOW_MS)];
    assert_eq!(chosen(&case("now", &now, &[])).0, Choice::default());
}

#[test]
fn a_failed_look_at_a_file_chooses_nothing() {
    let segments = [0, 10].map(|base_offset| SegmentFacts {
        base_offset,
        size_bytes: 100,
    });
    let log = LogFacts {
        now_ms: i64::MAX,
        log_start_offset: 0,
        high_watermark: 20,
        log_end_offset: 20,
    };
    let looked = |at| if at == 0 { Ok(0) } else { Err("gone") };
    let choice = choose(&LogConfig::default(), log, &segments, looked);
    assert_eq!(choice, Err("gone"));
}
