//! `report.md`: what a run has found, as tables.
//!
//! Of each figure the table has the median over the rounds with half of their range, and against each
//! other arm the median of the rounds' ratios with their range. What Milena is behind in, by more than
//! the spread, is marked where it stands and listed at the top.

use std::fmt::Write;

use super::aims::{self, Verdict};
use super::comparison::{Comparison, Standing, is_bare, is_ours};
use super::results::{ColumnResults, Results, RowResults, ScenarioResults};
use super::scenario::Better;
use crate::statistics::{median, relative_spread};

/// The whole report.
pub fn render(results: &Results) -> String {
    let mut text = head(results);
    text += &behind(results);
    text += &aims(&aims::verdicts(results));
    for scenario in &results.scenarios {
        text += &section(scenario);
    }
    text
}

fn head(results: &Results) -> String {
    let machine = &results.machine;
    let mut text = String::from("# Milena beside others\n\n");
    text += "Every sample of every round is in [report.json](report.json); how this is measured, in \
             [the README](../README.md).\n\n| | |\n|---|---|\n";
    let mut row = |what: &str, value: &str| {
        let _ = writeln!(text, "| {what} | {value} |");
    };
    row("command", &format!("`{}`", results.command));
    row("begun", &results.date);
    row(
        "took",
        &format!("{:.0} minutes", (results.seconds / 60.0).ceil()),
    );
    row("rounds", &results.rounds.to_string());
    let gib = machine.memory as f64 / f64::from(1 << 30);
    row(
        "machine",
        &format!("{} cores, {gib:.0} GiB, {}", machine.cores, machine.cpu),
    );
    row("kernel", &machine.kernel);
    row("file system", &machine.file_system);
    for (what, version) in &results.versions {
        row(what, version);
    }
    text.push('\n');
    for (arm, settings) in &results.settings {
        let _ = writeln!(
            text,
            "Settings of {arm}:\n\n```\n{}\n```\n",
            settings.trim_end()
        );
    }
    text
}

/// A line of the list at the top for each row and figure where Milena is behind.
fn behind(results: &Results) -> String {
    let mut text = String::from("## Rows where Milena is behind\n\n");
    let mut lines = String::new();
    for scenario in &results.scenarios {
        for line in lines_of(scenario) {
            for (other, found) in line.rivals() {
                if found.standing(line.column.better) == Standing::Behind {
                    let (from, to) = found.range;
                    let _ = writeln!(
                        lines,
                        "- {}: {}, {}: {} of {other}'s ({}-{})",
                        scenario.name,
                        line.title(),
                        line.column.figure,
                        ratio(found.ratio),
                        ratio(from),
                        ratio(to),
                    );
                }
            }
        }
    }
    text += if lines.is_empty() { "None.\n" } else { &lines };
    text.push('\n');
    text
}

fn aims(verdicts: &[Verdict]) -> String {
    let mut text = String::from("## Aims\n\n| aim | holds | misses |\n|---|---|---|\n");
    for verdict in verdicts {
        let misses = verdict
            .misses
            .iter()
            .map(|(what, found)| format!("{what}: {}", ratio(*found)));
        let _ = writeln!(
            text,
            "| {} | {} of {} | {} |",
            verdict.what,
            verdict.holds,
            verdict.holds + verdict.misses.len(),
            misses.collect::<Vec<_>>().join("<br>")
        );
    }
    text.push('\n');
    text
}

fn section(scenario: &ScenarioResults) -> String {
    let mut text = format!(
        "## {}\n\n{}\n\n![{}]({}.svg)\n\n",
        scenario.name,
        scenario.about.trim(),
        scenario.name,
        scenario.name
    );
    let others = others_of(scenario);
    let lines = lines_of(scenario);
    // Where every arm is a bare loop there is nothing that is ours.
    let ours = if lines.iter().any(|line| is_ours(line.ours)) {
        "Milena"
    } else {
        "measured"
    };
    let _ = write!(text, "| row | figure | {ours} |");
    for other in &others {
        let _ = write!(text, " {other} | Milena / {other} |");
    }
    let _ = writeln!(
        text,
        " |\n|---|---|---|{}---|",
        "---|---|".repeat(others.len())
    );
    let mut last = String::new();
    for line in &lines {
        let title = line.title();
        let shown = if title == last { "" } else { title.as_str() };
        text += &line.render(shown, &others);
        last = title;
    }
    text.push('\n');
    text += "Settings:\n\n";
    for row in &scenario.rows {
        let _ = writeln!(text, "- {}: `{}`", row.name, row.settings);
    }
    text.push('\n');
    text += &errors(scenario);
    text
}

