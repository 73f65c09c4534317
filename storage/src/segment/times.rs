//! Whether a time index says what the log does.
//!
//! Nothing in the file tells a lost or a changed entry, so it is compared with the log before it is
//! believed, once for each segment and process: entries ascend, the last one is of a batch that has
//! its timestamp, and no batch from the last offset index entry on has a later one. An index that
//! fails is done without, until a clean stop and the next start have rebuilt it. (What that misses
//! is an end that was cut off at an entry, in a segment whose later timestamps are all older.)

use std::sync::atomic::Ordering;

use super::index::Entries;
use super::{Access, BatchHead, Miss, Scan, Segment, TIME_INDEX_SUFFIX, Tail, TimeEntry, Walk};
use crate::Offset;
use crate::error::Result;

/// Nobody has compared the time index with the log.
pub(super) const UNCHECKED: u8 = 0;
const BELIEVED: u8 = 1;
const DISBELIEVED: u8 = 2;

impl Segment {
    /// Blocking. The readable time index entries; `None` where they do not say what the log does.
    pub fn times(&self) -> Result<Option<Entries<TimeEntry>>, Miss> {
        if self.times_checked.load(Ordering::Acquire) == UNCHECKED {
            // The walk first: the time index is then at least as far as the walk's index.
            let walk = self.walk(Access::Load)?;
            let wrong = self.wrong_about(&walk, &self.time_entries()?)?;
            match wrong {
                None => self.times_checked.store(BELIEVED, Ordering::Release),
                Some(reason) => self.disbelieve_times(&reason),
            }
        }
        match self.times_checked.load(Ordering::Acquire) {
            BELIEVED => self.time_entries().map(Some),
            _ => Ok(None),
        }
    }

    fn time_entries(&self) -> Result<Entries<TimeEntry>, Miss> {
        self.time_index
            .entries(self.expected.index_bytes, Access::Load)
    }

    /// Whether an entry is of the batch that ends the way it says, where `found` is the first batch
    /// from the entry's offset on. Where it is not, the index is done without from now on.
    pub fn time_leads(&self, entry: &TimeEntry, found: Option<&BatchHead>) -> bool {
        let offset = self.base_offset + i64::from(entry.relative_offset);
        let leads = found.is_some_and(|head| {
            head.base_offset <= offset && head.max_timestamp == entry.timestamp
        });
        if leads || self.damage.of(offset, Offset::MAX).is_some() {
            return true;
        }
        let time = entry.timestamp;
        self.disbelieve_times(&format!("no batch at {offset} has timestamp {time}"));
        false
    }

    fn disbelieve_times(&self, reason: &str) {
        self.times_checked.store(DISBELIEVED, Ordering::Release);
        self.distrust(TIME_INDEX_SUFFIX, reason);
    }

    /// Blocking. The largest timestamp of a segment that nobody writes to, and that is believed to be
    /// closed: from the last entry of each index and the headers behind, or, where these do not fit
    /// the log, from all headers.
    pub(super) fn look_up_largest(&self) -> Result<Option<i64>> {
        let largest = |tail: &Tail| tail.max_timestamp.map(|(timestamp, _)| timestamp);
        let reason = match self.load_tail()? {
            Ok((tail, _)) => return Ok(largest(&tail)),
            Err(reason) => reason,
        };
        let scan = Scan {
            position: 0,
            next_offset: self.base_offset,
            tail: Tail::EMPTY,
            check_crc: false,
            index_interval_bytes: u64::MAX,
            end: self.size(),
        };
        let scanned = self.scan_across(&scan, Offset::MAX, |_| {})?;
        if scanned.ranges.is_empty() && scanned.damage.is_none() {
            self.disbelieve_times(&reason);
        }
        Ok(largest(&scanned.tail))
    }

    /// What is wrong with the entries of the time index.
    fn wrong_about(
        &self,
        walk: &Walk<'_>,
        entries: &Entries<TimeEntry>,
    ) -> Result<Option<String>, Miss> {
        let mut last: Option<TimeEntry> = None;
        for index in 0..entries.count() {
            let Some(entry) = entries.get(index) else {
                break;
            };
            if let Some(last) = last
                && (entry.timestamp <= last.timestamp
                    || entry.relative_offset < last.relative_offset)
            {
                return Ok(Some(format!(
                    "entry {index} does not follow the one before"
                )));
            }
            last = Some(entry);
        }
        if let Some(last) = last {
            let offset = self.base_offset + i64::from(last.relative_offset);
            let batch = walk.batch_from(offset)?.map(|(_, head)| head);
            if !self.time_leads(&last, batch.as_ref()) {
                return Ok(Some(format!("its last entry, for offset {offset}")));
            }
        }
        // The last entries are written when the segment is closed.
        let is_closed = self.next_base().is_some()
            && self.readable() == self.size()
            && self.time_index.readable() == self.time_index.added();
        if walk.last_indexed()? == 0 && !is_closed {
            // No entry is due yet.
            return Ok(None);
        }
        let largest = last.map_or(-1, |entry| entry.timestamp);
        let mut next = walk.sound_from(walk.last_indexed()?, self.base_offset)?;
        while let Some((position, head)) = next {
            if head.max_timestamp > largest {
                let (offset, time) = (head.last_offset, head.max_timestamp);
                return Ok(Some(format!("no entry for timestamp {time} at {offset}")));
            }
            if !is_closed {
                break;
            }
            next = walk.following(position, &head)?;
        }
        Ok(None)
    }
}
