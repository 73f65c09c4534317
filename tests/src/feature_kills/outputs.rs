//! What was read of the outputs while the broker was killed: it is the same for ever, each input's output is there once, and those
//! of one partition of the input are in its order.

use std::collections::BTreeMap;

use super::{INPUT, SCORED};
use crate::{Isolation, Milena, Received};

/// Partition and offset of an input.
pub(super) type Source = (i32, i64);

/// The source of a record that a model topic wrote.
pub(super) fn source_of(record: &Received) -> Result<Source, String> {
    let number = |name: &str| record.header(name)?.parse::<i64>().ok();
    let topic = record.header("milena.source.topic");
    let partition = number("milena.source.partition").and_then(|n| i32::try_from(n).ok());
    match (topic, partition, number("milena.source.offset")) {
        (Some(INPUT), Some(partition), Some(offset)) => Ok((partition, offset)),
        _ => Err(format!("no source in {:?}", record.headers)),
    }
}

/// Of one partition of the outputs.
#[derive(Default)]
struct Partition {
    /// Offset and source of each record.
    read: Vec<(i64, Source)>,
    /// The last offset of each partition of the input.
    last: BTreeMap<i32, i64>,
}

impl Partition {
    fn take(&mut self, record: &Received) -> Result<(), String> {
        let (partition, offset) = source_of(record)?;
        let last = self.last.insert(partition, offset);
        if last.is_some_and(|last| last >= offset) {
            return Err(format!(
                "at offset {} the output of {partition}/{offset} follows that of {last:?}",
                record.offset
            ));
        }
        self.read.push((record.offset, (partition, offset)));
        Ok(())
    }
}

/// Everything that was read so far.
#[derive(Default)]
pub(super) struct Outputs(BTreeMap<i32, Partition>);

impl Outputs {
    /// Reads what is new.
    pub(super) fn read(&mut self, milena: &Milena) -> Result<(), String> {
        let next = |(&number, known): (&i32, &Partition)| {
            let (offset, _) = known.read.last()?;
            Some((number, offset + 1))
        };
        let from = self.0.iter().filter_map(next).collect();
        let mut fault = None;
        milena.visit(Isolation::ReadCommitted, SCORED, &from, |number, record| {
            let taken = self.0.entry(number).or_default().take(&record);
            if let Err(what) = taken {
                fault.get_or_insert(format!("{SCORED}-{number}: {what}"));
            }
        });
        fault.map_or(Ok(()), Err)
    }

    /// Reads all of it again, with what else is to be done with each.
    pub(super) fn read_again(
        &self,
        milena: &Milena,
        mut visitor: impl FnMut(i32, &Received) -> Result<(), String>,
    ) -> Result<(), String> {
        let mut again: BTreeMap<i32, Partition> = BTreeMap::new();
        let mut fault = None;
        milena.visit(
            Isolation::ReadCommitted,
            SCORED,
            &BTreeMap::new(),
            |number, record| {
                let taken = again.entry(number).or_default().take(&record);
                if let Err(what) = taken.and_then(|()| visitor(number, &record)) {
                    fault.get_or_insert(format!("{SCORED}-{number}: {what}"));
                }
            },
        );
        for (number, known) in &self.0 {
            let found = again.get(number).map_or(&[][..], |found| &found.read);
            let differs = known.read.iter().zip(found).find(|(was, is)| was != is);
            if let Some((was, is)) = differs {
                return Err(format!(
                    "{SCORED}-{number}: {was:?} was read, and now is {is:?}"
                ));
            }
            if found.len() < known.read.len() {
                return Err(format!(
                    "{SCORED}-{number}: {} records were read, and {} are there",
                    known.read.len(),
                    found.len()
                ));
            }
        }
        fault.map_or(Ok(()), Err)
    }
}
