//! Everything that a run has measured, as `report.json` has it: every sample of every round.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::Context;
use serde::{Deserialize, Serialize};

use super::machine::Machine;
use super::scenario::{Better, Figures, Row, Scenario};

/// A whole run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Results {
    /// As it was typed.
    pub command: String,
    /// When it began, in UTC.
    pub date: String,
    /// Rounds that were asked for.
    pub rounds: usize,
    /// How long it took so far.
    pub seconds: f64,
    /// Where it ran.
    pub machine: Machine,
    /// What was measured, by name: the brokers, the load generator, the JVM.
    pub versions: BTreeMap<String, String>,
    /// How both brokers were configured, by arm.
    pub settings: BTreeMap<String, String>,
    /// In the order in which they ran.
    pub scenarios: Vec<ScenarioResults>,
}

/// One scenario's part.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[expect(missing_docs, reason = "named as in `Scenario`")]
pub struct ScenarioResults {
    pub name: String,
    pub about: String,
    pub columns: Vec<ColumnResults>,
    pub rows: Vec<RowResults>,
    /// What went wrong outside of any sample.
    pub errors: Vec<String>,
}

/// A column of its table.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "named as in `Column`")]
pub struct ColumnResults {
    pub figure: String,
    pub better: Better,
}

/// A row of its table.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[expect(missing_docs, reason = "named as in `Row`")]
pub struct RowResults {
    pub name: String,
    pub arms: Vec<String>,
    pub settings: String,
    pub samples: Vec<Sample>,
}

/// One arm in one round.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Sample {
    /// From 0.
    pub round: usize,
    /// Which one.
    pub arm: String,
    /// How long it took, with all that is not measured.
    pub seconds: f64,
    /// By name; none where it failed.
    pub figures: BTreeMap<String, f64>,
    /// Why it failed.
    pub error: Option<String>,
}

impl ScenarioResults {
    /// Of a scenario that has not run yet.
    pub fn new(scenario: &dyn Scenario, rows: &[Row]) -> Self {
        let columns = scenario.columns().into_iter().map(|column| ColumnResults {
            figure: column.figure.to_owned(),
            better: column.better,
        });
        let rows = rows.iter().map(|row| RowResults {
            name: row.name.clone(),
            arms: row.arms.iter().map(|arm| (*arm).to_owned()).collect(),
            settings: row.settings.clone(),
            samples: Vec::new(),
        });
        Self {
            name: scenario.name().to_owned(),
            about: scenario.about(),
            columns: columns.collect(),
            rows: rows.collect(),
            errors: Vec::new(),
        }
    }
}

impl RowResults {
    /// An arm's figure in each round; none where it failed or has no such figure.
    pub fn figure(&self, arm: &str, figure: &str) -> Vec<Option<f64>> {
        let rounds = self.samples.iter().map(|sample| sample.round + 1).max();
        let mut found = vec![None; rounds.unwrap_or(0)];
        for sample in self.samples.iter().filter(|sample| sample.arm == arm) {
            found[sample.round] = sample.figures.get(figure).copied();
        }
        found
    }

    /// As [`RowResults::figure`], without the rounds that have none.
    pub fn values(&self, arm: &str, figure: &str) -> Vec<f64> {
        self.figure(arm, figure).into_iter().flatten().collect()
    }
}

impl Sample {
    /// What a run of an arm came to.
    pub fn new(round: usize, arm: &str, seconds: f64, outcome: anyhow::Result<Figures>) -> Self {
        let (figures, error) = match outcome {
            Ok(figures) => (figures, None),
            Err(error) => (Figures::new(), Some(format!("{error:#}"))),
        };
        // JSON has no NaN.
        let figures = figures.into_iter().filter(|(_, value)| value.is_finite());
        Self {
            round,
            arm: arm.to_owned(),
            seconds,
            figures: figures
                .map(|(name, value)| (name.to_owned(), value))
                .collect(),
            error,
        }
    }
}

impl Results {
    /// Writes `report.json`, so that at no time there is half of one.
    pub fn write(&self, folder: &Path) -> anyhow::Result<()> {
        fs::create_dir_all(folder)?;
        let (new, path) = (folder.join("report.json.new"), folder.join("report.json"));
        fs::write(&new, serde_json::to_vec_pretty(self)?)?;
        fs::rename(&new, &path).with_context(|| path.display().to_string())
    }

    /// Reads what [`Results::write`] has written.
    pub fn read(folder: &Path) -> anyhow::Result<Self> {
        let path = folder.join("report.json");
        let json = fs::read(&path).with_context(|| path.display().to_string())?;
        serde_json::from_slice(&json).with_context(|| path.display().to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_that_failed_has_no_figure() {
        let row = RowResults {
            samples: vec![
                Sample::new(0, "milena", 1.0, Ok(Figures::from([("MB/s", 7.0)]))),
                Sample::new(1, "milena", 1.0, Err(anyhow::anyhow!("lost"))),
                Sample::new(2, "milena", 1.0, Ok(Figures::from([("MB/s", f64::NAN)]))),
            ],
            ..RowResults::default()
        };
        assert_eq!(row.figure("milena", "MB/s"), [Some(7.0), None, None]);
        assert_eq!(row.values("milena", "MB/s"), [7.0]);
        assert_eq!(row.samples[1].error.as_deref(), Some("lost"));
    }

    #[test]
    fn what_is_written_can_be_read() {
        let folder = tempfile::tempdir().unwrap();
        let results = Results {
            command: "versus".into(),
            ..Results::default()
        };
        results.write(folder.path()).unwrap();
        assert_eq!(Results::read(folder.path()).unwrap().command, "versus");
    }
}
