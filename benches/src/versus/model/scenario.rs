//! `versus --scenario model-mlp`: a small perceptron on JSON records.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context;
use clients::report::Latency;

use super::arm::{ARMS, Arm};
use super::backlog::{self, PARTITIONS};
use super::drain::{self, Drained};
use super::ends::Ends;
use super::latency::{LOAD, Live, SECONDS};
use super::plan::Plan;
use super::site::{Site, output_of};
use super::workload::Workload;
use super::{bare, records};
use crate::versus::bench::Bench;
use crate::versus::scenario::{Better, Column, Figures, Row, Scenario};

/// How long outputs are counted where the backlog is not at its end before.
const DRAIN_LIMIT: Duration = Duration::from_secs(6);
/// Above this rate the load generator, which shares the processors, is what is measured.
const MOST_PER_SECOND: f64 = 100_000.0;

const ROW: &str = "MLP 32-64-64-1, 1 KiB JSON, 4 partitions";

const ABOUT: &str = "A perceptron 32-64-64-1 (ReLU, sigmoid) on JSON records of 1,024 bytes with 32 floats and \
    some texts, each record different, in 4 partitions. Every arm has both processors for everything, \
    and one thread for the model in each process; every output is `{\"label\":…,\"score\":…,\"scores\":{…}}` with its record's key, \
    and a sample of them is compared with what the model gives without a broker (within 1e-5).\n\n\
    - `milena`: a model topic, exactly once, with its default of seven lineage headers on each output; \
    `milena no headers` writes what the other arms write.\n\
    - `external`: Milena without model topics and a Rust process with librdkafka and the same code for JSON, \
    model and output; at least once. The difference is what being inside is worth.\n\
    - `kafka onnxruntime`, `kafka torch`: Kafka and `benches/versus/python/scorer.py` (confluent-kafka, orjson, \
    NumPy; ONNX Runtime or PyTorch on one thread); at least once.\n\
    - `bare`: decoding, model and encoding of records in memory in one thread, in batches of 1,024, without a \
    broker.\n\n\
    The arms outside have one process for all partitions or two for half of them each, whichever was faster before \
    the first round (`processes`). They take what is there, up to 1,024 records at a time, produce with a linger of \
    1 ms and acks=all, and commit offsets every second. \
    `records/s`: a backlog is there before scoring starts; outputs are counted from the first on, for up to 6 \
    seconds. CPU and memory are of all processes that serve, broker and scorers, meanwhile; RSS has the mapped \
    pages of log files that are in the page cache, anonymous memory does not. `cold start`: from the start of \
    the process that loads the model (Milena itself, with its backlog) to the first output. `p50 ms`, `p99 ms`: \
    end to end at half of the arm's own `records/s` in the first round, but at most 100,000 a second, since the \
    load generator has the same two processors; `p99 ms same rate`: at half of what the slowest arm managed before it.";

/// The scenario.
#[derive(Debug, Default)]
pub struct ModelMlp {
    ready: Option<(Workload, Plan)>,
    /// Records a second that an arm managed in its first drain.
    most: BTreeMap<Arm, f64>,
}

impl Scenario for ModelMlp {
    fn name(&self) -> &'static str {
        "model-mlp"
    }

    fn about(&self) -> String {
        ABOUT.to_owned()
    }

    fn columns(&self) -> Vec<Column> {
        let column = |better: Better| move |figure: &&'static str| Column { figure, better };
        let less = [
            "CPU-s per million",
            "RSS MB",
            "anonymous MB",
            "cold start s",
            "p50 ms",
            "p99 ms",
            "p99 ms same rate",
            "processes",
        ];
        let more = ["records/s"].map(|figure| column(Better::More)(&figure));
        more.into_iter()
            .chain(less.iter().map(column(Better::Less)))
            .collect()
    }

    fn rows(&self, short: bool) -> Vec<Row> {
        vec![Row {
            name: ROW.to_owned(),
            arms: ARMS.iter().map(|(name, _)| *name).chain(["bare"]).collect(),
            settings: format!(
                "backlog of {} records of {} bytes; milena-load end-to-end --seconds {SECONDS} {LOAD}",
                backlog_records(short),
                records::RECORD_BYTES
            ),
        }]
    }

    fn run(&mut self, bench: &mut Bench, _row: &Row, arm: &str) -> anyhow::Result<Figures> {
        let (workload, plan) = match &mut self.ready {
            Some(ready) => ready,
            empty => {
                let workload = Workload::write(bench.folder())?;
                let plan = Plan::make(bench, &workload);
                empty.insert((workload, plan))
            }
        };
        if arm == "bare" {
            return bare::run(workload, backlog_records(bench.short));
        }
        let arm = Arm::named(arm)?;
        let mut site = Site::open(bench, arm)?;
        let figures = Measurement {
            workload,
            plan,
            most: &mut self.most,
            arm,
        }
        .run(bench, &mut site);
        site.close()?;
        figures
    }
}

fn backlog_records(short: bool) -> u64 {
    if short { 800_000 } else { 1_500_000 }
}

struct Measurement<'a> {
    workload: &'a Workload,
    plan: &'a Plan,
    most: &'a mut BTreeMap<Arm, f64>,
    arm: Arm,
}

impl Measurement<'_> {
    fn run(&mut self, bench: &mut Bench, site: &mut Site) -> anyhow::Result<Figures> {
        let drained = self.drain(bench, site)?;
        let most = *self.most.entry(self.arm).or_insert(drained.rate());
        let mut figures = drained.figures();
        figures.extend(self.latencies(bench, site, (most / 2.0).min(MOST_PER_SECOND))?);
        figures.insert("processes", f64::from(self.plan.of(self.arm)?.processes));
        Ok(figures)
    }

    fn drain(&self, bench: &mut Bench, site: &mut Site) -> anyhow::Result<Drained> {
        let records = backlog_records(bench.short);
        let input = bench.topic_name();
        let output = output_of(&input);
        site.create_topics(&input)?;
        backlog::load(&site.broker().bootstrap, &input, self.workload, records)?;
        let processes = self.plan.of(self.arm)?.processes;
        let mut serving = site.serve(self.workload, &input, &output, processes)?;
        let ends = Ends::of(&site.broker().bootstrap, &output, PARTITIONS as i32)?;
        let drained = drain::watch(&mut serving, &ends, records, DRAIN_LIMIT)?;
        serving.stop()?;
        backlog::check_outputs(&site.broker().bootstrap, &output, self.workload)?;
        Ok(drained)
    }

    fn latencies(
        &self,
        bench: &mut Bench,
        site: &mut Site,
        own_rate: f64,
    ) -> anyhow::Result<Figures> {
        let input = bench.topic_name();
        let output = output_of(&input);
        site.create_topics(&input)?;
        let processes = self.plan.of(self.arm)?.processes;
        let serving = site.serve(self.workload, &input, &output, processes)?;
        let live = Live {
            broker: site.broker(),
            input: &input,
            output: &output,
            payload: &self.workload.payload,
        };
        live.wait(bench)?;
        let ms = |us: u64| us as f64 / 1e3;
        let same = live.at(bench, self.plan.slowest() / 2.0)?;
        let own: Latency = live.at(bench, own_rate)?;
        serving.stop().context("after the end-to-end runs")?;
        Ok(Figures::from([
            ("p50 ms", ms(own.p50_us)),
            ("p99 ms", ms(own.p99_us)),
            ("p99 ms same rate", ms(same.p99_us)),
        ]))
    }
}
