//! What compaction may leave of a log, whoever has done it, and however far it has come.
//!
//! Of what lies below its end: a record stays as it is or goes; it goes only where a newer record of its
//! key lies below the end too, or where it is a tombstone whose delete horizon, which is in its batch's
//! header, has passed; where that goes, nothing older of its key is left. A batch keeps its offsets, its
//! epoch, its producer and its sequences, and the last one of each producer is there. Records of aborted
//! transactions go, and count for nothing; a marker stays for as long as there is a batch of its
//! transaction, and until its own horizon has passed. Nothing else is touched. After a whole pass each key
//! is there once.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use bytes::Bytes;
use storage::batch::header::Batch;
use storage::batch::records::{Record, decode};
use storage::compaction::{CompactionStats, Compactor, CompactorConfig, Throttle};
use storage::partition_log::ReadLimit;

use crate::check::{self, Outcome, ensure};
use crate::model::{Model, Stored};
use crate::walk::Fate;
use crate::world::World;

/// More passes than logs, so that one that has more to do gets another.
const MOST_PASSES: usize = 5;

/// A pass that was begun.
#[derive(Clone, Copy, Debug)]
pub struct Pass {
    pub now_ms: i64,
    pub delete_retention_ms: i64,
}

/// What of a log was gone over.
struct Part<'a> {
    /// The first offset that was not.
    end: i64,
    /// Where it is looked at to.
    limit: i64,
    /// Those of which it may be the result.
    passes: &'a [Pass],
    /// To the end.
    whole: bool,
}

/// A batch, and its records.
struct Opened {
    records: Vec<Record>,
    is_control: bool,
    /// (epoch, last offset, producer, its epoch, first sequence)
    identity: (i32, i64, i64, i16, i32),
    horizon_ms: Option<i64>,
}

impl Opened {
    fn of(bytes: &Bytes) -> Result<Self, String> {
        let view = Batch::parse(bytes).map_err(|error| error.to_string())?;
        Ok(Self {
            records: decode(bytes, 1 << 20).map_err(|error| error.to_string())?,
            is_control: view.is_control(),
            identity: (
                view.partition_leader_epoch(),
                view.last_offset(),
                view.producer_id(),
                view.producer_epoch(),
                view.base_sequence(),
            ),
            horizon_ms: view.has_delete_horizon().then(|| view.base_timestamp()),
        })
    }
}

impl World {
    /// Compacts what needs it.
    pub fn compact(&mut self) -> Outcome {
        let dir = self.open().dir;
        let config = CompactorConfig {
            // Room for a few keys, or for all.
            dedupe_buffer_bytes: if self.random.one_in(4) { 100 } else { 10_000 },
            io_buffer_bytes: 500,
            ..CompactorConfig::default()
        };
        let stop = Arc::new(AtomicBool::new(false));
        let mut compactor = Compactor::new(config, Arc::new(Throttle::new(None)), stop);
        for _ in 0..MOST_PASSES {
            let pass = Pass {
                now_ms: self.now_ms(),
                delete_retention_ms: self.config.delete_retention_ms as i64,
            };
            for model in [&mut self.ordinary, &mut self.derived] {
                model.passes.push(pass);
            }
            let compacted = dir.compact_next(&mut compactor);
            self.note(|| {
                let compacted = compacted.as_ref();
                let said = compacted.map(|compacted| (compacted.log.topic(), &compacted.outcome));
                format!("    compacted: {said:?}")
            });
            if self.disk.has_crashed() {
                // The start finds out.
                return Ok(());
            }
            let Some(compacted) = compacted else {
                for model in [&mut self.ordinary, &mut self.derived] {
                    model.passes.pop();
                }
                return Ok(());
            };
            let mut found = check::batches_of(&compacted.log, ReadLimit::HighWatermark);
            let healed = self.troubled && found.is_err();
            if healed {
                // Whatever comes next is compared with what is there.
                self.heal();
                found = check::batches_of(&compacted.log, ReadLimit::HighWatermark);
            }
            let found = found?;
            let ordinary = compacted.log.topic() == "events";
            let (model, other) = match ordinary {
                true => (&mut self.ordinary, &mut self.derived),
                false => (&mut self.derived, &mut self.ordinary),
            };
            other.passes.pop();
            match compacted.outcome {
                Ok(stats) => {
                    model.passes.pop();
                    let offsets = compacted.log.offsets();
                    let limit = offsets.last_stable_offset.min(offsets.synced_offset);
                    ensure(stats.end_offset <= limit, || {
                        format!("compacted to {}, beyond {limit}", stats.end_offset)
                    })?;
                    is_old_enough(model, &stats, self.config.min_compaction_lag_ms, pass)?;
                    let part = Part {
                        end: stats.end_offset,
                        limit: model.high_watermark,
                        passes: &[pass],
                        whole: true,
                    };
                    let start = model.log_start;
                    follow(model, &found, &part, start)
                        .map_err(|what| format!("after {stats:?}: {what}"))?;
                }
                // What has been done of it lies in the log, and more of it may after a start.
                Err(error) => {
                    let (end, start) = (model.high_watermark, model.log_start);
                    let passes = model.passes.clone();
                    let part = Part {
                        end,
                        limit: end,
                        passes: &passes,
                        whole: false,
                    };
                    follow(model, &found, &part, start)
                        .map_err(|what| format!("after {error}: {what}"))?;
                    self.troubled |= healed;
                    self.failed(ordinary, "compaction", &error)?;
                    self.troubled &= !healed;
                }
            }
        }
        Ok(())
    }
}

