//! The two sparse indexes of a segment, in Kafka's formats. Big-endian.
//!
//! | file | entry | bytes |
//! |---|---|---|
//! | `.index` | last offset of a batch, relative to the segment's base (u32) · where that batch begins (u32) | 8 |
//! | `.timeindex` | largest timestamp so far (i64) · last offset of the first batch that has it, relative (u32) | 12 |
//!
//! Entries are gathered (see `held.rs`), written with `pwrite` and read through a map. An index is never
//! longer on disk than its entries. `added` counts the entries, in the file or held, and is the
//! writer's; `readable` counts those that point below the segment's readable end, which nothing cuts
//! off, and is the readers'.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::held::Held;
use super::map::MappedFile;
use super::view::{Access, Miss, View};
use crate::disk::{self, Disk};
use crate::error::{Error, Result};

/// Entries read at once where all of an index is looked at.
const ENTRIES_PER_CHUNK: usize = 4096;

/// Where a batch begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OffsetEntry {
    /// The batch's last offset, relative to the segment's base.
    pub relative_offset: u32,
    /// In the segment's log file.
    pub position: u32,
}

/// The largest timestamp at some point of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TimeEntry {
    /// Milliseconds since the epoch.
    pub timestamp: i64,
    /// The last offset of the first batch that has it, relative to the segment's base.
    pub relative_offset: u32,
}

/// How an entry lies on disk.
pub(crate) trait Entry: Copy {
    /// Bytes.
    const SIZE: usize;
    /// Appends the entry's bytes.
    fn encode(&self, to: &mut Vec<u8>);
    /// Reads [`Entry::SIZE`] bytes.
    fn decode(bytes: &[u8]) -> Option<Self>;
}

impl Entry for OffsetEntry {
    const SIZE: usize = 8;

    fn encode(&self, to: &mut Vec<u8>) {
        to.extend_from_slice(&self.relative_offset.to_be_bytes());
        to.extend_from_slice(&self.position.to_be_bytes());
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (offset, position) = bytes.split_first_chunk::<4>()?;
        Some(Self {
            relative_offset: u32::from_be_bytes(*offset),
            position: u32::from_be_bytes(*position.first_chunk()?),
        })
    }
}

impl Entry for TimeEntry {
    const SIZE: usize = 12;

    fn encode(&self, to: &mut Vec<u8>) {
        to.extend_from_slice(&self.timestamp.to_be_bytes());
        to.extend_from_slice(&self.relative_offset.to_be_bytes());
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (timestamp, offset) = bytes.split_first_chunk::<8>()?;
        Some(Self {
            timestamp: i64::from_be_bytes(*timestamp),
            relative_offset: u32::from_be_bytes(*offset.first_chunk()?),
        })
    }
}

/// One index file.
#[derive(Debug)]
pub(crate) struct Index<E> {
    file: MappedFile,
    held: Held<E>,
    added: AtomicU64,
    readable: AtomicU64,
}

impl<E: Entry> Index<E> {
    /// A new, empty index, as [`MappedFile::create`].
    pub fn create(disk: Arc<dyn Disk>, path: PathBuf, suffix: &str) -> Result<Self> {
        Ok(Self::over(MappedFile::create(disk, path, suffix)?, 0))
    }

    /// An index that exists. `Err` with `NotFound` where it does not, `CorruptFile` where its size
    /// is no multiple of an entry's.
    pub fn open(disk: Arc<dyn Disk>, path: PathBuf, suffix: &str) -> Result<Self> {
        let file = MappedFile::new(Arc::clone(&disk), path.clone(), suffix);
        let bytes = disk
            .len(&file.location())
            .map_err(|error| Error::io("open", file.location(), &error))?;
        if bytes % E::SIZE as u64 != 0 {
            let reason = format!("{bytes} bytes are no multiple of {}", E::SIZE);
            return Err(Error::CorruptFile { path, reason });
        }
        Ok(Self::over(file, bytes / E::SIZE as u64))
    }

    /// An index whose file is missing or of no use, until [`Index::replace`].
    pub fn lost(disk: Arc<dyn Disk>, path: PathBuf) -> Self {
        Self::over(MappedFile::new(disk, path, ""), 0)
    }

