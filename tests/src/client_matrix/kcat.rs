//! kcat, which is a program already: its flags for what the other clients' programs are asked for,
//! and its JSON for theirs.

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::Value;

use super::client::ConsumerOptions;
use super::program::{Output, Program};
use super::record::{Event, Read, Record, text};

/// Its version and its library's.
pub fn version() -> Result<String, String> {
    let output = Command::new("kcat").arg("-V").output();
    let output = output.map_err(|e| format!("kcat does not start: {e}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let after = |name: &str| {
        let (_, rest) = text.split_once(name)?;
        rest.split_whitespace().next().map(str::to_owned)
    };
    let (kcat, librdkafka) = after("Version ")
        .zip(after("librdkafka "))
        .ok_or("kcat -V gives no version")?;
    Ok(format!("{kcat} (librdkafka {librdkafka})"))
}

/// Partition and headers are flags, so records that differ in them need a kcat each.
pub fn produce(
    bootstrap: &str,
    topic: &str,
    codec: &str,
    records: &[Record],
) -> Result<(), String> {
    let alike = |a: &Record, b: &Record| (a.partition, &a.headers) == (b.partition, &b.headers);
    for records in records.chunk_by(alike) {
        let mut command = Command::new("kcat");
        command.args([
            "-b", bootstrap, "-P", "-t", topic, "-z", codec, "-K", "\t", "-Z",
        ]);
        command.args(["-X", "enable.idempotence=true", "-X", "acks=all"]);
        if let Some(partition) = records[0].partition {
            command.args(["-p", &partition.to_string()]);
        }
        for (name, value) in &records[0].headers {
            command.arg("-H").arg(match value {
                Some(value) => format!("{name}={value}"),
                None => name.clone(),
            });
        }
        let mut lines = String::new();
        for record in records {
            lines.push_str(record.key.as_deref().unwrap_or_default());
            lines.push('\t');
            lines.push_str(record.value.as_deref().unwrap_or_default());
            lines.push('\n');
        }
        let mut program = Program::start(&mut command, event, false)?;
        program.send_bytes(lines.as_bytes())?;
        program.end()?;
    }
    Ok(())
}

/// A member of a group; where it is to start at a time it reads the topic without one.
pub fn consumer(
    bootstrap: &str,
    topic: &str,
    group: &str,
    options: ConsumerOptions<'_>,
) -> Result<Program, String> {
    let mut command = Command::new("kcat");
    command.args([
        "-b",
        bootstrap,
        "-J",
        "-u",
        "-X",
        "auto.offset.reset=earliest",
    ]);
    if options.cooperative {
        command.args(["-X", "partition.assignment.strategy=cooperative-sticky"]);
    } else {
        command.args(["-X", "partition.assignment.strategy=range"]);
    }
    if let Some(instance_id) = options.instance_id {
        command.args(["-X", &format!("group.instance.id={instance_id}")]);
    }
    match options.from_timestamp_ms {
        Some(timestamp_ms) => command.args(["-C", "-t", topic, "-o", &format!("s@{timestamp_ms}")]),
        None => command.args(["-G", group, topic]),
    };
    Program::start(&mut command, event, options.cooperative)
}

fn event(output: Output, line: &str) -> Option<Event> {
    match output {
        Output::Out => record(line).map(Event::Read),
        Output::Error => {
            let (_, rebalanced) = line.strip_prefix("% Group ")?.split_once(" rebalanced")?;
            let (what, partitions) = rebalanced.rsplit_once("): ")?;
            let partitions = partitions
                .strip_prefix("assigned:")
                .or(partitions.strip_prefix("revoked:"))
                .unwrap_or(partitions);
            let partitions = partitions
                .split(',')
                .filter_map(|p| p.rsplit_once('[')?.1.strip_suffix(']')?.parse().ok())
                .collect();
            let revoked = what.contains("incremental revoke") || rebalanced.contains("): revoked:");
            Some(if revoked {
                Event::Revoked(partitions)
            } else {
                Event::Assigned(partitions)
            })
        }
    }
}

fn record(line: &str) -> Option<Read> {
    let line: Value = serde_json::from_str(line).ok()?;
    let mut headers = BTreeMap::new();
    if let Some(names_and_values) = line.get("headers").and_then(Value::as_array) {
        for header in names_and_values.chunks_exact(2) {
            headers.insert(header[0].as_str()?.to_owned(), text(&header[1])?);
        }
    }
    Some(Read {
        partition: line
            .get("partition")?
            .as_i64()
            .and_then(|p| i32::try_from(p).ok())?,
        offset: line.get("offset")?.as_i64()?,
        timestamp_ms: line.get("ts")?.as_i64()?,
        key: text(line.get("key")?)?,
        value: text(line.get("payload")?)?,
        headers,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_kcat_says_of_a_rebalance_is_understood() {
        let said = |line| event(Output::Error, line);
        let assigned = "% Group g rebalanced (memberid rdkafka-1): assigned: t [0], t [12]";
        assert_eq!(said(assigned), Some(Event::Assigned(vec![0, 12])));
        let revoked = "% Group g rebalanced (memberid rdkafka-1): revoked: t [0]";
        assert_eq!(said(revoked), Some(Event::Revoked(vec![0])));
        let added = "% Group g rebalanced: incremental assignment of 1 partition(s) (memberid rdkafka-1, COOPERATIVE rebalance protocol): t [3]";
        assert_eq!(said(added), Some(Event::Assigned(vec![3])));
        let nothing_added = "% Group g rebalanced: incremental assignment of 0 partition(s) (memberid rdkafka-1, COOPERATIVE rebalance protocol): ";
        assert_eq!(said(nothing_added), Some(Event::Assigned(vec![])));
        let taken = "% Group g rebalanced: incremental revoke of 2 partition(s) (memberid rdkafka-1, COOPERATIVE rebalance protocol): t [1], t [2]";
        assert_eq!(said(taken), Some(Event::Revoked(vec![1, 2])));
        assert_eq!(said("% Waiting for group rebalance"), None);
    }
}
