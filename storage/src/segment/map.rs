//! The files of a segment: opened and mapped where they are needed, written, synced.
//!
//! A map is made at a read and may be longer than the file, so that a growing segment is mapped a few
//! times in its life. How many stay is bounded (`maps`); what may be looked at through one is
//! [`View`]'s.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use memmap2::Advice;

use super::maps::MapSlot;
use super::view::View;
use crate::checkpoint;
use crate::disk::{self, Disk, File};
use crate::error::{Error, Result};
use crate::open_files;

/// A file that grows is mapped this far beyond its end at least.
const LEAST_AHEAD: usize = 64 << 10;

/// A file that is opened and mapped when it is first needed.
///
/// Its handle is kept from the first write on, until what was written is on the device: a device that
/// can't keep it says so to those who had the file open. Whoever reads opens the file for as long as
/// it takes, where nobody has it open.
#[derive(Debug)]
pub(crate) struct MappedFile {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    opened: Mutex<Opened>,
    /// Something may not be on the device. Set before each write, and again behind it, as a sync may
    /// have begun in between; whoever writes or syncs has a share of the handle meanwhile.
    unsynced: AtomicBool,
    /// Held while a sync runs: who comes meanwhile does not take what it has begun for done.
    syncing: Mutex<()>,
    /// There from the first look through a map on.
    map: OnceLock<Arc<MapSlot>>,
}

/// A file's handle, and where it is opened by name.
#[derive(Debug)]
struct Opened {
    /// Counted in [`open_files`] while it is there.
    handle: Option<Arc<dyn File>>,
    /// How many look at the file now, and what it was opened with for them.
    looks: usize,
    looked_at: Option<Arc<dyn File>>,
    /// In the place of `path`: a segment's files have other names before they are part of the log, and
    /// when they no longer are.
    moved_to: Option<PathBuf>,
}

impl MappedFile {
    /// Nothing is opened yet; the file has to exist when it is needed. It is called `path` with
    /// `suffix` behind, until it is renamed.
    pub fn new(disk: Arc<dyn Disk>, path: PathBuf, suffix: &str) -> Self {
        Self {
            disk,
            opened: Mutex::new(Opened {
                handle: None,
                looks: 0,
                looked_at: None,
                moved_to: (!suffix.is_empty()).then(|| with_suffix(&path, suffix)),
            }),
            path,
            // Who knows what was done to it before.
            unsynced: AtomicBool::new(true),
            syncing: Mutex::new(()),
            map: OnceLock::new(),
        }
    }

    /// Creates the file, emptied where one was left behind; called as in [`MappedFile::new`].
    pub fn create(disk: Arc<dyn Disk>, path: PathBuf, suffix: &str) -> Result<Self> {
        let located = with_suffix(&path, suffix);
        let file = disk
            .open(&located, true)
            .map_err(|error| Error::io("open", &located, &error))?;
        let len = file
            .len()
            .map_err(|error| Error::io("stat", &located, &error))?;
        let created = Self::new(disk, path, suffix);
        if len > 0 {
            file.set_len(0)
                .map_err(|error| Error::io("truncate", &located, &error))?;
            created.keep(&mut created.opened(), file);
        } else {
            // It has nothing to lose.
            created.unsynced.store(false, Ordering::Release);
        }
        Ok(created)
    }

