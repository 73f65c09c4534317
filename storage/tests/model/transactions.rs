//! Transactions in the model: which there are, of which producers, and what read_committed readers are to
//! see of them.
//!
//! The log may know less of one than was appended: compaction has taken batches, or records were deleted,
//! and then a start has found the rest alone. So what is stable lies between where the first open
//! transaction began and its first batch that is left. Without deletions that is one offset.

use std::collections::BTreeMap;
use std::ops::{Range, RangeInclusive};

use bytes::Bytes;
use faulty_disk::Random;
use storage::batch::header::{Batch, batches};
use storage::batch::{BatchBuilder, Compression, EndMarker, TransactionResult};
use storage::partition_log::{Fetched, ReadLimit};
use storage::{Error, PartitionLog};

use crate::batches;
use crate::check::{self, Outcome, ensure};
use crate::model::{Model, Sent, Stored, Tri};
use crate::walk::{Walk, committed};
use crate::world::{World, may_be_left};

/// Producers with transactions; the others have lower ids.
const FIRST_ID: i64 = 11;
const PRODUCERS: u64 = 3;

/// What is known of them beside the log.
#[derive(Clone, Debug, Default)]
pub struct Coordinator {
    /// Of each producer the newest epoch that anything was sent under.
    epochs: BTreeMap<i64, i16>,
    /// How a producer's transaction ends that begins there: where a marker is lost, so is the next.
    decided: BTreeMap<(i64, i64), TransactionResult>,
    epoch: i32,
}

fn walk<'a>(batches: impl Iterator<Item = &'a Bytes>) -> Walk {
    let mut walk = Walk::default();
    for bytes in batches {
        walk.note(&Batch::parse(bytes).expect("a batch"));
    }
    walk
}

impl Model {
    /// All transactions, with what is deleted or compacted.
    pub fn transactions(&self) -> Walk {
        walk(self.history.iter().map(|(_, bytes)| bytes))
    }

    /// What the batches say that are left.
    fn transactions_left(&self) -> Walk {
        walk(self.batches.iter().map(|batch| &batch.bytes))
    }
}

/// Those of a model.
pub struct Transactions {
    all: Walk,
    left: Walk,
}

impl Transactions {
    pub fn of(model: &Model) -> Self {
        let (all, left) = match model.history.is_empty() {
            true => <(Walk, Walk)>::default(),
            false => (model.transactions(), model.transactions_left()),
        };
        Self { all, left }
    }

    /// Where what is stable may end.
    pub fn stable(&self, model: &Model) -> RangeInclusive<i64> {
        let log = model.log_start..model.high_watermark;
        let left = self.left.last_stable_offset(log.clone());
        self.all.last_stable_offset(log)..=left
    }

    /// Those that the log knows to be open are.
    pub fn open(&self, log: &PartitionLog) -> Outcome {
        let (all, left) = (&self.all.open, &self.left.open);
        let active = log.active_producers().into_iter();
        let open = active.filter_map(|producer| {
            let first = producer.current_txn_first_offset?;
            Some((producer.producer_id, first))
        });
        let open: BTreeMap<i64, i64> = open.collect();
        for (id, first) in &open {
            let latest = left.get(id).copied().unwrap_or(i64::MAX);
            let begun = all.get(id);
            let sound = begun.is_some_and(|begun| (*begun..=latest).contains(first));
            ensure(sound, || {
                format!("producer {id} has one open since {first}: {all:?}, {left:?} left")
            })?;
        }
        let missing = left.keys().find(|id| !open.contains_key(id));
        ensure(missing.is_none(), || {
            format!("no open transaction of {missing:?}")
        })
    }

    /// What a read from `offset` told a read_committed reader.
    pub fn told(&self, model: &Model, offset: i64, fetched: &Fetched) -> Outcome {
        let (all, left) = (&self.all, &self.left);
        let last = batches(&fetched.records).filter_map(Result::ok).last();
        let end = last.map_or(offset, |last| last.next_offset());
        for told in &fetched.aborted {
            let marker = (told.producer_id, told.last_offset);
            let mut aborted = all.aborted.iter();
            let is_one = aborted.any(|aborted| {
                (aborted.producer_id, aborted.last_offset) == marker
                    && aborted.first_offset <= told.first_offset
            });
            let is_in = told.first_offset < end && told.last_offset >= offset;
            let is_left = left.abort_markers.contains(&marker);
            ensure(is_one && is_in && is_left, || {
                format!("{offset}..{end}: told of {told:?}")
            })?;
        }
        if !model.compacted && model.log_start == 0 && end > offset {
            let expected = all.aborted_in(offset..end);
            ensure(fetched.aborted == expected, || {
                let told = &fetched.aborted;
                format!("{offset}..{end}: told {told:?}, not {expected:?}")
            })?;
        }
        let fetched_batches = batches(&fetched.records).filter_map(Result::ok);
        let is_committed = |batch: &Batch<'_>| {
            let base = batch.base_offset();
            !batch.is_transactional() || !all.committed_in(base..base + 1).is_empty()
        };
        let expected = fetched_batches.filter(is_committed);
        let expected: Vec<i64> = expected.map(|batch| batch.base_offset()).collect();
        let taken = committed(&fetched.records, &fetched.aborted).into_iter();
        let taken: Vec<i64> = taken.map(|batch| batch.base_offset()).collect();
        ensure(taken == expected, || {
            format!("{offset}..{end}: a reader takes {taken:?}, not {expected:?}")
        })
    }
}

