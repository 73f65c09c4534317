//! The log beside the model.

use bytes::Bytes;
use faulty_disk::Random;
use storage::batch::header::{Batch, batches};
use storage::batch::records::decode;
use storage::config::CompressionType;
use storage::partition_log::{Fetched, Offsets, Read, ReadLimit, TimestampAndOffset, Visibility};
use storage::{Error, PartitionLog};

use crate::model::{Model, Stored, Tri};
use crate::transactions::Transactions;

pub type Outcome = Result<(), String>;

/// `Err` with what `what` says where `holds` is false.
pub fn ensure(holds: bool, what: impl FnOnce() -> String) -> Outcome {
    if holds { Ok(()) } else { Err(what()) }
}

pub fn offsets(log: &PartitionLog, model: &Model) -> Outcome {
    let found = log.offsets();
    let transactions = Transactions::of(model);
    let stable = transactions.stable(model);
    ensure(stable.contains(&found.last_stable_offset), || {
        format!("what is stable is in {stable:?}, not as in {found:?}")
    })?;
    let expected = Offsets {
        log_start_offset: model.log_start,
        last_stable_offset: found.last_stable_offset,
        high_watermark: model.high_watermark,
        log_end_offset: model.end,
        // Whatever is durable, and no more than there is.
        synced_offset: found.synced_offset.clamp(model.synced, model.end),
    };
    ensure(found == expected, || {
        format!("offsets are {found:?}, not {expected:?}")
    })?;
    if model.read_only == Tri::Yes {
        // What could not be cut off may be known still.
        return Ok(());
    }
    transactions.open(log)
}

/// The batch as the log has it, where that stores another codec than the client's: the same records.
pub fn recompressed(
    log: &PartitionLog,
    sent: Stored,
    to: CompressionType,
) -> Result<Stored, String> {
    if to == CompressionType::Producer {
        return Ok(sent);
    }
    let fetched = match log.read(sent.base, 1, true, ReadLimit::HighWatermark) {
        Ok(Read::Warm(fetched)) => fetched.records,
        Ok(Read::Cold(cold)) => cold.load().map_err(|error| error.to_string())?.records,
        // It is read again later.
        Err(error) => return Err(format!("read of what was appended: {error}")),
    };
    ensure(same_records(&fetched, &sent.bytes), || {
        format!("the records at {} have changed", sent.base)
    })?;
    Ok(Stored {
        bytes: fetched,
        ..sent
    })
}

/// Two batches that are the same but for their codec.
pub fn same_records(one: &Bytes, other: &Bytes) -> bool {
    let both = (Batch::parse(one), Batch::parse(other));
    let (Ok(first), Ok(second)) = both else {
        return false;
    };
    let head = |batch: &Batch<'_>| {
        let producer = (
            batch.producer_id(),
            batch.producer_epoch(),
            batch.base_sequence(),
        );
        (
            batch.base_offset(),
            batch.partition_leader_epoch(),
            producer,
        )
    };
    head(&first) == head(&second)
        && matches!((decode(one, 1 << 20), decode(other, 1 << 20)), (Ok(one), Ok(other)) if one == other)
}

/// One read at random, and whether it gives what it has to.
pub fn read(log: &PartitionLog, model: &Model, random: &mut Random) -> Outcome {
    let spread = (model.high_watermark - model.log_start + 6) as u64;
    let offset = model.log_start - 2 + random.below(spread) as i64;
    let max_bytes = [0, 1, 200, 1_000, 5_000, 1 << 20][random.below(6) as usize];
    let at_least_one = random.below(4) > 0;
    let limit = match random.below(3) {
        0 => ReadLimit::LastStableOffset,
        1 if log.visibility() == Visibility::Ordinary => ReadLimit::LogEnd,
        _ => ReadLimit::HighWatermark,
    };
    let found = read_at(log, model, offset, max_bytes, at_least_one, limit)?;
    told(&Transactions::of(model), model, limit, found.as_ref())
}

/// What a read came to.
pub struct Found {
    pub offset: i64,
    pub fetched: Fetched,
    /// The offset after what was read.
    pub next: i64,
}

/// What a read_committed reader was told.
fn told(
    transactions: &Transactions,
    model: &Model,
    limit: ReadLimit,
    found: Option<&Found>,
) -> Outcome {
    match found {
        Some(found) if limit == ReadLimit::LastStableOffset => {
            transactions.told(model, found.offset, &found.fetched)
        }
        _ => Ok(()),
    }
}

