//! What all arms are given: the records, the model, and what comes out of it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::kind::Kind;
use super::output::Output;
use super::scorer::Scorer;
use super::{minilm, network, records};

/// Records and model, on disk and in memory.
#[derive(Debug)]
pub struct Workload {
    /// What the records are.
    pub kind: Kind,
    /// One for each key, from 0 on; a larger key has the value of its remainder.
    pub values: Vec<String>,
    /// The same as lines of a file.
    pub payload: PathBuf,
    /// The model's folder.
    pub model: PathBuf,
    /// What the broker's own code makes of each value, without a broker.
    pub outputs: Vec<Output>,
}

impl Workload {
    /// Records with numbers, and a perceptron, in a folder.
    pub fn rows(folder: &Path) -> anyhow::Result<Self> {
        let model = folder.join("mlp");
        network::write(&model)?;
        Self::of(Kind::Rows, folder, records::rows(), model)
    }

    /// Real texts, and MiniLM for all engines.
    pub fn text(folder: &Path) -> anyhow::Result<Self> {
        Self::text_for(folder, minilm::with_onnx(folder)?)
    }

    /// Real texts for a model.
    pub fn text_for(folder: &Path, model: PathBuf) -> anyhow::Result<Self> {
        Self::of(Kind::Text, folder, records::texts()?, model)
    }

    fn of(kind: Kind, folder: &Path, values: Vec<String>, model: PathBuf) -> anyhow::Result<Self> {
        let payload = folder.join(format!("{}.jsonl", kind.name()));
        fs::write(&payload, values.join("\n") + "\n").context("the records' file")?;
        let mut scorer = Scorer::load(kind, &model)?;
        let mut outputs = Vec::with_capacity(values.len());
        for batch in values.chunks(kind.batch_records()) {
            scorer.score(batch.iter().map(String::as_bytes), |_, output| {
                outputs.push(Output::parse(output)?);
                Ok(())
            })?;
        }
        Ok(Self {
            kind,
            values,
            payload,
            model,
            outputs,
        })
    }

    /// The value that a key has.
    pub fn value(&self, key: u64) -> &[u8] {
        self.values[self.index(key)].as_bytes()
    }

    /// What it must come to.
    pub fn output(&self, key: u64) -> &Output {
        &self.outputs[self.index(key)]
    }

    fn index(&self, key: u64) -> usize {
        (key % self.values.len() as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_labels_occur_and_scores_differ() {
        let folder = tempfile::tempdir().unwrap();
        let workload = Workload::rows(folder.path()).unwrap();
        let count = |label: &str| {
            let is = |output: &&Output| matches!(output, Output::Class { label: found, .. } if found == label);
            workload.outputs.iter().filter(is).count()
        };
        let (ok, fraud) = (count("ok"), count("fraud"));
        assert!(ok > 500 && fraud > 500, "{ok} and {fraud}");
        workload.output(10_003).compare(workload.output(3)).unwrap();
        workload.output(4).compare(workload.output(3)).unwrap_err();
    }
}