impl World {
    /// A part of a producer's transaction, or its end.
    pub fn transact(&mut self, random: &mut Random, wait: bool) -> Outcome {
        let id = FIRST_ID + random.below(PRODUCERS) as i64;
        let is_open = self.ordinary.transactions().open.contains_key(&id);
        match random.below(18) {
            0..5 if is_open => self.end_transaction(random, id),
            // One that has nothing here.
            5 => self.end_transaction(random, id),
            6 => self.unsequenced(random, id),
            7 => self.plain(random, id),
            8 => self.several_transactional(random),
            9 => self.repeat_part(random, id),
            _ => self.part(random, id),
        }?;
        if wait { self.wait_for_all() } else { Ok(()) }
    }

    /// Ends those that are open: then everything is stable.
    pub fn end_transactions(&mut self) -> Outcome {
        for id in FIRST_ID..FIRST_ID + PRODUCERS as i64 {
            self.end_transaction(&mut Random::new(id as u64), id)?;
        }
        let log = self.open().ordinary;
        let offsets = log.offsets();
        ensure(offsets.last_stable_offset == offsets.high_watermark, || {
            format!("none is open: {offsets:?}")
        })?;
        let limit = ReadLimit::LastStableOffset;
        check::read_all(&log, &self.ordinary, 700, limit)
    }

    fn new_epoch(&mut self, id: i64) -> i16 {
        self.number += 1;
        let epoch = self.number as i16;
        self.coordinator.epochs.insert(id, epoch);
        epoch
    }

    fn newest_epoch(&mut self, id: i64) -> i16 {
        match self.coordinator.epochs.get(&id) {
            Some(epoch) => *epoch,
            None => self.new_epoch(id),
        }
    }

    /// The producer's epoch and its next sequence.
    fn next_of(&mut self, id: i64) -> (i64, i16, i32) {
        let known = self.ordinary.producers.get(&id);
        let last = known.and_then(|known| Some((known.epoch, *known.batches.last()?)));
        if let Some((epoch, (sequence, base, last))) = last {
            return (id, epoch, sequence + (last - base) as i32 + 1);
        }
        // A marker has raised it; or nobody knows what was appended under it.
        let newest = self.newest_epoch(id);
        let was_used = self.ordinary.history.iter().any(|(_, bytes)| {
            let batch = Batch::parse(bytes).expect("a batch");
            (batch.producer_id(), batch.producer_epoch()) == (id, newest)
                && batch.base_sequence() >= 0
        });
        match was_used {
            true => (id, self.new_epoch(id), 0),
            false => (id, newest, 0),
        }
    }

    fn part_of(&mut self, random: &mut Random, producer: (i64, i16, i32)) -> Sent {
        self.number += 1;
        let (number, now_ms) = (self.number, self.now_ms());
        batches::part(random, number, now_ms, producer, self.compacting)
    }

    fn part(&mut self, random: &mut Random, id: i64) -> Outcome {
        let producer = self.next_of(id);
        let sent = self.part_of(random, producer);
        let result = self.open().ordinary.append(&sent.bytes);
        self.appended(&sent, result)
    }

    fn marker(&mut self, random: &mut Random, id: i64) -> EndMarker {
        // Under KIP-890 it has the epoch of the next transaction.
        let producer_epoch = match random.one_in(3) {
            true => self.new_epoch(id),
            false => self.newest_epoch(id),
        };
        let mut result = match random.one_in(2) {
            true => TransactionResult::Abort,
            false => TransactionResult::Commit,
        };
        if let Some(first) = self.ordinary.transactions().open.get(&id) {
            let decided = self.coordinator.decided.entry((id, *first));
            result = *decided.or_insert(result);
        }
        self.coordinator.epoch += random.below(2) as i32;
        EndMarker {
            producer_id: id,
            producer_epoch,
            coordinator_epoch: self.coordinator.epoch,
            result,
        }
    }

    fn end_transaction(&mut self, random: &mut Random, id: i64) -> Outcome {
        let marker = self.marker(random, id);
        let sent = batches::marker(&marker, self.now_ms());
        let log = self.open().ordinary;
        self.appended_internally(vec![sent], log.append_marker(&marker))?;
        if self.ordinary.read_only != Tri::No || !random.one_in(4) {
            return Ok(());
        }
        let (epoch, coordinator_epoch) = (marker.producer_epoch, marker.coordinator_epoch);
        let stale = log.append_marker(&EndMarker {
            producer_epoch: epoch - 1,
            ..marker
        });
        ensure(
            matches!(stale, Err(Error::StaleProducerEpoch { .. })),
            || format!("a marker of epoch {epoch} less one: {stale:?}"),
        )?;
        let stale = log.append_marker(&EndMarker {
            coordinator_epoch: coordinator_epoch - 1,
            ..marker
        });
        ensure(
            matches!(stale, Err(Error::StaleCoordinatorEpoch { .. })),
            || format!("one of coordinator epoch {coordinator_epoch} less one: {stale:?}"),
        )
    }

