//! Takes the steps of a plan, on the log and on the model, and compares the two after each.

use bytes::Bytes;
use faulty_disk::{Call, Failure, Fault, Random};
use storage::Error;
use storage::config::TimestampType;
use storage::partition_log::{Appended, DeleteTo, ReadLimit};

use crate::batches;
use crate::check::{self, Outcome, ensure};
use crate::model::{Sent, Stored, Tri};
use crate::plan::Step;
use crate::world::{Open, World, may_be_left};

/// What fails, by the ends of names; the folders' own calls have none.
const SUFFIXES: [&str; 8] = [
    "",
    ".log",
    ".index",
    ".timeindex",
    ".snapshot",
    "checkpoint",
    ".tmp",
    // Where there are transactions.
    ".txnindex",
];
const CALLS: [Call; 9] = [
    Call::Write,
    Call::Sync,
    Call::SetLen,
    Call::Create,
    Call::Open,
    Call::Read,
    Call::Rename,
    Call::RemoveFile,
    Call::SyncDir,
];

impl World {
    /// Takes one step, and says what is wrong then.
    pub fn step(&mut self, step: Step) -> Outcome {
        self.note(|| format!("{step:?}"));
        self.take(step)?;
        if self.disk.has_crashed() {
            self.note(|| "down".to_owned());
            self.crash()?;
        }
        let Open {
            ordinary, derived, ..
        } = self.open();
        check::offsets(&ordinary, &self.ordinary)?;
        if self.readable {
            check::offsets(&derived, &self.derived).map_err(|what| format!("derived: {what}"))?;
        }
        if let Some(trace) = &mut self.trace {
            trace.push(format!(
                "    {:?} {:?}",
                ordinary.offsets(),
                derived.offsets()
            ));
        }
        Ok(())
    }

    /// Heals the disk, starts once more, and looks at everything.
    pub fn end(&mut self) -> Outcome {
        self.disk.heal();
        self.disk.set_capacity(None);
        self.crash_once()?;
        let Open {
            ordinary, derived, ..
        } = self.open();
        for max_bytes in [1, 700, 1 << 20] {
            for limit in [ReadLimit::HighWatermark, ReadLimit::LastStableOffset] {
                check::read_all(&ordinary, &self.ordinary, max_bytes, limit)?;
                check::read_all(&derived, &self.derived, max_bytes, limit)?;
            }
        }
        for _ in 0..20 {
            check::look_up(&ordinary, &self.ordinary, &mut self.random)?;
            check::look_up(&derived, &self.derived, &mut self.random)?;
        }
        let now_ms = self.now_ms();
        let sent = batches::batch(&mut self.random, u64::MAX, now_ms, None, true);
        let appended = ordinary
            .append(&sent.bytes)
            .map_err(|error| format!("at the end: {error}"))?;
        ensure(appended.base_offset == self.ordinary.end, || {
            format!("at the end: {appended:?}")
        })?;
        if !self.transacting {
            return Ok(());
        }
        self.appended(&sent, Ok(appended))?;
        self.end_transactions()
    }