    /// An index whose file has so many entries.
    pub fn over(file: MappedFile, entries: u64) -> Self {
        Self {
            file,
            held: Held::behind(entries),
            added: AtomicU64::new(entries),
            readable: AtomicU64::new(0),
        }
    }

    /// The file.
    pub fn file(&self) -> &MappedFile {
        &self.file
    }

    /// Entries, in the file or held.
    pub fn added(&self) -> u64 {
        self.added.load(Ordering::Acquire)
    }

    /// Entries for readers.
    pub fn readable(&self) -> u64 {
        self.readable.load(Ordering::Acquire)
    }

    /// Gives the first `entries` to readers.
    pub fn publish(&self, entries: u64) {
        self.readable.store(entries, Ordering::Release);
    }

    /// Writer only. Adds one entry. On an error it is among those that are held: cut it off.
    pub fn append(&self, entry: &E) -> Result<()> {
        let is_time = self.held.push(*entry);
        self.added.fetch_add(1, Ordering::AcqRel);
        if is_time { self.write_held() } else { Ok(()) }
    }

    /// Puts all entries into the file.
    pub fn write_held(&self) -> Result<()> {
        if self.held.is_empty() {
            return Ok(());
        }
        // First: where the system has no handle for it, no write has failed.
        let _open = self.file.to_write()?;
        self.held.write(|in_file, entries| {
            let mut bytes = Vec::with_capacity(E::SIZE * entries.len());
            entries.iter().for_each(|entry| entry.encode(&mut bytes));
            self.file.write_all_at(&[&bytes], in_file * E::SIZE as u64)
        })
    }

    /// Writer only. Cuts off all but the first `entries`, also of what a failed write left.
    pub fn truncate(&self, entries: u64) -> Result<()> {
        self.held.truncate(entries, |in_file| {
            self.file.set_len(in_file * E::SIZE as u64)
        })?;
        self.added.store(entries, Ordering::Release);
        Ok(())
    }

    /// Writer only, before there are readers: keeps the first `keep` entries and puts `entries`,
    /// encoded, behind them.
    pub fn replace_after(&self, keep: u64, entries: &[u8]) -> Result<()> {
        if self.is(keep, entries)? {
            return Ok(());
        }
        self.truncate(keep)?;
        if !entries.is_empty() {
            self.file.write_all_at(&[entries], keep * E::SIZE as u64)?;
        }
        self.reset(keep + (entries.len() / E::SIZE) as u64);
        Ok(())
    }

    /// The file is the first `keep` entries and `entries` already.
    pub fn is(&self, keep: u64, entries: &[u8]) -> Result<bool> {
        let added = (entries.len() / E::SIZE) as u64;
        if self.added() != keep + added || !self.held.is_empty() {
            return Ok(false);
        }
        if added == 0 {
            return Ok(true);
        }
        let mut bytes = vec![0; entries.len()];
        let file = self.file.file()?;
        let read = disk::read_full_at(file.as_ref(), &mut bytes, keep * E::SIZE as u64)
            .map_err(|error| self.file.io("read", &error))?;
        Ok(read == entries.len() && bytes == entries)
    }

    /// Writer only, before there are readers: puts `entries`, encoded, in the place of all there
    /// are. After a crash the old file is there or the new one, on the device.
    pub fn replace(&self, entries: &[u8]) -> Result<()> {
        self.file.replace(entries)?;
        self.reset((entries.len() / E::SIZE) as u64);
        Ok(())
    }

    /// The file has so many entries, and there are no others.
    fn reset(&self, entries: u64) {
        self.held.reset(entries);
        self.added.store(entries, Ordering::Release);
    }

    /// Puts the entries on the device.
    pub fn sync(&self) -> Result<()> {
        self.write_held()?;
        self.held.shrink();
        self.file.sync()
    }

    /// Blocking, through the file: entry `index`.
    pub fn read(&self, index: u64) -> Result<E> {
        if let Some(entry) = self.held.get(index) {
            return Ok(entry);
        }
        let mut bytes = vec![0; E::SIZE];
        let file = self.file.file()?;
        disk::read_exact_at(file.as_ref(), &mut bytes, index * E::SIZE as u64)
            .map_err(|error| self.file.io("read", &error))?;
        E::decode(&bytes).ok_or_else(|| Error::CorruptFile {
            path: self.file.path().to_owned(),
            reason: format!("entry {index} cannot be read"),
        })
    }

