//! The progress line of a run: on stderr, only where that is a terminal.

use std::time::Duration;

use indicatif::{HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::args::{Bounds, Output};
use crate::run::Measured;
use crate::summary::duration;

const STEPS: u64 = 1000;

/// Shows how far a run is, and its last second.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
    bounds: Bounds,
    groups: u64,
}

impl Progress {
    /// Of a run with these bounds, which each of so many groups reaches by itself.
    pub fn new(output: &Output, bounds: &Bounds, groups: usize) -> Self {
        let bar = match output.quiet {
            true => ProgressBar::hidden(),
            false => ProgressBar::with_draw_target(Some(STEPS), ProgressDrawTarget::stderr()),
        };
        if let Ok(style) = ProgressStyle::with_template("{bar:24} {percent:>3} %  {msg}") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(250));
        Self {
            bar,
            bounds: bounds.clone(),
            groups: groups as u64,
        }
    }

    /// After so many seconds.
    pub fn show(&mut self, seconds: f64, measured: &Measured) {
        let Some(last) = measured.intervals.last() else {
            return;
        };
        let produced = measured.produced.records > 0;
        let ended = match produced {
            true => &measured.produced,
            false => &measured.consumed,
        };
        let of = |done: f64, all: Option<f64>| all.map_or(0.0, |all| done / all);
        let groups = self.groups as f64;
        let part = of(
            ended.records as f64 / groups,
            self.bounds.records.map(|n| n as f64),
        )
        .max(of(
            ended.bytes as f64 / groups,
            self.bounds.bytes.map(|n| n as f64),
        ))
        .max(of(seconds, self.bounds.seconds_or_default()));
        self.bar.set_position((part.min(1.0) * STEPS as f64) as u64);
        let mut text = String::new();
        for (name, records, bytes) in [
            ("produced", last.produced, last.produced_bytes),
            ("consumed", last.consumed, last.consumed_bytes),
        ] {
            if records > 0 {
                let mb = bytes as f64 / 1e6;
                text += &format!("{name} {}/s, {mb:.1} MB/s  ", HumanCount(records));
            }
        }
        if let Some(latency) = &last.latency {
            text += &format!("p99 {}", duration(latency.p99_us));
        }
        self.bar.set_message(text);
    }

    /// Removes the line.
    pub fn clear(&self) {
        self.bar.finish_and_clear();
    }
}
