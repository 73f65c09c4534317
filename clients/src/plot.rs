//! Latency and throughput over time, as SVG: two panels with one time axis.

use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::*;

use crate::error::{Error, Result};
use crate::report::{Interval, Latency, Report};

const SIZE: (u32, u32) = (960, 640);
/// The time axis is that much longer than the run, so that the legend covers no line.
const LEGEND: f64 = 1.14;
const BLUE: RGBColor = RGBColor(31, 119, 180);
const ORANGE: RGBColor = RGBColor(255, 127, 14);
const RED: RGBColor = RGBColor(214, 39, 40);
const GREEN: RGBColor = RGBColor(44, 160, 44);

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = std::result::Result<(), Box<dyn std::error::Error>>;

/// Draws the intervals of a report to a file. Without latencies there is only the throughput.
pub fn draw(report: &Report, path: &Path) -> Result<()> {
    let area = SVGBackend::new(path, SIZE).into_drawing_area();
    draw_on(report, &area).map_err(|error| Error::Plot {
        path: path.to_owned(),
        reason: error.to_string(),
    })
}

fn draw_on(report: &Report, area: &Area<'_>) -> Drawn {
    area.fill(&WHITE)?;
    let quiet = |interval: &&Interval| interval.produced == 0 && interval.consumed == 0;
    let quiet = report.intervals.iter().rev().take_while(quiet).count();
    // Waiting for the last records, or for none, is not the load.
    let intervals = &report.intervals[..report.intervals.len() - quiet];
    let end = intervals
        .last()
        .map_or(1.0, |last| last.end_seconds.max(0.001));
    if intervals.iter().any(|interval| interval.latency.is_some()) {
        let (upper, lower) = area.split_vertically(SIZE.1 * 55 / 100);
        let name = match report.end_to_end {
            Some(_) => "latency end to end",
            None => "latency to the acknowledgement",
        };
        latency(&upper, intervals, end, name)?;
        throughput(&lower, intervals, end)?;
    } else {
        throughput(area, intervals, end)?;
    }
    area.present()?;
    Ok(())
}

fn latency(area: &Area<'_>, intervals: &[Interval], end: f64, name: &str) -> Drawn {
    let points = |of: fn(&Latency) -> u64| -> Vec<(f64, f64)> {
        intervals
            .iter()
            .filter_map(|interval| Some((interval.end_seconds, interval.latency.as_ref()?)))
            .map(|(seconds, latency)| (seconds, of(latency).max(1) as f64 / 1e3))
            .collect()
    };
    let series = [
        ("max", RED, points(|latency| latency.max_us)),
        ("p99", ORANGE, points(|latency| latency.p99_us)),
        ("p50", BLUE, points(|latency| latency.p50_us)),
    ];
    let all = || {
        series
            .iter()
            .flat_map(|(_, _, points)| points)
            .map(|(_, ms)| *ms)
    };
    // Whole decades, so that there are labels.
    let low = 10f64.powf(all().fold(f64::MAX, f64::min).log10().floor());
    let high = 10f64.powf(all().fold(low, f64::max).log10().floor() + 1.0);
    let mut chart = ChartBuilder::on(area)
        .caption(name, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(42)
        .y_label_area_size(76)
        .build_cartesian_2d(0.0..end * LEGEND, (low..high).log_scale())?;
    chart
        .configure_mesh()
        .x_desc("seconds since the start")
        .y_desc("milliseconds")
        .y_label_formatter(&|ms| format!("{ms}"))
        .label_style(("sans-serif", 14))
        .axis_desc_style(("sans-serif", 15))
        .x_max_light_lines(1)
        .light_line_style(BLACK.mix(0.06))
        .draw()?;
    for (name, color, points) in series {
        chart.draw_series(points.iter().map(|&at| Circle::new(at, 2, color.filled())))?;
        chart
            .draw_series(LineSeries::new(points, color.stroke_width(2)))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], color.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE.mix(0.85))
        .border_style(BLACK.mix(0.2))
        .label_font(("sans-serif", 14))
        .draw()?;
    Ok(())
}

fn throughput(area: &Area<'_>, intervals: &[Interval], end: f64) -> Drawn {
    let points = |of: fn(&Interval) -> u64| -> Vec<(f64, f64)> {
        let starts = std::iter::once(0.0).chain(intervals.iter().map(|i| i.end_seconds));
        intervals
            .iter()
            .zip(starts)
            // What is left at the end is too short to say a rate.
            .filter(|(interval, start)| interval.end_seconds - start > 0.25 || *start == 0.0)
            .map(|(interval, start)| {
                let seconds = (interval.end_seconds - start).max(1e-6);
                (interval.end_seconds, of(interval) as f64 / 1e6 / seconds)
            })
            .collect()
    };
    let series = [
        (
            "produced",
            BLUE,
            // Often as much as is consumed: to be seen on both sides of that line.
            4,
            points(|interval| interval.produced_bytes),
        ),
        (
            "consumed",
            GREEN,
            2,
            points(|interval| interval.consumed_bytes),
        ),
    ];
    let high = series
        .iter()
        .flat_map(|(_, _, _, points)| points)
        .map(|(_, mb)| *mb);
    let high = high.fold(0.0, f64::max).max(0.001) * 1.1;
    let mut chart = ChartBuilder::on(area)
        .caption("throughput", ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(42)
        .y_label_area_size(76)
        .build_cartesian_2d(0.0..end * LEGEND, 0.0..high)?;
    chart
        .configure_mesh()
        .x_desc("seconds since the start")
        .y_desc("MB/s")
        .label_style(("sans-serif", 14))
        .axis_desc_style(("sans-serif", 15))
        .max_light_lines(1)
        .light_line_style(BLACK.mix(0.06))
        .draw()?;
    for (name, color, width, points) in series {
        if points.iter().all(|(_, mb)| *mb == 0.0) {
            continue;
        }
        chart.draw_series(points.iter().map(|&at| Circle::new(at, 2, color.filled())))?;
        chart
            .draw_series(LineSeries::new(points, color.stroke_width(width)))?
            .label(name)
            .legend(move |(x, y)| {
                PathElement::new([(x, y), (x + 18, y)], color.stroke_width(width))
            });
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE.mix(0.85))
        .border_style(BLACK.mix(0.2))
        .label_font(("sans-serif", 14))
        .draw()?;
    Ok(())
}
