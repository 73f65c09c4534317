//! End to end at a fixed rate: from when a record is due to when a consumer has its output.

use std::path::Path;

use anyhow::Context;
use clients::report::Latency;

use super::subject::Scale;
use crate::versus::bench::Bench;
use crate::versus::broker::Broker;

/// Topics that are scored while they are written.
pub struct Live<'a> {
    /// Where.
    pub broker: &'a Broker,
    /// What is produced to.
    pub input: &'a str,
    /// What is read from.
    pub output: &'a str,
    /// The records, as lines of a file.
    pub payload: &'a Path,
    /// For how long, and how fast at first.
    pub scale: &'a Scale,
}

/// How records are produced. Their producer waits a millisecond for more of them.
pub const LOAD: &str = "--acks 1 --linger-ms 1";
/// Before what is measured.
const WARM_UP_SECONDS: u32 = 1;

impl Live<'_> {
    /// Waits until the first records are scored, whatever has to be loaded for that.
    pub fn wait(&self, bench: &Bench) -> anyhow::Result<()> {
        self.end_to_end(bench, self.scale.first_per_second, "--seconds 1")
            .context("the first records")?;
        Ok(())
    }

    /// At this many records a second.
    pub fn at(&self, bench: &Bench, rate: f64) -> anyhow::Result<Latency> {
        let seconds = self.scale.latency_seconds;
        let bounds = format!("--seconds {seconds} --warmup-seconds {WARM_UP_SECONDS}");
        self.end_to_end(bench, rate, &bounds)
            .with_context(|| format!("end to end at {rate:.0} records a second"))
    }

    fn end_to_end(&self, bench: &Bench, rate: f64, bounds: &str) -> anyhow::Result<Latency> {
        let rate = format!("{rate:.0}");
        let payload = self.payload.to_str().context("a path in UTF-8")?;
        let mut args = vec![
            "end-to-end",
            "--bootstrap",
            &self.broker.bootstrap,
            "--topic",
            self.input,
            "--output-topic",
            self.output,
            "--payload",
            payload,
            "--rate",
            &rate,
        ];
        args.extend(LOAD.split(' '));
        args.extend(bounds.split(' '));
        let report = bench.load(&args)?;
        report.end_to_end.context("no latency was measured")
    }
}
