//! Who embeds, each in a process of its own.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};

use super::{Asked, Figure};
use crate::versus::model::programs;

/// Who embeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arm {
    /// This build's.
    Milena,
    /// candle-transformers.
    StockCandle,
    /// In Python.
    OnnxRuntime,
    /// In Python, transformers' model.
    PyTorch,
}

/// As the table calls them.
pub const ARMS: [(&str, Arm); 4] = [
    ("milena", Arm::Milena),
    ("onnxruntime", Arm::OnnxRuntime),
    ("torch", Arm::PyTorch),
    ("candle", Arm::StockCandle),
];

impl Arm {
    /// What it does with the cases of a file.
    pub fn measure(self, asked: &Asked, cases: &Path) -> anyhow::Result<Vec<Figure>> {
        let engine = |name| -> anyhow::Result<Command> {
            let mut command = programs::python("encoder.py")?;
            command.args(["--engine", name]);
            Ok(command)
        };
        let this = |name| -> anyhow::Result<Command> {
            let mut command = Command::new(std::env::current_exe()?);
            command.args(["--arm", name]);
            Ok(command)
        };
        let mut command = match self {
            Self::Milena => this("milena")?,
            Self::StockCandle => this("candle")?,
            Self::OnnxRuntime => engine("onnxruntime")?,
            Self::PyTorch => engine("torch")?,
        };
        let batches: Vec<String> = asked.batches.iter().map(usize::to_string).collect();
        let threads = asked.threads.to_string();
        let output = command
            .arg("--model")
            .arg(&asked.folder)
            .arg("--cases")
            .arg(cases)
            .args(["--threads", &threads, "--batches", &batches.join(",")])
            .args(["--seconds", &asked.time.as_secs_f64().to_string()])
            .env("RAYON_NUM_THREADS", &threads)
            .env("OMP_NUM_THREADS", &threads)
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("{self:?} does not start"))?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{self:?} has failed:\n{said}");
        let lines = String::from_utf8(output.stdout)?;
        lines
            .lines()
            .map(|line| serde_json::from_str(line).with_context(|| format!("{self:?}: {line:?}")))
            .collect()
    }
}