    fn take(&mut self, step: Step) -> Outcome {
        let random = |seed| Random::new(seed);
        match step {
            Step::Append(seed, wait) => self.append(&mut random(seed), wait),
            Step::Several(seed) => self.several(&mut random(seed)),
            Step::Produce(seed, wait) => self.produce(&mut random(seed), wait),
            Step::Transact(seed, wait) => self.transact(&mut random(seed), wait),
            Step::Refused(seed) => self.refused(&mut random(seed)),
            Step::Read(seed) => self.look(&mut random(seed), true),
            Step::LookUp(seed) => self.look(&mut random(seed), false),
            Step::Wait => self.wait_for_all(),
            Step::Checkpoint => self.checkpoint(),
            Step::Delete(seed) => self.delete(&mut random(seed)),
            Step::Retain => self.retain(),
            Step::Compact => self.compact(),
            Step::Configure(seed) => {
                self.config = batches::config(&mut random(seed));
                if self.compacting {
                    batches::compaction(&mut self.config, &mut random(!seed));
                }
                let Open {
                    ordinary, derived, ..
                } = self.open();
                ordinary.set_config(self.config.clone().into());
                derived.set_config(self.config.clone().into());
                Ok(())
            }
            Step::Tick(seed) => {
                let mut ms = random(seed).below(9_000) as i64;
                if self.compacting && random(!seed).one_in(4) {
                    // As long as a log is left alone after a compaction that has failed.
                    ms += 60_000;
                }
                self.clock
                    .fetch_add(ms, std::sync::atomic::Ordering::Relaxed);
                Ok(())
            }
            Step::Stage(seed) => self.stage(&mut random(seed)),
            Step::Commit => self.commit(),
            Step::Discard(seed) => self.discard(&mut random(seed)),
            Step::Fault(seed) => self.fault(&mut random(seed)),
            Step::Fill(seed) => {
                self.troubled = true;
                let capacity = self.disk.used() + random(seed).below(3_000);
                self.disk.set_capacity(Some(capacity));
                Ok(())
            }
            Step::Heal => {
                self.heal();
                Ok(())
            }
            Step::Stop => self.stop(),
            Step::Crash(_) => self.crash(),
            Step::CrashSoon(seed) => {
                // A compaction takes more calls than most; and what is down already stays down.
                let calls = if self.compacting { 90 } else { 25 };
                if !self.disk.has_crashed() {
                    self.disk.crash_after(1 + random(seed).below(calls));
                }
                Ok(())
            }
        }
    }

    pub fn heal(&mut self) {
        self.disk.heal();
        self.disk.set_capacity(None);
        // What a failure has done to a log may only show later.
        for model in [&mut self.ordinary, &mut self.derived] {
            if self.troubled && model.read_only == Tri::No {
                model.read_only = Tri::Maybe;
            }
        }
        self.troubled = false;
    }

    fn fault(&mut self, random: &mut Random) -> Outcome {
        self.troubled = true;
        if random.one_in(4) {
            self.disk.interrupt(random.next());
            return Ok(());
        }
        let call = CALLS[random.below(CALLS.len() as u64) as usize];
        let errno = if random.one_in(2) {
            libc::EIO
        } else {
            libc::ENOSPC
        };
        let failure = match (call, random.below(4)) {
            (Call::Read | Call::Write, 0) => Failure::Short,
            (Call::Write, 1) => Failure::Torn(errno),
            _ => Failure::Errno(errno),
        };
        let suffixes = SUFFIXES.len() - usize::from(!self.transacting);
        let suffix = SUFFIXES[random.below(suffixes as u64) as usize];
        let fault = Fault::new(call, failure).on(suffix);
        let fault = if random.one_in(2) {
            fault
        } else {
            fault.once_after(random.below(6))
        };
        self.disk.fail(fault);
        Ok(())
    }

    fn batch(&mut self, random: &mut Random, producer: Option<(i64, i16, i32)>) -> Sent {
        self.number += 1;
        batches::batch(
            random,
            self.number,
            self.now_ms(),
            producer,
            self.compacting,
        )
    }

    fn log_append_time(&self) -> Option<i64> {
        let stamps = self.config.message_timestamp_type == TimestampType::LogAppendTime;
        stamps.then(|| self.now_ms())
    }

    fn append(&mut self, random: &mut Random, wait: bool) -> Outcome {
        let sent = self.batch(random, None);
        let result = self.open().ordinary.append(&sent.bytes);
        self.appended(&sent, result)?;
        if wait { self.wait_for_all() } else { Ok(()) }
    }

