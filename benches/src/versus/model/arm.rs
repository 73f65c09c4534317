//! The arms: who scores, and where.

use std::process::Command;

use anyhow::{Context, bail};

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

    /// How many processes may share the partitions: all numbers that are worth trying.
    pub fn processes(self) -> &'static [u32] {
        match self {
            Self::ModelTopic { .. } => &[1],
            Self::External | Self::Python(_) => &[1, 2],
        }
    }

    /// The program of a process beside the broker, without what it is to read and write.
    pub fn program(self, workload: &Workload) -> anyhow::Result<Command> {
        let mut command = match self {
            Self::ModelTopic { .. } => bail!("a model topic has no process of its own"),
            Self::External => Command::new(programs::external()?),
            Self::Python(engine) => {
                let mut command = programs::python()?;
                command.args(["--engine", engine.name()]);
                command
            }
        };
        command.arg("--model").arg(&workload.model);
        Ok(command)
    }
}

impl Engine {
    fn name(self) -> &'static str {
        match self {
            Self::OnnxRuntime => "onnxruntime",
            Self::Torch => "torch",
        }
    }
}
