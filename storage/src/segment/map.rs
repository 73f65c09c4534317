//! Read-only maps of files that grow.
//!
//! What makes a map safe here: only *sealed* bytes are looked at, that is bytes below a length that
//! the writer has published after it wrote them, which never change and are never cut off while
//! the file is open. [`View`] carries that length and refuses anything beyond it, so that neither a
//! page past the end of the file (SIGBUS) nor a byte that is still being written is ever touched.
//!
//! A map is made at the first read and may be longer than the file, so that one serves a growing
//! segment for its whole life. It lives as long as a [`Bytes`] that was cut from it.

use std::io::ErrorKind;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::Bytes;
use memmap2::{Advice, MmapRaw};

use crate::checkpoint;
use crate::disk::{self, Disk, File};
use crate::error::{Error, Result};

/// Pages asked for in one `mincore`.
const PAGES_PER_PROBE: usize = 1024;
/// Bytes asked for in one advice: where they are more than the device reads ahead, the kernel may leave
/// some out.
const BYTES_PER_ADVICE: usize = 128 << 10;

/// What to do about pages that are not in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Refuse: the caller's thread must not block.
    Probe,
    /// Bring them in.
    Load,
}

/// Why a look at a map came to nothing.
#[derive(Debug)]
pub(crate) enum Miss {
    /// The pages are not in memory, and the access was [`Access::Probe`].
    NotResident,
    /// Damage was met and is known now: whoever looks again from the start steps over it.
    Examined,
    /// An error, the same at every access.
    Failed(Error),
}

impl From<Error> for Miss {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// A file that is opened and mapped when it is first needed.
#[derive(Debug)]
pub(crate) struct MappedFile {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    opened: Mutex<Opened>,
    map: Mutex<Option<Arc<MmapRaw>>>,
}

/// A file's handle, and where it is opened by name.
#[derive(Debug)]
struct Opened {
    handle: Handle,
    /// In the place of `path`: a segment's files have other names before they are part of the log, and
    /// when they no longer are.
    moved_to: Option<PathBuf>,
}

/// What is open of a file. There may be many files that are only read now and then, and systems
/// have a limit of open files.
#[derive(Debug)]
enum Handle {
    /// Nothing yet; what is opened stays open.
    Unopened,
    Open(Arc<dyn File>),
    /// Nothing, and what is opened is closed after its use.
    Closed,
}

impl MappedFile {
    /// Nothing is opened yet; the file has to exist when it is needed. It is called `path` with
    /// `suffix` behind, until it is renamed.
    pub fn new(disk: Arc<dyn Disk>, path: PathBuf, suffix: &str) -> Self {
        Self {
            disk,
            opened: Mutex::new(Opened {
                handle: Handle::Unopened,
                moved_to: (!suffix.is_empty()).then(|| with_suffix(&path, suffix)),
            }),
            path,
            map: Mutex::new(None),
        }
    }

    /// Creates the file, emptied where one was left behind, and keeps it open; called as in
    /// [`MappedFile::new`].
    pub fn create(disk: Arc<dyn Disk>, path: PathBuf, suffix: &str) -> Result<Self> {
        let located = with_suffix(&path, suffix);
        let file = disk
            .open(&located, true)
            .map_err(|error| Error::io("open", &located, &error))?;
        let len = file
            .len()
            .map_err(|error| Error::io("stat", &located, &error))?;
        if len > 0 {
            file.set_len(0)
                .map_err(|error| Error::io("truncate", &located, &error))?;
        }
        let created = Self::new(disk, path, suffix);
        created.opened().handle = Handle::Open(file);
        Ok(created)
    }

    /// What the file is called as a part of the log.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the file is called now.
    pub fn location(&self) -> PathBuf {
        self.located(&self.opened())
    }

    /// Calls the file otherwise: its own name with `suffix` behind. Whoever opens it from now on finds
    /// it there. Nothing is synced.
    pub fn rename(&self, suffix: &str) -> Result<()> {
        let mut opened = self.opened();
        let from = self.located(&opened);
        let to = with_suffix(&self.path, suffix);
        self.disk
            .rename(&from, &to)
            .map_err(|error| Error::io("rename", &from, &error))?;
        opened.moved_to = (!suffix.is_empty()).then_some(to);
        Ok(())
    }

