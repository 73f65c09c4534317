//! One stretch of a partition: a `.log` file of record batches, its two sparse indexes, and, where a
//! transaction was aborted, the index of those.
//!
//! The files are named by the segment's base offset in 20 digits. Offsets in a segment are less
//! than 2^31 above its base, positions less than 2^31. Of a segment's bytes
//!
//! - `size` are written (the writer's view, the hidden tail included), and
//! - `readable <= size` may be looked at through maps: they never change and are never cut off.
//!
//! The writer raises `readable` before the index entries that point below it, and both before the
//! offsets by which readers find them; so a reader that takes the entries first and then `readable`
//! never sees an entry that points beyond. Of the two indexes the time index comes first.

mod aborted;
mod batches;
mod cleaned;
mod damage;
mod files;
mod head;
mod held;
mod index;
mod map;
mod maps;
mod resume;
mod scan;
mod tail;
mod times;
mod view;
mod walk;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

pub(crate) use aborted::{AbortedInOrder, Follows};
pub(crate) use batches::Batches;
pub(crate) use cleaned::{CleanedSegment, SWAP_SUFFIX, deleted_suffix, end_of_swap};
pub(crate) use damage::{Damage, DamagedRange};
pub(crate) use files::LookedAt;
pub(crate) use head::BatchHead;
pub(crate) use index::{Entries, Index, OffsetEntry, TimeEntry};
pub(crate) use map::MappedFile;
pub(crate) use resume::Kept;
pub(crate) use scan::{BatchReader, Scan, Scanned};
pub(crate) use tail::Tail;
pub(crate) use view::{Access, Miss, View};
pub(crate) use walk::{Found, Walk, Wanted};
pub(crate) use writer::SegmentWriter;

use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::producer_state::AbortedTransaction;
use crate::retention::SegmentFacts;
use crate::{LogConfig, Offset};

/// The suffix of the file of batches.
pub(crate) const LOG_SUFFIX: &str = "log";
/// The suffix of the offset index.
pub(crate) const INDEX_SUFFIX: &str = "index";
/// The suffix of the time index.
pub(crate) const TIME_INDEX_SUFFIX: &str = "timeindex";
/// The suffix of the index of aborted transactions.
pub(crate) const TXN_INDEX_SUFFIX: &str = "txnindex";
/// The suffix of a producer snapshot.
pub(crate) const SNAPSHOT_SUFFIX: &str = "snapshot";

/// In place of a segment's largest timestamp: nobody has looked yet.
const NOT_LOOKED_UP: i64 = i64::MIN;
/// In place of a segment's largest timestamp: its batches have none.
const NO_TIMESTAMP: i64 = -1;

/// The name that Kafka gives a file of the segment, or of the moment, at `offset`.
pub(crate) fn file_name(offset: Offset, suffix: &str) -> String {
    format!("{offset:020}.{suffix}")
}

/// The offset and the suffix in such a name.
pub(crate) fn parse_file_name(path: &Path) -> Option<(Offset, &str)> {
    let (digits, suffix) = path.file_name()?.to_str()?.split_once('.')?;
    let numeric = digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit());
    Some((digits.parse().ok().filter(|_| numeric)?, suffix))
}

/// How large a segment's files will get, so that one map serves them all their life.
#[derive(Clone, Copy, Debug)]
struct Expected {
    log_bytes: u64,
    index_bytes: u64,
}

impl Expected {
    /// Of a segment that has all it will have.
    const NO_MORE: Self = Self {
        log_bytes: 0,
        index_bytes: 0,
    };

    fn of(config: &LogConfig) -> Self {
        Self {
            log_bytes: config.segment_bytes.min(i32::MAX as u64),
            index_bytes: u64::from(config.segment_index_bytes),
        }
    }
}

/// A segment, shared by the writer and any number of readers.
#[derive(Debug)]
pub(crate) struct Segment {
    base_offset: Offset,
    log: MappedFile,
    offset_index: Index<OffsetEntry>,
    time_index: Index<TimeEntry>,
    /// There from the first entry on.
    aborted: OnceLock<Index<AbortedTransaction>>,
    size: AtomicU64,
    readable: AtomicU64,
    /// Of everything written, the hidden tail included, milliseconds since the epoch.
    largest_timestamp: AtomicI64,
    expected: Expected,
    /// Room beyond `size` was reserved, and not given back.
    has_room: AtomicBool,
    /// Its end was cut off since the last sync.
    cut: AtomicBool,
    /// The segment behind this one begins there; [`Offset::MAX`] where there is none.
    next_base: AtomicI64,
    /// Offsets may be missing: the log is compacted.
    has_gaps: bool,
    damage: Damage,
    /// An index was found not to say what the log does.
    distrusted: AtomicBool,
    /// See `times`.
    times_checked: AtomicU8,
}