    /// A batch that is new was appended, or not.
    pub fn appended(&mut self, sent: &Sent, result: Result<Appended, Error>) -> Outcome {
        let stored = Stored::new(
            sent,
            self.ordinary.end,
            self.ordinary.epoch,
            self.log_append_time(),
        );
        match result {
            Ok(appended) => {
                ensure(self.ordinary.read_only != Tri::Yes, || {
                    "an append to a read-only log".to_owned()
                })?;
                self.ordinary.read_only = Tri::No;
                let offsets = (
                    appended.base_offset,
                    appended.last_offset,
                    appended.duplicate,
                );
                let expected = (stored.base, stored.next() - 1, false);
                ensure(offsets == expected, || {
                    format!("appended as {offsets:?}, not {expected:?}")
                })?;
                let log = self.open().ordinary;
                let stored = check::recompressed(&log, stored, self.config.compression)?;
                self.ordinary.push(stored, true)
            }
            Err(error) => {
                may_be_left(&mut self.ordinary, vec![stored]);
                self.failed(true, "append", &error)
            }
        }
    }

    /// An operation has failed: it may where there is trouble, or on a read-only log.
    pub fn failed(&mut self, ordinary: bool, what: &str, error: &Error) -> Outcome {
        self.note(|| format!("    {what}: {error}"));
        let model = if ordinary {
            &mut self.ordinary
        } else {
            &mut self.derived
        };
        let read_only = model.read_only;
        match error {
            Error::ReadOnly(_) => {
                model.read_only = Tri::Yes;
                if read_only != Tri::No {
                    return Ok(());
                }
            }
            _ => {
                ensure(read_only != Tri::Yes, || {
                    format!("{what} to a read-only log: {error}")
                })?;
                model.read_only = Tri::Maybe;
            }
        }
        self.excuse(what, error)
    }

    fn several(&mut self, random: &mut Random) -> Outcome {
        let sent: Vec<Sent> = (0..1 + random.below(5))
            .map(|_| self.batch(random, None))
            .collect();
        let bytes: Bytes = sent.iter().flat_map(|sent| sent.bytes.to_vec()).collect();
        let result = self.open().ordinary.append_internal(&bytes);
        self.appended_internally(sent, result)
    }

    fn produce(&mut self, random: &mut Random, wait: bool) -> Outcome {
        let id = 1 + random.below(4) as i64;
        // Known before the last start, but no longer: anything may be the answer to a repetition.
        let known = self.ordinary.producers.get(&id).cloned();
        let Some(known) = known else {
            // An epoch of its own, so that nothing of it is known.
            self.number += 1;
            let first = (id, self.number as i16, 0);
            return self.produce_next(random, first, wait);
        };
        let (sequence, base, last) = known.batches[known.batches.len() - 1];
        let next = sequence + (last - base) as i32 + 1;
        match random.below(10) {
            0..6 => self.produce_next(random, (id, known.epoch, next), wait),
            6 | 7 => {
                let back = random.below(known.batches.len().min(6) as u64) as usize;
                self.repeat(
                    id,
                    &known.batches[known.batches.len() - 1 - back],
                    known.epoch,
                    back < known.certain,
                )
            }
            8 => {
                let gap = next + 1 + random.below(5) as i32;
                let sent = self.batch(random, Some((id, known.epoch, gap)));
                let result = self.open().ordinary.append(&sent.bytes);
                self.has_to_fail("a gap", result, |error| {
                    matches!(error, Error::OutOfOrderSequence { .. })
                })
            }
            _ if known.epoch > 0 => {
                let sent = self.batch(random, Some((id, known.epoch - 1, next)));
                let result = self.open().ordinary.append(&sent.bytes);
                self.has_to_fail("an old epoch", result, |error| {
                    matches!(error, Error::StaleProducerEpoch { .. })
                })
            }
            _ => Ok(()),
        }
    }

    fn produce_next(
        &mut self,
        random: &mut Random,
        producer: (i64, i16, i32),
        wait: bool,
    ) -> Outcome {
        let sent = self.batch(random, Some(producer));
        let result = self.open().ordinary.append(&sent.bytes);
        self.appended(&sent, result)?;
        if wait { self.wait_for_all() } else { Ok(()) }
    }

