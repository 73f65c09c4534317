//! What Milena is meant to reach, and whether a run shows it.

use super::comparison::{Comparison, is_ours};
use super::results::{Results, RowResults};
use crate::statistics::median;

/// How much of what it is compared with Milena's figure may be, or must be.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Limit {
    AtMost(f64),
    AtLeast(f64),
}

impl Limit {
    fn holds(self, ratio: f64) -> bool {
        match self {
            Self::AtMost(limit) => ratio <= limit,
            Self::AtLeast(limit) => ratio >= limit,
        }
    }
}

/// An aim: a figure of rows of some scenarios, against one arm.
struct Aim {
    what: &'static str,
    scenarios: &'static [&'static str],
    /// What the rows' names contain.
    rows: &'static str,
    figures: &'static [&'static str],
    /// Arms, each by itself; none where the figure is a ratio already.
    against: &'static [&'static str],
    limit: Limit,
}

const PYTHON: &[&str] = &["kafka onnxruntime", "kafka torch"];

const AIMS: [Aim; 12] = [
    Aim {
        what: "CPU seconds per GB: at most half of Kafka's",
        scenarios: &["produce", "consume"],
        rows: "",
        figures: &["CPU-s/GB"],
        against: &["kafka"],
        limit: Limit::AtMost(0.5),
    },
    Aim {
        what: "p99 end to end at fixed rates: at most half of Kafka's",
        scenarios: &["end-to-end"],
        rows: "",
        figures: &["p99 ms"],
        against: &["kafka"],
        limit: Limit::AtMost(0.5),
    },
    Aim {
        what: "durable produce: at least five times Kafka's",
        scenarios: &["durable"],
        rows: "",
        figures: &["records/s"],
        against: &["kafka"],
        limit: Limit::AtLeast(5.0),
    },
    Aim {
        what: "start and idle memory: at most a twentieth of Kafka's",
        scenarios: &["footprint"],
        rows: "",
        figures: &["start ms", "RSS MB"],
        against: &["kafka"],
        limit: Limit::AtMost(0.05),
    },
    Aim {
        what: "CPU of produce and consume: at most 1.3 times the bare loop's",
        scenarios: &["produce", "consume"],
        rows: "",
        figures: &["CPU-s/GB"],
        against: &["bare"],
        limit: Limit::AtMost(1.3),
    },
    Aim {
        what: "round trips: at most 1.3 times the bare ping-pong's p50 and p99",
        scenarios: &["storm"],
        rows: "",
        figures: &["p50 ms", "p99 ms"],
        against: &["bare"],
        limit: Limit::AtMost(1.3),
    },
    Aim {
        what: "durable appends: at least 0.8 times the group-committed loop's",
        scenarios: &["durable"],
        rows: "",
        figures: &["records/s"],
        against: &["bare"],
        limit: Limit::AtLeast(0.8),
    },
    Aim {
        what: "transactions of 100 ms: at least 0.8 times the MB/s without transactions",
        scenarios: &["transactions"],
        rows: "100 ms",
        figures: &["of idempotent"],
        against: &[],
        limit: Limit::AtLeast(0.8),
    },
    Aim {
        what: "perceptron: at least five times the records a second of each Python arm",
        scenarios: &["model-mlp"],
        rows: "",
        figures: &["records/s"],
        against: PYTHON,
        limit: Limit::AtLeast(5.0),
    },
    Aim {
        what: "features that remember, exactly once: at least five times the records a second of each Python arm",
        scenarios: &["model-stateful"],
        rows: "",
        figures: &["records/s"],
        against: PYTHON,
        limit: Limit::AtLeast(5.0),
    },
    Aim {
        what: "model topics: p99 at the same rate below each Python arm's",
        scenarios: &["model-mlp", "model-text"],
        rows: "",
        figures: &["p99 ms same rate"],
        against: PYTHON,
        limit: Limit::AtMost(1.0),
    },
    Aim {
        what: "model topics: CPU a record below the external scorer's",
        scenarios: &["model-mlp", "model-text"],
        rows: "",
        figures: &["CPU-s per million"],
        against: &["external"],
        limit: Limit::AtMost(1.0),
    },
];

