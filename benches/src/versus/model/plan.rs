//! What is found out before the first round: how much each arm manages, and with how many processes.
//!
//! The rate that is the same for all arms comes from here. Where there is a choice of
//! processes, a first drain that does not count warms up the broker: a JVM takes some seconds of it.

use std::collections::BTreeMap;

use anyhow::Context;

use super::arm::Arm;
use super::backlog::{self, PARTITIONS};
use super::drain;
use super::ends::Ends;
use super::site::{Site, output_of};
use super::subject::Subject;
use super::workload::Workload;
use crate::versus::bench::Bench;

/// What an arm manages.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Manages {
    /// Records a second.
    pub rate: f64,
    /// With so many processes.
    pub processes: u32,
}

/// Of all arms.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    arms: BTreeMap<Arm, Result<Manages, String>>,
}

impl Plan {
    /// Tries all arms. One that can't be measured is left out, and says why when it is asked for.
    pub fn make(bench: &mut Bench, subject: &Subject, workload: &Workload) -> Self {
        let mut plan = Self::default();
        for &(name, arm) in subject.arms {
            let found = calibrate(bench, subject, workload, arm);
            let found = found.map_err(|error| format!("{error:#}"));
            match &found {
                Ok(found) => eprint!("[{name}: {:.0}/s by {}] ", found.rate, found.processes),
                Err(error) => eprint!("[{name}: {error}] "),
            }
            plan.arms.insert(arm, found);
        }
        plan
    }

    /// What an arm manages.
    pub fn of(&self, arm: Arm) -> anyhow::Result<Manages> {
        let found = self.arms.get(&arm).context("an arm of the plan")?;
        found.clone().map_err(|error| anyhow::anyhow!("{error}"))
    }

    /// What the slowest arm manages, in records a second.
    pub fn slowest(&self) -> f64 {
        let rates = self.arms.values().flatten().map(|found| found.rate);
        rates.fold(f64::INFINITY, f64::min)
    }
}

fn calibrate(
    bench: &mut Bench,
    subject: &Subject,
    workload: &Workload,
    arm: Arm,
) -> anyhow::Result<Manages> {
    // More than an arm is done with before it is looked at.
    let records = subject.scale.backlog;
    let mut site = Site::open(bench, arm)?;
    let input = bench.topic_name();
    site.create_topics(&input)?;
    backlog::load(&site.broker().bootstrap, &input, workload, records)?;
    let mut best: Option<Manages> = None;
    let choices = arm.processes(workload.kind);
    let warm_ups = usize::from(choices.len() > 1);
    let tries = choices.iter().take(warm_ups).chain(choices);
    for (n, &processes) in tries.enumerate() {
        let mut output = output_of(&input);
        if n > 0 {
            output = format!("{output}.{n}");
            site.create_output(&output)?;
        }
        let mut serving = site.serve(workload, &input, &output, processes)?;
        let ends = Ends::of(&site.broker().bootstrap, &output, PARTITIONS as i32)?;
        let rate = drain::watch(
            &mut serving,
            &ends,
            records,
            subject.scale.calibration_limit,
        )?
        .rate();
        serving.stop()?;
        if n >= warm_ups && best.is_none_or(|best| rate > best.rate) {
            best = Some(Manages { rate, processes });
        }
    }
    site.close()?;
    best.context("no number of processes")
}
