//! What a scenario of model topics measures: records, a model, who scores them, and how much of everything.

use std::path::Path;
use std::time::Duration;

use super::arm::Arm;
use super::workload::Workload;

/// Of one scenario.
#[derive(Clone, Copy)]
pub struct Subject {
    /// The scenario's name.
    pub name: &'static str,
    /// What it measures and how.
    pub about: &'static str,
    /// The name of its row.
    pub row: &'static str,
    /// How a record's value is described.
    pub record: &'static str,
    /// Who scores, without `bare`.
    pub arms: &'static [(&'static str, Arm)],
    /// Makes records and model in a folder.
    pub workload: fn(&Path) -> anyhow::Result<Workload>,
    /// How much.
    pub scale: Scale,
}

/// How much of everything.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// Records before scoring starts, more than an arm is done with in [`Scale::drain_limit`].
    pub backlog: u64,
    /// The same of a short run.
    pub short_backlog: u64,
    /// How long outputs are counted where the backlog is not at its end before.
    pub drain_limit: Duration,
    /// The same while it is found out what each arm manages.
    pub calibration_limit: Duration,
    /// Records of the arm `bare`.
    pub bare: u64,
    /// Above this rate the load generator, which shares the processors, is what is measured.
    pub most_per_second: f64,
    /// At which the first records come, while models are loaded.
    pub first_per_second: f64,
    /// For how long end to end is measured.
    pub latency_seconds: u32,
}

impl Scale {
    /// Records of the backlog.
    pub fn backlog(&self, short: bool) -> u64 {
        if short {
            self.short_backlog
        } else {
            self.backlog
        }
    }
}
