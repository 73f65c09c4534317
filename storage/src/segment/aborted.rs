//! Which transactions were aborted whose markers are in a segment: `.txnindex`, in Kafka's format.
//!
//! An entry is version int16 (0) · producer id · offset of the transaction's first batch · offset of its
//! marker · last stable offset after it, int64 each: 34 bytes, in the order of the markers. The file
//! comes with the first of them; most segments have none.

use std::collections::VecDeque;
use std::sync::Arc;

use super::index::Entry;
use super::{Access, Index, Miss, Segment, TXN_INDEX_SUFFIX};
use crate::Offset;
use crate::error::{Error, Result};
use crate::producer_state::AbortedTransaction;

const VERSION: i16 = 0;
const SIZE: u64 = AbortedTransaction::SIZE as u64;

impl Entry for AbortedTransaction {
    const SIZE: usize = 34;

    fn encode(&self, to: &mut Vec<u8>) {
        to.extend_from_slice(&VERSION.to_be_bytes());
        for field in [
            self.producer_id,
            self.first_offset,
            self.last_offset,
            self.last_stable_offset,
        ] {
            to.extend_from_slice(&field.to_be_bytes());
        }
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (version, mut bytes) = bytes.split_first_chunk()?;
        let mut field = || {
            let (field, rest) = bytes.split_first_chunk()?;
            bytes = rest;
            Some(i64::from_be_bytes(*field))
        };
        let entry = Self {
            producer_id: field()?,
            first_offset: field()?,
            last_offset: field()?,
            last_stable_offset: field()?,
        };
        (i16::from_be_bytes(*version) == VERSION).then_some(entry)
    }
}

/// The entries of an index that are as they should be, from the first on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sound {
    /// How many there are.
    pub count: u64,
    /// The last one's marker.
    pub last: Option<Offset>,
    /// What comes then.
    pub follows: Follows,
}

/// What follows some entries of an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Follows {
    /// It ends.
    Nothing,
    /// An entry with a later marker than was asked for.
    Later,
    /// No entry that belongs there.
    Garbage,
}

/// Goes over the transactions that were aborted in a closed segment, in the order of their markers.
/// Memory: some of them at a time.
#[derive(Debug)]
pub(crate) struct AbortedInOrder<'a> {
    segment: &'a Segment,
    /// How many were read.
    read: u64,
    next: VecDeque<AbortedTransaction>,
}

impl<'a> AbortedInOrder<'a> {
    /// From the first on.
    pub fn of(segment: &'a Segment) -> Self {
        Self {
            segment,
            read: 0,
            next: VecDeque::new(),
        }
    }

    /// Blocking. The one whose marker is at `marker`, which is not before that of the last call.
    pub fn ended_at(&mut self, marker: Offset) -> Result<Option<AbortedTransaction>> {
        let Some(index) = self.segment.aborted.get() else {
            return Ok(None);
        };
        loop {
            if self.next.is_empty() {
                let some = index.read_some(self.read)?;
                if some.is_empty() {
                    return Ok(None);
                }
                self.read += some.len() as u64;
                self.next.extend(some);
            }
            match self.next.front() {
                Some(next) if next.last_offset > marker => return Ok(None),
                _ => {}
            }
            if let Some(next) = self.next.pop_front()
                && next.last_offset == marker
            {
                return Ok(Some(next));
            }
        }
    }
}

impl Segment {
    /// Writer only. Adds a transaction that the segment's last batch has aborted. True where that has
    /// created the file.
    pub fn add_aborted(&self, transaction: &AbortedTransaction) -> Result<bool> {
        let is_new = self.aborted.get().is_none();
        self.aborted_index()?.append(transaction)?;
        Ok(is_new)
    }

    /// Writer only. Puts all entries into the file.
    pub(super) fn write_aborted(&self) -> Result<()> {
        self.aborted.get().map_or(Ok(()), Index::write_held)
    }

    /// The index, created where there is none.
    pub(super) fn aborted_index(&self) -> Result<&Index<AbortedTransaction>> {
        if let Some(index) = self.aborted.get() {
            return Ok(index);
        }
        let created = Index::over(self.log.create_beside(TXN_INDEX_SUFFIX)?, 0);
        // The writer alone does this.
        Ok(self.aborted.get_or_init(|| created))
    }

