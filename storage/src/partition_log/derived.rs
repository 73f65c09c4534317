//! Derived partitions: what a model topic stages is hidden above the high watermark until it is
//! published, or cut off.

use std::ops::Range;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::sync::lock;
use super::{PartitionLog, Visibility};
use crate::Offset;
use crate::batch::header;
use crate::error::{Error, Result};

impl PartitionLog {
    /// Derived partitions: appends batches above the high watermark and returns their offsets.
    /// The caller holds this partition's turn.
    pub fn stage(&self, batches: &Bytes) -> Result<Range<Offset>> {
        self.check_derived()?;
        let config = self.config();
        let now_ms = self.shared.clock.now_ms();
        let mut writer = lock(&self.writer);
        self.shared.check_writable()?;
        self.shared.check_room()?;
        let start = writer.end;
        self.append_all(&mut writer, header::batches(batches), None, now_ms, &config)?;
        let end = writer.end;
        self.shared
            .change_unseen(|offsets| offsets.log_end_offset = end);
        Ok(start..end)
    }

    /// Derived partitions: raises the high watermark to `end`; the partition is readable after.
    ///
    /// `OffsetOutOfRange` where `end` is below the high watermark or above the log's end,
    /// `InvalidRecord` where it is inside of a batch.
    pub fn publish(&self, end: Offset) -> Result<()> {
        self.check_derived()?;
        let writer = lock(&self.writer);
        self.shared.check_exists()?;
        self.check_hidden(end)?;
        let before = self.shared.offsets();
        let segments = self.shared.segments();
        // From the last visible offset: its segment may have been closed since.
        let last_visible = before.high_watermark.saturating_sub(1);
        let mut from = super::read::from(&segments, last_visible).peekable();
        while let Some(segment) = from.next() {
            // The writer is further where a cut has failed.
            let whole =
                end == writer.end || from.peek().is_some_and(|next| next.base_offset() <= end);
            if whole {
                segment.publish();
            } else {
                segment.publish_to(segment.position_of(end)?, end)?;
                break;
            }
        }
        self.shared.offsets.send_modify(|offsets| {
            offsets.high_watermark = end;
            offsets.last_stable_offset = end;
            // Before anybody is woken, and not before the offsets: they are locked here.
            self.shared.readable.store(true, Ordering::Release);
        });
        Ok(())
    }

    /// Derived partitions: cuts everything at and above `end` off. Returns how many records went.
    /// Never below the high watermark.
    pub fn discard_to(&self, end: Offset) -> Result<i64> {
        self.check_derived()?;
        let mut writer = lock(&self.writer);
        self.shared.check_writable()?;
        let before = writer.end;
        if end >= before {
            return Ok(0);
        }
        self.check_hidden(end)?;
        self.cut_to(&mut writer, end)?;
        Ok(before - end)
    }

    fn check_derived(&self) -> Result<()> {
        match self.shared.visibility {
            Visibility::Derived => Ok(()),
            Visibility::Ordinary => Err(Error::InvalidRecord(
                "the partition is ordinary: nothing is staged in it".to_owned(),
            )),
        }
    }

    fn check_hidden(&self, offset: Offset) -> Result<()> {
        let offsets = self.shared.offsets();
        let (start, end) = (offsets.high_watermark, offsets.log_end_offset);
        if (start..=end).contains(&offset) {
            return Ok(());
        }
        Err(Error::OffsetOutOfRange { offset, start, end })
    }
}
