//! A start from what a crash has left, and everything that has to hold then.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use faulty_disk::Journal;
use storage::batch::Batch;
use storage::partition_log::{Read, ReadLimit};
use storage::{Offset, PartitionLog};

use super::super::world::{PARTITIONS, Runner, World, records};
use super::Ends;
use super::script::{Promise, Promised, crosswise, input, produced, small_segments};
use super::state;

/// Starts from what a crash has left, and checks everything.
pub(super) struct Restart<'a> {
    pub(super) world: World,
    pub(super) kept: &'a [Promise],
    pub(super) ends: &'a Ends,
}

impl Restart<'_> {
    /// Returns what the start and the catching up did, and what was promised meanwhile.
    pub(super) async fn check(&mut self) -> (Journal, Vec<Promise>) {
        self.world.open().await;
        let failed = &self.world.recovered().failed;
        assert!(failed.is_empty(), "{failed:?}");
        small_segments(&self.world);
        for partition in 0..PARTITIONS {
            self.check_input(partition);
        }
        self.check_state();
        let before = self.check_seen();
        let mut promises = self.seen();
        self.check_other();
        let mut runners = self.start_runners().await;
        self.catch_up(&mut runners).await;
        self.check_outputs(&before);
        promises.extend(self.seen());
        state::compact(&self.world);
        self.check_state();
        let journal = self.world.disk.journal();
        self.go_on();
        self.catch_up(&mut runners).await;
        self.check_outputs(&before);
        (journal, promises)
    }

    /// What consumers of the outputs see now, they are to see for ever.
    fn seen(&self) -> Vec<Promise> {
        let since = self.world.disk.recorded();
        let outputs = ["scored", "alerts"].into_iter();
        outputs
            .flat_map(|topic| (0..PARTITIONS).map(move |partition| (topic, partition)))
            .map(|(topic, partition)| {
                let count = self.world.values(topic, partition).len();
                let what = Promised::Seen {
                    topic,
                    partition,
                    count,
                };
                Promise { since, what }
            })
            .collect()
    }

    fn promised<T: Ord>(&self, of: impl Fn(&Promised) -> Option<T>) -> Option<T> {
        self.kept
            .iter()
            .filter_map(|promise| of(&promise.what))
            .max()
    }

    /// The input is what was appended, up to some batch, and every way into it leads to the same.
    fn check_input(&self, partition: i32) {
        let log = self.world.partition("transactions", partition);
        let offsets = log.offsets();
        let durable = self.promised(|what| match what {
            Promised::Input { partition: of, end } if *of == partition => Some(*end),
            _ => None,
        });
        let start = self.promised(|what| match what {
            Promised::Start {
                partition: of,
                start,
            } if *of == partition => Some(*start),
            _ => None,
        });
        let end = offsets.log_end_offset;
        assert!(
            end >= durable.unwrap_or(0),
            "acknowledged inputs are lost: {offsets:?}"
        );
        assert!(
            end <= self.ends.inputs[&partition],
            "phantom inputs: {offsets:?}"
        );
        assert!(
            offsets.log_start_offset >= start.unwrap_or(0),
            "{offsets:?}"
        );
        let found: Vec<(Offset, String)> = records(&log, ReadLimit::HighWatermark)
            .unwrap()
            .into_iter()
            .filter(|record| record.offset >= offsets.log_start_offset)
            .map(|record| (record.offset, text(record.value)))
            .collect();
        let expected: Vec<(Offset, String)> = (offsets.log_start_offset..end)
            .map(|offset| (offset, input(partition, offset)))
            .collect();
        assert_eq!(found, expected, "gap, loss or another order");
        check_indexes(&log);
    }

    /// The newest value of each key of the compacted topic is there, and nothing older in its place.
    fn check_state(&self) {
        let durable = self.promised(|what| match what {
            Promised::State { end } => Some(*end),
            _ => None,
        });
        let Some(log) = state::log(&self.world) else {
            assert_eq!(durable, None, "the compacted topic is lost");
            return;
        };
        let end = log.offsets().log_end_offset;
        let expected = durable.unwrap_or(0)..=self.ends.state;
        assert!(expected.contains(&end), "{end} is not in {expected:?}");
        state::check(&log);
        check_indexes(&log);
    }

    /// What consumers have seen is there, in the same places.
    fn check_seen(&self) -> BTreeMap<(&'static str, i32), Vec<String>> {
        let mut before = BTreeMap::new();
        for topic in ["scored", "alerts"] {
            for partition in 0..PARTITIONS {
                let values = self.world.values(topic, partition);
                let seen = self.promised(|what| match what {
                    Promised::Seen {
                        topic: t,
                        partition: p,
                        count,
                    } if (*t, *p) == (topic, partition) => Some(*count),
                    _ => None,
                });
                assert!(
                    values.len() >= seen.unwrap_or(0),
                    "{topic}-{partition}: {values:?}"
                );
                check_indexes(&self.world.partition(topic, partition));
                before.insert((topic, partition), values);
            }
        }
        before
    }

    fn check_other(&self) {
        let there = self
            .kept
            .iter()
            .rev()
            .find_map(|promise| match promise.what {
                Promised::Topic { there } => Some(there),
                _ => None,
            });
        if let Some(there) = there {
            assert_eq!(self.world.catalog().topic("other").is_some(), there);
        }
    }

    async fn start_runners(&self) -> [Runner; 2] {
        let mut scored = Runner::start(self.world.log("scored")).await;
        scored.place = crosswise;
        [scored, Runner::start(self.world.log("alerts")).await]
    }

    async fn catch_up(&self, runners: &mut [Runner; 2]) {
        for (runner, input) in runners.iter_mut().zip(["transactions", "scored"]) {
            for partition in 0..PARTITIONS {
                let end = self.world.partition(input, partition).offsets();
                runner.run(partition, end.high_watermark).await.unwrap();
            }
        }
    }

    /// One output for each input, in the order of the inputs.
    fn check_outputs(&self, before: &BTreeMap<(&'static str, i32), Vec<String>>) {
        let outputs = |topic| -> Vec<Vec<String>> {
            let partitions = 0..PARTITIONS;
            partitions
                .map(|partition| self.world.values(topic, partition))
                .collect()
        };
        let (scored, alerts) = (outputs("scored"), outputs("alerts"));
        for ((topic, partition), before) in before {
            let now = if *topic == "scored" { &scored } else { &alerts };
            assert!(
                now[*partition as usize].starts_with(before),
                "{topic}-{partition}"
            );
        }
        let expected: BTreeSet<String> = (0..PARTITIONS)
            .flat_map(|partition| {
                let end = self.world.partition("transactions", partition).offsets();
                (0..end.log_end_offset)
                    .map(move |offset| format!("scored {}", input(partition, offset)))
            })
            .collect();
        let found: BTreeSet<String> = scored.iter().flatten().cloned().collect();
        assert_eq!(found, expected, "scored: not one output for each input");
        assert_eq!(
            scored.iter().flatten().count(),
            expected.len(),
            "scored: twice: {scored:?}"
        );
        for partition in &scored {
            for from in 0..PARTITIONS {
                let prefix = format!("scored {from}:");
                let numbers = partition
                    .iter()
                    .filter_map(|value| value.strip_prefix(&prefix));
                let numbers: Vec<i64> = numbers.map(|number| number.parse().unwrap()).collect();
                assert!(numbers.is_sorted_by(|a, b| a < b), "scored: {numbers:?}");
            }
        }
        for (scored, alerts) in scored.iter().zip(&alerts) {
            let expected: Vec<String> = scored
                .iter()
                .map(|value| format!("scored {value}"))
                .collect();
            assert_eq!(alerts, &expected, "alerts");
        }
    }

    /// The producer's retry is known, its next batch is taken, and what it appends is scored.
    fn go_on(&self) {
        for partition in 0..PARTITIONS {
            let log = self.world.partition("transactions", partition);
            let end = log.offsets().log_end_offset;
            let (_, last) = last_batch(&log).unwrap_or((0, 0));
            if last > 0 {
                let again = log
                    .append(&produced(partition, end - last, last as usize))
                    .unwrap();
                assert!(
                    again.duplicate && again.base_offset == end - last,
                    "{again:?}"
                );
            }
            let next = log.append(&produced(partition, end, 2)).unwrap();
            assert_eq!((next.base_offset, next.duplicate), (end, false));
        }
        let Some(log) = state::log(&self.world) else {
            return;
        };
        let end = log.offsets().log_end_offset;
        if let Some((_, last)) = last_batch(&log) {
            // Of a batch that compaction has emptied the header is left.
            let again = log
                .append(&state::produced(end - last, last as usize))
                .unwrap();
            assert!(
                again.duplicate && again.base_offset == end - last,
                "{again:?}"
            );
        }
        let next = log.append(&state::produced(end, 2)).unwrap();
        assert_eq!((next.base_offset, next.duplicate), (end, false));
    }
}