    /// A transaction was aborted whose marker is here.
    pub fn has_aborted(&self) -> bool {
        self.aborted.get().is_some_and(|index| index.readable() > 0)
    }

    /// Readers: adds to `found` what was aborted and has batches in `from..to`. True where no segment
    /// behind this one has such.
    pub fn aborted_in(
        &self,
        from: Offset,
        to: Offset,
        access: Access,
        found: &mut Vec<AbortedTransaction>,
    ) -> Result<bool, Miss> {
        let Some(index) = self.aborted.get() else {
            return Ok(false);
        };
        let entries = index.entries(0, access)?;
        let first = entries.count_where(|entry| entry.last_offset < from);
        for index in first..entries.count() {
            let Some(entry) = entries.get(index) else {
                return Err(Miss::Failed(Error::CorruptFile {
                    path: self.path().with_extension(TXN_INDEX_SUFFIX),
                    reason: format!("entry {index} cannot be read"),
                }));
            };
            if entry.first_offset < to {
                found.push(entry);
            }
            if entry.last_stable_offset >= to {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Writer only. Keeps the transactions whose markers are below `end`.
    pub fn keep_aborted_below(&self, end: Offset) -> Result<()> {
        let Some(index) = self.aborted.get() else {
            return Ok(());
        };
        let sound = self.sound_aborted(end)?;
        index.truncate(sound.count)
    }

    /// Before there are readers, or for the writer: the first entries, as far as they are in order and
    /// have markers below `end`.
    pub fn sound_aborted(&self, end: Offset) -> Result<Sound> {
        let mut sound = Sound {
            count: 0,
            last: None,
            follows: Follows::Nothing,
        };
        let Some(index) = self.aborted.get() else {
            return Ok(sound);
        };
        let mut follows = Follows::Garbage;
        sound.count = index.count_in_order(|entry| {
            let least = sound.last.map_or(self.base_offset(), |last| last + 1);
            // Zeros look like an entry otherwise.
            let is_entry = entry.first_offset < entry.last_offset && entry.last_offset >= least;
            if is_entry && entry.last_offset >= end {
                follows = Follows::Later;
            }
            let is_below = is_entry && entry.last_offset < end;
            if is_below {
                sound.last = Some(entry.last_offset);
            }
            is_below
        })?;
        if sound.count < index.added() {
            sound.follows = follows;
        }
        Ok(sound)
    }

    /// Before there are readers: keeps the first `keep` entries, and has `found` follow. With `durably`
    /// the file is there as it was or as it is to be, on the device, whenever a crash comes.
    pub fn replace_aborted(
        &self,
        keep: u64,
        found: &[AbortedTransaction],
        durably: bool,
    ) -> Result<()> {
        if self.aborted.get().is_none() && found.is_empty() {
            return Ok(());
        }
        let index = self.aborted_index()?;
        let encoded = |entries: &[AbortedTransaction]| {
            let mut bytes = Vec::with_capacity(AbortedTransaction::SIZE * entries.len());
            entries.iter().for_each(|entry| entry.encode(&mut bytes));
            bytes
        };
        let found = encoded(found);
        if !durably {
            return index.replace_after(keep, &found);
        }
        if index.is(keep, &found)? {
            return Ok(());
        }
        let mut all = Vec::new();
        let mut read = 0;
        while read < keep {
            let some = index.read_some(read)?;
            let left = usize::try_from(keep - read).unwrap_or(usize::MAX);
            let some = some.get(..left).unwrap_or(&some);
            if some.is_empty() {
                break;
            }
            read += some.len() as u64;
            all.extend(encoded(some));
        }
        all.extend(found);
        index.replace(&all)
    }

    /// Opens the index, where there is one.
    pub(super) fn open_aborted(
        disk: &Arc<dyn crate::disk::Disk>,
        path: std::path::PathBuf,
        suffix: &str,
    ) -> Result<Option<Index<AbortedTransaction>>> {
        let file = super::MappedFile::new(Arc::clone(disk), path, suffix);
        match disk.len(&file.location()) {
            // Part of an entry counts as one that cannot be read.
            Ok(bytes) => Ok(Some(Index::over(file, bytes.div_ceil(SIZE)))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io("open", file.location(), &error)),
        }
    }
}