/// What was dirty is as old as `min.compaction.lag.ms` asks.
fn is_old_enough(model: &Model, stats: &CompactionStats, lag_ms: u64, pass: Pass) -> Outcome {
    if lag_ms == 0 {
        return Ok(());
    }
    let dirty = stats.first_dirty_offset..stats.end_offset;
    let times = model.batches.iter().flat_map(|batch| batch.times.iter());
    for (time, _) in times.filter(|(_, offset)| dirty.contains(offset)) {
        ensure(time + lag_ms as i64 <= pass.now_ms, || {
            format!("compacted at {time}, which is too young at {}", pass.now_ms)
        })?;
    }
    Ok(())
}

/// After a start: the log begins at `start`, ends at `end` and has `found`. What was being compacted
/// before may be done, or in part.
pub fn follow_start(model: &mut Model, found: &[Bytes], end: i64, start: i64) -> Outcome {
    let passes = std::mem::take(&mut model.passes);
    if passes.is_empty() {
        return Ok(());
    }
    let end = end.min(model.high_watermark);
    let part = Part {
        end,
        limit: end,
        passes: &passes,
        whole: false,
    };
    follow(model, found, &part, start).map_err(|what| format!("a compaction was cut short: {what}"))
}

/// The log has `found` now: that has to be what `part` may have left, and the model follows.
fn follow(model: &mut Model, found: &[Bytes], part: &Part<'_>, start: i64) -> Outcome {
    // Records above the part's end stay, but their batch may get a horizon: segments are written whole.
    let limit = part.limit;
    let mut old = BTreeMap::new();
    for batch in &model.batches {
        if batch.base < limit && batch.next() > start {
            old.insert(batch.base, (batch, Opened::of(&batch.bytes)?));
        }
    }
    let mut new: Vec<(Stored, Opened)> = Vec::new();
    for bytes in found {
        let base = Batch::parse(bytes)
            .map_err(|error| error.to_string())?
            .base_offset();
        if base >= limit {
            break;
        }
        let Some((before, _)) = old.get(&base) else {
            return Err(format!("a batch at {base}, where there was none"));
        };
        let opened = Opened::of(bytes)?;
        let times = opened.records.iter();
        let stored = Stored {
            bytes: bytes.clone(),
            times: times
                .map(|record| (record.timestamp, record.offset))
                .collect(),
            ..Stored::clone(before)
        };
        new.push((stored, opened));
    }
    // A map that is full ends in the midst of a batch.
    let below = |record: &&Record| (start..part.end).contains(&record.offset);
    let fates = model.transactions().fates;
    let is_aborted = |base| matches!(fates.get(&base), Some(Fate::Ended { is_abort: true, .. }));
    // Of markers and aborted transactions no record has a say in which is a key's newest.
    let counts = |base: i64, batch: &Opened| !batch.is_control && !is_aborted(base);
    let mut newest: HashMap<Bytes, &Record> = HashMap::new();
    let all = old.iter().filter(|(base, (_, old))| counts(**base, old));
    for record in all.flat_map(|(_, (_, old))| &old.records).filter(below) {
        newest.insert(key_of(record), record);
    }
    let mut left: HashMap<Bytes, Vec<i64>> = HashMap::new();
    let all = new.iter().filter(|(new, opened)| counts(new.base, opened));
    for record in all.flat_map(|(_, new)| &new.records).filter(below) {
        left.entry(key_of(record)).or_default().push(record.offset);
    }
    for (stored, opened) in &new {
        let (_, before) = &old[&stored.base];
        ensure(opened.identity == before.identity, || {
            format!("{:?} was {:?}", opened.identity, before.identity)
        })?;
        let as_before = |record: &Record| before.records.contains(record);
        ensure(opened.records.iter().all(as_before), || {
            format!("the records at {} have changed", stored.base)
        })?;
        let of_a_pass = |horizon: i64| {
            let horizons = part.passes.iter();
            horizons
                .clone()
                .any(|pass| pass.now_ms + pass.delete_retention_ms == horizon)
        };
        let sound = match (before.horizon_ms, opened.horizon_ms) {
            (None, Some(horizon)) => of_a_pass(horizon),
            (before, after) => before == after || (after.is_none() && opened.records.is_empty()),
        };
        ensure(sound, || {
            let (before, after) = (before.horizon_ms, opened.horizon_ms);
            format!(
                "the horizon at {} is {after:?} after {before:?}",
                stored.base
            )
        })?;
    }
    let kept: BTreeMap<i64, &Opened> = new.iter().map(|(new, opened)| (new.base, opened)).collect();
    let now_ms = part.passes.iter().map(|pass| pass.now_ms).max();
    let has_passed = |before: &Opened| {
        let horizon = before.horizon_ms;
        horizon.is_some_and(|horizon| Some(horizon) <= now_ms)
    };
    // A pass that meets a transaction begins once more when it has found out how that has ended, and what it
    // gave a horizon before may go.
    let mut passes = part.passes.iter();
    let at_once = !fates.is_empty() && passes.any(|pass| pass.delete_retention_ms == 0);
    for (base, opened) in &kept {
        let ended = match fates.get(base) {
            Some(Fate::Ended { marker, .. }) if *marker < limit => kept.get(marker),
            _ => continue,
        };
        // Else readers would wait for it, and a start would take the transaction to be open.
        ensure(
            ended.is_some_and(|marker| !marker.records.is_empty()),
            || format!("the marker is gone of the transaction that {base} is part of"),
        )?;
        ensure(
            !part.whole || !is_aborted(*base) || *base >= part.end || opened.records.is_empty(),
            || format!("records of an aborted transaction are left at {base}"),
        )?;
    }
    for (batch, before) in old.values() {
        if before.is_control {
            let is_there = kept
                .get(&batch.base)
                .is_some_and(|after| !after.records.is_empty());
            ensure(
                is_there || before.records.is_empty() || has_passed(before),
                || format!("the marker at {} has gone before its time", batch.base),
            )?;
            continue;
        }
        if is_aborted(batch.base) {
            continue;
        }
        let mut above = before
            .records
            .iter()
            .filter(|record| record.offset >= part.end);
        let after = kept.get(&batch.base);
        let is_there = |record| after.is_some_and(|after| after.records.contains(record));
        ensure(above.all(is_there), || {
            format!(
                "something is gone at {}, at {} or above",
                batch.base, part.end
            )
        })?;
        for record in before.records.iter().filter(below) {
            let key = key_of(record);
            let left = left.get(&key).map_or(&[][..], |left| left);
            if left.contains(&record.offset) || newest[&key].offset > record.offset {
                continue;
            }
            ensure(
                record.value.is_none() && (has_passed(before) || at_once),
                || {
                    format!(
                        "the newest of {key:?}, at {}, is gone: {record:?}",
                        record.offset
                    )
                },
            )?;
            ensure(left.is_empty(), || {
                format!(
                    "{key:?} is back at {left:?}: its tombstone at {} is gone",
                    record.offset
                )
            })?;
        }
    }
    for (key, left) in left.iter().filter(|_| part.whole) {
        ensure(left.len() == 1, || format!("{key:?} is left at {left:?}"))?;
    }
    for (id, producer) in &model.producers {
        let Some((_, base, _)) = producer.batches.last() else {
            continue;
        };
        let was_there = old.contains_key(base);
        ensure(
            !was_there || new.iter().any(|(new, _)| new.base == *base),
            || format!("the last batch of producer {id}, at {base}, is gone"),
        )?;
    }
    let is_other = new.len() < old.len()
        || new
            .iter()
            .any(|(new, _)| new.bytes != old[&new.base].0.bytes);
    model.compacted |= is_other;
    let above = model
        .batches
        .split_off(model.batches.partition_point(|batch| batch.base < limit));
    model.batches = new
        .into_iter()
        .map(|(stored, _)| stored)
        .chain(above)
        .collect();
    Ok(())
}

fn key_of(record: &Record) -> Bytes {
    record.key.clone().unwrap_or_default()
}
