//! What has to be true of the log after every kill, told from what producers were answered and what a
//! separate consumer reads.

use std::collections::BTreeMap;

use super::load::{Acknowledged, IDS, id_of};
use super::{SCORED, TOPICS};
use crate::{Milena, Received};

/// Everything that was read so far: the id at each offset, by topic and partition. It is the same for
/// ever.
#[derive(Default)]
pub(super) struct Checker {
    read: BTreeMap<(usize, i32), Vec<u64>>,
    /// The last id of each producer in each partition.
    last: BTreeMap<(usize, i32, u64), u64>,
    /// Acknowledged, and not found yet.
    waiting: Vec<Acknowledged>,
    /// The offset of the last input that has an output, by partition.
    outputs: BTreeMap<i32, i64>,
    pub acknowledged: u64,
}

impl Checker {
    /// How far a topic was read.
    pub(super) fn positions(&self, topic: usize) -> BTreeMap<i32, i64> {
        let partitions = 0..TOPICS[topic].partitions;
        let position = |partition| {
            let read = self.read.get(&(topic, partition)).map_or(0, Vec::len);
            (partition, read as i64)
        };
        partitions.map(position).collect()
    }

    /// What producers were answered.
    pub(super) fn expect(&mut self, acknowledged: Vec<Acknowledged>) {
        self.acknowledged += acknowledged.len() as u64;
        self.waiting.extend(acknowledged);
    }

    /// Reads what is new, and looks for everything that was acknowledged.
    pub(super) fn read(&mut self, milena: &Milena) -> Result<(), String> {
        for (topic, plan) in TOPICS.iter().enumerate() {
            for (partition, records) in milena.read_topic_from(plan.name, &self.positions(topic)) {
                self.take(topic, partition, &records)?;
            }
        }
        for Acknowledged {
            topic,
            partition,
            offset,
            id,
        } in std::mem::take(&mut self.waiting)
        {
            let read = self.read.get(&(topic, partition));
            let found = usize::try_from(offset)
                .ok()
                .and_then(|offset| read?.get(offset).copied());
            if found != Some(id) {
                return Err(format!(
                    "{}-{partition}: record {id} was acknowledged at offset {offset}, where {found:?} is",
                    TOPICS[topic].name
                ));
            }
        }
        self.read_outputs(milena)
    }

    fn take(&mut self, topic: usize, partition: i32, records: &[Received]) -> Result<(), String> {
        let name = TOPICS[topic].name;
        let read = self.read.entry((topic, partition)).or_default();
        for record in records {
            if record.offset != read.len() as i64 {
                return Err(format!(
                    "{name}-{partition}: offset {} where {} should follow",
                    record.offset,
                    read.len()
                ));
            }
            let id = id_of(record.value.as_deref().unwrap_or_default())
                .ok_or_else(|| format!("{name}-{partition}: no id at offset {}", record.offset))?;
            read.push(id);
            let last = self.last.insert((topic, partition, id / IDS), id);
            if last.is_some_and(|last| last >= id) {
                return Err(format!(
                    "{name}-{partition}: record {id} after {last:?} of the same producer"
                ));
            }
        }
        Ok(())
    }

    /// Each input has at most one output, in order and without a gap.
    fn read_outputs(&mut self, milena: &Milena) -> Result<(), String> {
        for (partition, outputs) in milena.read_topic_from(SCORED, &self.outputs) {
            let next = self.outputs.entry(partition).or_default();
            for output in outputs {
                let source = output.header("milena.source.offset").unwrap_or_default();
                if source.parse() != Ok(*next) || output.offset != *next {
                    return Err(format!(
                        "{SCORED}-{partition}: at offset {} the output of input {source}, not of {next}",
                        output.offset
                    ));
                }
                *next += 1;
            }
        }
        Ok(())
    }

    /// Records that were sent, all of which are answered, and how many of them are there.
    pub(super) fn check_complete(&self, sent: u64) -> Result<(), String> {
        let read: u64 = self.read.values().map(|read| read.len() as u64).sum();
        if read != sent || self.acknowledged != sent {
            return Err(format!(
                "{sent} records were sent, {} acknowledged, {read} are there",
                self.acknowledged
            ));
        }
        Ok(())
    }

    /// Outputs that were read.
    pub(super) fn outputs(&self) -> i64 {
        self.outputs.values().sum()
    }
}
