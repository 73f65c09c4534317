//! What Milena is meant to reach, and whether a run shows it.

use super::comparison::{Comparison, is_ours};
use super::results::Results;

/// How much of the other arm's figure Milena's may be, or must be.
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

/// An aim: a figure of all rows of some scenarios, against one arm.
struct Aim {
    what: &'static str,
    scenarios: &'static [&'static str],
    figures: &'static [&'static str],
    /// Arms, each by itself.
    against: &'static [&'static str],
    limit: Limit,
}

const PYTHON: &[&str] = &["kafka onnxruntime", "kafka torch"];

const AIMS: [Aim; 10] = [
    Aim {
        what: "CPU seconds per GB: at most half of Kafka's",
        scenarios: &["produce", "consume"],
        figures: &["CPU-s/GB"],
        against: &["kafka"],
        limit: Limit::AtMost(0.5),
    },
    Aim {
        what: "p99 end to end at fixed rates: at most half of Kafka's",
        scenarios: &["end-to-end"],
        figures: &["p99 ms"],
        against: &["kafka"],
        limit: Limit::AtMost(0.5),
    },
    Aim {
        what: "durable produce: at least five times Kafka's",
        scenarios: &["durable"],
        figures: &["records/s"],
        against: &["kafka"],
        limit: Limit::AtLeast(5.0),
    },
    Aim {
        what: "start and idle memory: at most a twentieth of Kafka's",
        scenarios: &["footprint"],
        figures: &["start ms", "RSS MB"],
        against: &["kafka"],
        limit: Limit::AtMost(0.05),
    },
    Aim {
        what: "CPU of produce and consume: at most 1.3 times the bare loop's",
        scenarios: &["produce", "consume"],
        figures: &["CPU-s/GB"],
        against: &["bare"],
        limit: Limit::AtMost(1.3),
    },
    Aim {
        what: "round trips: at most 1.3 times the bare ping-pong's p50 and p99",
        scenarios: &["storm"],
        figures: &["p50 ms", "p99 ms"],
        against: &["bare"],
        limit: Limit::AtMost(1.3),
    },
    Aim {
        what: "durable appends: at least 0.8 times the group-committed loop's",
        scenarios: &["durable"],
        figures: &["records/s"],
        against: &["bare"],
        limit: Limit::AtLeast(0.8),
    },
    Aim {
        what: "perceptron: at least five times the records a second of each Python arm",
        scenarios: &["model-mlp"],
        figures: &["records/s"],
        against: PYTHON,
        limit: Limit::AtLeast(5.0),
    },
    Aim {
        what: "model topics: p99 at the same rate below each Python arm's",
        scenarios: &["model-mlp", "model-text"],
        figures: &["p99 ms same rate"],
        against: PYTHON,
        limit: Limit::AtMost(1.0),
    },
    Aim {
        what: "model topics: CPU a record below the external scorer's",
        scenarios: &["model-mlp", "model-text"],
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
        for row in &scenario.rows {
            for ours in row.arms.iter().filter(|arm| is_ours(arm)) {
                let pairs = aim
                    .figures
                    .iter()
                    .flat_map(|figure| aim.against.iter().map(move |other| (figure, other)));
                for (figure, other) in pairs {
                    let Some(found) = Comparison::of(row, ours, other, figure) else {
                        continue;
                    };
                    if aim.limit.holds(found.ratio) {
                        verdict.holds += 1;
                        continue;
                    }
                    let (scenario, row) = (&scenario.name, &row.name);
                    let what = format!("{scenario}: {row} ({ours}, {figure}, {other})");
                    verdict.misses.push((what, found.ratio));
                }
            }
        }
    }
    verdict
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::versus::results::{RowResults, Sample, ScenarioResults};
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
}