    /// Sends a batch again that was appended.
    pub fn repeat(
        &mut self,
        id: i64,
        batch: &(i32, i64, i64),
        epoch: i16,
        certain: bool,
    ) -> Outcome {
        let (sequence, base, last) = *batch;
        let mut again = storage::batch::BatchBuilder::new(storage::batch::Compression::None)
            .producer(id, epoch, sequence);
        for _ in base..=last {
            again.push(self.now_ms(), Some(b"key"), Some(b"again"), &[]);
        }
        match self.open().ordinary.append(&again.build()) {
            Ok(appended) => {
                let found = (
                    appended.duplicate,
                    appended.base_offset,
                    appended.last_offset,
                );
                ensure(found == (true, base, last), || {
                    format!("producer {id}, {sequence} again: {found:?}")
                })
            }
            Err(Error::OutOfOrderSequence { .. }) if !certain => Ok(()),
            Err(error) => self.failed(true, "a repeated batch", &error),
        }
    }

    fn refused(&mut self, random: &mut Random) -> Outcome {
        let sound = self.batch(random, None);
        let bytes = batches::refused(random, &sound, &self.config, self.now_ms());
        let result = self.open().ordinary.append(&bytes);
        self.has_to_fail("a bad batch", result, |error| {
            matches!(
                error,
                Error::CorruptBatch(_)
                    | Error::InvalidRecord(_)
                    | Error::InvalidRecordAt { .. }
                    | Error::InvalidTimestamp { .. }
                    | Error::UnsupportedMagic(_)
                    | Error::BatchTooLarge { .. }
            )
        })
    }

    pub fn has_to_fail(
        &mut self,
        what: &str,
        result: Result<Appended, Error>,
        so: impl Fn(&Error) -> bool,
    ) -> Outcome {
        match result {
            Ok(appended) => Err(format!("{what} was taken: {appended:?}")),
            Err(error) if so(&error) => Ok(()),
            Err(error) => self.failed(true, what, &error),
        }
    }

    fn look(&mut self, random: &mut Random, read: bool) -> Outcome {
        let Open {
            ordinary, derived, ..
        } = self.open();
        let mut outcome = if read {
            check::read(&ordinary, &self.ordinary, random)
        } else {
            check::look_up(&ordinary, &self.ordinary, random)
        };
        if self.readable && outcome.is_ok() {
            outcome = if read {
                check::read(&derived, &self.derived, random)
            } else {
                check::look_up(&derived, &self.derived, random)
            };
        }
        // A file may have to be opened for a look.
        match outcome {
            Err(what)
                if (self.troubled || self.disk.has_crashed()) && what.contains("os error") =>
            {
                Ok(())
            }
            outcome => outcome,
        }
    }

    pub fn wait_for_all(&mut self) -> Outcome {
        let Open { ordinary, .. } = self.open();
        match self.wait(&ordinary, self.ordinary.end) {
            Ok(()) => {
                self.ordinary.sync();
                Ok(())
            }
            Err(error) => self.failed(true, "sync", &error),
        }
    }

    fn checkpoint(&mut self) -> Outcome {
        match self.open().dir.checkpoint() {
            Ok(()) => {
                self.ordinary.sync();
                Ok(())
            }
            Err(error) => {
                self.note(|| format!("    checkpoint: {error}"));
                let mut read_only = false;
                for model in [&mut self.ordinary, &mut self.derived] {
                    read_only |= model.read_only != Tri::No;
                    if model.read_only == Tri::No {
                        model.read_only = Tri::Maybe;
                    }
                }
                if read_only {
                    Ok(())
                } else {
                    self.excuse("checkpoint", &error)
                }
            }
        }
    }