    /// Batches of the broker's own were appended, or none of them.
    pub fn appended_internally(
        &mut self,
        sent: Vec<Sent>,
        result: Result<Range<i64>, Error>,
    ) -> Outcome {
        let start = self.ordinary.end;
        let mut end = start;
        let mut stored = Vec::new();
        for sent in &sent {
            let one = Stored::new(sent, end, self.ordinary.epoch, None);
            end = one.next();
            stored.push(one);
        }
        match result {
            Ok(range) => {
                ensure(range == (start..end), || format!("appended at {range:?}"))?;
                self.ordinary.read_only = Tri::No;
                let mut stored = stored.into_iter();
                stored.try_for_each(|one| self.ordinary.push(one, true))
            }
            Err(error) => {
                for (id, epoch, _) in sent.iter().filter_map(|sent| sent.producer) {
                    // What is cut off with another epoch takes what was known of the one before along.
                    if let Some(known) = self.ordinary.producers.get_mut(&id)
                        && known.epoch != epoch
                    {
                        known.certain = 1;
                    }
                }
                may_be_left(&mut self.ordinary, stored);
                self.failed(true, "the broker's own append", &error)
            }
        }
    }

    /// As a commit of offsets.
    fn unsequenced(&mut self, random: &mut Random, id: i64) -> Outcome {
        let epoch = self.newest_epoch(id);
        let sent = self.part_of(random, (id, epoch, -1));
        let result = self.open().ordinary.append_unsequenced(&sent.bytes);
        self.appended_internally(vec![sent], result)
    }

    /// A batch that is no part of the producer's open transaction.
    fn plain(&mut self, random: &mut Random, id: i64) -> Outcome {
        let is_known = self.ordinary.producers.contains_key(&id);
        if !is_known || !self.ordinary.transactions_left().open.contains_key(&id) {
            return Ok(());
        }
        let producer = self.next_of(id);
        self.number += 1;
        let (number, now_ms) = (self.number, self.now_ms());
        let sent = batches::batch(random, number, now_ms, Some(producer), self.compacting);
        let result = self.open().ordinary.append(&sent.bytes);
        self.has_to_fail("a batch of no transaction", result, |error| {
            matches!(error, Error::TransactionIsOpen { .. })
        })
    }

    /// Parts and markers of several producers, all or none.
    fn several_transactional(&mut self, random: &mut Random) -> Outcome {
        let mut sent = Vec::new();
        for _ in 0..2 + random.below(4) {
            let id = FIRST_ID + random.below(PRODUCERS) as i64;
            let newest = self.newest_epoch(id);
            sent.push(match random.below(3) {
                0 => {
                    let marker = self.marker(random, id);
                    batches::marker(&marker, self.now_ms())
                }
                _ => self.part_of(random, (id, newest, -1)),
            });
        }
        let bytes: Bytes = sent.iter().flat_map(|sent| sent.bytes.to_vec()).collect();
        let result = self.open().ordinary.append_internal(&bytes);
        self.appended_internally(sent, result)
    }

    /// A part that was appended is sent again: it is a duplicate for as long as its transaction is open.
    fn repeat_part(&mut self, random: &mut Random, id: i64) -> Outcome {
        let Some(known) = self.ordinary.producers.get(&id).cloned() else {
            return Ok(());
        };
        let back = random.below(known.batches.len().min(6) as u64) as usize;
        let (sequence, base, last) = known.batches[known.batches.len() - 1 - back];
        let mut again = BatchBuilder::new(Compression::None)
            .producer(id, known.epoch, sequence)
            .transactional();
        for _ in base..=last {
            again.push(self.now_ms(), Some(b"key"), Some(b"again"), &[]);
        }
        let model = &self.ordinary;
        let is_in = |walk: Walk| walk.open.get(&id).is_some_and(|first| *first <= base);
        let (may_be, is_left) = (
            is_in(model.transactions()),
            is_in(model.transactions_left()),
        );
        match self.open().ordinary.append(&again.build()) {
            Ok(appended) => {
                let offsets = (appended.base_offset, appended.last_offset);
                let is_same = appended.duplicate && offsets == (base, last);
                ensure(is_same && may_be, || {
                    format!("producer {id}, {sequence} again: {appended:?}")
                })
            }
            Err(Error::OutOfOrderSequence { .. }) => {
                ensure(!is_left || back >= known.certain, || {
                    format!("producer {id}, {sequence} again, at {base}: is forgotten")
                })
            }
            Err(error) => self.failed(true, "a repeated part", &error),
        }
    }
}
