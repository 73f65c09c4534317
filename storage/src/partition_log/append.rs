//! Appending: check, assign an offset, write to the page cache, publish.
//!
//! A batch is written as it came, but for its header's 61 bytes, in one vectored write; where the
//! topic wants another codec, the batch that was made of it is. Whatever fails, nothing of the append
//! is left behind.

use std::borrow::Cow;
use std::ops::{Range, RangeInclusive};
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::sync::lock;
use super::{Appended, PartitionLog, Visibility, Writer};
use crate::batch::header::{self, patch_header, patch_header_with_log_append_time};
use crate::batch::rewrite::rewritten;
use crate::batch::validate::{Limits, check_client_batch};
use crate::batch::{Batch, Compression, EndMarker, layout};
use crate::checkpoint;
use crate::config::{CompressionType, TimestampType};
use crate::error::{Error, Result};
use crate::open_files;
use crate::producer_state::{Decision, ProducerState};
use crate::segment::{BatchHead, SegmentWriter};
use crate::{LogConfig, Offset};

impl PartitionLog {
    /// Validates one client batch, checks its producer's sequence, assigns its offset and writes
    /// it to the page cache. The payload is neither copied nor decompressed, unless
    /// [`PartitionLog::opens`] says so. Wait for durability with [`PartitionLog::wait`]; a duplicate
    /// has to wait for the same.
    pub fn append(&self, batch: &Bytes) -> Result<Appended> {
        self.check_ordinary()?;
        // Asked again under the lock, which whoever closes the log holds while it syncs.
        self.shared.check_writable()?;
        let config = self.config();
        let now_ms = self.shared.clock.now_ms();
        let batch = as_stored(batch, &config, now_ms)?;
        let batch = Batch::parse(&batch)?;
        let log_append_time = match config.message_timestamp_type {
            TimestampType::CreateTime => None,
            TimestampType::LogAppendTime => Some(now_ms),
        };
        let log_start_offset = self.shared.offsets().log_start_offset;

        let mut writer = lock(&self.writer);
        self.shared.check_writable()?;
        if let Decision::Duplicate {
            base_offset,
            last_offset,
            append_time_ms,
        } = writer.producers.check(&batch)?
        {
            return Ok(Appended {
                base_offset,
                last_offset,
                log_append_time_ms: log_append_time.map(|_| append_time_ms),
                log_start_offset,
                duplicate: true,
                flushes: self.shared.flush_after_append(&config),
            });
        }
        self.shared.check_room()?;
        let base_offset = writer.end;
        self.append_all(&mut writer, [Ok(batch)], log_append_time, now_ms, &config)?;
        let end = writer.end;
        self.publish_all(&writer);
        Ok(Appended {
            base_offset,
            last_offset: end - 1,
            log_append_time_ms: log_append_time,
            log_start_offset,
            duplicate: false,
            flushes: self.shared.flush_after_append(&config),
        })
    }

    /// Whether appending `batch` would take a thread's time: it would decompress or compress it, where
    /// up to [`MAX_DECOMPRESSION_RATIO`] times `max.message.bytes` are looked at, or other logs have to
    /// be synced first, because no more files may be kept open.
    ///
    /// [`MAX_DECOMPRESSION_RATIO`]: crate::batch::validate::MAX_DECOMPRESSION_RATIO
    pub fn opens(&self, batch: &[u8]) -> bool {
        let sent = Batch::parse(batch).and_then(|batch| batch.compression());
        // What is no batch is refused at once.
        sent.is_ok_and(|sent| opens(sent, &self.config())) || open_files::is_full()
    }

    /// As [`PartitionLog::append`] for batches of the broker's own (several, back to back, control
    /// batches allowed). Returns the first's base offset and the end.
    pub fn append_internal(&self, batches: &Bytes) -> Result<Range<Offset>> {
        self.append_checked(batches, |_| Ok(()))
    }

    /// As [`PartitionLog::append_internal`], one batch of a transaction: `StaleProducerEpoch` where its
    /// producer's epoch is not the newest that is known here.
    pub fn append_unsequenced(&self, batch: &Bytes) -> Result<Range<Offset>> {
        self.append_checked(batch, |producers| {
            producers.check_unsequenced(&Batch::parse(batch)?)
        })
    }

