//! The arms: who scores, and where.

use std::process::Command;

use anyhow::{Context, bail};

use super::kind::Kind;
use super::programs;
use super::workload::Workload;

/// What scores the records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Arm {
    /// A model topic of Milena; with the headers that say where an output came from, or without.
    ModelTopic {
        /// With them.
        headers: bool,
    },
    /// A Rust process, or several, beside a Milena without model topics, which has the same code.
    External,
    /// A Python process, or several, beside Kafka.
    Python(Engine),
}

/// What a Python process runs the model on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Engine {
    /// ONNX Runtime.
    OnnxRuntime,
    /// PyTorch.
    Torch,
}

/// All of them, as tables call them.
pub const ARMS: [(&str, Arm); 5] = [
    ("milena", Arm::ModelTopic { headers: true }),
    ("milena no headers", Arm::ModelTopic { headers: false }),
    ("external", Arm::External),
    ("kafka onnxruntime", Arm::Python(Engine::OnnxRuntime)),
    ("kafka torch", Arm::Python(Engine::Torch)),
];

impl Arm {
    /// The one of that name.
    pub fn named(name: &str) -> anyhow::Result<Self> {
        let found = ARMS.iter().find(|(known, _)| *known == name);
        found
            .map(|(_, arm)| *arm)
            .with_context(|| format!("there is no arm '{name}'"))
    }

    /// How many processes may share the partitions, or workers of a model topic the records: all numbers that
    /// are worth trying. A model of rows takes less than what is around it, which one worker has beside it.
    pub fn processes(self, kind: Kind) -> &'static [u32] {
        match (self, kind) {
            (Self::ModelTopic { .. }, Kind::Rows) => &[1],
            _ => &[1, 2],
        }
    }

    /// The program of a process beside the broker, without what it is to read and write.
    pub fn program(self, workload: &Workload) -> anyhow::Result<Command> {
        let mut command = match self {
            Self::ModelTopic { .. } => bail!("a model topic has no process of its own"),
            Self::External => Command::new(programs::external()?),
            Self::Python(engine) => {
                let mut command = programs::python("scorer.py")?;
                command.args(["--engine", engine.name()]);
                command
            }
        };
        command.args(["--kind", workload.kind.name()]);
        command.arg("--model").arg(&workload.model);
        Ok(command)
    }
}

impl Engine {
    /// As programs are told.
    pub fn name(self) -> &'static str {
        match self {
            Self::OnnxRuntime => "onnxruntime",
            Self::Torch => "torch",
        }
    }
}