    fn delete(&mut self, random: &mut Random) -> Outcome {
        let Open { dir, ordinary, .. } = self.open();
        let spread = (self.ordinary.end - self.ordinary.log_start + 3) as u64;
        let offset = self.ordinary.log_start - 1 + random.below(spread) as i64;
        let (to, offset) = match random.below(6) {
            0 => (DeleteTo::HighWatermark, self.ordinary.end),
            _ => (DeleteTo::Offset(offset), offset),
        };
        let answers = dir.delete_records(&[(ordinary, to)]);
        match answers.into_iter().next() {
            Some(Ok(start)) => {
                let expected = offset.max(self.ordinary.log_start);
                ensure(start == expected, || {
                    format!("deleted to {start}, not {expected}")
                })?;
                self.ordinary.delete(start);
                self.ordinary.durable = self.ordinary.durable.max(start);
                Ok(())
            }
            Some(Err(Error::OffsetOutOfRange { .. }))
                if !(0..=self.ordinary.end).contains(&offset) =>
            {
                Ok(())
            }
            Some(Err(error)) => {
                self.ordinary.maybe_start = self.ordinary.maybe_start.max(offset);
                self.failed(true, "deletion", &error)
            }
            None => Err("no answer to a deletion".to_owned()),
        }
    }

    fn retain(&mut self) -> Outcome {
        let Open { dir, .. } = self.open();
        for retained in dir.apply_retention() {
            let ordinary = retained.log.topic() == "events";
            let model = if ordinary {
                &mut self.ordinary
            } else {
                &mut self.derived
            };
            match retained.log_start_offset {
                Ok(start) => {
                    let sound = model.boundaries(model.log_start, model.high_watermark);
                    // Where a segment begins, there may be no batch any more.
                    let between = model.compacted
                        && (model.log_start..=model.high_watermark).contains(&start);
                    ensure(sound.contains(&start) || between, || {
                        format!("retention begins the log at {start}")
                    })?;
                    model.delete(start);
                    model.durable = model.durable.max(start);
                }
                Err(error) => {
                    model.maybe_start = model.high_watermark;
                    self.failed(ordinary, "retention", &error)?;
                }
            }
        }
        dir.remove_due_files();
        Ok(())
    }

    fn stage(&mut self, random: &mut Random) -> Outcome {
        if !self.readable {
            return Ok(());
        }
        let sent: Vec<Sent> = (0..1 + random.below(4))
            .map(|_| self.batch(random, None))
            .collect();
        let bytes: Bytes = sent.iter().flat_map(|sent| sent.bytes.to_vec()).collect();
        let start = self.derived.end;
        match self.open().derived.stage(&bytes) {
            Ok(range) => {
                self.derived.read_only = Tri::No;
                for sent in &sent {
                    let stored = Stored::new(sent, self.derived.end, self.derived.epoch, None);
                    self.derived.push(stored, false)?;
                }
                ensure(range == (start..self.derived.end), || {
                    format!("staged at {range:?}")
                })
            }
            Err(error) => self.failed(false, "stage", &error),
        }
    }

    fn commit(&mut self) -> Outcome {
        // What could not be discarded is half gone, and nobody commits it.
        if !self.readable || self.derived.read_only == Tri::Yes {
            return Ok(());
        }
        let Open { derived, .. } = self.open();
        let end = self.derived.end;
        if let Err(error) = self.wait(&derived, end) {
            return self.failed(false, "sync", &error);
        }
        self.derived.recorded = end;
        self.derived.sync();
        match derived.publish(end) {
            Ok(()) => self.derived.publish(end),
            Err(error) => self.failed(false, "publish", &error),
        }
    }

    fn discard(&mut self, random: &mut Random) -> Outcome {
        if !self.readable {
            return Ok(());
        }
        let ends = self
            .derived
            .boundaries(self.derived.high_watermark, self.derived.end);
        let end = ends[random.below(ends.len() as u64) as usize];
        match self.open().derived.discard_to(end) {
            Ok(gone) => {
                let expected = self.derived.end - end;
                ensure(gone == expected, || {
                    format!("{gone} records discarded, not {expected}")
                })?;
                self.derived.truncate(end);
                Ok(())
            }
            Err(error) => self.failed(false, "discard", &error),
        }
    }
}
