//! What the map of a pass is fed with: the keys of the dirty part's batches.
//!
//! Control batches have none, and those of aborted transactions must hide no older record. Nothing of
//! a damaged batch is taken, since a reader may not get at the record that an older one would go for:
//! its records are read to the last byte before the first key is.
//!
//! The map's latest offset is said to be the batch's last one. Who calls moves it on where there is no
//! such batch: past a damaged one, and to the end of a segment whose last offsets are gone.

use crate::Offset;
use crate::batch::Batch;
use crate::batch::retain::Records;
use crate::compaction::filter::Refused;
use crate::compaction::offset_map::OffsetMap;
use crate::compaction::transactions::Transactions;

/// How far a batch's keys were read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mapped {
    /// Records of the batch.
    pub records_read: u64,
    /// Not all of its keys have room in the map. Those before the first that has none are in it, and
    /// [`OffsetMap::latest_offset`] is that of the last of them: the pass ends there.
    pub is_full: bool,
}

/// Puts the keys of the next batch into `map`, those of records at `first_dirty_offset` and above, and
/// then says that everything up to the batch's last offset was seen.
pub(crate) fn map_keys(
    batch: &Batch<'_>,
    first_dirty_offset: Offset,
    max_message_bytes: usize,
    transactions: &Transactions,
    map: &mut OffsetMap,
) -> Result<Mapped, Refused> {
    batch.check_crc()?;
    let is_control = batch.is_control();
    if (is_control || batch.is_transactional()) && !transactions.are_known() {
        return Err(Refused::TransactionsUnknown);
    }
    let mut mapped = Mapped {
        records_read: u64::try_from(batch.records_count()).unwrap_or(0),
        is_full: false,
    };
    if !is_control && !transactions.is_aborted(batch) {
        let records = Records::of_stored(*batch, max_message_bytes)?;
        let mut keys = Vec::with_capacity(records.count().min(1024));
        records.each(|record| {
            if let Some(key) = record.key
                && record.offset >= first_dirty_offset
            {
                keys.push((key, record.offset));
            }
            Ok(())
        })?;
        map.warm(keys.iter().map(|(key, _)| *key));
        mapped.is_full = !keys.iter().all(|(key, offset)| map.put(key, *offset));
    }
    if !mapped.is_full && batch.last_offset() >= first_dirty_offset {
        map.update_latest_offset(batch.last_offset());
    }
    Ok(mapped)
}

#[cfg(test)]
#[path = "keys/tests.rs"]
mod tests;