impl Segment {
    /// Creates the files of an empty segment, all or none. The folder is not synced.
    /// [`Error::ReadOnly`] where not even what was created could be removed again: were the log to
    /// go on, that would be a segment in its midst.
    pub fn create(
        disk: &Arc<dyn Disk>,
        dir: &Path,
        base_offset: Offset,
        config: &LogConfig,
    ) -> Result<Self> {
        let error = match Self::create_files(disk, dir, base_offset, config, "") {
            Ok(segment) => return Ok(segment),
            Err(error) => error,
        };
        for suffix in [LOG_SUFFIX, INDEX_SUFFIX, TIME_INDEX_SUFFIX] {
            match disk.remove_file(&dir.join(file_name(base_offset, suffix))) {
                Err(left) if left.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::ReadOnly(format!(
                        "{error}, and a file was left: {left}"
                    )));
                }
                _ => {}
            }
        }
        Err(error)
    }

    fn create_files(
        disk: &Arc<dyn Disk>,
        dir: &Path,
        base_offset: Offset,
        config: &LogConfig,
        suffix: &str,
    ) -> Result<Self> {
        let path = |kind| dir.join(file_name(base_offset, kind));
        let expected = Expected::of(config);
        let log = MappedFile::create(Arc::clone(disk), path(LOG_SUFFIX), suffix)?;
        let has_room =
            config.preallocate && suffix.is_empty() && reserve(&log, expected.log_bytes)?;
        Ok(Self {
            base_offset,
            log,
            offset_index: Index::create(Arc::clone(disk), path(INDEX_SUFFIX), suffix)?,
            time_index: Index::create(Arc::clone(disk), path(TIME_INDEX_SUFFIX), suffix)?,
            aborted: OnceLock::new(),
            size: AtomicU64::new(0),
            readable: AtomicU64::new(0),
            largest_timestamp: AtomicI64::new(NOT_LOOKED_UP),
            expected,
            has_room: AtomicBool::new(has_room),
            cut: AtomicBool::new(false),
            next_base: AtomicI64::new(Offset::MAX),
            has_gaps: config.compact,
            damage: Damage::default(),
            distrusted: AtomicBool::new(false),
            times_checked: AtomicU8::new(times::UNCHECKED),
        })
    }

    /// Opens a segment whose `.log` exists, the newest one to go on with. An index that is missing or has an impossible size
    /// counts as empty, and waits for its repair; the second value tells whether both were sound.
    pub fn open(
        disk: &Arc<dyn Disk>,
        dir: &Path,
        base_offset: Offset,
        newest: bool,
        config: &LogConfig,
    ) -> Result<(Self, bool)> {
        Self::open_files(disk, dir, base_offset, newest, config, "")
    }

    /// As [`Segment::open`], of files that have `suffix` behind their names.
    fn open_files(
        disk: &Arc<dyn Disk>,
        dir: &Path,
        base_offset: Offset,
        newest: bool,
        config: &LogConfig,
        suffix: &str,
    ) -> Result<(Self, bool)> {
        let path = |kind| dir.join(file_name(base_offset, kind));
        let log = MappedFile::new(Arc::clone(disk), path(LOG_SUFFIX), suffix);
        let size = disk
            .open(&log.location(), false)
            .and_then(|file| file.len())
            .map_err(|error| Error::io("open", log.location(), &error))?;
        let (offset_index, offsets_sound) = open_index(disk, path(INDEX_SUFFIX), suffix)?;
        let (time_index, times_sound) = open_index(disk, path(TIME_INDEX_SUFFIX), suffix)?;
        let aborted = Self::open_aborted(disk, path(TXN_INDEX_SUFFIX), suffix)?;
        let segment = Self {
            base_offset,
            log,
            offset_index,
            time_index,
            aborted: aborted.map_or_else(OnceLock::new, OnceLock::from),
            size: AtomicU64::new(size),
            readable: AtomicU64::new(0),
            largest_timestamp: AtomicI64::new(NOT_LOOKED_UP),
            expected: if newest {
                Expected::of(config)
            } else {
                Expected::NO_MORE
            },
            has_room: AtomicBool::new(false),
            cut: AtomicBool::new(false),
            next_base: AtomicI64::new(Offset::MAX),
            has_gaps: config.compact,
            damage: Damage::default(),
            distrusted: AtomicBool::new(false),
            times_checked: AtomicU8::new(times::UNCHECKED),
        };
        Ok((segment, offsets_sound && times_sound))
    }

    /// The first offset that the segment may hold.
    pub fn base_offset(&self) -> Offset {
        self.base_offset
    }

    /// Says where the segment behind this one begins, if there is one.
    pub fn set_next_base(&self, next: Option<Offset>) {
        let next = next.unwrap_or(Offset::MAX);
        self.next_base.store(next, Ordering::Release);
    }

    /// Where the segment behind this one begins.
    pub fn next_base(&self) -> Option<Offset> {
        let next = self.next_base.load(Ordering::Acquire);
        Some(next).filter(|next| *next != Offset::MAX)
    }

    /// The offset that the batches come to, where that is known without looking at them.
    pub fn must_reach(&self) -> Option<Offset> {
        self.next_base().filter(|_| !self.has_gaps)
    }

    /// Says whether offsets may be missing.
    pub fn set_has_gaps(&mut self, has_gaps: bool) {
        self.has_gaps = has_gaps;
    }

    /// What is known to be damaged.
    pub fn damage(&self) -> &Damage {
        &self.damage
    }

    /// Notes, once, that an index does not say what the log does. Lookups do without what is
    /// wrong; a clean stop removes the indexes, and the next start builds them again.
    pub fn distrust(&self, suffix: &str, reason: &str) {
        if !self.distrusted.swap(true, Ordering::AcqRel) {
            let file = self.path().with_extension(suffix);
            let file = file.display();
            tracing::error!(%file, reason, "an index is damaged: it is rebuilt after a clean stop");
        }
    }

    /// An index was found to be damaged.
    pub fn is_distrusted(&self) -> bool {
        self.distrusted.load(Ordering::Acquire)
    }

    /// What retention and compaction choose by.
    pub fn facts(&self) -> SegmentFacts {
        SegmentFacts {
            base_offset: self.base_offset,
            size_bytes: self.size(),
        }
    }

    /// Bytes written.
    pub fn size(&self) -> u64 {
        self.size.load(Ordering::Acquire)
    }

    /// Bytes that readers may look at.
    pub fn readable(&self) -> u64 {
        self.readable.load(Ordering::Acquire)
    }

    /// The `.log` file.
    pub fn path(&self) -> &Path {
        self.log.path()
    }

    /// The files, for removing them.
    pub fn paths(&self) -> impl DoubleEndedIterator<Item = PathBuf> {
        self.files().map(MappedFile::location)
    }

    /// Calls the files otherwise, the `.log` last: as [`MappedFile::rename`].
    pub fn rename(&self, suffix: &str) -> Result<()> {
        self.files()
            .skip(1)
            .chain([&self.log])
            .try_for_each(|file| file.rename(suffix))
    }

    /// Removes the files.
    pub fn remove(&self) -> Result<()> {
        self.files().try_for_each(MappedFile::remove)
    }

    /// The `.log` first.
    fn files(&self) -> impl DoubleEndedIterator<Item = &MappedFile> {
        let aborted = self.aborted.get().map(Index::file);
        [&self.log, self.offset_index.file(), self.time_index.file()]
            .into_iter()
            .chain(aborted)
    }

    /// Its end was cut off, and a power cut could bring that back: behind it, where the next segment
    /// begins, it would be damage. True until the next sync of the file of batches.
    pub fn was_cut(&self) -> bool {
        self.cut.load(Ordering::Acquire)
    }

    /// Says whether it was.
    pub fn set_was_cut(&self, cut: bool) {
        self.cut.store(cut, Ordering::Release);
    }

    /// Puts the indexes on the device.
    pub fn sync_indexes(&self) -> Result<()> {
        self.offset_index.sync()?;
        self.time_index.sync()?;
        self.aborted.get().map_or(Ok(()), Index::sync)
    }

    /// Gives back the room that was reserved and is not needed any more.
    pub fn give_room_back(&self) -> Result<()> {
        if self.has_room.swap(false, Ordering::AcqRel) {
            // To the length that it has: what is reserved beyond goes.
            self.log.set_len(self.size())?;
        }
        Ok(())
    }

    /// The largest timestamp of everything written; `None` where no batch has one. From memory, but
    /// for the first look at a segment that the process has found closed: that one reads the last
    /// entries of its indexes and the headers behind them, and blocks.
    pub fn largest_timestamp(&self) -> Result<Option<i64>> {
        let slot = &self.largest_timestamp;
        let mut known = slot.load(Ordering::Acquire);
        if known == NOT_LOOKED_UP {
            let found = self.look(|| self.look_up_largest())?;
            let found = found.unwrap_or(NO_TIMESTAMP);
            let order = (Ordering::AcqRel, Ordering::Acquire);
            // A writer that has taken the segment up meanwhile knows better.
            known = match slot.compare_exchange(NOT_LOOKED_UP, found, order.0, order.1) {
                Ok(_) => found,
                Err(newer) => newer,
            };
        }
        Ok(Some(known).filter(|known| *known > NO_TIMESTAMP))
    }

    /// Writer only: what the batches have come to.
    fn set_largest_timestamp(&self, tail: &Tail) {
        let largest = tail.max_timestamp.map_or(NO_TIMESTAMP, |(time, _)| time);
        self.largest_timestamp.store(largest, Ordering::Release);
    }

    /// Blocking. When the `.log` file was last written to, milliseconds since the epoch.
    pub fn modified_ms(&self) -> Result<i64> {
        self.log
            .file()?
            .modified_ms()
            .map_err(|error| self.log.io("stat", &error))
    }

    /// Blocking. How new the segment is: its largest timestamp, or else when its file was written.
    pub fn newest_ms(&self) -> Result<i64> {
        match self.largest_timestamp()? {
            Some(largest) => Ok(largest),
            None => self.modified_ms(),
        }
    }

    /// Blocking. The largest timestamp of the first batch; `None` where it has none, or there is none.
    pub fn first_timestamp(&self) -> Result<Option<i64>> {
        if self.size() == 0 {
            return Ok(None);
        }
        let first = self.look(|| BatchReader::heads(self).head(0))?;
        let timestamp = first.ok().map(|(head, _)| head.max_timestamp);
        Ok(timestamp.filter(|timestamp| *timestamp > NO_TIMESTAMP))
    }

    /// Blocking. Where the first batch begins that has offsets from `offset` on; the segment's end where
    /// there is none.
    pub fn position_from(&self, offset: Offset) -> Result<u64> {
        let found = self.look(|| self.seek(offset))?;
        Ok(found.map_or(self.size(), |(position, _)| position))
    }

    /// Gives readers everything that is written.
    pub fn publish(&self) {
        self.readable.store(self.size(), Ordering::Release);
        // In this order, so that whoever looks at the entries in the other finds the times of
        // everything before the last batch that it has a position of.
        self.time_index.publish(self.time_index.added());
        self.offset_index.publish(self.offset_index.added());
        if let Some(aborted) = self.aborted.get() {
            aborted.publish(aborted.added());
        }
    }

    /// Gives readers the batches before `position`, whose offsets are all below `end`.
    pub fn publish_to(&self, position: u64, end: Offset) -> Result<()> {
        let (offsets, times) = self.entries_below(end)?;
        self.readable.store(position, Ordering::Release);
        self.time_index.publish(times);
        self.offset_index.publish(offsets);
        Ok(())
    }

    /// Blocking, through the file: an offset, beyond that of the last entry for a batch that begins
    /// at or before `position`; a batch begins there. The base offset where there is no such entry.
    pub fn offset_before(&self, position: u64) -> Result<Offset> {
        let before = self
            .offset_index
            .count_while(|entry| u64::from(entry.position) <= position)?;
        Ok(match before.checked_sub(1) {
            Some(last) => {
                self.base_offset + i64::from(self.offset_index.read(last)?.relative_offset) + 1
            }
            None => self.base_offset,
        })
    }

    /// How many entries of each index are for offsets below `end`.
    fn entries_below(&self, end: Offset) -> Result<(u64, u64)> {
        let below = |relative: u32| self.base_offset + i64::from(relative) < end;
        Ok((
            self.offset_index
                .count_while(|entry| below(entry.relative_offset))?,
            self.time_index
                .count_while(|entry| below(entry.relative_offset))?,
        ))
    }

    /// What is wrong with this segment's log file.
    pub fn corrupt(&self, position: u64, reason: impl std::fmt::Display) -> Error {
        Error::CorruptFile {
            path: self.path().to_owned(),
            reason: format!("at position {position}: {reason}"),
        }
    }
}

/// Reserves a new segment's room. False where the file system cannot, which is said once.
fn reserve(log: &MappedFile, bytes: u64) -> Result<bool> {
    static SAID: AtomicBool = AtomicBool::new(false);
    let reserved = log.allocate(bytes)?;
    if !reserved && !SAID.swap(true, Ordering::Relaxed) {
        tracing::warn!(
            file = %log.path().display(),
            "the file system cannot reserve room: segments are not preallocated"
        );
    }
    Ok(reserved)
}

fn open_index<E: index::Entry>(
    disk: &Arc<dyn Disk>,
    path: PathBuf,
    suffix: &str,
) -> Result<(Index<E>, bool)> {
    match Index::open(Arc::clone(disk), path.clone(), suffix) {
        Ok(index) => Ok((index, true)),
        Err(
            Error::CorruptFile { .. }
            | Error::Io {
                kind: std::io::ErrorKind::NotFound,
                ..
            },
        ) => Ok((Index::lost(Arc::clone(disk), path), false)),
        Err(error) => Err(error),
    }
}
