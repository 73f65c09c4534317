//! What is produced in transactions is committed, and what is not committed is read by nobody who asks
//! for what is.

use std::thread::sleep;
use std::time::Duration;

use super::Bench;

#[test]
fn all_transactions_are_committed() {
    let bench = Bench::start("");
    let report = bench.run(
        "produce --topic t --partitions 4 --records 20000 --size 500 --producers 2 \
         --in-flight 500 --transactional-id load --transaction-duration-ms 10",
    );
    let produced = report.produced.expect("what was produced");
    assert_eq!((produced.records, produced.bytes), (20_000, 20_000 * 500));
    assert_eq!(produced.latency.expect("latencies").count, 20_000);
    let transactions = produced.transactions.expect("transactions");
    assert!(transactions.committed >= 2, "one of each producer");
    assert!(transactions.committed_per_second > 0.0);
    let whole = transactions.commit.expect("latencies");
    let after = transactions
        .commit_after_acknowledgements
        .expect("latencies");
    assert_eq!(
        (whole.count, after.count),
        (transactions.committed, transactions.committed)
    );
    assert!(after.max_us <= whole.max_us);
    for level in ["read_committed", "read_uncommitted"] {
        let arguments =
            format!("consume --topic t --records 20000 --assign --isolation-level {level}");
        let consumed = bench.run(&arguments).consumed.expect("what was consumed");
        assert_eq!(consumed.records, 20_000, "{level}");
    }
    let consumed = bench.run("consume --topic t --seconds 1 --assign").consumed;
    assert_eq!(consumed.expect("all").records, 20_000, "and no more");

    let without = bench.run("produce --topic t --records 10 --idempotent");
    let produced = without.produced.expect("what was produced");
    assert!(produced.transactions.is_none());
}

#[test]
fn a_transaction_ends_when_its_time_is_over() {
    let bench = Bench::start("");
    let committed = |arguments: &str| {
        let line = format!(
            "produce --topic t --partitions 2 --size 100 --transactional-id load {arguments}"
        );
        let produced = bench.run(&line).produced.expect("what was produced");
        let transactions = produced.transactions.expect("transactions");
        (produced.records, transactions.committed)
    };
    // Between two records there is time for the commit: each has a transaction of its own, but for those
    // that are late because other tests have the processors.
    let each = committed("--rate 5 --seconds 1 --transaction-duration-ms 20");
    assert_eq!(each.0, 5);
    assert!((3..=5).contains(&each.1), "{each:?}");
    // Without records none begins; the last one does not last until its time is over.
    let one = committed("--rate 1000 --records 500 --transaction-duration-ms 600000");
    assert_eq!(one, (500, 1));
    let several = committed("--rate 1000 --seconds 2 --transaction-duration-ms 200");
    assert_eq!(several.0, 2000);
    // Ten, or fewer where other tests have the processors.
    assert!((2..=11).contains(&several.1), "{several:?}");
}

#[test]
fn groups_read_what_is_committed_while_it_is_produced() {
    let bench = Bench::start("");
    bench.run("produce --topic t --partitions 3 --records 1000 --transactional-id before");
    for level in ["read_committed", "read_uncommitted"] {
        let report = bench.run(&format!(
            "mix --topic t --rate 2000 --seconds 1.5 --producers 2 --groups 2 --consumers 2 \
             --transactional-id load --transaction-duration-ms 100 --isolation-level {level}"
        ));
        let produced = report.produced.expect("what was produced");
        assert_eq!(produced.records, 3000, "{level}");
        let consumed = report.consumed.expect("what was consumed");
        assert_eq!(consumed.records, 6000, "{level}");
    }
}

#[test]
fn an_open_transaction_is_read_by_those_who_ask_for_it() {
    let bench = Bench::start("");
    bench.run("produce --topic t --partitions 1 --records 100 --transactional-id load");
    let mut child = bench
        .command(
            "produce --topic t --rate 500 --seconds 60 --linger-ms 0 --transactional-id load \
             --transaction-duration-ms 60000",
        )
        .spawn()
        .expect("it runs");
    sleep(Duration::from_millis(2000));
    child.kill().expect("it is killed");
    child.wait().expect("its end");

    let consumed = |level: &str| {
        let arguments = format!("consume --topic t --seconds 1 --assign --isolation-level {level}");
        bench.run(&arguments).consumed.expect("a side").records
    };
    assert_eq!(consumed("read_committed"), 100);
    let with_the_open_one = consumed("read_uncommitted");
    assert!(with_the_open_one > 100, "{with_the_open_one}");
    // The next one with that transactional id has it aborted.
    bench.run("produce --topic t --records 50 --transactional-id load");
    assert_eq!(consumed("read_committed"), 150);
    assert_eq!(consumed("read_uncommitted"), with_the_open_one + 50);
}

#[test]
fn a_transaction_with_a_record_that_is_refused_fails_the_run() {
    let bench = Bench::start("");
    let (report, said) = bench.run_failing(
        "produce --topic t --partitions 1 --records 5 --size 200KB --transactional-id load \
         --topic-config max.message.bytes=1000",
    );
    assert!(
        said.contains("committing transaction 1 of \"load-1\""),
        "{said}"
    );
    let produced = report.produced.expect("a side");
    assert_eq!(produced.records, 0);
    assert!(produced.transactions.is_none());
    let consumed = bench
        .run("consume --topic t --seconds 0.5 --assign")
        .consumed;
    assert_eq!(consumed.expect("a side").records, 0);
}