    /// Ends a producer's transaction. `StaleProducerEpoch` or `StaleCoordinatorEpoch` where a newer one
    /// is known here. One of which there is nothing gets its marker too.
    pub fn append_marker(&self, marker: &EndMarker) -> Result<Range<Offset>> {
        let batch = marker.batch(self.shared.clock.now_ms());
        self.append_checked(&batch, |producers| producers.check_marker(marker))
    }

    fn append_checked(
        &self,
        batches: &Bytes,
        check: impl FnOnce(&ProducerState) -> Result<()>,
    ) -> Result<Range<Offset>> {
        self.check_ordinary()?;
        let config = self.config();
        let now_ms = self.shared.clock.now_ms();
        let mut writer = lock(&self.writer);
        self.shared.check_writable()?;
        check(&writer.producers)?;
        self.shared.check_room()?;
        let start = writer.end;
        self.append_all(&mut writer, header::batches(batches), None, now_ms, &config)?;
        self.publish_all(&writer);
        self.shared.flush_after_append(&config);
        Ok(start..writer.end)
    }

    fn check_ordinary(&self) -> Result<()> {
        match self.shared.visibility {
            Visibility::Ordinary => Ok(()),
            Visibility::Derived => Err(Error::InvalidRecord(
                "the partition is derived: only its model topic appends to it".to_owned(),
            )),
        }
    }

    /// Writes `batches` at the end, all or none, and moves the writer's end past them. Nothing is
    /// published.
    pub(super) fn append_all<'a>(
        &self,
        writer: &mut Writer,
        batches: impl IntoIterator<Item = Result<Batch<'a>>>,
        log_append_time: Option<i64>,
        now_ms: i64,
        config: &LogConfig,
    ) -> Result<()> {
        let start = writer.end;
        self.shared.is_written_to();
        self.write_epochs()?;
        for batch in batches {
            let appended = batch
                .and_then(|batch| self.append_one(writer, &batch, log_append_time, now_ms, config));
            let Err(error) = appended else { continue };
            if matches!(error, Error::ReadOnly(_)) {
                return Err(self.shared.fail(&error));
            }
            if writer.end > start {
                // What stays would be published with the next append.
                self.cut_to(writer, start).map_err(|error| match error {
                    read_only @ Error::ReadOnly(_) => read_only,
                    error => self.shared.fail(&error),
                })?;
            }
            return Err(error);
        }
        Ok(())
    }

    fn append_one(
        &self,
        writer: &mut Writer,
        batch: &Batch<'_>,
        log_append_time: Option<i64>,
        now_ms: i64,
        config: &LogConfig,
    ) -> Result<()> {
        let base_offset = writer.end;
        let epoch = self.leader_epoch();
        let header = match log_append_time {
            None => patch_header(batch, base_offset, epoch),
            Some(time) => patch_header_with_log_append_time(batch, base_offset, epoch, time),
        };
        let head = BatchHead::parse(&header).map_err(Error::InvalidRecord)?;
        if writer.active.is_full_for(&head, now_ms, config)? {
            self.roll(writer, now_ms, config)?;
        }
        let rest = &batch.bytes()[layout::RECORDS..];
        writer.active.append(&head, &header, rest, config)?;
        let aborted = writer.producers.update(batch, base_offset, now_ms);
        // First: where the entry cannot be added, the batch is cut off again.
        writer.end = head.next_offset();
        if let Some(aborted) = aborted
            && writer.active.segment().add_aborted(&aborted)?
        {
            self.shared.dir_dirty.store(true, Ordering::Release);
        }
        Ok(())
    }

    /// Closes the newest segment and begins another at the writer's end.
    pub(super) fn roll(&self, writer: &mut Writer, now_ms: i64, config: &LogConfig) -> Result<()> {
        writer.active.finish()?;
        self.forget_idle_producers(writer);
        self.snapshots.write(writer.end, &writer.producers)?;
        // First: the next one may need it.
        self.give_room_back(writer);
        let shared = &self.shared;
        let next = SegmentWriter::create(&shared.disk, &shared.dir, writer.end, config, now_ms);
        // Where it fails, too: what was created and removed could come back with a power cut, in the
        // midst of the segment that the log goes on in.
        shared.dir_dirty.store(true, Ordering::Release);
        let next = next?;
        let mut segments = shared.segments().to_vec();
        segments.push(next.segment().clone());
        shared.set_segments(segments);
        tracing::debug!(
            topic = shared.topic,
            partition = shared.partition,
            base_offset = writer.end,
            "rolled a new segment"
        );
        writer.active = next;
        Ok(())
    }

    /// What was reserved for a segment that is done, and not used.
    pub(super) fn give_room_back(&self, writer: &Writer) {
        let Err(error) = writer.active.segment().give_room_back() else {
            return;
        };
        // It is only room.
        tracing::warn!(
            topic = self.shared.topic,
            partition = self.shared.partition,
            %error,
            "the room that was reserved for a segment stays reserved"
        );
    }

    pub(super) fn forget_idle_producers(&self, writer: &mut Writer) {
        let expiration_ms = self.config().producer_id_expiration_ms;
        let expiration_ms = i64::try_from(expiration_ms).unwrap_or(i64::MAX);
        let now_ms = self.shared.clock.now_ms();
        writer.producers.remove_expired(now_ms, expiration_ms);
    }

    /// Makes everything appended visible.
    fn publish_all(&self, writer: &Writer) {
        // From the last visible offset: its segment may have been closed since.
        let before = self.shared.offsets().high_watermark.saturating_sub(1);
        let active = writer.active.segment();
        if active.base_offset() <= before {
            active.publish();
        } else {
            for segment in super::read::from(&self.shared.segments(), before) {
                segment.publish();
            }
        }
        let end = writer.end;
        let first_open = writer.producers.first_open_transaction();
        self.shared.offsets.send_modify(|offsets| {
            offsets.log_end_offset = end;
            offsets.high_watermark = end;
            // An open transaction's first records may have been deleted.
            let stable = first_open.unwrap_or(end).max(offsets.log_start_offset);
            offsets.last_stable_offset = stable.min(end);
        });
    }

    /// A new epoch is on the device before anything is appended under it.
    pub(super) fn write_epochs(&self) -> Result<()> {
        if !self
            .epochs
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .unwritten()
        {
            return Ok(());
        }
        let mut epochs = self.epochs.write().unwrap_or_else(PoisonError::into_inner);
        checkpoint::write_leader_epochs(
            self.shared.disk.as_ref(),
            &self.shared.dir,
            epochs.entries(),
        )?;
        epochs.set_written();
        Ok(())
    }
}

