//! Every record is followed from when it was due to its arrival, through model topics too.

use std::fmt::Write;

use clients::report::Arrivals;

use super::Bench;

#[test]
fn every_record_arrives_once() {
    let bench = Bench::start("");
    // What is there already is in the way of nothing.
    bench.run("produce --topic t --partitions 3 --records 100 --keys 100");
    let report = bench
        .run("end-to-end --topic t --rate 1000 --seconds 1 --warmup-seconds 0.5 --consumers 2");
    let arrivals = Arrivals {
        sent: 1500,
        arrived: 1500,
        ..Arrivals::default()
    };
    assert_eq!(report.arrivals, Some(arrivals));
    assert_eq!(report.end_to_end.expect("latencies").count, 1000);
    assert_eq!(report.produced.expect("a side").records, 1000);
    assert_eq!(report.consumed.expect("a side").records, 1000);

    let report = bench.run("end-to-end --topic t --records 20000 --in-flight 50");
    assert_eq!(report.arrivals.expect("arrivals").arrived, 20_000);
    assert_eq!(report.end_to_end.expect("latencies").count, 20_000);
}

#[test]
fn what_does_not_arrive_is_missing() {
    let bench = Bench::start("");
    bench.run("produce --topic elsewhere --partitions 1 --records 1");
    let (report, said) = bench.run_failing(
        "end-to-end --topic t --partitions 1 --output-topic elsewhere --records 50 --timeout-seconds 1",
    );
    assert!(
        said.contains("50 records are missing in \"elsewhere\""),
        "{said}"
    );
    assert_eq!(report.arrivals.expect("arrivals").missing, 50);
    let (_, said) = bench.run_failing(
        "end-to-end --topic t --output-topic elsewhere --records 50 --in-flight 5 --timeout-seconds 1",
    );
    assert!(said.contains("nothing has moved"), "{said}");
}

#[test]
fn a_model_topic_is_followed_by_key() {
    let model = tests::repository().join("tests/models/fraud_by_row");
    let bench = Bench::start(&format!(
        "[[topic]]\nname = \"transactions\"\npartitions = 2\n\
         [[model]]\nname = \"fraud\"\nsource = {model:?}\n\
         [[model_topic]]\nname = \"scored\"\ninput = \"transactions\"\nmodel = \"fraud\"\n"
    ));
    let mut lines = String::new();
    for n in 0..10 {
        let _ = writeln!(
            lines,
            r#"{{"amount":{n}.5,"merchant":{{"category":"books","country":"CZ"}},"card_present":true,"hour":{n},"country":"CZ","n_last_hour":1,"amount_vs_mean":1.1,"account_age_days":12,"distance_km":6}}"#
        );
    }
    let path = bench.path("transactions.json");
    std::fs::write(&path, lines).expect("a file");
    let plot = bench.path("plot.svg");
    let report = bench.run(&format!(
        "end-to-end --topic transactions --output-topic scored --rate 500 --seconds 2 --payload {} --plot {}",
        path.display(),
        plot.display(),
    ));
    assert_eq!(report.arrivals.expect("arrivals").arrived, 1000);
    let dead = bench.milena.ends("scored.dlq").values().sum::<i64>();
    assert_eq!(dead, 0, "the transactions can be read");

    let svg = std::fs::read_to_string(&plot).expect("a plot");
    assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
    for part in [
        "p50",
        "p99",
        "max",
        "milliseconds",
        "MB/s",
        "produced",
        "consumed",
        "latency end to end",
    ] {
        assert!(svg.contains(&format!("\n{part}\n")), "{part} in the plot");
    }
    for (open, close) in [("<text", "</text>"), ("<svg", "</svg>")] {
        assert_eq!(svg.matches(open).count(), svg.matches(close).count());
    }
    assert!(
        svg.matches("<polyline").count() >= 5,
        "a line for each series"
    );
}