/// The base offset and the number of records of the last batch that is there.
fn last_batch(log: &PartitionLog) -> Option<(Offset, Offset)> {
    let offsets = log.offsets();
    let last = offsets.log_end_offset - 1;
    if last < offsets.log_start_offset {
        return None;
    }
    let fetched = match log.read(last, 1, true, ReadLimit::HighWatermark).unwrap() {
        Read::Warm(fetched) => fetched,
        Read::Cold(cold) => cold.load().unwrap(),
    };
    let batch = Batch::parse(&fetched.records).unwrap();
    let base = batch.base_offset();
    Some((base, batch.last_offset() - base + 1))
}

/// Every offset and every timestamp leads to its record.
fn check_indexes(log: &PartitionLog) {
    let offsets = log.offsets();
    let all = records(log, ReadLimit::HighWatermark).unwrap();
    for record in all
        .iter()
        .filter(|record| record.offset >= offsets.log_start_offset)
    {
        let read = log
            .read(record.offset, 1, true, ReadLimit::HighWatermark)
            .unwrap();
        let fetched = match read {
            Read::Warm(fetched) => fetched,
            Read::Cold(cold) => cold.load().unwrap(),
        };
        let batch = Batch::parse(&fetched.records).unwrap();
        assert!((batch.base_offset()..=batch.last_offset()).contains(&record.offset));
        let found = log
            .offset_for_timestamp(record.timestamp, ReadLimit::HighWatermark)
            .unwrap()
            .map(|found| found.offset);
        let expected = all
            .iter()
            .filter(|other| other.offset >= offsets.log_start_offset)
            .find(|other| other.timestamp >= record.timestamp)
            .map(|other| other.offset);
        assert_eq!(found, expected, "the time {}", record.timestamp);
    }
}

fn text(value: Option<Bytes>) -> String {
    String::from_utf8(value.unwrap().to_vec()).unwrap()
}
