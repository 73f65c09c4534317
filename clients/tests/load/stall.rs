//! A broker that stands still for a while: every record that was due meanwhile says so.

use std::thread::sleep;
use std::time::Duration;

use super::Bench;

const STALL: Duration = Duration::from_millis(400);

#[test]
fn a_stall_is_in_the_latencies_of_all_that_was_due() {
    let bench = Bench::start("");
    bench.run("produce --topic t --partitions 1 --records 1");
    // A sender that waited for its ten acknowledgements, and then went on from there, would have ten
    // late records: less than one percent. Of those that were due it is 13 percent.
    let child = bench
        .command("produce --topic t --rate 500 --seconds 3 --in-flight 10 --acks 1 --linger-ms 0")
        .spawn()
        .expect("it runs");
    sleep(Duration::from_millis(1200));
    let pid = bench.milena.pid() as libc::pid_t;
    // SAFETY: kill(2) has no memory effects; the pid is that of a child of this process.
    assert_eq!(unsafe { libc::kill(pid, libc::SIGSTOP) }, 0);
    sleep(STALL);
    // SAFETY: as above.
    assert_eq!(unsafe { libc::kill(pid, libc::SIGCONT) }, 0);
    let report = bench.report(child.wait_with_output().expect("its end"), 0);

    let produced = report.produced.expect("what was produced");
    assert_eq!(produced.records, 1500);
    let latency = produced.latency.expect("latencies");
    let stall_us = STALL.as_micros() as u64;
    assert!(latency.max_us > stall_us * 9 / 10, "{latency:?}");
    assert!(latency.p99_us > stall_us * 3 / 4, "{latency:?}");
    assert!(latency.p90_us > stall_us / 8, "{latency:?}");
    assert!(latency.p50_us < stall_us / 8, "{latency:?}");
    // The schedule did not slip: what was due in three seconds took no longer.
    assert!(
        (2.9..3.3).contains(&produced.seconds),
        "{} s",
        produced.seconds
    );
    let worst = |interval: &clients::report::Interval| interval.latency.as_ref().map(|l| l.max_us);
    let late = report
        .intervals
        .iter()
        .filter(|i| worst(i) > Some(stall_us / 2))
        .count();
    assert!((1..=2).contains(&late), "{late} seconds with a stall");
}

#[test]
fn records_are_handed_over_when_they_are_due() {
    let bench = Bench::start("");
    for rate in [1000, 10_000] {
        let report = bench.run(&format!(
            "produce --topic t --partitions 1 --rate {rate} --seconds 1 --size 100"
        ));
        let produced = report.produced.expect("what was produced");
        assert_eq!(produced.records, rate);
        let late = produced.handed_over_late.expect("a schedule");
        // Half of them: other tests have the processors meanwhile.
        assert!(late.p50_us < 1000, "at {rate} records a second: {late:?}");
    }
}

#[test]
fn a_broker_that_is_gone_ends_the_run() {
    let mut bench = Bench::start("");
    let child = bench
        .command("produce --topic t --partitions 1 --rate 100 --seconds 30 --timeout-seconds 2")
        .spawn()
        .expect("it runs");
    sleep(Duration::from_millis(1000));
    bench.milena.kill();
    let output = child.wait_with_output().expect("its end");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("nothing has moved for 2 s"), "{said}");
    assert!(said.contains("last heard"), "{said}");
    let produced = bench.report(output, 1).produced.expect("what was produced");
    assert!(produced.records > 0);
    assert!(
        produced.errors.contains_key("PurgeQueue"),
        "{:?}",
        produced.errors
    );
}
