//! The report of a run, from what was measured, and its form for people.

use std::collections::BTreeMap;
use std::fmt::Write;

use indicatif::HumanCount;

use crate::clock::us_to_seconds;
use crate::error::Error;
use crate::meter::{Counts, percentiles};
use crate::report::{Arrivals, Latency, Report, Side, Transactions};
use crate::run::Measured;

/// What a run has measured. Records that failed are a failure of the run, whose reason is then
/// returned too.
pub fn report(
    measured: Measured,
    arrivals: Option<Arrivals>,
    command: Vec<String>,
) -> (Report, Option<Error>) {
    let Measured {
        produced,
        consumed,
        intervals,
        failure,
    } = measured;
    let total = |errors: &BTreeMap<String, u64>| errors.values().sum::<u64>();
    let failure = failure
        .or_else(|| {
            (total(&produced.errors) > 0).then(|| Error::Undelivered {
                records: total(&produced.errors),
                reasons: reasons(&produced.errors),
            })
        })
        .or_else(|| {
            (total(&consumed.errors) > 0).then(|| Error::Unread {
                records: total(&consumed.errors),
                reasons: reasons(&consumed.errors),
            })
        });
    let end_to_end = percentiles(&consumed.latency);
    let report = Report {
        tool: format!(
            "milena-load {}, {}",
            env!("CARGO_PKG_VERSION"),
            librdkafka()
        ),
        command,
        produced: side(&produced, percentiles(&produced.latency)),
        consumed: side(&consumed, None),
        end_to_end,
        arrivals,
        failure: failure.as_ref().map(ToString::to_string),
        intervals,
    };
    (report, failure)
}

fn librdkafka() -> String {
    format!("librdkafka {}", rdkafka::util::get_rdkafka_version().1)
}

fn side(counts: &Counts, latency: Option<Latency>) -> Option<Side> {
    let nothing = counts.records == 0 && counts.errors.is_empty() && counts.began_us.is_none();
    let began_us = counts.began_us.unwrap_or(0);
    let seconds = us_to_seconds(counts.ended_us.saturating_sub(began_us));
    let each_second = |amount: f64| match seconds > 0.0 {
        true => amount / seconds,
        false => 0.0,
    };
    (!nothing).then(|| Side {
        records: counts.records,
        bytes: counts.bytes,
        errors: counts.errors.clone(),
        seconds,
        records_per_second: each_second(counts.records as f64),
        mb_per_second: each_second(counts.bytes as f64 / 1e6),
        latency,
        handed_over_late: percentiles(&counts.handed_over_late),
        transactions: counts.commits.as_ref().map(|commits| Transactions {
            committed: commits.latency.len(),
            committed_per_second: each_second(commits.latency.len() as f64),
            commit: percentiles(&commits.latency),
            commit_after_acknowledgements: percentiles(&commits.after_acknowledgements),
        }),
    })
}

fn reasons(errors: &BTreeMap<String, u64>) -> String {
    let each: Vec<String> = errors
        .iter()
        .map(|(reason, count)| format!("{count} {reason}"))
        .collect();
    each.join(", ")
}

/// What a person reads after a run.
pub fn text(report: &Report) -> String {
    let mut text = String::new();
    for (name, side) in [
        ("produced", &report.produced),
        ("consumed", &report.consumed),
    ] {
        if let Some(side) = side {
            let _ = writeln!(
                text,
                "{name:<11}{} records, {:.1} MB in {:.3} s: {} records/s, {:.1} MB/s",
                HumanCount(side.records),
                side.bytes as f64 / 1e6,
                side.seconds,
                HumanCount(side.records_per_second.round() as u64),
                side.mb_per_second,
            );
            if let Some(transactions) = &side.transactions {
                let _ = writeln!(
                    text,
                    "{:<11}{} transactions: {:.1}/s",
                    "committed",
                    HumanCount(transactions.committed),
                    transactions.committed_per_second,
                );
            }
            if !side.errors.is_empty() {
                let _ = writeln!(text, "{:<11}{}", "  failed", reasons(&side.errors));
            }
        }
    }
    if let Some(arrivals) = &report.arrivals {
        let _ = writeln!(
            text,
            "{:<11}{} of {} sent, {} missing, {} duplicated",
            "arrived",
            HumanCount(arrivals.arrived),
            HumanCount(arrivals.sent),
            HumanCount(arrivals.missing),
            HumanCount(arrivals.duplicated),
        );
        if arrivals.foreign > 0 {
            let foreign = HumanCount(arrivals.foreign);
            let _ = writeln!(text, "{:<11}{foreign} records of others", "  beside");
        }
    }
    let produced = report.produced.as_ref();
    let transactions = produced.and_then(|side| side.transactions.as_ref());
    let rows = [
        (
            "to the acknowledgement",
            produced.and_then(|side| side.latency.as_ref()),
        ),
        ("end to end", report.end_to_end.as_ref()),
        (
            "handed over late by",
            produced.and_then(|side| side.handed_over_late.as_ref()),
        ),
        ("commit", transactions.and_then(|all| all.commit.as_ref())),
        (
            "commit after last ack",
            transactions.and_then(|all| all.commit_after_acknowledgements.as_ref()),
        ),
    ];
    if rows.iter().any(|(_, latency)| latency.is_some()) {
        let _ = write!(text, "{:<24}", "latency");
        for name in ["mean", "p50", "p90", "p99", "p99.9", "max"] {
            let _ = write!(text, "{name:>10}");
        }
        text.push('\n');
    }
    for (name, latency) in rows {
        let Some(l) = latency else {
            continue;
        };
        let _ = write!(text, "  {name:<22}");
        for us in [
            l.mean_us.round() as u64,
            l.p50_us,
            l.p90_us,
            l.p99_us,
            l.p999_us,
            l.max_us,
        ] {
            let _ = write!(text, "{:>10}", duration(us));
        }
        text.push('\n');
    }
    text
}

/// Microseconds with three digits and the unit that suits.
pub fn duration(us: u64) -> String {
    let us = us as f64;
    let (number, unit) = match us {
        ..1e3 => return format!("{us} µs"),
        ..1e6 => (us / 1e3, "ms"),
        _ => (us / 1e6, "s"),
    };
    let decimals = match number {
        ..10.0 => 2,
        ..100.0 => 1,
        _ => 0,
    };
    format!("{number:.decimals$} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_three_digits() {
        let cases = [
            (0, "0 µs"),
            (999, "999 µs"),
            (1000, "1.00 ms"),
            (12_340, "12.3 ms"),
            (999_000, "999 ms"),
            (1_500_000, "1.50 s"),
        ];
        for (us, wanted) in cases {
            assert_eq!(duration(us), wanted);
        }
    }

    #[test]
    fn undelivered_records_fail_the_run() {
        let mut produced = Counts::default();
        produced.fail("MessageTimedOut".to_owned());
        let measured = Measured {
            produced,
            consumed: Counts::default(),
            intervals: Vec::new(),
            failure: None,
        };
        let (report, failure) = report(measured, None, Vec::new());
        let wanted = "1 records were not delivered: 1 MessageTimedOut";
        assert_eq!(failure.unwrap().to_string(), wanted);
        assert_eq!(report.failure.as_deref(), Some(wanted));
        assert!(
            text(&report).contains("failed   1 MessageTimedOut"),
            "{}",
            text(&report)
        );
    }
}
