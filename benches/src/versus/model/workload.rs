//! What all arms are given: the records, the model, and what comes out of it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::bare::BATCH_RECORDS;
use super::output::Output;
use super::scorer::Scorer;
use super::{network, records};

/// Records and model, on disk and in memory.
#[derive(Debug)]
pub struct Workload {
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
    /// Makes it, in a folder.
    pub fn write(folder: &Path) -> anyhow::Result<Self> {
        let (payload, model) = (folder.join("records.jsonl"), folder.join("mlp"));
        let values = records::values();
        fs::write(&payload, values.join("\n") + "\n").context("the records' file")?;
        network::write(&model)?;
        let mut scorer = Scorer::load(&model)?;
        let mut outputs = Vec::with_capacity(values.len());
        for batch in values.chunks(BATCH_RECORDS) {
            scorer.score(batch.iter().map(String::as_bytes), |_, output| {
                outputs.push(Output::parse(output)?);
                Ok(())
            })?;
        }
        Ok(Self {
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
        let workload = Workload::write(folder.path()).unwrap();
        let count = |label: &str| workload.outputs.iter().filter(|o| o.label == label).count();
        let (ok, fraud) = (count("ok"), count("fraud"));
        assert!(ok > 500 && fraud > 500, "{ok} and {fraud}");
        workload.output(10_003).compare(workload.output(3)).unwrap();
        workload.output(4).compare(workload.output(3)).unwrap_err();
    }
}
