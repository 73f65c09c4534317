//! What compaction asks of a log.

use std::collections::HashMap;

use super::PartitionLog;
use super::sync::{Segments, lock};
use crate::Offset;
use crate::compaction::{self, Choice, LogFacts};
use crate::error::{Error, Result};
use crate::producer_state::LastRecord;
use crate::segment::{CleanedSegment, Segment};

impl PartitionLog {
    /// What of the log is to be compacted, which was compacted up to `first_dirty_offset` before.
    /// Nothing of a log whose high watermark is not known yet, or that takes no writes. What is chosen
    /// need not be on the device yet. Reads no file, but where a compaction lag is configured.
    pub(crate) fn choose_compaction(
        &self,
        first_dirty_offset: Option<Offset>,
    ) -> Result<Option<Choice>> {
        let config = self.config();
        if !config.compact || self.shared.check_writable().is_err() {
            return Ok(None);
        }
        let Some(high_watermark) = self.known_high_watermark() else {
            return Ok(None);
        };
        // What was taken first is not beyond what is taken later.
        let offsets = self.offsets();
        let segments = self.shared.segments();
        if segments.len() < 2 {
            return Ok(None);
        }
        let facts: Vec<_> = segments.iter().map(|segment| segment.facts()).collect();
        let log = LogFacts {
            now_ms: self.now_ms(),
            log_start_offset: offsets.log_start_offset,
            log_end_offset: offsets.log_end_offset,
            first_dirty_offset,
            limit: high_watermark.min(offsets.last_stable_offset),
        };
        let segment = |at: usize| segments.get(at).ok_or(Error::Closed);
        let choose = |log| {
            compaction::choose(
                &config,
                log,
                &facts,
                |at| segment(at)?.newest_ms(),
                |at| segment(at)?.first_timestamp(),
            )
        };
        let choice = choose(log)?;
        if let Some(invalid) = choice.and_then(|choice| choice.invalid_checkpoint) {
            let (topic, partition) = (self.topic(), self.partition());
            tracing::warn!(
                topic,
                partition,
                first_dirty_offset = invalid,
                log_start_offset = log.log_start_offset,
                log_end_offset = log.log_end_offset,
                "cleaner-offset-checkpoint names an offset that the log does not have: all of it is dirty"
            );
        }
        Ok(choice)
    }

    /// A new segment for what is left of `first` and of some that follow.
    pub(crate) fn create_cleaned(
        &self,
        first: &Segment,
        buffer_bytes: usize,
    ) -> Result<CleanedSegment> {
        let shared = &self.shared;
        CleanedSegment::create(
            &shared.disk,
            &shared.dir,
            first.base_offset(),
            &self.config(),
            buffer_bytes,
        )
    }

    /// The last records of the producers that are known.
    pub(crate) fn last_of_producers(&self) -> HashMap<i64, LastRecord> {
        let mut writer = lock(&self.writer);
        self.forget_idle_producers(&mut writer);
        writer.producers.last_records()
    }

    /// Refuses anything on a log that was deleted.
    pub(crate) fn check_exists(&self) -> Result<()> {
        self.shared.check_exists()
    }

    /// The segments now.
    pub(crate) fn segments(&self) -> Segments {
        self.shared.segments()
    }

    /// The broker's clock.
    pub(crate) fn now_ms(&self) -> i64 {
        self.shared.clock.now_ms()
    }
}
