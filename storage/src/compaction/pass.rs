//! One pass over one log: its dirty part into the map, then everything up to where that ends into new
//! segments, which take the places of the old ones.
//!
//! Old segments are taken in their order, as many into a new one as are expected to fit. A new one
//! takes its place before the next is begun: so at any time each key's newest record is there, and a
//! pass that is interrupted has only to be made again. A segment that would come out as it is stays.
//!
//! Memory is that of the map, a buffer for reading, one for writing, the index entries of one segment,
//! and the largest batch of the log, decompressed.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::filter::{Refused, Round};
use super::keys::map_keys;
use super::offset_map::OffsetMap;
use super::rewrite::Rewrite;
use super::throttle::Pace;
use super::transactions::Transactions;
use super::{Choice, Throttle};
use crate::Offset;
use crate::batch::Batch;
use crate::error::{Error, Result};
use crate::partition_log::PartitionLog;
use crate::segment::{Batches, Segment};

/// What one thread that compacts may use.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CompactorConfig {
    /// Bytes of the map from keys to their newest offsets: 24 for each key, and some slots stay empty.
    pub dedupe_buffer_bytes: u64,
    /// How full the map may get, above 0 and below 1.
    pub dedupe_buffer_load_factor: f64,
    /// Bytes of the two buffers for reading and writing.
    pub io_buffer_bytes: usize,
}

impl Default for CompactorConfig {
    fn default() -> Self {
        Self {
            dedupe_buffer_bytes: 128 << 20,
            dedupe_buffer_load_factor: 0.9,
            io_buffer_bytes: 512 << 10,
        }
    }
}

/// What one thread compacts with, from pass to pass.
pub struct Compactor {
    map: OffsetMap,
    /// Of each of the two.
    buffer_bytes: usize,
    pace: Pace,
}

/// What a pass has come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CompactionStats {
    /// Where the dirty part began.
    pub first_dirty_offset: Offset,
    /// Where it begins now: everything below is compacted.
    pub end_offset: Offset,
    /// Bytes read, those of the dirty part twice.
    pub bytes_read: u64,
    /// Bytes of the new segments.
    pub bytes_written: u64,
    /// Records up to the end.
    pub records_read: u64,
    /// Of those, the ones that are left.
    pub records_kept: u64,
    /// Tombstones that went because their time had come.
    pub tombstones_dropped: u64,
    /// Records without a key, which nothing can ask for.
    pub keyless_dropped: u64,
    /// Batches that could not be read, and stay as they are.
    pub unreadable_batches: u64,
    /// Different keys in the dirty part.
    pub map_entries: u64,
    /// There were more: the rest is for another pass.
    pub map_was_full: bool,
    /// Segments up to the end, before.
    pub segments_before: usize,
    /// And after.
    pub segments_after: usize,
}

/// Why a pass over a log ended early.
#[derive(Debug)]
pub(super) enum Ended {
    Failed(Error),
    /// It has met a transaction, and nobody has looked yet how those ended.
    TransactionsUnknown,
}

impl From<Error> for Ended {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl std::fmt::Debug for Compactor {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Compactor")
            .field("pace", &self.pace)
            .finish_non_exhaustive()
    }
}

/// Where the pass ends: as chosen, or before the segment with the first transaction whose end is not
/// known. That of one which has not ended yet is not chosen, so it is in a part that cannot be read.
fn decided_end(
    closed: &[Arc<Segment>],
    choice: &Choice,
    transactions: &Transactions,
) -> Result<Offset> {
    let undecided = transactions.first_undecided();
    let Some(first) = undecided.filter(|first| *first < choice.end_offset) else {
        return Ok(choice.end_offset);
    };
    let mut before = closed.iter().map(|segment| segment.base_offset());
    let end = before.rfind(|base| *base <= first);
    end.filter(|end| *end > choice.first_dirty_offset)
        .ok_or_else(|| {
            Error::CorruptBatch(format!(
                "how the transaction at offset {first} has ended cannot be read: nothing from there on is compacted"
            ))
        })
}

impl Compactor {
    /// One that stops, in the midst of a pass too, when `stop` is set. The throttle is for all that
    /// share it.
    pub fn new(config: CompactorConfig, throttle: Arc<Throttle>, stop: Arc<AtomicBool>) -> Self {
        let map_bytes = usize::try_from(config.dedupe_buffer_bytes).unwrap_or(usize::MAX);
        Self {
            map: OffsetMap::new(map_bytes, config.dedupe_buffer_load_factor),
            buffer_bytes: config.io_buffer_bytes / 2,
            pace: Pace::new(throttle, stop),
        }
    }

    /// It was told to stop.
    pub fn is_stopped(&self) -> bool {
        self.pace.is_stopped()
    }