fn opens(sent: Compression, config: &LogConfig) -> bool {
    let recompressed = match config.compression {
        CompressionType::Producer => false,
        CompressionType::Codec { codec, .. } => codec != sent,
    };
    recompressed || (config.compact && sent != Compression::None)
}

/// Checks a client's batch, and gives what an append under `config` stores of it, but for the header's
/// fields that the append itself sets. Public, because that is all that a client's bytes reach before
/// they are in a log: what is fuzzed.
pub fn as_stored<'a>(sent: &'a Bytes, config: &LogConfig, now_ms: i64) -> Result<Cow<'a, Bytes>> {
    let limits = Limits {
        max_message_bytes: config.max_message_bytes as usize,
        require_keys: config.compact,
        timestamps: timestamps(config, now_ms),
    };
    let open = Batch::parse(sent)?
        .compression()
        .is_ok_and(|codec| opens(codec, config));
    let checked = check_client_batch(sent, &limits, open)?;
    let by_broker = checked.batch.timestamp_type() == header::TimestampType::LogAppendTime;
    if by_broker && config.message_timestamp_type == TimestampType::LogAppendTime {
        // As Kafka does; with CreateTime it takes the batch for one of the producer's times.
        return Err(Error::TimestampTypeOfBroker);
    }
    let batch = rewritten(sent, &checked, config.compression)?;
    // Once more: it may have grown.
    if batch.len() > limits.max_message_bytes {
        return Err(Error::BatchTooLarge {
            size: batch.len(),
            limit: limits.max_message_bytes,
        });
    }
    Ok(batch)
}

/// The timestamps that producers may set; where they are overwritten, they may be anything.
fn timestamps(config: &LogConfig, now_ms: i64) -> RangeInclusive<i64> {
    match config.message_timestamp_type {
        TimestampType::CreateTime => {
            now_ms.saturating_sub(config.message_timestamp_before_max_ms)
                ..=now_ms.saturating_add(config.message_timestamp_after_max_ms)
        }
        TimestampType::LogAppendTime => i64::MIN..=i64::MAX,
    }
}