    /// Creates an empty file that is called as this one, and renamed as it was, but for what follows
    /// the dot.
    pub fn create_beside(&self, extension: &str) -> Result<Self> {
        let path = self.path.with_extension(extension);
        let located = self.location().into_os_string();
        let own = self.path.as_os_str().len();
        let suffix = located
            .to_str()
            .and_then(|located| located.get(own..))
            .unwrap_or_default();
        Self::create(Arc::clone(&self.disk), path, suffix)
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

    /// Opened once at most from here to [`MappedFile::end_look`], for all who read it meanwhile.
    pub fn begin_look(&self) {
        self.opened().looks += 1;
    }

    /// As long as `look` takes.
    pub fn look<T>(&self, look: impl FnOnce() -> T) -> T {
        self.begin_look();
        let found = look();
        self.end_look();
        found
    }

    /// The end of a look.
    pub fn end_look(&self) {
        let mut opened = self.opened();
        opened.looks = opened.looks.saturating_sub(1);
        if opened.looks == 0 {
            opened.looked_at = None;
        }
    }

    /// The file where it is open, or one that is open for as long as the caller keeps it. Only for
    /// reading, or what need not last.
    pub fn file(&self) -> Result<Arc<dyn File>> {
        self.open_file().map_err(|error| self.io("open", &error))
    }

    fn open_file(&self) -> std::io::Result<Arc<dyn File>> {
        let mut opened = self.opened();
        if let Some(file) = opened.handle.as_ref().or(opened.looked_at.as_ref()) {
            return Ok(Arc::clone(file));
        }
        let file = self.open(&opened)?;
        if opened.looks > 0 {
            opened.looked_at = Some(Arc::clone(&file));
        }
        Ok(file)
    }

    /// The file, open for a write. It stays open until what is written is on the device, and in any case
    /// for as long as the caller has it.
    pub fn to_write(&self) -> Result<Arc<dyn File>> {
        let mut opened = self.opened();
        let file = match &opened.handle {
            Some(file) => Arc::clone(file),
            None => {
                let file = self
                    .open(&opened)
                    .map_err(|error| self.io("open", &error))?;
                self.keep(&mut opened, Arc::clone(&file));
                file
            }
        };
        self.unsynced.store(true, Ordering::Release);
        Ok(file)
    }

    fn change<T>(
        &self,
        call: &'static str,
        change: impl FnOnce(&dyn File) -> std::io::Result<T>,
    ) -> Result<T> {
        let file = self.to_write()?;
        let changed = change(file.as_ref());
        // A sync may have begun before.
        self.unsynced.store(true, Ordering::Release);
        changed.map_err(|error| self.io(call, &error))
    }

    fn keep(&self, opened: &mut Opened, file: Arc<dyn File>) {
        if opened.handle.replace(file).is_none() {
            open_files::opened();
        }
    }

    /// Keeps the file open no longer, if all of it is on the device and nobody is at it.
    pub fn close(&self) {
        let mut opened = self.opened();
        // Nobody has a share: what was done with one is to be seen from here.
        let is_idle = opened
            .handle
            .as_mut()
            .is_some_and(|file| Arc::get_mut(file).is_some());
        if is_idle && !self.unsynced.load(Ordering::Acquire) {
            self.drop_handle(&mut opened);
        }
    }

    /// As [`MappedFile::close`], whatever is not on the device: somebody was told of that.
    pub fn give_up(&self) {
        self.drop_handle(&mut self.opened());
    }

    fn drop_handle(&self, opened: &mut Opened) {
        if opened.handle.take().is_some() {
            open_files::closed();
        }
    }

    /// Its handle is kept.
    pub fn is_kept(&self) -> bool {
        self.opened().handle.is_some()
    }

    /// Puts a file with `bytes` in the place of this one, durably and as a whole.
    pub fn replace(&self, bytes: &[u8]) -> Result<()> {
        checkpoint::write_file(self.disk.as_ref(), &self.path, bytes)?;
        let mut opened = self.opened();
        self.drop_handle(&mut opened);
        opened.looked_at = None;
        self.unsynced.store(false, Ordering::Release);
        drop(opened);
        if let Some(slot) = self.map.get() {
            slot.empty();
        }
        Ok(())
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
        self.change("write", |file| disk::write_all_at(file, bytes, position))
    }

    pub fn set_len(&self, len: u64) -> Result<()> {
        self.change("truncate", |file| file.set_len(len))
    }

    /// Reserves room for the first `len` bytes. False where the file system cannot.
    pub fn allocate(&self, len: u64) -> Result<bool> {
        self.change("allocate", |file| {
            loop {
                match file.allocate(len) {
                    Ok(()) => return Ok(true),
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(error) if error.kind() == ErrorKind::Unsupported => return Ok(false),
                    Err(error) => return Err(error),
                }
            }
        })
    }

    /// Puts everything written so far on the device, where it is not known to be there.
    pub fn sync(&self) -> Result<()> {
        self.try_sync()
            .map_err(|(call, error)| self.io(call, &error))
    }

    /// The same, with the call that failed and the system's own error.
    pub fn try_sync(&self) -> Result<(), (&'static str, std::io::Error)> {
        let _syncing = self.syncing.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.unsynced.load(Ordering::Acquire) {
            return Ok(());
        }
        let file = self.open_file().map_err(|error| ("open", error))?;
        // Before: what is written from now on is for the next sync.
        self.unsynced.store(false, Ordering::Release);
        let synced = file.sync();
        if synced.is_err() {
            self.unsynced.store(true, Ordering::Release);
        }
        synced.map_err(|error| ("sync", error))
    }

    /// The first `sealed` bytes. A new map is made longer where the file is `expected` to grow.
    pub fn view(&self, sealed: u64, expected: u64) -> Result<View> {
        let too_long = || Error::CorruptFile {
            path: self.path.clone(),
            reason: format!("{sealed} bytes cannot be mapped"),
        };
        let len = usize::try_from(sealed).map_err(|_| too_long())?;
        let slot = self.map.get_or_init(Arc::default);
        if let Some(map) = slot.of(len) {
            return Ok(View::new(map, len));
        }
        // A map needs no open file.
        let file = self.file()?;
        // One that grows is not mapped anew with each read, and one that does not takes up no more
        // address space, and so page tables, than it needs.
        let ahead = len.saturating_mul(2).max(LEAST_AHEAD);
        let expected = usize::try_from(expected).unwrap_or(len);
        let generous = expected.min(ahead).max(len).max(1);
        // An address space too small for the generous map may still have room for the exact one.
        let map = || {
            let map = file.map(generous).or_else(|_| file.map(len.max(1)))?;
            // Only what is asked for: a look at a header would else bring in as much around it as the
            // device reads ahead. It is only advice, and may fail.
            let _ = map.advise(Advice::Random);
            Ok(map)
        };
        let map = slot
            .fill(len, map)
            .map_err(|error| self.io("map", &error))?;
        Ok(View::new(map, len))
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

impl Drop for MappedFile {
    fn drop(&mut self) {
        self.give_up();
    }
}
