//! A broker with topics, and what scores them.
//!
//! A Milena is a new one for each arm and round, so that what one leaves is not in the memory of the next;
//! Kafka is the bench's, warmed up as for the other scenarios, and its topics are deleted afterwards.

use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, ensure};
use tests::Milena;

use super::arm::Arm;
use super::backlog::PARTITIONS;
use super::scorer_process::ScorerProcess;
use super::workload::Workload;
use crate::versus::bench::{self, Bench};
use crate::versus::broker::Broker;

/// Where an arm scores.
pub struct Site {
    arm: Arm,
    /// None where it is the bench's Kafka.
    milena: Option<Milena>,
    /// Of `milena`, without model topics.
    config: String,
    broker: Broker,
    folder: PathBuf,
    topics: Vec<String>,
}

/// What scores, while it runs.
pub struct Serving {
    /// When the processes that have the model were started.
    pub started: Instant,
    /// The broker's and theirs.
    pub pids: Vec<u32>,
    scorers: Vec<ScorerProcess>,
}

impl Serving {
    /// An error where something has ended by itself.
    pub fn check(&mut self) -> anyhow::Result<()> {
        self.scorers.iter_mut().try_for_each(ScorerProcess::check)
    }

    /// Ends the processes beside the broker.
    pub fn stop(self) -> anyhow::Result<()> {
        self.scorers.into_iter().try_for_each(ScorerProcess::stop)
    }
}

impl Site {
    /// A broker for an arm, with no topics.
    pub fn open(bench: &mut Bench, arm: Arm) -> anyhow::Result<Self> {
        let milena = match arm {
            Arm::ModelTopic { .. } | Arm::External => Some(Milena::start(bench::MILENA_CONFIG)),
            Arm::Python(_) => None,
        };
        let broker = match &milena {
            Some(milena) => bench::broker_of(milena),
            None => bench.kafka()?,
        };
        Ok(Self {
            arm,
            config: milena.as_ref().map_or("", Milena::config).to_owned(),
            milena,
            broker,
            folder: bench.folder().to_owned(),
            topics: Vec::new(),
        })
    }

    /// The broker, until it is started again.
    pub fn broker(&self) -> &Broker {
        &self.broker
    }

    /// Creates an input topic, and its output topic where the broker does not do that itself.
    pub fn create_topics(&mut self, input: &str) -> anyhow::Result<()> {
        self.broker.create_topic(input, PARTITIONS, &[])?;
        self.topics.push(input.to_owned());
        self.create_output(&output_of(input))
    }

    /// Creates another output topic, where the broker does not do that itself.
    pub fn create_output(&mut self, output: &str) -> anyhow::Result<()> {
        if matches!(self.arm, Arm::ModelTopic { .. }) {
            return Ok(());
        }
        self.broker.create_topic(output, PARTITIONS, &[])?;
        self.topics.push(output.to_owned());
        Ok(())
    }

    /// Starts scoring `input` to `output`: the broker with its model topic anew, with so many workers, or processes
    /// beside it.
    pub fn serve(
        &mut self,
        workload: &Workload,
        input: &str,
        output: &str,
        processes: u32,
    ) -> anyhow::Result<Serving> {
        if let Arm::ModelTopic { headers } = self.arm {
            return self.restart_with_model_topic(workload, input, output, headers, processes);
        }
        // Programs may have to be built, which is no part of a start.
        let commands = (0..processes)
            .map(|process| self.command(workload, input, output, process, processes))
            .collect::<anyhow::Result<Vec<_>>>()?;
        let started = Instant::now();
        let mut pids = vec![self.broker.pid];
        let mut scorers = Vec::new();
        for (process, command) in commands.into_iter().enumerate() {
            let log = self.folder.join(format!("scorer-{process}.log"));
            let scorer = ScorerProcess::spawn(command, log)?;
            pids.push(scorer.pid());
            scorers.push(scorer);
        }
        Ok(Serving {
            started,
            pids,
            scorers,
        })
    }

    /// The program beside the broker that has its part of the partitions, the first one's being 0.
    fn command(
        &self,
        workload: &Workload,
        input: &str,
        output: &str,
        process: u32,
        processes: u32,
    ) -> anyhow::Result<Command> {
        let partitions = (0..PARTITIONS).filter(|p| p % processes == process);
        let partitions: Vec<String> = partitions.map(|p| p.to_string()).collect();
        let mut command = self.arm.program(workload)?;
        command
            .args(["--bootstrap", &self.broker.bootstrap])
            .args(["--input", input, "--output", output])
            .args(["--partitions", &partitions.join(",")])
            .args(["--group", &format!("{output}.scorer")]);
        Ok(command)
    }

    fn restart_with_model_topic(
        &mut self,
        workload: &Workload,
        input: &str,
        output: &str,
        headers: bool,
        workers: u32,
    ) -> anyhow::Result<Serving> {
        let milena = self
            .milena
            .as_mut()
            .context("a model topic needs a Milena")?;
        let status = milena.stop();
        ensure!(
            status.success(),
            "milena ended with {status}:\n{}",
            milena.log()
        );
        let output_line = if headers {
            ""
        } else {
            "output = { headers = \"none\" }\n"
        };
        milena.set_config(format!(
            "{}\n[[model]]\nname = \"scorer\"\nsource = {:?}\nworkers = {workers}\n\n\
             [[model_topic]]\nname = {output:?}\ninput = {input:?}\nmodel = \"scorer\"\n{}{output_line}",
            self.config,
            workload.model,
            workload.kind.config(),
        ));
        let started = Instant::now();
        milena.restart();
        self.broker = bench::broker_of(milena);
        Ok(Serving {
            started,
            pids: vec![self.broker.pid],
            scorers: Vec::new(),
        })
    }

    /// Lets go of the topics.
    pub fn close(self) -> anyhow::Result<()> {
        if self.milena.is_some() {
            // Its folder goes with it.
            return Ok(());
        }
        let topics: Vec<&str> = self.topics.iter().map(String::as_str).collect();
        self.broker.delete_topics(&topics)
    }
}

/// What the output topic of an input is called.
pub fn output_of(input: &str) -> String {
    format!("{input}.scored")
}
