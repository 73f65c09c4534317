//! Watches how a backlog is scored: from the ends of the output topic, and from what the kernel says of
//! the processes that serve.
//!
//! The rate is between the first outputs that are seen and the last, and so are CPU time and memory: loading a
//! model is in neither. A pipeline that has not come to the end by a time limit is measured until the last outputs
//! before it: outputs come by batches, of which a slow model has few.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use super::ends::Ends;
use super::site::Serving;
use crate::process;
use crate::versus::scenario::Figures;

/// How often the ends are asked for: at first, and when there are outputs.
const FIRST_INTERVAL: Duration = Duration::from_millis(5);
const INTERVAL: Duration = Duration::from_millis(20);
/// By then there must be a first output.
const FIRST_TIMEOUT: Duration = Duration::from_secs(60);

/// What was measured.
#[derive(Clone, Copy, Debug, Default)]
pub struct Drained {
    /// Outputs after the first ones.
    pub records: u64,
    /// All outputs.
    pub outputs: u64,
    /// The time of `records`.
    pub seconds: f64,
    /// The CPU time meanwhile, of all processes.
    pub cpu_seconds: f64,
    /// Bytes of all processes together, at their most.
    pub resident: u64,
    /// The same of their own memory.
    pub anonymous: u64,
    /// From the start of the processes that have the model to the first output.
    pub cold_start_seconds: f64,
}

impl Drained {
    /// Outputs in a second.
    pub fn rate(&self) -> f64 {
        self.records as f64 / self.seconds
    }

    /// As the scenario's columns have them.
    pub fn figures(&self) -> Figures {
        Figures::from([
            ("records/s", self.rate()),
            (
                "CPU-s per million",
                self.cpu_seconds / self.records as f64 * 1e6,
            ),
            ("RSS MB", self.resident as f64 / 1e6),
            ("anonymous MB", self.anonymous as f64 / 1e6),
            ("cold start s", self.cold_start_seconds),
        ])
    }
}

/// Watches until there are as many outputs as `records`, or `limit` has passed since the first.
pub fn watch(
    serving: &mut Serving,
    ends: &Ends,
    records: u64,
    limit: Duration,
) -> anyhow::Result<Drained> {
    let first = loop {
        let outputs = ends.sum();
        if outputs > 0 {
            break outputs;
        }
        serving.check()?;
        ensure!(
            serving.started.elapsed() < FIRST_TIMEOUT,
            "no output in {FIRST_TIMEOUT:?}"
        );
        std::thread::sleep(FIRST_INTERVAL);
    };
    let began = Instant::now();
    let cpu_before = cpu_seconds(&serving.pids)?;
    let mut drained = Drained {
        outputs: first,
        cold_start_seconds: (began - serving.started).as_secs_f64(),
        ..Drained::default()
    };
    while drained.outputs < records && began.elapsed() < limit {
        std::thread::sleep(INTERVAL);
        let outputs = ends.sum();
        if outputs != drained.outputs {
            drained.outputs = outputs;
            drained.seconds = began.elapsed().as_secs_f64();
            drained.cpu_seconds = cpu_seconds(&serving.pids)? - cpu_before;
        }
        let (resident, anonymous) = memory(&serving.pids)?;
        drained.resident = drained.resident.max(resident);
        drained.anonymous = drained.anonymous.max(anonymous);
        serving.check()?;
    }
    drained.records = drained.outputs.saturating_sub(first);
    ensure!(
        drained.records > 0,
        "there were no outputs after the first {first}"
    );
    ensure!(
        drained.outputs <= records,
        "{} outputs of {records} records",
        drained.outputs
    );
    Ok(drained)
}

/// Of all processes together, so far.
pub fn cpu_seconds(pids: &[u32]) -> anyhow::Result<f64> {
    pids.iter()
        .map(|pid| process::cpu_seconds(*pid).context("the CPU time of a process that serves"))
        .sum()
}

/// Of all processes together: resident, and their own.
pub fn memory(pids: &[u32]) -> anyhow::Result<(u64, u64)> {
    let mut sum = (0, 0);
    for pid in pids {
        let memory = process::memory(*pid).context("the memory of a process that serves")?;
        sum = (sum.0 + memory.resident, sum.1 + memory.anonymous);
    }
    Ok(sum)
}