fn errors(scenario: &ScenarioResults) -> String {
    let mut text = String::new();
    for error in &scenario.errors {
        let _ = writeln!(text, "- **error**: {}", one_line(error));
    }
    for row in &scenario.rows {
        for sample in &row.samples {
            if let Some(error) = &sample.error {
                let (round, arm) = (sample.round + 1, &sample.arm);
                let name = &row.name;
                let _ = writeln!(
                    text,
                    "- **error** in round {round} of {name}, {arm}: {}",
                    one_line(error)
                );
            }
        }
    }
    if !text.is_empty() {
        text.push('\n');
    }
    text
}

fn one_line(error: &str) -> String {
    let words: Vec<&str> = error.split_whitespace().take(80).collect();
    words.join(" ")
}

/// What each of Milena's arms is compared with, over all rows.
fn others_of(scenario: &ScenarioResults) -> Vec<&str> {
    let mut others: Vec<&str> = Vec::new();
    for row in &scenario.rows {
        for arm in row
            .arms
            .iter()
            .filter(|arm| ours_of(row).all(|ours| ours != *arm))
        {
            if !others.contains(&arm.as_str()) {
                others.push(arm);
            }
        }
    }
    others
}

/// Milena's arms of a row; where it has none, the first arm.
fn ours_of(row: &RowResults) -> impl Iterator<Item = &str> {
    let any = row.arms.iter().any(|arm| is_ours(arm));
    let arms = row.arms.iter().enumerate();
    let ours = arms.filter(move |(n, arm)| if any { is_ours(arm) } else { *n == 0 });
    ours.map(|(_, arm)| arm.as_str())
}

/// One line of a table: one of Milena's arms of a row, in one figure.
struct Line<'a> {
    row: &'a RowResults,
    ours: &'a str,
    column: &'a ColumnResults,
}

/// All lines with a figure in any arm.
fn lines_of(scenario: &ScenarioResults) -> Vec<Line<'_>> {
    let mut lines = Vec::new();
    for row in &scenario.rows {
        for ours in ours_of(row) {
            for column in &scenario.columns {
                let has = |arm: &String| !row.values(arm, &column.figure).is_empty();
                if row.arms.iter().any(has) {
                    lines.push(Line { row, ours, column });
                }
            }
        }
    }
    lines
}

impl Line<'_> {
    /// The row's name, with the arm where it is not the usual one.
    fn title(&self) -> String {
        match self.ours.strip_prefix("milena ") {
            Some(setting) => format!("{} ({setting})", self.row.name),
            None => self.row.name.clone(),
        }
    }

    /// The comparisons with all arms that are neither ours nor bare loops.
    fn rivals(&self) -> impl Iterator<Item = (&str, Comparison)> {
        let arms = self.row.arms.iter().map(String::as_str);
        let rivals = arms.filter(|arm| is_ours(self.ours) && !is_ours(arm) && !is_bare(arm));
        rivals.filter_map(|arm| Some((arm, self.beside(arm)?)))
    }

    fn beside(&self, other: &str) -> Option<Comparison> {
        Comparison::of(self.row, self.ours, other, &self.column.figure)
    }

    fn render(&self, title: &str, others: &[&str]) -> String {
        let figure = &self.column.figure;
        let way = match self.column.better {
            Better::More => "↑",
            Better::Less => "↓",
        };
        let mut text = format!(
            "| {title} | {figure} {way} | {} |",
            value(&self.row.values(self.ours, figure))
        );
        for other in others {
            let compared = self.beside(other).map_or(String::new(), |found| {
                let (from, to) = found.range;
                format!("{} ({}-{})", ratio(found.ratio), ratio(from), ratio(to))
            });
            let _ = write!(
                text,
                " {} | {compared} |",
                value(&self.row.values(other, figure))
            );
        }
        let behind = self
            .rivals()
            .any(|(_, found)| found.standing(self.column.better) == Standing::Behind);
        text + if behind { " **behind** |\n" } else { " |\n" }
    }
}

