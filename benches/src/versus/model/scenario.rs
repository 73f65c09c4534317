//! `versus --scenario model-mlp` and `model-text`: a backlog, then latencies at fixed rates.

use std::collections::BTreeMap;

use anyhow::Context;
use clients::report::Latency;

use super::arm::Arm;
use super::backlog::{self, PARTITIONS};
use super::bare;
use super::drain::{self, Drained};
use super::ends::Ends;
use super::latency::{LOAD, Live};
use super::plan::Plan;
use super::site::{Site, output_of};
use super::subject::Subject;
use super::workload::Workload;
use crate::versus::bench::Bench;
use crate::versus::scenario::{Better, Column, Figures, Row, Scenario};

/// A scenario about one subject.
pub struct ModelScenario {
    subject: Subject,
    ready: Option<(Workload, Plan)>,
    /// Records a second that an arm managed in its first drain.
    most: BTreeMap<Arm, f64>,
}

impl ModelScenario {
    /// Of which nothing is measured yet.
    pub fn new(subject: Subject) -> Self {
        Self {
            subject,
            ready: None,
            most: BTreeMap::new(),
        }
    }
}

impl Scenario for ModelScenario {
    fn name(&self) -> &'static str {
        self.subject.name
    }

    fn about(&self) -> String {
        self.subject.about.to_owned()
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
        let Subject { scale, arms, .. } = &self.subject;
        vec![Row {
            name: self.subject.row.to_owned(),
            arms: arms.iter().map(|(name, _)| *name).chain(["bare"]).collect(),
            settings: format!(
                "backlog of {} records of {}; milena-load end-to-end --seconds {} {LOAD}",
                scale.backlog(short),
                self.subject.record,
                scale.latency_seconds
            ),
        }]
    }

    fn run(&mut self, bench: &mut Bench, _row: &Row, arm: &str) -> anyhow::Result<Figures> {
        let subject = &self.subject;
        let (workload, plan) = match &mut self.ready {
            Some(ready) => ready,
            empty => {
                let workload = (subject.workload)(bench.folder())?;
                let plan = Plan::make(bench, subject, &workload);
                empty.insert((workload, plan))
            }
        };
        if arm == "bare" {
            return bare::run(workload, subject.scale.bare);
        }
        let arm = Arm::named(arm)?;
        let mut site = Site::open(bench, arm)?;
        let figures = Measurement {
            subject,
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

struct Measurement<'a> {
    subject: &'a Subject,
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
        figures.extend(self.latencies(
            bench,
            site,
            (most / 2.0).min(self.subject.scale.most_per_second),
        )?);
        figures.insert("processes", f64::from(self.plan.of(self.arm)?.processes));
        Ok(figures)
    }

    fn drain(&self, bench: &mut Bench, site: &mut Site) -> anyhow::Result<Drained> {
        let records = self.subject.scale.backlog(bench.short);
        let input = bench.topic_name();
        let output = output_of(&input);
        site.create_topics(&input)?;
        backlog::load(&site.broker().bootstrap, &input, self.workload, records)?;
        let processes = self.plan.of(self.arm)?.processes;
        let mut serving = site.serve(self.workload, &input, &output, processes)?;
        let ends = Ends::of(&site.broker().bootstrap, &output, PARTITIONS as i32)?;
        let drained = drain::watch(&mut serving, &ends, records, self.subject.scale.drain_limit)?;
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
            scale: &self.subject.scale,
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