    /// Removes the file, where it is there.
    pub fn remove(&self) -> Result<()> {
        let path = self.location();
        match self.disk.remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(Error::io("remove", &path, &error))
            }
            _ => Ok(()),
        }
    }

    fn located(&self, opened: &Opened) -> PathBuf {
        let moved_to = opened.moved_to.as_ref();
        moved_to.unwrap_or(&self.path).clone()
    }

    /// The open file.
    pub fn file(&self) -> Result<Arc<dyn File>> {
        self.open_file().map_err(|error| self.io("open", &error))
    }

    /// The same, with the system's own error.
    pub fn open_file(&self) -> std::io::Result<Arc<dyn File>> {
        let mut opened = self.opened();
        match &opened.handle {
            Handle::Open(file) => Ok(Arc::clone(file)),
            Handle::Closed => self.open(&opened),
            Handle::Unopened => {
                let file = self.open(&opened)?;
                opened.handle = Handle::Open(Arc::clone(&file));
                Ok(file)
            }
        }
    }

    /// Keeps no handle from now on. Only after a sync: a device that can't keep what was written
    /// says so to those who had the file open.
    pub fn close(&self) {
        self.opened().handle = Handle::Closed;
    }

    /// Puts a file with `bytes` in the place of this one, durably and as a whole.
    pub fn replace(&self, bytes: &[u8]) -> Result<()> {
        checkpoint::write_file(self.disk.as_ref(), &self.path, bytes)?;
        self.opened().handle = Handle::Unopened;
        *self.map.lock().unwrap_or_else(PoisonError::into_inner) = None;
        Ok(())
    }

    /// Keeps the handle that is opened next.
    pub fn reopen(&self) {
        let mut opened = self.opened();
        if matches!(opened.handle, Handle::Closed) {
            opened.handle = Handle::Unopened;
        }
    }

    /// The file where it is open, or one that is open for as long as the caller keeps it: there may
    /// be many closed segments, and most are never looked at again.
    pub fn transient(&self) -> Result<Arc<dyn File>> {
        let opened = self.opened();
        match &opened.handle {
            Handle::Open(file) => Ok(Arc::clone(file)),
            Handle::Unopened | Handle::Closed => {
                self.open(&opened).map_err(|error| self.io("open", &error))
            }
        }
    }

    /// Nobody has needed the file yet.
    pub fn is_unopened(&self) -> bool {
        matches!(self.opened().handle, Handle::Unopened)
    }

    /// Does as if nobody had.
    pub fn forget_handle(&self) {
        self.opened().handle = Handle::Unopened;
    }

    fn opened(&self) -> MutexGuard<'_, Opened> {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self, opened: &Opened) -> std::io::Result<Arc<dyn File>> {
        self.disk
            .open(opened.moved_to.as_ref().unwrap_or(&self.path), false)
    }

    /// An error of a call on this file.
    pub fn io(&self, call: &'static str, error: &std::io::Error) -> Error {
        Error::io(call, &self.path, error)
    }

    pub fn write_all_at(&self, bytes: &[&[u8]], position: u64) -> Result<()> {
        disk::write_all_at(self.file()?.as_ref(), bytes, position)
            .map_err(|error| self.io("write", &error))
    }

    pub fn set_len(&self, len: u64) -> Result<()> {
        self.file()?
            .set_len(len)
            .map_err(|error| self.io("truncate", &error))
    }

    /// Reserves room for the first `len` bytes. False where the file system cannot.
    pub fn allocate(&self, len: u64) -> Result<bool> {
        let file = self.file()?;
        loop {
            match file.allocate(len) {
                Ok(()) => return Ok(true),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::Unsupported => return Ok(false),
                Err(error) => return Err(self.io("allocate", &error)),
            }
        }
    }

    pub fn sync(&self) -> Result<()> {
        self.file()?.sync().map_err(|error| self.io("sync", &error))
    }

    /// The first `sealed` bytes. A new map is made `expected` bytes long where that is more, for a
    /// file that will grow to about that size.
    pub fn view(&self, sealed: u64, expected: u64) -> Result<View> {
        let too_long = || Error::CorruptFile {
            path: self.path.clone(),
            reason: format!("{sealed} bytes cannot be mapped"),
        };
        let len = usize::try_from(sealed).map_err(|_| too_long())?;
        let mut slot = self.map.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(map) = slot.as_ref().filter(|map| map.len() >= len) {
            return Ok(View {
                map: Arc::clone(map),
                len,
            });
        }
        // A map needs no open file.
        let file = self.transient()?;
        // One that has grown out of its map will grow on.
        let grown = if slot.is_some() {
            len.saturating_mul(2)
        } else {
            len
        };
        let generous = usize::try_from(expected).unwrap_or(len).max(grown).max(1);
        // An address space too small for the generous map may still have room for the exact one.
        let map = file
            .map(generous)
            .or_else(|_| file.map(len.max(1)))
            .map_err(|error| self.io("map", &error))?;
        // Only what is asked for: a look at a header would else bring in as much around it as the device
        // reads ahead. It is only advice, and may fail.
        let _ = map.advise(Advice::Random);
        let map = Arc::new(map);
        *slot = Some(Arc::clone(&map));
        Ok(View { map, len })
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// The sealed bytes of a file.
#[derive(Clone, Debug)]
pub(crate) struct View {
    map: Arc<MmapRaw>,
    len: usize,
}

impl View {
    /// Sealed bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Makes sure that a look at `range` does not block, or that it has been waited for.
    pub fn ensure(&self, range: Range<usize>, access: Access) -> Result<(), Miss> {
        let range = range.start.min(self.len)..range.end.min(self.len);
        if range.is_empty() {
            return Ok(());
        }
        match access {
            Access::Probe if self.is_resident(&range) => Ok(()),
            Access::Probe => Err(Miss::NotResident),
            Access::Load => Ok(self.populate(range)?),
        }
    }

    /// `range` of the file; `None` where it is not all sealed.
    pub fn get(&self, range: Range<usize>) -> Option<&[u8]> {
        if range.start > range.end || range.end > self.len {
            return None;
        }
        // SAFETY: the range is inside of the map (`len <= map.len()`), and inside of the file, as
        // its first `len` bytes are sealed: written, never changed and never cut off.
        Some(unsafe { std::slice::from_raw_parts(self.map.as_ptr().add(range.start), range.len()) })
    }

    /// `range` of the file without a copy; empty where it is not all sealed.
    pub fn into_bytes(self, range: Range<usize>) -> Bytes {
        if range.is_empty() || range.end > self.len {
            return Bytes::new();
        }
        Bytes::from_owner(Owned { view: self, range })
    }

    fn is_resident(&self, range: &Range<usize>) -> bool {
        let page = page_size();
        let mut start = range.start / page * page;
        let mut flags = [0_u8; PAGES_PER_PROBE];
        while start < range.end {
            let len = (range.end - start).min(PAGES_PER_PROBE * page);
            let pages = len.div_ceil(page);
            // SAFETY: `start..start + len` is inside of the map and `start` is page-aligned;
            // `flags` has room for one byte per page.
            let result = unsafe {
                libc::mincore(
                    self.map.as_ptr().add(start).cast_mut().cast(),
                    len,
                    flags.as_mut_ptr().cast(),
                )
            };
            if result != 0 || flags.iter().take(pages).any(|flag| flag & 1 == 0) {
                return false;
            }
            start += len;
        }
        true
    }

    /// Has the device begin to read `range`.
    pub fn will_need(&self, range: Range<usize>) {
        let end = range.end.min(self.len);
        for start in (range.start..end).step_by(BYTES_PER_ADVICE) {
            let len = (end - start).min(BYTES_PER_ADVICE);
            // It is only advice, and may fail.
            let _ = self.map.advise_range(Advice::WillNeed, start, len);
        }
    }

    fn populate(&self, range: Range<usize>) -> Result<()> {
        self.will_need(range.clone());
        let error = match self
            .map
            .advise_range(Advice::PopulateRead, range.start, range.len())
        {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        // A kernel before 5.14 does not know the advice: touch the pages one by one. Anything
        // else is the device's failure, which a touch would turn into a signal.
        if error.raw_os_error() != Some(libc::EINVAL) {
            return Err(Error::io("read", "a mapped log file", &error));
        }
        for position in range.clone().step_by(page_size()).chain([range.end - 1]) {
            if let Some(bytes) = self.get(position..position + 1) {
                std::hint::black_box(bytes.first().copied());
            }
        }
        Ok(())
    }
}

/// What keeps a map alive behind a [`Bytes`].
struct Owned {
    view: View,
    range: Range<usize>,
}

impl AsRef<[u8]> for Owned {
    fn as_ref(&self) -> &[u8] {
        self.view.get(self.range.clone()).unwrap_or_default()
    }
}

/// The pages that `range` touches.
pub(super) fn whole_pages(range: &Range<usize>) -> Range<usize> {
    let page = page_size();
    range.start / page * page
        ..range
            .end
            .checked_next_multiple_of(page)
            .unwrap_or(range.end)
}

fn page_size() -> usize {
    static PAGE_SIZE: OnceLock<usize> = OnceLock::new();
    *PAGE_SIZE.get_or_init(|| {
        // SAFETY: `sysconf` only reads its argument.
        let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        usize::try_from(size)
            .ok()
            .filter(|size| size.is_power_of_two())
            .unwrap_or(4096)
    })
}
