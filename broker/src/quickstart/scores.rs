//! Scored records out of the derived topic, over a Kafka connection.

use std::ops::Range;
use std::time::Duration;

use kafka_protocol::records::Record;
use serde::Deserialize;

use super::QuickstartError;
use super::client::Connection;
use super::tracker::Scored;

/// How long a fetch waits where there is nothing.
const MAX_WAIT: Duration = Duration::from_millis(250);

/// The part of the model topic's output that is shown.
#[derive(Deserialize)]
struct Output {
    score: f64,
}

/// Reads a derived topic on from given offsets.
#[derive(Debug)]
pub struct Reader {
    connection: Connection,
    topic: &'static str,
    offsets: Vec<i64>,
}

impl Reader {
    /// One offset per partition.
    pub fn new(connection: Connection, topic: &'static str, offsets: Vec<i64>) -> Reader {
        Reader {
            connection,
            topic,
            offsets,
        }
    }

    /// The next records, in partition order; none where nothing came in time.
    pub async fn next(&mut self) -> Result<Vec<Scored>, QuickstartError> {
        let fetched = self
            .connection
            .fetch(self.topic, &self.offsets, MAX_WAIT)
            .await?;
        let mut scored = Vec::new();
        for part in fetched {
            let (Some(last), Some(offset)) = (
                part.records.last(),
                usize::try_from(part.partition)
                    .ok()
                    .and_then(|index| self.offsets.get_mut(index)),
            ) else {
                continue;
            };
            *offset = last.offset + 1;
            for record in &part.records {
                let one =
                    parse(part.partition, record).map_err(|reason| QuickstartError::Output {
                        topic: self.topic,
                        partition: part.partition,
                        offset: record.offset,
                        reason,
                    })?;
                scored.extend(one);
            }
        }
        Ok(scored)
    }

    /// Where it is in each partition.
    pub fn offsets(&self) -> &[i64] {
        &self.offsets
    }
}

/// `None` for a tombstone, which a user may have sent through the topic.
fn parse(partition: i32, record: &Record) -> Result<Option<Scored>, String> {
    let Some(value) = &record.value else {
        return Ok(None);
    };
    let output: Output = serde_json::from_slice(value).map_err(|error| error.to_string())?;
    let source_partition: i32 = lineage(record, "milena.source.partition")?;
    if source_partition != partition {
        return Err(format!("its source is partition {source_partition}"));
    }
    Ok(Some(Scored {
        partition,
        source_offset: lineage(record, "milena.source.offset")?,
        score: output.score,
    }))
}

fn lineage<T: std::str::FromStr>(record: &Record, name: &str) -> Result<T, String> {
    let value = record
        .headers
        .iter()
        .find(|(key, _)| key.as_str() == name)
        .and_then(|(_, value)| value.as_ref())
        .ok_or_else(|| format!("header {name} is missing"))?;
    std::str::from_utf8(value)
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| format!("header {name} is not a number"))
}

/// What a second reading of the derived topic found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recount {
    /// Inputs of the run with an output.
    pub scored: u64,
    /// Outputs beyond the first of an input.
    pub doubles: u64,
}

/// Reads the derived topic from the reader's offsets up to `ends` and counts the outputs of the input
/// offsets given for each partition.
pub async fn recount(
    mut reader: Reader,
    ends: &[i64],
    inputs: &[Vec<Range<i64>>],
) -> Result<Recount, QuickstartError> {
    let mut recount = Recount::default();
    let mut highest: Vec<Option<i64>> = vec![None; inputs.len()];
    while reader
        .offsets()
        .iter()
        .zip(ends)
        .any(|(offset, end)| offset < end)
    {
        let before = reader.offsets().to_vec();
        for scored in reader.next().await? {
            let Some(index) = usize::try_from(scored.partition).ok() else {
                continue;
            };
            let (Some(inputs), Some(highest)) = (inputs.get(index), highest.get_mut(index)) else {
                continue;
            };
            let at = inputs.partition_point(|range| range.end <= scored.source_offset);
            if !inputs
                .get(at)
                .is_some_and(|range| range.contains(&scored.source_offset))
            {
                continue;
            }
            // Outputs keep the order of their inputs.
            if highest.is_some_and(|highest| scored.source_offset <= highest) {
                recount.doubles += 1;
            } else {
                recount.scored += 1;
                *highest = Some(scored.source_offset);
            }
        }
        if reader.offsets() == before {
            return Err(QuickstartError::Unreadable);
        }
    }
    Ok(recount)
}