/// The median, and half of the range in percent where there are several.
fn value(values: &[f64]) -> String {
    match values {
        [] => String::new(),
        [one] => number(*one),
        _ => {
            let spread = relative_spread(values) * 100.0;
            let spread = if spread.is_finite() { spread } else { 0.0 };
            format!("{} ± {spread:.0} %", number(median(values)))
        }
    }
}

/// With three digits, or whole where there are more.
pub fn number(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        size if size >= 0.1 => format!("{value:.3}"),
        _ => format!("{value:.4}"),
    }
}

fn ratio(ratio: f64) -> String {
    number(ratio) + "x"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::versus::results::Sample;
    use crate::versus::scenario::Figures;

    fn results() -> Results {
        let sample = |round, arm, rate, cost| {
            let figures = Figures::from([("MB/s", rate), ("CPU-s/GB", cost)]);
            Sample::new(round, arm, 1.0, Ok(figures))
        };
        let column = |figure: &str, better| ColumnResults {
            figure: figure.into(),
            better,
        };
        Results {
            command: "versus --short".into(),
            scenarios: vec![ScenarioResults {
                name: "produce".into(),
                about: "As fast as it goes.".into(),
                columns: vec![
                    column("MB/s", Better::More),
                    column("CPU-s/GB", Better::Less),
                ],
                rows: vec![RowResults {
                    name: "1 KiB".into(),
                    arms: ["milena", "kafka", "bare"].map(String::from).into(),
                    settings: "acks=1".into(),
                    samples: vec![
                        sample(0, "milena", 400.0, 0.5),
                        sample(0, "kafka", 500.0, 2.0),
                        sample(1, "milena", 410.0, 0.7),
                        sample(1, "kafka", 500.0, 2.0),
                        sample(1, "bare", 820.0, 0.5),
                        Sample::new(0, "bare", 1.0, Err(anyhow::anyhow!("no\nroom"))),
                    ],
                }],
                errors: Vec::new(),
            }],
            ..Results::default()
        }
    }

    #[test]
    fn a_line_has_medians_ratios_and_whether_it_is_behind() {
        let text = render(&results());
        let line = "| 1 KiB | MB/s ↑ | 405 ± 1 % | 500 ± 0 % | 0.810x (0.800x-0.820x) | 820 | \
                    0.500x (0.500x-0.500x) | **behind** |";
        assert!(text.contains(line), "{text}");
        let line = "|  | CPU-s/GB ↓ | 0.600 ± 17 % | 2.00 ± 0 % | 0.300x (0.250x-0.350x) | 0.500 | \
                    1.40x (1.40x-1.40x) | |";
        assert!(text.contains(line), "{text}");
    }

    #[test]
    fn what_is_behind_is_listed_at_the_top_and_bare_loops_are_no_rivals() {
        let text = render(&results());
        let listed = "- produce: 1 KiB, MB/s: 0.810x of kafka's (0.800x-0.820x)\n\n";
        assert!(text.contains(listed), "{text}");
        assert!(!text.contains("of bare's"), "{text}");
    }

    #[test]
    fn errors_are_lines_of_the_report() {
        let text = render(&results());
        assert!(
            text.contains("- **error** in round 1 of 1 KiB, bare: no room\n"),
            "{text}"
        );
    }

    #[test]
    fn numbers_have_three_digits() {
        let numbers = [0.0, 0.01234, 0.1234, 1.234, 12.34, 123.4, 123_456.0].map(number);
        assert_eq!(
            numbers,
            ["0", "0.0123", "0.123", "1.23", "12.3", "123", "123456"]
        );
    }
}