/// Whether an aim is reached.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// The aim.
    pub what: &'static str,
    /// In how many rows and figures it holds ...
    pub holds: usize,
    /// ... and where it does not, with the ratio.
    pub misses: Vec<(String, f64)>,
}

/// Of all aims that a run says something about.
pub fn verdicts(results: &Results) -> Vec<Verdict> {
    let verdicts = AIMS.iter().map(|aim| verdict(aim, results));
    verdicts.filter(|v| v.holds + v.misses.len() > 0).collect()
}

fn verdict(aim: &Aim, results: &Results) -> Verdict {
    let mut verdict = Verdict {
        what: aim.what,
        holds: 0,
        misses: Vec::new(),
    };
    let named = |name: &str| aim.scenarios.contains(&name);
    for scenario in results.scenarios.iter().filter(|s| named(&s.name)) {
        for row in scenario.rows.iter().filter(|r| r.name.contains(aim.rows)) {
            for ours in row.arms.iter().filter(|arm| is_ours(arm)) {
                for (what, ratio) in ratios(aim, row, ours) {
                    if aim.limit.holds(ratio) {
                        verdict.holds += 1;
                        continue;
                    }
                    let what = format!("{}: {} ({ours}, {what})", scenario.name, row.name);
                    verdict.misses.push((what, ratio));
                }
            }
        }
    }
    verdict
}

/// What an aim is about in one of Milena's arms of a row, as far as it was measured: figure and other arm,
/// and the ratio.
fn ratios(aim: &Aim, row: &RowResults, ours: &str) -> Vec<(String, f64)> {
    let mut ratios = Vec::new();
    for figure in aim.figures {
        let values = row.values(ours, figure);
        if aim.against.is_empty() && !values.is_empty() {
            ratios.push(((*figure).to_owned(), median(&values)));
        }
        for other in aim.against {
            if let Some(found) = Comparison::of(row, ours, other, figure) {
                ratios.push((format!("{figure}, {other}"), found.ratio));
            }
        }
    }
    ratios
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::versus::results::{Sample, ScenarioResults};
    use crate::versus::scenario::Figures;

    #[test]
    fn an_aim_holds_or_names_the_rows_where_it_does_not() {
        let row = |name: &str, ours: f64, kafka: f64| RowResults {
            name: name.into(),
            arms: vec!["milena".into(), "kafka".into()],
            samples: vec![
                Sample::new(0, "milena", 1.0, Ok(Figures::from([("CPU-s/GB", ours)]))),
                Sample::new(0, "kafka", 1.0, Ok(Figures::from([("CPU-s/GB", kafka)]))),
            ],
            ..RowResults::default()
        };
        let results = Results {
            scenarios: vec![ScenarioResults {
                name: "produce".into(),
                rows: vec![row("cheap", 0.5, 2.0), row("dear", 3.0, 2.0)],
                ..ScenarioResults::default()
            }],
            ..Results::default()
        };
        let verdicts = verdicts(&results);
        assert_eq!(verdicts.len(), 1);
        assert_eq!(verdicts[0].holds, 1);
        let miss = "produce: dear (milena, CPU-s/GB, kafka)".to_owned();
        assert_eq!(verdicts[0].misses, [(miss, 1.5)]);
    }

    #[test]
    fn a_figure_that_is_a_ratio_is_compared_with_nothing() {
        let row = |name: &str, ratio: f64| RowResults {
            name: name.into(),
            arms: vec!["milena".into()],
            samples: vec![Sample::new(
                0,
                "milena",
                1.0,
                Ok(Figures::from([("of idempotent", ratio)])),
            )],
            ..RowResults::default()
        };
        let results = Results {
            scenarios: vec![ScenarioResults {
                name: "transactions".into(),
                rows: vec![row("100 ms", 0.9), row("8, 100 ms", 0.7), row("10 ms", 0.1)],
                ..ScenarioResults::default()
            }],
            ..Results::default()
        };
        let verdicts = verdicts(&results);
        assert_eq!((verdicts.len(), verdicts[0].holds), (1, 1));
        let miss = "transactions: 8, 100 ms (milena, of idempotent)".to_owned();
        assert_eq!(verdicts[0].misses, [(miss, 0.7)]);
    }
}