/// Reads, and compares with what the model has there; `None` where there has to be nothing.
pub fn read_at(
    log: &PartitionLog,
    model: &Model,
    offset: i64,
    max_bytes: usize,
    at_least_one: bool,
    limit: ReadLimit,
) -> Result<Option<Found>, String> {
    let end = match limit {
        ReadLimit::LogEnd => model.end,
        ReadLimit::HighWatermark => model.high_watermark,
        ReadLimit::LastStableOffset => log.offsets().last_stable_offset,
    };
    let fetched = match log.read(offset, max_bytes, at_least_one, limit) {
        Ok(Read::Warm(fetched)) => Ok(fetched),
        Ok(Read::Cold(cold)) => cold.load(),
        Err(error) => Err(error),
    };
    let place = || {
        format!(
            "read at {offset} of {}..{end}, {max_bytes} bytes",
            model.log_start
        )
    };
    let fetched = match fetched {
        Ok(fetched) => fetched,
        Err(Error::OffsetOutOfRange { .. }) if !(model.log_start..=end).contains(&offset) => {
            return Ok(None);
        }
        Err(error) => return Err(format!("{}: {error}", place())),
    };
    ensure((model.log_start..=end).contains(&offset), || {
        format!("{}: gave something", place())
    })?;
    let expected = model
        .batches
        .iter()
        .skip_while(|batch| batch.next() <= offset);
    let mut expected = expected.take_while(|batch| batch.next() <= end).peekable();
    let first = expected
        .peek()
        .map_or(usize::MAX, |batch| batch.bytes.len());
    let wanted = first <= max_bytes || (at_least_one && first < usize::MAX);
    ensure(fetched.records.is_empty() != wanted, || {
        format!(
            "{}: {} bytes, the first batch has {first}",
            place(),
            fetched.records.len()
        )
    })?;
    ensure(
        fetched.records.len() <= max_bytes.max(if at_least_one { first } else { 0 }),
        || format!("{}: {} bytes are too many", place(), fetched.records.len()),
    )?;
    let mut next = offset;
    for batch in batches(&fetched.records) {
        let batch = batch.map_err(|error| format!("{}: {error}", place()))?;
        let Some(expected) = expected.next() else {
            return Err(format!(
                "{}: a batch at {}, where the log ends",
                place(),
                batch.base_offset()
            ));
        };
        ensure(batch.bytes() == &expected.bytes[..], || {
            format!(
                "{}: another batch at {}..{}",
                place(),
                batch.base_offset(),
                batch.next_offset()
            )
        })?;
        next = expected.next();
    }
    Ok(Some(Found {
        offset,
        fetched,
        next,
    }))
}

/// Reads everything that is visible.
pub fn read_all(log: &PartitionLog, model: &Model, max_bytes: usize, limit: ReadLimit) -> Outcome {
    let end = match limit {
        ReadLimit::LastStableOffset => log.offsets().last_stable_offset,
        _ => model.high_watermark,
    };
    let transactions = Transactions::of(model);
    let mut next = model.log_start;
    while next < end {
        let found = read_at(log, model, next, max_bytes, true, limit)?;
        told(&transactions, model, limit, found.as_ref())?;
        let after = found.map_or(next, |found| found.next);
        if after == next {
            // Compaction may have left nothing right before an open transaction.
            let mut left = model.batches.iter();
            let is_left = left.any(|batch| batch.next() > next && batch.base < end);
            return ensure(!is_left, || format!("nothing at {next}"));
        }
        next = after;
    }
    Ok(())
}

/// All batches of a log from its start on, as they lie there.
pub fn batches_of(log: &PartitionLog, limit: ReadLimit) -> Result<Vec<Bytes>, String> {
    let offsets = log.offsets();
    let mut next = offsets.log_start_offset;
    let end = match limit {
        ReadLimit::LogEnd => offsets.log_end_offset,
        _ => offsets.high_watermark,
    };
    let mut found = Vec::new();
    while next < end {
        let records = match log.read(next, 1 << 20, true, limit) {
            Ok(Read::Warm(fetched)) => fetched.records,
            Ok(Read::Cold(cold)) => cold.load().map_err(|error| error.to_string())?.records,
            Err(error) => return Err(format!("read at {next} after a start: {error}")),
        };
        ensure(!records.is_empty(), || {
            format!("nothing at {next}, below the end")
        })?;
        for batch in batches(&records) {
            let batch = batch.map_err(|error| format!("after {next}: {error}"))?;
            found.push(records.slice_ref(batch.bytes()));
            next = batch.next_offset();
        }
    }
    Ok(found)
}

/// Lookups by timestamp and by epoch.
pub fn look_up(log: &PartitionLog, model: &Model, random: &mut Random) -> Outcome {
    let answer = |found: Option<TimestampAndOffset>| {
        found.map(|found| (found.timestamp_ms, found.offset, found.leader_epoch))
    };
    let times = model
        .batches
        .iter()
        .flat_map(|batch| batch.times.iter().map(|(time, _)| *time));
    let mut asked: Vec<i64> = times.collect();
    asked.push(0);
    let asked = asked[random.below(asked.len() as u64) as usize] + random.below(3) as i64 - 1;
    let asked = asked.max(0);
    let found = log.offset_for_timestamp(asked, ReadLimit::HighWatermark);
    let found = answer(found.map_err(|error| format!("lookup of {asked}: {error}"))?);
    let expected = model.at_time(asked);
    ensure(found == expected, || {
        format!("at {asked} there is {found:?}, not {expected:?}")
    })?;
    let found = answer(
        log.max_timestamp()
            .map_err(|error| format!("largest timestamp: {error}"))?,
    );
    let expected = model.max_time();
    // A batch that compaction has emptied says what it had.
    let emptied = model.compacted && found.map(|found| found.0) >= expected.map(|found| found.0);
    ensure(found == expected || emptied, || {
        format!("the largest timestamp is {found:?}, not {expected:?}")
    })?;
    if log.visibility() == Visibility::Derived {
        return Ok(());
    }
    ensure(log.leader_epoch() == model.epoch, || {
        format!("epoch {}, not {}", log.leader_epoch(), model.epoch)
    })?;
    for asked in 0..=model.epoch + 1 {
        let (found, expected) = (log.end_offset_for_epoch(asked), model.end_of_epoch(asked));
        ensure(found == expected, || {
            format!("epoch {asked} ends at {found:?}, not {expected:?}")
        })?;
    }
    Ok(())
}