    /// Blocking, through the file: some entries from `index` on; none at the end.
    pub fn read_some(&self, index: u64) -> Result<Vec<E>> {
        let (in_file, held) = self.held.from(index);
        let left = in_file.saturating_sub(index);
        if left == 0 {
            // There may be no file.
            return Ok(held);
        }
        let count = left.min(ENTRIES_PER_CHUNK as u64) as usize;
        let mut bytes = vec![0; E::SIZE * count];
        let file = self.file.file()?;
        let read = disk::read_full_at(file.as_ref(), &mut bytes, index * E::SIZE as u64)
            .map_err(|error| self.file.io("read", &error))?;
        bytes.truncate(read);
        Ok(bytes.chunks_exact(E::SIZE).map_while(E::decode).collect())
    }

    /// Blocking, through the file: how many of the first entries `keep` holds for, which must be
    /// some and then none.
    pub fn count_while(&self, keep: impl FnMut(&E) -> bool) -> Result<u64> {
        self.count_among(self.added(), keep)
    }

    /// As [`Index::count_while`], of the first `entries` alone.
    pub fn count_among(&self, entries: u64, mut keep: impl FnMut(&E) -> bool) -> Result<u64> {
        let (mut low, mut high) = (0, entries);
        self.file.look(|| {
            while low < high {
                let middle = low + (high - low) / 2;
                if keep(&self.read(middle)?) {
                    low = middle + 1;
                } else {
                    high = middle;
                }
            }
            Ok(low)
        })
    }

    /// Blocking, through the file: how many of the first entries `keep` holds for, looking at them
    /// one after another. For entries that may be anything, after a crash.
    pub fn count_in_order(&self, mut keep: impl FnMut(&E) -> bool) -> Result<u64> {
        let mut counted = 0;
        loop {
            let entries = self.read_some(counted)?;
            if entries.is_empty() {
                return Ok(counted);
            }
            for entry in entries {
                if !keep(&entry) {
                    return Ok(counted);
                }
                counted += 1;
            }
        }
    }

    /// The readable entries, in memory as `access` says. `expected` is the index's size in bytes
    /// when it will be full.
    pub fn entries(&self, expected: u64, access: Access) -> Result<Entries<E>, Miss> {
        let count = self.readable();
        if count == 0 {
            return Ok(Entries::none());
        }
        let (in_file, held) = self.held.up_to(count);
        let view = match in_file {
            0 => None,
            _ => Some(self.file.view(in_file * E::SIZE as u64, expected)?),
        };
        if let Some(view) = &view {
            view.ensure(0..view.len(), access)?;
        }
        Ok(Entries {
            view,
            in_file,
            held,
            count,
        })
    }
}

/// The readable entries of an index at one moment.
#[derive(Debug)]
pub(crate) struct Entries<E> {
    /// The first `in_file`.
    view: Option<View>,
    in_file: u64,
    /// Those that follow.
    held: Vec<E>,
    count: u64,
}

impl<E: Entry> Entries<E> {
    /// Nothing.
    pub fn none() -> Self {
        Self {
            view: None,
            in_file: 0,
            held: Vec::new(),
            count: 0,
        }
    }

    /// Entry `index`.
    pub fn get(&self, index: u64) -> Option<E> {
        if let Some(held) = index.checked_sub(self.in_file) {
            return self.held.get(usize::try_from(held).ok()?).copied();
        }
        let start = usize::try_from(index).ok()?.checked_mul(E::SIZE)?;
        E::decode(
            self.view
                .as_ref()?
                .get(start..start.checked_add(E::SIZE)?)?,
        )
    }

    /// The last entry.
    pub fn last(&self) -> Option<E> {
        self.get(self.count.checked_sub(1)?)
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The last of the first entries for which `holds`, which must be some and then none.
    pub fn last_where(&self, holds: impl Fn(&E) -> bool) -> Option<E> {
        self.get(self.count_where(holds).checked_sub(1)?)
    }

    /// How many of the first entries `holds` for, which must be some and then none.
    pub fn count_where(&self, holds: impl Fn(&E) -> bool) -> u64 {
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.get(middle).is_some_and(|entry| holds(&entry)) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }
}
