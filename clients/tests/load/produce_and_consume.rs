//! What is produced is there, in the form that was asked for, and all of it is consumed.

use std::collections::BTreeSet;

use super::Bench;

#[test]
fn all_that_is_produced_is_consumed() {
    let bench = Bench::start("");
    let report =
        bench.run("produce --topic t --partitions 4 --records 20000 --size 500 --producers 3");
    let produced = report.produced.expect("what was produced");
    assert_eq!((produced.records, produced.bytes), (20_000, 20_000 * 500));
    assert!(produced.errors.is_empty());
    assert!(produced.seconds > 0.0 && produced.records_per_second > 0.0);
    assert_eq!(produced.latency.expect("latencies").count, 20_000);
    assert!(produced.handed_over_late.is_none());
    assert_eq!(
        report.intervals.iter().map(|i| i.produced).sum::<u64>(),
        20_000
    );
    assert!(report.consumed.is_none());

    for arguments in [
        "consume --topic t --records 20000 --assign",
        "consume --topic t --records 20000 --assign --consumers 4",
        "consume --topic t --records 20000",
        "consume --topic t --bytes 10000000 --group again",
    ] {
        let consumed = bench.run(arguments).consumed.expect("what was consumed");
        assert_eq!(
            (consumed.records, consumed.bytes),
            (20_000, 20_000 * 500),
            "{arguments}"
        );
    }
    let twice = "consume --topic t --records 20000 --assign --groups 2 --consumers 2";
    assert_eq!(bench.run(twice).consumed.expect("both").records, 40_000);
    let in_part = "consume --topic t --records 777 --assign --consumers 2";
    assert_eq!(bench.run(in_part).consumed.expect("a part").records, 777);
}

#[test]
fn a_consumer_that_finds_too_little_fails() {
    let bench = Bench::start("");
    bench.run("produce --topic t --partitions 1 --records 10");
    let arguments = "consume --topic t --records 11 --assign --timeout-seconds 1";
    let (report, said) = bench.run_failing(arguments);
    assert_eq!(report.consumed.expect("some").records, 10);
    assert!(
        said.contains("nothing has moved for 1 s (0 records produced, 10 consumed"),
        "{said}"
    );
    assert!(
        report
            .failure
            .expect("a failure")
            .contains("nothing has moved")
    );
    // With a time there is no promise of a number.
    let report = bench.run("consume --topic t --seconds 1 --from latest --assign");
    assert_eq!(report.consumed.expect("nothing").records, 0);
}

#[test]
fn records_that_are_refused_fail_the_run() {
    let bench = Bench::start("");
    let arguments = "produce --topic t --partitions 1 --records 5 --size 200KB \
                     --topic-config max.message.bytes=1000";
    let (report, said) = bench.run_failing(arguments);
    assert!(
        said.contains("5 records were not delivered: 5 MessageSizeTooLarge"),
        "{said}"
    );
    let produced = report.produced.expect("a side");
    assert_eq!(
        (produced.records, produced.errors["MessageSizeTooLarge"]),
        (0, 5)
    );
}

#[test]
fn records_are_what_was_asked_for() {
    let bench = Bench::start("");
    let lines = bench.path("lines.json");
    std::fs::write(&lines, "{\"n\": 1}\n{\"n\": 2}\n{\"n\": 3}\n").expect("a file");
    for compression in ["none", "gzip", "snappy", "lz4", "zstd"] {
        bench.run(&format!(
            "produce --topic {compression} --partitions 2 --records 300 --keys 5 --idempotent \
             --compression {compression} --payload {}",
            lines.display()
        ));
        let records = bench.read_all(compression);
        assert_eq!(records.len(), 300);
        let text = |bytes: &Option<Vec<u8>>| {
            String::from_utf8(bytes.clone().expect("some")).expect("text")
        };
        let keys: BTreeSet<String> = records.iter().map(|r| text(&r.key)).collect();
        assert_eq!(
            keys.into_iter().collect::<Vec<_>>(),
            ["0", "1", "2", "3", "4"]
        );
        let second = records
            .iter()
            .filter(|r| text(&r.value) == "{\"n\": 2}")
            .count();
        assert_eq!(second, 100);
    }
    bench.run(
        "produce --topic plain --partitions 1 --records 10 --topic-config retention.ms=1234567",
    );
    assert!(
        bench
            .read_all("plain")
            .iter()
            .all(|record| record.key.is_none())
    );
}

#[test]
fn groups_read_all_while_it_is_produced() {
    let bench = Bench::start("");
    bench.run("produce --topic t --partitions 3 --records 1000");
    for assign in ["--assign", ""] {
        let report = bench.run(&format!(
            "mix --topic t --rate 2000 --seconds 1.5 --producers 2 --groups 2 --consumers 2 {assign}"
        ));
        let produced = report.produced.expect("what was produced");
        assert_eq!(produced.records, 3000);
        assert_eq!(report.consumed.expect("what was consumed").records, 6000);
        assert!(
            (1.2..2.5).contains(&produced.seconds),
            "{} s",
            produced.seconds
        );
    }
}

#[test]
fn bounds_are_kept() {
    let bench = Bench::start("");
    let produced = |arguments: &str| bench.run(arguments).produced.expect("what was produced");
    let by_bytes = produced("produce --topic t --partitions 1 --bytes 100KB --size 1000");
    assert_eq!(by_bytes.bytes, 100_000);
    let by_time = produced("produce --topic t --seconds 0.5 --in-flight 10 --linger-ms 0");
    assert!(
        (0.4..5.0).contains(&by_time.seconds),
        "{} s",
        by_time.seconds
    );
    let warm = produced("produce --topic t --rate 500 --records 200 --warmup-seconds 0.5");
    assert_eq!(warm.records, 200);
    assert!((0.3..0.9).contains(&warm.seconds), "{} s", warm.seconds);
    assert_eq!(warm.latency.expect("latencies").count, 200);
}
