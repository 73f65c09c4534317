//! A picture of each scenario: one panel for each figure, a bar for each arm of each row.

use std::path::Path;

use anyhow::anyhow;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::comparison::{is_bare, is_ours};
use super::report::number;
use super::results::{ColumnResults, ScenarioResults};
use super::scenario::Better;
use crate::statistics::median;

const WIDTH: i32 = 1_000;
/// Of the rows' names.
const NAMES: i32 = 360;
const BAR: i32 = 14;
const GAP: i32 = 8;
const HEAD: i32 = 40;

/// A row's name, and its arms with a figure.
type Group<'a> = (&'a str, Vec<(&'a str, f64)>);

/// Writes `<scenario>.svg` into a folder.
pub fn draw(scenario: &ScenarioResults, folder: &Path) -> anyhow::Result<()> {
    let columns = scenario.columns.iter();
    let panels: Vec<_> = columns
        .map(|column| (column, groups(scenario, column)))
        .collect();
    let height: i32 = panels.iter().map(|(_, groups)| panel_height(groups)).sum();
    if height == 0 {
        return Ok(());
    }
    let path = folder.join(format!("{}.svg", scenario.name));
    let size = (WIDTH as u32, (height + HEAD) as u32);
    let area = SVGBackend::new(&path, size).into_drawing_area();
    let failed = |error| anyhow!("{}: {error}", path.display());
    let draw = || -> Result<(), DrawingAreaErrorKind<_>> {
        area.fill(&WHITE)?;
        text(&area, &scenario.name, (10, 20), 20, HPos::Left)?;
        let mut top = HEAD;
        for (column, groups) in &panels {
            panel(&area, column, groups, top)?;
            top += panel_height(groups);
        }
        area.present()
    };
    draw().map_err(failed)
}

fn groups<'a>(scenario: &'a ScenarioResults, column: &ColumnResults) -> Vec<Group<'a>> {
    let groups = scenario.rows.iter().map(|row| {
        let arms = row
            .arms
            .iter()
            .map(|arm| (arm.as_str(), row.values(arm, &column.figure)));
        let arms = arms.filter(|(_, values)| !values.is_empty());
        let arms = arms.map(|(arm, values)| (arm, median(&values)));
        (row.name.as_str(), arms.collect::<Vec<_>>())
    });
    groups.filter(|(_, arms)| !arms.is_empty()).collect()
}

fn panel_height(groups: &[Group<'_>]) -> i32 {
    let heights = groups.iter().map(|(_, arms)| arms.len() as i32 * BAR + GAP);
    match heights.sum() {
        0 => 0,
        bars => bars + HEAD,
    }
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;
type Drawn<'a> = Result<(), DrawingAreaErrorKind<<SVGBackend<'a> as DrawingBackend>::ErrorType>>;

fn panel<'a>(area: &Area<'a>, column: &ColumnResults, groups: &[Group<'_>], top: i32) -> Drawn<'a> {
    if groups.is_empty() {
        return Ok(());
    }
    let way = match column.better {
        Better::More => "more is better",
        Better::Less => "less is better",
    };
    text(
        area,
        &format!("{} ({way})", column.figure),
        (10, top + HEAD / 2),
        15,
        HPos::Left,
    )?;
    let values = groups
        .iter()
        .flat_map(|(_, arms)| arms.iter().map(|(_, value)| *value));
    let greatest = values.fold(f64::MIN_POSITIVE, f64::max);
    let mut y = top + HEAD;
    for (name, arms) in groups {
        let middle = y + arms.len() as i32 * BAR / 2;
        text(area, name, (NAMES - 8, middle), 12, HPos::Right)?;
        for (arm, value) in arms {
            // Room for the figure and the arm's name behind the longest bar.
            let room = f64::from(WIDTH - NAMES - 180);
            let end = NAMES + ((value / greatest).clamp(0.0, 1.0) * room) as i32;
            let bar = [(NAMES, y + 1), (end.max(NAMES + 1), y + BAR - 1)];
            area.draw(&Rectangle::new(bar, colour(arm).filled()))?;
            let label = format!("{} {arm}", number(*value));
            text(area, &label, (end + 5, y + BAR / 2), 11, HPos::Left)?;
            y += BAR;
        }
        y += GAP;
    }
    Ok(())
}

fn text<'a>(area: &Area<'a>, text: &str, at: (i32, i32), size: i32, side: HPos) -> Drawn<'a> {
    let style = ("sans-serif", size)
        .into_text_style(area)
        .pos(Pos::new(side, VPos::Center));
    area.draw_text(text, &style, at)
}

fn colour(arm: &str) -> RGBColor {
    if arm == "milena" {
        RGBColor(0x1f, 0x6f, 0xb4)
    } else if is_ours(arm) {
        RGBColor(0x7f, 0xb2, 0xdd)
    } else if is_bare(arm) {
        RGBColor(0x99, 0x99, 0x99)
    } else {
        RGBColor(0xe0, 0x82, 0x2c)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::versus::results::{RowResults, Sample};
    use crate::versus::scenario::Figures;

    #[test]
    fn there_is_a_bar_for_each_arm() {
        let sample = |arm, rate| Sample::new(0, arm, 1.0, Ok(Figures::from([("MB/s", rate)])));
        let scenario = ScenarioResults {
            name: "produce".into(),
            columns: vec![ColumnResults {
                figure: "MB/s".into(),
                better: Better::More,
            }],
            rows: vec![RowResults {
                name: "1 KiB".into(),
                arms: vec!["milena".into(), "kafka".into()],
                samples: vec![sample("milena", 400.0), sample("kafka", 250.0)],
                ..RowResults::default()
            }],
            ..ScenarioResults::default()
        };
        let folder = tempfile::tempdir().unwrap();
        draw(&scenario, folder.path()).unwrap();
        let svg = std::fs::read_to_string(folder.path().join("produce.svg")).unwrap();
        assert!(
            svg.contains("400 milena") && svg.contains("250 kafka"),
            "{svg}"
        );
    }
}