    /// Blocking. Compacts a log as chosen, of which everything below the choice's end is on the device
    /// and never cut off. `replaced` gets the segments that are not the log's any more.
    pub(crate) fn run(
        &mut self,
        log: &PartitionLog,
        choice: &Choice,
        mut replaced: impl FnMut(Vec<Arc<Segment>>),
    ) -> Result<CompactionStats> {
        let mut transactions = Transactions::default();
        loop {
            match self.attempt(log, choice, &mut transactions, &mut replaced) {
                Ok(stats) => return Ok(stats),
                Err(Ended::Failed(error)) => return Err(error),
                Err(Ended::TransactionsUnknown) => self.learn(log, &mut transactions)?,
            }
        }
    }

    fn attempt(
        &mut self,
        log: &PartitionLog,
        choice: &Choice,
        transactions: &mut Transactions,
        replaced: &mut dyn FnMut(Vec<Arc<Segment>>),
    ) -> Result<CompactionStats, Ended> {
        let segments = log.segments();
        // The newest is written to.
        let closed = segments.split_last().map_or(&[][..], |(_, closed)| closed);
        let mut stats = CompactionStats {
            first_dirty_offset: choice.first_dirty_offset,
            ..CompactionStats::default()
        };
        let end = decided_end(closed, choice, transactions)?;
        let max_message_bytes = log.config().max_message_bytes as usize;
        let end = self.build_map(
            closed,
            choice.first_dirty_offset..end,
            max_message_bytes,
            transactions,
            &mut stats,
        )?;
        stats.end_offset = end;
        if end <= choice.first_dirty_offset {
            return Ok(stats);
        }
        transactions.begin_pass();
        let round = Round {
            map: &self.map,
            end_offset: end,
            now_ms: log.now_ms(),
            delete_retention_ms: log.config().delete_retention_ms,
            max_message_bytes,
            last_of_producers: &log.last_of_producers(),
            transactions,
        };
        let rewrite = Rewrite {
            log,
            round,
            pace: &self.pace,
            buffer_bytes: self.buffer_bytes,
            replaced,
            stats: &mut stats,
            read_bytes: 0,
            kept_bytes: 0,
        };
        let below = closed.partition_point(|segment| segment.base_offset() < end);
        rewrite.all(closed.get(..below).unwrap_or_default())?;
        Ok(stats)
    }

    /// Takes the newest offsets of the keys of the `dirty` part in, as far as they have room; returns
    /// the offset that it has come to.
    fn build_map(
        &mut self,
        segments: &[Arc<Segment>],
        dirty: Range<Offset>,
        max_message_bytes: usize,
        transactions: &Transactions,
        stats: &mut CompactionStats,
    ) -> Result<Offset, Ended> {
        let Range { start, end } = dirty;
        self.map.clear_for(u64::try_from(end - start).unwrap_or(0));
        let first = segments.partition_point(|segment| segment.base_offset() <= start);
        for segment in segments.iter().skip(first.saturating_sub(1)) {
            if segment.base_offset() >= end {
                break;
            }
            let from = segment.position_from(start)?;
            let mut batches = Batches::from(segment, from, self.buffer_bytes)?;
            while let Some((head, batch)) = batches.next()? {
                if head.base_offset >= end {
                    break;
                }
                stats.bytes_read += head.size;
                let batch = Batch::parse(batch)?;
                let mapped = map_keys(
                    &batch,
                    start,
                    max_message_bytes,
                    transactions,
                    &mut self.map,
                );
                stats.map_entries = self.map.len() as u64;
                match mapped {
                    Ok(mapped) if mapped.is_full => {
                        stats.map_was_full = true;
                        return Ok(self.map.latest_offset() + 1);
                    }
                    Ok(_) => {}
                    // Nothing older goes because of what may be in it.
                    Err(Refused::Damaged(_)) => self.map.update_latest_offset(head.last_offset),
                    Err(Refused::TransactionsUnknown) => return Err(Ended::TransactionsUnknown),
                }
                self.pace.moved(head.size)?;
            }
        }
        Ok(end)
    }

    /// Finds out how the transactions of all the log have ended.
    fn learn(&self, log: &PartitionLog, transactions: &mut Transactions) -> Result<()> {
        let limit = log.offsets().high_watermark;
        for segment in log.segments().iter() {
            let mut batches = Batches::from(segment, 0, self.buffer_bytes)?;
            while let Some((head, batch)) = batches.next()? {
                if head.base_offset >= limit {
                    break;
                }
                match Batch::parse(batch) {
                    Ok(batch) => transactions.learn(&batch),
                    Err(_) => transactions.unreadable_from(head.base_offset),
                }
                self.pace.moved(head.size)?;
            }
        }
        transactions.learnt();
        Ok(())
    }
}
