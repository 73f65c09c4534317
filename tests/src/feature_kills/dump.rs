//! Inputs and outputs as files, for a program that knows no Kafka; and what can be said without recomputing anything.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::outputs::{Outputs, Source, source_of};
use super::{ALERTS, INPUT, PARTITIONS, Rule, SCORED, WEIGHTS};
use crate::{Isolation, Milena, Received};

/// A file for each partition, a line for each record.
struct Files(BTreeMap<i32, BufWriter<File>>);

impl Files {
    fn create(folder: &Path, prefix: &str) -> Result<Self, String> {
        std::fs::create_dir_all(folder).map_err(|e| e.to_string())?;
        let create = |partition: i32| {
            let path = folder.join(format!("{prefix}{partition}.tsv"));
            let file = File::create(&path).map_err(|e| format!("{}: {e}", path.display()))?;
            Ok((partition, BufWriter::new(file)))
        };
        Ok(Self(
            (0..PARTITIONS as i32)
                .map(create)
                .collect::<Result<_, String>>()?,
        ))
    }

    fn write(&mut self, partition: i32, columns: &str, record: &Received) -> Result<(), String> {
        let file = self.0.get_mut(&partition).ok_or("no such partition")?;
        let text = |bytes: &Option<Vec<u8>>| {
            let bytes = bytes.as_deref()?;
            let text = std::str::from_utf8(bytes).ok()?;
            (!text.contains(['\t', '\n'])).then(|| text.to_owned())
        };
        let key = serde_json::to_string(&text(&record.key)).map_err(|e| e.to_string())?;
        let value = text(&record.value).ok_or("a value that is no line of text")?;
        writeln!(file, "{columns}\t{key}\t{value}").map_err(|e| e.to_string())
    }

    fn close(self) -> Result<(), String> {
        let mut files = self.0.into_values();
        files.try_for_each(|mut file| file.flush().map_err(|e| e.to_string()))
    }
}

/// Writes `inputs` and `outputs`; gives the values of the outputs that the rule takes, by source.
pub(super) fn write(
    milena: &Milena,
    outputs: &Outputs,
    folder: &Path,
    rule: Rule,
) -> Result<BTreeMap<Source, Vec<u8>>, String> {
    let mut files = Files::create(&folder.join("inputs"), &format!("{INPUT}-"))?;
    let mut fault = None;
    milena.visit(
        Isolation::ReadCommitted,
        INPUT,
        &BTreeMap::new(),
        |partition, record| {
            let timestamp = record.timestamp_ms.unwrap_or(-1);
            let columns = format!("{}\t{timestamp}", record.offset);
            if let Err(what) = files.write(partition, &columns, &record) {
                fault.get_or_insert(format!("{INPUT}-{partition}: {what}"));
            }
        },
    );
    fault.map_or(Ok(()), Err)?;
    files.close()?;

    let mut files = Files::create(&folder.join("outputs"), "")?;
    let mut alerts = BTreeMap::new();
    outputs.read_again(milena, |partition, record| {
        let source = source_of(record)?;
        files.write(
            partition,
            &format!("{INPUT}\t{}\t{}", source.0, source.1),
            record,
        )?;
        if rule_takes(rule, record)? {
            alerts.insert(source, record.value.clone().unwrap_or_default());
        }
        Ok(())
    })?;
    files.close()?;
    Ok(alerts)
}

/// Whether the config's rule takes an output; and, where the model is the test's, that its score is what that says of its
/// features.
fn rule_takes(rule: Rule, record: &Received) -> Result<bool, String> {
    let value = record.value.as_deref().unwrap_or_default();
    let value: Value = serde_json::from_slice(value).map_err(|e| e.to_string())?;
    match rule {
        Rule::Any => return Ok(false),
        Rule::Score => {
            let score = value["score"].as_f64().ok_or("no score")?;
            return Ok(score >= 0.9);
        }
        Rule::Linear => {}
    }
    let feature = |name: &str| {
        value["f"][name]
            .as_f64()
            .ok_or(format!("no feature {name}"))
    };
    let score = value["p"].as_f64().ok_or("no score")?;
    let mut expected = 0.0;
    for (name, weight) in WEIGHTS {
        expected += f64::from(weight) * feature(name)?;
    }
    if (score - expected).abs() > 1e-5 * expected.abs().max(1.0) {
        return Err(format!(
            "offset {}: the score is {score}, not {expected}",
            record.offset
        ));
    }
    Ok(score > 3.0 && feature("n_1h")? >= 2.0)
}

/// One alert for each output that the rule takes, with its value.
pub(super) fn check_alerts(
    milena: &Milena,
    mut expected: BTreeMap<Source, Vec<u8>>,
) -> Result<usize, String> {
    let count = expected.len();
    let mut fault = None;
    milena.visit(Isolation::ReadCommitted, ALERTS, &BTreeMap::new(), |partition, record| {
        let matches = source_of(&record).map(|source| expected.remove(&source));
        if !matches!(&matches, Ok(Some(value)) if record.value.as_ref() == Some(value)) {
            fault.get_or_insert(format!(
                "{ALERTS}-{partition}: offset {} is no output that the rule takes, or is one twice: {record:?}",
                record.offset
            ));
        }
    });
    match expected.keys().next() {
        Some(source) => Err(format!(
            "{} alerts are missing; the first is of {source:?}",
            expected.len()
        )),
        None => fault.map_or(Ok(count), Err),
    }
}

/// What the independent recomputation says of the files.
pub(super) fn recompute(config: &Path, folder: &Path) -> Result<String, String> {
    let program: PathBuf = crate::repository().join("tests/recompute/recompute.py");
    let mut command = Command::new("python3");
    command.arg("-B").arg(program).arg("--config").arg(config);
    command
        .args(["--model-topic", SCORED, "--inputs"])
        .arg(folder.join("inputs"));
    command.arg("--outputs").arg(folder.join("outputs"));
    let output = command.output().map_err(|e| format!("python3: {e}"))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    match output.status.success() {
        true => Ok(said.trim().to_owned()),
        false => Err(format!("{said}{}", String::from_utf8_lossy(&output.stderr))),
    }
}
